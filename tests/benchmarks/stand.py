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

PATIENCE_S: Final = 300


@dataclass(frozen=True)
class ServerUse:
    """What the server has used so far."""

    cpu_seconds: float
    memory_bytes: int


class Stand:
    """`async with stand(peer) as here: worker, producer = await here.programs(2)`."""

    def __init__(self, peer: Peer, server: OwnServer, stack: AsyncExitStack) -> None:
        self.peer = peer
        self.server = server
        self._stack = stack

    async def programs(self, count: int) -> list[LineProcess]:
        """Processes of the peer, which have started."""
        settings = {"host": "127.0.0.1", "port": self.server.port, **self.peer.settings}
        programs = [LineProcess(self.peer.command, ROOT, settings=settings, patience_s=PATIENCE_S) for _ in range(count)]
        for program in programs:
            await self._stack.enter_async_context(program)
        return programs

    async def server_use(self) -> ServerUse:
        cpu: dict[str, Any] = await self.server.ask("INFO", "cpu")
        memory: dict[str, Any] = await self.server.ask("INFO", "memory")
        return ServerUse(cpu["used_cpu_user"] + cpu["used_cpu_sys"], memory["used_memory"])


@asynccontextmanager
async def stand(peer: Peer) -> AsyncGenerator[Stand]:
    """A server by TCP, with the settings of the embedded one; its append-only file is not rewritten meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        [port] = await asyncio.to_thread(free_ports, 1)
        server = OwnServer(Path(folder), port=port, appendfsync="everysec", auto_aof_rewrite_percentage="0")
        async with AsyncExitStack() as stack:
            stack.push_async_callback(server.end)
            await server.start()
            yield Stand(peer, server, stack)
