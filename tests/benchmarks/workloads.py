"""What is measured: each workload is a coroutine that gives one peer's figures of one round.

A figure's unit is the end of its name: `…_per_s`, `…_ms`, `…_us`, `…_bytes`; others are shares of one. Every workload that runs jobs
fails unless each of them ran exactly once.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.benchmarks.peers import Peer
from tests.benchmarks.stand import Stand, stand
from tests.line_process import LineProcess

Figures = dict[str, float]
SLOTS: Final = 100
PAIR: Final = ("toril", "node")
TRIO: Final = ("toril", "toril-uvloop", "node")


class WrongRunError(Exception):
    """Jobs ran twice, or not at all, or earlier than they were due: the figures of such a run mean nothing."""


def check(outcome: dict[str, Any], left_out: int = 0) -> None:
    """Raise WrongRunError unless each job ran exactly once, but for so many that need not have run."""
    if outcome["doubled"] or outcome["missing"] > left_out:
        raise WrongRunError(f"{outcome['doubled']} jobs ran more than once, {outcome['missing']} never")


async def check_results(program: LineProcess, jobs: int) -> None:
    """Raise WrongRunError unless the server keeps so many results."""
    kept = await program.ask("results")
    if kept != jobs:
        raise WrongRunError(f"{kept} results are kept instead of {jobs}")


async def drain(here: Stand, jobs: int, slots: int = SLOTS) -> Figures:
    """Add no-op jobs in bulk, then run them all in one process."""
    producer, worker = await here.programs(2)
    empty = await here.server_use()
    added = await producer.ask("fill", jobs=jobs)
    full = await here.server_use()
    outcome = await worker.ask("work", jobs=jobs, slots=slots)
    done = await here.server_use()
    check(outcome)
    await check_results(worker, jobs)
    return {
        "drained_per_s": jobs / outcome["seconds"],
        "added_per_s": jobs / added["seconds"],
        "worker_cpu_us": outcome["cpu_seconds"] / jobs * 1e6,
        "server_cpu_us": (done.cpu_seconds - full.cpu_seconds) / jobs * 1e6,
        "server_cpu_add_us": (full.cpu_seconds - empty.cpu_seconds) / jobs * 1e6,
        "waiting_job_bytes": (full.memory_bytes - empty.memory_bytes) / jobs,
    }


async def adds(here: Stand, jobs: int) -> Figures:
    """Add jobs one after the other, then all at once."""
    [producer] = await here.programs(1)
    one_by_one = await producer.ask("add_one_by_one", jobs=jobs)
    at_once = await producer.ask("add_at_once", jobs=jobs)
    return {
        "one_by_one_us": one_by_one["seconds"] / jobs * 1e6,
        "one_by_one_per_s": jobs / one_by_one["seconds"],
        "at_once_per_s": jobs / at_once["seconds"],
        "speedup": one_by_one["seconds"] / at_once["seconds"],
    }


async def sleepers(here: Stand, jobs: int) -> Figures:
    """Jobs of 50 ms; how near they come to the time that they must take."""
    producer, worker = await here.programs(2)
    await producer.ask("fill", jobs=jobs, name="sleep")
    outcome = await worker.ask("work", jobs=jobs, slots=SLOTS)
    check(outcome)
    return {"of_ideal": jobs / SLOTS * 0.05 / outcome["seconds"]}


async def latency(here: Stand, jobs: int) -> Figures:
    """An idle worker, and another process that adds a job every 20 ms: from the call of the add to the start of the handler."""
    producer, worker = await here.programs(2)
    await worker.ask("listen", jobs=jobs, slots=SLOTS)
    await producer.ask("tick", jobs=jobs, interval_ms=20)
    outcome = await worker.ask("heard")
    check(outcome)
    delays_ms = [delay / 1e6 for delay in outcome["delays"]]
    percentiles = statistics.quantiles(delays_ms, n=100)
    return {"p50_ms": percentiles[49], "p99_ms": percentiles[98]}


async def due(here: Stand, jobs: int) -> Figures:
    """Jobs that are due at one instant, with an idle worker there: when the first and the last one start."""
    producer, worker = await here.programs(2)
    await worker.ask("listen", jobs=jobs, slots=SLOTS)
    due_ms = await producer.ask("add_due", jobs=jobs, in_ms=1_000)
    outcome = await worker.ask("heard")
    check(outcome)
    first_ms, last_ms = (act(outcome["starts"]) / 1e6 - due_ms for act in (min, max))
    if first_ms < 0:
        raise WrongRunError(f"a job started {-first_ms:.1f} ms before it was due")
    return {"first_ms": first_ms, "last_ms": last_ms}


@dataclass(frozen=True)
class Workload:
    """One row of the plan.

    Args:
        title: for tables.
        jobs: how many, for a peer that takes its full share.
        run: the coroutine.
        peers: the keys of those for whom it is made; none: for everybody.
    """

    title: str
    jobs: int
    run: Callable[[Stand, int], Awaitable[Figures]]
    peers: Sequence[str] = ()

    async def measure(self, peer: Peer) -> Figures:
        """One peer's figures of one round. Raises WrongRunError, and PeerError with what the program raised."""
        async with asyncio.timeout(600), stand(peer) as here:
            return await self.run(here, int(self.jobs * peer.share))


WORKLOADS: Final = {
    "drain": Workload("no-op jobs, one process, 100 slots", 20_000, drain),
    "adds": Workload("single adds", 1_000, adds),
    "sleep": Workload("jobs of 50 ms, 100 slots", 2_000, sleepers),
    "latency": Workload("an idle worker, one add every 20 ms", 250, latency),
    "due": Workload("jobs due at one instant", 5_000, due, TRIO),
}
