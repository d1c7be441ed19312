"""`toril worker` in one process: runs an application's workers. With several processes each of them does (see `supervisor.py`)."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import signal
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from typing import Any, Protocol

from toril.application import Application, WorkerFactory
from toril.cli import exit_codes
from toril.cli.loading import load_module
from toril.cli.probes import ProbeListener
from toril.cli.process_probe import ProcessProbe
from toril.cli.reporting import report
from toril.cli.worker_command import WorkerCommand
from toril.modules.connections import find
from toril.modules.decorators import ProcessorFields
from toril.modules.roles import check_roles
from toril.modules.settings import TorilSettings
from toril.stop_signals import STOP_SIGNALS, leave_at_once
from toril.telemetry.logs import configure_logging, get_logger

log = get_logger(__name__)


class Progress(Protocol):
    """Who wants to know how far the start has come: a supervisor."""

    def probe_with(self, probe: ProcessProbe) -> None:
        """From now on this process can be asked how it is."""
        ...

    def created(self) -> None:
        """The application exists, its server answers, and logs are as its settings say."""
        ...

    def ready(self, app: Application) -> None:
        """All workers claim. Whoever is told this logs it."""
        ...


def run_worker(command: WorkerCommand, progress: Progress | None = None, probes: ProbeListener | None = None) -> int:
    """Run until told to stop; the exit code. `probes` answers for this process alone."""
    STOP_SIGNALS.own()
    try:
        configure_logging()
        probe = ProcessProbe() if command.is_probed else None
        if probe is not None and progress is not None:
            progress.probe_with(probe)
        with nullcontext() if probes is None or probe is None else probes.answering(probe):
            module, run_loop = load_module(command.module), _loop_runner()
            STOP_SIGNALS.hold()
            return run_loop(_run_to_exit_code(module, command, progress, probe))
    except KeyboardInterrupt:  # while modules were imported: nothing has begun
        return exit_codes.INTERRUPTED
    except Exception as error:  # noqa: BLE001 -- the end of the program
        return report(error, show_traceback=command.debug)


async def _run_to_exit_code(module: type, command: WorkerCommand, progress: Progress | None, probe: ProcessProbe | None) -> int:
    code = exit_codes.OK
    try:
        await _run(module, command, progress, probe)
    except Exception as error:  # noqa: BLE001 -- the end of the program
        code = report(error, show_traceback=command.debug)
    STOP_SIGNALS.end_with(code)
    return code


async def _run(module: type, command: WorkerCommand, progress: Progress | None, probe: ProcessProbe | None) -> None:
    if probe is not None:
        probe.watch_loop()
    options = ProcessorFields()
    if command.concurrency is not None:
        options["concurrency"] = command.concurrency
    app = await _unless_told_to_stop(
        WorkerFactory.create(
            module,
            roles=command.roles if command.roles is None else check_roles(command.roles),
            queues=command.queues,
            worker_options=options,
            shutdown_timeout=command.shutdown_timeout,
            connect_timeout=command.connect_timeout,
        )
    )
    if app is None:
        return
    _follow_settings(app)
    if probe is not None:
        probe.watch(app)
    if progress is not None:
        progress.created()
        app.on_ready = progress.ready
    if not app.workers and app.roles & {"worker", "scheduler"}:
        log.warning("this application has no processors: there is nothing to run")
    code = exit_codes.LEFT_BEHIND
    spare_the_collector()
    try:
        await (app.run_until_idle() if command.burst else app.run())
    except Exception as error:
        if not app.left_behind:
            raise
        code = report(error, show_traceback=command.debug)
    if app.left_behind:
        leave_at_once(code)


def spare_the_collector() -> None:
    """Let Python's garbage collector leave alone what exists by now: it stays as long as the process. Looking through it takes some 50 ms
    each time (measured), in which no job goes on."""
    gc.collect()
    gc.freeze()


async def _unless_told_to_stop(creating: Coroutine[Any, Any, Application]) -> Application | None:
    """Wait for the application; a signal ends that, too (it may wait for its server): what exists is closed, and None returned."""
    task = asyncio.create_task(creating)
    told: list[signal.Signals] = []

    def on_signal(sent: signal.Signals) -> None:
        told.append(sent)
        log.info("stopping before the start", signal=sent.name)
        task.cancel()

    try:
        with STOP_SIGNALS.heard_by(on_signal):
            app = await task
        if not told:
            return app
        await app.stop()  # the signal came in the very moment in which it was made
    except asyncio.CancelledError:
        if not told:
            raise
    return None


def _follow_settings(app: Application) -> None:
    settings = find(app.ctx, TorilSettings)
    if settings is not None:
        configure_logging(log_format=settings.log.format, level=settings.log.level, levels=settings.log.levels)


def _loop_runner() -> Callable[[Coroutine[Any, Any, int]], int]:
    """Of uvloop where it is installed: it is faster."""
    if importlib.util.find_spec("uvloop") is None:  # not by `except`: every traceback would begin with the import that failed
        return asyncio.run
    import uvloop

    return uvloop.run
