"""`toril worker`: runs an application's workers."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, cast

from rich.console import Console

from toril.application import Application, WorkerFactory, find
from toril.cli.loading import load_module
from toril.errors import ConfigurationError, ServerError, TorilError
from toril.modules.decorators import ProcessorFields
from toril.modules.settings import TorilSettings
from toril.telemetry.logs import configure_logging
from toril.telemetry.redaction import redact_text

EXIT_FAILED, EXIT_USAGE, EXIT_SERVER, EXIT_LEFT_BEHIND = 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """The arguments of `toril worker`."""

    module: str
    concurrency: int | None
    queues: Sequence[str] | None
    shutdown_timeout: str | None
    connect_timeout: str | None
    burst: bool
    debug: bool


def run_worker(command: WorkerCommand) -> int:
    """Run until told to stop; the exit code."""
    configure_logging()
    try:
        left_behind = _run_loop(_run(command))
    except (TorilError, ExceptionGroup) as error:
        return _report(error, command)
    if left_behind:
        # Their threads can't be stopped, and the interpreter would wait for them; their jobs run again elsewhere.
        logging.shutdown()
        sys.stderr.flush()
        os._exit(EXIT_LEFT_BEHIND)
    return 0


async def _run(command: WorkerCommand) -> int:
    options = ProcessorFields()
    if command.concurrency is not None:
        options["concurrency"] = command.concurrency
    app = await WorkerFactory.create(
        load_module(command.module),
        queues=command.queues,
        worker_options=options,
        shutdown_timeout=command.shutdown_timeout,
        connect_timeout=command.connect_timeout,
    )
    _follow_settings(app)
    await (app.run_until_idle() if command.burst else app.run())
    return app.left_behind


def _follow_settings(app: Application) -> None:
    settings = find(app.ctx, TorilSettings)
    if settings is not None:
        configure_logging(log_format=settings.log.format, level=settings.log.level, levels=settings.log.levels)


def _run_loop(main: Coroutine[Any, Any, int]) -> int:
    """On uvloop where it is installed: it is faster."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


def _report(error: TorilError | ExceptionGroup[Exception], command: WorkerCommand) -> int:
    """One error, in words; with `--debug` its traceback, too."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    causes = _leaves(error)
    for cause in causes:
        console.print("[bold red]error:[/]", end=" ")
        console.print(redact_text(str(cause)), markup=False)
    if command.debug:
        console.print_exception()
    else:
        console.print("[dim](--debug shows the traceback)[/]")
    if any(isinstance(cause, ConfigurationError) for cause in causes):
        return EXIT_USAGE
    return EXIT_SERVER if any(isinstance(cause, ServerError) for cause in causes) else EXIT_FAILED


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    inside = cast("tuple[BaseException, ...]", error.exceptions)
    return [leaf for one in inside for leaf in _leaves(one)]
