"""Job schedulers that are paused, and the application that declares them."""

from __future__ import annotations

import pytest

from toril import Job, Queue, ScheduleRule, Worker
from toril.errors import SchedulerNotFoundError
from toril.modules.reconciling import Reconciler
from toril.testing import FakeClock
from toril.wire.connection import Server


@pytest.fixture
def schedules(server: Server, prefix: str, clock: FakeClock) -> Queue:
    return Queue("schedules", prefix=prefix, server=server, clock=clock)


async def test_a_paused_schedule_is_not_armed_by_the_application_that_declares_it(schedules: Queue, clock: FakeClock) -> None:
    declared = {"often": ScheduleRule(every="5m"), "gone": ScheduleRule(every="5m")}
    await Reconciler(schedules, "shop", None).reconcile(declared)
    await schedules.job_schedulers.pause("often")
    await schedules.job_schedulers.pause("gone")
    declared.pop("gone")
    again = Reconciler(schedules, "shop", None)
    await again.reconcile(declared)  # a deploy
    await again.look(declared)  # the watchdog
    assert [one.id for one in await schedules.job_schedulers.list()] == []
    assert [one.id for one in await schedules.job_schedulers.list_paused()] == ["often"]  # what vanished is forgotten, paused or not
    job = await schedules.job_schedulers.resume("often")
    assert job is not None
    assert (await schedules.job_schedulers.get("often")).next_ms == clock.now_ms() + 300_000
    assert await schedules.job_schedulers.list_paused() == []
    assert not await again.arm("often", declared["often"])


async def test_a_paused_schedule_keeps_what_it_was(schedules: Queue, clock: FakeClock) -> None:
    schedulers = schedules.job_schedulers
    await schedulers.upsert("a", ScheduleRule(every="1h", limit=3, offset="5m"), name="send", data={"to": "ä"})

    async def nothing(job: Job) -> None: ...

    clock.advance("2h")
    async with Worker(schedules, nothing) as worker:
        await worker.wait_until_idle()
    before = await schedulers.get("a")
    await schedulers.pause("a")
    assert await schedulers.is_paused("a")
    assert (await schedules.get_delayed()) == []
    await schedulers.resume("a")
    after = await schedulers.get("a")
    assert (after.name, after.data, after.every_ms, after.offset_ms) == ("send", {"to": "ä"}, 3_600_000, 300_000)
    assert (before.limit, before.iterations, after.limit) == (3, before.iterations, max(3 - before.iterations, 1))
    assert await schedulers.resume("a") is None
    await schedulers.pause("a")
    await schedulers.upsert("a", ScheduleRule(every="2h"))  # who says it anew lets it go on
    assert not await schedulers.is_paused("a")
    await schedulers.pause("a")
    assert await schedulers.remove("a")
    for call in (schedulers.pause, schedulers.resume):
        with pytest.raises(SchedulerNotFoundError):
            await call("a")
