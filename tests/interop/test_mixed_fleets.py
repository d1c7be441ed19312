"""Toril and the real BullMQ on one queue, at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.interop.handling import handle, is_state
from tests.interop.peer import NodePeer
from toril import (
    Deduplication,
    Job,
    JobOptions,
    Queue,
    QueueEvents,
    ScheduleRule,
    Worker,
    WorkerOptions,
    exponential,
    fixed,
)
from toril.queues.events import CompletedEvent, FailedEvent
from toril.testing import eventually

JOBS = 10_000


# ── one side adds, the other one runs ─────────────────────────────────────────────────────────────────────────────


async def test_jobs_that_are_added_here_run_in_node_with_their_options(node: NodePeer, queue: Queue) -> None:
    await node.ask("work", queue="q", options={"name": "bull", "concurrency": 5})
    first = await queue.add("a", {"progress": {"done": 1}, "log": "a row", "returns": "é"}, priority=3)
    second = await queue.add("b", {"fail": 2}, attempts=3, backoff=exponential("10ms"), timeout="5s", expires_in="1h")
    third = await queue.add("c", {"fail": 9}, attempts=2, backoff=fixed("1ms"))
    later = await queue.add("d", {}, delay="300ms", remove_on_complete=True)
    results = [await job.result(timeout="20s") for job in (first, second, later)]
    assert results[0] == "é"
    assert [(result["by"], result["attempts"]) for result in results[1:]] == [("node", 2), ("node", 0)]
    await eventually(lambda: is_state(third, "failed"))
    for job in (first, third):
        await job.refresh()
    assert (first.progress, first.processed_by, (await first.get_logs()).rows) == ({"done": 1}, "bull", ["a row"])
    assert (third.failed_reason, third.attempts_made, len(third.stack_trace)) == ("asked to fail: 2", 2, 2)
    assert await later.get_state() is None


# ── both at once ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.timeout(120)
async def test_both_kinds_of_workers_share_ten_thousand_jobs_and_each_runs_once(node: NodePeer, queue: Queue) -> None:
    here: Counter[str] = Counter()

    async def count(job: Job) -> None:
        here[job.id] += 1

    await node.ask("work", queue="q", options={"concurrency": 20})
    async with Worker(queue, count, WorkerOptions(concurrency=20)):
        ours = await queue.add_many([queue.job("a", {"n": n}) for n in range(JOBS // 2)])
        theirs = await node.ask("addBulk", queue="q", jobs=[{"name": "b", "data": {"n": n}} for n in range(JOBS // 2)])
        await eventually(lambda: _all_completed(queue), timeout="60s")
    there = Counter(event["id"] for event in node.events if event["event"] == "ran")
    assert len(ours) + len(theirs) == JOBS
    assert here + there == Counter([*(job.id for job in ours), *theirs])
    assert here
    assert there


async def _all_completed(queue: Queue) -> None:
    assert (await queue.get_job_counts("completed", "waiting", "active")) == {"completed": JOBS, "waiting": 0, "active": 0}


async def test_events_are_heard_on_both_sides(node: NodePeer, queue: Queue) -> None:
    await node.ask("follow", queue="q")
    async with QueueEvents(queue) as events, Worker(queue, handle):
        good = await queue.add("a", {"returns": {"x": 1}, "progress": 7})
        bad = await node.ask("add", queue="q", name="b", data={"fail": 1}, opts={})
        ends: dict[str, Any] = {}
        async for event in events:
            if isinstance(event, CompletedEvent):
                ends[event.job_id] = event.return_value
            elif isinstance(event, FailedEvent):
                ends[event.job_id] = event.reason
            if len(ends) == 2:
                break
    assert ends == {good.id: {"x": 1}, bad["id"]: "asked to fail: 1"}
    (completed,) = await node.heard(lambda event: event["event"] == "completed")
    (failed,) = await node.heard(lambda event: event["event"] == "failed")
    (progress,) = await node.heard(lambda event: event["event"] == "progress")
    assert (completed["fields"]["jobId"], completed["fields"]["returnvalue"]) == (good.id, {"x": 1})
    assert (failed["fields"]["jobId"], failed["fields"]["failedReason"]) == (bad["id"], "asked to fail: 1")
    assert progress["fields"]["data"] == 7


async def test_what_one_pauses_the_other_resumes(node: NodePeer, queue: Queue) -> None:
    async with Worker(queue, handle):
        await node.ask("pause", queue="q")
        assert await queue.is_paused()
        job = await queue.add("a")
        assert await job.get_state() == "waiting"
        await queue.resume()
        assert await node.ask("isPaused", queue="q") is False
        assert (await job.result(timeout="10s"))["by"] == "toril"
    await queue.pause()
    await node.ask("work", queue="q", options={})
    job = await queue.add("a")
    await node.ask("resume", queue="q")
    assert (await job.result(timeout="10s"))["by"] == "node"


async def test_each_sees_the_others_workers_counts_and_metrics(node: NodePeer, queue: Queue) -> None:
    await node.ask("work", queue="q", options={"name": "bull", "metrics": {"maxDataPoints": 60}})
    async with Worker(queue, handle, WorkerOptions(name="snake", metrics="1h")):
        names = sorted(str(worker.name) for worker in await queue.get_workers())
        assert names == ["bull", "snake"]
        assert len(await node.ask("workers", queue="q")) == 2
        jobs = await queue.add_many([queue.job("a") for _ in range(20)])
        for job in jobs:
            await job.result(timeout="10s")
    await queue.add("b", delay="1h")
    await queue.add("c", priority=2)
    await node.ask("stop", queue="q")
    counts = await node.ask("counts", queue="q")
    ours = await queue.get_job_counts()
    assert {state: counts[state] for state in ("completed", "delayed", "failed", "active")} == {
        state: ours[state] for state in ("completed", "delayed", "failed", "active")
    }
    assert (await node.ask("metrics", queue="q", state="completed"))["meta"]["count"] == (await queue.get_metrics("completed")).count


# ── flows, schedulers, deduplication ──────────────────────────────────────────────────────────────────────────────


async def test_a_scheduler_goes_on_whoever_claims_its_runs(node: NodePeer, queue: Queue) -> None:
    await queue.job_schedulers.upsert("beat", ScheduleRule(every="150ms"), name="tick", data={"n": 1})
    await node.ask("work", queue="q", options={})
    await node.heard(lambda event: event["event"] == "ran", count=2)
    await node.ask("stop", queue="q")
    ran = asyncio.Event()
    runs = 0

    async def tick(job: Job) -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            ran.set()

    async with Worker(queue, tick):
        await asyncio.wait_for(ran.wait(), 20)
    before = len(node.events)
    await node.ask("work", queue="q", options={})
    await node.heard(lambda event: node.events.index(event) >= before and event["event"] == "ran", count=2)
    await node.ask("stop", queue="q")
    (theirs,) = await node.ask("schedulers", queue="q")
    assert (theirs["key"], theirs["every"], theirs["iterationCount"] >= 6) == ("beat", 150, True)
    assert await node.ask("removeScheduler", queue="q", scheduler="beat")
    assert await queue.job_schedulers.list() == []


async def test_a_scheduler_that_node_makes_is_read_and_followed_here(node: NodePeer, queue: Queue) -> None:
    await node.ask(
        "upsertScheduler",
        queue="q",
        scheduler="nightly",
        repeat={"pattern": "* * * * * *", "limit": 3},
        template={"name": "n", "data": {"x": 1}},
    )
    (found,) = await queue.job_schedulers.list()
    assert (found.id, found.pattern, found.name, found.data, found.limit) == ("nightly", "* * * * * *", "n", {"x": 1}, 3)
    counts: list[int] = []
    done = asyncio.Event()

    async def run(job: Job) -> None:
        counts.append(len(counts) + 1)
        if len(counts) == 3:
            done.set()

    async with Worker(queue, run):
        await asyncio.wait_for(done.wait(), 20)


async def test_deduplication_keeps_the_others_jobs_out(node: NodePeer, queue: Queue) -> None:
    first = await queue.add("a", deduplication=Deduplication("once"))
    second = await node.ask("add", queue="q", name="a", data={}, opts={"deduplication": {"id": "once"}})
    assert second["id"] == first.id
    await node.ask("add", queue="q", name="b", data={}, opts={"deduplication": {"id": "other", "ttl": 60_000}})
    third = await queue.add("b", deduplication=Deduplication("other", ttl="1m"))
    assert await queue.get_waiting_count() == 2
    assert (await queue.get_job(third.id)).options == JobOptions(attempts=0, deduplication=Deduplication("other", ttl="1m"))


# ── a worker that dies ────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_jobs_of_a_node_worker_that_is_killed_run_here(node: NodePeer, queue: Queue) -> None:
    await node.ask("work", queue="q", options={"lockDuration": 1_000, "stalledInterval": 1_000})
    job = await queue.add("a", {"sleepFor": 60_000})
    await eventually(lambda: is_state(job, "active"))
    node.kill()
    ran: list[str] = []

    async def run(job: Job) -> None:
        ran.append(job.id)

    async with Worker(queue, run, WorkerOptions(stalled_interval="300ms")):
        await job.result(timeout="20s")
    await job.refresh()
    assert (ran, job.stalled_count) == ([job.id], 1)
