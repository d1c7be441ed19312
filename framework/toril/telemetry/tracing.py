"""Switches tracing on. `spans.py` does it, and is imported only then, since OpenTelemetry is an extra."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from toril.errors import MissingExtraError
from toril.telemetry.hooks import HOOKS

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider


def trace_jobs(tracer_provider: TracerProvider | None = None) -> None:
    """Show the jobs of this process in traces of OpenTelemetry, from now on: a span for adding, one for each attempt.

    The trace goes on where the job does, in Node (bullmq-otel) and here: the job carries its context in `opts.tm`. Workers that run
    already are left alone. Without this call nothing is traced, and nothing is done for it.

    Args:
        tracer_provider: not given: the one that OpenTelemetry's API knows.

    Raises:
        MissingExtraError: opentelemetry-api isn't installed.
    """
    if importlib.util.find_spec("opentelemetry") is None:
        raise MissingExtraError("tracing jobs", "otel", "opentelemetry-api")
    from toril.telemetry.spans import OpenTelemetryTracer

    HOOKS.tracer = OpenTelemetryTracer(tracer_provider)
