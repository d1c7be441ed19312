"""What a handler may take and return, and what is found to be wrong with it before anything is created."""

from __future__ import annotations

import pickle
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, Protocol, TypeVar, cast

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from toril import (
    Inject,
    InjectQueue,
    Job,
    JobDef,
    JobLogger,
    Lazy,
    Queue,
    QueueModule,
    Scope,
    Token,
    handler,
    injectable,
    module,
    processor,
    provide,
)
from toril import process as untyped_process
from toril.di import (
    INQUIRER,
    CaptiveDependency,
    CircularDependency,
    DIError,
    DynamicModule,
    Graph,
    GraphErrors,
    UnreadableAnnotation,
    UnresolvedDependency,
)
from toril.errors import ProcessorError
from toril.modules.application_graph import graph_of
from toril.modules.errors import HandlerConflictError, InvalidProcessorError
from toril.queues.type_fit import fits
from toril.worker.signature import Given, read_handler

if TYPE_CHECKING:
    from decimal import Decimal as Money

ErrorT = TypeVar("ErrorT", bound=DIError)
MethodT = TypeVar("MethodT", bound=Callable[..., Any])


class Picture(BaseModel):
    width: int


class Photo(Picture):
    camera: str


class Size(BaseModel):
    pixels: int


RESIZE = JobDef[Picture, Size]("resize")


class Shop:
    """Something that is injected."""


def root(*providers: object, imports: Sequence[object] = ()) -> type | DynamicModule:
    @module()
    class AppModule: ...

    return DynamicModule(AppModule, imports=[QueueModule.register_queue("images"), *imports], providers=providers)


def errors_of(*providers: object, imports: Sequence[object] = ()) -> tuple[DIError, ...]:
    with pytest.raises(GraphErrors) as caught:
        graph_of(root(*providers, imports=imports))
    return caught.value.errors


def only(kind: type[ErrorT], *providers: object, imports: Sequence[object] = ()) -> ErrorT:
    (error,) = errors_of(*providers, imports=imports)
    assert isinstance(error, kind), str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    return error


def process(definition: Any) -> Callable[[MethodT], MethodT]:  # noqa: ANN401 -- most is wrong on purpose, and tests/typing tells what type checkers say
    decorate: Callable[[MethodT], MethodT] = cast("Any", untyped_process)(definition)
    return decorate


def handling(method: Callable[..., Any], definition: object = RESIZE) -> type:
    """A processor of which this is the only method; of a copy, since decorators take notes on a function."""
    like: Any = method
    copy = types.FunctionType(like.__code__, like.__globals__, like.__name__, like.__defaults__, like.__closure__)
    for attribute in ("__module__", "__qualname__", "__annotations__", "__kwdefaults__"):
        setattr(copy, attribute, getattr(like, attribute))
    return processor("images")(type("Images", (), {"run": process(definition)(copy)}))


# ── functions ─────────────────────────────────────────────────────────────────────────────────────────────────


async def no_annotation(job) -> None: ...  # type: ignore[no-untyped-def]  # pyright: ignore[reportUnknownParameterType, reportMissingParameterType]  # the case
async def any_job(job: Any) -> None: ...  # noqa: ANN401 -- the case
async def bare_job(job: Job) -> None: ...
async def typed_job(job: Job[Picture, Size]) -> Size: ...  # type: ignore[empty-body]  # never called
async def optional_job(job: Job[Picture, Size] | None) -> Size: ...  # type: ignore[empty-body]  # never called
async def data(picture: Picture) -> Size: ...  # type: ignore[empty-body]  # never called
async def data_and_job(picture: Picture, *, job: Job) -> Size: ...  # type: ignore[empty-body]  # never called
async def rest(*args: Any) -> None: ...  # noqa: ANN401 -- the case
def awaitable(picture: Picture) -> Awaitable[Size]: ...  # type: ignore[empty-body]  # never called
def coroutine(picture: Picture) -> Coroutine[Any, Any, Size]: ...  # type: ignore[empty-body]  # never called
def plain(number: int) -> list[int]: ...  # type: ignore[empty-body]  # never called


FUNCTIONS: list[Any] = [
    (no_annotation, {"job": Given.JOB}, (Any, type(None)), True),
    (any_job, {"job": Given.JOB}, (Any, type(None)), True),
    (bare_job, {"job": Given.JOB}, (Any, type(None)), True),
    (typed_job, {"job": Given.JOB}, (Picture, Size), True),
    (optional_job, {"job": Given.JOB}, (Picture, Size), True),
    (data, {"picture": Given.DATA}, (Picture, Size), True),
    (data_and_job, {"picture": Given.DATA, "job": Given.JOB}, (Picture, Size), True),
    (rest, {"args": Given.JOB}, (Any, type(None)), True),
    (awaitable, {"picture": Given.DATA}, (Picture, Size), True),
    (coroutine, {"picture": Given.DATA}, (Picture, Size), True),
    (plain, {"number": Given.DATA}, (int, list[int]), False),
]


