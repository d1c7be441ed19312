"""Processes of the application as a person starts them, for tests that look at their output and exit codes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
TORIL: Final = str(Path(sys.executable).with_name("toril"))
PATIENCE_S: Final = 40


class Running:
    """A process whose output can be waited for, line by line. It is read all the time: a full pipe would stop the process."""

    def __init__(self, command: list[str], environment: Mapping[str, str], folder: Path) -> None:
        self.process = subprocess.Popen(
            command, env=dict(environment), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self._lines: list[str] = []
        self._read = 0
        self._news = threading.Condition()
        self._has_ended = False
        self._reader = threading.Thread(target=self._read_all, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """All that it has said so far."""
        with self._news:
            return "".join(self._lines)

    def read_until(self, text: str) -> None:
        """Wait until a line holds the text, of those that were not looked at before."""
        with self._news:
            while True:
                while self._read < len(self._lines):
                    self._read += 1
                    if text in self._lines[self._read - 1]:
                        return
                if self._has_ended:
                    raise AssertionError(f"the process ended before it said {text!r}:\n{''.join(self._lines)}")
                assert self._news.wait(PATIENCE_S), f"the process did not say {text!r}:\n{''.join(self._lines)}"

    def end(self, *signals: signal.Signals) -> int:
        """Send signals, read what is left, and give the exit code."""
        for one in signals:
            self.process.send_signal(one)
        code = self.process.wait(timeout=PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def _read_all(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._has_ended = True
            self._news.notify_all()


class Runner:
    """Starts processes, and leaves none behind."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self._started: list[Running] = []

    def __call__(self, *command: str, folder: Path = ROOT) -> Running:
        running = Running(list(command), self.environment, folder)
        self._started.append(running)
        return running

    def worker(self, *arguments: str, module: str = "app.main:AppModule", folder: Path = ROOT) -> Running:
        return self(TORIL, "worker", module, *arguments, folder=folder)

    def close(self) -> None:
        for running in self._started:
            if running.process.poll() is None:
                running.process.kill()
            running.end()


@contextmanager
def runner_of(application: Path, folder: Path, url: str, prefix: str) -> Generator[Runner]:
    """Starts workers of a copy of this application in `folder`, on this server; none is left at the end."""
    shutil.copy(application, folder / "application.py")
    own = {key: value for key, value in os.environ.items() if not key.startswith(("TORIL_", "PYTEST_", "REDIS_"))}
    runner = Runner(own | {"REDIS_URL": url, "TORIL_PREFIX": prefix, "COLUMNS": "200", "NO_COLOR": "1"})
    try:
        yield runner
    finally:
        runner.close()


def server_processes(folder: Path) -> list[str]:
    """Processes that still work in the server's folder."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder.resolve():
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found
