"""What a class notes about itself: which queue it serves, which methods handle which jobs, which ones listen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar, cast, overload

from typing_extensions import TypedDict, Unpack

from toril.callables import is_async, place_of
from toril.calls import explained, no_such_option
from toril.di import Place, attach, caller_namespace, caller_place, own_metadata
from toril.di.discovery import function_of, note_on, noted_methods
from toril.di.places import Namespace
from toril.di.providers import InjectableMetadata
from toril.durations import Duration
from toril.errors import InvalidCallError
from toril.modules.handler_types import HandlerDecorator
from toril.queues.backoff import BackoffStrategy
from toril.queues.job_def import JobDef, uncalled
from toril.queues.listeners import LocalEvent
from toril.queues.option_checks import check_job_name, check_whole
from toril.queues.option_parts import RateLimit
from toril.queues.options import OF_JOBS, JobOptions
from toril.worker.options import WorkerOptions
from toril.worker.processor import ExecutorName, check_executor

ClassT = TypeVar("ClassT", bound=type)
MethodT = TypeVar("MethodT", bound=Callable[..., Any])
D = TypeVar("D")
R = TypeVar("R")

_IN_KEYWORDS: Final = 'takes options as keywords, not in a dict: write @process("send", concurrency=3)'


class ProcessorFields(TypedDict, total=False):
    """The worker's options that a processor may set; `WorkerOptions` says what they mean."""

    concurrency: int
    name: str
    lock_duration: Duration
    stalled_interval: Duration
    max_stalled_count: int
    max_started_attempts: int
    drain_delay: Duration
    max_loop_block: Duration
    loop_block_warning: Duration
    unknown_names: Literal["put_back", "fail"]
    unknown_name_delay: Duration
    limiter: RateLimit
    metrics: Duration
    backoff_strategies: Mapping[str, BackoffStrategy]


@dataclass(frozen=True, slots=True)
class ProcessorMetadata:
    """What `@processor` notes on a class."""

    queue: str
    options: ProcessorFields
    place: Place
    names: Mapping[str, Any] = field(repr=False)
    """What the function around the class could see: annotations of its methods may name it."""


@dataclass(frozen=True, slots=True)
class ProcessMetadata:
    """What `@process` notes on a method."""

    place: Place
    definition: str | JobDef[Any, Any] | None = None
    concurrency: int | None = None
    timeout_ms: int | None = None
    """For jobs that were added without a timeout of their own."""
    executor: ExecutorName | None = None
    max_jobs_per_child: int | None = None

    @property
    def name(self) -> str | None:
        """The name of the jobs that it handles; None: every name that has no handler of its own."""
        return self.definition.name if isinstance(self.definition, JobDef) else self.definition


@dataclass(frozen=True, slots=True)
class ListenerMetadata:
    """What an `@on_queue_…` decorator notes on a method."""

    event: LocalEvent


