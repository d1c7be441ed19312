"""What a class notes about itself: which queue it serves, which methods handle which jobs, which ones listen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from typing_extensions import TypedDict, Unpack

from toril.di import Place, attach, caller_namespace, caller_place, own_metadata
from toril.di.providers import InjectableMetadata
from toril.durations import Duration, optional_ms, to_ms
from toril.errors import InvalidOptionError
from toril.queues.job_def import JobDef
from toril.worker.listeners import LocalEvent

ClassT = TypeVar("ClassT", bound=type)
MethodT = TypeVar("MethodT", bound=Callable[..., Any])

_HANDLES: Final = "__toril_handles__"
_LISTENS: Final = "__toril_listens__"


class ProcessorFields(TypedDict, total=False):
    """The worker's options that a processor may set; `WorkerOptions` says what they mean."""

    concurrency: int
    name: str
    lock_duration: Duration
    stalled_interval: Duration
    max_stalled_count: int
    drain_delay: Duration
    max_loop_block: Duration
    loop_block_warning: Duration
    unknown_names: Any
    unknown_name_delay: Duration
    backoff_strategies: Any


@dataclass(frozen=True, slots=True)
class ProcessorMetadata:
    """What `@processor` notes on a class."""

    queue: str
    options: ProcessorFields
    place: Place


@dataclass(frozen=True, slots=True)
class ProcessMetadata:
    """What `@process` notes on a method."""

    name: str | JobDef[Any, Any] | None
    concurrency: int | None
    timeout: Duration | None
    place: Place


def processor(queue: str, **options: Unpack[ProcessorFields]) -> Callable[[ClassT], ClassT]:
    """Make a class serve a queue: its `@process` methods run the queue's jobs, its `@on_queue_…` methods listen.

    The class goes into a module's `providers`. Several classes may serve one queue; together they are one worker, so an option
    that two of them set must be the same.

    Args:
        queue: name of a registered queue.
        options: as in `WorkerOptions`; `concurrency` is one number for the whole queue.
    """
    place, namespace = caller_place(1), caller_namespace(1)
    for option, value in options.items():
        if option.endswith(("_duration", "_interval", "_delay", "_block", "_warning")):
            to_ms(cast("Duration", value), option)

    def decorate(cls: ClassT) -> ClassT:
        attach(cls, ProcessorMetadata(queue, options, place))
        if own_metadata(cls, InjectableMetadata) is None and namespace is not None:
            attach(cls, InjectableMetadata(None, namespace))
        return cls

    return decorate


def process(
    name: str | JobDef[Any, Any] | None = None, *, concurrency: int | None = None, timeout: Duration | None = None
) -> Callable[[MethodT], MethodT]:
    """Make a method the handler of jobs: of this name or definition, or, without one, of every name that has no handler.

    Args:
        concurrency: how many of them may run at the same time, inside the worker's own concurrency.
        timeout: how long an attempt may run, where the job doesn't say it itself.

    The method is called with the job. Its annotation `job: Job[Data, Result]` gives the types where `name` is no `JobDef`.
    A plain `def` runs in a thread.
    """
    if callable(name):
        raise InvalidOptionError("@process", name, "write @process() with brackets, or @process(name)")
    optional_ms(timeout, "timeout")
    metadata = ProcessMetadata(name, concurrency, timeout, caller_place(1))

    def decorate(method: MethodT) -> MethodT:
        cast("Any", method).__dict__.setdefault(_HANDLES, []).append(metadata)
        return method

    return decorate


def on_queue_active() -> Callable[[MethodT], MethodT]:
    """Called with `(job)` when this process starts an attempt."""
    return _listener("active")


def on_queue_completed() -> Callable[[MethodT], MethodT]:
    """Called with `(job, result)` when a job of this process has completed and that is written."""
    return _listener("completed")


def on_queue_failed() -> Callable[[MethodT], MethodT]:
    """Called with `(job, error, final)` after each failed attempt of this process; `final` is False if it will be retried."""
    return _listener("failed")


def on_queue_progress() -> Callable[[MethodT], MethodT]:
    """Called with `(job, value)` when a handler of this process reports progress."""
    return _listener("progress")


def on_queue_error() -> Callable[[MethodT], MethodT]:
    """Called with `(error)` when the worker itself is in trouble: a lost lock, an outcome that the server refused."""
    return _listener("error")


def _listener(event: LocalEvent) -> Callable[[MethodT], MethodT]:
    def decorate(method: MethodT) -> MethodT:
        cast("Any", method).__dict__.setdefault(_LISTENS, []).append(event)
        return method

    return decorate


def handlers_in(cls: type) -> list[tuple[str, ProcessMetadata]]:
    """The methods of a class that handle jobs, inherited ones included, in the order in which they are written."""
    return [(name, one) for name, method in _methods(cls) for one in getattr(method, _HANDLES, ())]


def listeners_in(cls: type) -> list[tuple[str, LocalEvent]]:
    """The methods of a class that listen, with their events."""
    return [(name, event) for name, method in _methods(cls) for event in getattr(method, _LISTENS, ())]


def _methods(cls: type) -> list[tuple[str, Any]]:
    names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
    return [(name, getattr(cls, name)) for name in names if callable(getattr(cls, name, None))]
