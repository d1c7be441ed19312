"""What a worker's listeners hear, when, and that they disturb nothing."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import pytest

from toril import Job, JobDef, Queue, Worker, WorkerOptions, fixed, handler
from toril.errors import InvalidOptionError, LockLostError, PendingChildrenError, UnknownJobNameError
from toril.queues.listeners import LocalEvent
from toril.testing import FakeClock, eventually
from toril.wire.connection import Server


async def nothing(job: Job) -> None: ...


def _is(holds: bool) -> None:
    assert holds


Heard: TypeAlias = list[tuple[Any, ...]]
"""The events, each with its arguments."""


def hear(worker: Worker, *events: LocalEvent) -> Heard:
    """Listen with plain functions, which are called one after the other."""
    heard: Heard = []

    def listener_of(event: LocalEvent) -> Callable[..., None]:
        def listener(*args: object) -> None:
            heard.append((event, *args))

        return listener

    for event in events:
        worker.on(event, listener_of(event))
    return heard


async def run_until_idle(worker: Worker) -> None:
    async with worker:
        await worker.wait_until_idle()


# ── what they hear ────────────────────────────────────────────────────────────────────────────────────────────


async def test_one_job_is_told_in_the_order_in_which_it_happens(queue: Queue) -> None:
    await queue.add("a", attempts=2)

    async def handle(job: Job) -> dict[str, int]:
        await job.update_progress({"step": job.attempts_made})
        if job.attempts_made == 0:
            raise ValueError("no")
        return {"n": 1}

    worker = Worker(queue, handle)
    heard = hear(worker, "active", "progress", "failed", "completed", "error")
    await run_until_idle(worker)
    assert [(event, job.id, *map(repr, rest)) for event, job, *rest in heard] == [
        ("active", "1"), ("progress", "1", "{'step': 0}"), ("failed", "1", "ValueError('no')", "False"),
        ("active", "1"), ("progress", "1", "{'step': 1}"), ("completed", "1", "{'n': 1}"),
    ]  # fmt: skip


async def test_failed_is_told_at_each_attempt_with_the_job_as_it_is_then(queue: Queue, clock: FakeClock) -> None:
    await queue.add("a", attempts=3, backoff=fixed("1s"))
    heard: list[tuple[Any, ...]] = []

    async def handle(job: Job) -> None:
        raise ValueError(f"attempt {job.attempts_made}")

    def failed(job: Job, error: BaseException, final: bool) -> None:
        heard.append((str(error), final, job.attempts_made, job.failed_reason, len(job.stack_trace)))

    for _ in range(3):
        worker = Worker(queue, handle)
        worker.on("failed", failed)
        await run_until_idle(worker)
        clock.advance("1s")
    assert heard == [
        ("attempt 0", False, 1, "attempt 0", 1),
        ("attempt 1", False, 2, "attempt 1", 2),
        ("attempt 2", True, 3, "attempt 2", 3),
    ]


async def test_completed_is_told_once_the_server_has_it_with_the_job_as_it_is_then(queue: Queue) -> None:
    await queue.add("a")
    heard: list[tuple[Any, ...]] = []

    async def handle(job: Job) -> list[int]:
        return [1, 2]

    async def completed(job: Job, result: object) -> None:
        heard.append((await job.get_state(), result, job.return_value, job.attempts_made))

    worker = Worker(queue, handle)
    worker.on("completed", completed)
    await run_until_idle(worker)
    assert heard == [("completed", [1, 2], [1, 2], 1)]


async def test_a_job_whose_completion_the_server_refuses_is_told_as_failed_only(queue: Queue, server: Server) -> None:
    job = await queue.add("parent")
    await server.commands.call("SADD", f"{queue.keys.job(job.id)}:dependencies", "bull:q:child")
    worker = Worker(queue, nothing)
    heard = hear(worker, "completed", "failed", "error")
    await run_until_idle(worker)
    ((event, told, error, final),) = heard
    assert (event, told.id, told.attempts_made, type(error), final) == ("failed", job.id, 1, PendingChildrenError, True)


async def test_an_unknown_name_is_told_when_it_fails_and_not_when_it_is_put_back(queue: Queue, clock: FakeClock) -> None:
    await queue.add("newer")
    heard: Heard = []
    for _ in range(6):
        assert heard == []
        worker = Worker(queue, {"known": nothing})
        heard = hear(worker, "failed")
        await run_until_idle(worker)
        clock.advance("80s")
    ((_, job, error, final),) = heard
    assert isinstance(error, UnknownJobNameError)
    assert (error.known, final, job.attempts_made) == (("known",), True, 1)


async def test_a_job_put_back_at_stop_is_told_as_nothing(queue: Queue) -> None:
    await queue.add("a")
    started = asyncio.Event()

    async def handle(job: Job) -> None:
        started.set()
        await asyncio.Event().wait()

    worker = Worker(queue, handle, WorkerOptions(shutdown_timeout="0s"))
    heard = hear(worker, "failed", "completed", "error")
    async with worker:
        await started.wait()
    assert heard == []


async def test_a_lost_lock_is_told_as_an_error(queue: Queue, server: Server, clock: FakeClock) -> None:
    job = await queue.add("a")
    started = asyncio.Event()
    errors: list[BaseException] = []

    async def handle(job: Job) -> None:
        started.set()
        await asyncio.Event().wait()

    worker = Worker(queue, handle)
    worker.on("error", errors.append)
    async with worker:
        await started.wait()
        await server.commands.call("SET", queue.keys.lock(job.id), "somebody else")
        clock.advance("10s")  # a renewal is due
        await eventually(lambda: _is(worker.running_jobs == ()))
        await server.commands.call("DEL", queue.keys.lock(job.id))
    (error,) = errors
    assert isinstance(error, LockLostError)
    assert error.job_id == job.id


async def test_progress_is_told_with_the_handlers_own_job(queue: Queue) -> None:
    await queue.add("a")
    ours: list[Job] = []
    told: list[Job] = []

    async def handle(job: Job) -> None:
        ours.append(job)
        await job.update_progress(7)

    async def progress(job: Job, value: int) -> None:
        assert job.progress == value == 7
        told.append(job)

    worker = Worker(queue, handle)
    worker.on("progress", progress)
    await run_until_idle(worker)
    assert told == ours


async def test_without_a_listener_a_job_tells_nobody(queue: Queue) -> None:
    await queue.add("a")
    hooks: list[object] = []

    async def handle(job: Job) -> None:
        await job.update_progress(7)
        hooks.append(job.on_progress)

    await run_until_idle(Worker(queue, handle))
    assert hooks == [None]


# ── what they can't do ────────────────────────────────────────────────────────────────────────────────────────


async def test_plain_listeners_run_in_a_thread_and_coroutine_functions_in_the_loop(queue: Queue) -> None:
    await queue.add("a")
    threads: dict[str, str] = {}

    async def in_the_loop(job: Job) -> None:
        threads["coroutine function"] = threading.current_thread().name

    def in_a_thread(job: Job) -> None:
        threads["plain"] = threading.current_thread().name

    worker = Worker(queue, nothing)
    worker.on("active", in_the_loop)
    worker.on("active", in_a_thread)
    await run_until_idle(worker)
    assert threads["coroutine function"] == threading.current_thread().name
    assert threads["plain"].startswith("toril-listeners")


class Notes:
    """A listener that is an object; what it returns is a coroutine, and only that notes anything."""

    def __init__(self, *, raises: bool = False) -> None:
        self.heard: list[str] = []
        self.raises = raises

    def __call__(self, job: Job, result: object) -> Coroutine[Any, Any, None]:
        return self.note(job)

    async def note(self, job: Job) -> None:
        await asyncio.sleep(0)
        if self.raises:
            raise ValueError("not noted")
        self.heard.append(job.id)


def note_in(notes: Notes, job: Job, result: object) -> Coroutine[Any, Any, None]:
    return notes.note(job)


async def test_what_a_plain_listener_returns_is_awaited_in_the_loop(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    job = await queue.add("a")
    notes, raising = Notes(), Notes(raises=True)
    worker = Worker(queue, nothing)
    worker.on("completed", notes)
    worker.on("completed", lambda job, result: notes.note(job))
    worker.on("completed", functools.partial(note_in, notes))
    worker.on("completed", raising)
    queue.on("completed", notes)
    await run_until_idle(worker)
    assert notes.heard == [job.id] * 4
    (line,) = [record.getMessage() for record in caplog.records if "listener failed" in record.getMessage()]
    assert "Notes object" in line


@pytest.mark.parametrize("error", [ValueError("listener's own"), SystemExit("listener's own"), KeyboardInterrupt("listener's own")])
@pytest.mark.parametrize("kind", ["plain", "coroutine function"])
async def test_a_listener_that_raises_is_named_in_the_log_and_the_others_still_hear(
    queue: Queue, caplog: pytest.LogCaptureFixture, kind: str, error: BaseException
) -> None:
    jobs = await queue.add_many([queue.job("a") for _ in range(3)])

    def breaks_plainly(job: Job, result: object) -> None:
        raise error

    async def breaks_in_the_loop(job: Job, result: object) -> None:
        raise error

    worker = Worker(queue, nothing)
    worker.on("completed", breaks_plainly if kind == "plain" else breaks_in_the_loop)
    heard = hear(worker, "completed")
    await run_until_idle(worker)
    assert sorted(job.id for _, job, _ in heard) == sorted(job.id for job in jobs)
    assert await queue.get_completed_count() == 3
    name = "breaks_plainly" if kind == "plain" else "breaks_in_the_loop"
    assert sum(name in record.getMessage() for record in caplog.records) == 3


async def test_a_slow_plain_listener_delays_no_job_and_is_waited_for_at_stop(queue: Queue) -> None:
    jobs = await queue.add_many([queue.job("a") for _ in range(20)])
    go_on = threading.Event()
    heard: list[str] = []

    def slow(job: Job, result: object) -> None:
        go_on.wait(timeout=20)
        heard.append(job.id)

    worker = Worker(queue, nothing, WorkerOptions(concurrency=2))
    worker.on("completed", slow)
    async with worker:
        await worker.wait_until_idle()
        assert (await queue.get_completed_count(), heard) == (20, [])
        go_on.set()
    assert sorted(heard) == sorted(job.id for job in jobs)


async def test_a_slow_listener_in_the_loop_delays_no_job(queue: Queue) -> None:
    jobs = await queue.add_many([queue.job("a") for _ in range(20)])
    open_gate = asyncio.Event()

    async def slow(job: Job, result: object) -> None:
        await open_gate.wait()

    worker = Worker(queue, nothing, WorkerOptions(concurrency=2))
    worker.on("completed", slow)
    async with worker:
        await worker.wait_until_idle()
        assert await queue.get_completed_count() == len(jobs)
        open_gate.set()


async def test_a_listener_added_while_jobs_run_hears_the_next_ones(queue: Queue) -> None:
    async with Worker(queue, nothing) as worker:
        await (await queue.add("before")).result(timeout="10s")
        await worker.wait_until_idle()
        heard = hear(worker, "completed")
        await queue.add("after")
        await eventually(lambda: _is([job.name for _, job, _ in heard] == ["after"]))


async def test_a_progress_that_is_no_json_is_told_to_nobody(queue: Queue) -> None:
    job = await queue.add("a")

    async def handle(job: Job) -> None:
        await job.update_progress(object())

    worker = Worker(queue, [handler(handle, JobDef[dict[str, int], None]("a"))])
    heard = hear(worker, "progress")
    await run_until_idle(worker)
    await job.refresh()
    assert (heard, await job.get_state()) == ([], "failed")
    assert "the progress of job 1" in str(job.failed_reason)


async def test_an_unknown_event_is_refused(queue: Queue) -> None:
    worker = Worker(queue, nothing)
    with pytest.raises(InvalidOptionError):
        worker.on("finished", print)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]  # a mistake
