"""What becomes of a job, by what its handler does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from tests.bench import Bench
from toril import (
    DelayedError,
    Job,
    JobDef,
    Queue,
    UnrecoverableError,
    WaitingError,
    Worker,
    WorkerOptions,
    custom,
    exponential,
    handler,
)
from toril.testing import FakeClock, eventually
from toril.wire.connection import Server


class Payload(BaseModel):
    n: int


async def drain(queue: Queue, handle: Any, **options: Any) -> Worker:  # noqa: ANN401 -- whatever a worker takes
    """Run what can run now."""
    worker = Worker(queue, handle, WorkerOptions(**options))
    async with worker:
        await worker.wait_until_idle()
    return worker


def raising(make: Callable[[], BaseException]) -> Callable[[Job], Any]:
    async def handle(job: Job) -> None:
        raise make()

    return handle


async def test_a_job_is_tried_as_often_as_it_may_be(queue: Queue) -> None:
    job = await queue.add("a", attempts=3)
    await drain(queue, raising(lambda: ValueError("no")))
    await job.refresh()
    assert (await job.get_state(), job.attempts_made, job.failed_reason) == ("failed", 3, "no")
    assert len(job.stack_trace) == 3
    assert "ValueError: no" in job.stack_trace[0]


async def test_a_failed_attempt_waits_for_its_backoff(queue: Queue, clock: FakeClock) -> None:
    job = await queue.add("a", attempts=3, backoff=exponential("1s", jitter=0, cap="1h"))
    for made, wait in ((1, "1s"), (2, "2s")):
        await drain(queue, raising(lambda: ValueError("no")))
        await job.refresh()
        assert (await job.get_state(), job.attempts_made) == ("delayed", made)
        clock.advance(wait)
    await drain(queue, raising(lambda: ValueError("no")))
    assert await job.get_state() == "failed"


async def test_a_custom_strategy_decides_and_may_give_up(queue: Queue) -> None:
    asked: list[tuple[int, str]] = []

    def strategy(failures: int, error: BaseException, job: Job[Any, Any]) -> int | None:
        asked.append((failures, str(error)))
        return 0 if failures == 1 else None

    job = await queue.add("a", attempts=9, backoff=custom("mine"))
    await drain(queue, raising(lambda: ValueError("no")), backoff_strategies={"mine": strategy})
    await job.refresh()
    assert (await job.get_state(), job.attempts_made, asked) == ("failed", 2, [(1, "no"), (2, "no")])


async def test_a_strategy_that_nobody_knows_fails_the_job(queue: Queue) -> None:
    job = await queue.add("a", attempts=9, backoff=custom("theirs"))
    await drain(queue, raising(lambda: ValueError("no")))
    await job.refresh()
    assert await job.get_state() == "failed"
    assert "theirs" in str(job.failed_reason)


@pytest.mark.parametrize(
    "make",
    [
        lambda: UnrecoverableError("never"),
        lambda: type("UnrecoverableError", (Exception,), {})("never"),  # somebody else's, known by its name as in Node
    ],
)
async def test_an_unrecoverable_error_fails_at_once(queue: Queue, make: Callable[[], BaseException]) -> None:
    job = await queue.add("a", attempts=5)
    await drain(queue, raising(make))
    await job.refresh()
    assert (await job.get_state(), job.attempts_made, job.failed_reason) == ("failed", 1, "never")


async def test_a_handler_can_put_its_job_off_without_spending_an_attempt(queue: Queue, clock: FakeClock) -> None:
    job = await queue.add("a")
    await drain(queue, raising(lambda: DelayedError("30s")))
    await job.refresh()
    assert (await job.get_state(), job.attempts_made, job.delay_ms) == ("delayed", 0, 30_000)
    clock.advance("30s")
    runs: list[int] = []

    async def handle(job: Job) -> None:
        runs.append(job.attempts_started)
        if len(runs) < 3:
            raise WaitingError

    await drain(queue, handle)
    await job.refresh()
    assert (runs, await job.get_state(), job.attempts_made) == ([2, 3, 4], "completed", 1)


@pytest.mark.parametrize("make", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
async def test_nothing_that_a_handler_raises_ends_the_worker(queue: Queue, make: type[BaseException]) -> None:
    first, second = await queue.add("bad"), await queue.add("good")

    async def handle(job: Job) -> None:
        if job.name == "bad":
            raise make

    await drain(queue, handle)
    await first.refresh()
    assert (await first.get_state(), first.failed_reason) == ("failed", make.__name__)
    assert await second.get_state() == "completed"


@pytest.mark.parametrize("make", [KeyboardInterrupt, asyncio.CancelledError])
async def test_a_second_ctrl_c_that_is_raised_in_a_handler_puts_its_job_back(queue: Queue, make: type[BaseException]) -> None:
    job, started, stopping = await queue.add("a"), asyncio.Event(), asyncio.Event()

    async def handle(job: Job) -> None:
        started.set()
        await stopping.wait()
        raise make

    async with Worker(queue, handle) as worker:
        await started.wait()
        worker.ask_to_stop()
        await eventually(lambda: _is_stopping(worker))
        stopping.set()
    await job.refresh()
    assert (await job.get_state(), job.attempts_made) == ("waiting", 0)


def _is_stopping(worker: Worker) -> None:
    assert worker.state.value == "stopping"


async def test_what_cannot_be_stored_as_it_is_is_stored_readably(queue: Queue) -> None:
    huge, surrogate, empty = [await queue.add(name) for name in ("huge", "surrogate", "empty")]
    texts = {"huge": "x" * 100_000, "surrogate": "half \ud800", "empty": ""}

    async def handle(job: Job) -> None:
        raise ValueError(texts[job.name])

    await drain(queue, handle)
    for job in (huge, surrogate, empty):
        await job.refresh()
        assert await job.get_state() == "failed"
    assert len(str(huge.failed_reason)) < 25_000
    assert len(huge.stack_trace[0]) < 25_000
    assert surrogate.failed_reason == "half \\ud800"
    assert empty.failed_reason == "ValueError"


async def test_a_result_that_is_not_json_fails_the_job_for_good(queue: Queue) -> None:
    job = await queue.add("a", attempts=5)

    async def handle(job: Job) -> dict[str, object]:
        return {"user": {"tags": [1, float("nan")]}}

    await drain(queue, handle)
    await job.refresh()
    assert (await job.get_state(), job.attempts_made) == ("failed", 1)
    assert "$.user.tags[1]" in str(job.failed_reason)


async def test_data_that_does_not_fit_fails_the_job_for_good(queue: Queue) -> None:
    job = await queue.add("typed", {"n": "many"}, attempts=5)
    ran: list[Job] = []

    async def handle(job: Job[Payload, None]) -> None:
        ran.append(job)

    await drain(queue, [handler(handle, JobDef[Payload, None]("typed"))])
    await job.refresh()
    assert (await job.get_state(), job.attempts_made, ran) == ("failed", 1, [])
    assert f"job {job.id}" in str(job.failed_reason)
    assert "n: Input should be a valid integer" in str(job.failed_reason)


async def test_a_handlers_annotation_types_its_data(queue: Queue) -> None:
    await queue.add("typed", {"n": 2})
    seen: list[Payload] = []

    async def handle(job: Job[Payload, int]) -> int:
        seen.append(job.data)
        return job.data.n

    await drain(queue, {"typed": handle})
    assert seen == [Payload(n=2)]


async def test_a_job_of_an_unknown_name_is_put_back_five_times_and_then_fails(queue: Queue, clock: FakeClock) -> None:
    job = await queue.add("newer")
    for delay_ms in (5_000, 10_000, 20_000, 40_000, 80_000):
        await drain(queue, {"known": raising(ValueError)})
        await job.refresh()
        assert (await job.get_state(), job.attempts_made, job.delay_ms) == ("delayed", 0, delay_ms)
        clock.advance("80s")
    await drain(queue, {"known": raising(ValueError)})
    await job.refresh()
    assert (await job.get_state(), job.attempts_made) == ("failed", 1)
    assert "known: 'known'" in str(job.failed_reason)


async def test_a_job_of_an_unknown_name_fails_at_once_if_that_is_wanted(queue: Queue) -> None:
    job = await queue.add("newer", attempts=3)
    await drain(queue, {"known": raising(ValueError)}, unknown_names="fail")
    assert await job.get_state() == "failed"


async def test_a_job_that_stalled_too_often_fails_without_running(
    queue: Queue, server: Server, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    job = await queue.add("a", attempts=5)
    await server.commands.call("HSET", queue.keys.job(job.id), "defa", "job stalled more than allowable limit", "stc", 2)
    ran: list[Job] = []

    async def handle(job: Job) -> None:
        ran.append(job)

    await drain(queue, handle)
    await job.refresh()
    assert (await job.get_state(), job.failed_reason, ran) == ("failed", "job stalled more than allowable limit", [])
    assert "stalled_count=2 max_stalled_count=1" in caplog.text


@pytest.mark.parametrize("with_failed_child", [False, True])
async def test_a_parent_with_open_children_cannot_complete(server: Server, prefix: str, with_failed_child: bool) -> None:
    bench = Bench(server, prefix)
    queue = Queue("q", prefix=prefix, server=server)
    job = await queue.add("parent")
    if with_failed_child:
        await bench.raw("ZADD", f"{queue.keys.job(job.id)}:unsuccessful", 1, "bull:q:child")
    else:
        await bench.raw("SADD", f"{queue.keys.job(job.id)}:dependencies", "bull:q:child")

    async def handle(job: Job) -> None: ...

    await drain(queue, handle)
    await job.refresh()
    assert await job.get_state() == "failed"
    assert "children" in str(job.failed_reason)


# ── timeouts and threads ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("said_by", ["job", "handler"])
async def test_a_handler_that_takes_too_long_is_cancelled_and_has_failed(queue: Queue, clock: FakeClock, said_by: str) -> None:
    job = await (queue.add("slow", timeout="5s") if said_by == "job" else queue.add("slow"))
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def handle(job: Job) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with Worker(queue, [handler(handle, "slow", timeout=None if said_by == "job" else "5s")]) as worker:
        await started.wait()
        clock.advance("4s")
        assert not cancelled.is_set()
        clock.advance("2s")
        await cancelled.wait()
        await worker.wait_until_idle()
    await job.refresh()
    assert (await job.get_state(), job.attempts_made) == ("failed", 1)
    assert "longer than its timeout of 5s" in str(job.failed_reason)


async def test_a_handlers_own_timeout_error_is_not_the_jobs(queue: Queue) -> None:
    job = await queue.add("slow", timeout="5s")
    await drain(queue, raising(lambda: TimeoutError("mine")))
    await job.refresh()
    assert job.failed_reason == "mine"


async def test_a_plain_function_runs_in_a_thread(queue: Queue) -> None:
    job = await queue.add("a")

    def handle(job: Job) -> str:
        return threading.current_thread().name

    await drain(queue, handle)
    await job.refresh()
    assert str(job.return_value).startswith("toril-q")


async def test_a_thread_past_its_timeout_is_told_and_its_result_does_not_count(queue: Queue, clock: FakeClock) -> None:
    job = await queue.add("a", timeout="5s")
    started, told, go_on = threading.Event(), threading.Event(), threading.Event()

    def handle(job: Job) -> str:
        started.set()
        if job.cancelled.wait(timeout=20):
            told.set()
        go_on.wait(timeout=20)
        return "too late"

    async with Worker(queue, handle, WorkerOptions(concurrency=1)) as worker:
        await eventually(lambda: _is(started.is_set()))
        clock.advance("5s")
        await eventually(lambda: _is(told.is_set()))
        assert len(worker.running_jobs) == 1  # it keeps its slot and its lock until it returns
        go_on.set()
        await worker.wait_until_idle()
    await job.refresh()
    assert (await job.get_state(), job.return_value) == ("failed", None)


def _is(holds: bool) -> None:
    assert holds
