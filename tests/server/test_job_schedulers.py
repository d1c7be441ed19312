"""Job schedulers: made, changed, followed by workers, removed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from tests.proxy import Cut, Proxy, is_script, nth
from toril import DelayedError, Job, JobOptions, Queue, Worker, WorkerOptions
from toril.errors import InvalidCronError, InvalidOptionError, SchedulerNotFoundError
from toril.queues.job_schedulers import ScheduleRule
from toril.queues.states import JobState
from toril.testing import FakeClock, eventually
from toril.wire.connection import Server

START = 1_700_000_000_000  # 2023-11-14T22:13:20Z


@pytest.fixture
def queue(server: Server, prefix: str, clock: FakeClock) -> Queue:
    return Queue("ticks", prefix=prefix, server=server, clock=clock)


async def run_due(queue: Queue) -> list[Job]:
    """Run what is due now."""
    ran: list[Job] = []

    async def handle(job: Job) -> None:
        ran.append(job)

    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
    return ran


async def test_an_interval_runs_at_once_and_then_once_an_interval(queue: Queue, clock: FakeClock) -> None:
    first = await queue.job_schedulers.upsert("beat", ScheduleRule(every="1m"), name="tick", data={"n": 1}, options=JobOptions(attempts=2))
    assert (first.id, first.name, first.data, first.options.attempts) == (f"repeat:beat:{START}", "tick", {"n": 1}, 2)
    for _ in range(3):
        ran = await run_due(queue)
        assert [(job.name, job.data, job.options.attempts) for job in ran] == [("tick", {"n": 1}, 2)]
        clock.advance("1m")
    scheduler = await queue.job_schedulers.get("beat")
    assert (scheduler.every_ms, scheduler.iterations, scheduler.next_ms) == (60_000, 4, START + 180_000)


async def test_slots_that_were_missed_are_skipped(queue: Queue, clock: FakeClock) -> None:
    await queue.job_schedulers.upsert("beat", ScheduleRule(every="1m"))
    await run_due(queue)
    clock.advance("1h")
    assert len(await run_due(queue)) == 1


async def test_a_pattern_runs_when_its_time_comes(queue: Queue, clock: FakeClock) -> None:
    rule = ScheduleRule(pattern="0 3 * * *", tz="Europe/Berlin", limit=2)
    first = await queue.job_schedulers.upsert("nightly", rule, name="report")
    assert await first.get_state() == "delayed"
    assert await run_due(queue) == []
    for _ in range(3):
        clock.advance("1d")
        await run_due(queue)
    scheduler = await queue.job_schedulers.get("nightly")
    assert (scheduler.pattern, scheduler.tz, scheduler.limit, scheduler.iterations) == ("0 3 * * *", "Europe/Berlin", 2, 2)
    assert await queue.get_completed_count() == 2
    assert await queue.get_delayed_count() == 0


async def test_a_changed_rule_replaces_the_job_that_waits(queue: Queue) -> None:
    rule = ScheduleRule(every="1h", start=datetime.fromtimestamp(START / 1_000, UTC) + timedelta(minutes=5))
    old = await queue.job_schedulers.upsert("beat", rule)
    new = await queue.job_schedulers.upsert("beat", ScheduleRule(every="2h", offset="10m"))
    assert await queue.find_job(old.id) is None
    assert [job.id for job in await queue.get_delayed()] == [new.id]
    assert (await queue.job_schedulers.get("beat")).every_ms == 7_200_000


async def test_the_same_rule_again_changes_nothing_but_the_template(queue: Queue, clock: FakeClock) -> None:
    rule = ScheduleRule(pattern="0 0 * * *")
    first = await queue.job_schedulers.upsert("daily", rule, data={"v": 1})
    clock.advance("1h")
    second = await queue.job_schedulers.upsert("daily", rule, data={"v": 2})
    assert (first.id, second.data) == (second.id, {"v": 2})
    assert await queue.count() == 1


async def test_ten_replicas_that_declare_the_same_schedule_run_it_once(server: Server, prefix: str, clock: FakeClock) -> None:
    queues = [Queue("ticks", prefix=prefix, server=server, clock=clock) for _ in range(10)]
    for queue in queues:
        await queue.job_schedulers.upsert("daily", ScheduleRule(pattern="0 0 * * *"))
    clock.advance("2h")
    assert sum([len(await run_due(queue)) for queue in queues]) == 1


async def test_a_worker_that_dies_after_the_claim_does_not_end_the_schedule(queue: Queue, clock: FakeClock) -> None:
    await queue.job_schedulers.upsert("beat", ScheduleRule(every="1m"))
    job = (await queue.get_waiting())[0]
    assert await queue.job_schedulers.follow(job) == f"repeat:beat:{START + 60_000}"
    assert await queue.job_schedulers.follow(job) is None  # a retry, or a run after a crash
    clock.advance("1m")
    assert len(await run_due(queue)) == 2


async def test_an_iteration_is_put_back_while_the_next_one_cannot_be_added(toril_server_url: str, server: Server, prefix: str) -> None:
    async with Proxy(toril_server_url) as proxy, Server(proxy.url, patience_ms=0) as shaky:
        queue = Queue("ticks", prefix=prefix, server=shaky)
        await queue.job_schedulers.upsert("beat", ScheduleRule(every="1h"))
        proxy.decide = nth(1, is_script("next_iteration"), Cut.BEFORE)
        ran: list[str] = []

        async def handle(job: Job) -> None:
            ran.append(job.id)

        async with Worker(queue, handle, WorkerOptions(concurrency=1)):
            await eventually(lambda: _check(len(ran) == 1))
        steady = Queue("ticks", prefix=prefix, server=server)
        assert await steady.get_delayed_count() == 1
        assert (await steady.get_job(ran[0])).attempts_made == 1


def _check(holds: bool) -> None:
    assert holds


async def test_a_removed_scheduler_takes_its_delayed_job_along(queue: Queue) -> None:
    await queue.job_schedulers.upsert("daily", ScheduleRule(pattern="0 0 * * *"))
    assert await queue.job_schedulers.remove("daily")
    assert not await queue.job_schedulers.remove("daily")
    assert await queue.count() == 0
    assert await queue.job_schedulers.find("daily") is None
    with pytest.raises(SchedulerNotFoundError):
        await queue.job_schedulers.get("daily")


async def test_schedulers_are_listed_by_their_next_time(queue: Queue) -> None:
    await queue.job_schedulers.upsert("late", ScheduleRule(pattern="0 0 1 1 *"))
    await queue.job_schedulers.upsert("soon", ScheduleRule(pattern="* * * * *"))
    assert [scheduler.id for scheduler in await queue.job_schedulers.list()] == ["soon", "late"]
    assert [scheduler.id for scheduler in await queue.job_schedulers.list(0, 0, ascending=False)] == ["late"]


@pytest.mark.parametrize(
    ("fields", "option"),
    [
        ({}, "every, pattern"),
        ({"every": "1m", "pattern": "* * * * *"}, "every, pattern"),
        ({"every": "0s"}, "every"),
        ({"every": "1m", "tz": "UTC"}, "tz"),
        ({"pattern": "0 3 * * *", "offset": "5s"}, "offset"),
        ({"every": "1m", "offset": "5 of them"}, "offset"),
        ({"pattern": "* * * * *", "limit": 0}, "limit"),
        ({"every": "1m", "immediately": True}, "immediately"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(fields: dict[str, object], option: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        ScheduleRule(**fields)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # of any kind
    assert caught.value.option == option


async def test_what_cannot_be_scheduled_is_refused(queue: Queue, clock: FakeClock) -> None:
    with pytest.raises(InvalidCronError):
        ScheduleRule(pattern="61 * * * *")
    with pytest.raises(InvalidOptionError) as caught:
        await queue.job_schedulers.upsert("x", ScheduleRule(every="1m"), options=JobOptions(job_id="mine"))
    assert caught.value.option == "job_id"
    passed = ScheduleRule(every="1m", end=datetime.fromtimestamp(START / 1_000, UTC))
    with pytest.raises(InvalidOptionError) as caught:
        await queue.job_schedulers.upsert("x", passed)
    assert caught.value.option == "end"
    too_early = ScheduleRule(pattern="0 3 * * *", end=datetime.fromtimestamp(START / 1_000, UTC) + timedelta(minutes=1))
    with pytest.raises(InvalidOptionError) as caught:
        await queue.job_schedulers.upsert("x", too_early)
    assert caught.value.option == "end"
    assert await queue.job_schedulers.list() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("count", "x"), ("limit", "many"), ("endDate", {}), ("startDate", []), ("prevMillis", "then"), ("priority", "high")],
)
async def test_an_iteration_whose_rule_holds_no_number_where_one_belongs_runs_all_the_same(
    queue: Queue, server: Server, clock: FakeClock, field: str, value: object
) -> None:
    """Whoever wrote it so: the worker goes on, and the job is run and not failed."""
    job = await queue.job_schedulers.upsert("tick", ScheduleRule(pattern="0 * * * *"))
    opts = json.loads(job.record.opts)
    (opts if field in ("prevMillis", "priority") else opts["repeat"])[field] = value
    await server.commands.call("HSET", queue.keys.job(job.id), "opts", json.dumps(opts))
    clock.advance("1h")
    ran: list[str] = []

    async def handle(job: Job) -> None:
        ran.append(job.id)

    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
    assert ran == [job.id]
    assert await job.get_state() == "completed"


@pytest.mark.parametrize("is_running", [True, False])
async def test_a_run_that_was_promoted_stays_what_it_is_when_its_scheduler_is_changed(queue: Queue, is_running: bool) -> None:
    """Its time is the pattern's next one still, where BullMQ writes the new run over it."""
    rule = ScheduleRule(pattern="*/20 * * * * *")
    first = await queue.job_schedulers.upsert("beat", rule)
    await first.promote()
    seen: list[Job] = []

    async def handle(job: Job) -> None:
        if is_running:
            seen.append(await queue.job_schedulers.upsert("beat", rule, data={"new": True}))
            assert await job.get_state() == "active"

    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
    if not is_running:
        seen.append(await queue.job_schedulers.upsert("beat", rule, data={"new": True}))
    assert await first.get_state() == "completed"
    [after] = seen
    assert (after.data, await after.get_state(), int(after.id.split(":")[-1])) == (
        {"new": True},
        "delayed",
        int(first.id.split(":")[-1]) + 20_000,
    )
    assert [job.id for job in await queue.get_delayed()] == [after.id]


