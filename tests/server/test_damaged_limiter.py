"""A rate limit's key that can't be counted in: nothing is claimed until it is mended, nothing is lost, and the worker names the key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import pytest

from tests.bench import Bench
from tests.proxy import Proxy, is_script
from toril import Job, Queue, RateLimit, RateLimitError, Worker, WorkerOptions
from toril.testing import FakeClock, eventually
from toril.wire.connection import Server

LIMIT: Final = RateLimit(max=3, duration="1h")

DAMAGE: Final = {
    "list": ("RPUSH", "x"),
    "hash": ("HSET", "f", "v"),
    "set": ("SADD", "x"),
    "zset": ("ZADD", 1, "x"),
    "stream": ("XADD", "*", "f", "v"),
}


@pytest.fixture
async def queue(proxy: Proxy, prefix: str, clock: FakeClock) -> AsyncIterator[Queue]:
    async with Server(proxy.url) as server, Queue("q", prefix=prefix, server=server, clock=clock) as queue:
        yield queue


async def damage(bench: Bench, kind: str = "list") -> None:
    command, *values = DAMAGE[kind]
    await bench.raw("DEL", bench.keys.limiter)
    await bench.raw(command, bench.keys.limiter, *values)


def check_problem(worker: Worker, *words: str) -> None:
    assert [problem.part for problem in worker.problems] == ["claim"]
    (problem,) = worker.problems
    for word in (worker.queue.keys.limiter, "Nothing is lost", "mend or delete that key", *words):
        assert word in problem.reason


@pytest.mark.parametrize("whose", ["the worker's", "the queue's"])
@pytest.mark.parametrize("kind", DAMAGE)
async def test_a_limit_whose_key_is_of_another_type_moves_no_job_and_goes_on_once_that_is_mended(
    queue: Queue, bench: Bench, proxy: Proxy, clock: FakeClock, kind: str, whose: str
) -> None:
    if whose == "the queue's":
        await queue.set_global_rate_limit(3, "1h")
    await damage(bench, kind)
    added = [(await queue.add("n")).id for _ in range(3)]
    ran: list[str] = []

    async def note(job: Job) -> None:
        ran.append(job.id)

    async with Worker(queue, note, WorkerOptions(limiter=LIMIT if whose == "the worker's" else None)) as worker:
        await eventually(lambda: check_problem(worker, f"holds a {kind} instead of a number"))
        assert await bench.members("wait") == added[::-1]
        assert await bench.members("active") == []
        await clock.settle()
        before = sum(map(is_script("turn"), proxy.commands))

        def looks() -> int:
            return sum(map(is_script("turn"), proxy.commands)) - before

        await queue.add("n", job_id="another")  # its ring finds the worker pausing
        seconds = 0

        async def looked_three_times() -> None:
            nonlocal seconds
            clock.advance("1s")
            seconds += 1
            await clock.settle()
            assert looks() >= 3

        await eventually(looked_three_times)
        assert looks() <= seconds
        assert await bench.raw("TYPE", bench.keys.limiter) == kind.encode()
        await bench.raw("DEL", bench.keys.limiter)
        await eventually(lambda: _runs(clock, ran, added))
        await worker.wait_until_idle()
        assert worker.is_ready
    assert await bench.raw("GET", bench.keys.limiter) == b"3"
    assert await bench.members("wait") == ["another"]


async def test_what_runs_is_finished_while_nothing_can_be_claimed(queue: Queue, bench: Bench, clock: FakeClock) -> None:
    running, may_end = asyncio.Semaphore(0), asyncio.Event()
    errors, ran = list[BaseException](), list[str]()

    async def handle(job: Job) -> str:
        ran.append(job.id)
        running.release()
        await may_end.wait()
        return job.id

    added = await queue.add_many([queue.job("n") for _ in range(3)])
    worker = Worker(queue, handle, WorkerOptions(limiter=RateLimit(max=9, duration="1h"), concurrency=2))
    worker.on("error", errors.append)
    async with worker:
        for _ in range(2):
            await running.acquire()
        await damage(bench)
        may_end.set()
        for job in added[:2]:
            assert await job.result(timeout="10s") == job.id
        await eventually(lambda: check_problem(worker))
        assert await added[2].get_state() == "waiting"
        await bench.raw("DEL", bench.keys.limiter)
        await eventually(lambda: _runs(clock, ran, [job.id for job in added]))
    assert errors == []


async def test_a_worker_without_a_limit_heeds_nobodys_key_until_it_has_met_a_limit(queue: Queue, bench: Bench, clock: FakeClock) -> None:
    calls: list[str] = []

    async def handle(job: Job) -> None:
        calls.append(job.name)
        if job.name == "limited" and calls.count("limited") == 1:
            raise RateLimitError("1m")

    await damage(bench)
    await queue.add("free")
    async with Worker(queue, handle, WorkerOptions(concurrency=1)) as worker:
        await worker.wait_until_idle()
        assert (calls, worker.problems) == (["free"], ())
        await queue.add("limited")
        await eventually(lambda: _called(calls, "limited"))  # it may count as idle until the ring has come
        await worker.wait_until_idle()
        await damage(bench)

        async def met_the_key() -> None:
            worker.look_again()  # again, since the worker begins its pause when the server has been told of the limit
            check_problem(worker)

        await eventually(met_the_key)
        await bench.raw("DEL", bench.keys.limiter)
        await eventually(lambda: _runs(clock, calls, ["free", "limited", "limited"]))
        await worker.wait_until_idle()
        assert worker.problems == ()


@pytest.mark.parametrize("value", ["damaged", "nan", "inf", "-inf", "1e3", "1.5", "-7", "", "9223372036854775807", "0x10"])
async def test_a_counter_that_is_no_number_or_has_no_end_holds_nobody_up(queue: Queue, bench: Bench, value: str) -> None:
    await bench.raw("SET", bench.keys.limiter, value)
    added, ran = [(await queue.add("n")).id for _ in range(2)], list[str]()

    async def note(job: Job) -> None:
        ran.append(job.id)

    async with Worker(queue, note, WorkerOptions(limiter=LIMIT)) as worker:
        await worker.wait_until_idle()
    assert ran == added
    assert await bench.members("active") == []


@pytest.mark.parametrize("duration", ["nan", "inf", "-inf", "-1000", "0", "0.5", "-0.5", "1e15", "9007199254740991", "1e300", "many", ""])
async def test_a_span_that_nobody_could_wait_for_stops_no_claim_half_way(queue: Queue, bench: Bench, duration: str) -> None:
    await bench.raw("HSET", bench.keys.meta, "max", "5.5", "duration", duration)
    added, ran = [(await queue.add("n")).id for _ in range(3)], list[str]()

    async def note(job: Job) -> None:
        ran.append(job.id)

    async with Worker(queue, note) as worker:
        await worker.wait_until_idle()
        assert worker.problems == ()
    assert ran == added
    assert await bench.members("active") == []


def _called(calls: list[str], name: str) -> None:
    assert name in calls


async def _runs(clock: FakeClock, ran: list[str], expected: list[str]) -> None:
    clock.advance("1s")  # again and again: a look that was under way begins its pause with its answer
    await clock.settle()
    assert ran == expected
