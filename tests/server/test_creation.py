"""`WorkerFactory.create` and `Test….compile`: awaited, or entered at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from toril import (
    Application,
    DynamicModule,
    Job,
    QueueModule,
    ScheduleModule,
    WorkerFactory,
    cron,
    module,
    process,
    processor,
    provide,
)
from toril.application import ApplicationState
from toril.di import ContextState, GraphErrors
from toril.errors import ServerUnreachableError
from toril.testing import NotEnteredError, Test, TestingModule
from toril.testing.builder import TestingModuleBuilder


@processor("work")
class Doubler:
    @process("double")
    async def double(self, job: Job[int, int]) -> int:
        return job.data * 2


@module(imports=[QueueModule.register_queue("work")], providers=[Doubler])
class WorkModule: ...


@pytest.fixture
def root(toril_server_url: str, prefix: str) -> DynamicModule:
    @module(imports=[WorkModule])
    class AppModule: ...

    return DynamicModule(AppModule, imports=[QueueModule.for_root(url=toril_server_url, prefix=prefix)])


class Resource:
    """What a generator opens."""


def with_work(*imports: object, providers: Sequence[object] = ()) -> TestingModuleBuilder:
    return Test.create_testing_module(imports=[WorkModule, *imports], providers=providers)


async def test_an_application_is_entered_without_an_await(root: DynamicModule) -> None:
    async with WorkerFactory.create(root) as app:
        assert (type(app), app.state) == (Application, ApplicationState.RUNNING)
        job = await app.queue("work").add("double", 4)
        assert await job.result(timeout="5s") == 8
    assert app.state is ApplicationState.STOPPED


async def test_a_testing_module_is_entered_without_an_await() -> None:
    async with with_work().compile() as t:
        assert type(t) is TestingModule
        assert await t.run_job("double", 4) == 8
    assert t.ctx.state is ContextState.CLOSED


async def test_awaited_it_is_made_and_not_entered(root: DynamicModule) -> None:
    app = await WorkerFactory.create(root)
    assert app.state is ApplicationState.CREATED
    async with app:
        assert app.is_ready


async def test_it_is_a_coroutine_for_tasks(root: DynamicModule) -> None:
    app = await asyncio.create_task(WorkerFactory.create(root))
    await app.stop()


def test_it_is_a_coroutine_for_a_loop_of_its_own() -> None:
    @module()
    class EmptyModule: ...

    t = asyncio.run(Test.create_testing_module(imports=[EmptyModule]).compile())
    asyncio.run(t.close())


async def test_what_is_wrong_comes_out_of_either() -> None:
    class Missing: ...

    class Asks:
        def __init__(self, missing: Missing) -> None: ...

    with pytest.raises(GraphErrors, match="Missing"):
        await with_work(providers=[Asks]).compile()
    with pytest.raises(GraphErrors, match="Missing"):
        async with with_work(providers=[Asks]).compile():
            raise AssertionError("it must not come so far")


async def test_an_error_in_the_block_comes_out_and_all_is_closed(root: DynamicModule) -> None:
    entered: list[Application] = []

    async def break_in_the_block() -> None:
        async with WorkerFactory.create(root) as app:
            entered.append(app)
            raise LookupError("in the block")

    with pytest.raises(LookupError, match="in the block"):
        await break_in_the_block()
    assert [app.state for app in entered] == [ApplicationState.STOPPED]


async def test_a_forgotten_await_is_told_with_what_to_write(root: DynamicModule) -> None:
    making: Any = WorkerFactory.create(root)
    with pytest.raises(AttributeError) as caught:
        making.queue("work")
    assert str(caught.value) == (
        "WorkerFactory.create(…) was not awaited yet, and what it makes is what has 'queue': "
        "write `made = await WorkerFactory.create(…)`, or `async with WorkerFactory.create(…) as made:`"
    )
    making.close()


async def test_a_testing_module_whose_start_fails_is_closed() -> None:
    opened: list[str] = []

    async def resource() -> AsyncIterator[Resource]:
        opened.append("open")
        yield Resource()
        opened.append("closed")

    class Scheduled:
        def __init__(self, resource: Resource) -> None: ...

        @cron("0 0 * * *")
        async def daily(self) -> None: ...

    builder = with_work(ScheduleModule.for_root(), providers=[Scheduled, provide(Resource, use_factory=resource)])
    with pytest.raises(ServerUnreachableError):
        async with builder.use_server("redis://127.0.0.1:1", "nowhere").compile():
            raise AssertionError("it must not come so far")
    assert opened == ["open", "closed"]


async def enter_workers(t: TestingModule) -> None:
    async with t.run_workers():
        raise AssertionError("it must not come so far")


async def queue_of(t: TestingModule) -> None:
    t.queue("work")


CALLS: dict[str, Callable[[TestingModule], Awaitable[object]]] = {
    "drain()": lambda t: t.drain(),
    "run_job()": lambda t: t.run_job("double", 1),
    "advance()": lambda t: t.advance("1m"),
    "run_workers()": enter_workers,
    "queue('work')": queue_of,
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_testing_module_is_used_in_its_block_only(call: str) -> None:
    t = await with_work().compile()
    with pytest.raises(NotEnteredError, match=r"enter it first, `async with t:`") as before:
        await CALLS[call](t)
    async with t:
        t.queue("work")
    with pytest.raises(NotEnteredError, match=r"after the testing module was closed: do it inside its block") as after:
        await CALLS[call](t)
    assert [(one.value.call, one.value.is_over) for one in (before, after)] == [(call, False), (call, True)]
