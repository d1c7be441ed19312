"""Spans that tests have collected, as the Node peer tells its own (`interop/traced.mjs`)."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from toril import trace_jobs
from toril.telemetry.hooks import HOOKS

PRODUCER, CONSUMER = 3, 4
"""As Node counts them; Python begins at 0, too."""


@dataclass(frozen=True)
class Seen:
    """One span."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str | None
    attributes: dict[str, Any]
    events: list[str]
    error: str | None = None
    links: list[str] = field(default_factory=list[str])
    """The ids of the spans that it refers to, in whatever trace."""


class Spans:
    """Those of this process."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def all(self) -> list[Seen]:
        """Those that have ended, in that order."""
        found: list[Seen] = []
        for span in self._exporter.get_finished_spans():
            context = span.context
            assert context is not None
            found.append(
                Seen(
                    span.name,
                    {SpanKind.PRODUCER: PRODUCER, SpanKind.CONSUMER: CONSUMER}.get(span.kind, 0),
                    format_trace_id(context.trace_id),
                    format_span_id(context.span_id),
                    None if span.parent is None else format_span_id(span.parent.span_id),
                    dict(span.attributes or {}),
                    [event.name for event in span.events],
                    (span.status.description or "") if span.status.status_code is StatusCode.ERROR else None,
                    [format_span_id(link.context.span_id) for link in span.links],
                )
            )
        return found

    def named(self, name: str) -> list[Seen]:
        """The spans of this name."""
        return [span for span in self.all() if span.name == name]

    def only(self, name: str) -> Seen:
        """The one span of this name."""
        found = self.named(name)
        assert len(found) == 1, f"{len(found)} spans named {name!r} among {[span.name for span in self.all()]}"
        return found[0]


@contextmanager
def collected() -> Generator[Spans]:
    """Trace the jobs of this process within the block."""
    spans = Spans()
    trace_jobs(spans.provider)
    try:
        yield spans
    finally:
        HOOKS.tracer = None
        spans.provider.shutdown()
