"""`SchedulerRegistry`: looks at the schedules of an application, and changes them while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import pytest

from toril import (
    DynamicModule,
    QueueModule,
    ScheduleModule,
    SchedulerRegistry,
    ScheduleRule,
    WorkerFactory,
    cron,
    interval,
    module,
    provide,
    timeout,
)
from toril.di import Overrides
from toril.errors import InvalidCronError, InvalidOptionError, UnknownScheduleError
from toril.modules.tokens import CLOCK
from toril.modules.workers import wait_until_idle
from toril.testing import FakeClock, Test, TestingModule, eventually

NOW = 1_700_000_000_000  # 2023-11-14T22:13:20Z
MINUTE = 60_000


class Reports:
    def __init__(self) -> None:
        self.runs: list[str] = []

    @cron("0 0 * * *", tz="Europe/Berlin", name="daily-report")
    async def daily(self) -> None:
        self.runs.append("daily")

    @interval("5m", scope="process")
    def beat(self) -> None: ...

    @timeout("10s")
    def warm_up(self) -> None: ...


class Early:
    """Adds a schedule before the application reconciles."""

    def __init__(self, registry: SchedulerRegistry, reports: Reports) -> None:
        self.registry, self.reports = registry, reports

    async def on_application_bootstrap(self) -> None:
        async def run() -> None:
            self.reports.runs.append("early")

        await self.registry.add("early", ScheduleRule(every="10m"), run)


@module(imports=[ScheduleModule.for_root(owner="tests")], providers=[Reports, Early], exports=[Reports])
class AppModule: ...


@pytest.fixture
async def t() -> AsyncIterator[TestingModule]:
    builder = Test.create_testing_module(imports=[AppModule]).use_clock(FakeClock(NOW))
    async with await builder.compile() as t:
        yield t


@pytest.fixture
def registry(t: TestingModule) -> SchedulerRegistry:
    return t.get(SchedulerRegistry)


async def test_schedules_are_listed_with_their_next_run(registry: SchedulerRegistry) -> None:
    listed = {info.name: (info.scope, info.next_ms) for info in await registry.list()}
    assert listed == {
        "daily-report": ("fleet", NOW + 46 * MINUTE + 40_000),
        "early": ("fleet", NOW + 10 * MINUTE),
        "Reports.beat": ("process", None),  # a testing module runs none of these by itself
        "Reports.warm_up": ("process", None),
    }
    info = await registry.get("daily-report")
    assert info.rule == ScheduleRule(pattern="0 0 * * *", tz="Europe/Berlin")
    assert info.next_at == datetime(2023, 11, 14, 23, tzinfo=UTC)
    assert info.place.startswith("Reports.daily (tests/server/test_schedule_registry.py:")
    with pytest.raises(UnknownScheduleError, match=r"no schedule 'daily-rapport'; did you mean 'daily-report'\?"):
        await registry.get("daily-rapport")
    with pytest.raises(UnknownScheduleError, match=r"there are 'Reports\.beat', "):
        await registry.get("x")


async def test_next_runs_are_told(registry: SchedulerRegistry) -> None:
    assert [run.isoformat() for run in await registry.next_runs("daily-report", 2)] == [
        "2023-11-14T23:00:00+00:00",
        "2023-11-15T23:00:00+00:00",
    ]
    assert [run.minute for run in await registry.next_runs("early", 3)] == [23, 33, 43]
    with pytest.raises(InvalidOptionError, match="count"):
        await registry.next_runs("early", 0)


async def test_what_is_added_at_bootstrap_counts_as_declared(t: TestingModule, registry: SchedulerRegistry) -> None:
    queue = registry.queue
    noted = await queue.server.commands.call("HKEYS", queue.keys.schedules("tests"))
    assert sorted(noted) == [b"declared:daily-report", b"declared:early", b"version"]
    await t.advance("10m")
    await t.drain("schedules")
    assert t.get(Reports).runs == ["early"]


async def test_a_schedule_that_is_added_later_runs_until_it_is_deleted(t: TestingModule, registry: SchedulerRegistry) -> None:
    runs: list[str] = []
    await registry.add("late", "*/2 * * * *", lambda: runs.append("late"))
    assert (await registry.get("late")).next_ms == NOW + 40_000
    await t.advance("1m")
    await t.drain()
    assert runs == ["late"]
    await registry.delete("late")
    assert await registry.queue.job_schedulers.find("late") is None
    await t.advance("10m")
    await t.drain()
    assert runs == ["late"]
    with pytest.raises(UnknownScheduleError):
        await registry.delete("late")


async def test_what_one_process_adds_and_deletes_others_follow(t: TestingModule, registry: SchedulerRegistry) -> None:
    async with await Test.create_testing_module(imports=[AppModule]).use_clock(t.clock).compile() as other:
        theirs = other.get(SchedulerRegistry)
        runs: list[str] = []
        for name, one in (("here", registry), ("there", theirs)):
            await one.add("shared", ScheduleRule(every="1m"), partial(runs.append, name))
            cast("FakeClock", t.clock).advance("20s")
        assert (await theirs.get("shared")).next_ms == NOW + MINUTE  # the second did not move it
        await registry.delete("shared")
        await theirs.look()  # the watchdog leaves it so
        assert await registry.queue.job_schedulers.find("shared") is None
        await theirs.delete("shared")
        await registry.delete("daily-report")
        await theirs.look()
        assert (await theirs.get("daily-report")).next_ms is None


async def test_an_added_schedule_is_watched_and_survives_the_next_start(t: TestingModule, registry: SchedulerRegistry) -> None:
    await registry.add("late", ScheduleRule(every="1m"), print)
    await registry.queue.job_schedulers.remove("late")
    await registry.look()
    assert (await registry.get("late")).next_ms == NOW + MINUTE
    await registry.reconcile()
    assert (await registry.get("late")).next_ms == NOW + MINUTE


async def test_a_fleet_schedule_runs_now_and_its_next_run_stays(t: TestingModule, registry: SchedulerRegistry) -> None:
    job = await registry.run_now("daily-report")
    assert job.name == "daily-report"
    await t.drain("schedules")
    assert t.get(Reports).runs == ["daily"]
    assert await job.get_state() == "completed"
    assert (await registry.get("daily-report")).next_at == datetime(2023, 11, 14, 23, tzinfo=UTC)
    with pytest.raises(InvalidOptionError, match=r"in each process by itself: call Reports\.beat"):
        await registry.run_now("Reports.beat")


async def test_what_cannot_be_added_is_refused(registry: SchedulerRegistry) -> None:
    for error, name, rule, callback in (
        (InvalidOptionError, "early", "@daily", print),
        (InvalidOptionError, "", "@daily", print),
        (InvalidCronError, "new", "61 * * * *", print),
        (InvalidOptionError, "new", ScheduleRule(every="1m", end=datetime(2020, 1, 1, tzinfo=UTC)), print),
        (InvalidOptionError, "new", "@daily", cast("Any", None)),
    ):
        with pytest.raises(error):
            await registry.add(name, rule, callback)
    with pytest.raises(InvalidOptionError, match="scope"):
        await registry.add("new", "@daily", print, scope=cast("Any", "world"))
    assert "new" not in registry.names


async def test_a_running_application_takes_up_what_is_added_of_either_scope(toril_server_url: str, prefix: str) -> None:
    clock, runs = FakeClock(NOW), list[str]()

    @module()
    class Root: ...

    root = DynamicModule(Root, imports=[QueueModule.for_root(url=toril_server_url, prefix=prefix), ScheduleModule.for_root()])
    async with await WorkerFactory.create(root, overrides=Overrides(providers=[provide(CLOCK, use_value=clock)])) as app:
        registry = app.get(SchedulerRegistry)
        await registry.add("fleet", ScheduleRule(every="1m"), lambda: runs.append("fleet"))
        await registry.add("process", ScheduleRule(every="1m", limit=2), lambda: runs.append("process"), scope="process")
        clock.advance("1m")
        await eventually(lambda: _equal(sorted(runs), ["fleet", "process"]))
        clock.advance("1m")
        await eventually(lambda: _equal(sorted(runs), ["fleet", "fleet", "process", "process"]))
        assert (await registry.get("process")).next_ms is None
        await registry.delete("process")
        await registry.delete("fleet")
        clock.advance("1h")
        await wait_until_idle(app.workers)
        assert len(runs) == 4


def _equal(found: object, wanted: object) -> None:
    assert found == wanted


async def test_a_schedule_of_this_process_cannot_be_added_where_nothing_runs_it(toril_server_url: str, prefix: str) -> None:
    @module()
    class Root: ...

    root = DynamicModule(Root, imports=[QueueModule.for_root(url=toril_server_url, prefix=prefix), ScheduleModule.for_root()])
    async with await WorkerFactory.create(root, roles=["producer"]) as app:
        registry = app.get(SchedulerRegistry)
        with pytest.raises(InvalidOptionError, match="only produces"):
            await registry.add("x", "@daily", print, scope="process")
        await registry.add("x", "@daily", print)
        assert (await registry.get("x")).next_ms is not None


async def test_the_queue_can_have_another_name_and_options() -> None:
    builder = Test.create_testing_module(imports=[ScheduleModule.for_root("crons")], providers=[Reports])
    async with await builder.compile() as t:
        assert [scheduler.id for scheduler in await t.queue("crons").job_schedulers.list()] == ["daily-report"]
        await t.drain("crons")
        with pytest.raises(InvalidOptionError, match="queue 'schedules' is not registered"):
            await t.drain("schedules")
