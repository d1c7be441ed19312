"""The module graph: built and checked as a whole before anything is instantiated.

`build_graph` scans the modules, applies overrides, links every parameter to what answers it, finds cycles, decides scopes and fixes the
order of creation. Everything that is wrong comes out together, in one `GraphErrors`.

**For layers above**, which know more than the container does (queues, processors, schedules):

- *Checks.* `build_graph(root, checks=[check])`, where `check(graph)` yields `DIError`s of its own; they are reported with all others.
  Checks run even when something else is wrong already: a binding whose parameters can't be resolved then has fewer edges.
- *Looking around.* `graph.bindings` lists everything that is provided (aliases apart): its `cls`, `token`, `node`, `scope` and `place`.
  `own_metadata(binding.cls, Kind)` finds decorated classes; `graph.find(node, token)` tells what a module sees; `graph.job_chain(binding)`
  tells whether making it needs the current job. At run time `ApplicationContext.instance_of(binding)` and `.plan_for(binding)` go on.
- *Tokens of their own.* Any hashable object with a `token_name` (as a rule a subclass of `Token`), asked for by a subclass of `Inject`. Its
  method `unresolved_hint(tokens)` may say what is near. Where the type of a parameter is the mistake, not its token, pass
  `advisers=[adviser]`: `adviser(token, tokens)` returns a sentence or None.
- *Providers of their own.* `companions=[companions]`, where `companions(binding, tokens)` yields what the same module then has besides,
  for that binding: a method of its class whose parameters are injected, say; a `Fallback` only if the module sees nothing under its
  token. Checked and scoped like all others, listed nowhere; `graph.find(binding.node, token)` finds it.
- *The job.* `job_types=[Job]` makes `job: Job[A, B]` mean the current job, as `job: JobRef` does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from toril.di.bindings import Binding, Edge, EdgeKind
from toril.di.errors import CircularDependency, DIError, GraphErrors, UnknownOverride
from toril.di.linking import Companions, Linker
from toril.di.module import DynamicModule
from toril.di.ordering import component_numbers, post_order, shortest_cycle, strongly_connected
from toril.di.overrides import NO_OVERRIDES, Overrides
from toril.di.places import Namespace
from toril.di.providers import ClassProvider, Scope
from toril.di.render import Adviser
from toril.di.scanner import ModuleScanner, Node
from toril.di.scopes import decide_scopes, job_chain
from toril.di.tokens import HintingToken, ManyToken, lazily, token_name
from toril.spelling import near


class Graph:
    """A module graph in which every dependency has its answer. Made by `build_graph`."""

    def __init__(self, nodes: Sequence[Node], linker: Linker) -> None:
        self.nodes = tuple(nodes)
        """All modules, the root first, in the order of discovery."""
        self.bindings = tuple(binding for binding in linker.bindings if not binding.is_alias)
        self.aliases = tuple(binding for binding in linker.bindings if binding.is_alias)
        self.by_token = linker.by_token
        self.warnings: list[str] = linker.warnings
        """What works, but perhaps not as meant. Whoever starts the application logs it."""
        self.order: tuple[Binding, ...] = ()
        """Bindings in the order of creation, which is also that of hooks at start, and reversed that at stop."""
        self._linker = linker

    @property
    def root(self) -> Node:
        """The module that everything else is imported from."""
        return self.nodes[0]

    def tokens(self) -> Collection[object]:
        """All tokens that some module provides."""
        return self.by_token.keys()

    def is_exported(self, binding: Binding) -> bool:
        """Whether the module lists it in its exports."""
        return self._linker.is_exported(binding)

    def find(self, node: Node, token: object) -> Binding | None:
        """What a module sees under a token, never an alias; None if nothing."""
        found = self._linker.find(node, token)
        return found.alias_of if found is not None and found.is_alias else found

    def visible(self, node: Node, token: ManyToken[Any]) -> list[Binding]:
        """What a module sees under a token of many, aliases followed."""
        return self._linker.visible(node, token)

    def link_class(self, node: Node, cls: type) -> Binding:
        """A binding, not part of the graph, for a class that is made as if the module provided it. Raises GraphErrors."""
        return self._linker.link_class(node, cls)

    def find_all(self, token: object) -> tuple[Binding, ...]:
        """What any module provides under a token, aliases followed, each once."""
        found = (each.alias_of if each.is_alias else each for each in self.by_token.get(token, ()))
        return tuple(dict.fromkeys(each for each in found if each is not None))

    def is_job(self, token: object) -> bool:
        """Whether a token means the current job."""
        return self._linker.is_job(token)

    def job_chain(self, binding: Binding) -> tuple[Binding, ...]:
        """How making `binding` comes to need the current job: from it to what asks for it. Empty if it can do without."""
        return job_chain(binding)

    def unresolved_hints(self, token: object, node: Node) -> tuple[str, ...]:
        """What could be done about a token that `node` can't see."""
        return self._linker.hints(token, node)

    def near_tokens(self, token: object) -> tuple[str, ...]:
        """What somebody may have meant by a token that no module provides."""
        if isinstance(token, HintingToken) and not isinstance(token, type) and (hint := token.unresolved_hint(self.by_token.keys())):
            return (hint,)
        close = near(token_name(token), [token_name(known) for known in self.by_token])
        return (f"did you mean {' or '.join(close)}?",) if close else ()

    def needs_tracking(self) -> bool:
        """Whether somebody can ask for a job's instances after the plan has made them: by Lazy, or by a ModuleRef."""
        for binding in self.bindings:
            for edge in binding.edges:
                if edge.kind is EdgeKind.MODULE_REF or (edge.is_lazy and edge.target is not None and edge.target.needs_job):
                    return True
        return False


