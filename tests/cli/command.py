"""Runs `toril` as its users do: a process, with its output, its exit code, and signals."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import struct
import sys
import termios
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.cli.forked import Forks

TORIL: Final = str(Path(sys.executable).with_name("toril"))
PATIENCE_S: Final = 30

_OURS: Final = ("TORIL_", "REDIS_", "SMTP_", "COV_", "PYTEST_", "COLUMNS", "NO_COLOR", "FORCE_COLOR")


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:  # noqa: ANN401 -- this is where JSON comes in
        """What `--json` has answered: exactly one document."""
        return json.loads(self.out)

    @property
    def rows(self) -> list[list[str]]:
        """The words of each line of the answer."""
        return [line.split() for line in self.out.splitlines()]


class Cli:
    """The command, in a folder and an environment of its own."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        own = {key: value for key, value in os.environ.items() if not key.startswith(_OURS)}
        self.environment: dict[str, str] = own | {"TORIL_EMBEDDED_DIR": str(folder / "valkey")} | dict(environment)

    async def __call__(self, *arguments: str, code: int = 0, stdin: str | None = None) -> Done:
        """Run it to its end, which must come with this code. No output ever holds a traceback, a colour or the password of a test."""
        done = await self._run(arguments, stdin)
        assert done.code == code, f"{arguments} ended with {done.code}:\n{done.out}\n{done.err}"
        assert "Traceback" not in done.err or "--debug" in arguments, done.err
        assert "\x1b" not in done.out + done.err
        assert "s3cret" not in done.out + done.err
        return done

    async def _run(self, arguments: tuple[str, ...], stdin: str | None) -> Done:
        async with self.running(*arguments, stdin=DEVNULL if stdin is None else PIPE) as process:
            async with asyncio.timeout(PATIENCE_S):
                out, err = await process.communicate(None if stdin is None else stdin.encode())
        return Done(process.returncode or 0, out.decode(), err.decode())

    async def json(self, *arguments: str, code: int = 0) -> Any:  # noqa: ANN401 -- this is where JSON comes in
        """The document with which it answers."""
        return (await self(*arguments, "--json", code=code)).document

    async def error(self, *arguments: str, code: int) -> str:
        """The one line in which it says what is wrong; there is no answer then."""
        done = await self(*arguments, code=code)
        assert done.out == ""
        (line,) = done.err.splitlines()
        return line

    @asynccontextmanager
    async def running(self, *arguments: str, stdin: int = DEVNULL) -> AsyncGenerator[Process]:
        """It runs during the block, and is killed at its end if it hasn't ended."""
        process = await asyncio.create_subprocess_exec(
            TORIL, *arguments, cwd=self.folder, env=self.environment, stdin=stdin, stdout=PIPE, stderr=PIPE
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def interrupted(self, *arguments: str, after: bytes) -> Done:
        """Run it, press Ctrl-C once this stands in its answer, and see how it ends."""
        async with self.running(*arguments) as process, asyncio.timeout(PATIENCE_S):
            assert process.stdout is not None
            out = await process.stdout.readuntil(after)
            process.send_signal(signal.SIGINT)
            rest, err = await process.communicate()
        return Done(process.returncode or 0, (out + rest).decode(), err.decode())

    async def in_terminal(
        self, *arguments: str, typed: str = "", width: int = 100, interrupted_after: str | None = None
    ) -> tuple[int, str]:
        """Run it in a terminal, in which this is typed beforehand; the exit code, and all that the terminal shows.

        Args:
            interrupted_after: once the terminal shows this, Ctrl-C is pressed.
        """
        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        os.write(ours, typed.encode())
        process = await asyncio.create_subprocess_exec(
            TORIL, *arguments, cwd=self.folder, env=self.environment | {"TERM": "xterm"}, stdin=its, stdout=its, stderr=its
        )
        os.close(its)
        try:
            async with asyncio.timeout(PATIENCE_S):
                text = ""
                if interrupted_after is not None:
                    text = await asyncio.to_thread(_read, ours, interrupted_after)
                    process.send_signal(signal.SIGINT)
                text += await asyncio.to_thread(_read, ours)
                return await process.wait(), text
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            os.close(ours)


class ForkedCli(Cli):
    """The same, where each command that is called is a fork of one process, which has imported it: that takes a tenth of the time."""

    def __init__(self, folder: Path, environment: Mapping[str, str], forks: Forks) -> None:
        super().__init__(folder, environment)
        self.forks = forks

    async def _run(self, arguments: tuple[str, ...], stdin: str | None) -> Done:
        async with self.started(*arguments, stdin=stdin) as started:
            return await started.end()

    @asynccontextmanager
    async def started(self, *arguments: str, stdin: str | None = None) -> AsyncGenerator[Started]:
        """It runs during the block, and is killed at its end if it hasn't ended."""
        (self.folder / "stdin").write_text(stdin or "")
        pid = self.forks.start(arguments, self.environment, self.folder)
        started = Started(pid, self.folder, asyncio.create_task(asyncio.to_thread(self.forks.wait)))
        try:
            yield started
        finally:
            if not started.code.done():
                started.send_signal(signal.SIGKILL)
            await started.code


@dataclass(frozen=True, slots=True)
class Started:
    """A command of `ForkedCli` that runs."""

    pid: int
    folder: Path
    code: asyncio.Task[int]
    """With which it has ended."""

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    async def end(self) -> Done:
        """Wait for its end."""
        async with asyncio.timeout(PATIENCE_S):
            code = await asyncio.shield(self.code)
        return Done(code, (self.folder / "stdout").read_text(), (self.folder / "stderr").read_text())


def _read(descriptor: int, until: str | None = None) -> str:
    """What comes until this is in it, or the other end is closed."""
    read = bytearray()
    try:
        while (until is None or until.encode() not in read) and (piece := os.read(descriptor, 1 << 16)):
            read += piece
    except OSError:  # how Linux tells the end of a terminal
        pass
    return read.decode()
