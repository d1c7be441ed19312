"""Workers that are killed, and a server that is restarted: every job ends all the same, and none runs more often than it must."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.bench import error_of
from tests.servers import OwnServer, one_server
from toril.errors import ReadOnlyServerError, ServerUnreachableError
from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.testing.eventually import eventually
from toril.wire.connection import Server
from toril.worker.options import WorkerOptions
from toril.worker.worker import Worker

ROOT: Final = Path(__file__).parents[2]


@pytest.fixture
async def queue(server: Server, prefix: str) -> AsyncIterator[Queue]:
    async with Queue("q", prefix=prefix, server=server) as queue:
        yield queue


def options(**more: Any) -> WorkerOptions:  # noqa: ANN401 -- any option
    return WorkerOptions(lock_duration="1s", stalled_interval="100ms", drain_delay="50ms", **more)


class Counting:
    """A handler that counts the attempts of each job."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()

    async def __call__(self, job: Job[Any, Any]) -> None:
        self.runs[job.id] += 1
        await asyncio.sleep(0)

    def have_run(self, count: int) -> None:
        assert len(self.runs) >= count


# ── workers ───────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def worker_process(url: str, prefix: str, max_stalled_count: int = 1) -> AsyncGenerator[Process]:
    """A worker to be killed; it is killed at the end at the latest."""
    arguments = "-m", "tests.server.crashing_worker", url, prefix, str(max_stalled_count)
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=PIPE, cwd=ROOT)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def started_job(process: Process) -> str:
    """The id of the next job that has begun there; empty once the process is dead and all was read."""
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode().strip()


async def test_the_job_of_a_killed_worker_runs_again_exactly_once(queue: Queue, toril_server_url: str, prefix: str) -> None:
    handler = Counting()
    async with worker_process(toril_server_url, prefix) as process:
        job = await queue.add("long", {})
        assert await started_job(process) == job.id
        process.kill()
        await process.wait()
    async with Worker(queue, handler, options()):
        await eventually(lambda: _state_is(job, "completed"))
    await job.refresh()
    assert handler.runs == {job.id: 1}
    assert (job.attempts_started, job.attempts_made, job.stalled_count) == (2, 1, 1)
    assert await queue.server.commands.call("EXISTS", queue.keys.lock(job.id)) == 0


async def test_a_live_worker_takes_over_all_jobs_of_a_killed_one(queue: Queue, toril_server_url: str, prefix: str) -> None:
    handler = Counting()
    async with worker_process(toril_server_url, prefix) as process:
        jobs = await queue.add_many([queue.job("long", {}) for _ in range(10)])
        assert {await started_job(process) for _ in jobs} == {job.id for job in jobs}
        async with Worker(queue, handler, options()) as worker:
            await worker.wait_until_idle()
            assert not handler.runs  # the other one lives, and so do its locks
            process.kill()
            await process.wait()
            await eventually(lambda: _counts_are(queue, {"completed": 10}))
    assert handler.runs == Counter(job.id for job in jobs)


async def test_a_job_that_kills_every_worker_is_failed(queue: Queue, toril_server_url: str, prefix: str) -> None:
    handler = Counting()
    job = await queue.add("kill", {}, attempts=5)
    for _ in range(2):
        async with worker_process(toril_server_url, prefix) as process:
            assert await started_job(process) == job.id
            assert await process.wait() == -signal.SIGKILL
    letters = Queue("letters", prefix=prefix, server=queue.server)
    with_letters = Queue(queue.name, prefix=prefix, server=queue.server, dead_letter="letters")
    async with letters, with_letters, Worker(with_letters, handler, options(max_stalled_count=1)):
        await eventually(lambda: _state_is(job, "failed"))
        [letter] = await letters.dead_letters.list()
    await job.refresh()
    assert not handler.runs
    assert (job.failed_reason, job.stalled_count) == ("job stalled more than allowable limit", 2)
    assert (letter.job_id, letter.message) == (job.id, job.failed_reason)


async def test_a_handler_that_holds_the_interpreters_lock_loses_its_job_and_its_result_is_refused(
    queue: Queue, toril_server_url: str, prefix: str
) -> None:
    """C code that never lets go stops the renewal thread, too. Another worker has the job by then, and its result stands."""

    async def handle(job: Job[Any, Any]) -> str:
        return "by the other one"

    async with worker_process(toril_server_url, prefix) as process:
        job = await queue.add("hold", {}, attempts=3)
        assert await started_job(process) == job.id
        async with Worker(queue, handle, options()):
            await eventually(lambda: _state_is(job, "completed"))
            assert await job.result(timeout="20s") == "by the other one"
            told = await started_job(process)
            assert "Lock" in told, told
    await job.refresh()
    assert (job.return_value, job.stalled_count, job.attempts_started) == ("by the other one", 1, 2)


async def test_workers_killed_at_any_moment_lose_nothing(queue: Queue, toril_server_url: str, prefix: str) -> None:
    handler = Counting()
    jobs: list[Job[Any, Any]] = []
    for kill_after in (1, 20, 77, 150, 300):
        # On a busy machine the last worker may have run all that there was before the signal came.
        jobs += await queue.add_many([queue.job("quick", {"n": n}) for n in range(400)])
        async with worker_process(toril_server_url, prefix, max_stalled_count=20) as process:
            for _ in range(kill_after):
                handler.runs[await started_job(process)] += 1
            process.kill()
            while job_id := await started_job(process):
                handler.runs[job_id] += 1
    async with Worker(queue, handler, options(max_stalled_count=20)):
        await eventually(lambda: _counts_are(queue, {"completed": len(jobs)}), timeout="30s")
    assert set(handler.runs) == {job.id for job in jobs}
    for job in await queue.get_completed():
        assert job.attempts_made == 1
        # It was started once for each time that it ran, or was lost with its worker before it ran.
        assert handler.runs[job.id] <= job.attempts_started == job.stalled_count + 1
    again = sum(handler.runs.values()) - len(jobs)
    assert again <= 5 * 3 * 50  # at most what a worker had claimed, or finished but not told, when it was killed


