"""Pause, promote, retry, other priorities and delays, clean: what a person does to jobs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.bench import Bench
from toril import Job, Queue, Worker
from toril.errors import InvalidDurationError, InvalidOptionError, JobNotFoundError, JobStateError
from toril.testing import FakeClock
from toril.wire.connection import Server


async def run_all(queue: Queue) -> list[str]:
    """Run what can run now; the ids in the order in which they started."""
    started: list[str] = []

    async def handle(job: Job) -> None:
        started.append(job.id)
        if job.name == "fails":
            raise ValueError("no")

    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
    return started


async def test_a_paused_queue_gives_no_job_until_it_is_resumed(queue: Queue) -> None:
    await queue.pause()
    await queue.pause()
    job = await queue.add("a")
    assert await queue.is_paused()
    assert await run_all(queue) == []
    await queue.resume()
    assert not await queue.is_paused()
    assert await run_all(queue) == [job.id]


async def test_a_delayed_job_can_be_promoted_once(queue: Queue) -> None:
    job = await queue.add("a", delay="1h")
    await job.promote()
    assert (await job.get_state(), job.delay_ms) == ("waiting", 0)
    with pytest.raises(JobStateError) as caught:
        await job.promote()
    assert (caught.value.expected, caught.value.job_id) == ("delayed", job.id)
    assert str(caught.value) == f"job {job.id} of queue '{queue.name}' is waiting; this needs it to be delayed"
    await job.remove()
    with pytest.raises(JobStateError, match="is in no state"):
        await job.promote()


async def test_a_delayed_jobs_time_can_be_changed(queue: Queue, clock: FakeClock) -> None:
    job = await queue.add("a", delay="1h")
    clock.advance("10m")
    await job.change_delay("5s")
    clock.advance("4s")
    assert await run_all(queue) == []
    clock.advance("2s")
    assert await run_all(queue) == [job.id]
    with pytest.raises(JobStateError):
        await job.change_delay("5s")
    with pytest.raises(InvalidDurationError):
        await job.change_delay(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a bare number


async def test_priorities_can_be_changed_while_a_job_waits(queue: Queue) -> None:
    low, high, front, plain = [await queue.add("a", priority=n) for n in (9, 1, 5, 5)]
    await low.change_priority(1)  # behind `high`, which has it already
    await front.change_priority(1, lifo=True)  # before it
    await plain.change_priority(0)
    assert await run_all(queue) == [plain.id, front.id, high.id, low.id]
    with pytest.raises(InvalidOptionError):
        await plain.change_priority(-1)
    await plain.remove()
    with pytest.raises(JobNotFoundError):
        await plain.change_priority(1)


async def test_a_failed_job_runs_again_with_fresh_attempts_if_asked(queue: Queue) -> None:
    job = await queue.add("fails", attempts=1)
    await run_all(queue)
    await job.retry()
    await job.refresh()
    assert (await job.get_state(), job.attempts_made, job.failed_reason) == ("waiting", 1, None)
    await run_all(queue)
    await job.retry(reset_attempts=True)
    await job.refresh()
    assert (job.attempts_made, job.attempts_started) == (0, 0)
    with pytest.raises(JobStateError) as caught:
        await job.retry("completed")
    assert (caught.value.expected, caught.value.actual) == ("completed", "waiting")


async def test_all_failed_jobs_can_run_again_at_once(queue: Queue, clock: FakeClock) -> None:
    jobs = await queue.add_many([queue.job("fails") for _ in range(1_200)])
    await run_all(queue)
    clock.advance("1m")
    late = await queue.add("fails")
    await run_all(queue)
    before = datetime.fromtimestamp((clock.now_ms() - 1) / 1_000, UTC)
    assert await queue.retry_jobs(limit=1_100) == 1_100
    assert await queue.retry_jobs(until=before) == 100
    assert await queue.get_waiting_count() == len(jobs)
    assert await late.get_state() == "failed"


async def test_all_delayed_jobs_can_be_promoted_at_once(queue: Queue) -> None:
    first, second = [await queue.add("a", delay=delay) for delay in ("1h", "2h")]
    assert await queue.promote_jobs(limit=1) == 1
    assert (await first.get_state(), await second.get_state()) == ("waiting", "delayed")
    assert await queue.promote_jobs() == 1
    assert await run_all(queue) == [first.id, second.id]


async def test_cleaning_removes_old_jobs_of_one_state(queue: Queue, clock: FakeClock) -> None:
    old = await queue.add_many([queue.job("a") for _ in range(3)])
    await run_all(queue)
    clock.advance("1h")
    new = await queue.add("a")
    await run_all(queue)
    assert await queue.clean("30m", limit=2) == [old[0].id, old[1].id]
    assert await queue.clean("30m") == [old[2].id]
    assert [job.id for job in await queue.get_completed()] == [new.id]
    waiting = await queue.add("a")
    assert await queue.clean("1s", state="waiting") == []
    assert await queue.clean("0s", state="waiting") == [waiting.id]


async def test_cleaning_leaves_running_jobs_and_takes_a_parent_with_its_last_child(server: Server, prefix: str) -> None:
    bench = Bench(server, prefix)
    queue = Queue("q", prefix=prefix, server=server)
    await bench.add(1)
    await bench.claim(1)
    assert await queue.clean("0s", state="active") == []
    await bench.add_parent("P", "q")
    await bench.add_child("C", "P", "q")
    assert len(await queue.clean("0s", state="waiting")) == 1
    assert await queue.find_job("P") is None
