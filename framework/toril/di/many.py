"""Several values under one token: who provides them, who sees which, and what makes a list of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from toril.di.bindings import Binding, Edge, EdgeKind
from toril.di.providers import FactoryProvider, Scope
from toril.di.scanner import Node
from toril.di.signature import Dependency
from toril.di.tokens import ManyToken, Member, Token, token_name


class Members:
    """What stands under `ManyToken`s in each module, and in what it exports."""

    def __init__(self, everywhere: Mapping[object, Sequence[Binding]]) -> None:
        self._everywhere = everywhere
        self._own: dict[tuple[Node, object], list[Binding]] = {}
        self._exported: dict[tuple[Node, object], list[Binding]] = {}

    def add(self, binding: Binding) -> None:
        """Note a binding, if it is one of several."""
        if isinstance(binding.token, Member):
            self._own.setdefault((binding.node, binding.token.of), []).append(binding)

    def of(self, node: Node, token: object) -> list[Binding]:
        """What a module itself provides under a token."""
        return self._own.get((node, token), [])

    def export(self, node: Node, token: object) -> None:
        """Note that a module exports all that it provides under a token."""
        self._exported[node, token] = self.of(node, token)

    def visible(self, token: ManyToken[Any], own: Node, exporters: Iterable[Node]) -> list[Binding]:
        """What `own` sees, aliases followed, each once: its own first, then what `exporters` export."""
        found = self._everywhere.get(token, ()) if token.everywhere else [*self.of(own, token)]
        if not token.everywhere:
            found = [*found, *(binding for node in exporters for binding in self._exported.get((node, token), ()))]
        targets = (binding.alias_of if binding.is_alias else binding for binding in found)
        return list(dict.fromkeys(target for target in targets if target is not None))


def collector(token: ManyToken[Any], node: Node, members: Sequence[Binding]) -> Binding:
    """A transient binding that makes the list: each who asks gets one of its own, so nobody can change another's."""
    name = f"list[{token_name(token)}]"
    provider = FactoryProvider(token=Token[object](name), factory=_as_list, inject=(), scope=Scope.TRANSIENT, place=node.place)
    binding = Binding(provider.token, node, provider, Scope.TRANSIENT, Scope.TRANSIENT, is_hidden=True, is_list=True)
    binding.edges = tuple(Edge(_dependency(number, member), EdgeKind.BINDING, member) for number, member in enumerate(members))
    return binding


def _as_list(*values: object) -> list[object]:
    return list(values)


def _dependency(number: int, member: Binding) -> Dependency:
    return Dependency(name=f"[{number}]", index=number, token=member.token, text=f"[{number}]: {member.name}")


def nothing_under(token: ManyToken[Any], providers: Sequence[Binding]) -> str:
    """What the reader of an error can do whose module sees nothing under a token of many."""
    name = token_name(token)
    if providers:
        where = ", ".join(dict.fromkeys(each.node.name for each in providers))
        return f"{name} stands for what {where} provide{'s' if ',' not in where else ''}: import that, and export {name} there."
    return f"nothing is provided under {name}: write provide({name}, ...), or give the parameter the default () for an empty list."
