"""All that is wrong comes out at once, and reads well."""

from __future__ import annotations

import pickle
from typing import Annotated, Protocol

import pytest

from tests.unit.di.building import app, errors_of
from toril.di import (
    AmbiguousToken,
    AwaitableValue,
    CaptiveDependency,
    CircularAlias,
    CircularDependency,
    ConflictingModules,
    DIError,
    GraphErrors,
    Inject,
    InvalidModule,
    InvalidProvider,
    JobRef,
    NotFound,
    NotReady,
    OutOfScope,
    Scope,
    Token,
    UnknownExport,
    UnknownOverride,
    UnreadableAnnotation,
    UnresolvedDependency,
    WrongScope,
    build_graph,
    injectable,
    module,
    provide,
)
from toril.errors import ConfigurationError


class Dep: ...


class Sender(Protocol):
    def send(self) -> None: ...


class Queue: ...


class NeedsQueue:
    def __init__(self, dep: Dep, q: Queue, name: str) -> None: ...


class Loop1:
    def __init__(self, two: Loop2) -> None: ...


class Loop2:
    def __init__(self, one: Loop1) -> None: ...


class JobLog:
    def __init__(self, job: JobRef) -> None: ...


@injectable(scope=Scope.SINGLETON)
class Strict:
    def __init__(self, log: JobLog) -> None: ...


def test_row_21_every_problem_of_a_graph_is_reported_at_once_before_anything_is_created() -> None:
    @module(providers=[Dep, NeedsQueue, Loop1, Loop2, JobLog, Strict], exports=["zz"])
    class OrdersModule: ...

    with pytest.raises(GraphErrors) as caught:
        build_graph(app(imports=[OrdersModule]))
    assert [type(error) for error in caught.value.errors] == [UnknownExport, UnresolvedDependency, CircularDependency, CaptiveDependency]
    text = str(caught.value)
    assert text.startswith("4 problems in the module graph (nothing was instantiated):\n\n  1) [UnknownExport] OrdersModule (")
    assert "  2) [UnresolvedDependency] can't resolve dependencies of NeedsQueue (Dep, ?, ?) (tests/unit/di/test_errors.py:" in text
    assert (
        "Please make sure that the arguments 'q: Queue' at index [1], 'name: str' at index [2] are available in the OrdersModule context.\n"
        "     - no module provides Queue: add Queue to the providers of OrdersModule, or to those of a module that OrdersModule "
        "imports and that exports Queue.\n"
        "     - str is a builtin type, which is no token by itself: give the parameter a default "
        'or use Annotated[str, Inject("SOME_TOKEN")].\n'
        "     - module path: AppModule -> OrdersModule"
    ) in text
    assert isinstance(caught.value, ConfigurationError)


def test_a_class_of_the_same_name_is_recognised() -> None:
    other = type("Dep", (), {"__module__": "app.other"})

    class Uses:
        def __init__(self, dep: Dep) -> None: ...

    (error,) = errors_of(app(providers=[other, Uses]))
    assert isinstance(error, UnresolvedDependency)
    assert error.hints[0].startswith("another class named Dep is provided: app.other.Dep, while ")
    assert error.hints[0].endswith("test_errors.Dep is asked for. Is the same file imported under two names?")


def test_a_token_of_the_same_name_is_recognised() -> None:
    one, two = Token[int]("N"), Token[int]("N")

    class Uses:
        def __init__(self, n: Annotated[int, Inject(two)]) -> None: ...

    (error,) = errors_of(app(providers=[provide(one, use_value=1), Uses]))
    assert isinstance(error, UnresolvedDependency)
    assert "tokens are compared by identity" in error.hints[0]


def test_a_provided_subclass_is_offered_as_an_alias() -> None:
    class Child(Dep): ...

    class Uses:
        def __init__(self, dep: Dep) -> None: ...

    (error,) = errors_of(app(providers=[Child, Uses]))
    assert isinstance(error, UnresolvedDependency)
    assert error.hints == ("Child, a subclass of it, is provided: add provide(Dep, use_existing=Child).",)


def test_a_module_asked_for_as_a_dependency_is_explained() -> None:
    @module()
    class Other: ...

    class Uses:
        def __init__(self, other: Other) -> None: ...

    (error,) = errors_of(app(imports=[Other], providers=[Uses]))
    assert isinstance(error, UnresolvedDependency)
    assert error.hints == ("Other is a module; inject one of its exports, or ModuleRef.",)


