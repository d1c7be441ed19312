"""One measurement's server, and the programs that run on it.

Each measurement has a fresh server of its own, so none begins with another one's memory, files or connections.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.peers import ROOT, Peer
from tests.line_process import LineProcess
from tests.servers import OwnServer, free_ports

PATIENCE_S: Final = 900
SLOTS: Final = 100
SLOW_US: Final = 1_000
"""From here on the server notes how long a command took."""
NOISE_BYTES: Final = 4_096
"""By so much its memory changes by itself."""
Figures = dict[str, float]


class WrongRunError(Exception):
    """Jobs ran twice, or not at all, or earlier than they were due: the figures of such a run mean nothing."""


async def check_results(program: LineProcess, jobs: int) -> None:
    """Raise WrongRunError unless the server keeps so many results."""
    kept = await program.ask("results")
    if kept != jobs:
        raise WrongRunError(f"{kept} results are kept instead of {jobs}")


@dataclass(frozen=True)
class ServerUse:
    """What the server has used so far."""

    cpu_seconds: float
    memory_bytes: int
    """Without the buffers of connections and of its file, which hold what is on its way at the moment."""


class Stand:
    """`async with stand(peer) as here: worker, producer = await here.programs(2)`."""

    def __init__(self, peer: Peer, server: OwnServer, stack: AsyncExitStack) -> None:
        self.peer = peer
        self.server = server
        self._stack = stack

    async def programs(self, count: int) -> list[LineProcess]:
        """Processes of the peer, which have started, and end with the stand."""
        return [await self._stack.enter_async_context(self._program(self.peer)) for _ in range(count)]

    def _program(self, peer: Peer) -> LineProcess:
        settings = {"host": "127.0.0.1", "port": self.server.port, **peer.settings}
        return LineProcess(peer.command, ROOT, settings=settings, patience_s=PATIENCE_S)

    async def fill(self, jobs: int, *, kind: str = "waiting", name: str = "no-op", by: Peer | None = None) -> float:
        """Add jobs in bulk, by a process of the peer or of another one; how many seconds that took."""
        async with self._program(by or self.peer) as producer:
            added: dict[str, float] = await producer.ask("fill", jobs=jobs, kind=kind, name=name)
        return added["seconds"]

    async def work(self, jobs: int, run: int | None = None, *, slots: int = SLOTS) -> dict[str, Any]:
        """Run so many of the jobs that are there (or all) in a process of its own; what it saw."""
        async with self._program(self.peer) as worker:
            outcome: dict[str, Any] = await worker.ask("work", jobs=jobs, slots=slots, awaited=run)
        self.check(outcome, left_out=jobs - (run or jobs))
        return outcome

    def check(self, outcome: dict[str, Any], left_out: int = 0) -> None:
        """Raise WrongRunError unless each job ran exactly once, but for so many that need not have run and what a peer is known for."""
        if outcome["doubled"] > self.peer.may_double or outcome["missing"] > left_out:
            raise WrongRunError(f"{outcome['doubled']} jobs ran more than once, {outcome['missing']} never")

    async def server_use(self) -> ServerUse:
        cpu: dict[str, Any] = await self.server.ask("INFO", "cpu")
        memory: dict[str, Any] = await self.server.ask("INFO", "memory")
        buffers: int = memory["mem_clients_normal"] + memory["mem_aof_buffer"]
        return ServerUse(cpu["used_cpu_user"] + cpu["used_cpu_sys"], memory["used_memory"] - buffers)

    async def server_at_rest(self) -> ServerUse:
        """The same when its memory has stopped falling: after many adds it still moves its keys into a larger table."""
        use = await self.server_use()
        while True:
            await asyncio.sleep(0.2)
            before, use = use, await self.server_use()
            if use.memory_bytes >= before.memory_bytes - NOISE_BYTES:
                return use


@asynccontextmanager
async def stand(peer: Peer) -> AsyncGenerator[Stand]:
    """A server by TCP, with the settings of the embedded one; its append-only file is not rewritten meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        [port] = await asyncio.to_thread(free_ports, 1)
        server = OwnServer(
            Path(folder), port=port, appendfsync="everysec", auto_aof_rewrite_percentage="0", slowlog_log_slower_than=str(SLOW_US)
        )
        async with AsyncExitStack() as stack:
            stack.push_async_callback(server.end)
            await server.start()
            yield Stand(peer, server, stack)
