"""A name whose slots are taken holds nobody else up, also while its jobs are quick and its slots get free all the time.

How far the others had to wait is told by how many jobs of the full name ran before them, not by a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from toril import Job, Queue, Worker, WorkerOptions, handler
from toril.testing import eventually
from toril.wire.connection import Server

PROMPTLY = 500
"""Far more than it takes (about 30), and far fewer than there are."""


@pytest.fixture
async def queue(server: Server, prefix: str) -> Queue:
    return Queue("work", prefix=prefix, server=server)


class Ran:
    """What ran, in order, with how many jobs of each name had begun before a job of a name began for the first time."""

    def __init__(self) -> None:
        self.ids: dict[str, list[int]] = {}
        self.first: dict[str, dict[str, int]] = {}

    def count(self, name: str) -> int:
        return len(self.ids.get(name, ()))

    def handler(self, pause_s: float = 0) -> Callable[[Job], Awaitable[None]]:
        async def handle(job: Job) -> None:
            self.first.setdefault(job.name, {name: len(ids) for name, ids in self.ids.items()})
            self.ids.setdefault(job.name, []).append(int(job.id))
            await asyncio.sleep(pause_s)

        return handle


def _is(holds: bool) -> None:
    assert holds


def _has_run(ran: Ran, name: str, times: int) -> None:
    assert ran.count(name) == times


@pytest.mark.parametrize("priority", [0, 1])
@pytest.mark.parametrize("pause_s", [0, 0.001, 0.005])
async def test_another_name_is_reached_behind_ten_thousand_quick_jobs_of_a_full_one(queue: Queue, pause_s: float, priority: int) -> None:
    await queue.add_many([queue.job("full", priority=priority) for _ in range(10_000)])
    await queue.add("other", priority=priority)
    ran = Ran()
    handlers = [handler(ran.handler(pause_s), "full", concurrency=1), handler(ran.handler(), "other")]
    async with Worker(queue, handlers, WorkerOptions(shutdown_timeout="0s")):
        await eventually(lambda: _is(ran.count("other") == 1))
    assert ran.first["other"]["full"] < PROMPTLY
    assert ran.ids["full"] == list(range(1, ran.count("full") + 1))


async def test_names_with_limits_get_on_side_by_side_and_each_in_its_order(queue: Queue) -> None:
    backlog = {"a": 5_000, "b": 2_000, "rest": 20}
    ids = {name: [int(job.id) for job in await queue.add_many([queue.job(name) for _ in range(count)])] for name, count in backlog.items()}
    ran = Ran()
    handlers = [handler(ran.handler(), "a", concurrency=1), handler(ran.handler(), "b", concurrency=1), handler(ran.handler())]
    async with Worker(queue, handlers, WorkerOptions(shutdown_timeout="0s")):
        await eventually(lambda: _is(ran.count("rest") == 20 and ran.count("b") >= 50))
    assert ran.first["rest"]["a"] < PROMPTLY
    assert ran.first["b"]["a"] < PROMPTLY
    for name in ("a", "b"):
        assert ran.ids[name] == ids[name][: ran.count(name)]


async def test_a_job_that_comes_while_a_full_names_backlog_runs_does_not_wait_for_its_end(queue: Queue) -> None:
    await queue.add_many([queue.job("full") for _ in range(4_000)])
    ran = Ran()
    handlers = [handler(ran.handler(0.001), "full", concurrency=1), handler(ran.handler(), "other")]
    async with Worker(queue, handlers, WorkerOptions(shutdown_timeout="0s")):
        for number in range(1, 4):
            before = ran.count("full")
            await queue.add("other")  # nobody is woken for it: the worker is busy
            await eventually(partial(_has_run, ran, "other", number))
            assert ran.count("full") - before < 2_000  # a poll each 100 ms, and then some turns
        assert ran.count("full") < 4_000


async def test_the_whole_backlog_of_a_full_name_runs_and_then_the_worker_is_idle(queue: Queue) -> None:
    await queue.add_many([queue.job(("full", "full", "other")[number % 3]) for number in range(1_500)])
    ran = Ran()
    async with Worker(queue, [handler(ran.handler(), "full", concurrency=2), handler(ran.handler(), "other")]) as worker:
        await worker.wait_until_idle()
    assert (ran.count("full"), ran.count("other")) == (1_000, 500)
    assert await queue.get_completed_count() == 1_500
