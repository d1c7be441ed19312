"""A running job belongs to its worker as long as the worker lives, and not a moment longer than its lock."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.proxy import Proxy, is_script
from toril.errors import LockLostError
from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.testing.eventually import eventually
from toril.wire.connection import Server
from toril.worker.options import WorkerOptions
from toril.worker.worker import Worker

LOCK_S = 1.0
SHORT = WorkerOptions(lock_duration="1s", stalled_interval="100ms", loop_block_warning="200ms")


@pytest.fixture(autouse=True)
def no_thread_left() -> Any:  # noqa: ANN401 -- a generator
    yield
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("toril locks")]
    assert names == []


@pytest.fixture
async def queue(server: Server, prefix: str) -> AsyncIterator[Queue]:
    async with Queue("q", prefix=prefix, server=server) as queue:
        yield queue


async def pttl(queue: Queue, job_id: str) -> int:
    ttl: int = await queue.server.commands.call("PTTL", queue.keys.lock(job_id))
    return ttl


async def renewals(queue: Queue, job_id: str, count: int) -> None:
    """Wait until the lock was renewed so many times: its time to live went up."""
    seen, last = 0, await pttl(queue, job_id)

    async def look() -> None:
        nonlocal seen, last
        now = await pttl(queue, job_id)
        assert now > 0, "the lock is gone"
        seen, last = seen + (now > last), now
        assert seen >= count

    await eventually(look)


class Held:
    """A handler that tells when it starts, and ends when it may."""

    def __init__(self) -> None:
        self.attempts: list[Job[Any, Any]] = []
        self.starts: asyncio.Queue[Job[Any, Any]] = asyncio.Queue()
        self.may_end = asyncio.Event()
        self.cancelled = 0

    async def __call__(self, job: Job[Any, Any]) -> str:
        self.attempts.append(job)
        self.starts.put_nowait(job)
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "done"


# ── renewed ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_locks_of_long_jobs_are_renewed_as_long_as_they_run(queue: Queue) -> None:
    held = Held()
    async with Worker(queue, held, SHORT) as worker:
        jobs = await queue.add_many([queue.job("x", {}) for _ in range(3)])
        for _ in jobs:
            await held.starts.get()
        async with asyncio.TaskGroup() as watchers:
            for job in jobs:
                watchers.create_task(renewals(queue, job.id, 5))
        held.may_end.set()
        await worker.wait_until_idle()
    assert len(held.attempts) == 3
    assert await queue.get_completed_count() == 3


@pytest.mark.blocks_the_loop
async def test_a_job_that_blocks_the_event_loop_keeps_its_lock_and_is_named_in_the_log(
    queue: Queue, toril_server_url: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "toril")
    attempts: list[str] = []

    async def a_careless_handler(job: Job[Any, Any]) -> None:
        attempts.append(job.id)
        with rival:
            time.sleep(3 * LOCK_S)  # noqa: ASYNC251 -- blocking is what it is about

    rival = RivalThread(toril_server_url, prefix)
    async with Worker(queue, a_careless_handler, SHORT):
        job = await queue.add("slow", {})
        await eventually(lambda: _state_is(job, "completed"))
    assert attempts == [job.id]
    assert rival.attempts == []
    [record] = [record for record in caplog.records if "the event loop is blocked" in record.getMessage()]
    text = record.getMessage()
    assert f"job_id={job.id}" in text
    assert "job_name=slow" in text
    assert "in a_careless_handler" in text


@pytest.mark.blocks_the_loop
async def test_a_process_whose_loop_is_blocked_for_too_long_counts_as_dead(queue: Queue, toril_server_url: str, prefix: str) -> None:
    attempts: list[str] = []
    errors: list[Exception] = []
    rival = RivalThread(toril_server_url, prefix)

    async def hangs(job: Job[Any, Any]) -> None:
        attempts.append(job.id)
        with rival:
            assert rival.took_one.wait(20)  # blocks the loop until another worker has the job

    options = WorkerOptions(lock_duration="1s", stalled_interval="100ms", max_loop_block="300ms")
    async with Worker(queue, hangs, options) as worker:
        worker.on("error", errors.append)
        job = await queue.add("x", {})
        await eventually(lambda: _holds(bool(errors)), timeout="20s")
    assert (attempts, rival.attempts) == ([job.id], [job.id])
    assert await job.get_state() == "completed"


async def test_a_plain_function_in_a_thread_keeps_its_lock(queue: Queue) -> None:
    started, may_end = threading.Event(), threading.Event()

    def handler(job: Job[Any, Any]) -> int:
        started.set()
        assert may_end.wait(20)
        return 7

    async with Worker(queue, handler, SHORT) as worker:
        job = await queue.add("x", {})
        await eventually(lambda: _holds(started.is_set()))
        await renewals(queue, job.id, 5)
        may_end.set()
        await worker.wait_until_idle()
    await job.refresh()
    assert (job.return_value, job.stalled_count, job.attempts_started) == (7, 0, 1)


async def test_locks_are_not_renewed_while_nothing_runs(toril_server_url: str, prefix: str) -> None:
    async with Proxy(toril_server_url) as proxy, Queue("q", prefix=prefix, url=proxy.url) as queue:
        async with Worker(queue, Held(), WorkerOptions(lock_duration="1s", stalled_interval="100ms")):
            await proxy.seen(is_script("sweep_stalled"), 10)
        assert not any(map(is_script("renew_locks"), proxy.commands))


# ── lost ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_lock_that_is_deleted_cancels_its_handler_and_nothing_of_it_is_written(queue: Queue, server: Server) -> None:
    held, errors = Held(), list[Exception]()
    async with Worker(queue, held, WorkerOptions(lock_duration="1s", stalled_interval="1h")) as worker:
        worker.on("error", errors.append)
        job = await queue.add("x", {}, attempts=3)
        await held.starts.get()
        await server.commands.call("DEL", queue.keys.lock(job.id))
        await eventually(lambda: _holds(bool(errors)))
        await eventually(lambda: _holds(worker.running_jobs == ()))
        await worker.wait_until_idle()
    [error] = errors
    assert isinstance(error, LockLostError)
    assert error.job_id == job.id
    assert "expired, or the job was removed" in str(error)
    assert held.cancelled == 1
    await job.refresh()
    assert (await job.get_state(), job.attempts_made, job.failed_reason) == ("active", 0, None)


async def test_a_removed_job_cancels_its_handler(queue: Queue, server: Server) -> None:
    held = Held()
    async with Worker(queue, held, SHORT) as worker:
        job = await queue.add("x", {})
        await held.starts.get()
        await server.commands.call("DEL", queue.keys.lock(job.id))
        await queue.remove(job.id)
        await eventually(lambda: _holds(held.cancelled == 1))
        await worker.wait_until_idle()
    assert await queue.find_job(job.id) is None
    assert await queue.count() == 0


async def test_a_lock_that_another_worker_holds_is_told_as_such(queue: Queue, server: Server) -> None:
    held, errors = Held(), list[Exception]()
    async with Worker(queue, held, SHORT) as worker:
        worker.on("error", errors.append)
        job = await queue.add("x", {})
        await held.starts.get()
        await server.commands.call("SET", queue.keys.lock(job.id), "somebody", "PX", 60_000)
        await eventually(lambda: _holds(held.cancelled == 1))
        await eventually(lambda: _holds(bool(errors)))
    assert "another worker holds it" in str(errors[0])
    assert await server.commands.call("GET", queue.keys.lock(job.id)) == b"somebody"


async def test_a_job_that_lost_its_lock_runs_again_in_the_same_worker(queue: Queue, server: Server) -> None:
    held = Held()
    async with Worker(queue, held, SHORT) as worker:
        job = await queue.add("x", {})
        await held.starts.get()
        await server.commands.call("DEL", queue.keys.lock(job.id))
        await held.starts.get()
        held.may_end.set()
        await worker.wait_until_idle()
    await job.refresh()
    assert (await job.get_state(), job.stalled_count, len(held.attempts)) == ("completed", 1, 2)


async def test_a_thread_that_lost_its_lock_takes_nothing_from_the_attempt_that_follows(queue: Queue, server: Server) -> None:
    """Both attempts of one job run in one worker for a while: only the first one's lock is lost, and that is told once."""
    may_end, errors, attempts = threading.Event(), list[Exception](), list[Job[Any, Any]]()

    def handler(job: Job[Any, Any]) -> str:
        attempts.append(job)
        assert may_end.wait(20)
        return f"attempt {len(attempts)}"

    async with Worker(queue, handler, SHORT) as worker:
        worker.on("error", errors.append)
        job = await queue.add("x", {})
        await eventually(lambda: _holds(len(attempts) == 1))
        await server.commands.call("DEL", queue.keys.lock(job.id))
        await eventually(lambda: _holds(len(attempts) == 2))
        await renewals(queue, job.id, 4)
        assert [one.cancelled.is_set() for one in attempts] == [True, False]
        assert len(errors) == 1
        may_end.set()
        await worker.wait_until_idle()
    await job.refresh()
    assert (await job.get_state(), job.stalled_count, len(attempts)) == ("completed", 1, 2)


