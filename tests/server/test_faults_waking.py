"""Who wakes up when: an idle worker takes a job at once, however the ring that tells of it gets around or is lost.

`drain_delay` is the longest that its option allows here (10 s), so that nothing is found by mere looking, where a test doesn't
say otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.proxy import Cut, Proxy, is_command, nth
from toril.clock import Clock
from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.testing.clock import FakeClock
from toril.testing.eventually import eventually
from toril.wire.connection import Server
from toril.worker.options import WorkerOptions
from toril.worker.worker import Worker

PROMPT_S = 4.0
"""Less than the drain delay, and enough for a loaded machine."""

SLEEPY = WorkerOptions(concurrency=1, drain_delay="10s")


class Handlers:
    """Handlers that begin, tell so, and end when they may."""

    def __init__(self) -> None:
        self.started: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.may_end = asyncio.Event()

    def of(self, worker: str) -> Any:  # noqa: ANN401 -- whatever a worker takes
        async def handle(job: Job[Any, Any]) -> None:
            self.started.put_nowait((worker, job.id))
            await self.may_end.wait()

        return handle

    async def next(self) -> tuple[str, str]:
        """The worker and the id of the next job that starts, which must be soon."""
        async with asyncio.timeout(PROMPT_S):
            return await self.started.get()


class House:
    """Workers on one queue, each with a door of its own to the server, closed in the end."""

    def __init__(self, stack: AsyncExitStack, url: str, prefix: str) -> None:
        self._stack, self._url, self._prefix = stack, url, prefix
        self.handlers = Handlers()

    async def queue(self, url: str | None = None, clock: Clock | None = None) -> Queue:
        return await self._stack.enter_async_context(Queue("q", prefix=self._prefix, url=url or self._url, clock=clock))

    async def worker(self, name: str, options: WorkerOptions = SLEEPY, clock: Clock | None = None) -> tuple[Worker, Proxy]:
        """A worker that found nothing and sleeps."""
        proxy = await self._stack.enter_async_context(Proxy(self._url))
        worker = Worker(await self.queue(proxy.url, clock), self.handlers.of(name), options)
        await self._stack.enter_async_context(worker)
        self._stack.callback(self.handlers.may_end.set)  # before the worker stops
        await proxy.seen(is_command("BZPOPMIN"))
        return worker, proxy


@pytest.fixture
async def house(toril_server_url: str, prefix: str) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        yield House(stack, toril_server_url, prefix)


async def ring_by_hand(server: Server, queue: Queue) -> None:
    await server.commands.call("ZADD", queue.keys.marker, 0, "0")


# ── one worker ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_added_job_wakes_an_idle_worker_at_once(house: House) -> None:
    await house.worker("a")
    job = await (await house.queue()).add("x", {})
    assert await house.handlers.next() == ("a", job.id)


async def test_a_delayed_job_starts_when_it_is_due_and_not_before(house: House) -> None:
    clock = FakeClock()
    worker, proxy = await house.worker("a", clock=clock)
    queue = await house.queue(clock=clock)
    job = await queue.add("x", {}, delay="1h")
    await proxy.seen(is_command("BZPOPMIN"), 2)  # it took the marker and knows now when
    clock.advance("59m")
    await queue.add("now", {})
    assert (await house.handlers.next())[1] != job.id
    house.handlers.may_end.set()
    await worker.wait_until_idle()
    assert await job.get_state() == "delayed"
    clock.advance("1m")
    assert await house.handlers.next() == ("a", job.id)


async def test_a_delayed_job_that_was_there_before_the_worker_starts_when_it_is_due(house: House) -> None:
    clock = FakeClock()
    queue = await house.queue(clock=clock)
    late, early = await queue.add_many([queue.job("x", {}, delay="2h"), queue.job("x", {}, delay="1h")])
    house.handlers.may_end.set()
    worker, _ = await house.worker("a", clock=clock)
    clock.advance("1h")
    assert await house.handlers.next() == ("a", early.id)
    await worker.wait_until_idle()
    clock.advance("1h")
    assert await house.handlers.next() == ("a", late.id)


async def test_a_job_with_a_shorter_delay_that_comes_later_starts_first(house: House) -> None:
    clock = FakeClock()
    _, proxy = await house.worker("a", clock=clock)
    queue = await house.queue(clock=clock)
    await queue.add("x", {}, delay="2h")
    await proxy.seen(is_command("BZPOPMIN"), 2)
    early = await queue.add("x", {}, delay="1h")
    await proxy.seen(is_command("BZPOPMIN"), 3)
    clock.advance("1h")
    assert await house.handlers.next() == ("a", early.id)


async def test_a_ring_without_a_job_wakes_it_once_and_no_more(house: House, server: Server) -> None:
    worker, proxy = await house.worker("a")
    await ring_by_hand(server, worker.queue)
    await proxy.seen(is_command("BZPOPMIN"), 2)
    await worker.wait_until_idle()
    job = await (await house.queue()).add("x", {})
    assert await house.handlers.next() == ("a", job.id)
    assert sum(map(is_command("BZPOPMIN"), proxy.commands)) == 2


async def test_a_ring_for_a_time_far_away_that_nothing_is_due_at_disturbs_nobody(house: House, server: Server) -> None:
    worker, proxy = await house.worker("a")
    await server.commands.call("ZADD", worker.queue.keys.marker, 99_999_999_999_999, "1")
    await proxy.seen(is_command("BZPOPMIN"), 2)
    job = await (await house.queue()).add("x", {})
    assert await house.handlers.next() == ("a", job.id)


async def test_a_ring_that_a_dead_worker_took_is_survived(house: House, server: Server) -> None:
    worker, _ = await house.worker("a", WorkerOptions(drain_delay="50ms"))
    queue = await house.queue()
    base = worker.queue.keys.base
    # What is left of a job whose ring somebody took and died: all but the ring, at one instant.
    job = await queue.add("x", {}, delay="1h")
    await server.commands.call(
        "EVAL",
        "redis.call('ZREM', KEYS[1], ARGV[1]) redis.call('LPUSH', KEYS[2], ARGV[1]) redis.call('DEL', KEYS[3])",
        3, f"{base}delayed", f"{base}wait", f"{base}marker", job.id,
    )  # fmt: skip
    assert await house.handlers.next() == ("a", job.id)


async def test_a_job_whose_ring_was_lost_on_the_way_starts_once_the_worker_is_connected_again(house: House, server: Server) -> None:
    worker, proxy = await house.worker("a")
    proxy.decide = nth(1, is_command("BZPOPMIN"), Cut.AFTER)
    await ring_by_hand(server, worker.queue)
    await proxy.seen(is_command("BZPOPMIN"), 2)
    job = await (await house.queue()).add("x", {})  # the server gives its ring to the worker, and the reply is dropped
    await proxy.happened.wait()
    assert await house.handlers.next() == ("a", job.id)


# ── paused ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_jobs_of_a_paused_queue_wait_until_it_is_resumed(house: House, server: Server) -> None:
    worker, _ = await house.worker("a")
    queue = await house.queue()
    await server.commands.call("HSET", queue.keys.meta, "paused", 1)  # as a Node tool does it
    job = await queue.add("x", {})
    await ring_by_hand(server, queue)
    await eventually(lambda: _marker_is_gone(server, queue))
    await worker.wait_until_idle()
    assert house.handlers.started.empty()
    assert await queue.get_job_counts("active", "completed") == {"active": 0, "completed": 0}
    await queue.resume()
    assert await house.handlers.next() == ("a", job.id)


async def test_pausing_lets_running_jobs_end_and_takes_no_other(house: House) -> None:
    worker, _ = await house.worker("a")
    queue = await house.queue()
    first, second = await queue.add_many([queue.job("x", {}), queue.job("x", {})])
    assert await house.handlers.next() == ("a", first.id)
    await queue.pause()
    house.handlers.may_end.set()
    await worker.wait_until_idle()
    assert (await first.get_state(), await second.get_state()) == ("completed", "waiting")
    await queue.resume()
    assert await house.handlers.next() == ("a", second.id)


# ── several workers ───────────────────────────────────────────────────────────────────────────────────────────


async def test_a_job_added_while_one_worker_is_full_is_taken_by_the_idle_one(house: House) -> None:
    await house.worker("a")
    queue = await house.queue()
    first = await queue.add("x", {})
    assert await house.handlers.next() == ("a", first.id)
    await house.worker("b")
    second = await queue.add("x", {})
    assert await house.handlers.next() == ("b", second.id)


async def test_a_full_worker_hands_on_a_ring_that_it_takes(house: House, server: Server) -> None:
    """Its timer lets it claim while its doorbell still waits; the claim's own ring then comes to it first."""
    clocks = FakeClock(), FakeClock()
    _, proxy = await house.worker("a", clock=clocks[0])
    queue = await house.queue(clock=clocks[0])
    jobs = await queue.add_many([queue.job("x", {}, delay="1h") for _ in range(2)])
    await proxy.seen(is_command("BZPOPMIN"), 2)
    await house.worker("b", clock=clocks[1])  # waits behind it, and its clock stands still
    clocks[0].advance("1h")
    started = {await house.handlers.next(), await house.handlers.next()}
    assert {worker for worker, _ in started} == {"a", "b"}
    assert {job_id for _, job_id in started} == {job.id for job in jobs}


