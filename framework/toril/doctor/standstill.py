"""What holds jobs back that could run: a pause, a rate limit, the global concurrency."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from toril.doctor.findings import Check, Finding, Severity
from toril.doctor.words import jobs_word, span_text
from toril.queues.dead_letters import FAILED_JOB
from toril.queues.queue import Queue
from toril.queues.states import JobState
from toril.units import format_ms

PATIENCE_MS: Final = 60_000
"""How long a job may wait before somebody should know why."""

LONG_MS: Final = 10 * 60_000
"""How long a limit may last, or a job run, before somebody should ask whether it is meant."""

_EVENTS_LOOKED_AT: Final = 1_000
READY: Final[tuple[JobState, ...]] = ("waiting", "prioritized")
"""Where jobs are that may run now."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The jobs of a queue that may run now."""

    count: int
    active: int
    oldest_ms: int | None
    """For how long the one that is next has been waiting, as far as its hash tells."""
    are_letters: bool
    """Whether they are dead letters, which wait for people."""

    def __str__(self) -> str:
        since = "" if self.oldest_ms is None else f", the oldest for {span_text(self.oldest_ms)}"
        return f"{jobs_word(self.count)} {'wait' if self.count != 1 else 'waits'}{since}"

    @property
    def facts(self) -> dict[str, Any]:
        return {"waiting": self.count, "active": self.active, "oldest_waiting_ms": self.oldest_ms}

    @property
    def is_overdue(self) -> bool:
        return self.oldest_ms is not None and self.oldest_ms >= PATIENCE_MS and not self.are_letters


async def read_waiting(queue: Queue[Any, Any]) -> Waiting:
    """Count them, and look at the oldest."""
    counts = await queue.get_job_counts(*READY, "active")
    now_ms = queue.clock.now_ms()
    heads = [job for state in READY for job in await queue.get_jobs(state, 0, 0, ascending=True)]
    since = [max(job.timestamp_ms + (job.options.delay_ms or 0), job.processed_at_ms or 0) for job in heads]
    count, are_letters = sum(counts[state] for state in READY), bool(heads) and all(job.name == FAILED_JOB for job in heads)
    return Waiting(count, counts["active"], max(now_ms - min(since), 0) if since else None, are_letters)


async def check_pause(queue: Queue[Any, Any], waiting: Waiting) -> list[Finding]:
    """Whether the queue is paused, since when, and what waits for that."""
    say = Check("pause", queue.name)
    if not await queue.is_paused():
        return say.ok("not paused")
    since_ms = await _paused_at_ms(queue)
    for_ms = None if since_ms is None else max(queue.clock.now_ms() - since_ms, 0)
    text = f"the queue has been paused{'' if for_ms is None else f' for {span_text(for_ms)}'}, so nothing starts; {waiting}"
    fix = f"if nobody knows why any more: toril queue resume {queue.name}"
    severity = Severity.ERROR if waiting.is_overdue else Severity.WARNING
    return say.found(severity, text, fix, waiting.facts | {"paused_for_ms": for_ms})


async def _paused_at_ms(queue: Queue[Any, Any]) -> int | None:
    """By the server's clock, if the event is among the last ones."""
    for event_id, fields in await queue.commands.range_events_back("+", _EVENTS_LOOKED_AT):
        if fields.get("event") == "paused":
            return int(event_id.partition("-")[0])
    return None


async def check_rate_limit(queue: Queue[Any, Any], waiting: Waiting) -> list[Finding]:
    """Whether a rate limit, the queue's or one that somebody has called for, holds jobs back."""
    say = Check("rate-limit", queue.name)
    rate, left = await queue.get_global_rate_limit(), await queue.get_rate_limit_ttl()
    left_ms, rate_ms = left // timedelta(milliseconds=1), 0 if rate is None else rate.duration_ms
    facts = waiting.facts | {"max": None if rate is None else rate.max, "duration_ms": rate_ms or None, "limited_for_ms": left_ms}
    if left_ms > rate_ms:  # longer than the queue's own limit lasts: somebody has called rate_limit(…)
        text = f"claiming is stopped by hand, or by a handler, for {span_text(left_ms)} more; {waiting}"
        fix = f"if that is too long: toril queue limits {queue.name} --reset; workers notice within 30 s"
        return say.found(Severity.ERROR if waiting.count and left_ms > PATIENCE_MS else Severity.WARNING, text, fix, facts)
    if rate is None:
        return say.ok("no rate limit of the queue is set", **facts)
    takes_ms = waiting.count * rate_ms // rate.max
    text = f"at most {jobs_word(rate.max)} may start in {format_ms(rate_ms)}, over all workers"
    if waiting.is_overdue and takes_ms > LONG_MS:
        fix = f"if it was set for a time that is over: toril queue limits {queue.name} --rate none"
        return say.error(f"{text}; {waiting}, and need {span_text(takes_ms)} with this limit", fix, **facts)
    return say.info(text, None, **facts)


async def check_concurrency(queue: Queue[Any, Any], waiting: Waiting) -> list[Finding]:
    """Whether the global concurrency holds jobs back."""
    say, most = Check("concurrency", queue.name), await queue.get_global_concurrency()
    if most is None:
        return say.ok("no global concurrency is set")
    text = f"at most {jobs_word(most)} may run at the same time, over all workers"
    if waiting.active < most or not waiting.is_overdue:
        return say.info(text, **waiting.facts, concurrency=most)
    fix = f"if it was set for a time that is over: toril queue limits {queue.name} --concurrency none"
    return say.warning(f"{text}, and so many do; {waiting}", fix, **waiting.facts, concurrency=most)


async def is_held_back(queue: Queue[Any, Any], waiting: Waiting) -> bool:
    """Whether one of these is the reason."""
    most = await queue.get_global_concurrency()
    if most is not None and waiting.active >= most:
        return True
    return await queue.is_paused() or await queue.get_rate_limit_ttl() > timedelta()
