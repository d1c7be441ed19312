"""Class, value, factory and alias providers."""

from __future__ import annotations

import asyncio
import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Generator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Generic, NewType, Protocol, TypeVar

import pytest
from pydantic import BaseModel

from tests.unit.di.building import app, context_of, only_error
from toril.di import (
    ApplicationContext,
    AwaitableValue,
    CircularAlias,
    Inject,
    InvalidProvider,
    Lazy,
    Token,
    UnresolvedDependency,
    build_graph,
    provide,
)

T = TypeVar("T")


class Sender(Protocol):
    def send(self) -> str: ...


class Smtp:
    def send(self) -> str:
        return "smtp"


class Base(ABC):
    @abstractmethod
    def run(self) -> int: ...


class Impl(Base):
    def run(self) -> int:
        return 1


class User: ...


class Order: ...


class Store(Generic[T]):
    pass


class Repo(Generic[T]):
    def __init__(self, store: Store[T]) -> None:
        self.store = store


class UserRepo(Repo[User]):
    pass


def same(value: object) -> object:
    return value


def triple(a: object, b: object, c: object) -> tuple[object, object, object]:
    return a, b, c


COUNT = Token[int]("COUNT")


async def test_a_protocol_and_an_abstract_class_are_tokens() -> None:
    class Uses:
        def __init__(self, sender: Sender, base: Base) -> None:
            self.sender, self.base = sender, base

    async with context_of(provide(Sender, use_class=Smtp), provide(Base, use_class=Impl), Uses) as ctx:
        uses = ctx.get(Uses)
        assert (uses.sender.send(), uses.base.run()) == ("smtp", 1)
        assert ctx.get(Sender) is uses.sender


@pytest.mark.parametrize(("cls", "reason"), [(Sender, "Sender is a Protocol"), (Base, "Base is abstract (run not defined)")])
def test_what_can_not_be_instantiated_is_refused_as_a_provider(cls: type, reason: str) -> None:
    error = only_error(app(providers=[cls]), InvalidProvider)
    assert error.reason == reason
    assert "use_class" in error.hint


async def test_typed_tokens_are_compared_by_identity() -> None:
    other = Token[int]("COUNT")
    async with context_of(provide(COUNT, use_value=1), provide(other, use_value=2)) as ctx:
        assert (ctx.get(COUNT), ctx.get(other)) == (1, 2)


UserId = NewType("UserId", int)


async def test_a_new_type_is_a_token() -> None:
    class Uses:
        def __init__(self, user: UserId) -> None:
            self.user = user

    async with context_of(provide(UserId, use_value=UserId(7)), Uses) as ctx:
        assert ctx.get(Uses).user == 7


async def test_text_is_a_token() -> None:
    class Uses:
        def __init__(self, url: Annotated[str, Inject("url")]) -> None:
            self.url = url

    async with context_of(provide("url", use_value="redis://x"), Uses) as ctx:
        assert ctx.get(Uses).url == "redis://x"


async def test_parametrised_classes_are_tokens_of_their_own() -> None:
    class Uses:
        def __init__(self, users: Repo[User], orders: Repo[Order]) -> None:
            self.users, self.orders = users, orders

    async with context_of(Store[User], Store[Order], Repo[User], Repo[Order], Uses) as ctx:
        uses = ctx.get(Uses)
        assert uses.users is ctx.get(Repo[User])
        assert len({id(uses.users), id(uses.orders)}) == 2
        assert uses.users.store is ctx.get(Store[User])


async def test_an_inherited_generic_constructor_is_read_with_what_the_base_was_given() -> None:
    async with context_of(Store[User], UserRepo) as ctx:
        assert ctx.get(UserRepo).store is ctx.get(Store[User])


async def test_row_08_an_alias_is_the_same_object_under_a_second_token() -> None:
    async with context_of(Smtp, provide(Sender, use_existing=Smtp), provide("sender", use_existing=Sender)) as ctx:
        assert ctx.get(Sender) is ctx.get(Smtp) is ctx.get("sender")


