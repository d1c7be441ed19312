"""Processes of the application as a person starts them, for tests that look at their output and exit codes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
TORIL: Final = str(Path(sys.executable).with_name("toril"))
PATIENCE_S: Final = 40


class Running:
    """A process whose output can be waited for, line by line."""

    def __init__(self, command: list[str], environment: Mapping[str, str], folder: Path) -> None:
        self.process = subprocess.Popen(
            command, env=dict(environment), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self.output = ""

    def read_until(self, text: str) -> None:
        """Read lines until one holds the text."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if text in line:
                return
        raise AssertionError(f"the process ended before it said {text!r}:\n{self.output}")

    def end(self, *signals: signal.Signals) -> int:
        """Send signals, read what is left, and give the exit code."""
        for one in signals:
            self.process.send_signal(one)
        rest, _ = self.process.communicate(timeout=PATIENCE_S)
        self.output += rest
        return self.process.returncode


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
            running.process.communicate()


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
