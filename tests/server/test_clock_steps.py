"""Clocks that are set while jobs run, and clocks that disagree: nothing is lost or doubled, and who is early or late is known."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from functools import partial
from typing import Any, Final

import pytest

from tests.proxy import Proxy, is_script
from toril.clock import SystemClock
from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.testing import eventually
from toril.worker.options import WorkerOptions
from toril.worker.worker import Worker

HOUR_MS: Final = 3_600_000
OPTIONS: Final = WorkerOptions(concurrency=20, lock_duration="2s", stalled_interval="100ms", drain_delay="100ms")


class SettableClock(SystemClock):
    """The machine's clock, as somebody has set it."""

    def __init__(self, offset_ms: int = 0) -> None:
        self.offset_ms = offset_ms

    def now_ms(self) -> int:
        return super().now_ms() + self.offset_ms


class Noting:
    """A handler that notes when each job ran, in real time; a job named `held` goes on until it may end."""

    def __init__(self) -> None:
        self.started_ms: dict[str, float] = {}
        self.runs: Counter[str] = Counter()
        self.may_end = asyncio.Event()

    async def __call__(self, job: Job[Any, Any]) -> None:
        self.runs[job.id] += 1
        self.started_ms[job.id] = time.time() * 1_000
        if job.name == "held":
            await self.may_end.wait()

    def has_run(self, *job_ids: str) -> None:
        assert self.runs.keys() >= set(job_ids)


@pytest.mark.parametrize("step_ms", [HOUR_MS, -HOUR_MS])
async def test_a_clock_that_is_set_while_jobs_run_costs_none_its_lock(toril_server_url: str, prefix: str, step_ms: int) -> None:
    clock, handler = SettableClock(), Noting()
    renewals = is_script("renew_locks")
    async with Proxy(toril_server_url) as proxy, Queue("q", prefix=prefix, url=proxy.url, clock=clock) as queue:
        async with Worker(queue, handler, OPTIONS) as worker:
            held = [await queue.add("held") for _ in range(5)]
            await eventually(lambda: handler.has_run(held[-1].id))
            for offset in (step_ms, 0):
                clock.offset_ms = offset
                seen = sum(map(renewals, proxy.commands))
                quick = [await queue.add("quick") for _ in range(100)]
                await eventually(partial(handler.has_run, *(job.id for job in quick)))
                await proxy.seen(renewals, seen + 4)  # three in a lock's life: it would be gone by now
            handler.may_end.set()
            await worker.wait_until_idle()
        jobs = await queue.get_completed()
        assert len(jobs) == 205
        assert {(job.attempts_started, job.attempts_made, job.stalled_count) for job in jobs} == {(1, 1, 0)}
        assert await queue.get_failed_count() == 0


async def test_a_worker_whose_clock_is_behind_runs_delayed_jobs_once_it_is_right_again(toril_server_url: str, prefix: str) -> None:
    clock, handler = SettableClock(-HOUR_MS), Noting()
    async with (
        Queue("q", prefix=prefix, url=toril_server_url) as producer,
        Queue("q", prefix=prefix, url=toril_server_url, clock=clock) as queue,
        Worker(queue, handler, OPTIONS),
    ):
        late = await producer.add("late", delay="50ms")
        marker = await producer.add("now")
        await eventually(lambda: handler.has_run(marker.id))
        await eventually(lambda: _is(time.time() * 1_000 > late.timestamp_ms + 200))
        assert await late.get_state() == "delayed"
        clock.offset_ms = 0
        await eventually(lambda: handler.has_run(late.id))
    assert handler.runs == {late.id: 1, marker.id: 1}


async def test_a_worker_whose_clock_is_ahead_runs_delayed_jobs_early_and_once(toril_server_url: str, prefix: str) -> None:
    clock, handler = SettableClock(HOUR_MS), Noting()
    async with (
        Queue("q", prefix=prefix, url=toril_server_url) as producer,
        Queue("q", prefix=prefix, url=toril_server_url, clock=clock) as queue,
        Worker(queue, handler, OPTIONS),
    ):
        early = await producer.add("early", delay="59m")
        in_time = await producer.add("in time", delay="2h")
        await eventually(lambda: handler.has_run(early.id))
        assert await in_time.get_state() == "delayed"
    assert handler.runs == {early.id: 1}


async def test_two_workers_five_seconds_apart_run_each_job_once(toril_server_url: str, prefix: str) -> None:
    """A delayed job runs when the first of them thinks that it is due: up to 5 s early."""
    apart_ms = 5_000
    handlers = Noting(), Noting()
    async with (
        Queue("q", prefix=prefix, url=toril_server_url) as right,
        Queue("q", prefix=prefix, url=toril_server_url, clock=SettableClock(apart_ms)) as ahead,
        Worker(right, handlers[0], OPTIONS),
        Worker(ahead, handlers[1], OPTIONS),
    ):
        jobs = await right.add_many([right.job("x", delay=f"{apart_ms - 500 + 10 * n}ms") for n in range(150)])
        retried = await right.add_many([right.job("x") for _ in range(50)])
        await eventually(lambda: _is(sum((handlers[0].runs + handlers[1].runs).values()) == 200))
    runs = handlers[0].runs + handlers[1].runs
    assert runs == Counter(job.id for job in (*jobs, *retried))
    started = handlers[0].started_ms | handlers[1].started_ms
    for n, job in enumerate(jobs):
        due_ms = job.timestamp_ms + apart_ms - 500 + 10 * n
        assert started[job.id] >= due_ms - apart_ms - 1


def _is(fact: object) -> None:
    assert fact
