"""Schedules of the fleet: declared at start, run once, watched, and kept apart from those of others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from tests.bench import Bench, gone_wrong
from tests.proxy import Cut, Proxy, is_script, nth
from toril import (
    Application,
    DynamicModule,
    JobLogger,
    Queue,
    QueueModule,
    ScheduleModule,
    ScheduleRule,
    WorkerFactory,
    cron,
    interval,
    module,
    provide,
)
from toril.di import Overrides, Scope
from toril.modules.reconciling import Reconciler
from toril.modules.tokens import CLOCK
from toril.modules.workers import wait_until_idle
from toril.testing import FakeClock, Test, eventually
from toril.wire.commands import shift_ttls
from toril.wire.connection import Server
from toril.wire.scheduler_commands import SchedulerCommands

NOW = 1_700_000_000_000  # 2023-11-14T22:13:20Z
MINUTE = 60_000


class Runs(list[str]):
    """The schedules that ran, by name."""


class Nightly:
    def __init__(self, runs: Runs) -> None:
        self.runs = runs

    @cron("0 0 * * *")
    async def report(self) -> object:
        self.runs.append("report")
        return self  # nothing that JSON can hold

    @interval("5m")
    def beat(self) -> None:
        self.runs.append("beat")


class Later:
    """The same application after a deploy: `report` comes at another time, `beat` as before, `Nightly.old` is new."""

    @cron("0 3 * * *", tz="Europe/Berlin", name="Nightly.report")
    async def report(self) -> None: ...

    @interval("5m", name="Nightly.beat")
    async def beat(self) -> None: ...


class Fewer:
    @interval("5m", name="Nightly.beat")
    async def beat(self) -> None: ...


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def queue(server: Server, prefix: str, clock: FakeClock) -> Queue:
    return Queue("schedules", prefix=prefix, server=server, clock=clock)


Make = Callable[..., Awaitable[Application]]


@pytest.fixture
async def make(toril_server_url: str, prefix: str, clock: FakeClock, runs: Runs) -> AsyncIterator[Make]:
    """Makes applications, which are stopped at the end."""
    async with AsyncExitStack() as stack:

        async def make(
            *providers: object,
            owner: str = "app",
            version: str | None = None,
            url: str = toril_server_url,
            **options: Any,  # noqa: ANN401 -- passed on
        ) -> Application:
            @module()
            class AppModule: ...

            imports = [QueueModule.for_root(url=url, prefix=prefix), ScheduleModule.for_root(owner=owner, version=version)]
            root = DynamicModule(AppModule, imports=imports, providers=[*providers, provide(Runs, use_value=runs)])
            overrides = Overrides(providers=[provide(CLOCK, use_value=clock)])
            app = await WorkerFactory.create(root, overrides=overrides, **options)
            stack.push_async_callback(_stop, app)
            return app

        yield make


async def _stop(app: Application) -> None:
    with contextlib.suppress(Dies):
        await app.stop()


async def deploy(make: Make, *providers: object, **options: Any) -> None:  # noqa: ANN401 -- passed on
    """Start an application and stop it again."""
    app = await make(*providers, **options)
    await app.start()
    await app.stop()


async def next_runs(queue: Queue) -> dict[str, int]:
    """Minutes from NOW on, by schedule."""
    return {scheduler.id: (scheduler.next_ms - NOW) // MINUTE for scheduler in await queue.job_schedulers.list()}


async def lose_pending(queue: Queue, name: str) -> str:
    """Delete the job of a schedule's next run by hand."""
    job_id = f"repeat:{name}:{(await queue.job_schedulers.get(name)).next_ms}"
    call = queue.server.commands.call
    assert await call("ZREM", queue.keys.state("delayed"), job_id) == 1
    await call("DEL", queue.keys.job(job_id))
    return job_id


# ── running ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_ten_applications_that_start_at_once_run_a_cron_once(make: Make, clock: FakeClock, runs: Runs, queue: Queue) -> None:
    apps = [await make(Nightly) for _ in range(10)]
    async with asyncio.TaskGroup() as group:
        for app in apps:
            group.create_task(app.start())
    clock.advance("2h")
    await eventually(lambda: _equal(sorted(set(runs)), ["beat", "report"]))
    await wait_until_idle([worker for app in apps for worker in app.workers])
    assert sorted(runs) == ["beat", "report"]
    assert await next_runs(queue) == {"Nightly.report": 26 * 60 - 13 - 1, "Nightly.beat": 125}
    assert await queue.get_delayed_count() == 2
    assert await queue.get_completed_count() == 2


