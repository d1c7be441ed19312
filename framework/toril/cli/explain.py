"""`toril job explain`: in words, why a job doesn't run, or what has become of it; each finding with a code and, if there is one, a fix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final

from toril.cli.jobs import attempts_allowed, due_ms_of
from toril.cli.output import ago, iso, span_text
from toril.cli.queues import ready_since_ms
from toril.cli.session import Session
from toril.cli.workers import paired
from toril.queues.children import ChildrenCounts
from toril.queues.getters import WorkerClient
from toril.queues.job import Job
from toril.queues.manifests import WorkerManifest
from toril.queues.option_parts import RateLimit
from toril.queues.option_values import stored_expiry_ms
from toril.queues.queue import Queue
from toril.queues.states import JobState
from toril.units import format_ms

_CANCELLED: Final = "cancelled: "
_ERROR_WIDTH: Final = 300


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is known about why a job is where it is."""

    code: str
    text: str
    fix: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """A job and all around it that may keep it from running, as it is now."""

    job: Job[Any, Any]
    state: JobState | None
    now_ms: int
    is_paused: bool
    active: int
    concurrency: int | None
    rate: RateLimit | None
    limited_ms: int
    clients: list[WorkerClient]
    manifests: list[WorkerManifest]
    due_ms: int | None
    lock: tuple[str, int] | None
    """Its token, and for how long it still holds, ms."""
    cancellation: str | None
    children: ChildrenCounts
    pending_children: list[str]
    failed_children: list[str]

    @property
    def queue(self) -> Queue[Any, Any]:
        return self.job.queue

    @property
    def others(self) -> list[WorkerClient]:
        """Workers that tell nothing of themselves: Node's."""
        return paired(self.clients, self.manifests)[1]


async def explain_job(session: Session, name: str, job_id: str) -> None:
    """Gather the facts, and tell what follows from them."""
    queue = await session.queues.get(name)
    facts = await gather(queue, await queue.get_job(job_id))
    findings = list(findings_of(facts))
    job = facts.job
    lines = [f"job {job.id} ({job.name}) of queue {queue.name} is {facts.state or 'gone'}"]
    for one in findings:
        lines.append(f"- {one.text}")
        if one.fix is not None:
            lines.append(f"  fix: {one.fix}")
    document = {"id": job.id, "name": job.name, "queue": queue.name, "state": facts.state, "findings": [asdict(one) for one in findings]}
    session.out.answer(document, *lines)


async def gather(queue: Queue[Any, Any], job: Job[Any, Any]) -> Facts:
    """All that may matter, read one after the other: a job that moves meanwhile is told as it was in between."""
    state = await job.get_state()
    return Facts(
        job=job,
        state=state,
        now_ms=queue.clock.now_ms(),
        is_paused=await queue.is_paused(),
        active=await queue.get_active_count(),
        concurrency=await queue.get_global_concurrency(),
        rate=await queue.get_global_rate_limit(),
        limited_ms=await queue.get_rate_limit_ttl() // timedelta(milliseconds=1),
        clients=await queue.get_workers(),
        manifests=await queue.get_worker_manifests(),
        due_ms=await due_ms_of(job, state),
        lock=await queue.commands.find_lock(job.id),
        cancellation=await queue.commands.find_cancellation(job.id),
        children=await job.get_dependencies_count(),
        pending_children=await job.get_pending_children(),
        failed_children=await job.get_failed_children(),
    )


def findings_of(facts: Facts) -> Iterator[Finding]:
    """What follows from the facts, the most important first."""
    match facts.state:
        case "waiting" | "prioritized":
            yield from _about_waiting(facts)
        case "delayed":
            yield from _about_delay(facts)
        case "active":
            yield from _about_running(facts)
        case "waiting-children":
            yield from _about_children(facts)
        case "completed":
            yield _about_completed(facts)
        case "failed":
            yield from _about_failure(facts)
        case None:
            text = "it was removed while we looked, or stands in no state: its hash is an orphan"
            yield Finding("gone", text, f"toril queue orphans {facts.queue.name}")
    if facts.job.parent_key is not None and facts.state not in ("completed", "failed"):
        yield Finding("has_parent", f"job {facts.job.parent_key} waits for it", f"toril flow show {facts.queue.name} {facts.job.id} --root")


