"""Random module graphs: what each module sees, and what it gets, is compared with a model of a few lines.

Classes, values, aliases, transient and job-scoped providers, forward references, overrides, re-exports, global, dynamic and mutually
importing modules occur in every mixture. Most lookups fail; those must fail in the model, too, and must all be reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toril.di import (
    ApplicationContext,
    Binding,
    ConflictingModules,
    DynamicModule,
    ForwardRef,
    Graph,
    GraphErrors,
    Inject,
    JobRef,
    Lazy,
    Overrides,
    Scope,
    UnresolvedDependency,
    build_graph,
    forward_ref,
    global_module,
    module,
    provide,
)

TOKENS = "abcdef"


@dataclass
class Spec:
    """One provider: its token, the tokens it asks for, and what kind it is."""

    token: str
    kind: str
    needs: list[str]


@dataclass
class ModuleSpec:
    """One module: numbers of modules it imports and passes on, its providers, and the tokens it exports."""

    number: int
    imports: list[int]
    passed_on: list[int]
    providers: list[Spec]
    exports: list[str]
    is_global: bool
    kind: str
    """A class of its own; or a dynamic module of one class that they share, a new object of one key at each import, or one object."""
    own: dict[str, Spec] = field(default_factory=dict[str, Spec])

    def __post_init__(self) -> None:
        self.own = {spec.token: spec for spec in self.providers}


@st.composite
def graphs(draw: st.DrawFn) -> list[ModuleSpec]:
    count = draw(st.integers(1, 5))
    modules: list[ModuleSpec] = []
    for number in range(count):
        others = [other for other in range(count) if other not in (0, number)]
        imports = draw(st.lists(st.sampled_from(others), unique=True, max_size=3)) if others else []
        if number + 1 < count and number + 1 not in imports:
            imports.insert(draw(st.integers(0, len(imports))), number + 1)  # so that every module is reached
        tokens = draw(st.lists(st.sampled_from(TOKENS), unique=True, min_size=1, max_size=4))
        kinds = st.sampled_from(["class", "class", "value", "alias", "transient", "job"])
        providers = [Spec(token, draw(kinds), []) for token in tokens]
        passed_on = [each for each in imports if draw(st.booleans())]
        exports = [token for token in tokens if draw(st.integers(0, 3))]
        is_global = number > 0 and draw(st.integers(0, 3)) == 0
        kind = draw(st.sampled_from(["static", "static", "keyed", "object"]))
        modules.append(ModuleSpec(number, imports, passed_on, providers, exports, is_global, kind))
    mostly_valid = draw(st.integers(0, 3)) > 0
    for spec in modules:
        for provider in spec.providers:
            draw_needs(draw, modules, spec.number, provider, mostly_valid=mostly_valid)
    return modules


def draw_needs(draw: st.DrawFn, modules: list[ModuleSpec], number: int, provider: Spec, *, mostly_valid: bool) -> None:
    """Only earlier letters: cycles have a test of their own, and would hide everything else here."""
    choice = [token for token in TOKENS if token < provider.token]
    if mostly_valid:
        choice = [token for token in choice if find(modules, number, token) is not None]
    if choice and provider.kind != "value":
        provider.needs = draw(st.lists(st.sampled_from(choice), unique=True, min_size=int(provider.kind == "alias"), max_size=3))
    elif provider.kind == "alias":
        provider.kind = "class"


# ── the model ─────────────────────────────────────────────────────────────────────────────────────────────────


def seen_through(modules: list[ModuleSpec], number: int, token: str) -> tuple[int, str] | None:
    """Depth first through what a module exports and passes on."""
    visited: set[int] = set()
    stack = [number]
    while stack:
        current = stack.pop()
        if current in visited:
            continue
        visited.add(current)
        if token in modules[current].exports:
            return current, token
        stack.extend(reversed(modules[current].passed_on))
    return None


def find(modules: list[ModuleSpec], number: int, token: str) -> tuple[int, str] | None:
    """Own, then imports in order, then global modules in the order of discovery."""
    if token in modules[number].own:
        return number, token
    for imported in modules[number].imports:
        if (found := seen_through(modules, imported, token)) is not None:
            return found
    for other in discovered(modules):
        if modules[other].is_global and other != number and (found := seen_through(modules, other, token)) is not None:
            return found
    return None


def discovered(modules: list[ModuleSpec]) -> list[int]:
    order: list[int] = []

    def visit(number: int) -> None:
        if number not in order:
            order.append(number)
            for imported in modules[number].imports:
                visit(imported)

    visit(0)
    return order


def target(modules: list[ModuleSpec], number: int, token: str, overridden: str | None) -> tuple[int, str] | None:
    """What a lookup ends at, aliases followed. Letters only fall, so there is no loop."""
    found = find(modules, number, token)
    while found is not None and token != overridden:
        spec = modules[found[0]].own[found[1]]
        if spec.kind != "alias" or spec.token == overridden:
            break
        found = find(modules, found[0], spec.needs[0])
    return found


# ── the real thing ────────────────────────────────────────────────────────────────────────────────────────────


def make_class(spec: Spec, number: int, *, forward: bool) -> type:
    def init(self: Any, **given: object) -> None:  # noqa: ANN401  # made at run time
        self.__dict__.update(given)

    names = {f"need_{token}": Annotated[object, later(token) if forward else Inject(token)] for token in spec.needs}
    lines = ", ".join(["self", *(f"{name}" for name in names)])
    namespace: dict[str, Any] = {"init": init}
    exec(f"def __init__({lines}): init(self, {', '.join(f'{name}={name}' for name in names)})", namespace)  # names from above
    function = namespace["__init__"]
    function.__annotations__ = dict(names)
    if spec.kind == "job":
        function = with_job(namespace, lines, function.__annotations__)
    return type(f"P{number}_{spec.token}", (), {"__init__": function})


def with_job(namespace: dict[str, Any], lines: str, annotations: dict[str, Any]) -> Any:  # noqa: ANN401  # a function
    names = ", ".join(f"{name}={name}" for name in annotations)
    exec(f"def __init__({lines}, job): init(self, {names}{', ' if names else ''}job=job)", namespace)  # names from above
    namespace["__init__"].__annotations__ = {**annotations, "job": JobRef}
    return namespace["__init__"]


def make_modules(modules: list[ModuleSpec], *, forward: bool) -> list[Callable[[], type | DynamicModule]]:
    """For each module what makes an import of it."""
    shared = module()(type("Shared", (), {}))
    made: list[Callable[[], type | DynamicModule]] = []
    for spec in modules:
        providers: list[object] = []
        for each in spec.providers:
            if each.kind == "value":
                providers.append(provide(each.token, use_value=(spec.number, each.token)))
            elif each.kind == "alias":
                providers.append(provide(each.token, use_existing=each.needs[0]))
            else:
                scope = Scope.TRANSIENT if each.kind == "transient" else None
                providers.append(provide(each.token, use_class=make_class(each, spec.number, forward=forward), scope=scope))
        lists: Lists = {
            "imports": [later_import(made, each) for each in spec.imports],
            "providers": providers,
            "exports": [*spec.exports, *(later_import(made, each) for each in spec.passed_on)],
        }
        made.append(make_static(spec, lists) if spec.kind == "static" else make_dynamic(spec, lists, shared))
    return made


class Lists(TypedDict):
    imports: list[ForwardRef]
    providers: list[object]
    exports: list[object]


def make_static(spec: ModuleSpec, lists: Lists) -> Callable[[], type]:
    cls = module(**lists)(type(f"M{spec.number}", (), {}))
    if spec.is_global:
        global_module(cls)
    return lambda: cls


def make_dynamic(spec: ModuleSpec, lists: Lists, shared: type) -> Callable[[], DynamicModule]:
    key = spec.number if spec.kind == "keyed" else None

    def make() -> DynamicModule:
        return DynamicModule(shared, **lists, name=f"M{spec.number}", is_global=spec.is_global, key=key, options=spec.number)

    one = make()
    return make if spec.kind == "keyed" else lambda: one


def later(value: object) -> ForwardRef:
    return forward_ref(lambda: value)


def later_import(made: list[Callable[[], type | DynamicModule]], index: int) -> ForwardRef:
    return forward_ref(lambda: made[index]())  # noqa: PLW0108  # the list is still growing


def missing_in_model(modules: list[ModuleSpec], overridden: str | None) -> set[tuple[int, str, str]]:
    """Module, token and need of everything that can't be resolved; for an alias, of the alias itself."""
    missing: set[tuple[int, str, str]] = set()
    for number in discovered(modules):
        for spec in modules[number].providers:
            if spec.token == overridden or spec.kind == "value":
                continue
            missing.update(
                (number, spec.token, need)
                for need in spec.needs[: 1 if spec.kind == "alias" else None]
                if find(modules, number, need) is None
            )
    return missing


