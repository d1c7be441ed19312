"""`max_started_attempts` bounds how often a job is started, whatever becomes of its runs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench import Bench
from toril import Job, Queue, WaitingError, Worker, WorkerOptions
from toril.errors import InvalidOptionError
from toril.queues.option_parts import RateLimit
from toril.wire.connection import Server

REASON = "job started more than allowable limit"


async def run(queue: Queue, handler: Any, **options: Any) -> None:  # noqa: ANN401 -- any handler, any options
    async with Worker(queue, handler, WorkerOptions(**options)) as worker:
        await worker.wait_until_idle()


async def test_a_job_that_is_put_back_again_and_again_is_failed_without_running(queue: Queue) -> None:
    starts: list[int] = []

    async def handler(job: Job) -> None:
        starts.append(job.attempts_started)
        raise WaitingError

    job = await queue.add("n", attempts=10)
    await run(queue, handler, max_started_attempts=3)
    await job.refresh()
    assert starts == [1, 2, 3]
    assert (await job.get_state(), job.failed_reason) == ("failed", REASON)
    assert (job.attempts_started, job.attempts_made) == (4, 1)


async def test_an_error_in_the_last_start_is_the_end(queue: Queue) -> None:
    async def handler(job: Job) -> None:
        raise RuntimeError(f"start {job.attempts_started}")

    job = await queue.add("n", attempts=10)
    await run(queue, handler, max_started_attempts=2)
    await job.refresh()
    assert (await job.get_state(), job.failed_reason) == ("failed", "start 2")
    assert (job.attempts_started, job.attempts_made) == (2, 2)


async def test_a_job_whose_failure_stands_already_keeps_its_reason(queue: Queue, server: Server, prefix: str) -> None:
    job = await queue.add("n")
    bench = Bench(server, prefix)
    await bench.raw("HSET", bench.key(job.id), "ats", 5, "defa", "its child failed")
    await run(queue, {"n": noop}, max_started_attempts=2)
    await job.refresh()
    assert job.failed_reason == "its child failed"


async def test_without_a_limit_a_job_may_be_started_any_number_of_times(queue: Queue, server: Server, prefix: str) -> None:
    job = await queue.add("n")
    bench = Bench(server, prefix)
    await bench.raw("HSET", bench.key(job.id), "ats", 5_000)
    await run(queue, {"n": noop})
    assert await job.get_state() == "completed"


async def test_the_claim_of_such_a_job_counts_in_the_rate_limit(queue: Queue, server: Server, prefix: str) -> None:
    """As in BullMQ, where the server doesn't know this limit: only failures that stand in the job itself are not counted."""
    bench = Bench(server, prefix)
    job = await queue.add("n")
    await bench.raw("HSET", bench.key(job.id), "ats", 9)
    await run(queue, {"n": noop}, max_started_attempts=2, limiter=RateLimit(max=5, duration="1h"))
    assert await bench.raw("GET", bench.keys.limiter) == b"1"
    assert await job.get_state() == "failed"


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True])
def test_a_limit_that_makes_no_sense_is_refused(value: object) -> None:
    with pytest.raises(InvalidOptionError, match="max_started_attempts"):
        WorkerOptions(max_started_attempts=value)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose


async def noop(job: Job) -> None:
    pass
