"""What others left in a queue (older versions, scripts by hand, tools) is read as far as it makes sense, and never stops a worker."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.bench import T0, Bench, done, error_of, gone_wrong
from toril import Deduplication, Job, Queue, QueueEvents, RateLimit, Worker, WorkerOptions
from toril.errors import JobNotFoundError
from toril.queues.events import DeduplicatedEvent, UnknownEvent
from toril.queues.job_schedulers import ScheduleRule
from toril.testing import FakeClock, eventually
from toril.wire.connection import Server


async def run(queue: Queue, options: WorkerOptions | None = None) -> list[str]:
    """The ids of the jobs that a worker runs until nothing is left."""
    ran: list[str] = []

    async def note(job: Job) -> None:
        ran.append(job.id)

    async with Worker(queue, note, options) as worker:
        await worker.wait_until_idle()
    return ran


# ── forms of older versions ───────────────────────────────────────────────────────────────────────────────────────


async def test_old_markers_among_the_ids_are_dropped_and_the_jobs_run(queue: Queue, bench: Bench) -> None:
    job = await queue.add("n")
    await bench.raw("RPUSH", bench.key("wait"), "0:1700000000000", "0:0")
    assert await run(queue) == [job.id]
    assert await bench.members("wait") == await bench.members("active") == []


async def test_jobs_that_an_old_version_has_paused_run_after_the_resume_before_newer_ones(queue: Queue, bench: Bench) -> None:
    old = [(await queue.add("n")).id for _ in range(2)]
    await bench.raw("RENAME", bench.key("wait"), bench.key("paused"))
    await bench.raw("HSET", bench.keys.meta, "paused", 1)
    new = await queue.add("n")
    assert await queue.find_state(old[0]) == "waiting"
    await queue.resume()
    assert await run(queue) == [*old, new.id]


async def test_attempts_are_counted_on_from_the_old_field(queue: Queue, bench: Bench) -> None:
    job = await queue.add("n", attempts=3)
    await bench.raw("HSET", bench.key(job.id), "attemptsMade", 2)

    async def fail(job: Job) -> None:
        raise RuntimeError(f"attempt {job.attempts_made + 1}")

    async with Worker(queue, fail) as worker:
        await worker.wait_until_idle()
    await job.refresh()
    assert (await job.get_state(), job.failed_reason) == ("failed", "attempt 3")


async def test_both_events_of_an_old_deduplication_are_read(queue: Queue, bench: Bench) -> None:
    async with QueueEvents(queue) as events:
        pairs = ("jobId", "1", "debounceId", "d")
        await bench.raw("XADD", bench.key("events"), "*", "event", "debounced", *pairs)
        after = ("jobId", "1", "deduplicationId", "d", "deduplicatedJobId", "2")
        await bench.raw("XADD", bench.key("events"), "*", "event", "deduplicated", *after)
        first, second = await anext(events), await anext(events)
    assert isinstance(first, UnknownEvent)
    assert (first.name, first.fields) == ("debounced", {"jobId": "1", "debounceId": "d"})
    assert isinstance(second, DeduplicatedEvent)
    assert (second.job_id, second.deduplicated_job_id) == ("1", "2")


async def test_an_old_repeatable_is_no_scheduler_stays_where_it_is_and_its_job_runs(queue: Queue, bench: Bench, clock: FakeClock) -> None:
    old, due = "report:::UTC:0 9 * * *", T0 + 60_000
    await bench.raw("ZADD", bench.keys.schedulers, due, old)
    opts = {"attempts": 0, "repeat": {"pattern": "0 9 * * *", "count": 1}, "jobId": f"repeat:5d41402a:{due}"}
    fields = ("name", "report", "data", "{}", "opts", json.dumps(opts), "timestamp", T0, "delay", 0, "priority", 0)
    await bench.raw("HSET", bench.key(f"repeat:5d41402a:{due}"), *fields)
    await bench.raw("LPUSH", bench.key("wait"), f"repeat:5d41402a:{due}")
    await queue.job_schedulers.upsert("tick", ScheduleRule(every="1h"))
    assert [scheduler.id for scheduler in await queue.job_schedulers.list()] == ["tick"]
    assert await run(queue) == [f"repeat:5d41402a:{due}", f"repeat:tick:{T0}"]
    assert await bench.raw("ZSCORE", bench.keys.schedulers, old) is not None


# ── what can't be right ───────────────────────────────────────────────────────────────────────────────────────────


async def test_ids_without_a_job_are_dropped_from_wherever_a_worker_meets_them(queue: Queue, bench: Bench) -> None:
    await bench.raw("RPUSH", bench.key("wait"), "gone-1")
    await bench.raw("ZADD", bench.key("prioritized"), 2**32, "gone-2")
    await bench.raw("ZADD", bench.key("delayed"), T0 * 4096, "gone-3")
    job = await queue.add("n")
    assert await run(queue) == [job.id]
    assert await queue.get_job_counts("waiting", "prioritized", "delayed", "active") == dict.fromkeys(
        ("waiting", "prioritized", "delayed", "active"), 0
    )
    assert await bench.hash("gone-1") == await bench.hash("gone-2") == await bench.hash("gone-3") == {}


@pytest.mark.parametrize("field", ["data", "opts", "stacktrace", "progress", "parent", "returnvalue"])
async def test_a_job_with_broken_json_harms_nobody_else(queue: Queue, bench: Bench, field: str) -> None:
    broken, sound = await queue.add("n"), await queue.add("n")
    await bench.raw("HSET", bench.key(broken.id), field, '{"a": NaN, ')
    assert sound.id in await run(queue)
    assert await queue.find_state(broken.id) == ("failed" if field == "data" else "completed")
    assert {job.id for job in await queue.get_jobs()} == {broken.id, sound.id}


async def test_what_is_done_to_a_job_that_was_removed_makes_no_ghost_of_it(queue: Queue, bench: Bench) -> None:
    errors: list[BaseException | None] = []

    async def handler(job: Job) -> None:
        await bench.raw("DEL", bench.key(job.id))
        errors.append(await error_of(job.update_progress(1)))
        errors.append(await error_of(job.update_data({})))
        errors.append(await error_of(job.log("row")))

    await queue.add("n", remove_on_complete=True)
    async with Worker(queue, handler) as worker:
        await worker.wait_until_idle()
    assert [type(error) for error in errors] == [JobNotFoundError] * 3
    assert not {key for key in await bench.everything() if key.startswith("bull:q:1")} - {"bull:q:1:lock"}


async def test_a_job_that_the_server_has_evicted_is_not_put_off_by_another_that_it_keeps_out(queue: Queue, bench: Bench) -> None:
    once = Deduplication("d", ttl="1h", reschedule=True)
    job = await queue.add("n", delay="1m", deduplication=once)
    await bench.raw("DEL", bench.key(job.id))
    assert (await queue.find_deduplicated("d"), await bench.raw("ZCARD", bench.key("delayed"))) == (job.id, 1)
    await queue.add("n", delay="5m", deduplication=once)
    assert await bench.hash(job.id) == {}


@pytest.mark.parametrize("flag", ["fpof", "cpof", "idof", "rdof"])
async def test_nothing_of_a_parent_that_the_server_has_evicted_is_made_anew_by_its_childs_failure(
    queue: Queue, bench: Bench, flag: str
) -> None:
    await bench.add_parent("P", "q")
    await bench.add_child("C", "P", "q", **{flag: True})
    await bench.raw("ZREM", bench.key("waiting-children"), "P")
    await bench.raw("ZADD", bench.key("delayed"), (T0 + 60_000) * 4096, "P")
    await bench.raw("DEL", bench.key("P"))
    await bench.claim()
    await bench.turn(gone_wrong("C"))
    assert await queue.find_state("C") == "failed"
    assert not [key for key in await bench.everything() if key.startswith("bull:q:P")]


@pytest.mark.parametrize(
    "key", ["wait", "prioritized", "delayed", "marker", "stalled", "events", "limiter", "1", "1:lock", "1:dependencies"]
)
async def test_a_key_of_a_wrong_type_does_not_end_the_worker(server: Server, prefix: str, bench: Bench, key: str) -> None:
    queue = Queue("q", prefix=prefix, server=server)  # with the real time, in which a worker tries again
    ran: list[str] = []

    async def note(job: Job) -> None:
        ran.append(job.id)

    limit = RateLimit(max=1_000, duration="1h")
    async with Worker(queue, note, WorkerOptions(limiter=limit, drain_delay="50ms", stalled_interval="100ms")) as worker:
        await worker.wait_until_idle()
        await bench.raw("DEL", bench.key(key))
        await bench.raw("HSET" if key == "1:lock" else "SET", bench.key(key), *(("f", "v") if key == "1:lock" else ("damaged",)))
        if key.startswith("1"):
            await bench.raw("RPUSH", bench.key("wait"), "1")
            await bench.raw("ZADD", bench.key("marker"), 0, "0")
        await eventually(lambda: _is(bool(worker.problems) or worker.is_idle))
        await bench.raw("DEL", bench.key(key))
        job = await queue.add("n", job_id="sound")
        await eventually(lambda: _is(job.id in ran))
        await eventually(lambda: _is(worker.is_ready))


def _is(holds: bool) -> None:
    assert holds


# ── settings ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("field", ["concurrency", "max", "duration", "opts.maxLenEvents"])
@pytest.mark.parametrize("value", ["many", "", "nan", "inf", "-inf", "1e300", "{}"])
async def test_a_setting_that_is_no_number_counts_as_not_set(queue: Queue, bench: Bench, field: str, value: str) -> None:
    settings = {"concurrency": "5", "max": "100", "duration": "1000"} | {field: value}
    await bench.raw("HSET", bench.keys.meta, *(text for pair in settings.items() for text in pair))
    job = await queue.add("n")
    assert await run(queue) == [job.id]
    assert await queue.get_global_concurrency() == (None if field == "concurrency" else 5)
    limit = None if field in {"max", "duration"} else RateLimit(max=100, duration="1s")
    assert await queue.get_global_rate_limit() == limit


@pytest.mark.parametrize("length", ["-5", "1.5"])
async def test_a_length_of_the_stream_that_the_server_would_refuse_harms_nobody(queue: Queue, bench: Bench, length: str) -> None:
    await bench.raw("HSET", bench.keys.meta, "opts.maxLenEvents", length)
    job = await queue.add("n")
    assert await run(queue) == [job.id]


async def test_a_rate_limit_without_its_span_holds_nobody_up(queue: Queue, bench: Bench) -> None:
    """By BullMQ such a claim fails after the job was moved (T21)."""
    await bench.raw("HSET", bench.keys.meta, "max", 1)
    added = [(await queue.add("n")).id for _ in range(3)]
    assert await run(queue) == added


async def test_a_damaged_counter_of_the_rate_limit_begins_anew(queue: Queue, bench: Bench) -> None:
    await bench.raw("SET", bench.keys.limiter, "damaged")
    assert (await queue.get_rate_limit_ttl(5)).total_seconds() == 0
    added = [(await queue.add("n")).id for _ in range(2)]
    assert await run(queue, WorkerOptions(limiter=RateLimit(max=5, duration="1h"))) == added
    assert await bench.raw("GET", bench.keys.limiter) == b"2"


async def test_damaged_metrics_are_shown_as_nothing(queue: Queue, bench: Bench) -> None:
    await bench.raw("HSET", bench.keys.metrics("completed"), "count", "x", "prevTS", "y")
    assert (await queue.get_metrics("completed")).count == 0


# ── what is carried along ─────────────────────────────────────────────────────────────────────────────────────────

TELEMETRY = {"tm": "00-trace-01", "omc": True, "mine": {"kept": [1, 2]}}


async def carried(bench: Bench, job_id: str) -> dict[str, Any]:
    opts = json.loads((await bench.hash(job_id))["opts"])
    return {name: opts.get(name) for name in TELEMETRY}


async def _carry(bench: Bench, job_id: str) -> None:
    """Write what Node's telemetry leaves in a job's options."""
    opts = json.loads((await bench.hash(job_id))["opts"]) | TELEMETRY
    await bench.raw("HSET", bench.key(job_id), "opts", json.dumps(opts))


async def test_telemetry_of_node_stays_in_the_options_when_a_job_runs_again(queue: Queue, bench: Bench) -> None:
    async def fail(job: Job) -> None:
        raise RuntimeError("boom")

    job = await queue.add("n", attempts=2, expires_in="1h")
    await _carry(bench, job.id)
    async with Worker(queue, fail) as worker:
        await worker.wait_until_idle()
    await job.refresh()
    await job.retry(reset_attempts=True)
    assert await carried(bench, job.id) == TELEMETRY


async def test_telemetry_of_node_goes_on_from_one_iteration_of_a_scheduler_to_the_next(queue: Queue, bench: Bench) -> None:
    first = await queue.job_schedulers.upsert("tick", ScheduleRule(every="1h"))
    await _carry(bench, first.id)
    assert await run(queue) == [first.id]
    (following,) = await queue.get_delayed()
    assert await carried(bench, following.id) == TELEMETRY


async def test_telemetry_of_node_is_in_a_job_that_was_kept_until_another_had_ended(queue: Queue, bench: Bench) -> None:
    once = Deduplication("d", keep_last_if_active=True)
    await queue.add("n", job_id="first", deduplication=once)
    await bench.claim()
    await queue.add("n", job_id="second", deduplication=once)
    opts = json.loads((await bench.raw("HGET", bench.key("dn:d"), "opts")).decode()) | TELEMETRY
    await bench.raw("HSET", bench.key("dn:d"), "opts", json.dumps(opts))
    await bench.raw("DEL", bench.keys.lock("first"))
    await bench.raw("SET", bench.keys.lock("first"), "t")
    await bench.turn(done("first"))
    assert await carried(bench, "second") == TELEMETRY


async def test_telemetry_of_node_is_in_a_job_that_comes_back_from_the_dead_letters(server: Server, prefix: str, bench: Bench) -> None:
    letters = Queue("letters", prefix=prefix, server=server)
    queue = Queue("q", prefix=prefix, server=server, dead_letter=letters)

    async def fail(job: Job) -> None:
        raise RuntimeError("boom")

    job = await queue.add("n")
    await _carry(bench, job.id)
    async with Worker(queue, fail) as worker:
        await worker.wait_until_idle()
    (letter,) = await letters.dead_letters.list()
    replayed = await letters.dead_letters.replay(letter.id)
    assert await carried(bench, replayed) == TELEMETRY
