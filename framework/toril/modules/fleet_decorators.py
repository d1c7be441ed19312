"""What a method notes about itself: that it hears what happens to a queue in the whole fleet, Node included.

Each `on_global_queue_…` makes a method of any provider hear one kind of event. It is called with the event, a class of
`toril.queues.events`, and may be a coroutine function or a plain one, which runs in a thread. Every process that runs the
application hears every event, from its start on. In a class with `@processor` the queue's name can be left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from toril.calls import explained
from toril.di import Place, caller_place
from toril.di.discovery import note_on
from toril.errors import InvalidCallError
from toril.queues.events import (
    ActiveEvent,
    AddedEvent,
    CleanedEvent,
    CompletedEvent,
    DelayedEvent,
    DrainedEvent,
    FailedEvent,
    PausedEvent,
    ProgressEvent,
    QueueEvent,
    RemovedEvent,
    ResumedEvent,
    StalledEvent,
    WaitingEvent,
)

MethodT = TypeVar("MethodT", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class FleetMetadata:
    """What `@on_global_queue_…` notes on a method."""

    place: Place
    event: type[QueueEvent]
    queue: str | None
    """None: the queue that its class processes."""


@explained("@on_global_queue_added")
def on_global_queue_added(queue: str | None = None) -> Callable[[MethodT], MethodT]:
    """Called with an `AddedEvent` when a job has been stored."""
    return _hears(AddedEvent, queue)


@explained("@on_global_queue_waiting")
def on_global_queue_waiting(queue: str | None = None) -> Callable[[MethodT], MethodT]:
    """Called with a `WaitingEvent` when a job may run."""
    return _hears(WaitingEvent, queue)


@explained("@on_global_queue_delayed")
def on_global_queue_delayed(queue: str | None = None) -> Callable[[MethodT], MethodT]:
    """Called with a `DelayedEvent` when a job waits for its time, or for its next attempt."""
    return _hears(DelayedEvent, queue)


@explained("@on_global_queue_active")
def on_global_queue_active(queue: str | None = None) -> Callable[[MethodT], MethodT]:
    """Called with an `ActiveEvent` when a worker took a job."""
    return _hears(ActiveEvent, queue)


@explained("@on_global_queue_progress")
def on_global_queue_progress(queue: str | None = None) -> Callable[[MethodT], MethodT]:
    """Called with a `ProgressEvent` when a handler reported progress."""
    return _hears(ProgressEvent, queue)


@explained("@on_global_queue_completed")
def on_global_queue_completed(queue: str | None = None) -> Callable[[MethodT], MethodT]:
    """Called with a `CompletedEvent` when a job completed."""
    return _hears(CompletedEvent, queue)


@explained("@on_global_queue_failed")
def on_global_queue_failed(queue: str | None = None) -> Callable[[MethodT], MethodT]:
    """Called with a `FailedEvent` when a job failed for good."""
    return _hears(FailedEvent, queue)


@explained("@on_global_queue_stalled")
def on_global_queue_stalled(queue: str | None = None) -> Callable[[MethodT], MethodT]:
    """Called with a `StalledEvent` when a job's worker died, and it waits again."""
    return _hears(StalledEvent, queue)


@explained("@on_global_queue_removed")
def on_global_queue_removed(queue: str | None = None) -> Callable[[MethodT], MethodT]:
    """Called with a `RemovedEvent` when a job was removed by hand."""
    return _hears(RemovedEvent, queue)


@explained("@on_global_queue_drained")
def on_global_queue_drained(queue: str | None = None) -> Callable[[MethodT], MethodT]:
    """Called with a `DrainedEvent` when nothing waits and nothing runs any more."""
    return _hears(DrainedEvent, queue)


@explained("@on_global_queue_cleaned")
def on_global_queue_cleaned(queue: str | None = None) -> Callable[[MethodT], MethodT]:
    """Called with a `CleanedEvent` when old jobs were removed."""
    return _hears(CleanedEvent, queue)


@explained("@on_global_queue_paused")
def on_global_queue_paused(queue: str | None = None) -> Callable[[MethodT], MethodT]:
    """Called with a `PausedEvent` when the queue was paused."""
    return _hears(PausedEvent, queue)


@explained("@on_global_queue_resumed")
def on_global_queue_resumed(queue: str | None = None) -> Callable[[MethodT], MethodT]:
    """Called with a `ResumedEvent` when the queue was resumed."""
    return _hears(ResumedEvent, queue)


def _hears(event: type[QueueEvent], queue: str | None) -> Callable[[MethodT], MethodT]:
    decorator = f"@on_global_queue_{event.event_name}"
    if queue is not None and not isinstance(queue, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # without brackets, it gets the method
        raise InvalidCallError(decorator, f'needs brackets: write {decorator}("emails"), or {decorator}() in a processor', "queue")
    metadata = FleetMetadata(caller_place(2), event, queue)

    def decorate(method: MethodT) -> MethodT:
        note_on(method, metadata)
        return method

    return decorate
