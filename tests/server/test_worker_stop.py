"""How a worker stops, and what its listeners hear."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from toril import Job, Queue, Worker, WorkerOptions, handler
from toril.errors import InvalidOptionError, ProcessorError, QueueClosedError
from toril.testing import FakeClock, eventually
from toril.wire.connection import Server
from toril.worker.worker import WorkerState


class Gate:
    """A handler that tells when it has started, and waits until it may go on."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.started = asyncio.Semaphore(0)
        self.open = asyncio.Event()
        self.stubborn = stubborn
        self.cancelled = 0

    async def __call__(self, job: Job) -> str:
        self.started.release()
        while True:
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                if not self.stubborn:
                    raise
            else:
                return "done"


async def stopping(worker: Worker) -> None:
    await eventually(lambda: _is(worker.state is WorkerState.STOPPING))


def _is(holds: bool) -> None:
    assert holds


async def test_jobs_that_end_in_time_are_completed(queue: Queue) -> None:
    job, gate = await queue.add("a"), Gate()
    async with Worker(queue, gate, WorkerOptions(concurrency=1)) as worker:
        await gate.started.acquire()
        late = await queue.add("late")
        worker.ask_to_stop()
        await stopping(worker)
        assert not worker.is_ready
        gate.open.set()
    assert await job.get_state() == "completed"
    assert await late.get_state() == "waiting"  # claimed by nobody any more
    assert (worker.state, worker.left_behind) == (WorkerState.STOPPED, 0)


async def test_jobs_that_do_not_end_are_put_back_without_spending_an_attempt(queue: Queue, clock: FakeClock) -> None:
    jobs = await queue.add_many([queue.job("a", priority=number % 2) for number in range(4)])
    gate = Gate()
    async with Worker(queue, gate, WorkerOptions(shutdown_timeout="10s")) as worker:
        for _ in jobs:
            await gate.started.acquire()
        worker.ask_to_stop()
        await stopping(worker)
        clock.advance("10s")
    assert gate.cancelled == 4
    for job in jobs:
        await job.refresh()
        assert (await job.get_state(), job.attempts_made) == ("prioritized" if job.priority else "waiting", 0)
    assert await queue.get_active_count() == 0


async def test_a_forced_stop_does_not_wait(queue: Queue) -> None:
    job, gate = await queue.add("a"), Gate()
    async with Worker(queue, gate) as worker:
        await gate.started.acquire()
        worker.ask_to_stop()
        await stopping(worker)
        worker.ask_to_stop(force=True)
    assert await job.get_state() == "waiting"


async def test_a_cancelled_run_stops_in_the_same_order(queue: Queue) -> None:
    job, gate = await queue.add("a"), Gate()
    worker = Worker(queue, gate, WorkerOptions(shutdown_timeout="0s"))
    running = asyncio.create_task(worker.run())
    await gate.started.acquire()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (worker.state, await job.get_state()) == (WorkerState.STOPPED, "waiting")


async def test_a_handler_that_goes_on_all_the_same_completes_its_job(queue: Queue) -> None:
    job, gate = await queue.add("a"), Gate(stubborn=True)
    async with Worker(queue, gate, WorkerOptions(shutdown_timeout="0s")) as worker:
        await gate.started.acquire()
        worker.ask_to_stop()
        await eventually(lambda: _is(gate.cancelled > 0))
        gate.open.set()
    assert await job.get_state() == "completed"


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


async def test_a_worker_runs_once(queue: Queue) -> None:
    async with Worker(queue, Gate()) as worker:
        pass
    with pytest.raises(QueueClosedError):
        await worker.run()
    await worker.stop()
    await worker.stop()


async def test_a_worker_that_never_ran_can_be_stopped(queue: Queue) -> None:
    await Worker(queue, Gate()).stop()


async def test_waiting_for_an_idle_worker_ends_when_it_stops(queue: Queue) -> None:
    await queue.add("a")
    gate = Gate()
    async with Worker(queue, gate, WorkerOptions(shutdown_timeout="0s")) as worker:
        await gate.started.acquire()
        waiting = asyncio.create_task(worker.wait_until_idle())
        worker.ask_to_stop()
        with pytest.raises(QueueClosedError):
            await waiting


def test_a_worker_needs_handlers_of_different_names(server: Server) -> None:
    queue = Queue("work", server=server)
    with pytest.raises(ProcessorError):
        Worker(queue, {})
    with pytest.raises(InvalidOptionError):
        WorkerOptions(concurrency=0)