async def test_a_pattern_does_not_run_after_its_end(queue: Queue, clock: FakeClock) -> None:
    end = datetime.fromtimestamp(START / 1_000, UTC) + timedelta(seconds=90)
    await queue.job_schedulers.upsert("beat", ScheduleRule(pattern="* * * * *", end=end))
    ran = 0
    for _ in range(4):
        clock.advance("1m")
        ran += len(await run_due(queue))
    assert ran == 1
    assert await queue.count() == 0


async def test_an_offset_stays_only_as_long_as_the_rule_that_it_came_from(queue: Queue, clock: FakeClock) -> None:
    async def offset_after(rule: ScheduleRule) -> int | None:
        await queue.job_schedulers.upsert("beat", rule)
        return (await queue.job_schedulers.get("beat")).offset_ms

    clock.advance("20s")
    ran_out = ScheduleRule(every="1m", limit=1)
    first = await offset_after(ran_out)
    assert first == clock.now_ms() % 60_000
    assert len(await run_due(queue)) == 1
    clock.advance("1s")
    assert await offset_after(ScheduleRule(every="1m")) == first
    assert await offset_after(ran_out) == first
    clock.advance("2m")
    assert len(await run_due(queue)) == 1
    assert await offset_after(ScheduleRule(pattern="* * * * *")) == 0