def test_aliases_in_a_circle_are_reported_once() -> None:
    error = only_error(
        app(providers=[provide("a", use_existing="b"), provide("b", use_existing="c"), provide("c", use_existing="a")]), CircularAlias
    )
    assert error.steps == ("'a'", "'b'", "'c'")
    assert "'a' -> 'b' -> 'c' -> 'a'" in str(error)


def test_an_alias_of_nothing_is_unresolved() -> None:
    error = only_error(app(providers=[provide("a", use_existing=Smtp)]), UnresolvedDependency)
    assert (error.consumer, error.parameters) == ("alias 'a'", ("use_existing: Smtp",))


async def test_row_08_a_factory_gets_its_dependencies_by_its_annotations() -> None:
    def make(smtp: Smtp, *, count: Annotated[int, Inject(COUNT)]) -> tuple[Smtp, int]:
        return smtp, count

    async with context_of(Smtp, provide(COUNT, use_value=3), provide("made", use_factory=make)) as ctx:
        assert ctx.get("made") == (ctx.get(Smtp), 3)


async def test_a_factory_gets_its_dependencies_in_the_order_of_inject() -> None:
    made = provide("made", use_factory=triple, inject=[Smtp, Inject(COUNT), Lazy[Smtp]])
    async with context_of(Smtp, provide(COUNT, use_value=3), made) as ctx:
        smtp, count, lazy = ctx.get("made")
        assert (smtp, count, lazy.get()) == (ctx.get(Smtp), 3, smtp)


def test_inject_must_fit_the_factory() -> None:
    error = only_error(app(providers=[Smtp, provide("made", use_factory=same, inject=[Smtp, Smtp])]), InvalidProvider)
    assert error.reason == "its factory can't be called with the 2 arguments that `inject` names"
    assert error.hint == "Name one token for each parameter."
    error = only_error(app(providers=[provide("made", use_factory=same, inject=[3])]), InvalidProvider)
    assert error.reason == "entry [0] of `inject`, 3, is no token"
    assert error.hint == "Use a class, a Token, text, Lazy[...] or Inject(...)."


async def test_row_09_all_kinds_of_factories_are_recognised_by_how_they_are_written() -> None:
    log: list[str] = []

    async def coroutine() -> str:
        await asyncio.sleep(0)
        return "coroutine"

    def generator() -> Iterator[str]:
        yield "generator"
        log.append("generator closed")

    async def async_generator() -> AsyncIterator[str]:
        yield "async generator"
        log.append("async generator closed")

    class WithCall:
        async def __call__(self) -> str:
            return "call"

    async def with_argument(what: str) -> str:
        return what

    factories: list[Any] = [coroutine, generator, async_generator, WithCall(), functools.partial(with_argument, "partial")]
    async with context_of(*(provide(str(number), use_factory=factory) for number, factory in enumerate(factories))) as ctx:
        assert [ctx.get(str(number)) for number in range(5)] == ["coroutine", "generator", "async generator", "call", "partial"]
        assert log == []
    assert log == ["async generator closed", "generator closed"]


async def test_arguments_that_a_partial_gives_are_not_injected() -> None:
    def make(smtp: Smtp, count: Annotated[int, Inject(COUNT)]) -> int:
        return count

    async with context_of(Smtp, provide(COUNT, use_value=1), provide("n", use_factory=functools.partial(make, count=7))) as ctx:
        assert ctx.get("n") == 7


async def test_row_09_generators_are_closed_in_reverse_also_when_the_link_is_indirect() -> None:
    log: list[str] = []

    class Pool: ...

    class Between:
        def __init__(self, pool: Pool) -> None: ...

    async def pool() -> AsyncIterator[Pool]:
        log.append("pool opened")
        yield Pool()
        log.append("pool closed")

    async def session(between: Between) -> AsyncIterator[str]:
        log.append("session opened")
        yield "session"
        log.append("session closed")

    async with context_of(provide("session", use_factory=session), Between, provide(Pool, use_factory=pool)):
        pass
    assert log == ["pool opened", "session opened", "session closed", "pool closed"]


