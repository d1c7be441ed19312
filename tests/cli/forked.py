"""`toril` in processes that needn't import it first: each is a fork of one process that has, and so starts in a few milliseconds.

    {"arguments": ["queue", "ls"], "environment": {…}, "folder": "…"}  ─►  {"pid": 4711}  ─►  {"code": 0}

What it reads and writes are the files `stdin`, `stdout` and `stderr` in the folder. The process is a real one in all else: it has a
pid, its own environment, exit code and signals.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

NEEDS_MORE: Final = {"reloading"}
"""Modules of commands that import what need not be installed."""

PATIENCE: Final = "TEST_COMPLETION_LIMIT_S"
"""In the environment of a command: for how long a shell waits for names of queues, where a busy machine must not count."""


class Forks:
    """Starts commands, one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_bare(os.environ)
        )
        self._hear()

    def start(self, arguments: tuple[str, ...], environment: dict[str, str], folder: Path) -> int:
        """Start the command; its process's id. `wait` must follow."""
        assert self._process.stdin is not None
        told = {"arguments": arguments, "environment": environment, "folder": str(folder)}
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        pid: int = self._hear()["pid"]
        return pid

    def wait(self) -> int:
        """Wait until it has ended; its exit code, or the negative number of the signal that ended it."""
        code: int = self._hear()["code"]
        return code

    def close(self) -> None:
        """End the process that forks."""
        self._process.communicate(timeout=30)

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        heard: dict[str, Any] = json.loads(self._process.stdout.readline())
        return heard


def _bare(environment: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if not key.startswith(("TORIL_", "REDIS_", "COV_", "PYTEST_"))}


# ── in the process that forks ─────────────────────────────────────────────────────────────────────────────────


def _tell(**words: object) -> None:
    print(json.dumps(words), flush=True)  # noqa: T201


def _become(told: dict[str, Any]) -> NoReturn:
    """This process is the command from now on: what it raises ends the program, as it would there."""
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    for descriptor, (name, flags) in enumerate((("stdin", os.O_RDONLY), ("stdout", _WRITES), ("stderr", _WRITES))):
        opened = os.open(name, flags | os.O_CREAT, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    if (limit_s := os.environ.pop(PATIENCE, None)) is not None:
        vars(importlib.import_module("toril.cli.completing"))["LIMIT_S"] = float(limit_s)
    sys.argv = ["toril", *told["arguments"]]
    importlib.import_module("toril.cli.main").main()
    raise SystemExit


_WRITES: Final = os.O_WRONLY | os.O_TRUNC


def main() -> None:
    package = importlib.import_module("toril.cli")
    for found in pkgutil.walk_packages(package.__path__, "toril.cli."):
        if found.name.rpartition(".")[2] not in NEEDS_MORE:
            importlib.import_module(found.name)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may have it ignored
    gc.collect()
    gc.freeze()  # else each fork, at its end, looks through all that was imported: that takes it 0.4 s
    _tell()
    while line := sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            _become(json.loads(line))
        _tell(pid=pid)
        _tell(code=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