@explained("@processor")
def processor(queue: str, **options: Unpack[ProcessorFields]) -> Callable[[ClassT], ClassT]:
    """Make a class serve a queue: its `@process` methods run the queue's jobs, its `@on_queue_…` methods listen.

    The class goes into a module's `providers`. Several classes may serve one queue; together they are one worker, so an option
    that two of them set must be the same.

    Args:
        queue: name of a registered queue.
        options: as in `WorkerOptions`; `concurrency` is one number for the whole queue.

    Raises:
        InvalidOptionError: an option that doesn't exist, or whose value makes no sense.
    """
    if not isinstance(queue, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # written without brackets, it gets the class
        raise InvalidCallError("@processor", 'needs the name of its queue: write @processor("emails")', "queue")
    place, namespace = caller_place(1), caller_namespace(1)
    _check_options(options)

    def decorate(cls: ClassT) -> ClassT:
        attach(cls, ProcessorMetadata(queue, options, place, _names_in(namespace)))
        if own_metadata(cls, InjectableMetadata) is None and namespace is not None:
            attach(cls, InjectableMetadata(None, namespace))
        return cls

    return decorate


@overload
def process(
    name: JobDef[D, R],
    *,
    concurrency: int | None = None,
    timeout: Duration | None = None,
    executor: ExecutorName | None = None,
    max_jobs_per_child: int | None = None,
) -> HandlerDecorator[D, R]: ...
@overload
def process(
    name: str | None = None,
    *,
    concurrency: int | None = None,
    timeout: Duration | None = None,
    executor: ExecutorName | None = None,
    max_jobs_per_child: int | None = None,
) -> Callable[[MethodT], MethodT]: ...
@explained("@process", OF_JOBS)
def process(
    name: str | JobDef[Any, Any] | None = None,
    *,
    concurrency: int | None = None,
    timeout: Duration | None = None,
    executor: ExecutorName | None = None,
    max_jobs_per_child: int | None = None,
) -> Any:
    """Make a method the handler of jobs: of this name or definition, or, without one, of every name that has no handler.

    The method takes what it wants:

    - Its first parameter (after `self`) is the job, where it is annotated `Job[Data, Result]`, `Job`, `Any` or not at all; with any
      other annotation it is the job's data, of that type.
    - A parameter annotated `Job[...]` is the job wherever it stands.
    - Every other parameter is injected, as in a constructor: by its type or token, from what the processor's module can see.
      Singletons are found once, at start; what is transient or job-scoped (a JobLogger, a session) is made for each attempt, and
      what generators opened is closed when the result was serialised. A default stays where nothing provides the parameter.

    With a `JobDef` the annotations of job, data and result must agree with it. Without one they say what the types are: those of
    `Job[Data, Result]`, else that of the data and that of the return annotation. A plain `def` runs in a thread.

    Args:
        concurrency: how many of them may run at the same time, inside the worker's own concurrency.
        timeout: how long an attempt may run, unless the job was added with a timeout of its own.
        executor: `"thread"`, where a plain `def` runs anyway, or `"process"`: a child process with a container of its own, made from
            the same root module. It doesn't share this process's interpreter, and can be killed: on timeout, cancel and stop.
        max_jobs_per_child: after how many jobs a child process is replaced by a new one, as a cure for leaks.

    Raises:
        InvalidOptionError: a name or option that makes no sense.
    """
    given: object = name
    if fix := uncalled(given):
        raise InvalidCallError("@process", fix, "name")
    if isinstance(given, Mapping):
        raise InvalidCallError("@process", _IN_KEYWORDS, "name")
    if callable(name):
        raise InvalidCallError("@process", "needs brackets: write @process(), or @process(name)", "name")
    if name is not None and not isinstance(name, JobDef):
        check_job_name(name)
    check_whole("concurrency", concurrency, 1)
    check_whole("max_jobs_per_child", max_jobs_per_child, 1)
    metadata = ProcessMetadata(caller_place(1), name, concurrency, JobOptions(timeout=timeout).timeout_ms, executor, max_jobs_per_child)

    def decorate(method: MethodT) -> MethodT:
        function = cast("Callable[..., Any]", function_of(method))
        check_executor(executor, max_jobs_per_child, is_async=is_async(function), place=place_of(function))
        note_on(method, metadata)
        return method

    return decorate


def _explained_listener(event: LocalEvent) -> Callable[[MethodT], MethodT]:
    """As `explained`, with what to say to those who name a queue."""
    of_fleet = "" if event == "error" else f'; @on_global_queue_{event}("…") hears a queue by its name, from every process'
    return explained(f"@on_queue_{event}", extra=f"takes nothing: it listens to the queue of its @processor{of_fleet}")


@_explained_listener("active")
def on_queue_active() -> Callable[[MethodT], MethodT]:
    """Called with `(job)` when this process starts an attempt."""
    return _listener("active")


@_explained_listener("completed")
def on_queue_completed() -> Callable[[MethodT], MethodT]:
    """Called with `(job, result)` when a job of this process has completed and that is written."""
    return _listener("completed")


@_explained_listener("failed")
def on_queue_failed() -> Callable[[MethodT], MethodT]:
    """Called with `(job, error, final)` after each failed attempt of this process; `final` is False if it will be retried."""
    return _listener("failed")


@_explained_listener("progress")
def on_queue_progress() -> Callable[[MethodT], MethodT]:
    """Called with `(job, value)` when a handler of this process reports progress."""
    return _listener("progress")


@_explained_listener("error")
def on_queue_error() -> Callable[[MethodT], MethodT]:
    """Called with `(error)` when the worker itself is in trouble: a lost lock, an outcome that the server refused."""
    return _listener("error")


@_explained_listener("stalled")
def on_queue_stalled() -> Callable[[MethodT], MethodT]:
    """Called with `(job_id)` when a worker of this process has put back a job whose own worker is gone."""
    return _listener("stalled")


@_explained_listener("waiting")
def on_queue_waiting() -> Callable[[MethodT], MethodT]:
    """Called with `(job_id)` when a job may run because of this process: it was added, promoted, retried or put back here."""
    return _listener("waiting")


@_explained_listener("drained")
def on_queue_drained() -> Callable[[MethodT], MethodT]:
    """Called without arguments when the worker of this process, having run jobs, finds no more that may run now."""
    return _listener("drained")


@_explained_listener("paused")
def on_queue_paused() -> Callable[[MethodT], MethodT]:
    """Called without arguments when this process has paused the queue."""
    return _listener("paused")


@_explained_listener("resumed")
def on_queue_resumed() -> Callable[[MethodT], MethodT]:
    """Called without arguments when this process has resumed the queue."""
    return _listener("resumed")


@_explained_listener("removed")
def on_queue_removed() -> Callable[[MethodT], MethodT]:
    """Called with `(job_id)` when this process has removed a job."""
    return _listener("removed")


@_explained_listener("cleaned")
def on_queue_cleaned() -> Callable[[MethodT], MethodT]:
    """Called with `(count, state)` when this process has cleaned the queue of old jobs."""
    return _listener("cleaned")


def _listener(event: LocalEvent) -> Callable[[MethodT], MethodT]:
    def decorate(method: MethodT) -> MethodT:
        note_on(method, ListenerMetadata(event))
        return method

    return decorate


def handlers_in(cls: type) -> list[tuple[str, ProcessMetadata]]:
    """The methods of a class that handle jobs, inherited ones included, in the order in which they are written.

    A method that a subclass overrides counts as the subclass decorates it.
    """
    return noted_methods(cls, ProcessMetadata)


def listeners_in(cls: type) -> list[tuple[str, LocalEvent]]:
    """The methods of a class that listen, with their events; inherited ones as in `handlers_in`."""
    return [(name, one.event) for name, one in noted_methods(cls, ListenerMetadata)]


def _names_in(namespace: Namespace | None) -> Mapping[str, Any]:
    return {} if namespace is None else namespace.names


def _check_options(options: ProcessorFields) -> None:
    known = ProcessorFields.__annotations__
    for option in options:
        if option not in known:
            raise no_such_option("@processor", option, tuple(known), OF_JOBS)
    WorkerOptions(**options)  # checks their values
