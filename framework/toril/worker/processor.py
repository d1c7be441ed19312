"""What runs the jobs: handlers by name, and how a function becomes one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, overload

from typing_extensions import TypeVar

from toril.callables import place_of
from toril.calls import explained
from toril.durations import Duration, optional_ms
from toril.errors import InvalidOptionError, ProcessorError
from toril.queues.job import Job
from toril.queues.job_def import JobDef
from toril.queues.option_checks import check_whole
from toril.queues.options import OF_JOBS
from toril.queues.payloads import PayloadType
from toril.worker.programs import ChildProgram, function_program
from toril.worker.signature import read_handler

D = TypeVar("D", default=Any)
R = TypeVar("R", default=Any)

ExecutorName: TypeAlias = Literal["thread", "process"]
"""Where a handler runs: a thread of the worker's process, or a child process."""

HandlerCall: TypeAlias = Callable[[Job[Any, Any]], Any]
"""Takes the job; returns the result, or an awaitable of it."""


@dataclass(frozen=True, slots=True)
class Surrounded:
    """A plain function, which runs in a thread, with something around it that runs in the loop."""

    call: HandlerCall
    around: Callable[[Job[Any, Any], Callable[[], Awaitable[Any]]], Awaitable[Any]]
    """Gets the job, and what runs the function in its thread; returns the result."""


class JobScope(Protocol):
    """Makes, for one attempt, what the handler needs, and takes it down afterwards. The layer that injects things supplies it."""

    def __call__(self, job: Job[Any, Any], /) -> AbstractAsyncContextManager[HandlerCall | Surrounded]:
        """A block in which the handler may be called.

        It closes after the result has been serialised; if it fails to, the attempt has failed.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One handler of a queue's jobs. `handler()` makes one from a function."""

    name: str | None
    """The jobs' name; None handles every name that has no handler of its own."""
    call: HandlerCall | Surrounded | None = None
    scope: JobScope | None = None
    """Instead of `call`, where each attempt needs things of its own."""
    is_async: bool = True
    """A plain function runs in a thread."""
    payload: PayloadType[Any] = field(default_factory=lambda: PayloadType(Any))
    result: PayloadType[Any] = field(default_factory=lambda: PayloadType(Any))
    concurrency: int | None = None
    """How many of them may run at the same time, inside the worker's own concurrency."""
    timeout_ms: int | None = None
    """How long an attempt may run, where the job doesn't say it itself."""
    place: str = ""
    """Where it is written, for error messages."""
    program: ChildProgram | None = None
    """How a child process runs it, if one does: then neither `call` nor `scope` is used here."""
    max_jobs_per_child: int | None = None
    """After how many jobs a child process is replaced by a new one."""

    def __post_init__(self) -> None:
        if (self.call is None) == (self.scope is None):
            raise InvalidOptionError("handler", self.name, "give either a callable or a scope")
        # An untyped caller may pass anything.
        if self.concurrency is not None and (type(self.concurrency) is not int or self.concurrency < 1):
            raise InvalidOptionError("concurrency", self.concurrency, f"the handler at {self.place} needs a whole number of at least 1")
        if self.timeout_ms == 0:
            raise InvalidOptionError("timeout", "0s", f"the handler at {self.place} could never end in time; leave it out for no timeout")
        check_whole("max_jobs_per_child", self.max_jobs_per_child, 1)


@overload
def handler(
    call: Callable[[Job[D, R]], Awaitable[R] | R],
    name: JobDef[D, R],
    *,
    concurrency: int | None = None,
    timeout: Duration | None = None,
    executor: ExecutorName | None = None,
    max_jobs_per_child: int | None = None,
) -> Handler: ...
@overload
def handler(
    call: Callable[[D], Awaitable[R] | R],
    name: JobDef[D, R],
    *,
    concurrency: int | None = None,
    timeout: Duration | None = None,
    executor: ExecutorName | None = None,
    max_jobs_per_child: int | None = None,
) -> Handler: ...
@overload
def handler(
    call: Callable[..., Any],
    name: str | None = None,
    *,
    concurrency: int | None = None,
    timeout: Duration | None = None,
    executor: ExecutorName | None = None,
    max_jobs_per_child: int | None = None,
) -> Handler: ...
@explained(fixes=OF_JOBS)
def handler(
    call: Callable[..., Any],
    name: str | JobDef[Any, Any] | None = None,
    *,
    concurrency: int | None = None,
    timeout: Duration | None = None,
    executor: ExecutorName | None = None,
    max_jobs_per_child: int | None = None,
) -> Handler:
    """Make a handler from a function that takes a job, or the data of one.

    Its first parameter is the job where it is annotated `Job[WelcomeEmail, Receipt]`, `Job`, `Any` or not at all; any other annotation
    makes it the job's data, of that type. The types of data and result come from the `JobDef`, else from these annotations,
    else anything that is JSON goes. A plain `def` runs in a thread.

    Args:
        concurrency: how many of them may run at the same time, inside the worker's own concurrency.
        timeout: how long an attempt may run, unless the job was added with a timeout of its own.
        executor: `"thread"`, where a plain `def` runs anyway, or `"process"`: a child process, which imports the function.
        max_jobs_per_child: after how many jobs a child process is replaced by a new one.

    Raises:
        InvalidOptionError: an option that makes no sense, or a function that a child process can't import.
        ProcessorError: an annotation can't be read, or there is a further parameter, which nothing fills here.
    """
    signature = read_handler(call)
    check_executor(executor, max_jobs_per_child, is_async=signature.is_async, place=place_of(call))
    for parameter in signature.others:
        if parameter.default is parameter.empty:
            reason = f"nothing fills the parameter {parameter.name!r}: give it a default, or use a method of a processor class"
            raise ProcessorError("?", reason, (place_of(call),))
    payload, result = signature.types(name if isinstance(name, JobDef) else None)
    return Handler(
        name=name.name if isinstance(name, JobDef) else name,
        call=signature.filled(call, {}),
        is_async=signature.is_async,
        payload=payload,
        result=result,
        concurrency=concurrency,
        timeout_ms=optional_ms(timeout, "timeout"),
        place=place_of(call),
        program=function_program(call, name) if executor == "process" else None,
        max_jobs_per_child=max_jobs_per_child,
    )


