"""What runs the jobs: handlers by name, and how a function becomes one."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from toril.durations import Duration, optional_ms
from toril.errors import InvalidOptionError, ProcessorError
from toril.queues.job import Job
from toril.queues.job_def import JobDef
from toril.queues.payloads import PayloadType

HandlerCall: TypeAlias = Callable[[Job[Any, Any]], Any]
"""Takes the job; returns the result, or an awaitable of it."""


class JobScope(Protocol):
    """Makes, for one attempt, what the handler needs, and takes it down afterwards. The layer that injects things supplies it."""

    def __call__(self, job: Job[Any, Any], /) -> AbstractAsyncContextManager[HandlerCall]:
        """A block in which the handler may be called.

        It closes after the result has been serialised; if it fails to, the attempt has failed.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One handler of a queue's jobs. `handler()` makes one from a function."""

    name: str | None
    """The jobs' name; None handles every name that has no handler of its own."""
    call: HandlerCall | None = None
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

    def __post_init__(self) -> None:
        if (self.call is None) == (self.scope is None):
            raise InvalidOptionError("handler", self.name, "give either a callable or a scope")
        # An untyped caller may pass anything.
        if self.concurrency is not None and (type(self.concurrency) is not int or self.concurrency < 1):
            raise InvalidOptionError("concurrency", self.concurrency, f"the handler at {self.place} needs a whole number of at least 1")
        if self.timeout_ms == 0:
            raise InvalidOptionError("timeout", "0s", f"the handler at {self.place} could never end in time; leave it out for no timeout")


def handler(
    call: HandlerCall,
    name: str | JobDef[Any, Any] | None = None,
    *,
    concurrency: int | None = None,
    timeout: Duration | None = None,
) -> Handler:
    """Make a handler from a function that takes a job.

    The types of payload and result come from the `JobDef`, else from the annotation of the function's parameter
    (`job: Job[WelcomeEmail, Receipt]`), else anything that is JSON goes.
    """
    if isinstance(name, JobDef):
        payload, result = name.payload, name.result
    else:
        payload, result = annotated_types(call)
    return Handler(
        name=name.name if isinstance(name, JobDef) else name,
        call=call,
        is_async=is_async(call),
        payload=payload,
        result=result,
        concurrency=concurrency,
        timeout_ms=optional_ms(timeout, "timeout"),
        place=place_of(call),
    )


def annotated_types(
    call: Callable[..., Any], *, skip_self: bool = False, names: Mapping[str, Any] | None = None
) -> tuple[PayloadType[Any], PayloadType[Any]]:
    """The payload's and the result's type as the job parameter's annotation says: `Job[A, B]`; anything where it says nothing.

    Args:
        skip_self: the function is a method that isn't bound yet.
        names: what the annotation may name besides what the function's own file can see.

    Raises:
        ProcessorError: an annotation is there, but can't be read.
    """
    function: Any = call
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(getattr(function, "__func__", function))
    if not inspect.isfunction(function):
        function = type(function).__call__
    parameters = list(inspect.signature(call).parameters.values())[1 if skip_self else 0 :]
    annotation: object = parameters[0].annotation if parameters else inspect.Parameter.empty
    try:
        annotation = _evaluate(annotation, {**getattr(function, "__globals__", {}), **(names or {})})
    except Exception as error:
        reason = f"the annotation {annotation!r} of {place_of(call)} can't be read ({type(error).__name__}: {error})"
        if isinstance(error, NameError):
            reason += ": import that name at run time, not only under TYPE_CHECKING"
        raise ProcessorError("?", reason) from error
    if typing.get_origin(annotation) is Job:
        payload, result = (*typing.get_args(annotation), Any)[:2]
        return PayloadType(payload), PayloadType(result, "result")
    return PayloadType(Any), PayloadType(Any, "result")


def _evaluate(annotation: object, names: dict[str, Any]) -> object:
    """Read one annotation that may be, or hold, text; for itself, since `get_type_hints` of the whole fails for any part of it."""

    def holder() -> None: ...

    holder.__annotations__ = {"job": annotation}
    return typing.get_type_hints(holder, names, include_extras=True)["job"]


def is_async(call: Callable[..., Any]) -> bool:
    """Whether calling it gives an awaitable; anything else runs in a thread."""
    function: Any = call
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 -- async __call__


def place_of(call: Callable[..., Any]) -> str:
    """`module.Class.method (file.py:12)`."""
    function = inspect.unwrap(getattr(call, "__func__", call))
    name = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"
    code = getattr(function, "__code__", None)
    return f"{name} ({code.co_filename.rsplit('/', 1)[-1]}:{code.co_firstlineno})" if code else name


class Registry:
    """The handlers of one queue, by name.

    Raises:
        ProcessorError: two handlers have the same name, there is none, or the one for every other name has a concurrency.
    """

    def __init__(self, queue: str, handlers: Iterable[Handler]) -> None:
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
        if not self._by_name and self._default is None:
            raise ProcessorError(queue, "a worker needs at least one handler: add @process() to a method")
        if self._by_name and self._default is not None and self._default.concurrency is not None:
            reason = "a handler for every other name can't have a concurrency of its own: give it names, or set that of WorkerOptions"
            raise ProcessorError(queue, reason, (self._default.place,))

    def find(self, name: str) -> Handler | None:
        """The handler for jobs of this name, or the one for every other name, or None."""
        return self._by_name.get(name, self._default)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that have a handler of their own, in order."""
        return tuple(sorted(self._by_name))

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


Handlers: TypeAlias = HandlerCall | Mapping[str, HandlerCall] | Sequence[Handler]
"""What a worker takes: one function for all names, functions by name, or `Handler`s."""


def handlers_of(given: Handlers) -> list[Handler]:
    """Bring what a worker was given into one form."""
    if callable(given):
        return [handler(given)]
    if isinstance(given, Mapping):
        return [handler(call, name) for name, call in given.items()]
    return list(given)
