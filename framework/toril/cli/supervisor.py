"""`toril worker --processes N`: starts worker processes of one application, watches them, and stops them together.

    start    the first process alone ► ready ► all others at once ► all ready
             What is wrong with the application is so told once.
    watch    a process that ends is replaced, at once or after a pause that grows with each end in a row
             With `--reload` it is not: it waits for a change, after which all processes are replaced.
    stop     a signal is passed on to all; so is a second one, after which they have a bounded time

The supervisor doesn't import the application. The processes share nothing but the server: which of them runs a job or a schedule is
settled there, as it is between machines.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

from toril.cancellation import run_unless
from toril.cli import exit_codes
from toril.cli.probes import ProbeListener
from toril.cli.worker_command import WorkerCommand
from toril.cli.worker_process import Message, WorkerProcess
from toril.clock import SystemClock
from toril.stop_signals import STOP_SIGNALS
from toril.telemetry.logs import configure_logging, follow_logging, get_logger

log = get_logger(__name__)

STEADY_MS: Final = 10_000
"""A process that has been ready for so long works: its end is not a failure to start."""

MOST_FAILURES: Final = 5
"""So many ends in a row, none of a steady process, and no other process steady: there is no use in going on."""

FIRST_PAUSE_MS: Final = 250
LONGEST_PAUSE_MS: Final = 30_000

FORCED_LIMIT_MS: Final = 20_000
"""How long a process may take that was told to stop at once, before it is killed."""


def pause_ms(failures: int) -> int:
    """The wait before a process is replaced that has failed so often in a row.

    >>> [pause_ms(failures) for failures in (0, 1, 2, 3, 100)]
    [0, 250, 500, 1000, 30000]
    """
    return min(FIRST_PAUSE_MS << min(failures - 1, 16), LONGEST_PAUSE_MS) if failures else 0


def run_supervisor(command: WorkerCommand, processes: int, *, reload: bool, probes: ProbeListener | None = None) -> int:
    """Run so many worker processes until told to stop; the exit code for all. `probes` answers for them."""
    STOP_SIGNALS.own()
    STOP_SIGNALS.hold()
    configure_logging()
    return asyncio.run(_run(Supervisor(command, processes, reload=reload), probes))


async def _run(supervisor: Supervisor, probes: ProbeListener | None) -> int:
    answering: AbstractContextManager[None] = nullcontext()
    if probes is not None:
        from toril.cli.fleet_probe import FleetProbe  # only here: without probes the supervisor imports no worker

        answering = probes.answering(FleetProbe(supervisor, asyncio.get_running_loop()))
    with answering:
        code = await supervisor.run()
        STOP_SIGNALS.end_with(code)
        return code


class Supervisor:
    """Made for one `run`.

    Args:
        command: what each process runs.
        processes: how many.
        reload: replace them when files in the current folder change.
    """

    def __init__(self, command: WorkerCommand, processes: int, *, reload: bool) -> None:
        self._command, self._count, self._reload = command, processes, reload
        self._clock = SystemClock()
        self._running: dict[int, WorkerProcess] = {}
        self._ready: set[int] = set()
        """The numbers of the processes that are ready or, in a burst, have done their part."""
        self._is_announced = False
        self._any_ready = asyncio.Event()
        """Set when a process is ready for the first time, and never cleared."""
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        """Replaced by a new one each time that it is set."""
        self._last_codes: list[int] = []

    # ── what can be asked ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    @property
    def processes(self) -> list[WorkerProcess]:
        """Those that run."""
        return list(self._running.values())

    @property
    def missing(self) -> list[int]:
        """The numbers of those that should run, and don't."""
        if self._command.burst:  # they end one by one
            return []
        return [number for number in range(1, self._count + 1) if number not in self._running]

    # ── life ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> int:
        """Keep the processes running until told to stop; the exit code for all."""
        with STOP_SIGNALS.heard_by(self._on_signal):
            async with asyncio.TaskGroup() as group:
                if self._reload:
                    group.create_task(self._watch_files(), name="files")
                for number in range(1, self._count + 1):
                    group.create_task(self._keep(number), name=f"process {number}")
        log.info("stopped", processes=self._count)
        return exit_code_for_all(self._last_codes)

    # ── one process ───────────────────────────────────────────────────────────────────────────────────────────

    async def _keep(self, number: int) -> None:
        """Have a process of this number, always, until the stop."""
        if number > 1 and not await run_unless(self._stopping, self._any_ready.wait()):
            return
        failures = 0
        while not self._stopping.is_set():
            changed = self._changed
            code, was_steady = await self._run_once(number, changed)
            if self._stopping.is_set() or (self._command.burst and code == 0):
                self._last_codes.append(code)
                return
            if changed.is_set():
                continue
            failures = 0 if was_steady else failures + 1
            how = {"process": number, **_way_of_ending(code)}
            if self._reload:
                log.error("a worker process ended; it starts again when a file changes", **how)
                await run_unless(self._stopping, changed.wait())
            elif self._is_hopeless(code, failures):
                self._give_up(code, failures, how)
            else:
                log.warning("a worker process ended, and is replaced", **how, pause_ms=pause_ms(failures))
                await run_unless(self._stopping, self._clock.sleep(pause_ms(failures)))

    async def _run_once(self, number: int, changed: asyncio.Event) -> tuple[int, bool]:
        """Start it, and wait for its end: its exit code, and whether it has worked for a while."""
        try:
            process = await WorkerProcess.start(number, self._command, self._hear)
        except OSError as error:
            log.error("a worker process can't be started", process=number, reason=str(error))
            return exit_codes.FAILED, False
        self._running[number] = process
        if self._stopping.is_set():
            process.send(signal.SIGTERM)
        elif changed.is_set():  # while it was being started
            process.stop_at_once(FORCED_LIMIT_MS)
        try:
            code = await process.wait()
        finally:
            del self._running[number]
            self._ready.discard(number)
        if self._command.burst and code == 0:
            self._has_got_ready(number, {"queues": {}})
        return code, process.is_steady

    def _is_hopeless(self, code: int, failures: int) -> bool:
        if code in (exit_codes.USAGE, exit_codes.SERVER) and not self._any_ready.is_set():
            return True  # it would end in the same way again
        return failures >= MOST_FAILURES and not any(process.is_steady for process in self._running.values())

    def _give_up(self, code: int, failures: int, how: dict[str, Any]) -> None:
        if failures >= MOST_FAILURES:  # else the process has told what is wrong
            log.error("a worker process ended again and again: giving up", **how, times=failures)
        self._last_codes.append(code if code > 0 else exit_codes.FAILED)
        self._stop(signal.SIGTERM)

    def _hear(self, process: WorkerProcess, message: Message) -> None:
        if message["kind"] == "created":
            process.is_created = True
            if message["logging"] is not None:
                follow_logging({**message["logging"], "one_of_several": None})
        else:
            process.got_ready(STEADY_MS)
            log.info("started", process=process.number, pid=process.pid, queues=message["overview"]["queues"])
            self._has_got_ready(process.number, message["overview"])

    def _has_got_ready(self, number: int, overview: dict[str, object]) -> None:
        self._ready.add(number)
        self._any_ready.set()
        if len(self._ready) == self._count and not self._is_announced:
            self._is_announced = True
            log.info("ready", processes=self._count, **overview)

    # ── all of them ───────────────────────────────────────────────────────────────────────────────────────────

    async def _watch_files(self) -> None:
        from toril.cli.reloading import changes  # only here: watchfiles is an extra

        try:
            async for names in changes(Path.cwd(), self._stopping):
                self._replace_all(names)
        except OSError as error:  # there is a limit to what one user may watch
            log.error("the files of this folder can't be watched", folder=str(Path.cwd()), reason=str(error))
            self._last_codes.append(exit_codes.FAILED)
            self._stop(signal.SIGTERM)

    def _replace_all(self, names: Sequence[str]) -> None:
        log.info("reloading", changed=names)
        self._is_announced = False
        self._changed.set()
        self._changed = asyncio.Event()
        for process in self._running.values():
            process.stop_at_once(FORCED_LIMIT_MS)  # somebody waits for the new code, with which the jobs that are put back run again

    def _stop(self, sent: signal.Signals) -> None:
        self._stopping.set()
        for process in self._running.values():
            process.send(sent)

    def _on_signal(self, sent: signal.Signals) -> None:
        if self._stopping.is_set():
            log.warning("stopping at once", signal=sent.name)
            for process in self._running.values():
                process.kill_after(FORCED_LIMIT_MS)
        else:
            log.info("stopping", signal=sent.name)
        self._stop(sent)


def _way_of_ending(code: int) -> dict[str, Any]:
    if code >= 0:
        return {"exit_code": code}
    return {"signal": signal.Signals(-code).name if -code in {*signal.Signals} else -code}


def exit_code_for_all(codes: Sequence[int]) -> int:
    """One code for processes that were told to stop, or have given up: a failure counts more than a handler left behind.

    >>> exit_code_for_all([0, 4]), exit_code_for_all([4, 1, 0]), exit_code_for_all([0, -15]), exit_code_for_all([-11])
    (4, 1, 0, 1)
    """
    # A signal that comes before a process's own first line ends it in the system's way.
    told = {0, exit_codes.INTERRUPTED, exit_codes.TERMINATED, -signal.SIGTERM, -signal.SIGINT}
    failures = [code for code in codes if code not in told and code != exit_codes.LEFT_BEHIND]
    if failures:
        return failures[0] if failures[0] > 0 else exit_codes.FAILED
    return exit_codes.LEFT_BEHIND if exit_codes.LEFT_BEHIND in codes else 0