class AwaitableClient:
    """Like a Redis client, which can be awaited and entered, and is a value all the same."""

    entered = False

    def __await__(self) -> Generator[Any, None, None]:
        raise AssertionError("nobody asked for that")

    async def __aenter__(self) -> None:
        self.entered = True

    async def __aexit__(self, *_: object) -> None: ...


async def test_a_value_that_can_be_awaited_is_left_alone() -> None:
    class Uses:
        def __init__(self, client: AwaitableClient) -> None:
            self.client = client

    client = AwaitableClient()
    async with context_of(provide(AwaitableClient, use_value=client), provide("made", use_factory=lambda: client), Uses) as ctx:
        assert ctx.get(Uses).client is client is ctx.get("made")
        assert not client.entered


async def test_a_plain_factory_that_returns_a_coroutine_is_refused() -> None:
    def hidden() -> object:
        return a_coroutine()

    ctx = context_of(provide("n", use_factory=hidden))
    with pytest.raises(AwaitableValue) as caught:
        await ctx.start()
    assert (caught.value.provider, caught.value.kind) == ("'n'", "coroutine")


async def test_a_plain_factory_that_returns_a_future_is_refused() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    ctx = context_of(provide("n", use_factory=lambda: future))
    with pytest.raises(AwaitableValue):
        await ctx.start()


async def a_coroutine() -> int:
    return 1


@asynccontextmanager
async def decorated() -> AsyncGenerator[int]:
    yield 1


ONE_WAY = "Give exactly one of use_value, use_class, use_factory, use_existing."


def misuse_cases() -> list[tuple[dict[str, Any], str, str]]:
    return [
        ({}, "it is made with none of them", ONE_WAY),
        ({"use_value": 1, "use_class": Smtp}, "it is made with use_value, use_class", ONE_WAY),
        ({"use_value": 1, "inject": []}, "`inject` means nothing beside use_value", "It names the arguments of a `use_factory`."),
        (
            {"use_existing": "x", "scope": "job"},
            "`scope` means nothing beside use_existing",
            "A value is one object, and an alias lives as long as its target.",
        ),
        ({"use_factory": 3}, "use_factory=3 can't be called", "Give the class or function itself."),
        (
            {"use_factory": decorated},
            "its factory is decorated with a contextlib decorator",
            "Remove it: a function that yields is enough, and is torn down.",
        ),
    ]


@pytest.mark.parametrize(("arguments", "reason", "hint"), misuse_cases())
def test_misuse_of_provide_is_refused_where_it_is_written(arguments: dict[str, Any], reason: str, hint: str) -> None:
    call: Any = provide
    with pytest.raises(InvalidProvider) as caught:
        call("x", **arguments)
    assert (caught.value.reason, caught.value.hint) == (reason, hint)
    assert "test_providers.py:" in caught.value.place


def test_a_coroutine_as_a_value_is_refused_and_closed() -> None:
    with pytest.raises(InvalidProvider) as caught:
        provide("x", use_value=a_coroutine())
    assert caught.value.reason == "its value is a coroutine, which nobody would await"
    assert caught.value.hint == "Use `use_factory` with an `async def` function."


@pytest.mark.parametrize(
    ("token", "reason", "hint"),
    [
        (3, "int is no token", "Use a class, a Token, text, or a hashable object with a `token_name`."),
        ([], "list is no token", "Use a class, a Token, text, or a hashable object with a `token_name`."),
        (str, "str is a builtin type, which is no token by itself", "Use a Token, or a class of your own."),
        (list[int], "list[int] is a builtin type, which is no token by itself", "Use a Token, or a class of your own."),
    ],
)
def test_what_is_no_token_is_refused(token: Any, reason: str, hint: str) -> None:  # noqa: ANN401  # wrong on purpose
    with pytest.raises(InvalidProvider) as caught:
        provide(token, use_value=1)
    assert (caught.value.reason, caught.value.hint) == (reason, hint)