@pytest.mark.parametrize(("call", "given", "hints", "is_async"), FUNCTIONS)
def test_the_first_parameter_is_the_job_or_its_data(call: Any, given: object, hints: object, is_async: bool) -> None:  # noqa: ANN401
    signature = read_handler(call)
    payload, result = signature.types()
    assert (signature.given, (payload.hint, result.hint), signature.is_async) == (given, hints, is_async)
    assert handler(call).is_async is is_async


ALONE: list[Any] = [no_annotation, any_job, bare_job, typed_job, rest]


@pytest.mark.parametrize("call", ALONE)
def test_a_function_that_takes_the_job_alone_is_called_as_it_is(call: Any) -> None:  # noqa: ANN401
    assert handler(call).call is call


def test_a_definition_says_what_it_says_and_leaves_the_rest_to_the_annotations() -> None:
    payload, result = read_handler(data).types(JobDef[Any, int]("n"))
    assert (payload.hint, result.hint) == (Picture, int)


def test_a_function_with_a_parameter_that_nothing_fills_is_refused() -> None:
    async def shopping(job: Job, shop: Shop) -> None: ...

    with pytest.raises(ProcessorError, match=r"nothing fills the parameter 'shop'.*\n.*shopping \(test_handler_parameters.py:"):
        handler(shopping)


def test_a_function_is_called_with_the_defaults_of_its_own() -> None:
    seen: list[object] = []

    def note(number: int, /, more: int = 2, *, job: Job[int, None], last: int = 3) -> None:
        seen.append((number, more, job, last))

    job: Any = type("FakeJob", (), {"data": 1})()
    call: Any = handler(note).call
    call(job)
    assert seen == [(1, 2, job, 3)]


# ── what fits what ────────────────────────────────────────────────────────────────────────────────────────────


class Sized(TypedDict):
    size: int


class Named(Sized):
    name: str


class CanClose(Protocol):
    def close(self) -> None: ...


UserId = NewType("UserId", int)


@pytest.mark.parametrize(
    ("source", "target", "answer"),
    [
        (Photo, Picture, True),
        (Picture, Photo, False),
        (Picture, Size, False),
        (Picture, Any, True),
        (Any, Picture, True),
        (Picture, object, True),
        (Picture, Picture | None, True),
        (Picture | None, Picture, False),
        (None, Picture, False),
        (None, None, True),
        (int, float, True),
        (str, int, False),
        (Annotated[int, "small"], int, True),
        (list[int], list[int], True),
        (list[int], list[str], False),
        (list[int], list, True),
        (dict[str, int], Mapping[str, int], True),
        (tuple[int, int], tuple[int, ...], True),
        (tuple[int, int], tuple[int], False),
        (Literal["a"], str, True),
        (Literal["a"], Literal["a", "b"], True),
        (str, Literal["a"], False),
        (UserId, int, True),
        (int, UserId, False),
        (Named, Sized, True),
        (Sized, Named, False),
        (Named, dict, True),
        (Picture, Sized, False),
        (Picture, CanClose, True),
        (TypeVar("X"), Picture, True),
    ],
)
def test_one_type_stands_for_another_unless_it_surely_can_not(source: object, target: object, answer: bool) -> None:
    assert fits(source, target) is answer


# ── a definition and its handler ──────────────────────────────────────────────────────────────────────────────


def test_handlers_that_agree_with_their_definition_are_fine() -> None:
    async def subclass(self: object, job: Job[Picture, Size]) -> Size: ...  # type: ignore[empty-body]

    async def base_class(self: object, data: BaseModel) -> Size: ...  # type: ignore[empty-body]

    async def bare(self: object, job: Job): ...  # type: ignore[no-untyped-def]  # no return annotation

    async def anything(self: object, job: Any) -> Any: ...  # noqa: ANN401 -- the case

    def awaitable_result(self: object, job: Job[Picture, Any]) -> Awaitable[Size]: ...  # type: ignore[empty-body]

    async def both(self: object, data: Picture, job: Job[Picture, Size], shop: Shop) -> Size: ...  # type: ignore[empty-body]

    for method in (subclass, base_class, bare, anything, awaitable_result, both):
        assert isinstance(graph_of(root(handling(method), Shop)), Graph)


