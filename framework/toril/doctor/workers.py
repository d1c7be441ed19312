"""Whether somebody takes the jobs that wait: workers that are there, have a handler, and are not blocked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from toril.doctor.findings import Check, Finding
from toril.doctor.standstill import READY, Waiting, is_held_back
from toril.doctor.words import jobs_word, listed, span_text
from toril.doctor.workforce import Workforce
from toril.queues.queue import Queue
from toril.queues.states import JobState, state_key

NAMES_LOOKED_AT: Final = 1_000
"""Of the jobs that are next in a state, how many are looked at for names that nobody handles."""


async def check_workers(queue: Queue[Any, Any], waiting: Waiting, workforce: Workforce) -> list[Finding]:
    """Whether anybody works on the queue."""
    count = len(workforce.clients)
    say, facts = Check("workers", queue.name), waiting.facts | {"workers": count}
    if count:
        return say.ok(f"{count} worker{'s' * (count != 1)} connected", **facts)
    is_due = bool(await queue.commands.list_due(queue.clock.now_ms(), 1))  # they stay delayed until a worker lets them wait
    if not waiting.active and not is_due and (not waiting.count or waiting.are_letters):
        return say.ok(f"no worker, and {'none is needed for dead letters' if waiting.are_letters else 'nothing to do'}", **facts)
    gone = f"; {jobs_word(waiting.active)} active, whose worker is gone" if waiting.active else ""
    due = "; the time of delayed jobs has come" if is_due else ""
    fix = f"start one: toril worker app.main:AppModule --queues {queue.name}. If one should run: look at its log, and at its --queues"
    return say.error(f"no worker is connected; {waiting}{due}{gone}", fix, **facts)


async def check_handlers(queue: Queue[Any, Any], workforce: Workforce) -> list[Finding]:
    """Whether jobs have names that no running worker handles. Node's workers take any name, and tell nobody which they know."""
    say = Check("handlers", queue.name)
    names = await unhandled_names(queue, workforce)
    if not names:
        return say.ok("running workers handle all names that wait")
    told = listed([f"{name!r} ({jobs_word(count)})" for name, count in names.most_common()])
    text = f"no running worker handles {told}; they handle {listed(list(map(repr, workforce.names))) or 'nothing'}"
    fix = (
        "first deploy the version that has the handler, or start its worker with this queue. Jobs that were put back until then: "
        f"toril job promote {queue.name} --all --name NAME. Those that have failed, after five such pauses: "
        f"toril job retry {queue.name} --all --name NAME"
    )
    return say.error(text, fix, unhandled=dict(names), handled=workforce.names)


async def unhandled_names(queue: Queue[Any, Any], workforce: Workforce) -> Counter[str]:
    """The names among the jobs that are next which no running worker handles, as far as is known: how many of each.

    Delayed ones are looked at, too: a worker claims a job whose name it doesn't know at once, and puts it back there.
    """
    ids = [job_id for state in (*READY, "delayed") for job_id in await _next_ids(queue, state)]
    return Counter([name for name in await _names(queue, ids) if not workforce.may_handle(name)])


async def names_to_take(queue: Queue[Any, Any]) -> Counter[str]:
    """The names among the jobs that are next which a worker would take now: how many of each.

    Those of delayed jobs whose time has come are among them, since it is a worker that lets these wait.
    """
    ids = [job_id for state in READY for job_id in await _next_ids(queue, state)]
    ids += await queue.commands.list_due(queue.clock.now_ms(), NAMES_LOOKED_AT)
    return Counter(await _names(queue, ids))


async def _next_ids(queue: Queue[Any, Any], state: JobState) -> list[str]:
    return await queue.commands.list_ids(state_key(state), 0, NAMES_LOOKED_AT - 1, ascending=True)


async def _names(queue: Queue[Any, Any], ids: Sequence[str]) -> list[str]:
    rows = await queue.commands.find_fields(ids, "name")
    return [(row[0] or b"").decode("utf-8", "replace") for row in rows if row is not None]


async def check_blocked(queue: Queue[Any, Any], workforce: Workforce) -> list[Finding]:
    """Whether a handler blocks the event loop of a worker, as that tells itself, from the thread that renews its locks."""
    say = Check("blocked", queue.name)
    findings: list[Finding] = []
    for one in [one for one in workforce.manifests if one.blocked_ms]:
        jobs = [job for job in await queue.get_active(0, NAMES_LOOKED_AT - 1) if one.name is not None and job.processed_by == one.name]
        runs = f", most likely that of {listed([f'{job.name!r} (job {job.id})' for job in jobs])}" if jobs else ""
        text = (
            f"a handler{runs} has been blocking the event loop of process {one.pid} on {one.host} for {span_text(one.blocked_ms)} "
            "or longer, so nothing else runs there"
        )
        which = jobs[0].id if len(jobs) == 1 else "ID"
        fix = (
            f"the worker's log names the handler with its stack. kill {one.pid}, and kill -9 if it doesn't end: its jobs run again "
            f"elsewhere. Then toril job rm {queue.name} {which}, or the job blocks the next worker, too; and make that handler a "
            "plain def, or await in it"
        )
        facts = {"worker": one.name, "host": one.host, "pid": one.pid, "blocked_ms": one.blocked_ms, "jobs": [job.id for job in jobs]}
        findings += say.error(text, fix, **facts)
    return findings or say.ok("no event loop is blocked")


async def check_claiming(queue: Queue[Any, Any], waiting: Waiting, workforce: Workforce) -> list[Finding]:
    """Whether jobs wait though workers are there and nothing holds them back that another check tells of."""
    say, facts = Check("claiming", queue.name), waiting.facts | {"workers": len(workforce.clients), "slots": workforce.slots}
    is_blocked = any(one.blocked_ms for one in workforce.manifests)
    if not workforce.clients or not waiting.is_overdue or is_blocked or await is_held_back(queue, waiting):
        return say.ok("no job waits for long without a reason", **facts)
    slots = workforce.slots
    if slots is not None and waiting.active >= slots:
        fix = "if it goes on like this: more workers, more --processes, or a higher concurrency where handlers wait for others"
        return say.warning(f"all {slots:,} slots of the workers are in use; {waiting}", fix, **facts)
    told = listed(
        [f"{one.name or one.address} (silent for {span_text(int(one.fields.get('idle', 0)) * 1_000)})" for one in workforce.clients]
    )
    text = f"workers are connected, {jobs_word(waiting.active)} running, and yet {waiting}: {told}"
    fix = (  # of a limit that was lifted nothing is left to see, and who sleeps it out is as silent as who hangs
        "if a rate limit was lifted just now, nothing: workers that met it look again within 30 s. If this still stands a minute later, "
        "look at their logs (a blocked event loop? a server that refuses?), and restart them: running jobs are put back"
    )
    return say.warning(text, fix, **facts)
