"""The events of a queue's stream, one frozen class for each. They come from every worker and producer of the fleet, Node included.

A `failed` event means failed for good: an attempt that will be repeated shows as `delayed`, or as `waiting` that comes from `active`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, ClassVar, Final, TypeAlias, cast, get_args

from toril.queues.option_values import moment
from toril.queues.states import JobState, state_of_key
from toril.wire.codec import from_json_or
from toril.wire.event_names import read_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events."""

    event_name: ClassVar[str]

    stream_id: str
    """Where it stands in the stream; reading can resume behind it."""

    @property
    def at(self) -> datetime:
        """When the server wrote it, in UTC by the server's clock."""
        milliseconds, _, _ = self.stream_id.partition("-")
        return moment(int(milliseconds))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent(Event):
    """Base of the events that are about one job."""

    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedEvent(JobEvent):
    """A job has been stored; the event of its first state follows."""

    event_name = "added"
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingEvent(JobEvent):
    """The job may run now."""

    event_name = "waiting"
    previous: JobState | None
    """Where it comes from; None for a new job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayedEvent(JobEvent):
    """The job waits for its time: new, or for its next attempt."""

    event_name = "delayed"
    due_at_ms: int

    @property
    def due_at(self) -> datetime:
        return moment(self.due_at_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveEvent(JobEvent):
    """A worker took the job."""

    event_name = "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressEvent(JobEvent):
    """Its handler reported progress."""

    event_name = "progress"
    value: Any
    """What it reported; the bare text if that is no JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedEvent(JobEvent):
    """The job completed."""

    event_name = "completed"
    return_value: Any
    """What its handler returned; the bare text if that is no JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedEvent(JobEvent):
    """The job failed for good."""

    event_name = "failed"
    reason: str
    previous: JobState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetriesExhaustedEvent(JobEvent):
    """Follows `failed` if the job had used up its attempts."""

    event_name = "retries-exhausted"
    attempts_made: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StalledEvent(JobEvent):
    """Its worker died or lost the lock; the job waits again."""

    event_name = "stalled"


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingChildrenEvent(JobEvent):
    """The job waits for its children."""

    event_name = "waiting-children"
    previous: JobState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatedEvent(JobEvent):
    """A job with an id that exists already was added; nothing happened to the existing one."""

    event_name = "duplicated"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeduplicatedEvent(JobEvent):
    """A job was not added because another one owns its deduplication id, or took its place."""

    event_name = "deduplicated"
    deduplication_id: str
    deduplicated_job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedEvent(JobEvent):
    """The job was removed by hand. Keep rules, draining and cleaning don't tell each job."""

    event_name = "removed"
    previous: JobState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainedEvent(Event):
    """Nothing waits and nothing runs any more; delayed jobs there may be."""

    event_name = "drained"


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanedEvent(Event):
    """Old jobs were removed."""

    event_name = "cleaned"
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PausedEvent(Event):
    """The queue was paused."""

    event_name = "paused"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumedEvent(Event):
    """The queue was resumed."""

    event_name = "resumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownEvent(Event):
    """An event of somebody's own, of another version, or with a field missing; nothing is left out."""

    event_name = ""
    name: str
    fields: Mapping[str, str]


QueueEvent: TypeAlias = (
    AddedEvent | WaitingEvent | DelayedEvent | ActiveEvent | ProgressEvent | CompletedEvent | FailedEvent | RetriesExhaustedEvent
    | StalledEvent | WaitingChildrenEvent | DuplicatedEvent | DeduplicatedEvent | RemovedEvent | DrainedEvent | CleanedEvent
    | PausedEvent | ResumedEvent | UnknownEvent
)  # fmt: skip
"""Whatever a stream may hold."""


def read_event(stream_id: str, entry: Mapping[str, str]) -> QueueEvent:
    """An entry of the stream as an event; never raises."""
    name, texts = read_fields(entry)
    kind = _KINDS.get(name)
    if kind is not None:
        try:
            values = {field: _READERS.get(field, _text)(texts, field) for field in _FIELDS_OF[kind]}
            return cast("QueueEvent", kind(stream_id=stream_id, **values))
        except (KeyError, ValueError, OverflowError):  # a number may be written as `inf`
            pass  # a field is missing or unreadable: the event is shown as it stands there
    return UnknownEvent(stream_id=stream_id, name=name, fields={key: value for key, value in entry.items() if key != "event"})


def _text(texts: Mapping[str, str], name: str) -> str:
    return texts[name]


def _number(texts: Mapping[str, str], name: str) -> int:
    return int(float(texts[name]))


def _json(texts: Mapping[str, str], name: str) -> Any:  # noqa: ANN401 -- this is where JSON comes in
    return from_json_or(texts[name].encode(), texts[name])


def _state(texts: Mapping[str, str], name: str) -> JobState | None:
    return state_of_key(texts.get(name, ""))


_READERS: Final[Mapping[str, Callable[[Mapping[str, str], str], Any]]] = {
    "previous": _state,
    "value": _json,
    "return_value": _json,
    "due_at_ms": _number,
    "attempts_made": _number,
    "count": _number,
}
_KINDS: Final[Mapping[str, type[Event]]] = {kind.event_name: kind for kind in get_args(QueueEvent) if kind is not UnknownEvent}
RESERVED_EVENTS: Final = frozenset({*_KINDS, "debounced", "error"})
"""Names that no event of somebody's own may have: readers on either side would take it for one of the queue's."""
_FIELDS_OF: Final = {kind: tuple(field.name for field in fields(kind) if field.name != "stream_id") for kind in _KINDS.values()}