def _about_waiting(facts: Facts) -> Iterator[Finding]:
    obstacles = [*_obstacles(facts)]
    yield from obstacles
    waited = span_text(max(0, facts.now_ms - ready_since_ms(facts.job)))
    if not obstacles:
        yield Finding("in_line", f"nothing keeps it from running: it is in line, and has waited for {waited}")
    else:
        yield Finding("waits", f"it has waited for {waited}")
    yield from _about_expiry(facts)
    yield from _about_tries(facts)


def _about_expiry(facts: Facts) -> Iterator[Finding]:
    expires_ms = stored_expiry_ms(facts.job.record.opts)
    if expires_ms is not None:
        yield Finding("expires", f"if it has not started by {iso(expires_ms)} ({ago(expires_ms, facts.now_ms)}), it fails")


def _obstacles(facts: Facts) -> Iterator[Finding]:
    """What keeps any job like this one from being claimed."""
    name = facts.queue.name
    if facts.is_paused:
        yield Finding("paused", "the queue is paused: no worker claims anything", f"toril queue resume {name}")
    if facts.limited_ms:
        rate = "" if facts.rate is None else f" ({facts.rate.max} in {format_ms(facts.rate.duration_ms)})"
        who = "" if facts.rate is not None else "; it holds for workers that have a limiter of their own"
        text = f"the rate limit{rate} is used up for another {span_text(facts.limited_ms)}{who}"
        yield Finding("rate_limited", text, f"toril queue limits {name} --reset")
    if facts.concurrency is not None and facts.active >= facts.concurrency:
        text = f"{facts.active} jobs run, and the queue's concurrency allows {facts.concurrency} at once over the whole fleet"
        yield Finding("concurrency_full", text, f"toril queue limits {name} --concurrency N (or none)")
    yield from _missing_handlers(facts)


def _missing_handlers(facts: Facts) -> Iterator[Finding]:
    name, manifests, others = facts.queue.name, facts.manifests, facts.others
    if not manifests and not others:
        yield Finding("no_worker", "no worker of this queue is connected", "start one: toril worker app.main:AppModule")
    elif not any(one.handles(facts.job.name) for one in manifests) and not others:
        handled = ", ".join(sorted({each for one in manifests for each in one.handlers}))
        text = f"no connected worker ({len(manifests)}) has a handler for jobs named {facts.job.name!r}; handled are {handled}"
        yield Finding(
            "no_handler", text, f"deploy the handler, or look whether the name is right; toril workers {name} shows who handles what"
        )
    elif not others and (slots := sum(one.concurrency for one in manifests)) <= facts.active:
        text = f"all slots ({slots}) of the connected workers ({len(manifests)}) are taken"
        yield Finding("busy", text, f"toril job ls {name} --state active shows what runs; more workers or a higher concurrency help")


def _about_delay(facts: Facts) -> Iterator[Finding]:
    job = facts.job
    left_ms = None if facts.due_ms is None else facts.due_ms - facts.now_ms
    fix = f"to run it now: toril job promote {facts.queue.name} {job.id}"
    if job.record.scheduler_id is not None:
        yield Finding("schedule", f"it is the next run of the schedule {job.record.scheduler_id!r}")
    if left_ms is not None and left_ms > 0:
        yield Finding("delayed", f"it waits for its time: {iso(facts.due_ms)}, in {span_text(left_ms)}", fix)
    else:
        late = "" if left_ms is None else f" since {span_text(-left_ms)}"
        yield Finding("overdue", f"its time has come{late}, and no worker has taken notice: they do when they look for jobs", fix)
    yield from _about_tries(facts)
    yield from _obstacles(facts)


def _about_tries(facts: Facts) -> Iterator[Finding]:
    job = facts.job
    if job.attempts_made:
        left = attempts_allowed(job) - job.attempts_made
        text = f"{job.attempts_made} of {attempts_allowed(job)} tries have failed, {max(left, 0)} are left; the last error: {_error(job)}"
        yield Finding("tried", text)
    elif (before := job.attempts_started - (facts.state == "active")) > 0:
        text = f"workers took it {before} times before, and put it back or lost it each time"
        if job.stalled_count:
            text += f"; {job.stalled_count} times its worker died or lost its lock"
        yield Finding("put_back", text)


