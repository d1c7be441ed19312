"""From the root module to the nodes of the graph. Nothing is instantiated, and no user code runs except `forward_ref` callables."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast, get_origin

from toril.di.errors import ConflictingModules, DIError, InvalidModule, InvalidProvider
from toril.di.module import DynamicModule, is_module, module_metadata
from toril.di.overrides import NO_OVERRIDES, Overrides
from toril.di.places import Namespace, Place, place_of
from toril.di.providers import (
    AliasProvider,
    ClassProvider,
    FactoryProvider,
    Provider,
    ValueProvider,
    class_provider,
)
from toril.di.tokens import ForwardRef, ManyToken, Member, as_many, is_builtin_type, token_name
from toril.spelling import snake


@dataclass(eq=False, slots=True)
class Node:
    """One module of the graph: a class, or a class with the options of one `DynamicModule`."""

    module: type
    dynamic: DynamicModule | None
    name: str
    parent: Node | None
    """The module through which the scan came here first."""
    place: Place
    is_global: bool
    namespaces: tuple[Namespace, ...]
    imports: list[Node] = field(default_factory=list["Node"])
    providers: dict[object, Provider] = field(default_factory=dict[object, Provider])
    exports: tuple[object, ...] = ()
    refused: set[object] = field(default_factory=set[object])
    """What stands in its providers and can't be made, which has been reported: who asks for it would only repeat that."""

    @property
    def path(self) -> str:
        """The way from the root, `AppModule -> EmailModule`."""
        names: list[str] = []
        node: Node | None = self
        while node is not None:
            names.append(node.name)
            node = node.parent
        return " -> ".join(reversed(names))

    def __repr__(self) -> str:
        return f"<Node {self.name}>"


@dataclass(slots=True)
class Scan:
    """What a scan found. `nodes` are in the order of discovery, the root first."""

    nodes: list[Node]
    errors: list[DIError]
    replaced: set[object]
    """The keys of `Overrides.modules` that stood somewhere in imports."""


