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
from typing import Final

from toril.application import Application
from toril.cli import exit_codes
from toril.cli.process_probe import ProcessProbe
from toril.cli.worker import run_worker
from toril.cli.worker_command import WorkerCommand
from toril.clock import SystemClock
from toril.stop_signals import STOP_SIGNALS
from toril.telemetry.logs import OneOfSeveral, chosen_logging, get_logger, mark_logs
from toril.worker.lasting_output import let_output_last

log = get_logger(__name__)

ORPHAN_LIMIT_MS: Final = 10_000
"""How long a process may take to stop once its supervisor is gone: nobody is left who would kill it."""


class Line:
    """The way to the supervisor."""

    def __init__(self, fileno: int) -> None:
        self._socket = socket.socket(fileno=fileno)
        self._socket.set_inheritable(False)  # programs that jobs start have no part in it
        self._sending = threading.Lock()
        self._probe: ProcessProbe | None = None

    def probe_with(self, probe: ProcessProbe) -> None:
        """From now on answer what the supervisor asks."""
        self._probe = probe

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
        with suppress(OSError), self._sending:  # the supervisor is gone, and the thread ends us
            self._socket.sendall(json.dumps({"kind": kind, **content}).encode() + b"\n")

    def _answer(self, question: str, number: int) -> None:
        """Tell how this process is, in the words of `Probed`: a list of problems, or all metrics."""
        try:
            answer = self._answer_to(question)
        except Exception as error:
            log.error("a probe can't be answered", question=question, exc_info=error)
        else:
            self._tell("answer", number=number, answer=answer)

    def _answer_to(self, question: str) -> object:
        probe = self._probe
        if question == "metrics":
            return None if probe is None else probe.metrics().decode()
        if probe is None:  # it has just begun
            return ["the process is starting"] if question == "readyz" else []
        return list(probe.readyz() if question == "readyz" else probe.livez())

    def _end_with_supervisor(self) -> None:
        with suppress(OSError), self._socket.makefile("r", encoding="utf-8") as lines:
            for line in lines:
                self._answer(**json.loads(line))
        log.error("the supervisor is gone: stopping at once")
        os.kill(os.getpid(), signal.SIGTERM)  # while modules are being imported this ends the process
        os.kill(os.getpid(), signal.SIGINT)
        SystemClock().wait(threading.Event(), ORPHAN_LIMIT_MS)
        os._exit(exit_codes.LEFT_BEHIND)


def main() -> None:
    """Run the worker that the supervisor wants."""
    STOP_SIGNALS.own()
    let_output_last()
    told = json.loads(sys.argv[1])
    mark_logs(OneOfSeveral(told["process"], told["colors"]))
    line = Line(told["line"])
    line.watch()
    sys.exit(run_worker(WorkerCommand(**told["command"]), line))
