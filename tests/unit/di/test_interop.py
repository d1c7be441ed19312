"""dependency-injector containers of users as modules."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from dependency_injector import containers, providers, resources

from tests.unit.di.building import app, context_of, only_error
from toril.di import (
    ApplicationContext,
    ContainerModule,
    Inject,
    InvalidProvider,
    NotFound,
    OnModuleDestroy,
    Overrides,
    Token,
    UnresolvedDependency,
    build_graph,
    module,
    provide,
)

REDIS = Token[str]("REDIS")
LOG: list[str] = []


@pytest.fixture(autouse=True)
def log() -> list[str]:
    LOG.clear()
    return LOG


class Pool:
    def __init__(self, redis: str) -> None:
        self.redis = redis


class Invoices:
    def __init__(self, pool: Pool, limit: int) -> None:
        self.pool, self.limit = pool, limit


class Letter: ...


class Stamp: ...


def pool(redis: str) -> Iterator[Pool]:
    LOG.append("open pool")
    yield Pool(redis)
    LOG.append("close pool")


class Middle:
    def __init__(self, pool: Pool) -> None:
        self.pool = pool


async def outbox(middle: Middle) -> AsyncIterator[str]:
    LOG.append(f"open outbox over {middle.pool.redis}")
    yield "outbox"
    LOG.append("close outbox")


class Storage(containers.DeclarativeContainer):
    redis: Any = providers.Dependency(instance_of=str)
    pool: Any = providers.Resource(pool, redis)


class Billing(containers.DeclarativeContainer):
    """A resource of the inner container, and one that needs it through a singleton; the later one comes first by name."""

    redis: Any = providers.Dependency(instance_of=str)
    config: Any = providers.Configuration(default={"limit": 5})
    storage: Any = providers.Container(Storage, redis=redis)
    middle: Any = providers.Singleton(Middle, storage.pool)
    aaa_outbox: Any = providers.Resource(outbox, middle)
    invoices: Any = providers.Singleton(Invoices, storage.pool, config.limit)
    letter: Any = providers.Factory(Letter)
    one: Any = providers.Factory(Stamp)
    two: Any = providers.Factory(Stamp)


@module(providers=[provide(REDIS, use_value="redis://here")], exports=[REDIS])
class RedisModule: ...


BILLING = ContainerModule.from_container(Billing, bind={"redis": REDIS}, prefix="billing.", imports=[RedisModule])


class Consumer:
    def __init__(self, invoices: Invoices, outbox: Annotated[str, Inject("billing.aaa_outbox")], letter: Letter, other: Letter) -> None:
        self.invoices, self.outbox, self.letter, self.other = invoices, outbox, letter, other

    def on_module_destroy(self) -> None:
        LOG.append("consumer ends")


async def test_what_a_container_provides_is_injected_by_class_and_by_name() -> None:
    async with context_of(Consumer, imports=[BILLING]) as ctx:
        consumer = ctx.get(Consumer)
        assert isinstance(consumer, OnModuleDestroy)
        assert consumer.invoices is ctx.get("billing.invoices")
        assert consumer.invoices.pool is ctx.get("billing.storage.pool")
        assert consumer.invoices.pool.redis == "redis://here"
        assert consumer.invoices.limit == 5
        assert consumer.outbox == "outbox"
        assert consumer.letter is not consumer.other, "a factory is called for each who asks"
        assert ctx.get("billing.config") == {"limit": 5}
        with pytest.raises(NotFound):
            ctx.get(Stamp)  # two providers make one, so the class tells nothing


async def test_resources_start_and_stop_in_order_also_of_inner_containers_and_after_who_uses_them() -> None:
    async with context_of(Consumer, imports=[BILLING]):
        assert LOG == ["open pool", "open outbox over redis://here"]
    assert LOG[2:] == ["consumer ends", "close outbox", "close pool"]


async def test_each_application_has_a_container_of_its_own() -> None:
    async with context_of(imports=[BILLING]) as one, context_of(imports=[BILLING]) as other:
        assert one.get(Invoices) is not other.get(Invoices)


async def test_a_container_that_exists_is_used_as_it_is_and_left_as_it_was() -> None:
    theirs: Any = Storage()
    imported = ContainerModule.from_container(theirs, bind={"redis": REDIS}, imports=[RedisModule])
    async with context_of(imports=[imported]) as ctx:
        assert ctx.get("pool") is theirs.pool()
    assert not theirs.redis.overridden
    assert LOG == ["open pool", "close pool"]


async def test_a_resource_that_was_started_by_others_is_not_stopped() -> None:
    theirs: Any = Storage(redis=providers.Object("mine"))
    theirs.init_resources()
    async with context_of(imports=[ContainerModule.from_container(theirs)]) as ctx:
        assert ctx.get("pool").redis == "mine"
    assert LOG == ["open pool"]
    theirs.shutdown_resources()


class Slow(resources.AsyncResource[str]):
    async def init(self) -> str:
        return "slow"

    async def shutdown(self, resource: str | None) -> None:
        LOG.append(f"close {resource}")


def letters(text: str) -> list[str]:
    return list(text)


class Async(containers.DeclarativeContainer):
    slow: Any = providers.Resource(Slow)
    singleton: Any = providers.Singleton(str.upper, slow)
    each: Any = providers.Factory(letters, slow)
    lock: Any = providers.Object(threading.Lock)


async def test_no_future_gets_out_of_a_container_with_async_resources() -> None:
    class Asks:
        def __init__(self, each: Annotated[list[str], Inject("each")], slow: Annotated[str, Inject("slow")]) -> None:
            self.each, self.slow = each, slow

    async with context_of(Asks, imports=[ContainerModule.from_container(Async)]) as ctx:
        assert (ctx.get(Asks).each, ctx.get(Asks).slow) == (list("slow"), "slow")
        assert ctx.get("singleton") == "SLOW"
        assert await ctx.resolve("each") == list("slow")
    assert LOG == ["close slow"]


def failing(name: str, fails: bool) -> Iterator[str]:
    LOG.append(f"open {name}")
    yield name
    LOG.append(f"close {name}")
    if fails:
        raise ValueError(name)


def broken(first: str) -> Iterator[str]:
    if first:
        raise OSError(f"after {first}")
    yield first


class Stops(containers.DeclarativeContainer):
    first: Any = providers.Resource(failing, "first", True)
    second: Any = providers.Resource(failing, first, False)
    third: Any = providers.Resource(failing, "third", True)


class Breaks(containers.DeclarativeContainer):
    first: Any = providers.Resource(failing, "first", False)
    second: Any = providers.Resource(broken, first)


async def test_a_resource_that_fails_to_stop_keeps_no_other_open() -> None:
    ctx = context_of(imports=[ContainerModule.from_container(Stops)])
    await ctx.start()
    with pytest.raises(ExceptionGroup) as caught:
        await ctx.close()
    group: Any = caught.value.exceptions[0]
    assert sorted(str(error) for error in group.exceptions) == ["first", "third"]
    assert sorted(LOG) == ["close first", "close first", "close third", "open first", "open first", "open third"]


async def test_a_resource_that_fails_to_start_closes_what_was_started() -> None:
    with pytest.raises(OSError, match="after first"):
        await context_of(imports=[ContainerModule.from_container(Breaks)]).start()
    assert LOG == ["open first", "close first"]


@pytest.mark.parametrize(
    ("bind", "reason", "hint"),
    [
        ({}, "nothing is bound to its dependency 'redis'", 'Write bind={"redis": TOKEN}.'),
        ({"redsi": REDIS}, "bind names 'redsi', which is no providers.Dependency of it", "Did you mean redis?"),
        ({"pool": REDIS}, "bind names 'pool', which is no providers.Dependency of it", "It has: redis."),
    ],
)
def test_a_wrong_bind_is_refused_where_it_is_written(bind: dict[str, object], reason: str, hint: str) -> None:
    with pytest.raises(InvalidProvider) as caught:
        ContainerModule.from_container(Storage, bind=bind)
    assert (caught.value.provider, caught.value.reason, caught.value.hint) == ("Storage", reason, hint)
    assert "test_interop.py" in caught.value.place


def test_a_token_that_nobody_provides_is_an_error_of_the_graph() -> None:
    imported = ContainerModule.from_container(Storage, bind={"redis": REDIS})
    error = only_error(app(imports=[imported]), UnresolvedDependency)
    assert error.module == "ContainerModule(Storage)"


async def test_an_override_of_a_test_takes_the_place_of_what_the_container_makes() -> None:
    root = app(providers=[Consumer], imports=[BILLING])
    fake = Invoices(Pool("fake"), 1)
    graph = build_graph(root, overrides=Overrides(providers=[provide(Invoices, use_value=fake)]))
    async with ApplicationContext(graph) as ctx:
        assert ctx.get(Consumer).invoices is fake
