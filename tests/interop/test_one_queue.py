"""Workers of both libraries on one queue at the same time: they share the work, the bell, the pause, the limits."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from itertools import cycle
from typing import Any

import pytest

from tests.compared import Compared
from tests.interop.handling import handle, is_state
from tests.interop.peer import NodePeer
from toril import Deduplication, Job, Queue, RateLimit, Worker, WorkerOptions
from toril.testing import eventually

JOBS = 10_000


async def _all_completed(queue: Queue, count: int) -> None:
    counts = await queue.get_job_counts("completed", "waiting", "active")
    assert counts == {"completed": count, "waiting": 0, "active": 0}


@pytest.mark.timeout(120)
async def test_both_share_ten_thousand_jobs_and_each_runs_once(each_node: NodePeer, queue: Queue, compared: Compared) -> None:
    here: Counter[str] = Counter()

    async def count(job: Job) -> None:
        here[job.id] += 1

    await each_node.ask("work", queue="q", options={"concurrency": 20})
    async with Worker(queue, count, WorkerOptions(concurrency=20)):
        ours = await queue.add_many([queue.job("a", {"n": n}) for n in range(JOBS // 2)])
        theirs = await each_node.ask("addBulk", queue="q", jobs=[{"name": "b", "data": {"n": n}} for n in range(JOBS // 2)])
        await eventually(lambda: _all_completed(queue, JOBS), timeout="60s")
    await each_node.ask("stop", queue="q")
    there = Counter(event["id"] for event in each_node.events if event["event"] == "ran")
    assert len(ours) + len(theirs) == JOBS
    assert here + there == Counter([*(job.id for job in ours), *theirs])
    assert here
    assert there
    compared.jobs += JOBS


async def test_a_lone_job_never_waits_until_a_sleeper_looks_by_itself(each_node: NodePeer, queue: Queue, compared: Compared) -> None:
    """Both sleep for a minute unless somebody rings; whoever adds must wake one of them."""
    runners: Counter[str] = Counter()
    await each_node.ask("work", queue="q", options={"drainDelay": 60, "concurrency": 1})
    async with Worker(queue, handle, WorkerOptions(drain_delay="1m", concurrency=1)):
        for number, adder in zip(range(40), cycle(("here", "in node")), strict=False):
            delay_ms = 25 if number % 4 > 1 else 0
            if adder == "here":
                job_id = (await queue.add("a", {}, delay=f"{delay_ms}ms")).id
            else:
                job_id = (await each_node.ask("add", queue="q", name="a", data={}, opts={"delay": delay_ms}))["id"]
            job = await queue.get_job(job_id)
            runners[(await job.result(timeout="10s"))["by"]] += 1
            await job.refresh()
            assert job.processed_at_ms is not None
            assert job.processed_at_ms - job.timestamp_ms - delay_ms < 2_000, f"job {number}, added {adder}, started late"
            compared.jobs += 1
    assert runners.total() == 40


async def test_a_job_wakes_the_worker_that_is_left_when_the_other_one_goes(node: NodePeer, queue: Queue, compared: Compared) -> None:
    async with Worker(queue, handle, WorkerOptions(drain_delay="1m")):
        await node.ask("work", queue="q", options={"drainDelay": 60})
        await node.ask("stop", queue="q")
        added = await node.ask("add", queue="q", name="a", data={}, opts={})
        assert (await (await queue.get_job(added["id"])).result(timeout="10s"))["by"] == "toril"
        await node.ask("work", queue="q", options={"drainDelay": 60})
    assert (await (await queue.add("a", {})).result(timeout="10s"))["by"] == "node"
    compared.jobs += 2


# ── operated by either ────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_one_pauses_the_other_resumes(node: NodePeer, queue: Queue, compared: Compared) -> None:
    async with Worker(queue, handle):
        await node.ask("pause", queue="q")
        assert await queue.is_paused()
        job = await queue.add("a", {})
        assert await job.get_state() == "waiting"
        await queue.resume()
        assert await node.ask("isPaused", queue="q") is False
        assert (await job.result(timeout="10s"))["by"] == "toril"
    await queue.pause()
    await node.ask("work", queue="q", options={})
    job = await queue.add("a", {})
    await node.ask("resume", queue="q")
    assert (await job.result(timeout="10s"))["by"] == "node"
    compared.jobs += 2
    compared.operations += 4


async def test_each_sees_the_others_workers_counts_and_metrics(node: NodePeer, queue: Queue, compared: Compared) -> None:
    await node.ask("work", queue="q", options={"name": "bull", "metrics": {"maxDataPoints": 60}})
    async with Worker(queue, handle, WorkerOptions(name="snake", metrics="1h")):
        names = sorted(str(worker.name) for worker in await queue.get_workers())
        assert names == ["bull", "snake"]
        assert len(await node.ask("workers", queue="q")) == 2
        jobs = await queue.add_many([queue.job("a", {}) for _ in range(20)])
        for job in jobs:
            await job.result(timeout="10s")
    await queue.add("b", {}, delay="1h")
    await queue.add("c", {}, priority=2)
    await node.ask("stop", queue="q")
    counts = await node.ask("counts", queue="q")
    ours = await queue.get_job_counts()
    assert {state: counts[state] for state in ("completed", "delayed", "failed", "active")} == {
        state: ours[state] for state in ("completed", "delayed", "failed", "active")
    }
    assert (await node.ask("metrics", queue="q", state="completed"))["meta"]["count"] == (await queue.get_metrics("completed")).count
    compared.operations += 3


@pytest.mark.parametrize("sets", ["here", "in node"])
async def test_a_global_concurrency_bounds_both_together(node: NodePeer, queue: Queue, sets: str, compared: Compared) -> None:
    if sets == "here":
        await queue.set_global_concurrency(3)
    else:
        await node.ask("setGlobalConcurrency", queue="q", concurrency=3)
    await node.ask("work", queue="q", options={"concurrency": 5, "drainDelay": 1})
    async with Worker(queue, handle, WorkerOptions(concurrency=5, drain_delay="1s")):
        jobs = await queue.add_many([queue.job("a", {"sleepFor": 30}) for _ in range(40)])
        results: list[dict[str, Any]] = [await job.result(timeout="30s") for job in jobs]
    at_once = [sum(other["started"] <= each["started"] < other["ended"] for other in results) for each in results]
    assert max(at_once) <= 3
    compared.jobs += len(jobs)


@pytest.mark.parametrize("kind", ["set here", "set in node", "of the workers"])
async def test_a_rate_limit_bounds_both_together(node: NodePeer, queue: Queue, kind: str, compared: Compared) -> None:
    limit = RateLimit(max=5, duration="500ms")
    if kind == "set here":
        await queue.set_global_rate_limit(5, "500ms")
    elif kind == "set in node":
        await node.ask("setGlobalRateLimit", queue="q", max=5, duration=500)
    their_options, our_limit = ({"limiter": {"max": 5, "duration": 500}}, limit) if kind == "of the workers" else ({}, None)
    await node.ask("work", queue="q", options={"concurrency": 5, "drainDelay": 1, **their_options})
    async with Worker(queue, handle, WorkerOptions(concurrency=5, drain_delay="1s", limiter=our_limit)):
        jobs = await queue.add_many([queue.job("a", {}) for _ in range(20)])
        for job in jobs:
            await job.result(timeout="30s")
            await job.refresh()
    started = sorted(job.processed_at_ms or 0 for job in jobs)
    # A span begins with the job that follows the end of the one before; the clocks of three processes are read.
    assert [later - earlier > 450 for earlier, later in zip(started[::5], started[5::5], strict=False)] == [True, True, True], started
    compared.jobs += len(jobs)


# ── deduplication ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_deduplication_keeps_the_others_jobs_out(each_node: NodePeer, queue: Queue, compared: Compared) -> None:
    first = await queue.add("a", {}, deduplication=Deduplication("once"))
    second = await each_node.ask("add", queue="q", name="a", data={}, opts={"deduplication": {"id": "once"}})
    assert second["id"] == first.id
    throttled = await each_node.ask("add", queue="q", name="b", data={}, opts={"deduplication": {"id": "other", "ttl": 60_000}})
    third = await queue.add("b", {}, deduplication=Deduplication("other", ttl="1m"))
    assert third.id == throttled["id"]
    assert await queue.get_waiting_count() == 2
    async with Worker(queue, handle):
        await first.result(timeout="10s")
        await third.result(timeout="10s")
    again = await each_node.ask("add", queue="q", name="a", data={}, opts={"deduplication": {"id": "once"}})
    still = await each_node.ask("add", queue="q", name="b", data={}, opts={"deduplication": {"id": "other", "ttl": 60_000}})
    assert (again["id"] == first.id, still["id"]) == (False, third.id)
    compared.operations += 6


@pytest.mark.parametrize("runs", ["here", "in node"])
async def test_the_last_job_that_was_kept_out_is_added_when_the_one_that_runs_ends(
    node: NodePeer, queue: Queue, runs: str, compared: Compared
) -> None:
    async with AsyncExitStack() as stack:
        if runs == "here":
            await stack.enter_async_context(Worker(queue, handle))
        else:
            await node.ask("work", queue="q", options={})
        first = await queue.add("a", {"sleepFor": 300}, deduplication=Deduplication("d", keep_last_if_active=True))
        await eventually(lambda: is_state(first, "active"))
        for n in (1, 2):
            opts = {"deduplication": {"id": "d", "keepLastIfActive": True}}
            kept_out = await node.ask("add", queue="q", name="a", data={"returns": n}, opts=opts)
            assert kept_out["id"] == first.id
        assert (await first.result(timeout="10s"))["by"] == ("toril" if runs == "here" else "node")
        await eventually(lambda: _all_completed(queue, 2))
    assert [job.return_value for job in await queue.get_completed() if job.id != first.id] == [2]
    compared.jobs += 2
