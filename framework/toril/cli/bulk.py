"""What is done to jobs by their ids, or to all that a filter finds: retry, promote, cancel, remove.

All that match are found first, and counted; then somebody is asked. Whatever happens after that (Ctrl-C, a broken connection), each
job is either done or as it was, so the same command goes on with the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from toril.cli import exit_codes
from toril.cli.common import FilterOptions
from toril.cli.confirming import confirm
from toril.cli.errors import UsageError
from toril.cli.selecting import Selection, selection_of
from toril.cli.session import Session
from toril.doctor.workforce import read_workforce
from toril.errors import DamagedKeyError, JobError
from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.queues.states import PENDING_STATES, STATES, JobState

AT_ONCE: Final = 50
"""How many jobs are worked on at the same time: they share round trips."""

SKIPPED_SHOWN: Final = 10

Found: TypeAlias = tuple[JobState, str]
"""Where a job was found, and its id: of many jobs, more would not fit into memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What can be done to a job."""

    name: str
    done: str
    """What has become of the jobs then."""
    states: Sequence[JobState]
    """Where jobs can be to which it can be done."""
    default_states: Sequence[JobState] = ()
    """Which of them `--all` means, where no state was typed; none: one must be typed."""
    noun: str = "job"
    is_destructive: bool = False
    """Somebody is asked, also about jobs that were named."""
    do: Callable[[Job[Any, Any], JobState], Awaitable[str | None]]
    """Does it; returns why it could not be done, or None."""
    remark: Callable[[Queue[Any, Any]], Awaitable[str | None]] | None = None
    """What to say about the jobs to which it was done; None: nothing."""
    told: list[str] = field(default_factory=list[str])
    """Ids of jobs that run, and will be done: `do` has only told their workers, and puts them here."""


def retrying(*, reset_attempts: bool) -> Action:
    """Run them again."""

    async def retry(job: Job[Any, Any], state: JobState) -> None:
        which: Literal["failed", "completed"] = "completed" if state == "completed" else "failed"
        await job.retry(which, reset_attempts=reset_attempts)

    return Action(name="retry", done="retried", states=("failed", "completed"), default_states=("failed",), do=retry)


def cancelling(reason: str) -> Action:
    """Cancel them."""

    told: list[str] = []

    async def cancel(job: Job[Any, Any], _state: JobState) -> None:
        if await job.cancel(reason) == "active":
            told.append(job.id)

    return Action(name="cancel", done="cancelled", states=(*PENDING_STATES, "active"), is_destructive=True, do=cancel, told=told)


def promoting() -> Action:
    """Let them run now."""
    names: set[str] = set()

    async def promote(job: Job[Any, Any], _state: JobState) -> None:
        await job.promote()
        names.add(job.name)

    async def remark(queue: Queue[Any, Any]) -> str | None:
        workforce = await read_workforce(queue)
        unhandled = sorted(repr(name) for name in names if not workforce.may_handle(name))
        if not unhandled:
            return None
        return (
            f"warning: no connected worker handles {', '.join(unhandled)}: such jobs are put back a few times, and then fail. Deploy the "
            f"handler first; toril workers {queue.name} shows who handles what"
        )

    return Action(name="promote", done="promoted", states=("delayed",), default_states=("delayed",), do=promote, remark=remark)


async def _remove(job: Job[Any, Any], _state: JobState) -> str | None:
    return None if await job.remove() else "a worker runs it"


REMOVING: Final = Action(
    name="remove", done="removed", states=tuple(state for state in STATES if state != "active"), is_destructive=True, do=_remove
)


@dataclass(slots=True)
class Bulk:
    """One such command. `run` does it."""

    action: Action
    queue: str
    ids: Sequence[str]
    filters: FilterOptions
    everything: bool
    yes: bool
    dry_run: bool

    async def run(self, session: Session) -> int:
        """Find, ask, do, answer; the exit code."""
        selection = self._selection()
        queue = await session.queues.get(self.queue)
        skipped: list[dict[str, str]] = []
        if selection is None:
            found, skipped = await self._find_named(queue)
        else:
            found = await self._find_all(session, queue, selection)
        done = 0
        if found and not self.dry_run:
            if self.everything or self.action.is_destructive:
                confirm(session.out, f"{self.action.name} {self._count(len(found))} of queue {self.queue}", yes=self.yes)
            done, more = await self._do(session, queue, found)
            skipped += more
            if self.action.remark is not None and (remark := await self.action.remark(queue)) is not None:
                session.out.note(remark)
        self._answer(session, len(found), done, skipped)
        return exit_codes.FAILED if skipped and (not self.everything or not done) else exit_codes.OK

    def _selection(self) -> Selection | None:
        """What `--all` means; None: ids are named."""
        name = self.action.name
        if self.everything == bool(self.ids):
            raise UsageError(f"name the {self.action.noun}s to {name} by their ids, or write --all, with filters, for all that these find")
        if not self.everything:
            if self.filters.are_any:
                raise UsageError("filters go with --all: jobs that are named by their ids are those jobs")
            return None
        selection = selection_of(self.filters, self.action.default_states)
        if not selection.states:
            raise UsageError(f"say with --state which jobs to {name}: {', '.join(self.action.states)}")
        for state in selection.states:
            if state not in self.action.states:
                raise UsageError(
                    f"--state {state}: such jobs can't be {self.action.done}; those that can are {', '.join(self.action.states)}"
                )
        return selection

    async def _find_all(self, session: Session, queue: Queue[Any, Any], selection: Selection) -> list[Found]:
        """The jobs that a selection finds, the oldest first."""
        total = sum((await queue.get_job_counts(*selection.states)).values())
        with session.out.progress() as progress:
            looking = progress.add_task("looking", total=total)
            jobs = selection.scan(queue, ascending=True, on_read=lambda: progress.advance(looking))
            return [(state, job.id) async for state, job in jobs]

    async def _find_named(self, queue: Queue[Any, Any]) -> tuple[list[Found], list[dict[str, str]]]:
        """The jobs that are named, and those of them to which it can't be done."""
        found: list[Found] = []
        skipped: list[dict[str, str]] = []
        for job_id in dict.fromkeys(self.ids):
            job = await queue.find_job(job_id)
            state = None if job is None else await job.get_state()
            if state is None:
                skipped.append({"id": job_id, "reason": "there is no such job"})
            elif state not in self.action.states:
                skipped.append({"id": job_id, "reason": f"it is {state}, and not {' or '.join(self.action.states)}"})
            else:
                found.append((state, job_id))
        return found, skipped

    async def _do(self, session: Session, queue: Queue[Any, Any], found: Sequence[Found]) -> tuple[int, list[dict[str, str]]]:
        done = 0
        skipped: list[dict[str, str]] = []
        try:
            with session.out.progress() as progress:
                bar = progress.add_task(self.action.name, total=len(found))
                for start in range(0, len(found), AT_ONCE):
                    batch = found[start : start + AT_ONCE]
                    for (_, job_id), reason in zip(batch, await self._do_batch(queue, batch), strict=True):
                        done += reason is None
                        skipped += [] if reason is None else [{"id": job_id, "reason": reason}]
                    progress.update(bar, completed=start + len(batch))
        finally:
            if done + len(skipped) < len(found):  # interrupted, or the server is gone
                session.out.note(
                    f"at least {done:,} of {self._count(len(found))} are {self.action.done}; the same command goes on with the rest"
                )
        return done, skipped

    async def _do_batch(self, queue: Queue[Any, Any], batch: Sequence[Found]) -> list[str | None]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._do_one(queue, *each)) for each in batch]
        except ExceptionGroup as errors:  # of one broken server all say the same
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _do_one(self, queue: Queue[Any, Any], state: JobState, job_id: str) -> str | None:
        job = await queue.find_job(job_id)
        if job is None:
            return "it is gone"
        try:
            return await self.action.do(job, state)
        except (JobError, DamagedKeyError) as error:  # others were quicker: it is gone, or elsewhere; or a key of its parent is damaged
            return str(error)

    def _answer(self, session: Session, matched: int, done: int, skipped: list[dict[str, str]]) -> None:
        for each in skipped[:SKIPPED_SHOWN]:
            session.out.note(f"{self.action.noun} {each['id']} is not {self.action.done}: {each['reason']}")
        if len(skipped) > SKIPPED_SHOWN:
            session.out.note(f"and {len(skipped) - SKIPPED_SHOWN:,} more")
        session.out.answer(
            {
                "action": self.action.name,
                "queue": self.queue,
                "matched": matched,
                "done": done,
                "skipped": skipped,
                "is_dry_run": self.dry_run,
            },
            f"{self._count(matched)} would be {self.action.done}" if self.dry_run else self._done_words(done),
        )

    def _done_words(self, done: int) -> str:
        told = len(self.action.told)
        if not told:
            return f"{self._count(done)} {self.action.done}"
        at_once = f"{self._count(done - told)} {self.action.done}, " if done > told else ""
        return f"{at_once}{self._count(told)} told to stop; {'it has' if told == 1 else 'they have'} not ended yet"

    def _count(self, count: int) -> str:
        return f"{count:,} {self.action.noun}{'' if count == 1 else 's'}"