async def other_job(self: object, job: Job[Size, Size]) -> Size: ...  # type: ignore[empty-body]
async def other_job_result(self: object, job: Job[Picture, Picture]) -> Size: ...  # type: ignore[empty-body]
async def other_data(self: object, data: Size) -> Size: ...  # type: ignore[empty-body]
async def other_result(self: object, data: Picture) -> Picture: ...  # type: ignore[empty-body]
async def no_result(self: object, job: Job) -> None: ...
async def perhaps_no_result(self: object, job: Job) -> Size | None: ...
async def awaited_twice(self: object, job: Job) -> Awaitable[Size]: ...  # type: ignore[empty-body]
async def later_job(self: object, data: Picture, *, job: Job[Size, Size]) -> Size: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (other_job, "`job: Job[Size, Size]` says that the data is Size, but JobDef('resize') says Picture"),
        (other_job_result, "`job: Job[Picture, Picture]` says that the result is Picture, but JobDef('resize') says Size"),
        (other_data, "`data: Size` says that the data is Size, but JobDef('resize') says Picture"),
        (other_result, "`-> Picture` says that the result is Picture, but JobDef('resize') says Size"),
        (no_result, "`-> None` says that the result is None, but JobDef('resize') says Size"),
        (perhaps_no_result, "`-> Size | None` says that the result is "),
        (awaited_twice, "`-> Awaitable[Size]` says that the result is "),
        (later_job, "`job: Job[Size, Size]` says that the data is Size, but JobDef('resize') says Picture"),
    ],
)
def test_a_handler_that_contradicts_its_definition_is_refused_with_both_types_and_its_place(method: Any, reason: str) -> None:  # noqa: ANN401
    error = only(InvalidProcessorError, handling(method))
    assert error.reason.startswith(reason)
    assert error.processor == "Images.run"
    assert error.place.startswith("tests/unit/test_handler_parameters.py:")


def test_annotations_that_contradict_each_other_are_refused_where_there_is_no_definition() -> None:
    error = only(InvalidProcessorError, handling(other_job_result, "resize"))
    assert error.reason.startswith("`-> Size` says that the result is Size, but another annotation says Picture")


def test_types_of_one_name_are_told_apart_by_their_modules() -> None:
    ours = type("Size", (BaseModel,), {"__module__": "elsewhere"})
    (reason,) = read_handler(data).disagreements(JobDef[Picture, ours]("resize"))  # type: ignore[valid-type]
    assert "is tests.unit.test_handler_parameters.Size, but JobDef('resize') says elsewhere.Size" in reason


def test_two_definitions_of_one_name_in_one_queue_are_refused() -> None:
    @processor("images")
    class Images:
        @process(RESIZE)
        async def one(self, data: Picture) -> Size: ...  # type: ignore[empty-body]

        @process(JobDef[Size, Picture]("resize"))
        async def other(self, data: Size) -> Picture: ...  # type: ignore[empty-body]

    assert only(HandlerConflictError, Images).name == "resize"


def test_an_annotation_that_exists_for_type_checkers_only_is_named_whether_it_is_data_result_or_injected() -> None:
    async def of_data(self: object, data: Money) -> None: ...

    async def of_result(self: object, job: Job) -> Money: ...  # type: ignore[empty-body]

    async def of_a_service(self: object, job: Job, money: Money) -> None: ...

    for method in (of_data, of_result):
        reason = only(InvalidProcessorError, handling(method, "pay")).reason
        assert "import Money at run time, not only under TYPE_CHECKING" in reason
    error = only(UnreadableAnnotation, handling(of_a_service, "pay"))
    assert (error.consumer, error.parameter) == ("Images.run", "money")
    assert "Import Money for real, not under TYPE_CHECKING" in error.hint


def test_a_handler_that_yields_is_refused() -> None:
    async def run(self: object, job: Job) -> AsyncIterator[int]:
        yield 1

    assert only(InvalidProcessorError, handling(run, "n")).reason == "it yields, and a handler returns its result: return a list"


def test_data_that_no_job_can_carry_is_refused() -> None:
    async def run(self: object, shop: Shop) -> None: ...

    assert "Shop can't be the data or result of a job" in only(InvalidProcessorError, handling(run, "sell")).reason


@pytest.mark.parametrize("definition", [RESIZE, "resize", None])
def test_what_is_injected_comes_after_job_or_data(definition: object) -> None:
    async def log_first(self: object, log: JobLogger, job: Job) -> Size: ...  # type: ignore[empty-body]

    async def shop_first(self: object, shop: Shop, job: Job) -> Size: ...  # type: ignore[empty-body]

    for method, name in ((log_first, "JobLogger"), (shop_first, "Shop")):
        reason = only(InvalidProcessorError, handling(method, definition), Shop).reason
        assert reason == f"its first parameter is the job or its data; what is injected, as {name}, comes after it"


