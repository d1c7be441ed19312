"""Reading annotations: everything that makes them hard to read, and what is said when they can't be."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Annotated, Any, Optional, Union

import pytest

from tests.unit.di.building import app, context_of, only_error
from tests.unit.di.inherited import Inherited, Local
from toril.di import DynamicModule, Inject, Lazy, UnreadableAnnotation, UnresolvedDependency, build_graph, injectable, module, provide
from toril.di.signature import Dependency, read_signature

if TYPE_CHECKING:
    from collections.abc import Sequence as OnlyForCheckers


class Log: ...


class Other: ...


def dependencies(target: Any) -> list[Dependency]:  # noqa: ANN401  # anything callable
    signature = read_signature(target, [])
    assert signature.problems == ()
    return list(signature.dependencies)


def test_text_inside_text_is_read_until_it_is_no_text() -> None:
    def make(log: "Log", maybe: Optional["Log"], lazy: "Lazy['Log']") -> None: ...  # noqa: UP037, UP045  # what is tested

    log, maybe, lazy = dependencies(make)
    assert log.token is maybe.token is lazy.token is Log
    assert (log.is_optional, maybe.is_optional, lazy.is_lazy) == (False, True, True)


def test_optional_annotated_and_lazy_nest_in_any_order() -> None:
    def make(
        a: Annotated[Log | None, "a comment"],
        b: Annotated[Log, Inject("b")] | None,
        c: Annotated[Lazy[Log] | None, Inject("c")],
        d: Lazy[Annotated[Log, Inject("d")]],
        e: Union[None, Log],  # noqa: UP007  # what is tested
    ) -> None: ...

    found = {each.name: (each.token, each.is_optional, each.is_lazy) for each in dependencies(make)}
    assert found == {
        "a": (Log, True, False),
        "b": ("b", True, False),
        "c": ("c", True, True),
        "d": ("d", False, True),
        "e": (Log, True, False),
    }


def test_row_06_a_mark_may_stand_as_default_value() -> None:
    def make(log: Log = Inject("log"), untyped=Inject("x")) -> None: ...  # type: ignore[no-untyped-def, assignment]  # noqa: B008  # pyright: ignore[reportMissingParameterType, reportArgumentType]  # as in Nest

    assert [(each.token, each.has_default) for each in dependencies(make)] == [("log", False), ("x", False)]


def test_variadic_parameters_are_nobodys_dependency() -> None:
    def make(log: Log, *args: int, key: Other, **kwargs: int) -> None: ...

    assert [(each.name, each.is_keyword) for each in dependencies(make)] == [("log", False), ("key", True)]


def test_an_inherited_constructor_is_read_in_the_file_that_defines_it() -> None:
    """`Local` there is another class than any of that name here."""
    assert [each.token for each in dependencies(Inherited)] == [Local]

    class Child(Inherited): ...

    assert [each.token for each in dependencies(Child)] == [Local]


def test_one_parameter_that_can_not_be_read_does_not_hide_the_others() -> None:
    class Uses:
        def __init__(self, log: Log, hidden: OnlyForCheckers[int], more: Other) -> None: ...

    signature = read_signature(Uses, [])
    assert [each.token for each in signature.dependencies] == [Log, Other]
    error = only_error(app(providers=[Log, Other, Uses]), UnreadableAnnotation)
    assert (error.consumer, error.parameter, error.index, error.annotation) == ("Uses", "hidden", 1, "OnlyForCheckers[int]")
    assert "Import OnlyForCheckers for real, not under TYPE_CHECKING" in error.hint
    assert "test_signature.py:" in error.place


def untyped(text: str, head: str = "") -> Any:  # noqa: ANN401  # written without annotations, as a user without a type checker does
    namespace: dict[str, Any] = {}
    exec(f"{head}\n{text}", namespace)  # ours
    return namespace["make"]


def test_a_parameter_without_annotation_is_unreadable_unless_it_has_a_default() -> None:
    error = only_error(app(providers=[provide("n", use_factory=untyped("def make(x): return 1"))]), UnreadableAnnotation)
    assert (error.parameter, error.annotation, error.reason) == ("x", "", "it has no annotation")
    assert error.hint == "Annotate it with a type, or with Annotated[T, Inject(TOKEN)]."
    build_graph(app(providers=[provide("n", use_factory=untyped("def make(x=5): return x"))]))


def test_a_union_of_two_classes_is_no_token() -> None:
    def make(x: Log | Other) -> int:
        return 1

    error = only_error(app(providers=[Log, provide("n", use_factory=make)]), UnreadableAnnotation)
    assert error.reason == "Log | Other is no class and no token"
    assert error.hint == "Say which provider is meant: Annotated[T, Inject(TOKEN)]."


def test_an_annotation_that_raises_is_reported_with_what_it_raised() -> None:
    factory = untyped("def make(x: 1 / 0): return 1", "from __future__ import annotations")
    error = only_error(app(providers=[provide("n", use_factory=factory)]), UnreadableAnnotation)
    assert error.reason == "evaluating it raised ZeroDivisionError: division by zero"
    assert error.hint == "An injected parameter needs a type that can be read at run time."


def test_a_builtin_type_is_no_token() -> None:
    class Uses:
        def __init__(self, name: str, tags: list[str]) -> None: ...

    error = only_error(app(providers=[Uses]), UnresolvedDependency)
    assert error.missing == (0, 1)
    assert error.hints[0] == (
        'str is a builtin type, which is no token by itself: give the parameter a default or use Annotated[str, Inject("SOME_TOKEN")], '
        'and add provide("SOME_TOKEN", use_value=...) to the providers of AppModule.'
    )


async def test_row_07_optional_gives_none_and_a_default_its_value_where_nothing_is_provided() -> None:
    class Uses:
        def __init__(self, log: Log | None, count: int = 4, *, other: Annotated[object, Inject("o")] = "default") -> None:
            self.found = (log, count, other)

    async with context_of(Uses) as ctx:
        assert ctx.get(Uses).found == (None, 4, "default")
    async with context_of(Uses, Log, provide("o", use_value=1)) as ctx:
        assert ctx.get(Uses).found == (ctx.get(Log), 4, 1)


async def test_a_skipped_default_in_the_middle_does_not_shift_what_follows() -> None:
    class Uses:
        def __init__(self, count: int = 4, log: Log | None = None) -> None:
            self.found = (count, log)

    async with context_of(Uses, Log) as ctx:
        assert ctx.get(Uses).found == (4, ctx.get(Log))


async def test_local_classes_see_each_other() -> None:
    class A: ...

    class B:
        def __init__(self, a: A) -> None:
            self.a = a

    async with context_of(A, B) as ctx:
        assert ctx.get(B).a is ctx.get(A)


def local_classes() -> list[type]:
    @injectable()
    class Log: ...  # hides the global of the same name

    @injectable()
    class Uses:
        def __init__(self, log: Log) -> None: ...

    return [Log, Uses]


def test_injectable_lets_a_local_class_be_read_from_elsewhere_and_local_names_hide_global_ones() -> None:
    log, uses = local_classes()
    graph = build_graph(app(providers=[log, uses, provide("other", use_class=Other)]))
    binding = graph.find(graph.root, uses)
    assert binding is not None
    assert [edge.dependency.token for edge in binding.edges] == [log]


def test_what_is_defined_after_the_decorator_ran_is_not_in_its_snapshot() -> None:
    @injectable()
    class Uses:
        def __init__(self, later: Later) -> None: ...  # what is tested

    class Later: ...

    def elsewhere() -> UnreadableAnnotation:  # does not see this function's names
        return only_error(DynamicModule(module(providers=[Uses])(type("Root", (), {}))), UnreadableAnnotation)

    error = elsewhere()
    assert error.reason == "the name 'Later' can't be found at run time"
    assert "define it above the decorator" in error.hint
    build_graph(app(providers=[Uses, Later]))  # seen by whoever makes the root here


def test_names_of_another_function_never_hide_what_the_class_itself_sees() -> None:
    class Local: ...  # pyright: ignore[reportUnusedClass]  # found in this frame, but not what Inherited means

    error = only_error(app(providers=[Inherited]), UnresolvedDependency)
    assert error.parameters == ("local: Local",)
    from tests.unit.di import inherited

    build_graph(app(providers=[Inherited, inherited.Local]))


def test_injectable_is_not_inherited() -> None:
    from toril.di import Scope

    @injectable(scope=Scope.TRANSIENT)
    class Base: ...

    class Child(Base): ...

    graph = build_graph(app(providers=[Base, Child]))
    assert [binding.scope for binding in graph.bindings[:2]] == [Scope.TRANSIENT, Scope.SINGLETON]


@pytest.mark.parametrize("target", [dict, typing.NamedTuple("Point", []), object, Exception])
def test_what_is_written_in_c_or_has_no_constructor_has_no_dependencies(target: Any) -> None:  # noqa: ANN401  # anything callable
    assert dependencies(target) == []


def test_a_class_with_new_only_is_read_by_it() -> None:
    class Made:
        def __new__(cls, log: Log) -> Made:
            return object.__new__(cls)

    assert [each.token for each in dependencies(Made)] == [Log]