async def _equal(found: object, wanted: object) -> None:
    assert found == wanted


def _ran(runs: Runs, name: str, times: int) -> None:
    assert runs.count(name) == times


async def test_an_interval_runs_first_after_one_interval(make: Make, clock: FakeClock, runs: Runs, queue: Queue) -> None:
    await (await make(Nightly)).start()
    assert (await next_runs(queue))["Nightly.beat"] == 5
    clock.advance("4m")
    assert "beat" not in runs
    for count in (1, 2):
        clock.advance("5m")
        await eventually(partial(_ran, runs, "beat", count))


async def test_a_schedule_goes_on_after_its_worker_died_between_claim_and_next_iteration(
    make: Make, clock: FakeClock, runs: Runs, queue: Queue, server: Server, prefix: str
) -> None:
    await deploy(make, Nightly)
    clock.advance("5m")
    bench = Bench(server, prefix, "schedules", now=clock.now_ms())
    (dead,) = await bench.claim()
    await shift_ttls(server, prefix, 40_000)  # its lock is gone
    await bench.sweep()
    app = await make(Nightly)
    await app.start()
    assert await bench.sweep() == [dead]
    await eventually(lambda: _equal(runs, ["beat"]))
    assert (await next_runs(queue))["Nightly.beat"] == 10


class Failing:
    @interval("1m")
    def run(self) -> None:
        raise LookupError("no such mailbox")


async def test_a_run_that_fails_is_logged_and_the_next_one_comes(
    make: Make, clock: FakeClock, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    await (await make(Failing)).start()
    for count in (1, 2):
        clock.advance("1m")
        await eventually(partial(_failed, queue, count))
    await eventually(lambda: _equal(len([record for record in caplog.records if "schedule failed" in record.getMessage()]), 2))
    assert "schedule=Failing.run" in caplog.text
    assert "LookupError: no such mailbox" in caplog.text


async def _failed(queue: Queue, count: int) -> None:
    assert await queue.get_failed_count() == count


class Session:
    opened = closed = 0


async def session() -> AsyncIterator[Session]:
    Session.opened += 1
    yield Session()
    Session.closed += 1


class PerRun:
    def __init__(self, log: JobLogger, session: Session, runs: Runs) -> None:
        self.log, self.runs = log, runs
        runs.append(f"made in {session.opened}")

    @cron("@hourly")
    async def run(self) -> None:
        self.log.warning("here")
        self.runs.append("ran")


async def test_row_11_a_job_scoped_class_is_made_for_each_run_and_its_logger_knows_no_job(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    providers = [PerRun, provide(Runs, use_value=runs), provide(Session, use_factory=session, scope=Scope.JOB)]
    builder = Test.create_testing_module(imports=[ScheduleModule.for_root()], providers=providers)
    async with await builder.compile() as t:
        for _ in range(2):
            await t.advance("1h")
            await t.drain("schedules")
        await t.advance("1h")
        await t.drain()
    assert runs == ["made in 1", "ran", "made in 2", "ran", "made in 3", "ran"]
    assert Session.closed == 3
    (line, *_) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("here")]
    assert line == "here queue=schedules queue_event=PerRun.run"


# ── reconciling ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_deploy_changes_what_changed_removes_what_vanished_and_leaves_the_rest_alone(
    make: Make, clock: FakeClock, queue: Queue, server: Server
) -> None:
    await deploy(make, Nightly)
    clock.advance("2m")
    await deploy(make, Later)
    assert await next_runs(queue) == {"Nightly.beat": 5, "Nightly.report": 4 * 60 - 13 - 1}
    report = await queue.job_schedulers.get("Nightly.report")
    assert (report.pattern, report.tz) == ("0 3 * * *", "Europe/Berlin")
    await deploy(make, Fewer)
    assert await next_runs(queue) == {"Nightly.beat": 5}
    assert [job.name for job in await queue.get_delayed()] == ["Nightly.beat"]
    noted = await server.commands.call("HKEYS", queue.keys.schedules("app"))
    assert sorted(noted) == [b"declared:Nightly.beat", b"version"]