async def test_a_handler_that_ignores_the_loss_cannot_finish_the_job(queue: Queue, server: Server) -> None:
    started, may_end, errors = asyncio.Event(), asyncio.Event(), list[Exception]()

    async def stubborn(job: Job[Any, Any]) -> str:
        started.set()
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                may_end.set()
        return "mine"

    async with Worker(queue, stubborn, WorkerOptions(lock_duration="1s", stalled_interval="1h")) as worker:
        worker.on("error", errors.append)
        job = await queue.add("x", {})
        await started.wait()
        await server.commands.call("DEL", queue.keys.lock(job.id))
        await may_end.wait()
        await worker.wait_until_idle()
    assert await job.get_state() == "active"
    assert errors
    assert not any(thread.name.startswith("toril-q") for thread in threading.enumerate())


class RivalThread:
    """Another worker on the same queue, in a thread with a loop of its own: it goes on while the test's loop is blocked."""

    def __init__(self, url: str, prefix: str) -> None:
        self._url, self._prefix = url, prefix
        self.attempts: list[str] = []
        self.took_one = threading.Event()
        self._stop: Callable[[], object] = lambda: None
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="rival")

    def __enter__(self) -> None:
        self._thread.start()
        assert self._is_up.wait(10)

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._thread.join(20)

    async def _run(self) -> None:
        async def handle(job: Job[Any, Any]) -> None:
            self.attempts.append(job.id)
            self.took_one.set()

        async with Queue("q", prefix=self._prefix, url=self._url) as queue:
            worker = Worker(queue, handle, WorkerOptions(stalled_interval="100ms", drain_delay="50ms"))
            loop = asyncio.get_running_loop()
            self._stop = lambda: loop.call_soon_threadsafe(worker.ask_to_stop)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(worker.run())
                await worker.wait_until_started()
                self._is_up.set()


def _holds(fact: bool) -> None:
    assert fact


async def _state_is(job: Job[Any, Any], state: str) -> None:
    assert await job.get_state() == state
