"""What a test expects to have been added, and how that differs from what was."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import timedelta
from itertools import zip_longest
from typing import Any, Final, cast

from pydantic_core import to_jsonable_python

from toril.queues.job_def import JobDef
from toril.queues.option_values import encode_job_options, stored_options
from toril.queues.options import JobOptions
from toril.queues.payloads import PayloadType
from toril.testing.recording import RecordedJob
from toril.units import format_duration
from toril.wire.codec import from_json

_MOST_LINES: Final = 20
_LONGEST: Final = 200
_OTHER_NAME: Final = 100
"""A job of another name is farther away than one with any other differences."""

_MISSING: Final = object()

_NOTHING_IS_ZERO: Final = frozenset({"attempts", "delay", "lifo", "priority"})
"""Where 0 means the same as an option that isn't set."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """A job that a test looks for.

    Args:
        data: of its payload what must be there (a mapping), or all of it.
        options: those that count.
    """

    name: str
    data: Any
    has_data: bool
    is_part: bool
    options: JobOptions
    option_names: tuple[str, ...]
    queue: str | None

    def matching(self, jobs: Sequence[RecordedJob]) -> list[RecordedJob]:
        """Those that are meant."""
        return [job for job in jobs if not self._differences(job)]

    def nearest(self, jobs: Sequence[RecordedJob]) -> str:
        """One line for each job, the most alike first, with what is different."""
        if not jobs:
            return "\n  (nothing at all was added)"
        told = sorted(((self._differences(job), job) for job in jobs), key=lambda each: _distance(each[0]))
        lines = [f"\n  {_line(job)}\n      but {'; '.join(differences)}" for differences, job in told[:_MOST_LINES] if differences]
        lines[:0] = [f"\n  {_line(job)}" for differences, job in told[:_MOST_LINES] if not differences]
        if len(told) > _MOST_LINES:
            lines.append(f"\n  … and {len(told) - _MOST_LINES} more")
        return "".join(lines)

    def __str__(self) -> str:
        parts = [f"job {self.name!r}"]
        if self.has_data:
            parts.append(f"with{' at least' if self.is_part else ''} the data {_short(self.data)}")
        said = self.options.said()
        if self.option_names:
            parts.append(f"with {_written({name: said.get(name) for name in self.option_names})}")
        if self.queue is not None:
            parts.append(f"in queue {self.queue!r}")
        return " ".join(parts)

    def _differences(self, job: RecordedJob) -> list[str]:
        found: list[str] = []
        if self.queue is not None and job.queue != self.queue:
            found.append(f"queue is {job.queue!r} instead of {self.queue!r}")
        if job.name != self.name:
            found.append(f"name is {job.name!r} instead of {self.name!r}")
        if self.has_data:
            found += _data_differences("data", self.data, job.data, is_part=self.is_part)
        for name in self.option_names:
            wanted, there = getattr(self.options, name), getattr(job.job_options, name)
            if name in _NOTHING_IS_ZERO:
                wanted, there = wanted or None, there or None
            if wanted != there:
                found.append(f"{name} is {_value(there)} instead of {_value(wanted)}")
        return found


def expectation(name: str | JobDef[Any, Any], data: object, options: Mapping[str, Any], queue: str | None) -> Expectation:
    """What a test means. Raises InvalidOptionError for an option that can't be, InvalidPayloadError for data of a wrong type."""
    job_name = name.name if isinstance(name, JobDef) else name
    is_part = isinstance(data, Mapping)
    wanted: Any = data
    if is_part:
        wanted = to_jsonable_python(data, by_alias=True)
    elif data is not None:
        known = name.payload if isinstance(name, JobDef) and not name.payload.is_any else PayloadType[Any](type(data))
        wanted = from_json(known.encode(cast("Any", data), job_name))
    # Through the wire and back, as the recorded ones.
    stored = stored_options(encode_job_options(JobOptions(**options)))
    return Expectation(job_name, wanted, data is not None, is_part, stored, tuple(options), queue)


def _data_differences(path: str, wanted: object, there: object, *, is_part: bool) -> Iterator[str]:
    if isinstance(wanted, dict) and isinstance(there, dict):
        expected, found = cast("dict[str, object]", wanted), cast("dict[str, object]", there)
        for key, value in expected.items():
            yield from _data_differences(f"{path}.{key}", value, found.get(key, _MISSING), is_part=is_part)
        if not is_part:
            yield from (f"{path}.{key} is there, too: {_short(found[key])}" for key in found.keys() - expected.keys())
        return
    if isinstance(wanted, list) and isinstance(there, list):
        pairs = list(zip_longest(cast("list[object]", wanted), cast("list[object]", there), fillvalue=_MISSING))
        if not any(_MISSING in pair for pair in pairs):
            for index, (value, other) in enumerate(pairs):
                yield from _data_differences(f"{path}[{index}]", value, other, is_part=is_part)
            return
    if there is _MISSING:
        yield f"{path} is missing"
    elif wanted != there or isinstance(wanted, bool) != isinstance(there, bool):  # in Python True is 1
        yield f"{path} is {_short(there)} instead of {_short(wanted)}"  # pyright: ignore[reportUnknownArgumentType]  # isinstance leaves the items open


def _distance(differences: Sequence[str]) -> int:
    return len(differences) + (_OTHER_NAME if any(text.startswith("name is ") for text in differences) else 0)


def _line(job: RecordedJob) -> str:
    said = {name: value for name, value in job.job_options.said().items() if not (name == "attempts" and value == 0)}
    return f"{job.queue} #{job.job_id}  {job.name}  data {_short(job.data)}  {f'options {_written(said)}' if said else 'no options'}"


def _written(options: Mapping[str, object]) -> str:
    """Options as they stand in a call."""
    return ", ".join(f"{name}={_value(value)}" for name, value in options.items())


def _value(value: object) -> str:
    if isinstance(value, timedelta):
        return repr(format_duration(value))
    if is_dataclass(value) and not isinstance(value, type):  # a backoff, a deduplication, which jobs are kept
        said = {each.name: getattr(value, each.name) for each in fields(value) if getattr(value, each.name) != each.default}
        return f"{type(value).__name__}({_written(said)})"
    return repr(value)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
