"""The four ways to provide something: a class, a value, a factory, another name for what exists; and how long it lives."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias, TypeVar, get_origin, overload

from toril.calls import explained
from toril.di.errors import InvalidProvider
from toril.di.places import NOWHERE, Namespace, Place, attach, caller_namespace, caller_place, place_of
from toril.di.tokens import Token, is_builtin_type, is_token, plain_token, token_name

T = TypeVar("T")
ClassT = TypeVar("ClassT", bound=type)


class Scope(Enum):
    """How long an instance lives, and who shares it."""

    SINGLETON = "singleton"
    """One for the application (in each module that provides it)."""
    TRANSIENT = "transient"
    """A new one for every constructor that asks."""
    JOB = "job"
    """One for each job (each attempt), shared by everything that is made for that job."""
    REQUEST = JOB
    """Nest's name for JOB."""


class FactoryKind(Enum):
    """How a factory hands over its object, decided by how it is written, never by what it returns."""

    SYNC = "sync"
    COROUTINE = "coroutine"
    GENERATOR = "generator"
    ASYNC_GENERATOR = "async generator"

    @property
    def is_async(self) -> bool:
        """Whether making the object needs an `await`."""
        return self in (FactoryKind.COROUTINE, FactoryKind.ASYNC_GENERATOR)

    @property
    def has_teardown(self) -> bool:
        """Whether something runs when the object's scope ends."""
        return self in (FactoryKind.GENERATOR, FactoryKind.ASYNC_GENERATOR)


@dataclass(frozen=True, kw_only=True)
class ClassProvider:
    """Calls `cls` with its dependencies."""

    token: object
    cls: Callable[..., object]  # a class, or a parametrised one such as Repo[User]
    scope: Scope | None = None
    written_at: Place | None = field(default=None, compare=False)

    @property
    def place(self) -> Place:
        """The call of `provide`, or the class itself. Looked up when asked for: finding a class in its file takes milliseconds."""
        return self.written_at or place_of(get_origin(self.cls) or self.cls)


@dataclass(frozen=True, kw_only=True)
class ValueProvider:
    """Hands out `value` as it is; an awaitable is never awaited."""

    token: object
    value: object
    place: Place = field(default=NOWHERE, compare=False)

    @property
    def scope(self) -> Scope:
        """Always singleton."""
        return Scope.SINGLETON


@dataclass(frozen=True, kw_only=True)
class FactoryProvider:
    """Calls `factory` with `inject`, or, where that is None, with what its annotations ask for."""

    token: object
    factory: Callable[..., object]
    inject: tuple[object, ...] | None = None
    scope: Scope | None = None
    place: Place = field(default=NOWHERE, compare=False)
    namespace: Namespace | None = field(default=None, compare=False)
    """Names that its annotations may use besides what its file and its module see."""

    @functools.cached_property
    def kind(self) -> FactoryKind:
        """Coroutine function, generator function, or plain."""
        return factory_kind(self.factory)


@dataclass(frozen=True, kw_only=True)
class AliasProvider:
    """A second token for what `target` stands for."""

    token: object
    target: object
    place: Place = field(default=NOWHERE, compare=False)

    @property
    def scope(self) -> None:
        """An alias has the scope of its target."""
        return None


Provider: TypeAlias = ClassProvider | ValueProvider | FactoryProvider | AliasProvider


@dataclass(frozen=True, slots=True)
class InjectableMetadata:
    """What `@injectable` notes on a class."""

    scope: Scope | None
    namespace: Namespace | None


@explained("@injectable")
def injectable(*, scope: Scope | None = None) -> Callable[[ClassT], ClassT]:
    """Say how long a class' instances live. Optional otherwise, except that it lets a class defined inside a function read
    its own annotations wherever its module is defined.

    An explicit `Scope.SINGLETON` is a promise: a dependency on the job scope is then an error instead of making the class job-scoped.
    """
    namespace = caller_namespace(1)

    def decorate(cls: ClassT) -> ClassT:
        attach(cls, InjectableMetadata(scope, namespace))
        return cls

    return decorate


Name: TypeAlias = type[Any] | str | Callable[..., Any]
"""Tokens whose values a type checker can't compare with them: mypy takes no Protocol for a `type[T]`, pyright a NewType for a function."""