# ── what is injected ──────────────────────────────────────────────────────────────────────────────────────────


def test_what_nothing_provides_is_missing_as_in_a_constructor_with_method_and_parameter_named() -> None:
    async def run(self: object, data: Picture, shop: Shop, *, images: Annotated[Queue, InjectQueue("image")]) -> Size: ...  # type: ignore[empty-body]

    error = only(UnresolvedDependency, handling(run))
    assert (error.consumer, error.module) == ("Images.run", "AppModule")
    assert [error.parameters[index] for index in error.missing] == ["shop: Shop", "images: image"]
    fix = "If not, add QueueModule.register_queue('image') to the imports."
    assert f"queue 'image' is not registered; did you mean 'images'? {fix}" in error.hints
    assert error.place.startswith("tests/unit/test_handler_parameters.py:")
    assert "can't resolve dependencies of Images.run (Images, ?, ?)" in str(error)


def test_what_another_module_keeps_to_itself_is_hinted_at() -> None:
    @module(providers=[Shop])
    class ShopModule: ...

    async def run(self: object, data: Picture, shop: Shop) -> Size: ...  # type: ignore[empty-body]

    error = only(UnresolvedDependency, handling(run), imports=[ShopModule])
    assert error.hints[0] == "Shop is provided by ShopModule, which does not export it: add it to the exports of ShopModule."


def test_a_parameter_without_annotation_or_of_a_builtin_type_is_refused() -> None:
    async def bare(self: object, job: Job, more: object) -> None: ...

    async def builtin(self: object, job: Job, number: int) -> None: ...

    del bare.__annotations__["more"]
    assert only(UnreadableAnnotation, handling(bare, "n")).reason == "it has no annotation"
    assert "int is a builtin type, which is no token by itself" in str(only(UnresolvedDependency, handling(builtin, "n")))


def test_what_a_handler_asks_for_may_be_missing_where_it_can_do_without() -> None:
    async def run(self: object, job: Job, shop: Shop | None, number: int = 3, other: Shop | None = None) -> None: ...

    assert isinstance(graph_of(root(handling(run, "n"))), Graph)


def test_a_cycle_beneath_a_handler_is_reported_once() -> None:
    class Hen:
        def __init__(self, egg: Egg) -> None: ...

    @injectable()
    class Egg:
        def __init__(self, hen: Hen) -> None: ...

    Hen.__init__.__annotations__["egg"] = Egg

    async def run(self: object, job: Job, hen: Hen) -> None: ...

    run.__annotations__["hen"] = Hen
    only(CircularDependency, handling(run, "n"), Hen, Egg)


def test_a_handler_may_ask_for_the_job_scope_where_its_class_may_not() -> None:
    @injectable(scope=Scope.JOB)
    class Session: ...

    async def run(self: object, job: Job, session: Session, lazy: Lazy[Session]) -> None: ...

    run.__annotations__ |= {"session": Session, "lazy": Lazy[Session]}
    images = handling(run, "n")
    injectable(scope=Scope.SINGLETON)(images)
    graph = graph_of(root(images, Session))
    (binding,) = graph.find_all(images)
    assert binding.scope is Scope.SINGLETON

    @injectable(scope=Scope.SINGLETON)
    class Strict:
        def __init__(self, session: Session) -> None: ...

    Strict.__init__.__annotations__["session"] = Session
    assert only(CaptiveDependency, images, Session, Strict).captor == "Strict"


def test_nobody_sees_the_hidden_provider_of_a_handler() -> None:
    async def run(self: object, job: Job, shop: Shop) -> None: ...

    graph = graph_of(root(handling(run, "n"), Shop))
    assert not [token for token in graph.tokens() if "run" in str(token)]


def test_a_handler_has_no_inquirer() -> None:
    async def run(self: object, job: Job, asker: Annotated[object, Inject(INQUIRER)]) -> None: ...

    assert "INQUIRER is known to transient providers only" in str(only(UnresolvedDependency, handling(run, "n")))


def test_a_token_is_found_as_in_a_constructor() -> None:
    limit = Token[int]("LIMIT")

    async def run(self: object, job: Job, most: int) -> None: ...

    run.__annotations__["most"] = Annotated[int, Inject(limit)]
    graph_of(root(handling(run, "n"), provide(limit, use_value=3)))
    assert only(UnresolvedDependency, handling(run, "n")).parameters[1] == "most: LIMIT"
