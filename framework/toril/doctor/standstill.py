"""Why jobs that could run don't: the queue is paused, a limit holds them back, nobody works on it, or those who do have no handler."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from toril.doctor.findings import Check, Finding, Severity
from toril.doctor.words import jobs_word, listed, span_text
from toril.doctor.workforce import Workforce
from toril.queues.queue import Queue
from toril.queues.states import JobState, state_key
from toril.units import format_ms

PATIENCE_MS: Final = 60_000
"""How long a job may wait before somebody should know why."""

LONG_MS: Final = 10 * 60_000
"""How long a limit may last, or a job run, before somebody should ask whether it is meant."""

NAMES_LOOKED_AT: Final = 1_000
"""Of the jobs that are next in a state, how many are looked at for names that nobody handles."""

_EVENTS_LOOKED_AT: Final = 1_000
_READY: Final[tuple[JobState, ...]] = ("waiting", "prioritized")


@dataclass(frozen=True, slots=True)
class Waiting:
    """The jobs of a queue that may run now."""

    count: int
    active: int
    oldest_ms: int | None
    """For how long the one that is next has been waiting, as far as its hash tells."""

    def __str__(self) -> str:
        since = "" if self.oldest_ms is None else f", the oldest for {span_text(self.oldest_ms)}"
        return f"{jobs_word(self.count)} {'wait' if self.count != 1 else 'waits'}{since}"

    @property
    def facts(self) -> dict[str, Any]:
        return {"waiting": self.count, "active": self.active, "oldest_waiting_ms": self.oldest_ms}

    @property
    def is_overdue(self) -> bool:
        return self.oldest_ms is not None and self.oldest_ms >= PATIENCE_MS


async def read_waiting(queue: Queue[Any, Any]) -> Waiting:
    """Count them, and look at the oldest."""
    counts = await queue.get_job_counts(*_READY, "active")
    now_ms = queue.clock.now_ms()
    heads = [job for state in _READY for job in await queue.get_jobs(state, 0, 0, ascending=True)]
    since = [max(job.timestamp_ms + (job.options.delay_ms or 0), job.processed_at_ms or 0) for job in heads]
    return Waiting(sum(counts[state] for state in _READY), counts["active"], max(now_ms - min(since), 0) if since else None)


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
        fix = f"if it was set for a time that is over: toril queue limits {queue.name} --no-rate"
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
    fix = f"if it was set for a time that is over: toril queue limits {queue.name} --no-concurrency"
    return say.warning(f"{text}, and so many do; {waiting}", fix, **waiting.facts, concurrency=most)


async def check_workers(queue: Queue[Any, Any], waiting: Waiting, workforce: Workforce) -> list[Finding]:
    """Whether anybody works on the queue."""
    count = len(workforce.clients)
    say, facts = Check("workers", queue.name), waiting.facts | {"workers": count}
    if count:
        return say.ok(f"{count} worker{'s' * (count != 1)} connected", **facts)
    if not waiting.count and not waiting.active:
        return say.ok("no worker, and nothing to do", **facts)
    gone = f"; {jobs_word(waiting.active)} active, whose worker is gone" if waiting.active else ""
    fix = f"start one: toril worker app.main:AppModule --queues {queue.name}. If one should run: look at its log, and at its --queues"
    return say.error(f"no worker is connected; {waiting}{gone}", fix, **facts)


async def check_handlers(queue: Queue[Any, Any], workforce: Workforce) -> list[Finding]:
    """Whether jobs have names that no running worker handles. Node's workers take any name, and tell nobody which they know."""
    say = Check("handlers", queue.name)
    names = Counter([name for state in (*_READY, "delayed") for name in await _names(queue, state) if not workforce.may_handle(name)])
    if not names:
        return say.ok("running workers handle all names that wait")
    told = listed([f"{name!r} ({jobs_word(count)})" for name, count in names.most_common()])
    text = f"no running worker handles {told}; they handle {listed(list(map(repr, workforce.names))) or 'nothing'}"
    fix = (
        "deploy the version that has the handler, or start its worker with this queue. Until then such a job is put back five times with a "
        f"growing delay, and then fails: toril job retry {queue.name} --all --name NAME brings it back"
    )
    return say.error(text, fix, unhandled=dict(names), handled=workforce.names)


async def _names(queue: Queue[Any, Any], state: JobState) -> list[str]:
    """The names of the jobs that are next in a state."""
    ids = await queue.commands.list_ids(state_key(state), 0, NAMES_LOOKED_AT - 1, ascending=True)
    rows = await queue.commands.find_fields(ids, "name")
    return [(row[0] or b"").decode("utf-8", "replace") for row in rows if row is not None]


async def check_blocked(queue: Queue[Any, Any], workforce: Workforce) -> list[Finding]:
    """Whether a handler blocks the event loop of a worker, as that tells itself, from the thread that renews its locks."""
    blocked = [one for one in workforce.manifests if one.blocked_ms]
    findings: list[Finding] = []
    for one in blocked:
        here = f"process {one.pid} on {one.host}"
        text = f"a handler has been blocking the event loop of {here} for {span_text(one.blocked_ms)} or longer: nothing else runs there"
        fix = (
            f"its log names the handler with its stack; toril job ls {queue.name} --state active what it runs. kill {one.pid}, and "
            "kill -9 if it doesn't end: its jobs run again elsewhere. Then make that handler a plain def, or await in it"
        )
        findings += Check("blocked", queue.name).error(text, fix, worker=one.name, host=one.host, pid=one.pid, blocked_ms=one.blocked_ms)
    return findings or Check("blocked", queue.name).ok("no event loop is blocked")


async def check_claiming(queue: Queue[Any, Any], waiting: Waiting, workforce: Workforce) -> list[Finding]:
    """Whether jobs wait though workers are there and nothing holds them back that another check tells of."""
    say, facts = Check("claiming", queue.name), waiting.facts | {"workers": len(workforce.clients), "slots": workforce.slots}
    if not workforce.clients or not waiting.is_overdue or await _is_held_back(queue, waiting):
        return say.ok("no job waits for long without a reason", **facts)
    slots = workforce.slots
    if slots is not None and waiting.active >= slots:
        fix = "if it goes on like this: more workers, more --processes, or a higher concurrency where handlers wait for others"
        return say.warning(f"all {slots:,} slots of the workers are in use; {waiting}", fix, **facts)
    told = listed(
        [f"{one.name or one.address} (silent for {span_text(int(one.fields.get('idle', 0)) * 1_000)})" for one in workforce.clients]
    )
    text = f"workers are connected, {jobs_word(waiting.active)} running, and yet {waiting}: {told}"
    fix = "look at their logs (a blocked event loop? a server that refuses?), and restart them: running jobs are put back"
    return say.warning(text, fix, **facts)


async def _is_held_back(queue: Queue[Any, Any], waiting: Waiting) -> bool:
    most = await queue.get_global_concurrency()
    if most is not None and waiting.active >= most:
        return True
    return await queue.is_paused() or await queue.get_rate_limit_ttl() > timedelta()
