"""Schedules that have stopped: without a next run, overdue, or gone though an application declares them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any, Final

from toril.doctor.findings import Check, Finding
from toril.doctor.standstill import PATIENCE_MS
from toril.doctor.words import listed, span_text
from toril.queues.job_schedulers import JobScheduler
from toril.queues.queue import Queue
from toril.wire.scheduler_commands import SchedulerCommands, iteration_id

_PAGE: Final = 500
_FIX: Final = (
    "restart a process of the application that declares it, with the role scheduler: it compares at start. "
    "`toril schedule diff` shows what would change. One that no code declares must be made again where it was made"
)


async def check_schedules(queue: Queue[Any, Any], owners: Iterable[str] = ()) -> list[Finding]:
    """Whether each schedule has a next run, and whether what these applications (`schedule_owners`) have declared is there."""
    there: set[str] = set()
    stopped: list[str] = []
    overdue: list[tuple[int, str]] = []
    now_ms = queue.clock.now_ms()
    async for page in _pages(queue):
        there.update(one.id for one in page)
        runs = await queue.commands.find_fields([iteration_id(one.id, one.next_ms) for one in page], "name", "finishedOn")
        for one, run in zip(page, runs, strict=True):
            if run is None or run[1] is not None:
                if not _has_ended(one, now_ms):
                    stopped.append(one.id)
            elif now_ms - one.next_ms > PATIENCE_MS:
                overdue.append((now_ms - one.next_ms, one.id))
    paused = {one.id for one in await queue.job_schedulers.list_paused()}
    there |= paused
    vanished = {owner: sorted(names - there) for owner, names in (await _declared(queue, owners)).items() if names - there}
    say = Check("schedules", queue.name)
    findings: list[Finding] = []
    if stopped:
        findings += say.error(f"without a next run, so they never run again: {listed(stopped)}", _FIX, without_next_run=stopped)
    for owner, names in vanished.items():
        findings += say.error(f"declared by {owner}, but not in the server any more: {listed(names)}", _FIX, vanished=names, owner=owner)
    if paused:
        fix = f"if nobody knows why any more: toril schedule resume {queue.name} NAME"
        findings += say.info(f"paused by somebody: {listed(sorted(paused))}", fix, paused=sorted(paused))
    if overdue:
        late = [(name, late_ms) for late_ms, name in sorted(overdue, reverse=True)]
        fix = f"its run waits in this queue like any other job: see what else is said of {queue.name}. A worker needs the role scheduler"
        findings += say.warning(f"overdue: {listed([f'{name} by {span_text(ms)}' for name, ms in late])}", fix, overdue=dict(late))
    return findings or (say.ok(f"{len(there):,} with a next run") if there else [])


def _has_ended(one: JobScheduler, now_ms: int) -> bool:
    """It was to run so many times, or until then; its record stays (wire 3.16.3)."""
    return (one.limit is not None and one.iterations >= one.limit) or (one.end_ms is not None and one.end_ms <= now_ms)


async def _pages(queue: Queue[Any, Any]) -> AsyncGenerator[Sequence[JobScheduler]]:
    start = 0
    while page := await queue.job_schedulers.list(start, start + _PAGE - 1):
        yield page
        start += _PAGE


async def _declared(queue: Queue[Any, Any], owners: Iterable[str]) -> dict[str, set[str]]:
    """What applications have declared, or added while they ran, by owner."""
    commands = SchedulerCommands(queue.server, queue.keys)
    noted = {owner: await commands.noted_schedules(owner) for owner in owners}
    return {owner: {*each.declared, *each.added} for owner, each in noted.items()}