async def test_a_worker_that_stops_hands_on_a_ring_that_it_takes(house: House) -> None:
    stopping, proxy = await house.worker("a", WorkerOptions(concurrency=2, drain_delay="10s"))
    queue = await house.queue()
    await queue.add("x", {})
    await house.handlers.next()
    await proxy.seen(is_command("BZPOPMIN"), 2)  # one slot is free: it waits, and its job holds up the stop
    await house.worker("b")
    stopping.ask_to_stop()
    await eventually(lambda: _holds(not stopping.is_ready))
    job = await queue.add("x", {})
    assert await house.handlers.next() == ("b", job.id)


async def test_a_burst_of_jobs_wakes_every_worker(house: House) -> None:
    for name in ("a", "b", "c"):
        await house.worker(name, WorkerOptions(concurrency=2, drain_delay="10s"))
    queue = await house.queue()
    await queue.add_many([queue.job("x", {"n": n}) for n in range(6)])
    started = [await house.handlers.next() for _ in range(6)]
    assert sorted(worker for worker, _ in started) == ["a", "a", "b", "b", "c", "c"]
    assert len({job_id for _, job_id in started}) == 6


async def test_jobs_added_one_by_one_fill_all_workers(house: House) -> None:
    for name in ("a", "b", "c"):
        await house.worker(name, WorkerOptions(concurrency=2, drain_delay="10s"))
    queue = await house.queue()
    for _ in range(6):
        await queue.add("x", {})
    started = [await house.handlers.next() for _ in range(6)]
    assert sorted(worker for worker, _ in started) == ["a", "a", "b", "b", "c", "c"]


def _holds(fact: bool) -> None:
    assert fact


async def _marker_is_gone(server: Server, queue: Queue) -> None:
    assert await server.commands.call("ZCARD", queue.keys.marker) == 0
