"""Constructors that need each other: found, drawn, and broken on purpose."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import pytest

from tests.unit.di.building import app, context_of, errors_of, names, only_error
from toril.di import CircularDependency, JobRef, Lazy, NotReady, Scope, build_graph, forward_ref, injectable, module, provide


def same(value: object) -> object:
    return value


class C1:
    def __init__(self, c2: C2) -> None: ...


class C2:
    def __init__(self, c3: C3) -> None: ...


class C3:
    def __init__(self, c1: C1) -> None: ...


def test_a_cycle_is_drawn_from_start_to_start() -> None:
    error = only_error(app(providers=[C1, C2, C3]), CircularDependency)
    assert error.steps == (("C1", "AppModule"), ("C2", "AppModule"), ("C3", "AppModule"))
    assert error.parameters == ("c2", "c3", "c1")
    places = [f"tests/unit/di/test_cycles.py:{inspect.getsourcelines(cls)[1]}" for cls in (C1, C2, C3)]
    assert error.places == tuple(places)
    assert str(error) == (
        "circular dependency:\n"
        f"C1 (AppModule, {places[0]})\n"
        f"  └─ c2: C2 (AppModule, {places[1]})\n"
        f"    └─ c3: C3 (AppModule, {places[2]})\n"
        "      └─ c1: C1   <- back to the start\n"
        "Break it on one edge: in C3, say, by `c1: Lazy[C1]`, the safer way, read with `.get()` after `__init__`; "
        "or by `c1: Annotated[C1, forward_ref(lambda: C1)]`, which leaves the uses as they are, but whose attributes are unset while "
        "`__init__` runs; "
        "or move the shared part into a third provider.\n"
        "- module path: AppModule"
    )


def test_the_shortest_cycle_of_a_knot_is_shown() -> None:
    class Hub:
        def __init__(self, one: C1, near: Near) -> None: ...

    class Near:
        def __init__(self, hub: Hub) -> None: ...

    error = only_error(app(providers=[C1, C2, provide(C3, use_factory=same, inject=[Hub]), Hub, Near]), CircularDependency)
    assert {step[0] for step in error.steps} == {"Hub", "Near"}


def test_something_that_needs_itself_is_a_cycle_of_one() -> None:
    class Self:
        def __init__(self, again: Self) -> None: ...

    assert only_error(app(providers=[Self]), CircularDependency).steps == (("Self", "AppModule"),)


def test_where_no_edge_is_a_parameter_that_asks_for_a_class_the_way_out_is_told_in_general() -> None:
    factories = [provide("a", use_factory=same, inject=["b"]), provide("b", use_factory=same, inject=["a"])]
    error = only_error(app(providers=factories), CircularDependency)
    assert error.parameters == ("inject[0]", "inject[0]")
    assert "Break it on one edge: inject Lazy[X], the safer way, read with" in str(error)
    assert "; or Annotated[X, forward_ref(lambda: X)], which leaves" in str(error)


def test_two_separate_cycles_are_two_errors() -> None:
    class X:
        def __init__(self, x: X) -> None: ...

    assert [type(error) for error in errors_of(app(providers=[C1, C2, C3, X]))] == [CircularDependency] * 2


class Parent:
    def __init__(self, child: Child) -> None:
        self.child = child


class Child:
    def __init__(self, parent: Annotated[Parent, forward_ref(lambda: Parent)]) -> None:
        self.parent = parent
        self.parent_was_ready = hasattr(parent, "child")


async def test_row_12_a_forward_ref_on_one_side_keeps_identity() -> None:
    async with context_of(Parent, Child) as ctx:
        parent, child = ctx.get(Parent), ctx.get(Child)
        assert parent.child is child
        assert child.parent is parent
        assert not child.parent_was_ready, "its attributes are unset while the partner's constructor runs"
        assert ctx.container.app_module.parent_() is parent


async def test_a_forward_ref_that_closes_no_cycle_is_an_ordinary_edge() -> None:
    class Free: ...

    class Uses:
        def __init__(self, free: Annotated[Free, forward_ref(lambda: Free)]) -> None:
            self.free = free

    ctx = context_of(Uses, Free)
    assert names(ctx.graph)[:2] == ["Free", "Uses"]
    async with ctx:
        assert ctx.get(Uses).free is ctx.get(Free)


async def test_forward_refs_work_between_job_scoped_classes() -> None:
    @injectable(scope=Scope.JOB)
    class Left:
        def __init__(self, right: Annotated[Right, forward_ref(lambda: Right)], job: JobRef) -> None:
            self.right, self.job = right, job

    @injectable(scope=Scope.JOB)
    class Right:
        def __init__(self, left: Left) -> None:
            self.left = left

    for tracked in (False, True):
        ctx = context_of(Left, Right)
        async with ctx, ctx.job_scope("J") as scope:
            if tracked:
                left = await scope.resolve(Left)
            else:
                binding = ctx.graph.find(ctx.graph.root, Left)
                assert binding is not None
                left = await scope.build(ctx.plan_for(binding))
            assert left.right.left is left
            assert left.job == "J"


def test_a_factory_can_not_be_a_forward_refs_target() -> None:
    class Uses:
        def __init__(self, made: Annotated[object, forward_ref(lambda: "made")]) -> None: ...

    error = only_error(app(providers=[Uses, provide("made", use_factory=same, inject=[Uses])]), CircularDependency)
    assert error.hints == (
        (
            "forward_ref can't help with 'made': a factory makes it, so it can't exist before its dependencies. "
            "Use Annotated[Lazy[...], Inject('made')]."
        ),
    )


def test_a_transient_class_can_not_be_a_forward_refs_target() -> None:
    @injectable(scope=Scope.TRANSIENT)
    class Brief:
        def __init__(self, uses: Uses) -> None: ...

    class Uses:
        def __init__(self, brief: Annotated[Brief, forward_ref(lambda: Brief)]) -> None: ...

    (hint,) = only_error(app(providers=[Brief, Uses]), CircularDependency).hints
    assert hint == "forward_ref can't help with Brief: it is transient, so there is no single object to hand over. Use Lazy[Brief]."


def test_a_class_with_its_own_new_can_not_be_a_forward_refs_target() -> None:
    class Odd:
        def __new__(cls, uses: Uses) -> Odd:
            return object.__new__(cls)

    class Uses:
        def __init__(self, odd: Annotated[Odd, forward_ref(lambda: Odd)]) -> None: ...

    (hint,) = only_error(app(providers=[Odd, Uses]), CircularDependency).hints
    assert hint == "forward_ref can't help with Odd: its __new__ may need arguments. Use Lazy[Odd]."


class LazyParent:
    def __init__(self, child: LazyChild) -> None:
        self.child = child


class LazyChild:
    def __init__(self, parent: Lazy[LazyParent]) -> None:
        self.parent = parent
        try:
            parent.get()
        except NotReady as exc:
            self.too_early = exc


async def test_row_12_lazy_breaks_a_cycle_and_says_when_it_is_asked_too_early() -> None:
    async with context_of(LazyParent, LazyChild) as ctx:
        child = ctx.get(LazyChild)
        assert child.parent.get() is ctx.get(LazyParent) is await child.parent.resolve()
        assert child.too_early.state == "creating"
        assert repr(child.parent) == "Lazy[LazyParent]"
    with pytest.raises(NotReady):
        child.parent.get()


def chain(count: int) -> list[type[Any]]:
    classes: list[type[Any]] = []
    for number in range(count):

        def init(self: object, before: object = None) -> None:
            self.before = before  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]  # made at run time

        if classes:
            init.__defaults__ = None
            init.__annotations__ = {"before": classes[-1]}
        classes.append(type(f"N{number}", (), {"__init__": init}))
    return classes


async def test_a_chain_of_a_thousand_providers_starts() -> None:
    classes = chain(1_000)
    async with context_of(*reversed(classes)) as ctx:
        last: Any = ctx.get(classes[-1])
        assert last.before is ctx.get(classes[-2])


async def test_a_chain_of_a_thousand_job_scoped_providers_is_one_flat_plan() -> None:
    classes = chain(1_000)
    injectable(scope=Scope.JOB)(classes[0])
    ctx = context_of(*classes)
    async with ctx, ctx.job_scope("J") as scope:
        last: Any = await scope.resolve(classes[-1])
        assert last.before is await scope.resolve(classes[-2])


async def test_a_chain_of_three_hundred_transient_providers_is_built_for_its_consumer() -> None:
    classes = chain(300)
    for cls in classes:
        injectable(scope=Scope.TRANSIENT)(cls)
    ctx = context_of(*classes)
    async with ctx:
        made: list[object] = [await ctx.resolve(classes[-1]) for _ in range(2)]
        assert made[0] is not made[1]


def test_a_ring_of_a_thousand_providers_is_found() -> None:
    classes = chain(1_000)
    first: Any = classes[0]

    def init(self: object, last: object) -> None: ...

    init.__annotations__ = {"last": classes[-1]}
    first.__init__ = init
    error = only_error(app(providers=classes), CircularDependency)
    assert len(error.steps) == 1_000


async def test_providers_come_after_the_modules_that_theirs_imports() -> None:
    class Late: ...

    class Early: ...

    @module(providers=[Late])
    class Imported: ...

    @module(imports=[Imported], providers=[Early])
    class Importing: ...

    assert names(build_graph(app(imports=[Importing]))) == ["Late", "Imported", "Early", "Importing", "AppModule"]


def test_modules_that_import_each_other_still_get_an_order() -> None:
    @module(imports=[forward_ref(lambda: Right)], providers=[C4])
    class Left: ...

    @module(imports=[Left], providers=[provide("x", use_value=1)], exports=["x"])
    class Right: ...

    order = names(build_graph(app(imports=[Left])))
    assert set(order) == {"C4", "'x'", "Left", "Right", "AppModule"}
    assert order.index("'x'") < order.index("C4")


class C4:
    def __init__(self, x: Annotated[int, "comment"] = 0, *, y: Annotated[object, forward_ref(lambda: "x")]) -> None: ...
