"""`job.sync`: a blocking handler reports from its thread, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from tests.proxy import Cut, Proxy, is_script, nth
from toril import Job, Queue, Worker
from toril.errors import JobTimeoutError, LockLostError, NotJsonError, SyncCallError
from toril.queues import sync_job
from toril.testing import FakeClock, eventually
from toril.wire.connection import Server
from toril.worker.processor import Handlers

PATIENCE_S = 20


@pytest.fixture
def queue(server: Server, prefix: str) -> Queue:
    return Queue("work", prefix=prefix, server=server)


async def run(queue: Queue, handle: Handlers, data: object = None) -> Job:
    """Run one job, and read it again."""
    job = await queue.add("work", data)
    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
        await worker.listeners.wait_until_quiet()
    await job.refresh()
    return job


async def test_a_thread_reports_progress_rows_and_new_data(queue: Queue) -> None:
    heard: list[object] = []
    queue.on("progress", lambda job, value: heard.append(value))

    def handle(job: Job) -> list[int]:
        job.sync.update_progress({"done": 50})
        job.sync.update_data({"n": 2})
        assert (job.progress, job.data) == ({"done": 50}, {"n": 2})
        return [job.sync.log(row) for row in ("first", "second")]

    job = await run(queue, handle, {"n": 1})
    assert (job.return_value, job.progress, job.data) == ([1, 2], {"done": 50}, {"n": 2})
    assert (await job.get_logs()).rows == ["first", "second"]
    assert heard == [{"done": 50}]


async def test_threads_that_a_handler_starts_report_too(queue: Queue) -> None:
    def plain(job: Job) -> list[int]:
        with ThreadPoolExecutor(4) as pool:
            return sorted(pool.map(job.sync.log, ["row"] * 20))

    async def coroutine(job: Job) -> int:
        return await asyncio.to_thread(job.sync.log, "row")

    assert (await run(queue, plain)).return_value == list(range(1, 21))
    assert (await run(queue, coroutine)).return_value == 1


async def test_a_thread_makes_room_for_its_c_code_by_a_longer_lock(queue: Queue) -> None:
    def handle(job: Job) -> None:
        job.sync.extend_lock("5m")

    assert await (await run(queue, handle)).get_state() == "completed"
    job = await queue.add("read")
    with pytest.raises(LockLostError, match="only a handler's job holds a lock"):
        await asyncio.to_thread(job.sync.extend_lock, "5m")


async def test_what_the_coroutine_raises_comes_out_of_the_call(queue: Queue) -> None:
    raised: list[BaseException] = []

    def handle(job: Job) -> None:
        with pytest.raises(NotJsonError) as caught:
            job.sync.update_progress(object())
        raised.append(caught.value)

    await run(queue, handle)
    assert len(raised) == 1


async def test_on_the_loops_own_thread_it_is_refused_instead_of_waiting_for_itself(queue: Queue) -> None:
    async def handle(job: Job) -> None:
        job.sync.update_progress(50)

    job = await run(queue, handle)
    assert await job.get_state() == "failed"
    assert job.failed_reason == (
        "job.sync.update_progress: on the event loop's own thread it would wait for itself; write `await job.update_progress(…)` there"
    )
    assert job.progress == 0


# ── nobody waits for ever ─────────────────────────────────────────────────────────────────────────────────────


class Reporting:
    """A handler that is stuck in `job.sync.log`, since the server's answer doesn't come."""

    def __init__(self) -> None:
        self.raised: list[BaseException] = []

    def __call__(self, job: Job) -> None:
        try:
            job.sync.log("row")
        except SyncCallError as error:
            self.raised.append(error)
            raise


async def test_a_stop_does_not_wait_for_a_thread_whose_server_is_silent(toril_server_url: str, prefix: str) -> None:
    handle = Reporting()
    async with Proxy(toril_server_url) as proxy, Server(proxy.url) as server, asyncio.timeout(PATIENCE_S):
        queue = Queue("work", prefix=prefix, server=server)
        job = await queue.add("work")
        proxy.decide = nth(1, is_script("add_log"), Cut.HOLD)
        worker = Worker(queue, handle)
        async with worker:
            await proxy.happened.wait()
            await worker.stop(force=True)
        assert worker.left_behind == 0
        assert "the run is over" in str(handle.raised[0])
        proxy.release()
        assert await queue.find_state(job.id) == "waiting"  # put back, as any that a stop ended


async def test_a_timeout_ends_the_wait_of_a_thread_whose_server_is_silent(toril_server_url: str, prefix: str) -> None:
    handle, clock = Reporting(), FakeClock(1_700_000_000_000)
    errors: list[BaseException] = []
    async with Proxy(toril_server_url) as proxy, Server(proxy.url) as server, asyncio.timeout(PATIENCE_S):
        queue = Queue("work", prefix=prefix, server=server, clock=clock)
        await queue.add("work", timeout="5s")
        proxy.decide = nth(1, is_script("add_log"), Cut.HOLD)
        worker = Worker(queue, handle)
        worker.on("failed", lambda job, error, final: errors.append(error))
        async with worker:
            await proxy.happened.wait()
            clock.advance("5s")
            await eventually(lambda: _are_there(errors))
        assert isinstance(errors[0], JobTimeoutError)
        assert "the run is over" in str(handle.raised[0])
        proxy.release()


async def test_a_row_can_still_be_written_when_the_run_is_over(queue: Queue, server: Server, prefix: str) -> None:
    clock = FakeClock(1_700_000_000_000)
    queue = Queue("work", prefix=prefix, server=server, clock=clock)
    job = await queue.add("work", timeout="5s")
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def handle(job: Job) -> None:
        loop.call_soon_threadsafe(started.set)
        assert job.cancelled.wait(PATIENCE_S)
        job.sync.log("cleaned up")

    async with Worker(queue, handle) as worker:
        await started.wait()
        clock.advance("5s")
        await worker.wait_until_idle()
    assert (await job.get_logs()).rows == ["cleaned up"]


@pytest.mark.blocks_the_loop
async def test_a_loop_that_somebody_blocks_is_not_waited_for_for_ever(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_job, "PATIENCE_MS", 50)
    monkeypatch.setattr(sync_job, "LOOK_MS", 20)
    job = await queue.add("work")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(job.sync.log, "row")
        error = call.exception(PATIENCE_S)  # blocks the loop
    assert isinstance(error, SyncCallError)
    assert str(error) == "job.sync.log: the event loop has not carried it out within 50ms; does a handler block it?"


def test_a_loop_that_has_ended_is_not_waited_for(toril_server_url: str, prefix: str) -> None:
    async def add() -> Job:
        async with Queue("work", prefix=prefix, url=toril_server_url) as queue:
            return await queue.add("work")

    job = asyncio.run(add())
    with pytest.raises(SyncCallError, match="doesn't run"):
        job.sync.log("row")


class Stuck(Job[Any, Any]):
    """Its log never comes to an end."""

    begun: asyncio.Event

    async def log(self, row: str) -> int:
        self.begun.set()
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize("cancels_all", [True, False])
def test_a_loop_that_ends_meanwhile_is_not_waited_for(toril_server_url: str, prefix: str, cancels_all: bool) -> None:
    async def main() -> Future[int]:
        """Ends while a thread waits for what the loop is at."""
        async with Queue("work", prefix=prefix, url=toril_server_url) as queue:
            stuck = Stuck(queue, (await queue.add("work")).record)
            stuck.begun = asyncio.Event()
            call = pool.submit(stuck.sync.log, "row")
            await stuck.begun.wait()
        return call

    loop = asyncio.new_event_loop()
    with ThreadPoolExecutor(1) as pool:
        call = loop.run_until_complete(main())
        left = asyncio.all_tasks(loop)
        for task in left if cancels_all else ():  # as asyncio.run does
            task.cancel()
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
        error = call.exception(PATIENCE_S)
    for task in left:
        task.cancel()
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
    loop.close()
    assert isinstance(error, SyncCallError)
    assert "has ended" in str(error)


def _are_there(errors: list[BaseException]) -> None:
    assert errors
