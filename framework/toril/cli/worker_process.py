"""One worker process as its supervisor sees it: started, heard, told to stop, killed.

It leads a session of its own, so the terminal's Ctrl-C reaches the supervisor alone, which tells each process once.
A socket between the two carries the process's news, and tells the process when its supervisor is gone, however that ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final, Self, TypeAlias, cast

from toril.cli import exit_codes
from toril.cli.merged_output import MergedOutput
from toril.cli.worker_command import WorkerCommand
from toril.clock import SystemClock, Timer
from toril.telemetry.logs import get_logger

log = get_logger(__name__)

_REST_MS: Final = 500
"""How long an ended process's output may stay open (somebody has inherited it) before what it still holds is given up."""

_PIPES: Final = 2

_PROGRAM: Final = "from toril.cli.supervised import main; main()"

Message: TypeAlias = Mapping[str, Any]
"""One line of JSON from the process. `kind` is `created`, `ready` or `answer`."""

Hears: TypeAlias = Callable[["WorkerProcess", Message], None]


class WorkerProcess(asyncio.SubprocessProtocol):
    """Made by `start`. Its methods belong to the loop that started it."""

    def __init__(self, number: int, line: socket.socket, hears: Hears) -> None:
        self.number = number
        self.is_created = False
        """Whether it follows signals: before that any signal ends it at once."""
        self.is_steady = False
        """Whether it has been ready for a while."""
        self.exit_code: int | None = None
        """Once it has ended; the negative number of the signal that killed it."""
        self._line, self._hears = line, hears
        self._begun_message = bytearray()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._questions = 0
        self._unanswered_s: float | None = None
        """When it was asked for the first time since its last answer."""
        self._outputs = {1: MergedOutput(sys.stdout.buffer), 2: MergedOutput(sys.stderr.buffer)}
        self._open_pipes = _PIPES
        self._timers: list[Timer] = []
        self._is_left_behind = False
        self._exited, self._silent = asyncio.Event(), asyncio.Event()
        self._transport: asyncio.SubprocessTransport

    @classmethod
    async def start(cls, number: int, command: WorkerCommand, hears: Hears) -> Self:
        """Start the process of this number, which runs the command. `hears` gets what it tells. Raises OSError if the system won't."""
        ours, its = socket.socketpair()
        ours.setblocking(False)
        told = {"command": asdict(command), "process": number, "line": its.fileno(), "colors": sys.stderr.isatty()}
        # -P: the current folder's files must not hide modules that are imported before the application's.
        arguments = (sys.executable, "-P", "-c", _PROGRAM, json.dumps(told))
        loop, pipe = asyncio.get_running_loop(), asyncio.subprocess.PIPE
        try:
            _, process = await loop.subprocess_exec(
                lambda: cls(number, ours, hears),
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=pipe,
                stderr=pipe,
                pass_fds=(its.fileno(),),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            its.close()
        loop.add_reader(ours, process._read_line)
        return process

    @property
    def pid(self) -> int:
        return self._transport.get_pid()

    def send(self, number: signal.Signals) -> None:
        """Send a signal. Harmless if it has ended."""
        with suppress(ProcessLookupError):
            # SIGINT would end a start with a traceback, in the midst of some import.
            self._transport.send_signal(number if self.is_created else signal.SIGTERM)

    async def ask(self, question: str, timeout_s: float) -> Any:  # noqa: ANN401 -- each question has its own kind of answer
        """What the process answers to this question of a probe. Raises TimeoutError."""
        self._questions += 1
        if self._unanswered_s is None:
            self._unanswered_s = time.monotonic()
        number = self._questions
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):  # real time: it is the system's
                with suppress(OSError):  # it has ended, or has not listened for long: no answer comes
                    self._line.send(json.dumps({"question": question, "number": number}).encode() + b"\n")
                return await answer
        finally:
            del self._asked[number]

    @property
    def silent_ms(self) -> int:
        """For how long it has left questions unanswered."""
        return 0 if self._unanswered_s is None else round((time.monotonic() - self._unanswered_s) * 1_000)

    def stop_at_once(self, limit_ms: int) -> None:
        """As by two signals: running jobs are put back. Past the limit it is killed."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGINT)  # not the same one: of two that are pending the system keeps one
        self.kill_after(limit_ms)

    def kill_after(self, limit_ms: int) -> None:
        """Kill it if it still exists then: what its handlers hold is left behind."""
        self._timers.append(SystemClock().call_later(limit_ms, self._kill_late))

    def got_ready(self, steady_after_ms: int) -> None:
        """From now on so long, and it is steady."""
        self._timers.append(SystemClock().call_later(steady_after_ms, self._got_steady))

    def _kill_late(self) -> None:
        log.warning("a worker process did not stop in time, and is killed", process=self.number, pid=self.pid)
        self._is_left_behind = True
        self.kill()

    def _got_steady(self) -> None:
        self.is_steady = True

    def kill(self) -> None:
        """End it at once, with all processes of its session. Harmless if it has ended."""
        if self.exit_code is None:
            with suppress(ProcessLookupError, PermissionError):  # it has just ended
                os.killpg(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Wait until it has ended and all that it wrote is written; its exit code. If cancelled, it is killed."""
        try:
            await self._exited.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(_REST_MS / 1_000):  # real time: it is the system's
                    await self._silent.wait()
        finally:
            self.kill()
            self._close()
        return exit_codes.LEFT_BEHIND if self._is_left_behind else cast("int", self.exit_code)

    def _close(self) -> None:
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(TimeoutError())  # no answer will come
        for timer in self._timers:
            timer.cancel()
        for output in self._outputs.values():
            output.end()
        self._transport.close()
        asyncio.get_running_loop().remove_reader(self._line)
        self._line.close()

    def _read_line(self) -> None:
        try:
            data = self._line.recv(1 << 16)
        except OSError:  # it was killed, and had not read all
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._line)
        self._begun_message += data
        if b"\n" not in data:  # metrics come in many pieces
            return
        *messages, self._begun_message = self._begun_message.split(b"\n")
        for message in map(json.loads, messages):
            if message["kind"] == "answer":
                self._hear_answer(message["number"], message["answer"])
            else:
                self._hears(self, message)

    def _hear_answer(self, number: int, answer: object) -> None:
        self._unanswered_s = None
        asked = self._asked.get(number)
        if asked is not None and not asked.done():  # else it came too late
            asked.set_result(answer)

    # ── what the loop tells ───────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._outputs[fd].write(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open_pipes -= 1
        if not self._open_pipes:
            self._silent.set()

    def process_exited(self) -> None:
        self.exit_code = self._transport.get_returncode()
        self._exited.set()