@settings(max_examples=300, deadline=None)
@given(modules=graphs(), forward=st.booleans(), override=st.sampled_from([None, *TOKENS]))
def test_a_graph_links_exactly_what_the_model_says(modules: list[ModuleSpec], forward: bool, override: str | None) -> None:
    if not any(override in modules[number].own for number in discovered(modules)):
        override = None
    marker = object()
    overrides = Overrides(providers=[provide(override, use_value=marker)] if override else [])
    missing = missing_in_model(modules, override)
    root = make_modules(modules, forward=forward)[0]()
    if missing:
        with pytest.raises(GraphErrors) as found:
            build_graph(root, overrides=overrides)
        assert reported(found.value) == {(f"M{number}", f"{need!r}") for number, _, need in missing}
        return
    graph = build_graph(root, overrides=overrides)
    nodes = {node.name: node for node in graph.nodes}
    assert [node.name for node in graph.nodes] == [f"M{number}" for number in discovered(modules)]
    for number in discovered(modules):
        for token in TOKENS:
            expected = target(modules, number, token, override)
            binding = graph.find(nodes[f"M{number}"], token)
            assert (binding is None) == (expected is None)
            if binding is not None and expected is not None:
                assert (binding.node.name, binding.token) == (f"M{expected[0]}", expected[1])
    check_order(graph)
    check_scopes(graph)
    asyncio.run(check_instances(graph, marker if override else None))


