"""The work of `toril stats`.

How many jobs end a minute stands in the server where workers count it (`WorkerOptions.metrics`); else it is taken from the latest
ended jobs, as far as these are kept. How long jobs wait and run is always taken from those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from toril.cli.errors import UsageError
from toril.cli.output import at, span_text, table
from toril.cli.queues import waiting_since_ms
from toril.cli.session import Session
from toril.clock import real_sleep
from toril.queues.job import Job
from toril.queues.queue import Queue

SAMPLE: Final = 200
"""How many of the latest ended jobs are looked at."""

MINUTE_MS: Final = 60_000


async def show_stats(session: Session, names: list[str], watch: float | None) -> None:
    """Once, or again and again."""
    if watch is not None and session.out.as_json:
        raise UsageError("--watch is for people: with --json, call it again and again")
    while True:
        await _show(session, names)
        if watch is None:
            return
        await real_sleep(round(watch * 1_000))  # people's time: nothing tells when a queue is worth another look
        session.out.clear()


async def _show(session: Session, names: list[str]) -> None:
    now_ms = session.queues.now_ms
    documents = [await _stats(queue, now_ms) for queue in await session.queues.some(names)]
    rows = [
        (
            each["queue"] + (" (paused)" if each["is_paused"] else ""),
            each["waiting"],
            each["active"],
            each["delayed"],
            each["failed"],
            _rate(each["completed_per_minute"]),
            _rate(each["failed_per_minute"]),
            f"{_span(each['wait_ms']['median'])} / {_span(each['wait_ms']['p95'])}",
            f"{_span(each['run_ms']['median'])} / {_span(each['run_ms']['p95'])}",
            _span(each["oldest_waiting_ms"]),
        )
        for each in documents
    ]
    columns = ("queue", "waiting", "active", "delayed", "failed", "done/min", "failed/min", "wait p50/p95", "run p50/p95", "next waits")
    session.out.answer({**at("measured", now_ms), "queues": documents}, table(*columns, rows=rows, numbers=columns[1:]))


async def _stats(queue: Queue[Any, Any], now_ms: int) -> dict[str, Any]:
    counts = await queue.get_job_counts()
    completed, failed = await queue.get_completed(0, SAMPLE - 1), await queue.get_failed(0, SAMPLE - 1)
    since_ms = await waiting_since_ms(queue)
    done, source = await _per_minute(queue, "completed", completed, now_ms)
    waits = [
        max(0, job.processed_at_ms - job.timestamp_ms - (job.options.delay_ms or 0))
        for job in completed
        if job.processed_at_ms is not None and job.attempts_started <= 1  # of others only the last start is known
    ]
    runs = [
        max(0, job.finished_at_ms - job.processed_at_ms)
        for job in completed
        if job.finished_at_ms is not None and job.processed_at_ms is not None
    ]
    return {
        "queue": queue.name,
        "is_paused": await queue.is_paused(),
        "waiting": counts["waiting"] + counts["prioritized"],
        "active": counts["active"],
        "delayed": counts["delayed"],
        "failed": counts["failed"],
        "completed_per_minute": done,
        "failed_per_minute": (await _per_minute(queue, "failed", failed, now_ms))[0],
        "counted_by": source,
        "wait_ms": _spread(waits),
        "run_ms": _spread(runs),
        "oldest_waiting_ms": None if since_ms is None else max(0, now_ms - since_ms),
    }


async def _per_minute(
    queue: Queue[Any, Any], state: Literal["completed", "failed"], latest: Sequence[Job[Any, Any]], now_ms: int
) -> tuple[float, str]:
    """How many jobs end so in a minute, and who has counted them."""
    metrics = await queue.get_metrics(state, 0, 0)
    if metrics.count and metrics.per_minute:
        return float(metrics.per_minute[0]), "workers"
    ages = [now_ms - job.finished_at_ms for job in latest if job.finished_at_ms is not None]
    recent = [age for age in ages if age < MINUTE_MS]
    if len(recent) == SAMPLE:  # more than the sample in this minute: what it covers of it counts
        return round(SAMPLE * MINUTE_MS / max(1, *recent), 1), "kept jobs"
    return float(len(recent)), "kept jobs"


def _spread(values: Sequence[int]) -> dict[str, int | None]:
    ordered = sorted(values)
    if not ordered:
        return {"median": None, "p95": None}
    return {"median": ordered[len(ordered) // 2], "p95": ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)]}


def _rate(per_minute: float) -> str:
    return f"{per_minute:,.0f}"


def _span(ms: int | None) -> str:
    return span_text(ms) or "-"
