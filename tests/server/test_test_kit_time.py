"""`advance`: time passes as if workers ran meanwhile, from one due time to the next."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import pytest

from toril import (
    Inject,
    InjectQueue,
    Job,
    Queue,
    QueueModule,
    ScheduleModule,
    ScheduleRule,
    cron,
    exponential,
    fixed,
    interval,
    module,
    process,
    processor,
)
from toril.modules.tokens import CLOCK
from toril.testing import FakeClock, Test, TestingModule, eventually

START = 1_700_000_000_000


class Log:
    """What happened, and how many seconds after the start (rounded: a rate limit's time passes in the server, too, by itself)."""

    def __init__(self, clock: Annotated[FakeClock, Inject(CLOCK)]) -> None:
        self.clock = clock
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(f"{round((self.clock.now_ms() - START) / 1_000)} {text}")


@processor("left", concurrency=5)
class Left:
    def __init__(self, log: Log, right: Annotated[Queue, InjectQueue("right")]) -> None:
        self.log, self.right = log, right

    @process()
    async def note(self, job: Job) -> None:
        self.log.note(job.name)

    @process("step")
    async def step(self, job: Job[int]) -> None:
        self.log.note(f"step {job.data}")
        if job.data > 1:
            await self.right.add("pass on", job.data - 1, delay="10m")

    @process("fails twice")
    async def fails(self, job: Job) -> None:
        self.log.note(f"try {job.attempts_made + 1}")
        if job.attempts_made < 2:
            raise LookupError

    @process("sleeps")
    async def sleeps(self, job: Job[int]) -> None:
        self.log.note("begins")
        async with asyncio.TaskGroup() as group:  # in a task of its own: the job's task waits for that one
            group.create_task(self.log.clock.sleep(job.data * 1_000))
        self.log.note("ends")

    @process("naps")
    async def naps(self, job: Job[int]) -> None:
        await self.log.clock.sleep(job.data * 1_000)
        self.log.note("awake")

    @process("hangs", timeout="2m")
    async def hangs(self, job: Job) -> None:
        await asyncio.Event().wait()

    @process("real work", timeout="5s")
    def works(self, job: Job) -> str:
        time.sleep(0.3)  # a handler's real work, in its thread
        return "done"


@processor("right")
class Right:
    def __init__(self, log: Log, left: Annotated[Queue, InjectQueue("left")]) -> None:
        self.log, self.left = log, left

    @process("pass on")
    async def pass_on(self, job: Job[int]) -> None:
        self.log.note("passed on")
        await self.left.add("step", job.data)


@module(imports=[QueueModule.register_queue("left", "right")], providers=[Log, Left, Right])
class TimeModule: ...


async def compiled() -> TestingModule:
    return await Test.create_testing_module(imports=[TimeModule]).use_clock(FakeClock(START)).compile()


async def test_what_is_due_on_the_way_runs_at_its_time_and_what_that_adds_too() -> None:
    async with await compiled() as t:
        await t.queue("left").add("now")
        await t.queue("left").add("late", delay="61m")
        await t.queue("left").add("early", delay="90s")
        await t.queue("left").add("step", 3, delay="5m")
        await t.advance("1h")
        assert t.get(Log).lines == [
            "0 now", "90 early", "300 step 3", "900 passed on", "900 step 2", "1500 passed on", "1500 step 1",
        ]  # fmt: skip
        assert t.clock.now_ms() == START + 3_600_000
        await t.advance("1m")
        assert t.get(Log).lines[-1] == "3660 late"


async def test_retries_wait_for_their_backoff() -> None:
    async with await compiled() as t:
        job = await t.queue("left").add("fails twice", attempts=3, backoff=fixed("20m"))
        other = await t.queue("left").add("fails twice", attempts=3, backoff=exponential("30m", jitter=0))
        await t.advance("41m")
        assert t.get(Log).lines == ["0 try 1", "0 try 1", "1200 try 2", "1800 try 2", "2400 try 3"]
        assert (await job.get_state(), await other.get_state()) == ("completed", "delayed")


async def test_a_schedule_runs_each_time_it_is_due() -> None:
    async with await compiled() as t:
        await t.queue("left").job_schedulers.upsert("tick", ScheduleRule(pattern="*/10 * * * *"))
        await t.advance("1h")
        assert [line.split()[1] for line in t.get(Log).lines] == ["tick"] * 6
        times = [int(line.split()[0]) for line in t.get(Log).lines]
        assert {(START // 1_000 + at) % 600 for at in times} == {0}


async def test_a_rate_limit_is_over_when_its_time_is() -> None:
    async with await compiled() as t:
        await t.queue("left").set_global_rate_limit(2, "10s")
        await t.queue("left").add_many([t.queue("left").job(f"{number}") for number in range(5)])
        await t.drain("left")
        assert t.get(Log).lines == ["0 0", "0 1"]  # the others can't run at this moment
        await t.advance("1m")
        ran = [line.split() for line in t.get(Log).lines[2:]]
        assert [name for _, name in ran] == ["2", "3", "4"]
        # The limit is a key's time to live, of which some is over by the server's own clock before anybody asks.
        assert [10 * round(int(seconds) / 10) for seconds, _ in ran] == [10, 10, 20]


@pytest.mark.parametrize("name", ["sleeps", "naps"])
async def test_a_job_that_waits_for_the_clock_runs_once_and_keeps_its_lock(name: str) -> None:
    async with await compiled() as t:
        job = await t.queue("left").add(name, 95)  # three times as long as its lock
        await t.queue("left").add("meanwhile", delay="40s")
        await t.advance("2m")
        await job.refresh()
        assert (await job.get_state(), job.attempts_started) == ("completed", 1)
        assert t.get(Log).lines[-1].startswith("95 ")
        assert "40 meanwhile" in t.get(Log).lines


async def test_a_job_that_needs_more_time_than_is_given_is_put_back() -> None:
    async with await compiled() as t:
        job = await t.queue("left").add("naps", 100)
        await t.advance("99s")
        await job.refresh()
        assert (await job.get_state(), job.attempts_made) == ("waiting", 0)
        await t.advance("100s")
        assert t.get(Log).lines == ["199 awake"]


async def test_in_a_block_of_workers_such_a_job_goes_on() -> None:
    async with await compiled() as t, t.run_workers("left"):
        job = await t.queue("left").add("naps", 100)
        await t.advance("60s")
        assert await job.get_state() == "active"
        await t.advance("40s")
        assert t.get(Log).lines == ["100 awake"]
        await job.refresh()
        assert (await job.get_state(), job.attempts_started) == ("completed", 1)


async def test_a_handler_that_hangs_is_ended_by_its_timeout() -> None:
    async with await compiled() as t:
        job = await t.queue("left").add("hangs")
        await t.advance("119s")
        assert await job.get_state() == "waiting"  # put back, as it would not have ended in this time
        await t.advance("2m")
        await job.refresh()
        assert (await job.get_state(), job.failed_reason) == (
            "failed",
            f"job {job.id} of queue 'left' ran longer than its timeout of 2m",
        )


async def test_time_does_not_pass_while_a_handler_does_real_work() -> None:
    async with await compiled() as t:
        job = await t.queue("left").add("real work", delay="1m")
        await t.advance("1h")
        await job.refresh()
        assert (await job.get_state(), job.finished_at_ms) == ("completed", START + 60_000)


async def test_tasks_of_the_application_that_sleep_wake_at_their_times_and_what_they_add_runs_then() -> None:
    async with await compiled() as t:
        clock = t.get(Log).clock

        async def add_each_quarter() -> None:
            for number in range(3):
                await clock.sleep(900_000)
                await t.queue("left").add(f"quarter {number}")

        async with asyncio.TaskGroup() as group:
            group.create_task(add_each_quarter())
            await eventually(lambda: _is_waiting(clock))
            await t.advance("1h")
        assert t.get(Log).lines == ["900 quarter 0", "1800 quarter 1", "2700 quarter 2"]


def _is_waiting(clock: FakeClock) -> None:
    assert clock.next_due_ms() is not None


class Planned:
    def __init__(self, log: Log) -> None:
        self.log = log

    @cron("*/20 * * * *")
    async def fleet(self) -> None:
        self.log.note("cron")

    @interval("25m", scope="process")
    async def own(self) -> None:
        self.log.note("interval")


async def test_schedules_of_the_fleet_run_always_and_those_of_a_process_while_workers_do() -> None:
    planned = Test.create_testing_module(imports=[TimeModule, ScheduleModule.for_root()], providers=[Planned, Log])
    async with await planned.use_clock(FakeClock(START)).compile() as t:
        log = t.get(Planned).log
        await t.advance("1h")  # from 22:13:20 on
        assert log.lines == ["400 cron", "1600 cron", "2800 cron"]
        log.lines.clear()
        async with t.run_workers():
            await t.advance("1h")
        assert log.lines == ["4000 cron", "5100 interval", "5200 cron", "6400 cron", "6600 interval"]


async def test_the_clock_alone_only_jumps() -> None:
    async with await compiled() as t:
        job = await t.queue("left").add("late", delay="1m")
        t.get(Log).clock.advance("1h")
        assert (await job.get_state(), t.get(Log).lines) == ("delayed", [])
        await t.advance("0s")
        assert t.get(Log).lines == ["3600 late"]


async def test_a_year_without_anything_to_do_passes_in_a_moment() -> None:
    async with await compiled() as t:
        await t.queue("left").add("at the end", delay="300d")
        async with asyncio.timeout(5):
            await t.advance("365d")
        assert t.get(Log).lines == ["25920000 at the end"]


async def test_two_who_move_time_at_once_do_so_one_after_the_other() -> None:
    async with await compiled() as t:
        await t.queue("left").add("hour", delay="1h")
        async with asyncio.TaskGroup() as group:
            group.create_task(t.advance("30m"))
            group.create_task(t.advance("40m"))
        assert t.get(Log).lines == ["3600 hour"]
        assert t.clock.now_ms() == START + 70 * 60_000
