"""The real BullMQ in a Node process, spoken to by lines of JSON: see `peer.mjs`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, unquote, urlsplit

FOLDER: Final = Path(__file__).parent
PATIENCE_S: Final = 30


class PeerError(Exception):
    """What the Node side raised."""


class NodePeer:
    """`async with NodePeer(url, prefix) as node: await node.ask("add", queue="q", name="n", data={}, opts={})`."""

    def __init__(self, url: str, prefix: str) -> None:
        self.events: list[dict[str, Any]] = []
        """What it has said on its own."""
        self._environment = {**os.environ, "PEER": json.dumps({"connection": _connection(url), "prefix": prefix})}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._news = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            "node", "peer.mjs", cwd=FOLDER, env=self._environment, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self._reader = asyncio.create_task(self._read(self._process), name="node peer")
        await self.heard(lambda event: event["event"] == "ready")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        process, reader = self._running()
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(OSError):  # it was killed
                await process.stdin.wait_closed()
            await process.wait()
            await reader

    async def ask(self, operation: str, **arguments: object) -> Any:  # noqa: ANN401 -- each operation answers something else
        """Let it do something, and wait for the answer. Raises PeerError."""
        process, _ = self._running()
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        assert process.stdin is not None
        process.stdin.write(json.dumps({"id": number, "op": operation, **arguments}).encode() + b"\n")
        async with asyncio.timeout(PATIENCE_S):
            return await answer

    async def heard(self, matches: Callable[[dict[str, Any]], bool], count: int = 1) -> list[dict[str, Any]]:
        """Wait until it has said so many things that match."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            while len(found := [event for event in self.events if matches(event)]) < count:
                await self._news.wait()
        return found

    def kill(self) -> None:
        """End it at once, as a machine that fails."""
        self._running()[0].send_signal(signal.SIGKILL)

    def _running(self) -> tuple[asyncio.subprocess.Process, asyncio.Task[None]]:
        assert self._process is not None
        assert self._reader is not None
        return self._process, self._reader

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            message = json.loads(line)
            answer = self._asked.pop(message.get("id", 0), None)
            if answer is not None and "error" in message:
                answer.set_exception(PeerError(message["error"]))
            elif answer is not None:
                answer.set_result(message["result"])
            else:
                async with self._news:
                    self.events.append(message)
                    self._news.notify_all()
        for answer in self._asked.values():
            answer.cancel()


def _connection(url: str) -> dict[str, object]:
    """How ioredis spells an address."""
    parts = urlsplit(url)
    options: dict[str, object] = {"maxRetriesPerRequest": None}
    if parts.scheme == "unix":
        options["path"] = unquote(parts.path)
        if "db" in (query := parse_qs(parts.query)):
            options["db"] = int(query["db"][0])
    else:
        options |= {"host": parts.hostname or "127.0.0.1", "port": parts.port or 6379}
        if parts.path.strip("/"):
            options["db"] = int(parts.path.strip("/"))
    if parts.password:
        options["password"] = unquote(parts.password)
    if parts.username:
        options["username"] = unquote(parts.username)
    return options