@pytest.mark.parametrize(
    ("entry", "reason", "hint"),
    [
        (Smtp(), "it is an instance of Smtp", "Write provide(Smtp, use_value=...)."),
        (a_coroutine, "it is a function, and its token is missing", "Write provide(TOKEN, use_factory=a_coroutine)."),
        (None, "it is None", "Two files import each other: move what both need into a third."),
        (int, "it is a builtin type, which is no token by itself", "Write provide(TOKEN, use_value=...)."),
        ((Smtp,), "it is a tuple inside of the list", "Write what is in it: providers=[Smtp]."),
        ({"provide": "X", "useValue": 3}, "it is a dict", "Write provide('X', use_value=3)."),
    ],
)
def test_what_is_no_provider_is_refused_in_providers(entry: object, reason: str, hint: str) -> None:
    error = only_error(app(providers=[entry]), InvalidProvider)
    assert (error.reason, error.hint) == (reason, hint)


@pytest.mark.parametrize(
    ("entry", "hint"),
    [
        ({"provide": "X", "useValue": "s3cret"}, "Write provide('X', use_value=…)."),
        ({"provide": Smtp, "useClass": Smtp}, "Write provide(Smtp, use_class=Smtp)."),
        ({}, "Write provide('X', use_value=…)."),
    ],
)
def test_a_provider_as_other_frameworks_write_it_is_told_as_it_is_written_here(entry: object, hint: str) -> None:
    error = only_error(app(providers=[entry]), InvalidProvider)
    assert error.hint == hint
    assert "s3cret" not in str(error)


def test_two_providers_of_one_token_in_one_module_are_refused_and_the_same_one_twice_is_not() -> None:
    error = only_error(app(providers=[provide("a", use_value=1), provide("a", use_value=2)]), InvalidProvider)
    assert error.reason.startswith("the same module provides it a second time, at tests/unit/di/test_providers.py:")
    assert error.hint == "Keep one of the two."
    build_graph(app(providers=[Smtp, Smtp]))


async def test_dataclasses_models_and_classes_without_a_constructor_work() -> None:
    @dataclass(frozen=True, slots=True)
    class Data:
        smtp: Smtp
        count: int = 5

    class Settings(BaseModel):
        url: str = "default"

    async with context_of(Smtp, Data, Settings) as ctx:
        assert ctx.get(Data) == Data(ctx.get(Smtp))
        assert ctx.get(Settings).url == "default"


async def test_none_is_a_value_like_any_other() -> None:
    class Uses:
        def __init__(self, nothing: Annotated[object, Inject("nothing")]) -> None:
            self.nothing = nothing

    async with context_of(provide("nothing", use_value=None), Uses) as ctx:
        assert ctx.get("nothing") is None
        assert ctx.get(Uses).nothing is None


async def test_an_error_while_creating_tells_what_was_created_and_where() -> None:
    class Fails:
        def __init__(self) -> None:
            raise ValueError("no such host")

    ctx = context_of(Fails)
    with pytest.raises(ValueError, match="no such host") as caught:
        await ctx.start()
    assert caught.value.__notes__ == ["while creating Fails in AppModule"]


async def test_an_awaitable_typed_factory_is_checked_by_its_own_form() -> None:
    def hands_on() -> Awaitable[int]:
        return a_coroutine()

    with pytest.raises(AwaitableValue):
        await context_of(provide(COUNT, use_factory=hands_on)).start()


async def test_application_context_of_an_empty_module_starts_and_closes() -> None:
    async with ApplicationContext(build_graph(app())) as ctx:
        assert ctx.get_all("nothing") == []
