"""What a child process that traces imports in tests."""

from __future__ import annotations

import sys
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from toril import Job, trace_jobs

if any("toril child of queue" in word for word in sys.orig_argv):  # not in the test's own process, which imports this, too
    trace_jobs(TracerProvider())


def where(job: Job[Any, Any]) -> list[str]:
    """Trace and span that this code belongs to."""
    found = trace.get_current_span().get_span_context()
    return [trace.format_trace_id(found.trace_id), trace.format_span_id(found.span_id)]