async def test_a_run_that_stands_in_two_states_is_taken_out_of_the_first_one(queue: Queue, server: Server, clock: FakeClock) -> None:
    """With BullMQ it stands so after a pattern began at once a second time in the same ms; BullMQ takes it out of one, too."""
    at_once = ScheduleRule(pattern="0 * * * *", immediately=True)
    first = await queue.job_schedulers.upsert("beat", at_once)

    async def handle(job: Job) -> None:
        raise DelayedError("5m")

    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
    second = await queue.job_schedulers.upsert("beat", at_once, options=JobOptions(priority=2))
    assert second.id == f"repeat:beat:{START // 3_600_000 * 3_600_000 + 3_600_000}"  # ours leaves the first one alone
    await server.commands.call("ZREM", queue.keys.state("delayed"), second.id)
    await server.commands.call("DEL", queue.keys.job(second.id))
    await server.commands.call("ZADD", queue.keys.schedulers, START, "beat")  # as BullMQ would leave it
    await server.commands.call("ZADD", queue.keys.state("prioritized"), 2 << 32, first.id)
    again = await queue.job_schedulers.upsert("beat", ScheduleRule(pattern="30 * * * *"))
    assert await queue.get_job_counts("delayed", "prioritized") == {"delayed": 1, "prioritized": 1}
    assert [job.id for job in await queue.get_delayed()] == [again.id]
    clock.advance("1h")
    assert [job.id for job in await run_due(queue)] == [again.id]  # what is left has no job behind it


