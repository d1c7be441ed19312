"""What a test leaves behind: a testing module tells when it is closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest

from toril import Inject, Job, QueueModule, module, process, processor, provide
from toril.modules.tokens import SERVER
from toril.testing import LeakError, Test, TestingModule
from toril.wire.connection import Connection, Server
from toril.wire.keys import QueueKeys


class Background:
    """Starts a task; whether it stops it is the test's choice."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        self.stops = False

    async def on_module_init(self) -> None:
        self.tasks.append(asyncio.create_task(asyncio.Event().wait(), name="background"))

    async def on_module_destroy(self) -> None:
        if self.stops:
            self.tasks[0].cancel()


class Listening:
    """Opens a connection of its own to the module's server."""

    def __init__(self, server: Annotated[Server, Inject(SERVER)]) -> None:
        self.connection: Connection = server.connection(QueueKeys("bull", "q"), "listening")


RELEASED = threading.Event()


@processor("slow")
class Slow:
    def __init__(self) -> None:
        self.started = asyncio.Event()

    @process("ends")
    async def ends(self, job: Job) -> None: ...

    @process("blocks")
    def blocks(self, job: Job) -> None:
        RELEASED.wait()


@module(imports=[QueueModule.register_queue("slow")], providers=[Background, Listening, Slow])
class LeakyModule: ...


async def compiled() -> TestingModule:
    return await Test.create_testing_module(imports=[LeakyModule]).compile()


async def test_a_task_that_a_hook_has_started_and_nobody_ends_is_told_once() -> None:
    t = await compiled()
    background = t.get(Background)
    with pytest.raises(LeakError) as caught:
        async with t:
            pass
    background.tasks[0].cancel()
    [leak] = caught.value.leaks
    assert leak.startswith("the task 'background', which runs Event.wait (")
    assert "Stop it in on_module_destroy" in str(caught.value)
    await t.close()


async def test_nothing_is_told_of_what_ends_with_the_module_or_was_not_begun_by_it() -> None:
    own = asyncio.create_task(asyncio.Event().wait())
    async with await compiled() as t:
        t.get(Background).stops = True
        await t.run_job("ends", {})
        later = asyncio.create_task(asyncio.Event().wait())
        async with t.run_workers():
            await t.advance("1h")
    for task in (own, later):
        task.cancel()


async def test_a_connection_that_is_left_open_is_told() -> None:
    t = await compiled()
    connection = t.get(Listening).connection
    t.get(Background).stops = True
    with pytest.raises(LeakError, match=r"<Connection to .* as listening> is open"):
        async with t:
            await connection.connect()
    await connection.aclose()


async def test_what_goes_wrong_in_the_test_itself_comes_first() -> None:
    t = await compiled()
    background = t.get(Background)
    with pytest.raises(LookupError, match="mine") as caught:
        async with t:
            raise LookupError("mine")
    assert "the task 'background'" in caught.value.__notes__[0]
    background.tasks[0].cancel()


async def test_closing_while_workers_run_is_told() -> None:
    t = await compiled()
    await t.init()
    t.get(Background).stops = True
    with pytest.raises(LeakError, match="the worker of queue 'slow' still runs: leave the `run_workers` block first"):
        async with t.run_workers():
            await t.close()


async def test_a_handler_that_would_not_end_is_told_with_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toril.testing.crew.LONG_WAIT_S", 0.1)
    monkeypatch.setattr("toril.testing.crew.STOP_WAIT_S", 0.1)
    t = await compiled()
    await t.init()
    t.get(Background).stops = True
    await t.queue("slow").add("blocks", {})
    try:
        await t.advance("1m")
        with pytest.raises(LeakError) as caught:
            await t.close()
    finally:
        RELEASED.set()
    first, second = caught.value.leaks
    assert first.startswith("the handler of job 1 'blocks' of queue 'slow', attempt 1, handled by Slow.blocks")
    assert second == "job 1 of queue 'slow' is still active, and its lock held"


async def test_a_generator_that_ends_its_task_at_the_end_is_no_leak() -> None:
    async def ticking() -> AsyncIterator[asyncio.TaskGroup]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(asyncio.Event().wait())
            yield group
            task.cancel()

    ticker = Test.create_testing_module(providers=[provide(asyncio.TaskGroup, use_factory=ticking)])
    async with await ticker.compile():
        pass