async def test_a_changed_interval_runs_first_after_one_new_interval(make: Make, clock: FakeClock, queue: Queue) -> None:
    class Hourly:
        @interval("1h", name="Nightly.beat")
        async def beat(self) -> None: ...

    await deploy(make, Fewer)
    clock.advance("2m")
    await deploy(make, Hourly)
    assert await next_runs(queue) == {"Nightly.beat": 62}
    assert await queue.get_delayed_count() == 1


async def test_a_vanished_schedule_that_is_due_does_not_run_any_more(make: Make, clock: FakeClock, queue: Queue) -> None:
    await deploy(make, Nightly)
    for job in await queue.get_delayed():
        await job.promote()
    await deploy(make)
    assert await next_runs(queue) == {}
    assert await queue.count() == 0


async def test_a_lower_version_leaves_the_schedules_alone_and_says_so(
    make: Make, queue: Queue, caplog: pytest.LogCaptureFixture, clock: FakeClock, runs: Runs
) -> None:
    await deploy(make, Later, version="1.10")
    expected = await next_runs(queue)
    for lower in ("1.9", "abc", None):
        caplog.clear()
        app = await make(Nightly, version=lower)
        await app.start()
        assert await next_runs(queue) == expected
        assert "a higher version of this application has declared its own" in caplog.text
        if lower is not None:
            await app.stop()
    clock.advance("5m")  # the last one still runs what is due
    await eventually(lambda: _equal(runs, ["beat"]))
    await deploy(make, Fewer, version="v1.10.0")  # the same
    assert list(await next_runs(queue)) == ["Nightly.beat"]


async def test_an_old_watchdog_does_not_bring_back_what_a_newer_version_removed(make: Make, clock: FakeClock, queue: Queue) -> None:
    old = await make(Nightly, version="1")
    await old.start()
    await deploy(make, Later, version="2")
    await lose_pending(queue, "Nightly.report")  # whose rule is no longer that of the old one
    await queue.job_schedulers.remove("Nightly.beat")  # which both declare
    clock.advance("1m")
    await eventually(lambda: _armed(queue, "Nightly.beat"))
    report = await queue.job_schedulers.get("Nightly.report")
    assert await queue.find_job(f"repeat:Nightly.report:{report.next_ms}") is None


async def _armed(queue: Queue, name: str) -> None:
    scheduler = await queue.job_schedulers.find(name)
    assert scheduler is not None
    assert await queue.find_job(f"repeat:{name}:{scheduler.next_ms}") is not None


async def test_two_owners_on_one_queue_do_not_touch_each_other(make: Make, queue: Queue) -> None:
    class Other:
        @interval("7m")
        async def run(self) -> None: ...

    await deploy(make, Nightly, owner="one")
    await deploy(make, Other, owner="two")
    await queue.job_schedulers.upsert("by hand", ScheduleRule(every="1h"))
    await deploy(make, owner="two")
    assert sorted(await next_runs(queue)) == ["Nightly.beat", "Nightly.report", "by hand"]
    await deploy(make, owner="one")
    assert list(await next_runs(queue)) == ["by hand"]


class Dies(Exception):
    pass


