"""Tells, on the way out, what went wrong, and with which code the process ends."""

from __future__ import annotations

import traceback
from typing import cast

from rich.console import Console

from toril.cli import exit_codes
from toril.errors import ConfigurationError, DamagedJobsError, InvalidRedisUrlError, ServerError, TorilError
from toril.telemetry.redaction import redact_text, redact_traceback


def report(error: Exception, *, show_traceback: bool, is_brief: bool = False) -> int:
    """Everything that went wrong: our own errors in words, whose traceback says no more; others with it. No secrets in either,
    and nothing that a terminal would obey: errors hold what others have written.

    Args:
        show_traceback: also of our own errors.
        is_brief: one line for each is all, unless the traceback is asked for.
    """
    from toril.cli.output import printable  # only here: it brings tables and bars, and a worker needs none

    console = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
    causes = _leaves(error)
    is_ours = all(isinstance(cause, TorilError) for cause in causes)
    for cause in causes:
        # An address comes from outside: which of our providers read it says nothing.
        notes: list[str] = [] if isinstance(cause, InvalidRedisUrlError) else getattr(cause, "__notes__", [])
        words = str(cause) if isinstance(cause, TorilError) else f"{type(cause).__name__}: {cause}"
        console.print("[bold red]error:[/]", end=" ")
        console.print(printable(redact_text("\n  ".join((words, *notes)))), markup=False)
    if show_traceback or not (is_ours or is_brief):
        console.print(printable(redact_traceback("".join(traceback.format_exception(error)))), markup=False)
    elif not (is_ours and is_brief):
        console.print("[dim](--debug shows the traceback)[/]")
    return exit_code_of(causes)


def exit_code_of(causes: list[BaseException]) -> int:
    """The code of the gravest of them."""
    if any(isinstance(cause, ConfigurationError) for cause in causes):
        return exit_codes.USAGE
    is_server = any(isinstance(cause, ServerError) and not isinstance(cause, DamagedJobsError) for cause in causes)
    return exit_codes.SERVER if is_server else exit_codes.FAILED


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    inside = cast("tuple[BaseException, ...]", error.exceptions)
    return [leaf for one in inside for leaf in _leaves(one)]