async def test_a_template_holds_what_was_said_and_no_default(queue: Queue, server: Server) -> None:
    rule = ScheduleRule(every="1m", offset="0s")
    first = await queue.job_schedulers.upsert("beat", rule, options=JobOptions(priority=3))
    record = await server.commands.call("HGET", queue.keys.scheduler("beat"), "opts")
    assert (record, b"attempts" in first.record.opts, b"offset" in first.record.opts) == (b'{"priority":3}', False, False)


@pytest.mark.parametrize(("options", "state"), [(JobOptions(), "waiting"), (JobOptions(priority=3), "prioritized")])
async def test_cleaning_leaves_a_schedulers_next_run_and_takes_earlier_ones(
    queue: Queue, clock: FakeClock, options: JobOptions, state: JobState
) -> None:
    first = await queue.job_schedulers.upsert("beat", ScheduleRule(every="1m"), options=options)
    assert await queue.clean("0s", state=state) == []

    async def handle(job: Job) -> None:
        raise DelayedError("5m")  # so that it waits for its second start beside the next run

    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
    clock.advance("1m")
    second = f"repeat:beat:{START + 60_000}"
    assert await queue.clean("0s", state="delayed") == [first.id]
    assert await queue.promote_jobs() == 1
    assert await queue.clean("0s", state="waiting") == []
    assert await queue.find_state(second) == "waiting"
    assert await queue.job_schedulers.remove("beat")
    assert await queue.clean("0s", state="waiting") == [second]


@pytest.mark.parametrize("rule", [ScheduleRule(every="1m", offset="20s"), ScheduleRule(pattern="20 * * * * *")], ids=["every", "pattern"])
async def test_a_schedule_goes_on_behind_a_time_at_which_another_one_has_its_name(
    queue: Queue, clock: FakeClock, rule: ScheduleRule
) -> None:
    taken = START + 120_000
    other = await queue.job_schedulers.upsert(f"x:{taken}", ScheduleRule(every="1h"), name="other")
    await queue.job_schedulers.upsert("x", rule)
    ran: list[str] = []
    for _ in range(5):
        ran += [job.id for job in await run_due(queue)]
        clock.advance("1m")
    assert ran == [other.id, *(f"repeat:x:{START + minute * 60_000}" for minute in (1, 3, 4))]
    record = await queue.job_schedulers.get(f"x:{taken}")
    assert (record.name, record.every_ms, record.iterations) == ("other", 3_600_000, 2)