def test_a_near_name_is_offered() -> None:
    class Uses:
        def __init__(self, url: Annotated[str, Inject("redis_ulr")]) -> None: ...

    (error,) = errors_of(app(providers=[provide("redis_url", use_value="x"), Uses]))
    assert isinstance(error, UnresolvedDependency)
    assert error.hints == (
        "did you mean 'redis_url'?",
        (
            "no module provides 'redis_ulr': add provide('redis_ulr', use_value=...) to the providers of AppModule, "
            "or to those of a module that AppModule imports and that exports 'redis_ulr'."
        ),
    )


def test_a_typed_token_is_offered_for_a_builtin_type_where_there_are_a_few() -> None:
    tokens = [Token[str](f"T{number}") for number in range(4)]
    others = [provide(Token[int]("N"), use_value=1), provide("url", use_value="x")]

    class Uses:
        def __init__(self, name: str) -> None: ...

    def hint(*offered: Token[str]) -> str:
        (error,) = errors_of(app(providers=[Uses, *others, *(provide(token, use_value="") for token in offered)]))
        assert isinstance(error, UnresolvedDependency)
        return error.hints[0].partition(" or use ")[2]

    assert hint(*tokens[:2]) == "Annotated[str, Inject(T0)] or Annotated[str, Inject(T1)]."
    assert hint(*tokens) == hint() == 'Annotated[str, Inject("SOME_TOKEN")].'


def test_the_asking_class_and_the_alias_itself_are_never_what_was_meant() -> None:
    class Mailers:
        def __init__(self, mailer: Annotated[object, Inject("Mailer")]) -> None: ...

    for providers in ([Mailers], [provide("Mailers", use_existing="Mailer")]):
        (error,) = errors_of(app(providers=providers))
        assert isinstance(error, UnresolvedDependency)
        (hint,) = error.hints
        assert hint.startswith("no module provides 'Mailer': add provide('Mailer', use_value=...) to the providers of AppModule")


def test_what_is_listed_and_can_not_be_made_is_reported_once() -> None:
    class Needs:
        def __init__(self, sender: Sender) -> None: ...

    @module(providers=[Sender, Needs])
    class Own: ...

    @module(providers=[Needs])
    class Other: ...

    refused, unresolved = errors_of(app(imports=[Own, Other]))
    assert isinstance(refused, InvalidProvider)
    assert isinstance(unresolved, UnresolvedDependency), "who would not see it anyhow is told"
    assert unresolved.module == "Other"
    assert unresolved.hints == (
        (
            "no module provides Sender: add provide(Sender, use_class=...) to the providers of Other, "
            "or to those of a module that Other imports and that exports Sender."
        ),
    )


EXAMPLES: list[DIError] = [
    InvalidModule("X", "reason", "hint", "A -> X", "a.py:1"),
    ConflictingModules("M", "'k'", "a.py:1", "b.py:2", ["providers"], ("A", "A -> B")),
    InvalidProvider("P", "M", "reason", "hint", "a.py:1", "A"),
    UnknownExport("M", "X", ["hint"], "a.py:1", "A"),
    UnreadableAnnotation("C", "p", 0, "X", "reason", "hint", "a.py:1", "A"),
    UnresolvedDependency("C", "M", ["a: A", "b: B"], [1], ["hint"], "a.py:1", "A"),
    CircularAlias(["a", "b"], "a.py:1"),
    CircularDependency([("A", "M"), ("B", "M")], ["b", "a"], ["hint"]),
    CaptiveDependency("A", "M", ["A", "B"], "reason", "a.py:1", "A"),
    UnknownOverride("X", "provider", ["Y"]),
    NotFound("X", "M", ["hint"]),
    AmbiguousToken("X", ["A", "B"]),
    WrongScope("X", "is transient", "Do this."),
    OutOfScope("X"),
    NotReady("X", "new", "created"),
    AwaitableValue("X", "M", "coroutine"),
]


@pytest.mark.parametrize("error", [*EXAMPLES, GraphErrors(EXAMPLES)], ids=lambda error: type(error).__name__)
def test_every_error_can_be_pickled_and_says_what_to_do(error: DIError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # our own
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.__dict__.keys() == error.__dict__.keys()


def test_every_error_of_the_container_has_an_example_here() -> None:
    import toril.di.errors

    defined = {value for value in vars(toril.di.errors).values() if isinstance(value, type) and issubclass(value, DIError)}
    assert defined - {DIError, GraphErrors} == {type(error) for error in EXAMPLES}
