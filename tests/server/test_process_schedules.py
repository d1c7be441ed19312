"""Schedules that each process has for itself, and timeouts: when they run, what an error does, how they stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from toril import (
    Application,
    DynamicModule,
    JobLogger,
    QueueModule,
    ScheduleModule,
    SchedulerRegistry,
    WorkerFactory,
    cron,
    interval,
    module,
    provide,
    timeout,
)
from toril.application import ApplicationState
from toril.di import Overrides
from toril.modules.tokens import CLOCK
from toril.testing import FakeClock, eventually

NOW = 1_700_000_000_000  # 2023-11-14T22:13:20Z


class Runs(list[str]):
    """What ran."""


class Gate:
    """Where a run waits."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        self.in_thread = threading.Event()
        self.thread_reached = threading.Event()


@pytest.fixture
def runs() -> Runs:
    return Runs()


Make = Callable[..., Awaitable[Application]]


@pytest.fixture
async def make(toril_server_url: str, prefix: str, clock: FakeClock, runs: Runs) -> AsyncIterator[Make]:
    """Makes and starts applications, which are stopped at the end."""
    async with AsyncExitStack() as stack:

        async def make(*providers: object, **options: Any) -> Application:  # noqa: ANN401 -- passed on
            @module()
            class AppModule: ...

            imports = [QueueModule.for_root(url=toril_server_url, prefix=prefix), ScheduleModule.for_root()]
            root = DynamicModule(AppModule, imports=imports, providers=[*providers, Gate, provide(Runs, use_value=runs)])
            app = await WorkerFactory.create(root, overrides=Overrides(providers=[provide(CLOCK, use_value=clock)]), **options)
            stack.push_async_callback(app.stop)
            return await app.start()

        yield make


async def ran(runs: Runs, *expected: str) -> None:
    def probe() -> None:
        assert sorted(runs) == sorted(expected)

    await eventually(probe)
    runs.clear()


class Local:
    def __init__(self, runs: Runs) -> None:
        self.runs = runs

    @interval("1m", scope="process")
    async def tick(self) -> None:
        self.runs.append("tick")

    @cron("0 * * * *", scope="process")
    def hourly(self) -> None:
        self.runs.append(f"hourly in {'main' if threading.current_thread() is threading.main_thread() else 'a thread'}")

    @timeout("90s")
    async def late(self) -> None:
        self.runs.append("late")


async def test_each_process_runs_them_by_its_clock_and_the_server_knows_nothing(make: Make, clock: FakeClock, runs: Runs) -> None:
    apps = [await make(Local), await make(Local, roles=["worker"])]
    clock.advance("59s")
    clock.advance("1s")
    await ran(runs, "tick", "tick")
    clock.advance("30s")
    await ran(runs, "late", "late")
    clock.advance("30s")
    await ran(runs, "tick", "tick")
    clock.advance("1h")  # a timeout runs once, and slots that were missed are skipped
    await ran(runs, "tick", "tick", "hourly in a thread", "hourly in a thread")
    assert await apps[0].queue("schedules").job_schedulers.list() == []


async def test_a_process_that_only_produces_runs_none(make: Make, clock: FakeClock, runs: Runs) -> None:
    app = await make(Local, roles=["producer"])
    assert app.workers == ()
    clock.advance("2h")
    await app.stop()
    assert runs == []


class Slow:
    def __init__(self, runs: Runs, gate: Gate) -> None:
        self.runs, self.gate = runs, gate

    @interval("1m", scope="process")
    async def slow(self) -> None:
        self.runs.append("begun")
        self.gate.reached.set()
        try:
            await self.gate.opened.wait()
        except asyncio.CancelledError:
            self.runs.append("cancelled")
            raise
        self.runs.append("ended")


async def test_an_interval_does_not_overlap_itself(make: Make, clock: FakeClock, runs: Runs) -> None:
    app = await make(Slow)
    clock.advance("1m")
    gate = app.get(Gate)
    await gate.reached.wait()
    clock.advance("150s")  # two more are due
    gate.opened.set()
    await ran(runs, "begun", "ended")
    assert (await app.get(SchedulerRegistry).get("Slow.slow")).next_ms == NOW + 240_000
    clock.advance("30s")
    await ran(runs, "begun", "ended")


async def test_a_run_that_is_under_way_may_end_at_stop(make: Make, clock: FakeClock, runs: Runs) -> None:
    app = await make(Slow)
    clock.advance("1m")
    gate = app.get(Gate)
    await gate.reached.wait()
    async with asyncio.TaskGroup() as group:
        group.create_task(app.stop())
        await eventually(lambda: _is(app.state, ApplicationState.STOPPING))
        gate.opened.set()
    assert runs == ["begun", "ended"]
    assert app.left_behind == 0


def _is(found: object, wanted: object) -> None:
    assert found is wanted


@pytest.mark.parametrize("is_forced", [True, False])
async def test_a_run_that_does_not_end_is_cancelled_after_the_shutdown_timeout_or_at_once_by_force(
    make: Make, clock: FakeClock, runs: Runs, is_forced: bool
) -> None:
    app = await make(Slow, shutdown_timeout="10s")
    clock.advance("1m")
    await app.get(Gate).reached.wait()
    async with asyncio.TaskGroup() as group:
        group.create_task(app.stop())
        await eventually(lambda: _is(app.state, ApplicationState.STOPPING))
        if is_forced:
            app.ask_to_stop(force=True)
        else:
            await eventually(partial(_cancelled_in_time, clock, runs))
    assert runs == ["begun", "cancelled"]
    assert app.left_behind == 0


def _cancelled_in_time(clock: FakeClock, runs: Runs) -> None:
    clock.advance("10s")  # again and again: the stop may not have come to where it waits
    assert "cancelled" in runs


class Blocks:
    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    @timeout("1s")
    def block(self) -> None:
        self.gate.thread_reached.set()
        self.gate.in_thread.wait(20)


async def test_a_thread_that_does_not_end_is_left_behind(make: Make, clock: FakeClock) -> None:
    app = await make(Blocks)
    gate = app.get(Gate)
    clock.advance("1s")
    await eventually(lambda: _is(gate.thread_reached.is_set(), True))
    app.ask_to_stop(force=True)
    await app.stop()
    assert app.left_behind == 1
    gate.in_thread.set()
    await eventually(lambda: _is(app.left_behind == 0, True))


class Failing:
    def __init__(self, runs: Runs, log: JobLogger) -> None:
        self.runs, self.log = runs, log

    @interval("1m", scope="process", name="fails")
    async def run(self) -> None:
        self.runs.append("ran")
        self.log.warning("here")
        raise [LookupError("no mailbox"), SystemExit(3), asyncio.CancelledError()][len(self.runs) - 1]


def _logged(caplog: pytest.LogCaptureFixture, times: int) -> None:
    assert caplog.text.count("schedule failed") == times


async def test_what_a_run_raises_is_logged_and_ends_nothing(
    make: Make, clock: FakeClock, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    app = await make(Failing)
    for count in (1, 2, 3):
        clock.advance("1m")
        await eventually(partial(_logged, caplog, count))
    assert caplog.text.count("schedule=fails") == 3
    assert "LookupError: no mailbox" in caplog.text
    assert "here queue=schedules queue_event=fails" in caplog.text
    assert len(runs) == 3
    assert app.is_ready