Check: TypeAlias = Callable[[Graph], Iterable[DIError]]


def build_graph(
    root: type | DynamicModule,
    *,
    overrides: Overrides = NO_OVERRIDES,
    checks: Sequence[Check] = (),
    advisers: Sequence[Adviser] = (),
    companions: Sequence[Companions] = (),
    job_types: Collection[object] = (),
    namespace: Namespace | None = None,
) -> Graph:
    """Read the modules from `root` on, and check everything.

    Args:
        overrides: what a test replaces.
        checks: rules of layers above; see the module's docstring, also for `advisers`, `companions` and `job_types`.
        namespace: local names of the caller, in which annotations are looked up last (`caller_namespace`).

    Raises:
        GraphErrors: with every problem found.
    """
    scanner = ModuleScanner(overrides, namespace)
    scan = scanner.scan(root)
    errors = scan.errors
    if not scan.nodes:
        raise GraphErrors(errors)
    linker = Linker(scan.nodes, scanner, overrides, job_types, advisers, companions)
    linker.link()
    errors += linker.errors
    errors += _unknown_modules(overrides, scan.replaced, scan.nodes)
    graph = Graph(scan.nodes, linker)
    cycles = list(_cycles(graph.bindings))
    errors += cycles
    errors += decide_scopes(graph.bindings, graph.warnings)
    for check in checks:
        errors += check(graph)
    if errors:
        raise GraphErrors(errors)
    graph.order = creation_order(graph)
    return graph


# ── cycles ────────────────────────────────────────────────────────────────────────────────────────────────────


def _cycles(bindings: Sequence[Binding]) -> Iterator[CircularDependency]:
    """Mark the forward_ref edges that close a cycle as deferred; what then is still cyclic is an error."""
    number_of = {binding: number for number, binding in enumerate(bindings)}
    component = component_numbers([[number_of[target] for target in _needed(binding)] for binding in bindings])
    unusable: dict[int, list[str]] = {}
    for binding in bindings:
        for edge in _hard_edges(binding):
            target = edge.target
            if target is None or not edge.dependency.is_forward:
                continue
            if component[number_of[binding]] == component[number_of[target]]:
                reason = _why_not_deferrable(target)
                edge.is_deferred = reason is None
                if reason is not None:
                    unusable.setdefault(component[number_of[binding]], []).append(reason)
    edges = [[number_of[target] for target in _needed(binding)] for binding in bindings]
    for members in strongly_connected(edges):
        cycle = shortest_cycle(edges, members)
        if cycle:
            steps = [bindings[number] for number in cycle]
            hints = tuple(dict.fromkeys(unusable.get(component[cycle[0]], ())))
            named = [(step.name, step.node.name) for step in steps]
            places = [str(step.place) for step in steps]
            yield CircularDependency(named, _parameters_between(steps), hints, places, steps[0].node.path)