# ── listeners ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_listeners_hear_what_happens_in_this_process(queue: Queue) -> None:
    await queue.add("good", attempts=2)
    await queue.add("bad", attempts=2)
    heard: list[tuple[Any, ...]] = []

    async def handle(job: Job) -> str:
        if job.name == "bad":
            raise ValueError("no")
        await job.update_progress(50)
        return "yes"

    worker = Worker(queue, handle, WorkerOptions(concurrency=1))

    async def active(job: Job) -> None:
        heard.append(("active", job.name))

    async def completed(job: Job, result: object) -> None:
        heard.append(("completed", job.name, result))

    async def failed(job: Job, error: BaseException, final: bool) -> None:
        heard.append(("failed", job.name, str(error), final))

    async def progress(job: Job, value: object) -> None:
        heard.append(("progress", job.name, value))

    worker.on("active", active)
    worker.on("completed", completed)
    worker.on("failed", failed)
    worker.on("progress", progress)
    async with worker:
        await worker.wait_until_idle()
    assert sorted(heard, key=repr) == sorted(
        [
            ("active", "good"), ("progress", "good", 50), ("completed", "good", "yes"),
            ("active", "bad"), ("failed", "bad", "no", False), ("active", "bad"), ("failed", "bad", "no", True),
        ],
        key=repr,
    )  # fmt: skip


async def test_a_listener_that_fails_is_named_and_disturbs_nobody(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    job = await queue.add("a")
    heard = threading.Event()

    async def handle(job: Job) -> None: ...

    async def broken(job: Job, result: object) -> None:
        raise ValueError("listener's own")

    def plain(job: Job, result: object) -> None:
        heard.set()

    worker = Worker(queue, handle)
    worker.on("completed", broken)
    worker.on("completed", plain)
    async with worker:
        await worker.wait_until_idle()
    assert heard.is_set()
    assert await job.get_state() == "completed"
    assert any("broken" in record.getMessage() for record in caplog.records)


async def test_a_slow_listener_delays_no_job(queue: Queue) -> None:
    jobs = await queue.add_many([queue.job("a") for _ in range(20)])
    open_gate = asyncio.Event()

    async def handle(job: Job) -> None: ...

    async def slow(job: Job, result: object) -> None:
        await open_gate.wait()

    worker = Worker(queue, handle, WorkerOptions(concurrency=2))
    worker.on("completed", slow)
    async with worker:
        await worker.wait_until_idle()
        assert await queue.get_completed_count() == len(jobs)
        open_gate.set()


def test_an_unknown_event_is_refused(server: Server) -> None:
    worker = Worker(Queue("work", server=server), Gate())
    with pytest.raises(InvalidOptionError):
        worker.on("finished", print)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]  # a mistake


# ── concurrency ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_no_more_jobs_run_than_there_are_slots_for_the_worker_and_for_each_name(queue: Queue) -> None:
    await queue.add_many([queue.job(("capped", "free")[number % 2], {"n": number}) for number in range(2_000)])
    running: dict[str, int] = {"capped": 0, "free": 0}
    most: dict[str, int] = {"capped": 0, "free": 0, "all": 0, "active": 0}

    async def handle(job: Job) -> None:
        running[job.name] += 1
        most[job.name] = max(most[job.name], running[job.name])
        most["all"] = max(most["all"], sum(running.values()))
        if job.data["n"] % 97 == 0:
            most["active"] = max(most["active"], await queue.get_active_count())
        await asyncio.sleep(0)
        running[job.name] -= 1

    worker = Worker(queue, [handler(handle, "capped", concurrency=3), handler(handle, "free")], WorkerOptions(concurrency=10))
    async with worker:
        await worker.wait_until_idle()
    assert await queue.get_completed_count() == 2_000
    assert most["capped"] == 3
    assert most["all"] <= 10


async def test_jobs_behind_thousands_of_a_full_name_run(queue: Queue) -> None:
    gate = Gate()
    await queue.add_many([queue.job("full") for _ in range(3_000)])
    behind = await queue.add_many([queue.job("other") for _ in range(5)])
    ran: list[str] = []

    async def other(job: Job) -> None:
        ran.append(job.id)

    worker = Worker(queue, [handler(gate, "full", concurrency=1), handler(other, "other")], WorkerOptions(shutdown_timeout="0s"))
    async with worker:
        await gate.started.acquire()
        await eventually(lambda: _is(len(ran) == 5))
        assert ran == [job.id for job in behind]
        gate.open.set()
        for _ in range(100):  # a freed slot is used at once
            await gate.started.acquire()
