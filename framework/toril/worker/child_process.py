"""One child process, as its worker sees it: started, asked for one thing at a time, ended or killed.

The child leads a session of its own, so the terminal's Ctrl-C doesn't reach it, and what it has started dies with it when it is killed.
It ends by itself when its standard input ends: with the worker's process, however that ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Self, cast

from toril.telemetry.logs import get_logger
from toril.worker.frames import Frames, Message, frame

log = get_logger(__name__)

_BOOTSTRAP: Final = """
import json, signal, sys
for one in (signal.SIGINT, signal.SIGTERM):
    signal.signal(one, lambda *_: None)
sys.path[:] = json.loads(sys.argv.pop(1))
from toril.worker.serving import main
main()
"""
"""Signals may come to whole groups of processes, but the worker decides when a child ends. Handlers, not SIG_IGN, which programs that
a job starts would inherit. The path is the worker's, since what that can import the child must be able to import, too."""

_REST_S: Final = 0.5
"""How long an ended child's pipe may stay open (somebody has inherited it) before what it still holds is given up."""

_KILL_S: Final = 2.0
"""A killed process is gone at once, unless the kernel is stuck in it."""


class ChildProcess(asyncio.SubprocessProtocol):
    """Made by `start`. Its methods belong to the loop that started it."""

    def __init__(self) -> None:
        self.jobs_begun = 0
        self.exit_code: int | None = None
        self.on_progress: Callable[[str], None] | None = None
        self._gone = asyncio.Event()
        self._reply: asyncio.Future[Message | None] | None = None
        self._frames = Frames()
        self._transport: asyncio.SubprocessTransport
        self._is_output_over = False

    @classmethod
    async def start(cls, title: str) -> Self:
        """Start one. `title` shows up in lists of processes. Raises OSError if the system won't."""
        arguments = (sys.executable, "-c", _BOOTSTRAP, json.dumps(sys.path), title)
        loop = asyncio.get_running_loop()
        _, child = await loop.subprocess_exec(
            cls, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=None, start_new_session=True
        )
        return child

    @property
    def pid(self) -> int:
        return self._transport.get_pid()

    @property
    def is_alive(self) -> bool:
        return self.exit_code is None and not self._is_output_over

    @property
    def is_busy(self) -> bool:
        """Whether it was asked for something, and has not answered."""
        return self._reply is not None

    async def ask(self, kind: str, **content: object) -> Message | None:
        """Send a message and wait for the answer; None if the process ends instead. One question at a time.

        If this is cancelled, the child is still at it, and good for nothing but `kill`.
        """
        if not self.is_alive:
            await self._gone.wait()
            return None
        message = frame(kind, **content)
        self._reply = asyncio.get_running_loop().create_future()
        self._write(message)
        answer = await self._reply
        self._reply = None
        return answer

    def kill(self) -> None:
        """End it at once, and all processes that it has started in its session."""
        if self.exit_code is None:
            with suppress(ProcessLookupError, PermissionError):  # it has just ended
                os.killpg(self.pid, signal.SIGKILL)

    async def wait_until_gone(self, limit_s: float = _KILL_S) -> bool:
        """Wait for its end; False if that takes longer. Real time: it is the system's."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._gone.wait()
        return self._gone.is_set()

    async def end(self, limit_s: float) -> None:
        """Let it run its stop hooks and exit; past the limit it is killed."""
        if self.is_alive:
            self._write(frame("stop"))
        if not await self.wait_until_gone(limit_s):
            log.warning("a child process did not end in time, and is killed", pid=self.pid, limit_s=limit_s)
            self.kill()
            await self.wait_until_gone()

    # ── what the loop tells ───────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        try:
            for message in self._frames.feed(data):
                self._receive(message)
        except ValueError as error:
            log.error("a child process sent what can't be read, and is killed", pid=self.pid, reason=str(error))
            self.kill()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            self._is_output_over = True
            # Nearly always it is just ending. One that has closed the pipe and lives on could never answer again.
            asyncio.get_running_loop().call_later(_REST_S, self.kill)

    def process_exited(self) -> None:
        code = self._transport.get_returncode()
        self.exit_code = -1 if code is None else code
        # What it said last may still be in the pipe, whose end comes after that, and then `connection_lost`.
        asyncio.get_running_loop().call_later(_REST_S, self.connection_lost, None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport.close()
        self._answer(None)
        self._gone.set()

    def _receive(self, message: Message) -> None:
        if message["kind"] != "progress":
            self._answer(message)
        elif self.on_progress is not None:
            self.on_progress(message["value"])

    def _answer(self, message: Message | None) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(message)

    def _write(self, message: bytes) -> None:
        pipe: Any = self._transport.get_pipe_transport(0)
        if not pipe.is_closing():
            pipe.write(message)
