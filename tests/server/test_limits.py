"""Rate limits and global concurrency, and the numbers of jobs that ended minute by minute."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from toril import Job, Queue, RateLimit, RateLimitError, Worker, WorkerOptions, processor
from toril.errors import InvalidDurationError, InvalidOptionError
from toril.queues.getters import Metrics
from toril.testing import FakeClock, eventually
from toril.wire.commands import shift_ttls


async def pass_time(queue: Queue, clock: FakeClock, duration: str, by_ms: int) -> None:
    clock.advance(duration)
    await shift_ttls(queue.server, queue.prefix, by_ms)


class Count:
    """A handler that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, job: Job) -> None:
        self.calls += 1


class Refused:
    """A handler that is told "too many requests" at its first call, for so long; the names it was called with."""

    def __init__(self, duration: str) -> None:
        self.duration, self.names = duration, list[str]()

    async def __call__(self, job: Job) -> None:
        self.names.append(job.name)
        if len(self.names) == 1:
            raise RateLimitError(self.duration)


async def run(queue: Queue, handler: Count, options: WorkerOptions | None = None) -> None:
    async with Worker(queue, handler, options) as worker:
        await worker.wait_until_idle()


# ── rate ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_limited_worker_starts_so_many_jobs_and_goes_on_when_the_span_is_over(queue: Queue, clock: FakeClock) -> None:
    await queue.add_many([queue.job("a") for _ in range(5)])
    count = Count()
    async with Worker(queue, count, WorkerOptions(limiter=RateLimit(max=2, duration="1m"))) as worker:
        for calls in (2, 4, 5):
            await worker.wait_until_idle()
            assert count.calls == calls
            assert 0 < (await queue.get_rate_limit_ttl(1)).total_seconds() <= 60
            await pass_time(queue, clock, "1m", 60_000)
            worker.look_again()


async def test_the_queues_own_limit_counts_more_than_a_workers(queue: Queue) -> None:
    await queue.set_global_rate_limit(1, "1m")
    assert await queue.get_global_rate_limit() == RateLimit(max=1, duration="1m")
    await queue.add_many([queue.job("a") for _ in range(3)])
    count = Count()
    await run(queue, count, WorkerOptions(limiter=RateLimit(max=2, duration="1m")))
    assert count.calls == 1
    assert await queue.get_rate_limit_ttl() > timedelta(seconds=50)
    await queue.remove_global_rate_limit()
    await queue.remove_rate_limit_key()
    assert await queue.get_global_rate_limit() is None
    assert await queue.get_rate_limit_ttl(1) == timedelta(0)
    await run(queue, count)
    assert count.calls == 3


async def test_a_handler_that_is_told_to_wait_runs_again_without_spending_an_attempt(queue: Queue, clock: FakeClock) -> None:
    attempts: list[int] = []

    async def handle(job: Job) -> None:
        attempts.append(job.attempts_made)
        if len(attempts) == 1:
            raise RateLimitError("1m")

    first, _ = await queue.add_many([queue.job("a"), queue.job("b")])
    async with Worker(queue, handle, WorkerOptions(concurrency=1)) as worker:
        await worker.wait_until_idle()
        assert attempts == [0]  # nothing else was claimed
        assert await first.get_state() == "waiting"
        await pass_time(queue, clock, "1m", 60_000)
        await eventually(lambda: _equal(attempts, [0, 0, 0]))
    await first.refresh()
    assert (first.attempts_made, first.attempts_started) == (1, 2)


async def test_a_worker_that_met_a_rate_limit_looks_again_after_30_s_and_learns_that_the_limit_was_lifted(
    queue: Queue, clock: FakeClock
) -> None:
    handle = Refused("5m")
    await queue.add_many([queue.job("a"), queue.job("b")])
    async with Worker(queue, handle, WorkerOptions(concurrency=1)) as worker:
        await worker.wait_until_idle()
        await queue.remove_rate_limit_key()
        assert handle.names == ["a"]
        clock.advance("30s")
        await eventually(lambda: _equal(handle.names, ["a", "a", "b"]))


