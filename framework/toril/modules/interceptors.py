"""What runs around a handler: interceptors, and filters for what comes out of it as an error.

    global ─► module ─► class ─► method ─► handler        interceptors, the outermost first
    method ─► class ─► module ─► global                   filters: the first that catches the error, and only that one

Both run within the job's scope: a session that is open for the job is committed or rolled back by what comes out of here. The payload
has been checked before, the result is serialised afterwards. An attempt's timeout is around all of it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from toril.calls import explained
from toril.di import ManyToken, Place, attach, caller_place, own_metadata
from toril.di.discovery import note_on, notes_of
from toril.errors import DelayedError, InvalidCallError, RateLimitError, WaitingChildrenError, WaitingError
from toril.queues.job import Job
from toril.worker.processor import HandlerCall, Surrounded

MetaT = TypeVar("MetaT")
MarkedT = TypeVar("MarkedT", bound=Callable[..., Any])

CallNext: TypeAlias = Callable[[], Awaitable[Any]]
"""Goes on: to the next interceptor, in the end to the handler. Returns its result, raises what it raises."""

_SIGNALS: Final = (DelayedError, RateLimitError, WaitingChildrenError, WaitingError)


@dataclass(frozen=True, slots=True)
class JobExecutionContext:
    """One call of a handler, as interceptors and filters see it."""

    job: Job[Any, Any]
    processor: type
    """The processor's class."""
    handler: Callable[..., Any]
    """The method, as the class has it."""
    module: type
    """The module that provides the processor."""

    def note(self, kind: type[MetaT]) -> MetaT | None:
        """What `mark` noted nearest to the handler: on the method, else on its class, else on the module's; None if nothing."""
        of_method = notes_of(self.handler, kind)
        if of_method:
            return of_method[-1]
        of_class = own_metadata(self.processor, kind)
        return own_metadata(self.module, kind) if of_class is None else of_class


class Interceptor(Protocol):
    """Runs around a handler."""

    async def intercept(self, context: JobExecutionContext, call_next: CallNext) -> Any:  # noqa: ANN401 -- the handler's result, or another
        """Call `await call_next()` once, several times or not at all; what is returned is the job's result."""
        ...


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a filter returns where the job has succeeded after all, with this result."""

    result: Any = None


class ExceptionFilter(Protocol):
    """Sees the errors that `@catch` names, of handlers and interceptors."""

    def catch(self, error: Any, context: JobExecutionContext) -> Awaitable[Recovered | None] | Recovered | None:  # noqa: ANN401 -- as @catch says
        """Return None: the attempt has failed with `error`. Raise: it has failed with that. Return `Recovered`: it has succeeded."""
        ...


APP_INTERCEPTOR: Final = ManyToken[Interceptor]("APP_INTERCEPTOR", everywhere=True)
"""Around every handler of the application: `provide(APP_INTERCEPTOR, use_class=Timing)` in any module."""

APP_FILTER: Final = ManyToken[ExceptionFilter]("APP_FILTER", everywhere=True)
"""For every handler of the application: `provide(APP_FILTER, use_class=Report)` in any module."""


@dataclass(frozen=True, slots=True)
class UsedInterceptors:
    """What `@use_interceptors` notes."""

    items: tuple[type | Interceptor, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class UsedFilters:
    """What `@use_filters` notes."""

    items: tuple[type | ExceptionFilter, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class CatchMetadata:
    """What `@catch` notes on a filter's class."""

    errors: tuple[type[Exception], ...]


@explained("@use_interceptors")
def use_interceptors(*interceptors: type[Interceptor] | Interceptor) -> Callable[[MarkedT], MarkedT]:
    """Run these around a handler's method, around all handlers of a processor's class, or around those of a module's processors.

    Classes are injected: one that the module sees as a provider is that provider; any other the module makes for itself, with its
    dependencies and scope. The first one is the outermost, and a decorator above another one is around it.
    """
    _check_items("@use_interceptors", interceptors)
    place = caller_place(1)

    def decorate(marked: MarkedT) -> MarkedT:
        _use(marked, UsedInterceptors(interceptors, place))
        return marked

    return decorate