def _hard_edges(binding: Binding) -> Iterator[Edge]:
    return (edge for edge in binding.edges if edge.target is not None and not edge.is_lazy and not edge.is_deferred)


def _needed(binding: Binding) -> Iterator[Binding]:
    return (edge.target for edge in _hard_edges(binding) if edge.target is not None)


def _why_not_deferrable(target: Binding) -> str | None:
    """A forward_ref makes the object first and calls its `__init__` later, which only works with an ordinary class."""
    if not isinstance(target.provider, ClassProvider) or target.cls is None:
        reason = "a factory makes it, so it can't exist before its dependencies"
    elif target.declared_scope is Scope.TRANSIENT:
        reason = "it is transient, so there is no single object to hand over"
    elif getattr(target.cls, "__new__", None) is not object.__new__:
        reason = "its __new__ may need arguments"
    else:
        return None
    return f"forward_ref can't help with {target.name}: {reason}. Use {lazily(target.token)}."


def _parameters_between(steps: Sequence[Binding]) -> list[str]:
    names: list[str] = []
    for position, step in enumerate(steps):
        following = steps[(position + 1) % len(steps)]
        names.append(next(edge.dependency.name for edge in _hard_edges(step) if edge.target is following))
    return names


def with_needs(wanted: Iterable[Binding]) -> set[Binding]:
    """These, and all that must exist before them, what they look up later included."""
    found: set[Binding] = set()
    rest = list(wanted)
    while rest:
        binding = rest.pop()
        if binding in found:
            continue
        found.add(binding)
        rest += [edge.target for edge in binding.edges if edge.target is not None]
        rest += [binding.alias_of] if binding.alias_of is not None else []
    return found


# ── order ─────────────────────────────────────────────────────────────────────────────────────────────────────


def creation_order(graph: Graph) -> tuple[Binding, ...]:
    """Dependencies first; besides, and where that is possible, providers after the modules that theirs imports, and after global ones.

    Each module adds one vertex, its *entry*, which all its providers wait for and which waits for the imported modules' classes;
    a module's class waits for its providers. These wishes are dropped where they contradict each other (modules that import each other).
    """
    bindings, nodes = graph.bindings, graph.nodes
    number_of = {binding: number for number, binding in enumerate(bindings)}
    entry_of = {node: len(bindings) + number for number, node in enumerate(nodes)}
    class_of = {binding.node: number_of[binding] for binding in bindings if binding.is_module_class}
    hard = [[number_of[target] for target in _needed(binding)] for binding in bindings]
    hard.extend([] for _ in nodes)
    soft: list[list[int]] = [[] for _ in hard]
    beneath_globals = _import_closure([node for node in nodes if node.is_global])
    for node in nodes:
        soft[entry_of[node]].extend(class_of[imported] for imported in node.imports)
        if node not in beneath_globals:
            soft[entry_of[node]].extend(class_of[other] for other in nodes if other.is_global)
    for binding in bindings:
        number = number_of[binding]
        soft[number].append(entry_of[binding.node])
        if not binding.is_module_class:
            soft[class_of[binding.node]].append(number)
    component = component_numbers([one + other for one, other in zip(hard, soft, strict=True)])
    kept = [[needed for needed in soft[vertex] if component[needed] != component[vertex]] + hard[vertex] for vertex in range(len(hard))]
    order = tuple(bindings[vertex] for vertex in post_order(kept) if vertex < len(bindings))
    for position, binding in enumerate(order):
        binding.position = position
    return order


def _import_closure(nodes: Sequence[Node]) -> set[Node]:
    seen: set[Node] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(node.imports)
    return seen


def _unknown_modules(overrides: Overrides, replaced: set[object], nodes: Sequence[Node]) -> Iterator[UnknownOverride]:
    for key in overrides.modules:
        if key not in replaced:
            name = key.display_name if isinstance(key, DynamicModule) else token_name(key)
            yield UnknownOverride(name, "module", near(name, [node.name for node in nodes]))
