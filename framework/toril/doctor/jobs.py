"""Jobs that are not where they should be: without the worker that runs them, killing it again and again, or given up in great number."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

from toril.doctor.findings import Check, Finding, Severity
from toril.doctor.standstill import LONG_MS
from toril.doctor.words import jobs_word, listed, span_text
from toril.doctor.workforce import Workforce
from toril.queues.dead_letters import FAILED_JOB, DeadLetter, read_letter
from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.queues.states import PENDING_STATES, JobState, state_key
from toril.worker.outcome_log import STALLED_TOO_OFTEN

PAGE: Final = 500
FAILED_LOOKED_AT: Final = 2_000
"""The newest failed jobs are looked at; older ones are no news."""

MANY_LETTERS: Final = 1_000
LETTERS_LOOKED_AT: Final = 500


async def check_locks(queue: Queue[Any, Any], workforce: Workforce) -> list[Finding]:
    """Whether each active job has a worker that holds its lock."""
    say = Check("locks", queue.name)
    unlocked = [job_id async for ids in _pages(queue, "active") for job_id in await queue.commands.unlocked(ids)]
    # One that has just ended was unlocked in the same moment in which it left the list, so a second look tells.
    still = [job_id for job_id in unlocked if await queue.find_state(job_id) == "active"]
    still = await queue.commands.unlocked(still) if still else []
    if not still:
        return say.ok("each active job is locked by a worker")
    text = f"{jobs_word(len(still))} active without a lock: {listed(still)}. The worker is gone"
    if not workforce.clients:
        return say.error(text, "start a worker of this queue: its sweep puts them back, and they run again", jobs=still[:PAGE])
    fix = "nothing to do: a worker of the queue puts them back at its next sweep, within a minute unless stalled_interval says otherwise"
    return say.warning(text, fix, jobs=still[:PAGE])


async def check_running(queue: Queue[Any, Any], workforce: Workforce) -> list[Finding]:
    """Whether jobs run for very long, of those that have a worker which hears when it is told to stop: others are told elsewhere."""
    say, now_ms = Check("running", queue.name), queue.clock.now_ms()
    deaf = {one.name for one in workforce.manifests if one.blocked_ms and one.name is not None}
    long: list[tuple[int, Job[Any, Any]]] = []
    async for ids in _pages(queue, "active"):
        unlocked = set(await queue.commands.unlocked(ids))
        for record in await queue.commands.find_jobs([job_id for job_id in ids if job_id not in unlocked]):
            for_ms = 0 if record is None or record.processed_at_ms is None else now_ms - record.processed_at_ms
            if record is not None and for_ms > LONG_MS and record.processed_by not in deaf:
                long.append((for_ms, Job(queue, record)))
    if not long:
        return say.ok("no job runs for very long")
    long.sort(key=lambda each: -each[0])
    told = listed([f"{job.id} ({job.name!r} for {span_text(for_ms)} on {job.processed_by or 'a nameless worker'})" for for_ms, job in long])
    text = f"{jobs_word(len(long))} running for more than {span_text(LONG_MS)}: {told}"
    fix = f"if that is not meant: toril job cancel {queue.name} ID; and give the handler a timeout"
    jobs = [{"id": job.id, "name": job.name, "running_ms": for_ms, "worker": job.processed_by} for for_ms, job in long[:PAGE]]
    return say.info(text, fix, jobs=jobs)


async def check_poison(queue: Queue[Any, Any]) -> list[Finding]:
    """Whether jobs take their workers down with them: they have stalled, or were failed since they stalled too often."""
    say = Check("poison", queue.name)
    stalled = await _stalled(queue)
    given_up = await _given_up(queue)
    names = Counter(job.name for job in (*stalled, *given_up))
    facts = {"names": dict(names), "stalled": [job.id for job in stalled], "given_up": [job.id for job in given_up[:PAGE]]}
    if not names:
        return say.ok("no job has lost its worker")
    told = listed([f"{name!r} ({jobs_word(count)})" for name, count in names.most_common()])
    if not given_up:
        text = f"{jobs_word(len(stalled))} lost the worker, and will run again: {told}; ids {listed([job.id for job in stalled])}"
        return say.info(text, "a worker that was killed leaves such. Those that come again and again kill their worker", **facts)
    text = f"{jobs_word(len(given_up))} given up, since the worker died each time: {told}; ids {listed([job.id for job in given_up])}"
    fix = (
        f"toril job show {queue.name} ID tells its data; toril job debug {queue.name} ID --app … runs it here. Look for what "
        f"kills a process: memory (dmesg, OOMKilled), a crash in C, os._exit. Mend it, then: toril job retry {queue.name} ID"
    )
    return say.error(text, fix, **facts)


async def _stalled(queue: Queue[Any, Any]) -> list[Job[Any, Any]]:
    """Those of the jobs that are active or next that have lost a worker."""
    found: list[Job[Any, Any]] = []
    for state in ("active", "wait"):
        ids = await queue.commands.list_ids(state, 0, PAGE - 1, ascending=True)
        found += [Job(queue, record) for record in await queue.commands.find_jobs(ids) if record is not None and record.stalled_count]
    return found


async def _given_up(queue: Queue[Any, Any]) -> list[Job[Any, Any]]:
    """Those of the newest failed jobs that were failed since they had lost their worker too often."""
    ids = await queue.commands.list_ids("failed", 0, FAILED_LOOKED_AT - 1, ascending=False)
    rows = await queue.commands.find_fields(ids, "name", "failedReason")
    told = STALLED_TOO_OFTEN.encode()
    found = [job_id for job_id, row in zip(ids, rows, strict=True) if row is not None and (row[1] or b"").startswith(told)]
    return [Job(queue, record) for record in await queue.commands.find_jobs(found) if record is not None]


async def check_dead_letters(queue: Queue[Any, Any]) -> list[Finding]:
    """Whether dead letters pile up in this queue, where they come from, and why."""
    letters = await _newest_letters(queue)
    if not letters:
        return []
    total = sum((await queue.get_job_counts(*PENDING_STATES)).values())
    causes = Counter((letter.queue, letter.name, letter.message.partition("\n")[0][:120]) for letter in letters)
    told = "; ".join(f"{count:,} × {name!r} of {origin}: {message}" for (origin, name, message), count in causes.most_common(3))
    fix = (
        f"toril dlq ls {queue.name} shows them. Mend the cause, then toril dlq replay {queue.name} ID, and if that job completes --all; "
        f"what nobody needs: toril dlq purge {queue.name}"
    )
    facts = {
        "letters": total,
        "causes": [
            {"queue": origin, "name": name, "message": why, "count": count} for (origin, name, why), count in causes.most_common(20)
        ],
    }
    severity = Severity.WARNING if total >= MANY_LETTERS else Severity.INFO
    text = f"{total:,} dead letter{'s' * (total != 1)}. Of the newest {len(letters):,}: {told}"
    return Check("dead-letters", queue.name).found(severity, text, fix, facts)


async def _newest_letters(queue: Queue[Any, Any]) -> list[DeadLetter]:
    found: list[DeadLetter] = []
    for state in PENDING_STATES:
        ids = await queue.commands.list_ids(state_key(state), 0, LETTERS_LOOKED_AT - 1, ascending=False)
        rows = await queue.commands.find_fields(ids, "name")
        named = [job_id for job_id, row in zip(ids, rows, strict=True) if row is not None and row[0] == FAILED_JOB.encode()]
        read = [read_letter(Job(queue, record)) for record in await queue.commands.find_jobs(named) if record is not None]
        found += [letter for letter in read if letter is not None]
    return found


async def _pages(queue: Queue[Any, Any], state: JobState) -> AsyncGenerator[Sequence[str]]:
    start = 0
    while ids := await queue.commands.list_ids(state_key(state), start, start + PAGE - 1, ascending=True):
        yield ids
        start += PAGE
