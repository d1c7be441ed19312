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
        'or use Annotated[str, Inject("SOME_TOKEN")], and add provide("SOME_TOKEN", use_value=...) to the providers of OrdersModule.\n'
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
    assert error.hints == (
        "another token named N is provided; tokens are compared by identity, so import that one instead of making a second.",
    )


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
    new = 'Annotated[str, Inject("SOME_TOKEN")], and add provide("SOME_TOKEN", use_value=...) to the providers of AppModule.'
    assert hint(*tokens) == hint() == new


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


TEXTS: dict[DIError, str] = {
    InvalidModule("X", "it is no module", "Decorate it.", "A -> B", "a.py:1"): """\
X (a.py:1): it is no module. Decorate it.
- module path: A -> B""",
    ConflictingModules("M", "'k'", "a.py:1", "b.py:2", ["url", "prefix"], ("A", "A -> B"), ("prefix='x'", "")): """\
M is imported twice with key 'k' and other options (url and prefix), and one of the two would be ignored:
  - a.py:1: prefix='x' (module path: A)
  - b.py:2 (module path: A -> B)
Configure it once: remove one of the two, or give both the same options.""",
    InvalidProvider("P", "M", "it is None", "Leave it out.", "a.py:1", "A -> M"): """\
provider P in M (a.py:1): it is None. Leave it out.
- module path: A -> M""",
    UnknownExport("M", "X", ["did you mean Y?"], "a.py:1", "A"): """\
M (a.py:1) exports X, but it is neither one of its providers nor one of its imported modules.
- did you mean Y?
- module path: A""",
    UnreadableAnnotation("C", "p", 0, "X", "it can't be read", "Import it.", "a.py:1", "A"): """\
can't read the argument 'p: X' at index [0] of C (a.py:1): it can't be read. Import it.
- module path: A""",
    UnresolvedDependency("C", "M", ["a: A", "b: B"], [1], ["did you mean D?"], "a.py:1", "A"): """\
can't resolve dependencies of C (A, ?) (a.py:1). Please make sure that the argument 'b: B' at index [1] is available in the M context.
- did you mean D?
- module path: A""",
    CircularAlias(["a", "b"], "a.py:1", "A"): """\
aliases lead back to themselves: a -> b -> a (a.py:1). Let one of them name a provider that makes an object.
- module path: A""",
    CircularDependency([("'a'", "M"), ("B", "M")], ["b", "inject[0]"], ["More is known."], ["a.py:1", "b.py:2"], "A -> M"): """\
circular dependency:
'a' (M, a.py:1)
  └─ b: B (M, b.py:2)
    └─ inject[0]: 'a'   <- back to the start
Break it on one edge: in 'a', say, by `b: Lazy[B]`, the safer way, read with `.get()` after `__init__`; \
or by `b: Annotated[B, forward_ref(lambda: B)]`, which leaves the uses as they are, but whose attributes are unset while `__init__` runs; \
or move the shared part into a third provider.
More is known.
- module path: A -> M""",
    CaptiveDependency("A", "M", ["A", "JobRef"], "it is declared singleton", ["ask for it lazily."], "a.py:1", "A -> M"): """\
A lives as long as the application, the current job only as long as it runs: A in M (a.py:1) depends on the job scope (A -> JobRef), \
but it is declared singleton.
- ask for it lazily.
- module path: A -> M""",
    UnknownOverride(
        "X", "module", ["Y", "Z"]
    ): "the module X can't be overridden, because the graph has no such module; did you mean Y or Z?",
    NotFound("X", "M", ["did you mean Y?"]): "nothing visible in M provides X\n- did you mean Y?",
    AmbiguousToken("X", ["A", "B"]): (
        "X is provided by several modules (A, B): say which with select(Module).get(...), or take all with get_all(...)."
    ),
    WrongScope("X", "is transient, so there is no single instance", "Use it."): "X is transient, so there is no single instance. Use it.",
    OutOfScope("X"): (
        "X is job-scoped, and there is no current job. Ask for it while a job runs, or open a scope: "
        "`async with ctx.job_scope(job) as scope: await scope.resolve(...)`."
    ),
    NotReady("X", "new", "created"): "X: the application context is new; this needs it to be created.",
    AwaitableValue("X", "M", "coroutine"): (
        "the factory of X in M returned a coroutine instead of an object. Declare the factory with `async def`, so that it is awaited "
        "before anything depends on it."
    ),
}
NESTED = GraphErrors([UnknownOverride("X", "module"), CircularAlias(["a"], "a.py:1", "A")])


@pytest.mark.parametrize("error", [*TEXTS, NESTED], ids=lambda error: type(error).__name__)
def test_every_error_can_be_pickled_with_all_that_it_tells(error: DIError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # our own
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.__dict__.keys() == error.__dict__.keys()


@pytest.mark.parametrize("error", TEXTS, ids=lambda error: type(error).__name__)
def test_every_error_says_what_where_and_what_to_do(error: DIError) -> None:
    assert str(error) == TEXTS[error]


def test_several_errors_are_numbered_with_their_classes() -> None:
    assert (
        str(NESTED)
        == """\
2 problems in the module graph (nothing was instantiated):

  1) [UnknownOverride] the module X can't be overridden, because the graph has no such module.

  2) [CircularAlias] aliases lead back to themselves: a -> a (a.py:1). Let one of them name a provider that makes an object.
     - module path: A"""
    )


def test_every_error_of_the_container_has_its_text_here() -> None:
    import toril.di.errors

    defined = {value for value in vars(toril.di.errors).values() if isinstance(value, type) and issubclass(value, DIError)}
    assert defined - {DIError, GraphErrors} == {type(error) for error in TEXTS}
