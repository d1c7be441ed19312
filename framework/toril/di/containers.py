"""The graph as dependency-injector's containers: one `DynamicContainer` for each module, all under one root.

| binding                         | provider                                                              |
|---------------------------------|-----------------------------------------------------------------------|
| value                           | `Object`                                                              |
| class or plain factory          | `Singleton` over the providers of its dependencies                    |
| transient                       | `Factory`, one for each place that asks, so that each has its INQUIRER |
| coroutine or generator factory  | `Dependency`, a slot that is filled after **we** awaited the factory  |
| job-scoped                      | `Callable` that asks the current job's scope                          |
| alias                           | the target's provider, under a second name                            |
| target of a deferred edge       | `Singleton` that calls `__init__` on an object that exists already    |

dependency-injector never sees an awaitable: its async mode is contagious, slow, and hangs or poisons callers on cancellation. So
what is async is made by us, in the order of creation, and the containers only hand it out. Only this file and `interop.py` import it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from dependency_injector import providers
from dependency_injector.containers import DynamicContainer

from toril.di.bindings import Binding, Edge
from toril.di.graph import Graph
from toril.di.plan import allocate, identifier, refuse_awaitable
from toril.di.providers import ClassProvider, FactoryProvider, Scope, ValueProvider, awaitable_kind
from toril.di.scanner import Node
from toril.di.tokens import token_name

AnyProvider: TypeAlias = providers.Provider[Any]


class RootContainer(DynamicContainer):
    """Holds a container for each module, each of which holds the providers of its module."""

    if TYPE_CHECKING:  # the package's stub takes every attribute for a provider, and so forbids `container.email_module.email_service()`

        def __getattr__(self, name: str) -> Any: ...  # noqa: ANN401  # known at run time only


_NO_CLASS: Any = None  # the stub doesn't know that a Container may be given an instance instead
_RESERVED = frozenset(dir(DynamicContainer())) | {"parent", "parent_name"}


class Source(Protocol):
    """What the containers ask of the application context."""

    def fixed_argument(self, edge: Edge, consumer: Binding, inquirer: object) -> object: ...

    def get_scoped(self, binding: Binding) -> object:
        """An instance of something that is not a singleton, without awaiting anything."""
        ...


class Containers:
    """Builds the containers, and makes singletons through them.

    `sites` holds, for each singleton, the transient dependencies that only we can make since something in them is async or has a
    teardown: the slots must be filled before the singleton is made.
    """

    def __init__(self, graph: Graph, source: Source) -> None:
        self.root = RootContainer()
        self.raw: dict[Binding, Any] = {}
        self.sites: dict[Binding, list[tuple[Edge, providers.Dependency[Any]]]] = {}
        self._source = source
        self._provider_of: dict[Binding, AnyProvider] = {}
        self._arguments: dict[Binding, tuple[list[AnyProvider], dict[str, AnyProvider]]] = {}
        self._needs_us = _need_us(graph.order)
        self._allocate(graph.order)
        for binding in graph.order:
            self._provider_of[binding] = self._provider_for(binding)
        self._fill(graph)

    def make(self, binding: Binding) -> object:
        """Make a singleton that needs no `await`, or get it if it is there already."""
        return self._provider_of[binding]()

    def arguments(self, binding: Binding) -> tuple[list[Any], dict[str, Any]]:
        """The arguments for a singleton's async or generator factory, whose dependencies exist."""
        positional, named = self._arguments[binding]
        return [provider() for provider in positional], {name: provider() for name, provider in named.items()}

    def put(self, binding: Binding, instance: object) -> None:
        """Hand over what an async or generator factory made."""
        _override(self._provider_of[binding], instance)

    @staticmethod
    def fill(slot: providers.Dependency[Any], instance: object) -> None:
        """Hand over a transient instance that was made for one place."""
        _override(slot, instance)

    # ── providers ─────────────────────────────────────────────────────────────────────────────────────────────

    def _allocate(self, order: Sequence[Binding]) -> None:
        for binding in order:
            for edge in binding.edges:
                target = edge.target
                if edge.is_deferred and target is not None and target.cls is not None and target.scope is Scope.SINGLETON:
                    self.raw.setdefault(target, allocate(target.cls))

    def _provider_for(self, binding: Binding) -> AnyProvider:
        provider = binding.provider
        if isinstance(provider, ValueProvider):
            return providers.Object(provider.value)
        if binding.scope is Scope.JOB or binding.needs_job or (binding.scope is Scope.TRANSIENT and binding in self._needs_us):
            return providers.Callable(self._source.get_scoped, providers.Object(binding))
        if binding.scope is Scope.TRANSIENT:
            return self._factory(binding, None)
        positional, named = self._arguments[binding] = self._argument_providers(binding, None)
        if isinstance(provider, FactoryProvider) and (provider.kind.is_async or provider.kind.has_teardown):
            return providers.Dependency()
        if binding in self.raw:
            init: Callable[..., Any] = type(self.raw[binding]).__init__
            fixed = (providers.Object(self.raw[binding]), providers.Object(init))
            return providers.Singleton(_init_into, *fixed, *positional, **named)
        return providers.Singleton(_target_of(binding), *positional, **named)

    def _factory(self, binding: Binding, inquirer: object) -> AnyProvider:
        positional, named = self._argument_providers(binding, inquirer)
        return providers.Factory(_target_of(binding), *positional, **named)

    def _argument_providers(self, binding: Binding, inquirer: object) -> tuple[list[AnyProvider], dict[str, AnyProvider]]:
        positional: list[AnyProvider] = []
        named: dict[str, AnyProvider] = {}
        for edge in binding.edges:
            provider = self._argument_provider(binding, edge, inquirer)
            if edge.dependency.is_keyword:
                named[edge.dependency.name] = provider
            else:
                positional.append(provider)
        return positional, named

    def _argument_provider(self, binding: Binding, edge: Edge, inquirer: object) -> AnyProvider:
        target = edge.target
        if target is None or edge.is_lazy:
            return providers.Object(self._source.fixed_argument(edge, binding, inquirer))
        if edge.is_deferred:
            return providers.Object(self.raw[target])
        if target.scope is not Scope.TRANSIENT:
            return self._provider_of[target]
        if target not in self._needs_us:
            return self._factory(target, binding.inquirer_for(inquirer))
        slot: providers.Dependency[Any] = providers.Dependency()
        self.sites.setdefault(binding, []).append((edge, slot))
        return slot

    # ── containers ────────────────────────────────────────────────────────────────────────────────────────────

    def _fill(self, graph: Graph) -> None:
        of_node: dict[Node, list[Binding]] = {node: [] for node in graph.nodes}
        for binding in (*graph.bindings, *graph.aliases):
            of_node[binding.node].append(binding)
        node_names = _unique_names(node.name for node in graph.nodes)
        for node, node_name in zip(graph.nodes, node_names, strict=True):
            container = DynamicContainer()
            bindings = of_node[node]
            for name, binding in zip(_unique_names(token_name(each.token) for each in bindings), bindings, strict=True):
                container.set_provider(name, self._provider_of[binding.alias_of or binding])
            self.root.set_provider(node_name, providers.Container(_NO_CLASS, container))