@explained("@use_filters")
def use_filters(*filters: type[ExceptionFilter] | ExceptionFilter) -> Callable[[MarkedT], MarkedT]:
    """Let these see the errors of a method, class or module; where they stand, and how they are made, is as with `use_interceptors`.

    As in Nest the last one that catches an error gets it: a filter for every error stands first, those for certain errors after it.
    """
    _check_items("@use_filters", filters)
    place = caller_place(1)

    def decorate(marked: MarkedT) -> MarkedT:
        _use(marked, UsedFilters(filters, place))
        return marked

    return decorate


@explained("@catch")
def catch(*errors: type[Exception]) -> Callable[[MarkedT], MarkedT]:
    """Say which errors a filter's class gets; without any, all.

    What a handler asks for by raising, a `DelayedError` say, is no error.
    """
    if not all(_is_error(each) for each in errors):
        reason = "takes classes of exceptions, in brackets: write @catch(ValueError), or @catch() for all"
        raise InvalidCallError("@catch", reason, "errors")

    def decorate(cls: MarkedT) -> MarkedT:
        target: object = cls
        if not isinstance(target, type):
            raise InvalidCallError("@catch", "stands on the class of a filter", "errors")
        attach(target, CatchMetadata(errors))
        return cls

    return decorate


def used_on(marked: object, kind: type[UsedInterceptors] | type[UsedFilters]) -> tuple[Any, ...]:
    """What a class or method uses, the outermost first."""
    if isinstance(marked, type):
        own = own_metadata(marked, kind)
        return () if own is None else own.items
    return tuple(item for used in reversed(notes_of(marked, kind)) for item in used.items)


def surround(
    call: HandlerCall,
    *,
    is_async: bool,
    about: Callable[[Job[Any, Any]], JobExecutionContext],
    interceptors: Sequence[Interceptor],
    filters: Sequence[tuple[ExceptionFilter, tuple[type[Exception], ...]]],
) -> HandlerCall | Surrounded:
    """A handler with what runs around it.

    Args:
        interceptors: the outermost first.
        filters: each with what it catches, the one that is asked first first.
    """

    async def intercepted(context: JobExecutionContext, call_next: CallNext) -> object:
        for interceptor in reversed(interceptors):
            call_next = functools.partial(interceptor.intercept, context, call_next)
        return await call_next()

    async def around(job: Job[Any, Any], call_next: CallNext) -> object:
        context = about(job)
        try:
            return await intercepted(context, call_next)
        except _SIGNALS:
            raise
        except Exception as error:
            chosen = next((one for one, errors in filters if isinstance(error, errors)), None)
            if chosen is None:
                raise
            answer: object = chosen.catch(error, context)
            if inspect.isawaitable(answer):
                answer = await answer
            if not isinstance(answer, Recovered):
                raise
            return answer.result

    if not is_async:
        return Surrounded(call, around)

    async def called(job: Job[Any, Any]) -> object:
        return await around(job, functools.partial(call, job))

    return called


def caught_by(one: object, declared: object) -> tuple[type[Exception], ...]:
    """What a filter catches: as the class says that was named, or, with a test's own object in its place, its own."""
    metadata = own_metadata(declared, CatchMetadata) or own_metadata(type(one), CatchMetadata)
    return (Exception,) if metadata is None or not metadata.errors else metadata.errors


def _is_error(value: object) -> bool:  # untyped callers may write anything
    return isinstance(value, type) and issubclass(value, Exception)


def _check_items(decorator: str, items: Sequence[object]) -> None:
    """Refuse a decorator without brackets, which gets what it stands on, and one that says nothing."""
    what = "interceptors" if decorator == "@use_interceptors" else "filters"
    if not items or any(inspect.isroutine(item) for item in items):
        raise InvalidCallError(decorator, f"names classes or objects, in brackets: write {decorator}(Timing)", what)


def _use(marked: Any, used: UsedInterceptors | UsedFilters) -> None:  # noqa: ANN401 -- a class or a method
    if not isinstance(marked, type):
        note_on(marked, used)
        return
    items: tuple[Any, ...] = (*used.items, *used_on(marked, type(used)))
    attach(marked, type(used)(items, used.place))
