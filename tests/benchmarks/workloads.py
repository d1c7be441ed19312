"""What there is to measure, and who takes part."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.benchmarks import long_measures, short_measures
from tests.benchmarks.peers import Peer
from tests.benchmarks.stand import Figures, Stand, stand

LIMIT_S: Final = 1_800


@dataclass(frozen=True)
class Workload:
    """One row of the plan.

    Args:
        title: for tables.
        run: the measurement.
        jobs: how many.
        peers: the keys of those for whom it is made; none: for everybody.
        slow_jobs: how many for other queues of Python, which would take too long for all; not set: as many.
    """

    title: str
    run: Callable[[Stand, int], Awaitable[Figures]]
    jobs: int
    peers: Sequence[str] = ()
    slow_jobs: int | None = None

    def is_for(self, peer: Peer) -> bool:
        return not self.peers or peer.key in self.peers

    async def measure(self, peer: Peer, share: float = 1) -> Figures:
        """One peer's figures of one round, with a share of the jobs. Raises WrongRunError, and PeerError with what the program raised."""
        jobs = self.slow_jobs if peer.is_python and self.slow_jobs else self.jobs
        async with asyncio.timeout(LIMIT_S), stand(peer) as here:
            return await self.run(here, int(jobs * share))


OURS: Final = ("toril",)
PAIR: Final = ("toril", "node")
TRIO: Final = ("toril", "toril-uvloop", "node")

WORKLOADS: Final = {
    "drain": Workload("no-op jobs, one process, 100 slots", short_measures.drain, 20_000, slow_jobs=2_000),
    "bare": Workload("the same beside a bare loop", short_measures.bare, 20_000, ("toril", "toril-uvloop")),
    "adds": Workload("single adds", short_measures.adds, 1_000),
    "sleep": Workload("jobs of 50 ms, 100 slots", short_measures.sleepers, 2_000, slow_jobs=1_000),
    "latency": Workload("an idle worker, one add every 20 ms", short_measures.latency, 250, slow_jobs=100),
    "due": Workload("jobs due at one instant", short_measures.due, 5_000, TRIO),
    "flow": Workload("a parent with 1,000 children", short_measures.flow, 1_000, TRIO),
    "names": Workload("two names, one of them full", long_measures.names, 5_000, OURS),
    "slots": Workload("no-op jobs, more and more slots", long_measures.slots, 5_000, TRIO),
    "kinds": Workload("among prioritized and delayed jobs", long_measures.kinds, 20_000, PAIR),
    "backlog": Workload("more and more jobs waiting", long_measures.backlog, 20_000, PAIR),
    "memory": Workload("a worker's memory after 200,000 jobs", long_measures.memory, 200_000, PAIR),
    "start": Workload("imports and starts", long_measures.start, 1, OURS),
}