class ModuleScanner:
    """Walks imports depth first, with a stack of its own, so that a long chain of modules can't exhaust Python's."""

    def __init__(self, overrides: Overrides = NO_OVERRIDES, namespace: Namespace | None = None) -> None:
        self._overrides = overrides
        self._namespace = namespace
        self._by_key: dict[object, Node] = {}
        self._result = Scan([], [], set())

    def scan(self, root: object) -> Scan:
        """Find every module that `root` imports, directly or not; problems are gathered, not raised."""
        node = self._node_for(root, None)
        if node is None:
            return self._result
        stack: list[tuple[Node, Iterator[object]]] = [(node, self._imports_of(node))]
        while stack:
            importer, imports = stack[-1]
            entry = next(imports, _END)
            if entry is _END:
                stack.pop()
                continue
            known = len(self._result.nodes)
            imported = self._node_for(entry, importer)
            if imported is None:
                continue
            if imported not in importer.imports:
                importer.imports.append(imported)
            if len(self._result.nodes) > known:
                stack.append((imported, self._imports_of(imported)))
        return self._result

    def replacement(self, entry: object) -> object:
        """What stands for an import or export after the overrides of modules."""
        modules = self._overrides.modules
        for key in (entry, entry.module if isinstance(entry, DynamicModule) else None):
            if isinstance(key, type | DynamicModule) and key in modules:
                self._result.replaced.add(key)
                chosen = modules[key]
                return chosen.resolve() if isinstance(chosen, ForwardRef) else chosen
        return entry

    def key_of(self, entry: object) -> object:
        """What makes two imports the same node."""
        if isinstance(entry, DynamicModule):
            return (entry.module, "id", id(entry)) if entry.key is None else (entry.module, "key", entry.key)
        return entry

    # ── modules ───────────────────────────────────────────────────────────────────────────────────────────────

    def _node_for(self, entry: object, importer: Node | None) -> Node | None:
        if isinstance(entry, ForwardRef):
            try:
                entry = entry.resolve()
            except Exception as exc:  # noqa: BLE001  # a user's callable; reported with everything else
                self._invalid("forward_ref(...)", importer, f"its callable raised {type(exc).__name__}: {exc}", "Is the name right?")
                return None
        entry = self.replacement(entry)
        if not self._is_usable(entry, importer):
            return None
        key = self.key_of(entry)
        node = self._by_key.get(key)
        if node is None:
            node = self._by_key[key] = self._make_node(entry, importer)
            self._result.nodes.append(node)
        elif isinstance(entry, DynamicModule) and node.dynamic is not None and entry is not node.dynamic:
            self._check_same(node, node.dynamic, entry, importer)
        return node

    def _make_node(self, entry: object, importer: Node | None) -> Node:
        dynamic = entry if isinstance(entry, DynamicModule) else None
        cls = dynamic.module if dynamic is not None else entry
        assert isinstance(cls, type)  # _is_usable has seen to it
        metadata = module_metadata(cls)
        assert metadata is not None  # likewise
        spaces = (metadata.namespace, dynamic.namespace if dynamic else None, self._namespace)
        node = Node(
            module=cls,
            dynamic=dynamic,
            name=dynamic.display_name if dynamic else cls.__name__,
            parent=importer,
            place=dynamic.place if dynamic else metadata.place,
            is_global=metadata.is_global or (dynamic is not None and dynamic.is_global),
            namespaces=tuple(space for space in spaces if space is not None),
            exports=(*metadata.exports, *(dynamic.exports if dynamic else ())),
        )
        self._add_providers(node, metadata.providers)
        if dynamic is not None:
            self._add_providers(node, dynamic.providers)
        return node

    def _imports_of(self, node: Node) -> Iterator[object]:
        metadata = module_metadata(node.module)
        assert metadata is not None  # only modules become nodes
        return iter((*metadata.imports, *(node.dynamic.imports if node.dynamic else ())))

    def _check_same(self, node: Node, first: DynamicModule, second: DynamicModule, importer: Node | None) -> None:
        differing = first.differing_options(second)
        if differing:
            second_path = f"{importer.path} -> {second.display_name}" if importer else second.display_name
            places = (str(first.place), str(second.place))
            values = (first.shown_options(differing), second.shown_options(differing))
            error = ConflictingModules(node.module.__name__, repr(first.key), *places, differing, (node.path, second_path), values)
            self._result.errors.append(error)

    def _is_usable(self, entry: object, importer: Node | None) -> bool:
        cls = entry.module if isinstance(entry, DynamicModule) else entry
        if is_module(cls):
            return True
        name = token_name(cls)
        if cls is None:
            reason, hint = "it is None", "Two files import each other: write forward_ref(lambda: TheModule)."
        elif inspect.iscoroutine(cls):
            cls.close()
            name = getattr(cls, "__qualname__", name)
            reason, hint = "it is a coroutine, and imports are read synchronously", "Use a method that ends in `_async`, without `await`."
        elif isinstance(cls, type):
            reason, hint = (
                "it is no module",
                "Decorate it with @module(...) (a base class' decorator doesn't count), or put it into providers.",
            )
        elif isinstance(cls, ClassProvider | ValueProvider | FactoryProvider | AliasProvider):
            name, reason, hint = f"provide({token_name(cls.token)}, ...)", "it is a provider", "Put it into providers."
        elif is_module(type(cls)):
            name, reason, hint = type(cls).__name__, "it is an instance of a module", "Import the class itself."
        else:
            reason, hint = f"it is no module but of type {type(cls).__name__}", "Import module classes and DynamicModules."
        self._invalid(name, importer, reason, hint)
        return False

    def _invalid(self, name: str, importer: Node | None, reason: str, hint: str) -> None:
        where, path = ("", "") if importer is None else (f" in the imports of {importer.name}", importer.path)
        place = str(importer.place) if importer is not None else ""
        self._result.errors.append(InvalidModule(f"{name}{where}", reason, hint, path, place))

    # ── providers ─────────────────────────────────────────────────────────────────────────────────────────────

    def _add_providers(self, node: Node, entries: Iterable[object]) -> None:
        seen: dict[object, Provider] = {}
        for entry in entries:
            provider = self._provider_for(entry, node)
            if provider is None:
                continue
            if (many := as_many(provider.token)) is not None:
                self._add_member(node, many, provider)
                continue
            earlier = seen.get(provider.token)
            if earlier is not None and earlier != provider:
                reason = f"the same module provides it a second time, at {earlier.place}"
                self._bad_provider(token_name(provider.token), node, reason, "Keep one of the two.", provider.place)
                continue
            seen[provider.token] = node.providers[provider.token] = provider

    @staticmethod
    def _add_member(node: Node, token: ManyToken[Any], provider: Provider) -> None:
        others = [each for key, each in node.providers.items() if isinstance(key, Member) and key.of == token]
        if provider not in others:  # the same one twice is one, as everywhere
            node.providers[Member(token, len(others))] = provider

    def _provider_for(self, entry: object, node: Node) -> Provider | None:
        if isinstance(entry, ClassProvider | ValueProvider | FactoryProvider | AliasProvider):
            if isinstance(entry, ClassProvider) and not self._is_concrete(entry.cls, node, entry):
                return None
            return entry
        if isinstance(entry, type) or isinstance(get_origin(entry), type):
            return self._from_class(entry, node)
        name = token_name(entry)
        if isinstance(entry, Mapping):
            self._bad_mapping(cast("Mapping[object, object]", entry), node)
        elif isinstance(entry, list | tuple):
            inside = ", ".join(token_name(each) for each in cast("Sequence[object]", entry))
            kind = type(cast("object", entry)).__name__
            self._bad_provider(name, node, f"it is a {kind} inside of the list", f"Write what is in it: providers=[{inside}].")
        elif entry is None:
            self._bad_provider("None", node, "it is None", "Two files import each other: move what both need into a third.")
        elif isinstance(entry, DynamicModule):
            self._bad_provider(entry.display_name, node, "it is a module", "Put it into imports.", entry.place)
        elif inspect.isroutine(entry):
            hint = f"Write provide(TOKEN, use_factory={getattr(entry, '__name__', 'it')})."
            self._bad_provider(name, node, "it is a function, and its token is missing", hint, place_of(entry))
        else:
            cls = type(entry).__name__
            self._bad_provider(name, node, f"it is an instance of {cls}", f"Write provide({cls}, use_value=...).")
        return None

    def _from_class(self, entry: object, node: Node) -> Provider | None:
        cls = entry if isinstance(entry, type) else get_origin(entry)
        if is_module(cls):
            self._bad_provider(token_name(entry), node, "it is a module", "Put it into imports.", place_of(cls))
            return None
        if is_builtin_type(entry):
            hint = "Write provide(TOKEN, use_value=...)."
            self._bad_provider(token_name(entry), node, "it is a builtin type, which is no token by itself", hint)
            return None
        if isinstance(entry, type):
            provider = class_provider(entry)
        else:
            assert callable(entry)  # a parametrised class
            provider = ClassProvider(token=entry, cls=entry)
        return provider if self._is_concrete(entry, node, provider) else None

    def _is_concrete(self, cls: object, node: Node, provider: Provider) -> bool:
        cls = get_origin(cls) or cls
        if not isinstance(cls, type):
            return True
        if inspect.isabstract(cls):
            missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
            reason = f"{cls.__name__} is abstract ({missing} not defined)"
        elif getattr(cls, "_is_protocol", False):
            reason = f"{cls.__name__} is a Protocol"
        else:
            return True
        hint = f"Say what implements it: provide({token_name(provider.token)}, use_class=...)."
        self._bad_provider(token_name(provider.token), node, reason, hint, provider.place)
        node.refused.add(provider.token)
        return False

    def _bad_mapping(self, entry: Mapping[object, object], node: Node) -> None:
        """A provider as Nest writes it. What it gives is shown only where it can't be a secret."""
        token = token_name(entry.get("provide", "X"))
        given = {snake(str(key)): value for key, value in entry.items() if key != "provide"} or {"use_value": ...}
        shown = {key: str(value) if isinstance(value, int | float) else getattr(value, "__name__", "…") for key, value in given.items()}
        written = f"provide({token}, {', '.join(f'{key}={value}' for key, value in shown.items())})"
        self._bad_provider(token, node, "it is a dict", f"Write {written}.")

    def _bad_provider(self, name: str, node: Node, reason: str, hint: str, place: Place | None = None) -> None:
        self._result.errors.append(InvalidProvider(name, node.name, reason, hint, str(place or node.place), node.path))


_END = object()
