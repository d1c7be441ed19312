"""Stopping in its corners: what was claimed at the last moment, what doesn't end, and who else calls `stop`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from toril import Job, Queue, Worker, WorkerOptions, handler
from toril.errors import QueueClosedError
from toril.testing import FakeClock, eventually
from toril.wire.connection import Connection
from toril.wire.turns import TurnReply, TurnRequest
from toril.worker.running import CancelReason
from toril.worker.worker import WorkerState


class Waiting:
    """A handler that waits until it may go on; how often it was started and cancelled."""

    def __init__(self, *, ignores_cancellation: bool = False) -> None:
        self.started = asyncio.Semaphore(0)
        self.open = asyncio.Event()
        self.ignores_cancellation = ignores_cancellation
        self.cancelled = 0

    async def __call__(self, job: Job) -> str:
        self.started.release()
        while True:
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                if not self.ignores_cancellation:
                    raise
            else:
                return "done"


def _is(holds: bool) -> None:
    assert holds


async def is_stopping(worker: Worker) -> None:
    await eventually(lambda: _is(worker.state is WorkerState.STOPPING))


# ── the steps and their bounds ────────────────────────────────────────────────────────────────────────────────


async def test_jobs_that_end_in_time_are_completed(queue: Queue) -> None:
    job, waiting = await queue.add("a"), Waiting()
    async with Worker(queue, waiting, WorkerOptions(concurrency=1)) as worker:
        await waiting.started.acquire()
        late = await queue.add("late")
        worker.ask_to_stop()
        await is_stopping(worker)
        assert not worker.is_ready
        waiting.open.set()
    assert await job.get_state() == "completed"
    assert await late.get_state() == "waiting"  # claimed by nobody any more
    assert (worker.state, worker.left_behind) == (WorkerState.STOPPED, 0)


async def test_running_jobs_have_exactly_the_shutdown_timeout(queue: Queue, clock: FakeClock) -> None:
    job, waiting = await queue.add("a", attempts=3), Waiting()
    async with Worker(queue, waiting, WorkerOptions(shutdown_timeout="10s")) as worker:
        await waiting.started.acquire()
        worker.ask_to_stop()
        await is_stopping(worker)
        await asyncio.sleep(0)
        clock.advance("9999ms")
        assert await queue.get_active_count() == 1  # a round trip in which nothing is cancelled
        assert waiting.cancelled == 0
        clock.advance("1ms")
    await job.refresh()
    assert (waiting.cancelled, await job.get_state(), job.attempts_made, job.failed_reason) == (1, "waiting", 0, None)
    assert worker.left_behind == 0


async def test_jobs_that_do_not_end_are_put_back_without_spending_an_attempt(queue: Queue, clock: FakeClock) -> None:
    jobs = await queue.add_many([queue.job("a", priority=number % 2) for number in range(4)])
    waiting = Waiting()
    async with Worker(queue, waiting, WorkerOptions(shutdown_timeout="10s")) as worker:
        for _ in jobs:
            await waiting.started.acquire()
        worker.ask_to_stop()
        await is_stopping(worker)
        clock.advance("10s")
    assert waiting.cancelled == 4
    for job in jobs:
        await job.refresh()
        assert (await job.get_state(), job.attempts_made) == ("prioritized" if job.priority else "waiting", 0)
    assert await queue.get_active_count() == 0


async def test_a_job_put_back_at_stop_runs_on_the_next_worker_with_all_its_attempts(queue: Queue) -> None:
    job, waiting = await queue.add("a", attempts=2), Waiting()
    async with Worker(queue, waiting, WorkerOptions(shutdown_timeout="0s")):
        await waiting.started.acquire()
    runs: list[int] = []

    async def fail(job: Job) -> None:
        runs.append(job.attempts_made)
        raise ValueError("no")

    async with Worker(queue, fail) as worker:
        await worker.wait_until_idle()
    await job.refresh()
    assert (runs, job.attempts_made) == ([0, 1], 2)


async def test_jobs_put_back_at_stop_come_before_those_that_waited_behind_them(queue: Queue) -> None:
    first, second = await queue.add_many([queue.job("a") for _ in range(2)])
    third = await queue.add("a")
    waiting = Waiting()
    async with Worker(queue, waiting, WorkerOptions(concurrency=2, shutdown_timeout="0s")):
        await waiting.started.acquire()
        await waiting.started.acquire()
    ran: list[str] = []

    async def handle(job: Job) -> None:
        ran.append(job.id)

    async with Worker(queue, handle, WorkerOptions(concurrency=1)) as worker:
        await worker.wait_until_idle()
    assert set(ran[:2]) == {first.id, second.id}
    assert ran[2] == third.id


async def test_an_attempt_that_fails_while_it_is_cancelled_at_stop_has_failed(queue: Queue) -> None:
    job = await queue.add("a", attempts=1)
    started = asyncio.Event()

    async def handle(job: Job) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("can't roll back")

    async with Worker(queue, handle, WorkerOptions(shutdown_timeout="0s")):
        await started.wait()
    await job.refresh()
    assert (await job.get_state(), job.failed_reason) == ("failed", "can't roll back")


async def test_a_handler_that_cleans_up_at_stop_has_two_seconds_for_it(queue: Queue, clock: FakeClock) -> None:
    job = await queue.add("a")
    started, cleaning, cleaned = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(job: Job) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await clock.sleep(1_999)
            cleaned.set()

    async with Worker(queue, handle, WorkerOptions(shutdown_timeout="0s")) as worker:
        await started.wait()
        worker.ask_to_stop()
        await cleaning.wait()
        clock.advance("1999ms")
    assert cleaned.is_set()
    assert (await job.get_state(), worker.left_behind) == ("waiting", 0)


async def test_a_handler_that_goes_on_all_the_same_completes_its_job(queue: Queue) -> None:
    job, waiting = await queue.add("a"), Waiting(ignores_cancellation=True)
    async with Worker(queue, waiting, WorkerOptions(shutdown_timeout="0s")) as worker:
        await waiting.started.acquire()
        worker.ask_to_stop()
        await eventually(lambda: _is(waiting.cancelled > 0))
        waiting.open.set()
    assert await job.get_state() == "completed"


async def test_a_handler_that_ignores_its_cancellation_is_left_behind_and_its_job_stays_claimed(queue: Queue, clock: FakeClock) -> None:
    job, waiting = await queue.add("a"), Waiting(ignores_cancellation=True)
    async with Worker(queue, waiting, WorkerOptions(shutdown_timeout="0s")) as worker:
        await waiting.started.acquire()
        worker.ask_to_stop()
        await eventually(lambda: _is(waiting.cancelled == 1))
        clock.advance("2s")
    assert (worker.state, worker.left_behind, await job.get_state()) == (WorkerState.STOPPED, 1, "active")
    waiting.open.set()
    await eventually(lambda: _is(not worker._attempts.unended))  # pyright: ignore[reportPrivateUsage]  # so that none outlives the test
    assert await job.get_state() == "active"  # its lock runs out; nothing that it returns counts any more


async def test_a_thread_that_ends_while_the_worker_stops_has_its_job_put_back(queue: Queue) -> None:
    job = await queue.add("a", attempts=1)
    started = threading.Event()

    def handle(job: Job) -> str:
        started.set()
        job.cancelled.wait(timeout=20)
        return "does not count"

    async with Worker(queue, handle, WorkerOptions(shutdown_timeout="0s")) as worker:
        await eventually(lambda: _is(started.is_set()))
    await job.refresh()
    assert (await job.get_state(), job.attempts_made, job.return_value, worker.left_behind) == ("waiting", 0, None, 0)


async def test_a_thread_that_does_not_end_is_left_behind(queue: Queue, clock: FakeClock) -> None:
    await queue.add("a")
    started, go_on = threading.Event(), threading.Event()

    def handle(job: Job) -> None:
        started.set()
        go_on.wait(timeout=30)

    async with Worker(queue, handle, WorkerOptions(shutdown_timeout="0s")) as worker:
        await eventually(lambda: _is(started.is_set()))
        worker.ask_to_stop()
        await eventually(lambda: _is(worker.running_jobs[0].cancelled.is_set()))
        clock.advance("2s")  # the time that cancelled handlers have to clean up
    assert worker.left_behind == 1
    assert await queue.get_active_count() == 1  # the stalled sweep of another worker will find it
    go_on.set()


async def test_stopping_while_a_timed_out_thread_runs_still_ends(queue: Queue, clock: FakeClock) -> None:
    await queue.add("a", timeout="1s")
    started, go_on = threading.Event(), threading.Event()

    def handle(job: Job) -> None:
        started.set()
        go_on.wait(timeout=20)

    async with Worker(queue, handle, WorkerOptions(shutdown_timeout="0s")) as worker:
        await eventually(lambda: _is(started.is_set()))
        job = worker.running_jobs[0]
        clock.advance("1s")
        await eventually(lambda: _is(job.cancelled.is_set()))
        worker.ask_to_stop()
        await is_stopping(worker)
        await asyncio.sleep(0)
        go_on.set()
    assert (worker.left_behind, await queue.get_active_count()) == (0, 0)


async def test_a_job_whose_claim_is_answered_while_others_clean_up_is_put_back_without_waiting(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue.open()
    take_turn, answer, asked, cleaning, cleaned = queue.commands.turn, *(asyncio.Event() for _ in range(4))
    started = asyncio.Event()

    async def handle(job: Job) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            if job.name == "first":
                cleaning.set()
                await cleaned.wait()

    async def turn(connection: Connection, request: TurnRequest) -> TurnReply:
        reply = await take_turn(connection, request)
        if any(record.name == "second" for _, record in reply.claimed):
            asked.set()
            await answer.wait()
        return reply

    monkeypatch.setattr(queue.commands, "turn", turn)
    first = await queue.add("first")
    async with Worker(queue, handle, WorkerOptions(shutdown_timeout="0s")) as worker:
        await started.wait()
        second = await queue.add("second")
        await asked.wait()
        worker.ask_to_stop()
        await cleaning.wait()
        answer.set()

        async def is_put_back() -> None:
            assert await second.get_state() == "waiting"

        await eventually(is_put_back)  # the clock stands still: no bound that runs out brings it
        cleaned.set()
    assert (await first.get_state(), await second.get_state(), worker.left_behind) == ("waiting", "waiting", 0)


async def test_many_running_jobs_of_all_kinds_are_all_accounted_for_at_stop(queue: Queue) -> None:
    await queue.add_many([queue.job(("quick", "slow")[number % 2]) for number in range(400)])
    waiting = Waiting()
    quick = 0

    async def run_quickly(job: Job) -> None:
        nonlocal quick
        quick += 1
        await asyncio.sleep(0)

    handlers = [handler(run_quickly, "quick"), handler(waiting, "slow", concurrency=15)]
    async with Worker(queue, handlers, WorkerOptions(concurrency=30, shutdown_timeout="0s")):
        await eventually(lambda: _is(quick > 20))
    counts = await queue.get_job_counts()
    assert counts["active"] == counts["failed"] == 0
    assert counts["completed"] <= quick
    assert counts["completed"] + counts["waiting"] == 400


# ── who stops it, and how often ───────────────────────────────────────────────────────────────────────────────


async def test_everybody_who_calls_stop_waits_until_it_has_stopped(queue: Queue) -> None:
    job, waiting = await queue.add("a"), Waiting()
    worker = Worker(queue, waiting)
    running = asyncio.create_task(worker.run())
    await waiting.started.acquire()
    stops = [asyncio.create_task(worker.stop()) for _ in range(3)]
    await is_stopping(worker)
    assert not any(stop.done() for stop in stops)
    waiting.open.set()
    await asyncio.gather(*stops, running)
    assert (worker.state, await job.get_state()) == (WorkerState.STOPPED, "completed")


async def test_a_second_stop_can_force_the_first(queue: Queue) -> None:
    job, waiting = await queue.add("a"), Waiting()
    worker = Worker(queue, waiting)
    running = asyncio.create_task(worker.run())
    await waiting.started.acquire()
    first = asyncio.create_task(worker.stop())
    await is_stopping(worker)
    await worker.stop(force=True)
    await asyncio.gather(first, running)
    assert (waiting.cancelled, await job.get_state()) == (1, "waiting")


async def test_a_caller_of_stop_who_gives_up_waiting_does_not_end_the_stop(queue: Queue) -> None:
    job, waiting = await queue.add("a"), Waiting()
    worker = Worker(queue, waiting)
    running = asyncio.create_task(worker.run())
    await waiting.started.acquire()
    stop = asyncio.create_task(worker.stop())
    await is_stopping(worker)
    stop.cancel()
    await asyncio.wait({stop})
    assert worker.state is WorkerState.STOPPING
    waiting.open.set()
    await running
    assert await job.get_state() == "completed"


async def test_a_cancelled_run_stops_in_the_same_order(queue: Queue) -> None:
    job, waiting = await queue.add("a"), Waiting()
    worker = Worker(queue, waiting, WorkerOptions(shutdown_timeout="0s"))
    running = asyncio.create_task(worker.run())
    await waiting.started.acquire()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (worker.state, await job.get_state()) == (WorkerState.STOPPED, "waiting")


async def test_a_run_that_is_cancelled_twice_still_brings_its_stop_to_the_end(queue: Queue) -> None:
    job, waiting = await queue.add("a"), Waiting()
    worker = Worker(queue, waiting)
    running = asyncio.create_task(worker.run())
    await waiting.started.acquire()
    running.cancel()
    await is_stopping(worker)
    running.cancel()
    waiting.open.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (worker.state, await job.get_state()) == (WorkerState.STOPPED, "completed")


async def test_a_worker_stopped_before_it_runs_claims_nothing(queue: Queue) -> None:
    job = await queue.add("a")
    ran: list[str] = []

    async def handle(job: Job) -> None:
        ran.append(job.id)

    worker = Worker(queue, handle)
    await worker.stop()
    await worker.run()
    await job.refresh()
    assert (worker.state, ran, await job.get_state(), job.attempts_started) == (WorkerState.STOPPED, [], "waiting", 0)


async def test_a_worker_runs_once(queue: Queue) -> None:
    async with Worker(queue, Waiting()) as worker:
        pass
    with pytest.raises(QueueClosedError):
        await worker.run()
    await worker.stop()
    await worker.stop()


async def test_a_run_while_it_runs_is_refused_and_changes_nothing(queue: Queue) -> None:
    async with Worker(queue, Waiting()) as worker:
        with pytest.raises(QueueClosedError, match="running"):
            await worker.run()
        assert worker.state is WorkerState.RUNNING


async def test_a_handler_can_stop_its_own_worker(queue: Queue) -> None:
    job = await queue.add("a")
    worker: Worker

    async def handle(job: Job) -> str:
        worker.ask_to_stop()
        return "done"

    worker = Worker(queue, handle)
    await worker.run()
    assert await job.get_state() == "completed"


async def test_a_body_that_fails_stops_the_worker_and_its_error_comes_out(queue: Queue) -> None:
    worker = Worker(queue, Waiting())
    with pytest.raises(ValueError, match="the body's own"):
        async with worker:
            raise ValueError("the body's own")
    assert worker.state is WorkerState.STOPPED


async def test_waiting_for_an_idle_worker_ends_when_it_stops(queue: Queue) -> None:
    await queue.add("a")
    waiting = Waiting()
    async with Worker(queue, waiting, WorkerOptions(shutdown_timeout="0s")) as worker:
        await waiting.started.acquire()
        idle = asyncio.create_task(worker.wait_until_idle())
        worker.ask_to_stop()
        with pytest.raises(QueueClosedError):
            await idle


async def test_who_waits_for_a_stopped_worker_is_told_so(queue: Queue) -> None:
    async with Worker(queue, Waiting()) as worker:
        await worker.wait_until_started()
    for wait in (worker.wait_until_idle, worker.wait_until_started):
        with pytest.raises(QueueClosedError, match="stopped"):
            await wait()


# ── the first moment of an attempt ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("reason", "state"), [(CancelReason.STOP, "waiting"), (None, "failed")])
async def test_a_task_cancelled_before_its_first_step_is_accounted_for(queue: Queue, reason: CancelReason | None, state: str) -> None:
    job = await queue.add("a")
    ran: list[str] = []

    async def handle(job: Job) -> None:
        ran.append(job.id)

    worker = Worker(queue, handle)

    def make_task(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:  # noqa: ANN401 -- as asyncio's
        task = asyncio.Task(work, loop=loop, **options)
        if getattr(work, "__name__", "") == "_run_job":
            (running,) = worker.attempts
            running.cancel_reason = reason
            worker.ask_to_stop()
            task.cancel()
        return task

    asyncio.get_running_loop().set_task_factory(make_task)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a context can't be there
    try:
        await worker.run()
    finally:
        asyncio.get_running_loop().set_task_factory(None)
    assert (await job.get_state(), ran, worker.running_jobs) == (state, [], ())