def _target_of(binding: Binding) -> Callable[..., Any]:
    provider = binding.provider
    if isinstance(provider, ClassProvider):
        return provider.cls
    if isinstance(provider, FactoryProvider):
        return _guarded(provider.factory, binding)
    raise TypeError(provider)  # values have no target, and aliases no provider of their own


def _guarded(factory: Callable[..., object], binding: Binding) -> Callable[..., object]:
    """A plain factory whose awaitable result is refused before dependency-injector sees it, and turns it into a task."""

    @functools.wraps(factory)
    def guarded(*args: object, **kwargs: object) -> object:
        made = factory(*args, **kwargs)
        if awaitable_kind(made) is not None:
            refuse_awaitable(made, binding)
        return made

    return guarded


def _init_into(raw: object, init: Callable[..., None], *args: object, **kwargs: object) -> object:
    init(raw, *args, **kwargs)
    return raw


def _override(slot: Any, instance: object) -> None:  # noqa: ANN401  # the stub of `override` is untyped
    slot.override(providers.Object(instance))


def _need_us(order: Sequence[Binding]) -> set[Binding]:
    """The transient bindings that dependency-injector can't make: an async factory or a teardown is in them or beneath them."""
    found: set[Binding] = set()
    for binding in order:  # dependencies come first
        if binding.scope is Scope.TRANSIENT:
            beneath = any(edge.target in found for edge in binding.edges if not edge.is_lazy)
            kind = binding.factory_kind
            if beneath or kind.is_async or kind.has_teardown:
                found.add(binding)
    return found


def _unique_names(names: Iterator[str]) -> Iterator[str]:
    """Attribute names for a container: readable, and none that would shadow a method or destroy the container."""
    used: set[str] = set()
    for name in names:
        slug = base = identifier(name)
        if slug in _RESERVED:
            slug = base = slug + "_"
        number = 2
        while slug in used:
            slug = f"{base}_{number}"
            number += 1
        used.add(slug)
        yield slug