# ── the server ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def own_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OwnServer]:
    async with one_server(tmp_path_factory.mktemp("kv")) as server:  # short: the name of a socket has about 100 characters at most
        yield server


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_server_restarted_while_jobs_run_loses_none_and_doubles_none(own_server: OwnServer, number: signal.Signals) -> None:
    """It comes back with its data, without our scripts, and maybe without the last turn that it was sent."""
    handlers = Counting(), Counting()
    async with Queue("q", url=own_server.url) as one, Queue("q", url=own_server.url) as two:
        jobs = await one.add_many([one.job("x", {"n": n}) for n in range(2_000)])
        async with (
            Worker(one, handlers[0], WorkerOptions(concurrency=5, drain_delay="50ms")) as first,
            Worker(two, handlers[1], WorkerOptions(concurrency=5, drain_delay="50ms")) as second,
        ):
            for already in (100, 300, 500):
                await eventually(partial(handlers[0].have_run, already))
                await own_server.end(number)
                await own_server.start()
            await eventually(lambda: _counts_are(one, {"completed": len(jobs)}), timeout="30s")
            await eventually(lambda: _are_ready(first, second))
    assert handlers[0].runs + handlers[1].runs == Counter(job.id for job in jobs)


async def test_a_job_that_runs_while_the_server_restarts_ends_as_if_nothing_had_happened(own_server: OwnServer) -> None:
    started, may_end = asyncio.Event(), asyncio.Event()

    async def handle(job: Job[Any, Any]) -> str:
        started.set()
        await may_end.wait()
        return "done"

    async with Queue("q", url=own_server.url) as queue:
        job, delayed = await queue.add_many([queue.job("x", {}), queue.job("x", {}, delay="1h")])
        async with Worker(queue, handle, WorkerOptions(drain_delay="50ms")) as worker:
            await started.wait()
            await own_server.end(signal.SIGKILL)
            may_end.set()
            await eventually(lambda: _is_not_ready(worker))
            await own_server.start()
            await eventually(lambda: _state_is(job, "completed"))
        await job.refresh()
        assert (job.return_value, job.attempts_started, job.stalled_count) == ("done", 1, 0)
        assert await delayed.get_state() == "delayed"


@pytest.mark.parametrize("refusal", ["READONLY", "BUSY"])
async def test_outcomes_that_a_server_refuses_for_a_while_are_written_later(own_server: OwnServer, refusal: str) -> None:
    """As after a failover, or while somebody's script takes long. That text speaks of a script, too, but the job isn't at fault."""
    started, may_end, errors = asyncio.Event(), asyncio.Event(), list[Exception]()

    async def handle(job: Job[Any, Any]) -> None:
        started.set()
        await may_end.wait()

    async with (
        Server(own_server.url) as other,
        Server(own_server.url, patience_ms=0) as prober,
        Queue("q", url=own_server.url) as queue,
        contextlib.AsyncExitStack() as ended,
        Worker(queue, handle, WorkerOptions(drain_delay="50ms")) as worker,
    ):
        worker.on("error", errors.append)
        job = await queue.add("x", {})
        await started.wait()
        if refusal == "READONLY":
            await own_server.ask("REPLICAOF", "127.0.0.1", 1)  # nobody is there
        else:
            await queue.server.commands.call("CONFIG", "SET", "busy-reply-threshold", 1)
            tasks = await ended.enter_async_context(asyncio.TaskGroup())
            tasks.create_task(error_of(other.commands.call("EVAL", "while true do end", 0)))
        await eventually(lambda: _refuses(prober, refusal))
        may_end.set()
        await eventually(lambda: _lane_is_refused(worker, "read.only replica" if refusal == "READONLY" else "busy running a script"))
        await own_server.ask(*(("REPLICAOF", "NO", "ONE") if refusal == "READONLY" else ("SCRIPT", "KILL")))
        await ended.aclose()
        await eventually(lambda: _state_is(job, "completed"))
        await eventually(lambda: _are_ready(worker))
    assert errors == []


async def _state_is(job: Job[Any, Any], state: str) -> None:
    assert await job.get_state() == state


async def _counts_are(queue: Queue, wanted: dict[str, int]) -> None:
    counts = await queue.get_job_counts()
    assert {state: count for state, count in counts.items() if count} == wanted


def _are_ready(*workers: Worker) -> None:
    assert all(worker.is_ready for worker in workers)


async def _refuses(server: Server, refusal: str) -> None:
    error = await error_of(server.commands.call("SET", "probe", "1"))
    assert isinstance(error, ServerUnreachableError)
    assert isinstance(error, ReadOnlyServerError) if refusal == "READONLY" else error.reason.startswith("BUSY")


def _lane_is_refused(worker: Worker, text: str) -> None:
    assert any(re.search(text, problem.reason) and problem.part.startswith(worker.id) for problem in worker.problems), worker.problems


def _is_not_ready(worker: Worker) -> None:
    assert not worker.is_ready