async def test_a_schedule_keeps_its_time_from_one_that_is_called_like_its_run(queue: Queue, clock: FakeClock) -> None:
    await queue.job_schedulers.upsert("x", ScheduleRule(every="1h"))
    with pytest.raises(InvalidOptionError) as caught:
        await queue.job_schedulers.upsert(f"x:{START + 3_600_000}", ScheduleRule(every="1h"))
    assert caught.value.option == "scheduler_id"
    assert [scheduler.id for scheduler in await queue.job_schedulers.list()] == ["x"]
    with pytest.raises(InvalidOptionError):
        await queue.job_schedulers.upsert(f"x:{START + 3_600_000}:logs", ScheduleRule(every="1h"))
    near = f"x:{START + 3_600_000}:report"
    for harmless in ("x:20261128", f"x:{START - 1}", "x:123456789012345678", "x:y:1700000000000", f"y:{START + 3_600_000}", near):
        await queue.job_schedulers.upsert(harmless, ScheduleRule(every="1h"))
    for _ in range(2):
        assert len([job for job in await run_due(queue) if job.name == "x"]) == 1
        clock.advance("1h")


async def test_a_schedule_that_was_there_before_the_one_whose_run_it_is_called_like_can_be_changed_paused_and_resumed(
    queue: Queue, clock: FakeClock
) -> None:
    taken = START + 120_000
    schedulers, name = queue.job_schedulers, f"x:{taken}"
    await schedulers.upsert(name, ScheduleRule(every="1h"))
    await schedulers.upsert("x", ScheduleRule(every="1m"))
    await schedulers.upsert(name, ScheduleRule(every="2h"))
    assert (await schedulers.get(name)).every_ms == 7_200_000
    await schedulers.pause(name)
    assert await schedulers.resume(name) is not None
    assert (await schedulers.get(name)).every_ms == 7_200_000
    ran: list[str] = []
    for _ in range(4):
        ran += [job.id for job in await run_due(queue) if job.name == "x"]
        clock.advance("1m")
    assert ran == [f"repeat:x:{START + minute * 60_000}" for minute in (0, 1, 3)]


async def test_a_paused_schedule_does_not_take_the_place_of_the_run_that_is_called_like_it(queue: Queue) -> None:
    schedulers, name = queue.job_schedulers, f"x:{START + 60_000}"
    await schedulers.upsert(name, ScheduleRule(every="1h"))
    await schedulers.pause(name)
    run = await schedulers.upsert("x", ScheduleRule(every="1m", start=datetime.fromtimestamp(START / 1_000 + 60, UTC)))
    assert run.id == f"repeat:{name}"
    with pytest.raises(InvalidOptionError):
        await schedulers.resume(name)
    assert await schedulers.is_paused(name)
    assert await queue.find_state(run.id) == "delayed"


@pytest.mark.parametrize("rule", [ScheduleRule(every="1m", offset="20s"), ScheduleRule(pattern="20 * * * * *")], ids=["every", "pattern"])
async def test_a_schedule_that_ends_since_others_stand_where_it_would_go_on_says_so(
    queue: Queue, clock: FakeClock, caplog: pytest.LogCaptureFixture, rule: ScheduleRule
) -> None:
    later = datetime.fromtimestamp(START / 1_000 + 86_400, UTC)
    for minute in range(2, 40):
        await queue.job_schedulers.upsert(f"x:{START + minute * 60_000}", ScheduleRule(every="1h", start=later))
    await queue.job_schedulers.upsert("x", rule)
    clock.advance("1m")
    assert [job.name for job in await run_due(queue)] == ["x"]
    [record] = [record for record in caplog.records if "a schedule ends" in record.getMessage()]
    assert "schedule=x" in record.getMessage()
    assert await queue.job_schedulers.find("x") is not None
