"""Jobs as spans of OpenTelemetry, with the names and attributes that bullmq-otel gives them, so that one trace shows both sides alike.

    producer   add emails.welcome ──┐  opts.tm = {"traceparent": "00-…"}, as JSON in a text
    worker                          └─► process emails ──► whatever the handler does

    upsert     add emails.digest ···┬··· process emails       a job scheduler: each run is a trace of its own, with a link
                                    └··· process emails       to the upsert, since one trace of all runs would never end

Beside them stand those of OpenTelemetry's conventions for messaging. A job's result is not told, as bullmq-otel does: it may be anybody's
data.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Final, cast

from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue

from toril.telemetry.hooks import AddOperation, JobOutcome, TracedJob
from toril.telemetry.redaction import redact_text

FAILURES: Final[frozenset[JobOutcome]] = frozenset({"failed", "retried", "cancelled", "lost"})
_CARRIED: Final = b'"tm":'


class OpenTelemetryTracer:
    """A `Tracer`.

    Args:
        tracer_provider: None: the global one, also if that is set later.
    """

    def __init__(self, tracer_provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("toril", version("toril"), tracer_provider)

    @contextmanager
    def adding(self, operation: AddOperation, queue: str, names: Sequence[str], *, scheduler_id: str | None = None) -> Generator[_Adding]:
        attributes = _attributes(queue, operation, "send") | _of_scheduler(scheduler_id)
        if operation == "add":
            attributes["bullmq.job.name"] = names[0]
        else:
            attributes |= {"bullmq.job.bulk.names": names, "bullmq.job.bulk.count": len(names)}
        name = f"add {queue}.{names[0]}" if operation == "add" else f"{operation} {queue}"
        with self._tracer.start_as_current_span(name, kind=SpanKind.PRODUCER, attributes=attributes) as span:
            yield _Adding(span, self.carried())

    def begun(self, queue: str, job: TracedJob, opts: bytes, worker_id: str, *, scheduler_id: str | None) -> _Processing:
        attributes = (
            _attributes(queue, "process", "process")
            | _of_scheduler(scheduler_id)
            | {
                "bullmq.worker.id": worker_id,
                "bullmq.job.id": job.id,
                "bullmq.job.name": job.name,
                "bullmq.job.attempts.made": job.attempt,
                "messaging.message.id": job.id,
            }
        )
        parent, links = _carried_by(opts), list[Link]()
        if scheduler_id is not None:
            upsert = trace.get_current_span(parent).get_span_context()
            parent, links = Context(), [Link(upsert)] if upsert.is_valid else []
        span = self._tracer.start_span(f"process {queue}", context=parent, kind=SpanKind.CONSUMER, attributes=attributes, links=links)
        context.attach(trace.set_span_in_context(span, parent))  # never detached: the context ends with the attempt's task
        return _Processing(span)

    def carried(self) -> str | None:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return json.dumps(carrier) if carrier else None

    def go_on(self, carried: str) -> None:
        context.attach(_read(carried))  # never detached: the context ends with the task

    def log_fields(self) -> Mapping[str, object]:
        found = trace.get_current_span().get_span_context()
        if not found.is_valid:
            return {}
        return {"trace_id": trace.format_trace_id(found.trace_id), "span_id": trace.format_span_id(found.span_id)}


class _Adding:
    """An `AddSpan`."""

    def __init__(self, span: Span, carried: str | None) -> None:
        self._span = span
        self._carrier = b"" if carried is None else _CARRIED + json.dumps(carried).encode()

    def carried(self, opts: bytes) -> bytes:
        if not self._carrier or _CARRIED in opts:  # nobody traces, or the job goes on with the trace that it has
            return opts
        return opts[:-1] + (b"" if opts == b"{}" else b",") + self._carrier + b"}"

    def added(self, job_ids: Sequence[str]) -> None:
        if len(job_ids) == 1:
            self._span.set_attributes({"bullmq.job.id": job_ids[0], "messaging.message.id": job_ids[0]})


class _Processing:
    """A `JobSpan`."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def ended(self, outcome: JobOutcome, reason: str | None) -> None:
        span = self._span
        span.set_attribute("toril.outcome", outcome)
        if outcome == "completed":
            span.add_event("job completed")
        elif outcome in FAILURES:
            told = redact_text(reason) if reason is not None else outcome
            span.add_event("job failed", {"bullmq.job.failed.reason": told})
            span.set_status(StatusCode.ERROR, told)
        span.end()


def _attributes(queue: str, operation: str, kind: str) -> dict[str, AttributeValue]:
    return {
        "bullmq.queue.name": queue,
        "bullmq.queue.operation": operation,
        "messaging.system": "bullmq",
        "messaging.destination.name": queue,
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
    }


def _of_scheduler(scheduler_id: str | None) -> dict[str, AttributeValue]:
    return {} if scheduler_id is None else {"bullmq.job.scheduler.id": scheduler_id}


def _carried_by(opts: bytes) -> Context:
    """The context that the producer has given the job; an empty one if it has none that can be read, since anybody may write options.

    Never that of the worker, which has claimed the job while it did something else.
    """
    if _CARRIED not in opts:
        return Context()
    try:
        return _read(json.loads(opts).get("tm"))
    except (ValueError, AttributeError, RecursionError):
        return Context()


def _read(carried: object) -> Context:
    """The context that a text carries. Raises ValueError, RecursionError."""
    carrier: object = json.loads(carried) if isinstance(carried, str) else None
    if not isinstance(carrier, dict):
        return Context()
    given = cast("dict[str, object]", carrier)
    return propagate.extract({key: value for key, value in given.items() if isinstance(value, str)}, Context())