def check_executor(executor: str | None, max_jobs_per_child: int | None, *, is_async: bool, place: str) -> None:
    """Refuse an executor that isn't there, or isn't for this handler. Raises InvalidOptionError."""
    if executor not in (None, "thread", "process"):
        raise InvalidOptionError("executor", executor, 'write "thread" or "process"')
    if executor == "thread" and is_async:
        raise InvalidOptionError("executor", executor, f"{place} is async, and runs in the event loop: leave it out")
    if max_jobs_per_child is not None and executor != "process":
        raise InvalidOptionError("max_jobs_per_child", max_jobs_per_child, 'only executor="process" has children')


class Registry:
    """The handlers of one queue, by name.

    Args:
        may_be_empty: they come later, by `add`.

    Raises:
        ProcessorError: two handlers have the same name, there is none, or the one for every other name has a concurrency.
    """

    def __init__(self, queue: str, handlers: Iterable[Handler], *, may_be_empty: bool = False) -> None:
        self.queue = queue
        self._by_name: dict[str, Handler] = {}
        self._default: Handler | None = None
        for one in handlers:
            other = self._default if one.name is None else self._by_name.get(one.name)
            if other is not None:
                which = "every other name" if one.name is None else f"{one.name!r}"
                raise ProcessorError(queue, f"two handlers for {which}: keep one of them", (other.place, one.place))
            if one.name is None:
                self._default = one
            else:
                self._by_name[one.name] = one
        if not self._by_name and self._default is None and not may_be_empty:
            raise ProcessorError(queue, "a worker needs at least one handler: add @process() to a method")
        if self._by_name and self._default is not None and self._default.concurrency is not None:
            reason = "a handler for every other name can't have a concurrency of its own: give it names, or set that of WorkerOptions"
            raise ProcessorError(queue, reason, (self._default.place,))

    def add(self, handler: Handler) -> None:
        """Handle jobs of its name from now on, without a concurrency of their own; another handler of that name is replaced."""
        assert handler.name is not None  # limits and the handler for all names stand when a worker is made
        assert handler.concurrency is None
        self._by_name[handler.name] = handler

    def discard(self, name: str) -> None:
        """Don't handle jobs of this name any more."""
        self._by_name.pop(name, None)

    def find(self, name: str) -> Handler | None:
        """The handler for jobs of this name, or the one for every other name, or None."""
        return self._by_name.get(name, self._default)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that have a handler of their own, in order."""
        return tuple(sorted(self._by_name))

    @property
    def handles_all(self) -> bool:
        """Whether there is a handler for every other name."""
        return self._default is not None

    @property
    def handlers(self) -> tuple[Handler, ...]:
        """All of them, the one without a name last."""
        return (*self._by_name.values(), *((self._default,) if self._default else ()))

    @property
    def limits(self) -> Mapping[str, int]:
        """The names that have a concurrency of their own."""
        return {name: one.concurrency for name, one in self._by_name.items() if one.concurrency is not None}

    def total(self, concurrency: int) -> int:
        """How many jobs may run at the same time, of those that the worker allows: fewer if its only handler says so."""
        limit = self._default.concurrency if self._default is not None else None
        return concurrency if limit is None else min(limit, concurrency)


HandlerFunction: TypeAlias = Callable[[Job[D, R]], Awaitable[R] | R] | Callable[[D], Awaitable[R] | R]
"""Takes the job, or its data; see `handler`."""

Handlers: TypeAlias = HandlerFunction[D, R] | Mapping[str, HandlerFunction[D, R]] | Sequence[Handler]
"""What a worker takes: one function for all names, functions by name, or `Handler`s."""


def handlers_of(given: Handlers) -> list[Handler]:
    """Bring what a worker was given into one form."""
    if callable(given):
        return [handler(given)]
    if isinstance(given, Mapping):
        return [handler(call, name) for name, call in given.items()]
    return list(given)
