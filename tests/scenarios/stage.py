"""Where a situation plays: a server of its own, queues, worker processes, and a way to let things have happened long ago."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.servers import OwnServer, free_ports, one_server
from toril import Queue
from toril.testing import eventually
from toril.wire.connection import Server

TORIL: Final = str(Path(sys.executable).with_name("toril"))
APPLICATION: Final = "tests.scenarios.application:AppModule"
PROJECT: Final = Path(__file__).parents[2]
PREFIX: Final = "shop"
"""Of all queues, by `TORIL_PREFIX` alone: the application says nothing of it."""
HOUR_MS: Final = 3_600_000
_PATIENCE: Final = "30s"


class Stage:
    """One situation's server, with what has been started on it."""

    def __init__(self, own: OwnServer, server: Server, folder: Path) -> None:
        self.own, self.server, self.folder = own, server, folder
        self.workers: list[Process] = []

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs to find the queues."""
        return {"REDIS_URL": self.own.url, "TORIL_PREFIX": PREFIX, "TORIL_EMBEDDED_DIR": str(self.folder / "embedded")}

    def queue(self, name: str, **options: Any) -> Queue:  # noqa: ANN401 -- those of Queue
        return Queue(name, prefix=PREFIX, server=self.server, **options)

    async def start_worker(self, *arguments: str, module: str = APPLICATION, environment: Mapping[str, str] | None = None) -> Process:
        """A worker process of the application, which claims when this returns; it is killed when the situation is over."""
        return await self.start(TORIL, "worker", module, *arguments, environment=environment)

    async def start(self, *command: str, environment: Mapping[str, str] | None = None) -> Process:
        """A program that says `ready` when it is; the same end awaits it."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=PROJECT, env=_clean() | self.environment | dict(environment or {}), stdout=file, stderr=file
            )
        self.workers.append(process)

        async def is_ready() -> None:
            text = log.read_text(encoding="utf-8")
            assert process.returncode is None, f"it ended with {process.returncode}:\n{text}"
            assert "ready" in text, text

        await eventually(is_ready, timeout=_PATIENCE)
        return process

    async def run_burst(self, *arguments: str, module: str = APPLICATION, environment: Mapping[str, str] | None = None) -> None:
        """A worker that runs what can run now, to its end."""
        process = await asyncio.create_subprocess_exec(
            TORIL, "worker", module, "--burst", *arguments,
            cwd=PROJECT, env=_clean() | self.environment | dict(environment or {}), stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            _, told = await process.communicate()
        assert process.returncode == 0, told.decode()

    async def age(self, queue: Queue, by_ms: int) -> None:
        """Let all that has happened to a queue, its events included, have happened so much earlier."""
        call = self.server.commands_of(queue.keys).call
        for state in ("wait", "prioritized", "active", "completed", "failed"):
            for job_id in await queue.commands.list_ids(state, 0, -1, ascending=True):
                for field in ("timestamp", "processedOn", "finishedOn"):
                    if await call("HEXISTS", queue.keys.job(job_id), field):
                        await call("HINCRBY", queue.keys.job(job_id), field, -by_ms)
        events = await call("XRANGE", queue.keys.events, "-", "+")
        await call("DEL", queue.keys.events)
        for event_id, fields in events:
            ms, _, number = event_id.decode().partition("-")
            await call("XADD", queue.keys.events, f"{int(ms) - by_ms}-{number}", *fields)


@asynccontextmanager
async def stage(folder: Path, **settings: str) -> AsyncGenerator[Stage]:
    """A server with these settings; whatever was started is gone at the end."""
    [port] = free_ports(1)
    async with AsyncExitStack() as stack:
        own = await stack.enter_async_context(one_server(folder / "server", port=port, **settings))
        server = await stack.enter_async_context(Server(own.url))
        made = Stage(own, server, folder)
        try:
            yield made
        finally:
            for process in made.workers:
                if process.returncode is None:
                    process.send_signal(signal.SIGKILL)
                await process.wait()


def _clean() -> dict[str, str]:
    """The environment without what is ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("TORIL_", "REDIS_", "PYTEST_", "SMTP_"))}