@overload
def provide(token: Token[T], *, use_value: T) -> ValueProvider: ...
@overload
def provide(token: Token[T], *, use_class: Callable[..., T], scope: Scope | None = None) -> ClassProvider: ...
@overload
def provide(
    token: Token[T],
    *,
    use_factory: Callable[..., T | Awaitable[T] | AsyncIterator[T] | Iterator[T]],
    inject: Sequence[object] | None = None,
    scope: Scope | None = None,
) -> FactoryProvider: ...
@overload
def provide(token: Name, *, use_value: object) -> ValueProvider: ...
@overload
def provide(token: Name, *, use_class: Callable[..., object], scope: Scope | None = None) -> ClassProvider: ...
@overload
def provide(
    token: Name, *, use_factory: Callable[..., object], inject: Sequence[object] | None = None, scope: Scope | None = None
) -> FactoryProvider: ...
@overload
def provide(token: object, *, use_existing: object) -> AliasProvider: ...
@explained()
def provide(token: object, *, inject: Sequence[object] | None = None, scope: Scope | None = None, **use: Any) -> Provider:
    """A provider for `token`, made from exactly one of four things.

    Args:
        token: a class (also a Protocol or ABC), a parametrised class, a `Token`, text, or any hashable object with a `token_name`.
        use_value: the object itself. It is never awaited, even if it could be, and gets lifecycle hooks.
        use_class: called with its dependencies.
        use_factory: a function; `async def` is awaited; one that yields gets its rest run when the scope ends, in reverse order.
        use_existing: another token, which this one then is a second name for.
        inject: tokens of the factory's positional arguments. Without it they are read from its annotations.
        scope: see `Scope`; singleton unless said otherwise (by `@injectable`, or because a dependency is job-scoped).

    Raises:
        InvalidProvider: no or several `use_*`, or something that can't work with them.
    """
    token, place = plain_token(token), caller_place(1)
    problem = _misuse(token, use, inject, scope)
    if problem is not None:
        raise InvalidProvider(token_name(token), "", *problem, str(place))
    ((way, what),) = use.items()
    if way == "use_value":
        return ValueProvider(token=token, value=what, place=place)
    if way == "use_class":
        return ClassProvider(token=token, cls=what, scope=scope, written_at=place)
    if way == "use_factory":
        order = None if inject is None else tuple(inject)
        return FactoryProvider(token=token, factory=what, inject=order, scope=scope, place=place)
    return AliasProvider(token=token, target=plain_token(what), place=place)


def class_provider(cls: type) -> ClassProvider:
    """What a bare class in `providers` stands for."""
    return ClassProvider(token=cls, cls=cls)


def factory_kind(factory: Callable[..., object]) -> FactoryKind:
    """Tell by the function itself, looking through `functools.partial` and objects with `__call__`."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    function: object = factory if inspect.isroutine(factory) or isinstance(factory, type) else type(factory).__call__
    if inspect.iscoroutinefunction(function):
        return FactoryKind.COROUTINE
    if inspect.isasyncgenfunction(function):
        return FactoryKind.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(function):
        return FactoryKind.GENERATOR
    return FactoryKind.SYNC


def awaitable_kind(value: object) -> str | None:
    """The name of what can only be a promise of a value. Objects that merely can be awaited (a Redis client) are values."""
    if inspect.iscoroutine(value):
        return "coroutine"
    return "future" if asyncio.isfuture(value) else None


_WAYS = ("use_value", "use_class", "use_factory", "use_existing")


def _misuse(
    token: object, use: dict[str, Any], inject: Sequence[object] | None, scope: Scope | None
) -> tuple[str, str] | None:  # reason and hint
    unknown = [name for name in use if name not in _WAYS]
    if unknown or len(use) != 1:
        given = ", ".join(use) or "none of them"
        return f"it is made with {given}", f"Give exactly one of {', '.join(_WAYS)}."
    ((way, what),) = use.items()
    if not is_token(token):
        return f"{type(token).__name__} is no token", "Use a class, a Token, text, or a hashable object with a `token_name`."
    if is_builtin_type(token):
        return f"{token_name(token)} is a builtin type, which is no token by itself", "Use a Token, or a class of your own."
    if inject is not None and way != "use_factory":
        return f"`inject` means nothing beside {way}", "It names the arguments of a `use_factory`."
    if scope is not None and way in ("use_value", "use_existing"):
        return f"`scope` means nothing beside {way}", "A value is one object, and an alias lives as long as its target."
    if way == "use_value" and (kind := awaitable_kind(what)) is not None:
        if inspect.iscoroutine(what):
            what.close()
        return f"its value is a {kind}, which nobody would await", "Use `use_factory` with an `async def` function."
    if way in ("use_class", "use_factory") and not callable(what):
        return f"{way}={what!r} can't be called", "Give the class or function itself."
    if way == "use_factory" and _is_context_manager_function(what):
        return "its factory is decorated with a contextlib decorator", "Remove it: a function that yields is enough, and is torn down."
    return None


def _is_context_manager_function(factory: object) -> bool:
    inner = getattr(factory, "__wrapped__", None)
    of_contextlib = getattr(factory, "__globals__", {}).get("__name__") == "contextlib"
    return of_contextlib and (inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner))