def reported(found: GraphErrors) -> set[tuple[str, str]]:
    """Module and need of every parameter that the errors call missing; there is no other kind of error."""
    pairs: set[tuple[str, str]] = set()
    for error in found.errors:
        assert isinstance(error, UnresolvedDependency)
        pairs.update((error.module, error.parameters[index].partition(": ")[2]) for index in error.missing)
    return pairs


def check_order(graph: Graph) -> None:
    assert len(graph.order) == len(graph.bindings)
    for binding in graph.bindings:
        for edge in binding.edges:
            assert edge.target is None or edge.target.position < binding.position


def check_scopes(graph: Graph) -> None:
    """A binding needs the job exactly if a job-scoped one can be reached from it."""

    def reaches(binding: Binding) -> bool:
        return any(edge.target is None or reaches(edge.target) for edge in binding.edges)

    for binding in graph.bindings:
        assert binding.needs_job == reaches(binding)
        if binding.declared_scope is Scope.TRANSIENT:
            assert binding.scope is Scope.TRANSIENT
        else:
            assert binding.scope is (Scope.JOB if binding.needs_job else Scope.SINGLETON)


async def check_instances(graph: Graph, override: object) -> None:
    """In a job everything that isn't transient is shared, whichever way it is reached; two jobs share singletons only."""
    async with ApplicationContext(graph) as ctx:
        jobs: list[dict[Binding, object]] = []
        for job in ("one", "two"):
            made: dict[Binding, object] = {}
            async with ctx.job_scope(job) as scope:
                for binding in graph.bindings:
                    ref = ctx.select(binding.node.dynamic or binding.node.module)
                    remember(binding, await ref.resolve(binding.token), made, job)
                    plain = await scope.build(ctx.plan_for(binding))
                    remember(binding, plain, {} if not ctx.plan_for(binding).is_tracked else made, job)
            jobs.append(made)
        for binding, instance in jobs[0].items():
            assert (instance is jobs[1][binding]) == (binding.scope is Scope.SINGLETON)
            if override is not None and binding.is_override:
                assert instance is override


