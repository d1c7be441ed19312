"""The work of `toril queue …`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from toril.cli.output import ago, at, fields_table, span_text, table
from toril.cli.session import Session
from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.queues.states import STATES, JobState
from toril.units import format_ms

_READY: Final[tuple[JobState, ...]] = ("waiting", "prioritized")


async def list_queues(session: Session, names: list[str]) -> None:
    """All queues, or these, with their counts."""
    shown = [await _overview(queue) for queue in await session.queues.some(names)]
    rows = [(each["queue"], "paused" if each["is_paused"] else "", *each["counts"].values()) for each in shown]
    server = str(session.queues.server.address)
    if not rows:
        session.out.note(f"no queue at {server} under the prefix {session.queues.prefix!r}")
    session.out.answer(
        {"server": server, "prefix": session.queues.prefix, "queues": shown}, table("queue", "", *STATES, rows=rows, numbers=STATES)
    )


async def _overview(queue: Queue[Any, Any]) -> dict[str, Any]:
    return {
        "queue": queue.name,
        "prefix": queue.prefix,
        "is_paused": await queue.is_paused(),
        "counts": dict(await queue.get_job_counts()),
    }


async def show_queue(session: Session, name: str) -> None:
    """All about one queue that is no single job."""
    queue = await session.queues.get(name)
    now_ms = queue.clock.now_ms()
    document = await _overview(queue)
    document["limits"] = limits = await limits_of(queue)
    document["workers"] = workers = len(await queue.get_workers())
    document["schedules"] = schedules = await queue.job_schedulers.count()
    document["dead_letter"] = letters = None if queue.letters is None else queue.letters.name
    waiting_ms = await waiting_since_ms(queue)
    document |= at("oldest_waiting", waiting_ms)
    session.out.answer(
        document,
        fields_table(
            (
                ("queue", queue.name),
                ("prefix", queue.prefix),
                ("paused", document["is_paused"]),
                *document["counts"].items(),
                ("oldest waiting", ago(waiting_ms, now_ms)),
                ("workers", workers),
                ("schedules", schedules),
                ("dead letters go to", letters),
                *limit_words(limits),
            )
        ),
    )


async def limits_of(queue: Queue[Any, Any]) -> dict[str, Any]:
    """What bounds the work on a queue over the whole fleet, for a document."""
    rate, left = await queue.get_global_rate_limit(), await queue.get_rate_limit_ttl()
    return {
        "concurrency": await queue.get_global_concurrency(),
        "rate": None if rate is None else {"max": rate.max, "duration_ms": rate.duration_ms},
        "limited_for_ms": left // timedelta(milliseconds=1),
    }


def limit_words(limits: dict[str, Any]) -> list[tuple[str, str | None]]:
    """The same in words; None for what isn't set."""
    rate, left_ms = limits["rate"], limits["limited_for_ms"]
    concurrency = limits["concurrency"]
    return [
        ("concurrency", None if concurrency is None else f"{concurrency} at once, over all workers"),
        ("rate limit", None if rate is None else f"{rate['max']} in {format_ms(rate['duration_ms'])}, over all workers"),
        ("limited for", span_text(left_ms) if left_ms else None),
    ]


async def waiting_since_ms(queue: Queue[Any, Any]) -> int | None:
    """Since when the job that is next has been waiting, of those without a priority and of those with one; None: none waits."""
    heads = [job for state in _READY for job in await queue.get_jobs(state, 0, 0, ascending=True)]
    return min((ready_since_ms(job) for job in heads), default=None)


def ready_since_ms(job: Job[Any, Any]) -> int:
    """Since when a job that waits could run, as far as its hash tells: from the end of its delay, or of its last run, on."""
    if job.attempts_started and job.processed_at_ms is not None:
        return job.processed_at_ms
    return job.timestamp_ms + (job.options.delay_ms or 0)
