"""From each parameter to the binding that answers it, in what its module can see."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, get_origin

from toril.di.bindings import Binding, Edge, EdgeKind, needs_job
from toril.di.discovery import DiscoveryService
from toril.di.errors import (
    CircularAlias,
    DIError,
    GraphErrors,
    InvalidProvider,
    UnknownOverride,
    UnreadableAnnotation,
    UnresolvedDependency,
)
from toril.di.many import collector, nothing_under
from toril.di.module_ref import ModuleRef
from toril.di.overrides import Overrides
from toril.di.places import own_metadata
from toril.di.providers import (
    AliasProvider,
    ClassProvider,
    FactoryProvider,
    InjectableMetadata,
    Provider,
    Scope,
    ValueProvider,
)
from toril.di.render import Adviser, Hints
from toril.di.scanner import ModuleScanner, Node
from toril.di.signature import Dependency, Signature, accepts, read_inject_list, read_signature
from toril.di.tokens import INQUIRER, JOB_REF, ManyToken, Member, as_many, is_builtin_type, token_name
from toril.di.visibility import Visibility, target_of
from toril.spelling import near


@dataclass(frozen=True, slots=True)
class Fallback:
    """A provider that a module has only if it sees no other under its token."""

    provider: Provider


Companions: TypeAlias = Callable[[Binding, Collection[object]], Iterable[Provider | Fallback]]
"""What a module has besides, for one of its bindings; also gets all tokens that modules provide. Nobody else sees it: it is found by its
token in that module only."""


class Linker:
    """Makes the bindings of all nodes, and links every dependency. Problems are gathered in `errors`."""

    def __init__(
        self,
        nodes: Sequence[Node],
        scanner: ModuleScanner,
        overrides: Overrides,
        job_types: Collection[object] = (),
        advisers: Sequence[Adviser] = (),
        companions: Sequence[Companions] = (),
    ) -> None:
        self.nodes = nodes
        self.errors: list[DIError] = []
        self.warnings: list[str] = []
        self.bindings: list[Binding] = []
        self.by_token: dict[object, list[Binding]] = {}
        self._overrides, self._job_types = overrides, frozenset(job_types)
        self._companions = companions
        self._visibility = Visibility(nodes, scanner, self.by_token)
        self._found: dict[tuple[Node, object], Binding | None] = {}
        self._replacements = {provider.token: provider for provider in overrides.providers}
        self._unused = set(self._replacements)
        self._fallbacks: dict[tuple[Node, object], Provider] = {}
        self._late: list[Binding] = []
        self._collectors: dict[tuple[Node, object], Binding] = {}
        self._is_linked = False
        self._mocks: dict[object, Binding] = {}
        self._hints = Hints(self.by_token, self._visibility.is_exported, advisers)

    def link(self) -> None:
        """Do all of it, in the order in which one step needs the other."""
        self._make_bindings()
        self.errors += self._visibility.read_exports()
        for binding in list(self.bindings):  # a mock adds bindings, which have nothing to link
            if binding.is_alias:
                self._follow(binding)
        for binding in list(self.bindings):
            if not binding.is_alias:
                self._link(binding)
        while self._late:
            self._link(self._late.pop())
        self._unknown_overrides()
        self.warnings += self._visibility.contested()
        self._is_linked = True

    # ── bindings ──────────────────────────────────────────────────────────────────────────────────────────────

    def _make_bindings(self) -> None:
        for node in self.nodes:
            for token, provider in node.providers.items():
                wanted = token.of if isinstance(token, Member) else token
                replacement = self._replacement(wanted)
                if replacement is not None and isinstance(token, Member) and token.number > 0:
                    continue  # one replacement stands for all that a module has under the token
                if replacement is None and isinstance(token, Member) and isinstance(provider, ClassProvider):
                    replacement = self._replacement(provider.cls)
                self._bind(token, node, replacement or provider, is_override=replacement is not None)
            self._bind(node.module, node, ClassProvider(token=node.module, cls=node.module, written_at=node.place), is_module_class=True)
        tokens = frozenset(self.by_token)
        for binding in list(self.bindings):
            for one in (each for companions in self._companions for each in companions(binding, tokens)):
                if isinstance(one, Fallback):
                    self._fallbacks.setdefault((binding.node, one.provider.token), one.provider)
                else:
                    self._bind(one.token, binding.node, one, is_listed=False)

    def _replacement(self, token: object) -> Provider | None:
        replacement = self._replacements.get(token)
        if replacement is not None:
            self._unused.discard(token)
        return replacement

    def _unknown_overrides(self) -> None:
        for token in (each for each in self._replacements if each in self._unused):
            names = [token_name(known) for known in self.by_token]
            place = str(self._replacements[token].place)
            self.errors.append(UnknownOverride(token_name(token), "provider", near(token_name(token), names), place))

    def _bind(
        self,
        token: object,
        node: Node,
        provider: Provider,
        *,
        is_module_class: bool = False,
        is_override: bool = False,
        is_listed: bool = True,
    ) -> Binding:
        scope = provider.scope
        if isinstance(provider, ClassProvider) and scope is None:
            metadata = own_metadata(get_origin(provider.cls) or provider.cls, InjectableMetadata)
            scope = metadata.scope if metadata is not None else None
        binding = Binding(
            token,
            node,
            provider,
            scope or Scope.SINGLETON,
            scope,
            is_module_class=is_module_class,
            is_override=is_override,
            is_hidden=not is_listed,
        )
        self.bindings.append(binding)
        if is_listed:
            self.by_token.setdefault(token.of if isinstance(token, Member) else token, []).append(binding)
        self._visibility.add(binding)
        return binding

    # ── asking ────────────────────────────────────────────────────────────────────────────────────────────────

    def find(self, node: Node, token: object) -> Binding | None:
        """What `node` sees under `token`: its own, else the first import's export, else a global module's. May be an alias."""
        key = (node, token)
        if key not in self._found:
            found = self._visibility.find(node, token)
            if found is None and (fallback := self._fallbacks.get(key)) is not None:
                replacement = self._replacement(token)
                found = self._bind(token, node, replacement or fallback, is_override=replacement is not None)
                self._late.append(found)
            self._found[key] = found
        return self._found[key]

    def visible(self, node: Node, token: ManyToken[Any]) -> list[Binding]:
        """What `node` sees under a token of many: its own, then what imports export, then global modules; aliases followed."""
        return self._visibility.find_many(node, token)

    def is_exported(self, binding: Binding) -> bool:
        """Whether its module exports it under its token."""
        return self._visibility.is_exported(binding)

    def is_job(self, token: object) -> bool:
        """Whether a token means the current job: `JOB_REF`, or one of the types that the layer above named, parametrised or not."""
        return token is JOB_REF or token in self._job_types or get_origin(token) in self._job_types

    def hints(self, token: object, node: Node) -> tuple[str, ...]:
        """What could be done about a token that `node` can't see."""
        return self._hints.for_missing(token, node)

    def link_class(self, node: Node, cls: type) -> Binding:
        """A transient binding of a class that no module provides, linked as if `node` did. Raises GraphErrors."""
        provider = ClassProvider(token=cls, cls=cls, scope=Scope.TRANSIENT)
        binding = Binding(cls, node, provider, Scope.TRANSIENT, Scope.TRANSIENT)
        known_errors, known_bindings = len(self.errors), len(self.bindings)
        self._link(binding)
        found = self.errors[known_errors:]
        del self.errors[known_errors:]
        if found:
            raise GraphErrors(found)
        for each in (*self.bindings[known_bindings:], binding):  # collectors of its lists come first
            each.needs_job = any(needs_job(edge) for edge in each.edges)
        return binding

    # ── dependencies ──────────────────────────────────────────────────────────────────────────────────────────

    def _follow(self, alias: Binding) -> None:
        seen = [alias]
        while isinstance(seen[-1].provider, AliasProvider):
            last, token = seen[-1], seen[-1].provider.target
            target = self._find_or_mock(last.node, token)
            if target is None:
                text = f"use_existing: {token_name(token)}"
                hints = self._hints.for_missing(token, last.node, alias.token, text)
                if last is alias:  # each alias reports its own target, not those behind it
                    name = f"alias {token_name(alias.token)}"
                    self.errors.append(UnresolvedDependency(name, last.node.name, (text,), (0,), hints, str(alias.place), last.node.path))
                return
            if target in seen:
                loop = seen[seen.index(target) :]
                if alias is min(loop, key=self.bindings.index):  # once for the whole loop
                    self.errors.append(CircularAlias([token_name(each.token) for each in loop], str(alias.place), alias.node.path))
                return
            seen.append(target)
        alias.alias_of = seen[-1]

    def _link(self, binding: Binding) -> None:
        signature = self._signature_of(binding)
        node = binding.node
        for problem in signature.problems:
            self.errors.append(
                UnreadableAnnotation(
                    binding.name,
                    problem.name,
                    problem.index,
                    problem.annotation,
                    problem.reason,
                    problem.hint,
                    str(binding.place),
                    node.path,
                )
            )
        edges: list[Edge] = []
        missing: list[Dependency] = []
        for dependency in signature.dependencies:
            edge = self._edge(binding, dependency)
            if edge is None:
                missing.append(dependency)
            else:
                edges.append(edge)
        binding.edges = tuple(edges)
        if missing:
            self._unresolved(binding, signature, missing)

    def _signature_of(self, binding: Binding) -> Signature:
        provider, node = binding.provider, binding.node
        if isinstance(provider, FactoryProvider):
            if provider.inject is None:
                own = () if provider.namespace is None else (provider.namespace,)
                return read_signature(provider.factory, (*own, *node.namespaces))
            if not accepts(provider.factory, len(provider.inject)):
                reason = f"its factory can't be called with the {len(provider.inject)} arguments that `inject` names"
                self._invalid(binding.token, node, provider, reason, "Name one token for each parameter.")
                return Signature()
            try:
                return Signature(read_inject_list(provider.inject))
            except ValueError as exc:
                self._invalid(binding.token, node, provider, str(exc), "Use a class, a Token, text, Lazy[...] or Inject(...).")
        elif isinstance(provider, ClassProvider):
            metadata = own_metadata(binding.cls, InjectableMetadata)
            own = () if metadata is None or metadata.namespace is None else (metadata.namespace,)
            return read_signature(provider.cls, (*own, *node.namespaces))
        return Signature()

    def _edge(self, binding: Binding, dependency: Dependency) -> Edge | None:
        token = dependency.token
        if self.is_job(token):
            return Edge(dependency, EdgeKind.JOB)
        if token is ModuleRef:
            return Edge(dependency, EdgeKind.MODULE_REF)
        if token is DiscoveryService:
            return Edge(dependency, EdgeKind.DISCOVERY)
        if token is INQUIRER:
            return Edge(dependency, EdgeKind.INQUIRER) if binding.declared_scope is Scope.TRANSIENT else None
        if (many := as_many(token)) is not None:
            found = self._collected(binding.node, many)
        elif is_builtin_type(token):
            found = None
        elif dependency.is_required:
            found = self._find_or_mock(binding.node, token)
        else:
            found = self.find(binding.node, token)
        if found is not None:
            target = target_of(found)
            # An alias whose target is missing has been reported; what depends on it would only repeat that.
            return Edge(dependency, EdgeKind.BINDING, target) if target is not None else Edge(dependency, EdgeKind.ABSENT)
        if dependency.is_required and token not in binding.node.refused:
            return None
        return Edge(dependency, EdgeKind.ABSENT)

    def _collected(self, node: Node, token: ManyToken[Any]) -> Binding | None:
        key = (node, token)
        if key not in self._collectors:
            members = self.visible(node, token)
            if not members:
                return None
            self._collectors[key] = collector(token, node, members)
            self.bindings.append(self._collectors[key])
        return self._collectors[key]

    def _find_or_mock(self, node: Node, token: object) -> Binding | None:
        found = self.find(node, token)
        if found is not None or self._overrides.mocker is None or self._is_linked:
            return found
        if token not in self._mocks:
            mock = self._overrides.mocker(token)
            if mock is None:
                return None
            self._mocks[token] = self._bind(token, self.nodes[0], ValueProvider(token=token, value=mock), is_override=True)
        return self._mocks[token]

    def _unresolved(self, binding: Binding, signature: Signature, missing: Iterable[Dependency]) -> None:
        texts = {each.index: each.text for each in signature.dependencies}
        texts.update({each.index: f"{each.name}: {each.annotation}" for each in signature.problems})
        hints: dict[str, None] = {}
        for dependency in missing:
            if dependency.token is INQUIRER:
                hints["INQUIRER is known to transient providers only: declare scope=Scope.TRANSIENT."] = None
            elif (many := as_many(dependency.token)) is not None:
                hints[nothing_under(many, self.by_token.get(many, ()))] = None
            else:
                found = self._hints.for_missing(dependency.token, binding.node, binding.token, dependency.text)
                hints.update(dict.fromkeys(found))
        self.errors.append(
            UnresolvedDependency(
                binding.name,
                binding.node.name,
                tuple(texts[index] for index in sorted(texts)),
                tuple(each.index for each in missing),
                tuple(hints),
                str(binding.place),
                binding.node.path,
            )
        )

    def _invalid(self, token: object, node: Node, provider: Provider, reason: str, hint: str) -> None:
        self.errors.append(InvalidProvider(token_name(token), node.name, reason, hint, str(provider.place), node.path))