@pytest.mark.parametrize("step", [0, 1, 2, 3])
async def test_a_process_that_dies_while_it_reconciles_loses_track_of_nothing(
    make: Make, clock: FakeClock, queue: Queue, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    await deploy(make, Nightly)
    app = await make(Later, Extra)
    steps = 0

    def dying(real: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401 -- passed on
            nonlocal steps
            if steps >= step:
                raise Dies  # from now on nothing of it reaches the server, as if it had been killed
            steps += 1
            return await real(*args, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Reconciler, "arm", dying(Reconciler.arm))
        patch.setattr(Reconciler, "remove", dying(Reconciler.remove))
        patch.setattr(SchedulerCommands, "settle_schedules", dying(SchedulerCommands.settle_schedules))
        with pytest.raises(Dies):
            await app.start()
    clock.advance("20s")  # its turn counts as over
    await deploy(make, Fewer)
    assert list(await next_runs(queue)) == ["Nightly.beat"]


@pytest.mark.parametrize("script", ["declare_schedules", "upsert_scheduler", "remove_scheduler", "settle_schedules"])
@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER])
async def test_a_reconciling_whose_replies_are_lost_comes_to_its_end(
    make: Make, queue: Queue, toril_server_url: str, script: str, cut: Cut
) -> None:
    await deploy(make, Nightly, Extra)
    async with Proxy(toril_server_url) as proxy:
        app = await make(Later, url=proxy.url)
        proxy.decide = nth(1, is_script(script), cut)
        await app.start()
        assert proxy.cuts == 1
        await app.stop()
    assert await next_runs(queue) == {"Nightly.beat": 5, "Nightly.report": 4 * 60 - 13 - 1}
    assert await queue.get_delayed_count() == 2


class Extra:
    @cron("@weekly")
    async def extra(self) -> None: ...


# ── watching ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_watchdog_arms_again_what_has_no_next_run_and_names_it(
    make: Make, clock: FakeClock, runs: Runs, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    await (await make(Nightly)).start()
    lost = await lose_pending(queue, "Nightly.beat")
    await queue.job_schedulers.remove("Nightly.report")
    clock.advance("1m")
    await eventually(lambda: _armed(queue, "Nightly.beat"))
    await eventually(lambda: _armed(queue, "Nightly.report"))
    lines = [record.getMessage() for record in caplog.records if "armed again" in record.getMessage()]
    assert any("schedule=Nightly.beat" in line and "its next job was missing" in line for line in lines)
    assert any("schedule=Nightly.report" in line and "its record was missing" in line for line in lines)
    assert (await queue.get_job(lost)).name == "Nightly.beat"  # at the very time
    clock.advance("4m")
    await eventually(lambda: _equal(runs, ["beat"]))


async def test_the_watchdog_arms_a_schedule_whose_run_was_failed_from_outside_and_leaves_a_running_one_alone(
    make: Make, clock: FakeClock, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    app = await make(Nightly, roles=["worker"])  # nothing of it claims
    await app.start()
    await deploy(make, Nightly)
    clock.advance("5m")
    bench = Bench(queue.server, queue.prefix, "schedules", now=clock.now_ms())
    (claimed,) = await bench.claim()
    watching = await make(Fewer)
    await watching.start()
    clock.advance("1m")
    await wait_until_idle(watching.workers)
    assert "armed again" not in caplog.text
    await bench.turn(gone_wrong(claimed))
    clock.advance("1m")
    await eventually(lambda: _contains(caplog.text, "its next job has failed and nothing followed"))
    assert await next_runs(queue) == {"Nightly.beat": 10}
    await _armed(queue, "Nightly.beat")


async def _contains(text: str, part: str) -> None:
    assert part in text


async def test_a_server_that_lost_everything_gets_the_schedules_again(make: Make, clock: FakeClock, queue: Queue, server: Server) -> None:
    await (await make(Nightly)).start()
    for name in ("Nightly.beat", "Nightly.report"):
        await queue.job_schedulers.remove(name)
    await server.commands.call("DEL", queue.keys.schedules("app"))
    clock.advance("1m")
    await eventually(lambda: _armed(queue, "Nightly.report"))
    await eventually(lambda: _armed(queue, "Nightly.beat"))


# ── roles ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_only_a_scheduler_declares_and_runs_schedules(make: Make, queue: Queue) -> None:
    for roles in (["producer"], ["worker"]):
        app = await make(Nightly, roles=roles)
        await app.start()
        assert app.workers == ()
        assert await next_runs(queue) == {}
    scheduler = await make(Nightly, roles=["scheduler"], queues=[])
    await scheduler.start()
    assert [worker.queue.name for worker in scheduler.workers] == ["schedules"]
    assert len(await next_runs(queue)) == 2
    clients: bytes = await queue.server.commands.call("CLIENT", "LIST")
    assert clients.count(b"name=" + queue.keys.client_name().encode() + b":w:") == 1  # one worker waits
