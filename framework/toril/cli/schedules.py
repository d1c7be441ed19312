"""The work of `toril schedule …`."""

from __future__ import annotations

from typing import Any, Final

from toril.cli import exit_codes
from toril.cli.confirming import confirm
from toril.cli.errors import NothingFoundError, UsageError
from toril.cli.jobs import due_ms_of, job_document
from toril.cli.output import ago, at, table
from toril.cli.session import Session
from toril.errors import SchedulerNotFoundError
from toril.queues.job_schedulers import JobScheduler, ScheduleRule
from toril.queues.queue import Queue
from toril.spelling import near
from toril.units import format_ms
from toril.wire.scheduler_commands import iteration_id

_KINDS: Final = {
    "missing": "declared, and not in the server: no process with the role scheduler has started since",
    "changed": "in the server with another rule",
    "vanished": "in the server, and no longer declared",
    "paused": "paused by somebody: toril schedule resume lets it go on",
}


async def list_schedules(session: Session, names: list[str]) -> None:
    """Those of all queues, or of these."""
    documents: list[dict[str, Any]] = []
    for queue in await session.queues.some(names):
        documents += [await _document(queue, one, is_paused=False) for one in await queue.job_schedulers.list()]
        documents += [await _document(queue, one, is_paused=True) for one in await queue.job_schedulers.list_paused()]
    rows = [(each["queue"], each["id"], each["rule"], _next_text(session, each), each["iterations"]) for each in documents]
    if not rows:
        session.out.note("no schedule")
    session.out.answer({"schedules": documents}, table("queue", "id", "rule", "next run", "runs", rows=rows, numbers=["runs"]))


def _next_text(session: Session, document: dict[str, Any]) -> str:
    if document["is_paused"]:
        return "paused"
    due = ago(document["next_at_ms"], session.queues.now_ms) or "-"
    return due if document["has_next_job"] else f"{due}, but its job is missing"


async def run_schedule(session: Session, name: str, schedule: str) -> None:
    """Add a job like those that it adds."""
    queue = await session.queues.get(name)
    found = await _find(queue, schedule)
    job = await queue.add(found.name, found.data, options=found.options)
    state = await job.get_state()
    session.out.answer(job_document(job, state, await due_ms_of(job, state)), f"added job {job.id} ({job.name}) to queue {name}")


async def pause_schedule(session: Session, name: str, schedule: str) -> None:
    """Let it rest."""
    queue = await session.queues.get(name)
    found = await _find(queue, schedule)
    await queue.job_schedulers.pause(schedule)
    words = f"schedule {schedule} of queue {name} is paused; toril schedule resume {name} {schedule} lets it go on"
    session.out.answer(await _document(queue, found, is_paused=True), words)


async def resume_schedule(session: Session, name: str, schedule: str) -> None:
    """Let it go on."""
    queue = await session.queues.get(name)
    await _find(queue, schedule)
    await queue.job_schedulers.resume(schedule)
    found = await queue.job_schedulers.get(schedule)
    next_run = ago(found.next_ms, session.queues.now_ms)
    session.out.answer(await _document(queue, found, is_paused=False), f"schedule {schedule} of queue {name} runs next {next_run}")


async def remove_schedule(session: Session, name: str, schedule: str, *, yes: bool) -> None:
    """End it."""
    queue = await session.queues.get(name)
    found = await _find(queue, schedule)
    confirm(session.out, f"remove schedule {schedule} ({_rule_text(found)}) of queue {name}", yes=yes, look=None)
    await queue.job_schedulers.remove(schedule)
    session.out.answer({"queue": name, "id": schedule, "is_removed": True}, f"schedule {schedule} of queue {name} is removed")


async def compare_schedules(session: Session) -> int:
    """What is declared, and what is there."""
    from toril.modules.reconciling import Reconciler
    from toril.modules.schedule_explorer import find_schedules, owner_of, schedule_options

    graph = session.queues.graph
    options = None if graph is None else schedule_options(graph)
    if graph is None or options is None:
        raise UsageError("only an application with a ScheduleModule declares schedules: name it with --app app.main:AppModule")
    name = options.queue.name
    declared = {one.name: one.metadata.rule for one in find_schedules(graph) if one.metadata.scope == "fleet" and one.metadata.rule}
    owner = options.owner or owner_of(graph)
    found = await Reconciler(session.queues.at(name), owner, options.version).differences(declared)
    documents = [
        {"id": one.name, "kind": one.kind, "declared": _rule_text(one.declared), "stored": _rule_text(one.stored)} for one in found
    ]
    rows = [(one["id"], one["kind"], one["declared"], one["stored"], _KINDS[str(one["kind"])]) for one in documents]
    same = f"the {len(declared)} schedules of {owner} are in the server as they are declared"
    session.out.answer(
        {"owner": owner, "queue": name, "declared": len(declared), "differences": documents},
        table("id", "", "declared", "in the server", "that is", rows=rows) if rows else same,
    )
    return exit_codes.FAILED if found else exit_codes.OK


async def _find(queue: Queue[Any, Any], schedule: str) -> JobScheduler:
    """The schedule of this id, paused or not."""
    try:
        return await queue.job_schedulers.get(schedule)
    except SchedulerNotFoundError as error:
        paused = {one.id: one for one in await queue.job_schedulers.list_paused()}
        if schedule in paused:
            return paused[schedule]
        known = [*(one.id for one in await queue.job_schedulers.list()), *paused]
        close = near(schedule, known)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise NothingFoundError(f"queue {queue.name} has no schedule {schedule!r}{hint}") from error


async def _document(queue: Queue[Any, Any], one: JobScheduler, *, is_paused: bool) -> dict[str, Any]:
    next_ms = None if is_paused else one.next_ms
    state = None if is_paused else await queue.find_state(iteration_id(one.id, one.next_ms))
    return {
        "queue": queue.name,
        "id": one.id,
        "name": one.name,
        "rule": _rule_text(one),
        "pattern": one.pattern,
        "tz": one.tz,
        "every_ms": one.every_ms,
        "limit": one.limit,
        "iterations": one.iterations,
        **at("next", next_ms),
        **at("end", one.end_ms),
        "is_paused": is_paused,
        "has_next_job": state is not None,
        "data": one.data,
    }


def _rule_text(rule: JobScheduler | ScheduleRule | None) -> str | None:
    if rule is None:
        return None
    zone = f" {rule.tz}" if rule.tz and rule.tz != "UTC" else ""
    return f"{rule.pattern}{zone}" if rule.pattern is not None else f"every {format_ms(rule.every_ms or 0)}"
