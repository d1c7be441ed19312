"""The graph's vertices and edges: what a module provides under a token, and what each of these depends on."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import get_origin

from toril.di.lifecycle import hooks_of
from toril.di.places import Place
from toril.di.providers import AliasProvider, ClassProvider, FactoryKind, FactoryProvider, Provider, Scope, ValueProvider
from toril.di.scanner import Node
from toril.di.signature import Dependency
from toril.di.tokens import token_name


class EdgeKind(Enum):
    """What answers a dependency."""

    BINDING = "binding"
    ABSENT = "absent"
    """Nothing does, and the parameter can do without: its default, or None."""
    JOB = "job"
    INQUIRER = "inquirer"
    MODULE_REF = "module ref"
    DISCOVERY = "discovery"


@dataclass(eq=False, slots=True)
class Edge:
    """One dependency of a binding, and what answers it."""

    dependency: Dependency
    kind: EdgeKind
    target: Binding | None = None
    """With BINDING: never an alias, but what the alias stands for."""
    is_deferred: bool = False
    """The target is handed over before its `__init__` ran, because this `forward_ref` edge closes a cycle."""

    @property
    def is_lazy(self) -> bool:
        """Looked up when used, so it orders nothing and keeps nothing alive."""
        return self.dependency.is_lazy


@dataclass(eq=False, slots=True)
class Binding:
    """What one module provides under one token.

    `cls` is the class of the instances where it is known before they exist (not for factories), so an explorer can look for
    metadata on it; `place` tells where it is defined.
    """

    token: object
    node: Node
    provider: Provider
    scope: Scope
    """As it turned out: a singleton that depends on the job scope has become JOB."""
    declared_scope: Scope | None
    is_module_class: bool = False
    is_override: bool = False
    is_hidden: bool = False
    """Stands for something that no module lists: a list under construction, a handler's parameters."""
    is_list: bool = False
    """Makes the list of what stands under a `ManyToken`, for one who asks for it."""
    alias_of: Binding | None = None
    edges: tuple[Edge, ...] = ()
    needs_job: bool = False
    """Lives no longer than a job: it is job-scoped, or transient and depends on what is."""
    position: int = -1
    """Its place in the order of creation."""
    cls: type | None = field(init=False)

    def __post_init__(self) -> None:
        provider = self.provider
        cls: object = None
        if isinstance(provider, ClassProvider):
            cls = get_origin(provider.cls) or provider.cls
        elif isinstance(provider, ValueProvider):
            cls = type(provider.value)
        self.cls = cls if isinstance(cls, type) else None

    @property
    def name(self) -> str:
        """What messages call it: the class that is created, else the token."""
        if isinstance(self.provider, ClassProvider):
            return token_name(self.provider.cls)
        return token_name(self.token)

    @property
    def known_class(self) -> type | None:
        """Where an explorer may look for decorated methods: of what a factory makes, only the token tells the class.

        None for a second name of something: its methods are found under the first.
        """
        return self.cls or (self.token if isinstance(self.token, type) and not self.is_alias else None)

    @property
    def place(self) -> Place:
        """Where it is defined: the class for a bare class, the call for `provide(...)`."""
        return self.provider.place

    @property
    def factory_kind(self) -> FactoryKind:
        """How its object is made; classes and values count as plain functions."""
        return self.provider.kind if isinstance(self.provider, FactoryProvider) else FactoryKind.SYNC

    @property
    def has_fixed_parts(self) -> bool:
        """Whether all that it depends on is there before any job, and stays."""
        targets = [edge.target for edge in self.edges if edge.kind is not EdgeKind.ABSENT]
        return all(target is not None and (target.scope is Scope.SINGLETON or target.is_fixed_list) for target in targets)

    @property
    def is_fixed_list(self) -> bool:
        """Whether it makes a list of things that stay."""
        return self.is_list and self.has_fixed_parts

    @property
    def has_hooks(self) -> bool:
        """Whether its class is known to have lifecycle hooks."""
        return isinstance(self.provider, ClassProvider) and self.cls is not None and bool(hooks_of(self.cls))

    @property
    def is_alias(self) -> bool:
        """Whether it is only a second name."""
        return isinstance(self.provider, AliasProvider)

    def inquirer_for(self, asking: object) -> object:
        """What a transient dependency of it is told as INQUIRER: its class, or of a list who was `asking` for the list."""
        if self.is_list:
            return asking
        provider = self.provider
        return provider.factory if isinstance(provider, FactoryProvider) else self.cls

    def __repr__(self) -> str:
        return f"<Binding {self.name} in {self.node.name}, {self.scope.value}>"


def needs_job(edge: Edge) -> bool:
    """Whether what an edge passes can't outlive a job."""
    if edge.is_lazy:
        return False
    return edge.kind is EdgeKind.JOB or (edge.target is not None and edge.target.needs_job)
