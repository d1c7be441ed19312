"""The work of `toril queue …` that changes something."""

from __future__ import annotations

from typing import Any, Final

from toril.cli.confirming import confirm
from toril.cli.errors import UsageError
from toril.cli.output import fields_table
from toril.cli.queues import limit_words, limits_of
from toril.cli.selecting import Selection, read_states
from toril.cli.session import Session
from toril.durations import to_ms
from toril.errors import DamagedJobsError
from toril.queues.queue import Queue
from toril.queues.states import JobState, state_key

WAITING: Final[tuple[JobState, ...]] = ("waiting", "prioritized")


async def set_paused(session: Session, names: list[str], *, everything: bool, paused: bool) -> None:
    """Pause queues, or let them go on."""
    if everything == bool(names):
        raise UsageError("name the queues, or write --all for all of them")
    queues = await session.queues.some(names)
    for queue in queues:
        await (queue.pause() if paused else queue.resume())
    state = "paused: running jobs go on, adding goes on" if paused else "not paused"
    session.out.answer(
        {"queues": [{"queue": queue.name, "is_paused": paused} for queue in queues]},
        *(f"queue {queue.name} is {state}" for queue in queues),
    )


async def drain(session: Session, name: str, *, delayed: bool, yes: bool, dry_run: bool) -> None:
    """Remove what waits."""
    queue = await session.queues.get(name)
    counts = await queue.get_job_counts(*WAITING, *(("delayed",) if delayed else ()))
    removed, left = sum(counts.values()), None
    if not dry_run:
        confirm(session.out, f"remove {_told(counts)} of queue {name}", yes=yes)
        with session.out.progress() as progress:
            progress.add_task("removing", total=None)
            try:
                removed = await queue.drain(delayed=delayed)
            except DamagedJobsError as error:
                removed, left = error.done, error
    _answer_removed(session, queue, removed, dry_run=dry_run)
    if left is not None:
        raise left


async def clean(session: Session, name: str, state: str, older_than: str, limit: int | None, *, yes: bool, dry_run: bool) -> None:
    """Remove what is old."""
    grace_ms = to_ms(older_than, "--older-than")
    (wanted,) = states = read_states([state])
    if len(states) > 1 or wanted == "active":
        raise UsageError("--state: clean one state at a time, and not active, whose jobs run")
    queue = await session.queues.get(name)
    total = (await queue.get_job_counts(wanted))[wanted]
    if dry_run:
        selection = Selection(states=states, older_than_ms=grace_ms, limit=limit)
        with session.out.progress() as progress:
            looking = progress.add_task("looking", total=total)
            jobs = selection.scan(queue, on_read=lambda: progress.advance(looking))
            removed = len([job async for job in jobs])
        return _answer_removed(session, queue, removed, dry_run=True)
    most = total if limit is None else min(limit, total)
    confirm(
        session.out, f"remove up to {most:,} {wanted} jobs of queue {name} (there are {total:,}) that are older than {older_than}", yes=yes
    )
    left, until_ms = None, queue.clock.now_ms() - grace_ms
    with session.out.progress() as progress:
        bar = progress.add_task("removing", total=most)
        steps = queue.commands.clean(state_key(wanted), until_ms, most, on_removed=lambda count: progress.update(bar, completed=count))
        try:
            removed = len(await steps)
        except DamagedJobsError as error:
            removed, left = error.done, error
    _answer_removed(session, queue, removed, dry_run=False)
    if left is not None:
        raise left
    return None


async def obliterate(session: Session, name: str, *, force: bool, yes: bool, dry_run: bool) -> None:
    """Remove a queue."""
    queue = await session.queues.get(name)
    counts = await queue.get_job_counts()
    schedules = await queue.job_schedulers.count()
    removed, left = sum(counts.values()), None
    if not dry_run:
        confirm(session.out, f"remove queue {name} with {_told(counts)} and {schedules:,} schedules", yes=yes)
        with session.out.progress() as progress:
            progress.add_task("removing", total=None)
            try:
                await queue.obliterate(force=force)
            except DamagedJobsError as error:
                removed, left = removed - error.count, error
    done = f"queue {name} {'would be' if dry_run else 'is'} removed, with {_told(counts)} and {schedules:,} schedules"
    session.out.answer(
        {"queue": name, "removed": removed, "counts": dict(counts), "schedules": schedules, "is_dry_run": dry_run},
        done if left is None else f"{removed:,} jobs of queue {name} removed; the queue itself stays, and is paused",
    )
    if left is not None:
        raise left


async def set_limits(session: Session, name: str, concurrency: str | None, rate: str | None, *, reset: bool) -> None:
    """Change limits, and show them. What was typed is checked before anything is changed."""
    wanted, rule = _read_concurrency(concurrency), _read_rate(rate)
    queue = await session.queues.get(name)
    if concurrency is not None:
        await (queue.remove_global_concurrency() if wanted is None else queue.set_global_concurrency(wanted))
    if rate is not None:
        await (queue.remove_global_rate_limit() if rule is None else queue.set_global_rate_limit(*rule))
    if reset:
        await queue.remove_rate_limit_key()
    if reset or rate is not None:
        session.out.note("workers that the rate limit has put to sleep notice within 30 s")
    limits = await limits_of(queue)
    words = [(title, text or "none") for title, text in limit_words(limits)]
    session.out.answer({"queue": name, "limits": limits}, fields_table((("queue", name), *words)))


def _read_concurrency(text: str | None) -> int | None:
    """How many jobs at once; None: no limit, or not given. Raises UsageError."""
    if text in (None, "none"):
        return None
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(f"--concurrency {text!r}: write a whole number from 1 on, or none")
    return int(text)


def _read_rate(text: str | None) -> tuple[int, str] | None:
    """How many jobs in how long; None: no limit, or not given. Raises UsageError, InvalidDurationError."""
    if text in (None, "none"):
        return None
    most, slash, duration = text.partition("/")
    if not slash or not most.isdecimal() or int(most) == 0:
        raise UsageError(f"--rate {text!r}: write how many in how long, such as 10/1s, or none")
    to_ms(duration, "--rate")
    return int(most), duration


def _told(counts: dict[JobState, int]) -> str:
    """`120 jobs (100 waiting, 20 delayed)`."""
    parts = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    return f"{sum(counts.values()):,} jobs{f' ({parts})' if parts else ''}"


def _answer_removed(session: Session, queue: Queue[Any, Any], removed: int, *, dry_run: bool) -> None:
    done = "would be removed" if dry_run else "removed"
    session.out.answer({"queue": queue.name, "removed": removed, "is_dry_run": dry_run}, f"{removed:,} jobs of queue {queue.name} {done}")
