"""A worker of one side is killed or frozen in the middle of its jobs, and the other side takes them over, once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.compared import Compared
from tests.interop.handling import handle, is_state
from tests.interop.peer import NodePeer
from toril import Job, Queue, QueueEvents, Worker, WorkerOptions
from toril.queues.events import CompletedEvent, FailedEvent, StalledEvent
from toril.testing import eventually

ROOT: Final = Path(__file__).parents[2]
IN_NODE: Final = {"lockDuration": 1_000, "stalledInterval": 300, "concurrency": 10}
HERE: Final = WorkerOptions(lock_duration="1s", stalled_interval="300ms", concurrency=10)


@contextlib.asynccontextmanager
async def toril_process(url: str, prefix: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A worker of ours to be killed, which has begun to claim; it is killed at the end at the latest."""
    command = sys.executable, "-m", "tests.interop.toril_worker", url, prefix
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(40):
            assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def _are_active(queue: Queue, count: int) -> None:
    assert await queue.get_active_count() == count


async def _ends(queue: Queue) -> Counter[str]:
    """How often each job has ended, once all events are told."""
    last = await queue.add("the last one", {})
    ends: Counter[str] = Counter()
    async with QueueEvents(queue, last_event_id="0") as events:
        async for event in events:
            if isinstance(event, CompletedEvent | FailedEvent):
                if event.job_id == last.id:
                    return ends
                ends[event.job_id] += 1
    raise AssertionError("unreachable: the last one completes")


async def test_the_jobs_of_a_node_worker_that_is_killed_run_here(each_node: NodePeer, queue: Queue, compared: Compared) -> None:
    await each_node.ask("work", queue="q", options=IN_NODE)
    jobs = await queue.add_many([queue.job("a", {"sleepFor": 60_000}) for _ in range(5)])
    await eventually(lambda: _are_active(queue, 5))
    each_node.kill()
    ran: list[str] = []

    async def run(job: Job) -> None:
        ran.append(job.id)

    async with Worker(queue, run, HERE):
        for job in jobs:
            await job.result(timeout="20s")
    for job in jobs:
        await job.refresh()
    assert sorted(ran) == sorted(job.id for job in jobs)
    assert [(job.stalled_count, job.attempts_started, job.attempts_made) for job in jobs] == [(1, 2, 1)] * 5
    compared.jobs += 5


async def test_the_jobs_of_a_worker_of_ours_that_is_killed_run_in_node(
    each_node: NodePeer, queue: Queue, toril_server_url: str, toril_prefix: str, compared: Compared
) -> None:
    async with toril_process(toril_server_url, toril_prefix) as process:
        jobs = await queue.add_many([queue.job("a", {"sleepFor": 60_000}) for _ in range(5)])
        await eventually(lambda: _are_active(queue, 5))
        process.kill()
    for job in jobs:
        await job.update_data({"returns": "done"})
    await each_node.ask("work", queue="q", options=IN_NODE)
    assert [await job.result(timeout="20s") for job in jobs] == ["done"] * 5
    for job in jobs:
        await job.refresh()
    assert [(job.stalled_count, job.attempts_started, job.attempts_made) for job in jobs] == [(1, 2, 1)] * 5
    compared.jobs += 5


async def test_a_node_worker_that_freezes_loses_its_job_to_us_and_cannot_end_it_later(
    node: NodePeer, queue: Queue, compared: Compared
) -> None:
    await node.ask("work", queue="q", options=IN_NODE)
    job = await queue.add("a", {"sleepFor": 300})
    await eventually(lambda: is_state(job, "active"))
    os.kill(node.pid, signal.SIGSTOP)
    async with Worker(queue, handle, HERE):
        result: Any = await job.result(timeout="20s")
        assert result["by"] == "toril"
        os.kill(node.pid, signal.SIGCONT)
        await node.heard(lambda event: event["event"] == "error")  # its end of the job was refused
        await job.refresh()
        assert job.return_value == result
        assert await _ends(queue) == {job.id: 1}
    compared.jobs += 1


async def test_a_worker_of_ours_that_freezes_loses_its_job_to_node_and_cannot_end_it_later(
    node: NodePeer, queue: Queue, toril_server_url: str, toril_prefix: str, compared: Compared
) -> None:
    async with toril_process(toril_server_url, toril_prefix) as process:
        job = await queue.add("a", {"sleepFor": 300})
        await eventually(lambda: is_state(job, "active"))
        process.send_signal(signal.SIGSTOP)
        await node.ask("work", queue="q", options=IN_NODE)
        result: Any = await job.result(timeout="20s")
        assert result["by"] == "node"
        await node.ask("stop", queue="q")
        process.send_signal(signal.SIGCONT)
        assert await _ends(queue) == {job.id: 1}  # it is the one that runs the last job here: it goes on
        await job.refresh()
        assert job.return_value == result
    compared.jobs += 1


@pytest.mark.parametrize("sweeps", ["here", "in node"])
async def test_a_job_that_stalled_too_often_is_failed_whoever_finds_it(
    each_node: NodePeer, queue: Queue, sweeps: str, compared: Compared
) -> None:
    job = await queue.add("a", {}, attempts=5)
    assert await each_node.ask("claimAndForget", queue="q", lock=50) == job.id
    async with contextlib.AsyncExitStack() as stack:
        if sweeps == "here":
            await stack.enter_async_context(Worker(queue, handle, WorkerOptions(stalled_interval="100ms", max_stalled_count=0)))
        else:
            await each_node.ask("work", queue="q", options={"stalledInterval": 100, "maxStalledCount": 0})
        await eventually(lambda: is_state(job, "failed"))
    await job.refresh()
    assert (job.failed_reason, job.stalled_count) == ("job stalled more than allowable limit", 1)
    async with QueueEvents(queue, last_event_id="0") as events:
        async for event in events:
            if isinstance(event, StalledEvent):
                assert event.job_id == job.id
                break
    compared.jobs += 1


@pytest.mark.timeout(90)
async def test_a_fleet_that_loses_workers_of_both_kinds_ends_every_job(
    node: NodePeer, queue: Queue, toril_server_url: str, toril_prefix: str, compared: Compared
) -> None:
    jobs = await queue.add_many([queue.job("a", {"sleepFor": 5}) for _ in range(1_000)])
    await node.ask("work", queue="q", options=IN_NODE)
    async with toril_process(toril_server_url, toril_prefix) as process:
        await eventually(lambda: _have_completed(queue, 250), timeout="30s")
        node.kill()
        await eventually(lambda: _have_completed(queue, 500), timeout="30s")
        process.kill()
        async with Worker(queue, handle, HERE):
            await eventually(lambda: _have_completed(queue, len(jobs)), timeout="30s")
            ends = await _ends(queue)
    assert ends == Counter(job.id for job in jobs)
    compared.jobs += len(jobs)


async def _have_completed(queue: Queue, count: int) -> None:
    assert await queue.get_completed_count() >= count