def _about_running(facts: Facts) -> Iterator[Finding]:
    job = facts.job
    started_ms = job.processed_at_ms
    ran = "" if started_ms is None else f" for {span_text(max(0, facts.now_ms - started_ms))}"
    if facts.lock is None:
        yield Finding(
            "lock_expired",
            f"it was taken{_by(job.processed_by)}{ran}, and its lock has expired: that worker died, hangs or lost its connection",
            "a running worker puts it back by itself, 30 s later by default (stalled interval); if none runs, start one",
        )
    else:
        token, left_ms = facts.lock
        holder = next((one for one in facts.manifests if token.startswith(f"{one.id}:")), None)
        where = _by(job.processed_by) if holder is None else f" on {holder.host}, process {holder.pid} (worker {holder.name or holder.id})"
        yield Finding("running", f"it runs{where}{ran}; its lock is renewed, and holds for another {span_text(left_ms)}")
        if holder is not None and holder.blocked_ms:
            text = f"the event loop of that process has been blocked for {span_text(holder.blocked_ms)} or longer, by this job or another"
            yield Finding("blocked", text, f"toril doctor {facts.queue.name}")
    if facts.cancellation is not None:
        yield Finding("cancelling", f"its worker was told to cancel it ({facts.cancellation}), and has not ended it yet")
    if job.stalled_count:
        yield Finding("stalled_before", f"{job.stalled_count} times it was taken from a worker that had died or lost its lock")
    yield from _about_tries(facts)


def _about_children(facts: Facts) -> Iterator[Finding]:
    counts, job = facts.children, facts.job
    fix = f"toril flow show {facts.queue.name} {job.id}"
    done = f"{counts.processed} have completed, {counts.ignored} failed and don't count"
    pending = facts.pending_children
    some = _some(sorted(pending))
    if facts.failed_children:
        yield Finding("child_failed", f"{counts.failed} of its children have failed: {_some(facts.failed_children)}", fix)
    if pending:
        yield Finding("waits_for_children", f"it waits for {len(pending)} of its children ({some}); {done}", fix)
    elif not facts.failed_children:
        yield Finding(
            "children_ended", f"all its children have ended ({done}), and it was not moved on", f"toril doctor {facts.queue.name}"
        )


def _about_completed(facts: Facts) -> Finding:
    job = facts.job
    took = "" if job.processed_at_ms is None or job.finished_at_ms is None else f" in {span_text(job.finished_at_ms - job.processed_at_ms)}"
    text = f"it completed at {iso(job.finished_at_ms)}{_by(job.processed_by)}{took}, in try {job.attempts_made}"
    return Finding("completed", text, f"to run it again: toril job retry {facts.queue.name} {job.id}")


def _about_failure(facts: Facts) -> Iterator[Finding]:
    job, name = facts.job, facts.queue.name
    fix = f"once the cause is mended: toril job retry {name} {job.id} --reset-attempts"
    reason = job.failed_reason or ""
    at = iso(job.finished_at_ms)
    if reason.startswith(_CANCELLED):
        yield Finding("cancelled", f"somebody cancelled it at {at}: {reason.removeprefix(_CANCELLED)}", fix)
        return
    allowed = attempts_allowed(job)
    if job.attempts_made < allowed:
        yield Finding("failed_early", f"it failed for good at {at} in try {job.attempts_made} of {allowed}: {_error(job)}", fix)
    else:
        yield Finding("tries_exhausted", f"it failed for good at {at}, after all {job.attempts_made} tries: {_error(job)}", fix)
    if job.stalled_count:
        yield Finding("stalled", f"{job.stalled_count} times its worker died or lost its lock while it ran: it may be what kills them")
    if facts.queue.letters is not None:
        yield Finding("dead_letter", f"a letter about it is in {facts.queue.letters.name}", f"toril dlq ls {facts.queue.letters.name}")


def _some(keys: list[str], most: int = 3) -> str:
    return ", ".join([*keys[:most], "…"] if len(keys) > most else keys)


def _by(worker: str | None) -> str:
    return "" if worker is None else f" by worker {worker}"


def _error(job: Job[Any, Any]) -> str:
    text = " ".join((job.failed_reason or "?").split())
    return text if len(text) <= _ERROR_WIDTH else f"{text[:_ERROR_WIDTH]}…"
