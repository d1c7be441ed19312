"""How much waits in a queue, for metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.telemetry.metrics import Depth


async def depth_of(queue: Queue[Any, Any]) -> Depth:
    """Jobs by state, and how long those that are next in line have been waiting. Raises ServerError."""
    counts = await queue.get_job_counts()
    next_ones = [*await queue.get_waiting(0, 0), *await queue.get_prioritized(0, 0)]
    return Depth({str(state): count for state, count in counts.items()}, _longest_s(next_ones, queue.clock.now_ms()))


def _longest_s(jobs: Sequence[Job[Any, Any]], now_ms: int) -> float:
    return max((now_ms - job.timestamp_ms - (job.options.delay_ms or 0) for job in jobs), default=0) / 1_000
