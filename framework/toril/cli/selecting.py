"""Which jobs a command is about: by state, name, age, error, or what stands in their data.

Jobs are read page by page, so a queue may have any number of them, and only what is shown or done is kept.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from toril.cli.common import FilterOptions
from toril.cli.errors import UsageError
from toril.durations import to_ms
from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.queues.states import STATES, JobState
from toril.spelling import near
from toril.wire.codec import from_json_or

ENDED: Final[tuple[JobState, ...]] = ("completed", "failed")

_ROOTS: Final = ("data", "opts", "result")
_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Condition:
    """`data.user.id=7`: what must stand where; `data.url~=/images/`: what must stand in a text there."""

    path: tuple[str, ...]
    """The first step is `data`, `opts` or `result`."""
    text: str
    value: object
    """The text read as JSON; the text itself if it is none."""
    is_part: bool = False
    """Whether it is enough that the text stands somewhere in what is there, in whatever case."""

    def holds(self, job: Job[Any, Any]) -> bool:
        """Whether it stands there: as this very value, or as a text that reads so."""
        root, *steps = self.path
        text = {"data": job.record.data, "opts": job.record.opts, "result": job.record.return_value}[root]
        found = from_json_or(text, _MISSING)
        for step in steps:
            found = _below(found, step)
        if self.is_part:
            return isinstance(found, str) and self.text.lower() in found.lower()
        return found is not _MISSING and (found == self.text or (type(found) is type(self.value) and found == self.value))


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Jobs that fulfil all that is set."""

    states: Sequence[JobState] = STATES
    name: str | None = None
    """A pattern with `*` and `?`."""
    older_than_ms: int | None = None
    newer_than_ms: int | None = None
    error: str | None = None
    """Stands somewhere in the text of the last error, in whatever case."""
    where: Sequence[Condition] = ()
    limit: int | None = None

    @property
    def is_narrow(self) -> bool:
        """Whether jobs must be read to tell which ones they are."""
        return any((self.name, self.older_than_ms is not None, self.newer_than_ms is not None, self.error, self.where))

    def holds(self, job: Job[Any, Any], now_ms: int) -> bool:
        """Whether the job, of one of the states, is one of them."""
        if self.name is not None and not fnmatch.fnmatchcase(job.name, self.name):
            return False
        age_ms = now_ms - moment_ms(job)
        if self.older_than_ms is not None and age_ms < self.older_than_ms:
            return False
        if self.newer_than_ms is not None and age_ms > self.newer_than_ms:
            return False
        if self.error is not None and self.error.lower() not in (job.failed_reason or "").lower():
            return False
        return all(condition.holds(job) for condition in self.where)

    async def scan(
        self, queue: Queue[Any, Any], *, ascending: bool | None = None, on_read: Callable[[], None] | None = None
    ) -> AsyncGenerator[tuple[JobState, Job[Any, Any]]]:
        """The jobs, each with the state in which it was listed; `on_read` is called for every job that is looked at."""
        now_ms, found = queue.clock.now_ms(), 0
        for state in self.states:
            async for job in queue.scan_jobs(state, ascending=ascending):
                if self.limit is not None and found >= self.limit:
                    return
                if on_read is not None:
                    on_read()
                if self.holds(job, now_ms):
                    found += 1
                    yield state, job


def moment_ms(job: Job[Any, Any]) -> int:
    """From when on a job's age counts: its end, if it has ended, else when it was added."""
    return job.timestamp_ms if job.finished_at_ms is None else job.finished_at_ms


def selection_of(filters: FilterOptions, default: Sequence[JobState] = STATES) -> Selection:
    """What was typed, read and checked. Raises UsageError, InvalidDurationError.

    Args:
        default: the states, where none was typed.
    """
    return Selection(
        states=read_states(filters.state) if filters.state else default,
        name=filters.name,
        older_than_ms=None if filters.older_than is None else to_ms(filters.older_than, "--older-than"),
        newer_than_ms=None if filters.newer_than is None else to_ms(filters.newer_than, "--newer-than"),
        error=filters.error,
        where=[read_condition(text) for text in filters.where or ()],
        limit=filters.limit,
    )


def read_states(texts: Sequence[str]) -> tuple[JobState, ...]:
    """States as they are typed, also several with commas between them. Raises UsageError."""
    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    for name in names:
        if name not in STATES:
            close = near(name, STATES)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(STATES)}"
            raise UsageError(f"--state {name!r}: there is no such state; {hint}")
    if not names:
        raise UsageError(f"--state needs a state: {', '.join(STATES)}")
    return cast("tuple[JobState, ...]", tuple(dict.fromkeys(names)))


def read_condition(text: str) -> Condition:
    """A condition as it is typed. Raises UsageError."""
    path, sign, value = text.partition("=")
    steps = tuple(path.removesuffix("~").split("."))
    if not sign or steps[0] not in _ROOTS or not all(steps):
        raise UsageError(f"--where {text!r}: write data.path.to=value, or ~= for a part of a text (or opts.…, result.…)")
    try:
        read: object = json.loads(value)
    except ValueError:
        read = value
    return Condition(steps, value, read, is_part=path.endswith("~"))


def _below(value: object, step: str) -> object:
    if isinstance(value, dict):
        return cast("dict[str, object]", value).get(step, _MISSING)
    if isinstance(value, list) and step.isdecimal():
        items = cast("list[object]", value)
        return items[int(step)] if int(step) < len(items) else _MISSING
    return _MISSING
