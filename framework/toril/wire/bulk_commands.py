"""What is done to many jobs at once: page by page, each of some ms of the server's time.

Damage that has to do with single jobs keeps nothing else from being done: these are left as they are, and told at the end (`Left`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

from toril.errors import DamagedJobsError, QueueBusyError
from toril.wire import scripts
from toril.wire.codec import id_text
from toril.wire.job_commands import JobCommands
from toril.wire.key_pages import below, pages_of_keys, remove_keys
from toril.wire.reads import LIST_STATES, READ_BATCH
from toril.wire.refusals import Argument

PAGE: Final = 1_000
"""How many jobs one call looks at, and moves or removes."""

LIST_PAGE: Final = 10_000
"""How many ids of a list are read at once."""

MOST_TOLD: Final = 100
"""Of how many jobs it is told why they were left."""


class Left:
    """The jobs that an operation has left as they are."""

    def __init__(self) -> None:
        self.count = 0
        self.reasons: dict[str, str] = {}

    def note(self, reply: Sequence[bytes]) -> None:
        """Take what a script tells: ids, each followed by what refused it."""
        for job_id, problem in zip(map(id_text, reply[::2]), reply[1::2], strict=True):
            self.count += job_id not in self.reasons
            if len(self.reasons) < MOST_TOLD:
                self.reasons[job_id] = problem.decode("utf-8", "replace")


class BulkCommands(JobCommands):
    """The part of `QueueCommands` that is about many jobs. All raise DamagedJobsError at the end if some jobs had to be left."""

    async def move_all(self, state: str, limit: int | None, until_ms: int | None) -> int:
        """Let jobs of one state (failed, completed, delayed) wait, the oldest first; how many were moved.

        Args:
            limit: not more than so many; None: all.
            until_ms: only those that ended (or, delayed, are due) by then; None: all.
        """
        moved, passed, left = 0, 0, Left()
        until: Argument = "+inf" if until_ms is None else until_ms
        while passed >= 0 and (most := _next_most(limit, moved)):
            count, passed, problems = await self._commands.run(scripts.load("move_all"), self._bases, state, most, until, passed)
            moved += count
            left.note(problems)
        self._tell("retry_jobs" if state != "delayed" else "promote_jobs", left, moved)
        return moved

    async def clean(self, state: str, until_ms: int, limit: int | None, *, on_removed: Callable[[int], object] | None = None) -> list[str]:
        """Remove jobs of one state that are older than a moment; their ids (wire §3.12).

        Args:
            on_removed: called after each page, with how many have been removed so far.
        """
        removed: list[str] = []
        passed, left = 0, Left()
        while passed >= 0 and (most := _next_most(limit, len(removed))):
            ids, passed, problems = await self._commands.run(scripts.load("clean"), self._bases, state, until_ms, most, PAGE, passed)
            removed += map(id_text, ids)
            left.note(problems)
            if on_removed is not None:
                on_removed(len(removed))
        self._tell("clean", left, len(removed))
        return removed

    async def drain(self, *, delayed: bool) -> int:
        """Remove all jobs that wait, with the delayed ones if asked; how many (wire §3.12)."""
        removed, left = 0, Left()
        for state in ("wait", "paused", *(("delayed",) if delayed else ()), "prioritized"):  # the order in which parents run then
            passed = 0
            while passed >= 0:
                count, passed, problems = await self._commands.run(scripts.load("drain"), self._bases, state, PAGE, passed)
                removed += count
                left.note(problems)
        self._tell("drain", left, removed)
        return removed

    async def obliterate(self, *, force: bool) -> None:
        """Remove a paused queue with all that belongs to it, our own keys too (wire §3.12). Where jobs had to be left, the queue stays.

        Raises:
            QueueBusyError: it isn't paused, or jobs run and `force` is False.
        """
        removed, left = await self._obliterate_once(force=force)
        done = removed
        while left.count and removed:  # what refused some may be gone by now: their parents are the last to go
            removed, left = await self._obliterate_once(force=force)
            done += removed
        self._tell("obliterate", left, done)
        await remove_keys(self._commands, below(self.keys.own))

    async def _obliterate_once(self, *, force: bool) -> tuple[int, Left]:
        place, passed, removed, left = 1, 0, 0, Left()
        while place:
            reply: int | tuple[int, int, int, list[bytes]] = await self._commands.run(
                scripts.load("obliterate"), self._bases, PAGE, int(force), place, passed, int(bool(left.count)), repeatable=True
            )
            if isinstance(reply, int):
                raise QueueBusyError(self.keys.queue, "it isn't paused" if reply == -1 else "jobs are running")
            place, passed, count, problems = reply
            removed += count
            left.note(problems)
        return removed, left

    async def remove_orphans(self) -> int:
        """Remove jobs that are in no collection; how many (wire §3.12)."""
        removed, left = 0, Left()
        async for batch in self._orphan_candidates():
            count, problems = await self._commands.run(scripts.load("remove_orphans"), self._bases, *batch, repeatable=True)
            removed += count
            left.note(problems)
        self._tell("remove_orphaned_jobs", left, removed)
        return removed

    async def find_all_orphans(self) -> list[str]:
        """The ids of jobs that are in no collection."""
        found = [job_id async for batch in self._orphan_candidates() for job_id in await self.find_orphans(batch)]
        return list(dict.fromkeys(found))

    async def _orphan_candidates(self) -> AsyncGenerator[list[bytes]]:
        """What follows the queue's base in the names of its keys, batch by batch; one may come twice.

        Most jobs wait in a list, where the server would have to look each of them up by walking through it. So what is in the lists
        is noted here beforehand, and only the others are sent; the scripts have the last word.
        """
        listed: set[bytes] = set()
        for state in LIST_STATES:
            start = 0
            while page := await self._commands.call("LRANGE", self.keys.state(state), start, start + LIST_PAGE - 1, repeatable=True):
                listed.update(page)
                start += LIST_PAGE
        base = len(self.keys.base.encode())
        async for keys in pages_of_keys(self._commands, below(self.keys.base)):
            ids = [key[base:] for key in keys if key[base:] not in listed]
            for at in range(0, len(ids), READ_BATCH):
                yield ids[at : at + READ_BATCH]

    def _tell(self, operation: str, left: Left, done: int) -> None:
        if left.count:
            raise DamagedJobsError(str(self._commands.address), operation, self.keys.queue, left.reasons, left.count, done)


def _next_most(limit: int | None, done: int) -> int:
    """How many the next call does at most; 0: enough are done."""
    return PAGE if limit is None else max(0, min(PAGE, limit - done))
