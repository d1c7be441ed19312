"""Which module sees what: its own providers, what its imports export and pass on, what global modules export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toril.di.bindings import Binding
from toril.di.errors import UnknownExport
from toril.di.many import Members
from toril.di.module import DynamicModule, is_module
from toril.di.providers import AliasProvider, ClassProvider, FactoryProvider, ValueProvider
from toril.di.scanner import ModuleScanner, Node
from toril.di.tokens import ForwardRef, ManyToken, plain_token, token_name
from toril.spelling import near


class Visibility:
    """Knows each module's bindings (`add`) and exports (`read_exports`), and looks tokens up.

    Args:
        scanner: tells which imports are one module, and what a test has put in their place.
        everywhere: all bindings by token; filled by whoever calls `add`.
    """

    def __init__(self, nodes: Sequence[Node], scanner: ModuleScanner, everywhere: Mapping[object, Sequence[Binding]]) -> None:
        self._nodes, self._scanner = nodes, scanner
        self._own: dict[Node, dict[object, Binding]] = {node: {} for node in nodes}
        self._exported: dict[Node, dict[object, Binding]] = {node: {} for node in nodes}
        self._re_exported: dict[Node, list[Node]] = {node: [] for node in nodes}
        self._closures: dict[Node, tuple[Node, ...]] = {}
        self._members = Members(everywhere)
        self._contested: list[tuple[Node, object, list[Binding]]] = []

    def add(self, binding: Binding) -> None:
        """Note what a module provides; of several under one token the first is found."""
        self._members.add(binding)
        self._own[binding.node].setdefault(binding.token, binding)

    def is_exported(self, binding: Binding) -> bool:
        """Whether its module exports it under its token."""
        return self._exported[binding.node].get(binding.token) is binding

    # ── looking up ────────────────────────────────────────────────────────────────────────────────────────────

    def find(self, node: Node, token: object) -> Binding | None:
        """What `node` sees: its own, else the first import's export, else a global module's. May be an alias."""
        own = self._own[node].get(token)
        if own is not None:
            return own
        of_imports = (each for imported in node.imports for each in self._closure(imported))
        candidates = [self._exported[each][token] for each in of_imports if token in self._exported[each]]
        if not candidates:
            global_nodes = (each for top in self._globals(node) for each in self._closure(top))
            candidates = [self._exported[each][token] for each in global_nodes if token in self._exported[each]]
        if not candidates:
            return None
        if len(candidates) > 1:
            self._contested.append((node, token, candidates))
        return candidates[0]

    def find_many(self, node: Node, token: ManyToken[Any]) -> list[Binding]:
        """All that `node` sees under a token of many: its own, then what imports export, then global modules; aliases followed."""
        sources = [*node.imports, *self._globals(node)]
        return self._members.visible(token, node, (each for source in sources for each in self._closure(source)))

    def contested(self) -> Iterator[str]:
        """Warnings about tokens that were found in several imports, each its own."""
        for node, token, (first, *rest) in self._contested:
            others = [other for other in rest if target_of(other) is not target_of(first)]
            if others:
                names = ", ".join(dict.fromkeys(other.node.name for other in others))
                yield f"{node.name} sees {token_name(token)} in several imports: it gets that of {first.node.name}, not that of {names}"

    def _globals(self, apart_from: Node) -> list[Node]:
        return [node for node in self._nodes if node.is_global and node is not apart_from]

    def _closure(self, node: Node) -> tuple[Node, ...]:
        """The node and all whose exports it passes on, in order; modules may pass on each other."""
        known = self._closures.get(node)
        if known is None:
            seen: dict[Node, None] = {}
            stack = [node]
            while stack:
                current = stack.pop()
                if current not in seen:
                    seen[current] = None
                    stack.extend(reversed(self._re_exported[current]))
            known = self._closures[node] = tuple(seen)
        return known

    # ── exports ───────────────────────────────────────────────────────────────────────────────────────────────

    def read_exports(self) -> list[UnknownExport]:
        """Note what all modules export, once their bindings are added; returns what can't be exported."""
        errors: list[UnknownExport] = []
        unknown: list[tuple[Node, object]] = []
        for node in self._nodes:
            for entry in node.exports:
                try:
                    export = self._plain(entry.resolve() if isinstance(entry, ForwardRef) else entry)
                except Exception as exc:  # noqa: BLE001  # a user's callable; reported with everything else
                    hint = f"its forward_ref raised {type(exc).__name__}: {exc}"
                    errors.append(UnknownExport(node.name, "forward_ref(...)", (hint,), str(node.place), node.path))
                    continue
                if not self._export(node, export):
                    unknown.append((node, export))
        holders = [(node, export, self._holders(node, export)) for node, export in unknown]  # only now: this needs all exports
        for node, export, imported in holders:
            errors.append(_unknown_export(node, export, imported))
            self._re_exported[node].extend(imported)  # as it was meant: what is missing for want of it would only repeat the error
        self._closures.clear()
        return errors

    def _plain(self, export: object) -> object:
        """The token, or the module, after a test's overrides."""
        if isinstance(export, ClassProvider | ValueProvider | FactoryProvider | AliasProvider):
            export = export.token
        export = self._scanner.replacement(export)
        return export if isinstance(export, DynamicModule) else plain_token(export)

    def _export(self, node: Node, export: object) -> bool:
        """Note it, and say whether it can be: it is provided or imported."""
        if not isinstance(export, DynamicModule):
            if members := self._members.of(node, export):
                self._members.export(node, export)
                self._exported[node].update((member.token, member) for member in members)
                return True
            own = self._own[node].get(export)
            if own is not None and not own.is_module_class:
                self._exported[node][export] = own
                return True
        passed_on = [each for each in node.imports if self._is_import(each, export)]
        self._re_exported[node].extend(each for each in passed_on if each not in self._re_exported[node])
        return bool(passed_on)

    def _is_import(self, imported: Node, export: object) -> bool:
        if isinstance(export, DynamicModule):
            return imported.dynamic is not None and self._scanner.key_of(imported.dynamic) == self._scanner.key_of(export)
        return export is imported.module

    def _holders(self, node: Node, export: object) -> list[Node]:
        """The imported modules that have it: one of them should have been exported."""
        return [other for other in node.imports if any(export in self._exported[each] for each in self._closure(other))]


def target_of(binding: Binding) -> Binding | None:
    """What it stands for: itself, or what an alias is a second name of; None of one that leads nowhere."""
    return binding.alias_of if binding.is_alias else binding


def _unknown_export(node: Node, export: object, holders: Sequence[Node]) -> UnknownExport:
    name = export.display_name if isinstance(export, DynamicModule) else token_name(export)
    if isinstance(export, DynamicModule) or is_module(export):
        hints = [f"{name} is a module: add it to the imports of {node.name}."]
    else:
        hints = [f"{name} comes from the imported {other.name}: export {other.name} instead." for other in holders]
        close = near(name, [token_name(token) for token in node.providers])
        if close:
            hints.append(f"did you mean {' or '.join(close)}?")
    return UnknownExport(node.name, name, tuple(hints), str(node.place), node.path)