def remember(binding: Binding, instance: Any, made: dict[Binding, object], job: str) -> None:  # noqa: ANN401  # made at run time
    if binding.scope is not Scope.TRANSIENT:
        assert made.setdefault(binding, instance) is instance
    for edge in binding.edges:
        value = getattr(instance, edge.dependency.name)
        if edge.target is None:
            assert value == job
        else:
            remember(edge.target, value, made, job)


@dataclass(frozen=True)
class Configured:
    """An import of a module with options, beneath as many modules as `depth` says."""

    key: str
    option: int
    depth: int


@given(st.lists(st.builds(Configured, st.sampled_from("ab"), st.integers(0, 1), st.integers(0, 2)), max_size=6))
def test_one_key_is_one_module_and_other_options_are_an_error_wherever_they_stand(imports: list[Configured]) -> None:
    shared = module()(type("Shared", (), {}))

    def beneath(one: Configured) -> type | DynamicModule:
        found: type | DynamicModule = DynamicModule(
            shared, key=one.key, options=one.option, providers=[provide("option", use_value=one.option)], exports=["option"]
        )
        for _ in range(one.depth):
            found = module(imports=[found], exports=[found])(type("Between", (), {}))
        return found

    root = module(imports=[beneath(one) for one in imports])(type("Root", (), {}))
    first: dict[str, int] = {}
    expected = [one.key for one in imports if first.setdefault(one.key, one.option) != one.option]
    if expected:
        with pytest.raises(GraphErrors) as found:
            build_graph(root)
        assert [error.key.strip("'") for error in found.value.errors if isinstance(error, ConflictingModules)] == expected
        assert len(found.value.errors) == len(expected)
        return
    graph = build_graph(root)
    assert {node.dynamic.key: node.dynamic.options for node in graph.nodes if node.dynamic is not None} == first
    assert len(graph.find_all("option")) == len(first)


@settings(deadline=None)
@given(st.integers(2, 12), st.data())
def test_lazy_and_forward_refs_break_every_ring(size: int, data: st.DataObject) -> None:
    """A ring of classes with one edge broken starts, and going round it leads back to the same object."""
    broken = data.draw(st.integers(0, size - 1))
    lazily = data.draw(st.booleans())
    in_job = data.draw(st.booleans())
    classes: list[type[Any]] = [type(f"R{number}", (), {}) for number in range(size)]

    def make_init(number: int) -> Any:  # noqa: ANN401  # a function
        def init(self: Any, following: object, job: object = None) -> None:  # noqa: ANN401  # made at run time
            self.following = following

        following: Any = classes[(number + 1) % size]
        if number == broken:
            following = Lazy[following] if lazily else Annotated[following, forward_ref(lambda: classes[(number + 1) % size])]
        init.__annotations__ = {"following": following, "job": JobRef if in_job and number == 0 else object}
        return init

    for number, cls in enumerate(classes):
        cls.__init__ = make_init(number)
    root = module(providers=classes)(type("Root", (), {}))

    async def run() -> None:
        ctx = ApplicationContext(build_graph(DynamicModule(root)))
        async with ctx, ctx.job_scope("J") as scope:
            first: Any = await scope.resolve(classes[0])
            current, broken_one = first, await scope.resolve(classes[broken])
            for _ in range(size):
                current = current.following.get() if lazily and current is broken_one else current.following
            assert current is first

    asyncio.run(run())
