"""Which job the code that runs now belongs to, as far as logs care."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Final, Protocol

from toril.telemetry.hooks import HOOKS


class LogContext(Protocol):
    """What a log line can be bound to: a job, or a listener's call."""

    def log_fields(self) -> Mapping[str, object]:
        """The fields to bind: for a job `queue`, `job_id`, `job_name` and `attempt`. Asked only when something is logged."""
        ...


LOG_CONTEXT: Final[ContextVar[LogContext | None]] = ContextVar("toril_log_context", default=None)
"""Set by the worker in each job's own task, so it needs no reset and costs nothing but this one `set`.

Tasks and `asyncio.to_thread` calls that a handler starts inherit it.
"""


def current_log_fields() -> Mapping[str, object]:
    """The fields of the job that this code runs for; none outside of a job."""
    context = LOG_CONTEXT.get()
    fields: Mapping[str, object] = {} if context is None else context.log_fields()
    return fields if HOOKS.tracer is None else {**fields, **HOOKS.tracer.log_fields()}
