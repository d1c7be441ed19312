"""Programs of the tests in processes of their own, spoken to by lines of JSON.

{"call": 1, "op": "add", "args": {…}}  ─►  {"call": 1, "result": …} or {"call": 1, "error": "…"}
{"event": "ran", …}                         what the program says on its own, `ready` first
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

PATIENCE_S: Final = 30
LONGEST_LINE: Final = 16 * 1024 * 1024


class PeerError(Exception):
    """What the program raised, or that it has ended."""


class LineProcess:
    """`async with LineProcess(command, folder) as program: await program.ask("add", queue="q", name="n", data={}, opts={})`.

    However the block is left, the process is gone then: it ends when its input ends, and if it doesn't, it is killed.

    Args:
        command: the words that start it; the last one names it in errors.
        folder: where it runs.
        settings: are given to it as JSON, in the variable `PEER`.
        patience_s: how long anything may take.
    """

    def __init__(self, command: Sequence[str], folder: Path, *, settings: Mapping[str, object], patience_s: float = PATIENCE_S) -> None:
        self.command = command
        self.name = command[-1]
        self.events: list[dict[str, Any]] = []
        """What it has said on its own."""
        self._folder = folder
        self._environment = {**os.environ, "PEER": json.dumps(settings)}
        self.patience_s = patience_s
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._has_ended = False
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._news = asyncio.Condition()

    @property
    def pid(self) -> int:
        return self._running()[0].pid

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self.command, cwd=self._folder, env=self._environment, limit=LONGEST_LINE,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read(self._process), name="line process")
        try:
            await self.heard(lambda event: event["event"] == "ready")
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._end()

    async def ask(self, operation: str, **arguments: object) -> Any:  # noqa: ANN401 -- each operation answers something else
        """Let it do something, and wait for the answer. Raises PeerError."""
        self._check_lives()
        process, _ = self._running()
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        assert process.stdin is not None
        process.stdin.write(json.dumps({"call": number, "op": operation, "args": arguments}).encode() + b"\n")
        async with asyncio.timeout(self.patience_s):
            return await answer

    async def heard(self, matches: Callable[[dict[str, Any]], bool], count: int = 1) -> list[dict[str, Any]]:
        """Wait until it has said so many things that match."""
        async with asyncio.timeout(self.patience_s), self._news:
            while len(found := [event for event in self.events if matches(event)]) < count:
                self._check_lives()
                await self._news.wait()
        return found

    def kill(self) -> None:
        """End it at once, as a machine that fails."""
        self._running()[0].send_signal(signal.SIGKILL)

    async def _end(self) -> None:
        process, reader = self._running()
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(self.patience_s):
                with contextlib.suppress(OSError):  # it was killed
                    await process.stdin.wait_closed()
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            await reader

    def _running(self) -> tuple[asyncio.subprocess.Process, asyncio.Task[None]]:
        assert self._process is not None
        assert self._reader is not None
        return self._process, self._reader

    def _check_lives(self) -> None:
        if self._has_ended:
            raise PeerError(f"{self.name} has ended")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            message = json.loads(line)
            if "call" not in message:
                async with self._news:
                    self.events.append(message)
                    self._news.notify_all()
                continue
            answer = self._asked.pop(message["call"])
            if answer.done():
                continue  # whoever asked has lost patience
            if "error" in message:
                answer.set_exception(PeerError(message["error"]))
            else:
                answer.set_result(message["result"])
        self._has_ended = True
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(PeerError(f"{self.name} has ended"))
        async with self._news:
            self._news.notify_all()