async def test_a_worker_that_met_a_rate_limit_promotes_what_is_due_and_claims_nothing_until_the_limit_is_over(
    queue: Queue, clock: FakeClock
) -> None:
    handle = Refused("70s")
    await queue.add("a")
    async with Worker(queue, handle, WorkerOptions(concurrency=2)) as worker:
        await worker.wait_until_idle()
        late = await queue.add("b", delay="10s")

        async def is_promoted() -> None:
            assert await late.get_state() == "waiting"

        await pass_time(queue, clock, "30s", 30_000)
        await eventually(is_promoted)
        await worker.wait_until_idle()
        await pass_time(queue, clock, "30s", 30_000)
        await worker.wait_until_idle()
        assert handle.names == ["a"]
        await pass_time(queue, clock, "10s", 10_000)
        await eventually(lambda: _equal(sorted(handle.names), ["a", "a", "b"]))


async def test_a_limit_set_by_hand_holds_for_whoever_has_one_and_only_for_them(queue: Queue) -> None:
    await queue.add_many([queue.job("a") for _ in range(2)])
    await queue.rate_limit("1m")
    count = Count()
    await run(queue, count, WorkerOptions(limiter=RateLimit(max=5, duration="1s")))
    assert count.calls == 0
    await run(queue, count)
    assert count.calls == 2


def _equal(one: object, other: object) -> None:
    assert one == other


async def test_limits_that_make_no_sense_are_refused(queue: Queue) -> None:
    with pytest.raises(InvalidOptionError, match="max"):
        RateLimit(max=0, duration="1s")
    with pytest.raises(InvalidDurationError):
        RateLimit(max=1, duration=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # as an untyped caller
    with pytest.raises(InvalidOptionError, match="duration"):
        await queue.rate_limit("0s")
    with pytest.raises(InvalidOptionError, match="limiter"):
        WorkerOptions(limiter=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # as an untyped caller
    with pytest.raises(InvalidOptionError, match="metrics"):
        WorkerOptions(metrics="5s")
    processor("work", limiter=RateLimit(max=1, duration="1s"), metrics="1h")


# ── concurrency over all workers ──────────────────────────────────────────────────────────────────────────────


async def test_global_concurrency_bounds_all_workers_together(queue: Queue) -> None:
    await queue.set_global_concurrency(2)
    assert await queue.get_global_concurrency() == 2
    await queue.add_many([queue.job("a") for _ in range(6)])
    running, most, go = 0, 0, asyncio.Event()

    async def handle(job: Job) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 2:
            go.set()
        await go.wait()
        running -= 1

    async with (
        Worker(queue, handle, WorkerOptions(drain_delay="10ms")) as one,
        Worker(queue, handle, WorkerOptions(drain_delay="10ms")) as other,
    ):
        clock = queue.clock
        assert isinstance(clock, FakeClock)
        await eventually(lambda: _done(queue, one, other))
    assert most == 2
    await queue.remove_global_concurrency()
    assert await queue.get_global_concurrency() is None
    with pytest.raises(InvalidOptionError, match="concurrency"):
        await queue.set_global_concurrency(0)


async def _done(queue: Queue, *workers: Worker) -> None:
    for worker in workers:
        worker.look_again()
    assert await queue.get_completed_count() == 6


# ── metrics ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_ended_jobs_are_counted_minute_by_minute_if_the_worker_is_asked_to(queue: Queue, clock: FakeClock) -> None:
    options = WorkerOptions(metrics="4m")
    assert await queue.get_metrics("completed") == Metrics(0, [], 0, 0)

    async def handle(job: Job) -> None:
        if job.name == "bad":
            raise ValueError

    async def run_some(*names: str) -> None:
        await queue.add_many([queue.job(name) for name in names])
        async with Worker(queue, handle, options) as worker:
            await worker.wait_until_idle()

    await run_some("a", "a", "bad")
    for names in (("a",), ("a", "a"), ("a",), ("a",)):
        clock.advance("1m")
        await run_some(*names)
    completed = await queue.get_metrics("completed")
    assert (completed.count, completed.per_minute) == (7, [1, 2, 1, 2])
    assert (await queue.get_metrics("completed", 0, 1)).per_minute == [1, 2]
    assert (await queue.get_metrics("failed")).count == 1
    clock.advance("3m")
    await run_some("a")
    assert (await queue.get_metrics("completed")).per_minute == [0, 0, 1, 1]


async def test_nothing_is_counted_unless_asked_for(queue: Queue) -> None:
    await queue.add("a")
    await run(queue, Count())
    assert (await queue.get_metrics("completed")).count == 0
    with pytest.raises(InvalidOptionError, match="state"):
        await queue.get_metrics("delayed")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # as an untyped caller
