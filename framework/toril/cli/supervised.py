"""A worker process of a supervisor, from the inside; `worker_process.py` starts it.

It runs what `toril worker` runs, and tells its supervisor how far it has come. A thread waits for the end of the supervisor, which the
system tells even of one that was killed: then this process stops at once, and puts its jobs back, instead of going on unwatched.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import Any, Final, cast

from toril.application import Application
from toril.cli import exit_codes
from toril.cli.worker import run_worker
from toril.cli.worker_command import WorkerCommand
from toril.clock import SystemClock
from toril.telemetry.logs import OneOfSeveral, chosen_logging, get_logger, mark_logs

log = get_logger(__name__)

ORPHAN_LIMIT_MS: Final = 10_000
"""How long a process may take to stop once its supervisor is gone: nobody is left who would kill it."""


class Line:
    """The way to the supervisor."""

    def __init__(self, fileno: int) -> None:
        self._socket = socket.socket(fileno=fileno)
        self._socket.set_inheritable(False)  # programs that jobs start have no part in it

    def created(self) -> None:
        """Logs are as the settings say: the supervisor's lines are to look the same."""
        self._tell("created", logging=chosen_logging())

    def ready(self, app: Application) -> None:
        """All workers of this process claim. The supervisor logs it, or its `ready` could come out before that of the last process."""
        self._tell("ready", overview=app.overview)

    def watch(self) -> None:
        """Begin to wait for the supervisor's end."""
        threading.Thread(target=self._end_with_supervisor, name="toril-supervisor", daemon=True).start()

    def _tell(self, kind: str, **content: object) -> None:
        with suppress(OSError):  # the supervisor is gone, and the thread ends us
            self._socket.sendall(json.dumps({"kind": kind, **content}).encode() + b"\n")

    def _end_with_supervisor(self) -> None:
        with suppress(OSError):
            while self._socket.recv(1):  # it says nothing
                pass
        log.error("the supervisor is gone: stopping at once")
        os.kill(os.getpid(), signal.SIGTERM)  # while modules are being imported this ends the process
        os.kill(os.getpid(), signal.SIGINT)
        SystemClock().wait(threading.Event(), ORPHAN_LIMIT_MS)
        os._exit(exit_codes.LEFT_BEHIND)


def main() -> None:
    """Run the worker that the supervisor wants."""
    told = json.loads(sys.argv[1])
    mark_logs(OneOfSeveral(told["process"], told["colors"]))
    line = Line(told["line"])
    line.watch()
    cast("Any", sys.stdout).reconfigure(line_buffering=True)  # it is a pipe, and would be held back
    sys.exit(run_worker(WorkerCommand(**told["command"]), line))
