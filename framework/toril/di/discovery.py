"""Finds decorated classes and methods among everything that the modules provide.

@dataclass(frozen=True)
class Check:
    name: str

class RedisCheck:
    @mark(Check("redis"))
    async def ping(self) -> bool: ...

class HealthService:
    def __init__(self, discovery: DiscoveryService) -> None: ...
    async def on_application_bootstrap(self) -> None:
        self.checks = {found.metadata.name: found.bound() for found in self.discovery.methods(Check)}
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

from toril.di.bindings import Binding
from toril.di.places import attach, own_metadata
from toril.di.providers import Scope
from toril.di.tokens import Lazy

MetaT = TypeVar("MetaT")
MarkedT = TypeVar("MarkedT", bound=Callable[..., Any])

_MARKS = "__toril_marks__"


def mark(metadata: object) -> Callable[[MarkedT], MarkedT]:
    """Note something on a class or a method, under the type of `metadata`; `DiscoveryService` finds it.

    A class has one note of a type, which a subclass doesn't inherit; a method may have several. Methods are inherited with their notes.
    """

    def decorate(marked: MarkedT) -> MarkedT:
        target: object = marked
        if isinstance(target, type):
            attach(target, metadata)
        else:
            note_on(target, metadata)
        return marked

    return decorate


def note_on(method: object, metadata: object) -> None:
    """Add to the notes that a method carries."""
    notes: dict[type, list[object]] = cast("Any", function_of(method)).__dict__.setdefault(_MARKS, {})
    notes.setdefault(type(metadata), []).append(metadata)


def notes_of(method: object, kind: type[MetaT]) -> Sequence[MetaT]:
    """The notes of one type that a method carries, the decorator nearest to it first."""
    notes: object = getattr(function_of(method), _MARKS, None)
    if not isinstance(notes, dict):  # what a class holds may answer to every name, as mocks do
        return ()
    return cast("dict[type, list[MetaT]]", notes).get(kind, ())


def methods_of(cls: type) -> list[tuple[str, object]]:
    """The functions that a class holds, inherited ones included, by name, in the order in which they are written."""
    names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
    return [(name, function_of(inspect.getattr_static(cls, name))) for name in names]


def noted_methods(cls: type, kind: type[MetaT]) -> list[tuple[str, MetaT]]:
    """The methods of a class that carry notes of a type, by name. One that a subclass overrides counts as the subclass decorates it."""
    return [(name, one) for name, method in methods_of(cls) for one in notes_of(method, kind)]


def function_of(method: object) -> object:
    """The function inside of a static or class method, which keep no notes of their own."""
    is_wrapped = isinstance(method, (staticmethod, classmethod))
    function: object = cast("Any", method).__func__ if is_wrapped else method
    return function


@dataclass(frozen=True, slots=True)
class FoundClass(Generic[MetaT]):
    """A provider whose class carries a note. One class in two modules is found twice."""

    binding: Binding
    cls: type
    metadata: MetaT


@dataclass(frozen=True, slots=True)
class FoundMethod(Generic[MetaT]):
    """A method that carries a note, of a provider's class. With two notes of the type it is found twice."""

    binding: Binding
    cls: type
    method: str
    metadata: MetaT


def find_classes(bindings: Sequence[Binding], kind: type[MetaT]) -> Iterator[FoundClass[MetaT]]:
    """The classes with a note of a type, in the order of the bindings. Works on a graph, before anything exists."""
    for binding in bindings:
        metadata = own_metadata(binding.known_class, kind)
        if binding.known_class is not None and metadata is not None:
            yield FoundClass(binding, binding.known_class, metadata)


def find_methods(bindings: Sequence[Binding], kind: type[MetaT]) -> Iterator[FoundMethod[MetaT]]:
    """The methods with notes of a type, in the order of the bindings and of writing."""
    for binding in bindings:
        if binding.known_class is not None:
            for name, metadata in noted_methods(binding.known_class, kind):
                yield FoundMethod(binding, binding.known_class, name, metadata)


@dataclass(frozen=True, slots=True)
class Provided:
    """One provider of the running application."""

    token: object
    cls: type | None
    """The class of its instances; None where only a factory knows it."""
    module: type
    scope: Scope
    instance: Lazy[Any]
    """Its instance, of a job-scoped one that of the current job."""


@dataclass(frozen=True, slots=True)
class Marked(Generic[MetaT]):
    """A class with a note, in one module."""

    provided: Provided
    metadata: MetaT


@dataclass(frozen=True, slots=True)
class MarkedMethod(Generic[MetaT]):
    """A method with a note, of a provider of one module."""

    provided: Provided
    name: str
    metadata: MetaT

    def bound(self) -> Callable[..., Any]:
        """The method of the instance; raises as `Lazy.get` does."""
        method: Callable[..., Any] = getattr(self.provided.instance.get(), self.name)
        return method


class Looker(Protocol):
    """What `DiscoveryService` asks of the application context."""

    def all_bindings(self) -> Sequence[Binding]: ...

    def lazy_of(self, binding: Binding) -> Lazy[Any]: ...


class DiscoveryService:
    """What all modules provide, and which classes and methods of it carry notes made by `mark`. Injected by its type, anywhere."""

    def __init__(self, looker: Looker) -> None:
        self._looker = looker

    def providers(self) -> list[Provided]:
        """Everything that is provided, in the order of modules; second names (`use_existing`) are left out."""
        return [self._provided(binding) for binding in self._looker.all_bindings()]

    def classes(self, kind: type[MetaT]) -> list[Marked[MetaT]]:
        """The providers whose class carries a note of this type."""
        return [Marked(self._provided(one.binding), one.metadata) for one in find_classes(self._looker.all_bindings(), kind)]

    def methods(self, kind: type[MetaT]) -> list[MarkedMethod[MetaT]]:
        """The methods that carry notes of this type, in the order in which they are written."""
        found = find_methods(self._looker.all_bindings(), kind)
        return [MarkedMethod(self._provided(one.binding), one.method, one.metadata) for one in found]

    def _provided(self, binding: Binding) -> Provided:
        return Provided(binding.token, binding.known_class, binding.node.module, binding.scope, self._looker.lazy_of(binding))
