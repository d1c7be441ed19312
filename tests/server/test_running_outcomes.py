"""What becomes of a job in the corners: odd errors, odd strategies, odd options, scopes, and threads that don't end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from toril import DelayedError, Job, JobDef, Queue, Worker, WorkerOptions, custom, fixed, handler
from toril.errors import InvalidDurationError, WrongLoopError
from toril.queues.backoff import BackoffStrategy
from toril.testing import FakeClock, eventually
from toril.wire.connection import Server
from toril.worker.processor import Handler, HandlerCall


class Payload(BaseModel):
    n: int


async def drain(queue: Queue, handle: Any, **options: Any) -> None:  # noqa: ANN401 -- whatever a worker takes
    """Run what can run now."""
    async with Worker(queue, handle, WorkerOptions(**options)) as worker:
        await worker.wait_until_idle()


def raising(make: Callable[[], BaseException]) -> Callable[[Job], Awaitable[None]]:
    async def handle(job: Job) -> None:
        raise make()

    return handle


def answering(answer: Any) -> BackoffStrategy:  # noqa: ANN401 -- mistakes, too
    def strategy(failures: int, error: BaseException, job: Job) -> Any:  # noqa: ANN401
        return answer

    return strategy


async def nothing(job: Job) -> None: ...


def _is(holds: bool) -> None:
    assert holds


# ── another attempt ───────────────────────────────────────────────────────────────────────────────────────────


async def test_a_fixed_backoff_waits_the_same_each_time(queue: Queue, clock: FakeClock) -> None:
    job = await queue.add("a", attempts=3, backoff=fixed("7s"))
    for made in (1, 2):
        await drain(queue, raising(lambda: ValueError("no")))
        await job.refresh()
        assert (await job.get_state(), job.attempts_made, job.delay_ms) == ("delayed", made, 7_000)
        clock.advance("6999ms")
        await drain(queue, raising(lambda: ValueError("too early")))
        assert await job.get_state() == "delayed"
        clock.advance("1ms")
    await drain(queue, nothing)
    await job.refresh()
    assert (await job.get_state(), job.attempts_made) == ("completed", 3)


async def test_a_worker_that_is_there_runs_the_attempt_when_its_backoff_is_over(queue: Queue, clock: FakeClock) -> None:
    job = await queue.add("a", attempts=2, backoff=fixed("7s"))
    runs: list[int] = []

    async def handle(job: Job) -> None:
        runs.append(job.attempts_made)
        if len(runs) == 1:
            raise ValueError("no")

    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
        assert await job.get_state() == "delayed"
        clock.advance("7s")
        await eventually(lambda: _is(len(runs) == 2))
        await worker.wait_until_idle()
    assert (await job.get_state(), runs) == ("completed", [0, 1])


@pytest.mark.parametrize(("answer", "wait_ms"), [("1m", 60_000), (timedelta(seconds=2), 2_000), (250, 250)])
async def test_a_strategy_may_answer_in_each_form_of_a_duration(queue: Queue, answer: Any, wait_ms: int) -> None:  # noqa: ANN401 -- any form
    job = await queue.add("a", attempts=2, backoff=custom("mine"))
    await drain(queue, raising(lambda: ValueError("no")), backoff_strategies={"mine": answering(answer)})
    await job.refresh()
    assert (await job.get_state(), job.delay_ms) == ("delayed", wait_ms)


@pytest.mark.parametrize("error", [RuntimeError("broken strategy"), SystemExit("broken strategy"), KeyboardInterrupt("broken strategy")])
async def test_a_strategy_that_raises_fails_its_job_and_disturbs_no_other(queue: Queue, error: BaseException) -> None:
    def broken(failures: int, cause: BaseException, job: Job) -> int:
        raise error

    job = await queue.add("bad", attempts=9, backoff=custom("broken"))
    other = await queue.add("good")

    async def handle(job: Job) -> None:
        if job.name == "bad":
            raise ValueError("no")

    await drain(queue, handle, backoff_strategies={"broken": broken})
    await job.refresh()
    assert (await job.get_state(), job.failed_reason) == ("failed", "broken strategy")
    assert await other.get_state() == "completed"


async def test_a_strategy_that_answers_nonsense_fails_its_job(queue: Queue) -> None:
    job = await queue.add("a", attempts=9, backoff=custom("odd"))
    await drain(queue, raising(lambda: ValueError("no")), backoff_strategies={"odd": answering(-5)})
    await job.refresh()
    assert await job.get_state() == "failed"
    assert "'odd'" in str(job.failed_reason)


@pytest.mark.parametrize("delay", ["soon", "-5s"])
async def test_a_put_off_for_nonsense_is_a_failed_attempt_that_says_so(queue: Queue, delay: str) -> None:
    job = await queue.add("a")
    await drain(queue, raising(lambda: DelayedError(delay)))
    await job.refresh()
    assert (await job.get_state(), job.attempts_made) == ("failed", 1)
    assert "DelayedError.delay" in str(job.failed_reason)


# ── errors of every kind ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("make", [StopIteration, StopAsyncIteration, SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
async def test_nothing_that_a_plain_function_raises_ends_the_worker_or_loses_the_job(queue: Queue, make: type[BaseException]) -> None:
    job, other = await queue.add("bad"), await queue.add("good")

    def handle(job: Job) -> None:
        if job.name == "bad":
            raise make

    await drain(queue, handle)
    await job.refresh()
    assert (await job.get_state(), await other.get_state()) == ("failed", "completed")
    assert make.__name__ in str(job.failed_reason)


async def test_an_error_whose_text_cannot_be_made_is_told_by_its_class(queue: Queue) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    job = await queue.add("a")
    await drain(queue, raising(MuteError))
    await job.refresh()
    assert (await job.get_state(), job.failed_reason) == ("failed", "MuteError")


async def test_endless_recursion_and_groups_of_errors_are_stored_shortened(queue: Queue) -> None:
    deep, group = await queue.add("deep"), await queue.add("group")

    def down(n: int) -> int:
        return up(n + 1)

    def up(n: int) -> int:
        return down(n + 1)

    async def handle(job: Job) -> None:
        if job.name == "deep":
            down(0)
        raise ExceptionGroup("many", [ValueError("x" * 1_000) for _ in range(200)])

    await drain(queue, handle)
    for job in (deep, group):
        await job.refresh()
        assert await job.get_state() == "failed"
        assert 0 < len(job.stack_trace[0]) < 25_000
    assert "RecursionError" in deep.stack_trace[0]
    assert "many (200 sub-exceptions)" in str(group.failed_reason)


async def test_a_stored_stack_begins_where_the_users_code_does(queue: Queue) -> None:
    jobs = [await queue.add(name) for name in ("async", "plain", "chained")]

    async def fail(job: Job) -> None:
        await queue.add("x", delay="soon")

    def fail_in_thread(job: Job) -> None:
        raise ValueError("plain")

    async def fail_again(job: Job) -> None:
        try:
            await fail(job)
        except InvalidDurationError as error:
            raise ValueError("again") from error

    await drain(queue, [handler(fail, "async"), handler(fail_in_thread, "plain"), handler(fail_again, "chained")])
    for job in jobs:
        await job.refresh()
    stacks = {job.name: [line for line in job.stack_trace[0].splitlines() if line.startswith("  File ")] for job in jobs}
    assert [f"in {name}" for name in ("fail", "fail_in_thread", "fail_again", "fail_again")] == [
        line.rpartition(", ")[2] for line in (stacks["async"][0], stacks["plain"][0], stacks["chained"][0], stacks["chained"][-1])
    ]
    assert "queues" in stacks["async"][1]  # what the library does for the handler is the handler's
    assert len(stacks["plain"]) == 1
    assert "InvalidDurationError" in jobs[2].stack_trace[0]


async def test_only_as_many_stacks_are_kept_as_the_job_wants(queue: Queue) -> None:
    some, none = await queue.add("some", attempts=4, stack_trace_limit=2), await queue.add("none", attempts=4, stack_trace_limit=0)
    runs: list[str] = []

    async def handle(job: Job) -> None:
        runs.append(job.name)
        raise ValueError(f"number {runs.count(job.name)}")

    await drain(queue, handle)
    await some.refresh()
    await none.refresh()
    assert [stack.strip().splitlines()[-1] for stack in some.stack_trace] == ["ValueError: number 3", "ValueError: number 4"]
    assert none.stack_trace == []


async def test_a_result_that_does_not_fit_its_type_fails_the_job_for_good(queue: Queue) -> None:
    job = await queue.add("typed", {"n": 1}, attempts=5)

    async def handle(job: Job[Payload, Payload]) -> Any:  # noqa: ANN401 -- the mistake
        return {"n": object()}

    await drain(queue, [handler(handle, JobDef[Payload, Payload]("typed"))])
    await job.refresh()
    assert (await job.get_state(), job.attempts_made) == ("failed", 1)


@pytest.mark.parametrize(
    "opts", ["", "nonsense", "[]", "null", '{"attempts":"x","backoff":[1],"removeOnFail":"y"}', '{"backoff":{"type":7}}']
)
async def test_options_that_nobody_can_read_count_as_none(queue: Queue, server: Server, opts: str) -> None:
    job = await queue.add("a", attempts=5)
    await server.commands.call("HSET", queue.keys.job(job.id), "opts", opts)
    await drain(queue, raising(lambda: ValueError("no")))
    await job.refresh()
    assert (await job.get_state(), job.attempts_made, job.failed_reason) == ("failed", 1, "no")


async def test_earlier_stacks_that_nobody_can_read_are_dropped(queue: Queue, server: Server) -> None:
    job = await queue.add("a")
    await server.commands.call("HSET", queue.keys.job(job.id), "stacktrace", '{"not": "a list"')
    await drain(queue, raising(lambda: ValueError("no")))
    await job.refresh()
    assert (await job.get_state(), len(job.stack_trace)) == ("failed", 1)


async def test_a_deferred_failure_counts_as_an_attempt_and_needs_no_handler(queue: Queue, server: Server) -> None:
    job = await queue.add("nobody-knows-it", attempts=5)
    await server.commands.call("HSET", queue.keys.job(job.id), "defa", "child bull:q:7 failed")
    await drain(queue, {"known": nothing})
    await job.refresh()
    assert (await job.get_state(), job.failed_reason, job.attempts_made) == ("failed", "child bull:q:7 failed", 1)
    assert not await server.commands.call("HEXISTS", queue.keys.job(job.id), "defa")


async def test_an_unknown_name_that_fails_at_once_tells_the_names_there_are(queue: Queue) -> None:
    job = await queue.add("newer", attempts=3)
    await drain(queue, {"known": nothing, "also": nothing}, unknown_names="fail")
    await job.refresh()
    assert (await job.get_state(), job.attempts_made) == ("failed", 1)
    assert "'newer'" in str(job.failed_reason)
    assert "known: 'also', 'known'" in str(job.failed_reason)


# ── scopes ────────────────────────────────────────────────────────────────────────────────────────────────────


def scoped(scope: Callable[[Job], AsyncGenerator[HandlerCall]]) -> list[Handler]:
    return [Handler(name=None, scope=asynccontextmanager(scope))]


async def test_the_scope_closes_before_the_job_ends_and_its_error_fails_the_attempt(queue: Queue) -> None:
    job = await queue.add("a", attempts=2)
    opened: list[Job] = []

    async def scope(job: Job) -> AsyncGenerator[HandlerCall]:
        opened.append(job)
        yield nothing
        assert await job.get_state() == "active"
        if len(opened) == 1:
            raise OSError("can't commit")

    await drain(queue, scoped(scope))
    await job.refresh()
    assert (await job.get_state(), job.attempts_made, job.failed_reason, len(opened)) == ("completed", 2, "can't commit", 2)


async def test_a_scope_that_cannot_open_fails_the_attempt(queue: Queue) -> None:
    job = await queue.add("a")

    async def scope(job: Job) -> AsyncGenerator[HandlerCall]:
        if job.id:
            raise OSError("can't connect")
        yield nothing

    await drain(queue, scoped(scope))
    await job.refresh()
    assert (await job.get_state(), job.failed_reason) == ("failed", "can't connect")


async def test_a_scope_that_swallows_the_handlers_error_does_not_hide_it(queue: Queue) -> None:
    job = await queue.add("a")

    async def scope(job: Job) -> AsyncGenerator[HandlerCall]:
        with suppress(ValueError):
            yield raising(lambda: ValueError("no"))

    await drain(queue, scoped(scope))
    await job.refresh()
    assert (await job.get_state(), job.failed_reason) == ("failed", "no")


async def test_data_is_checked_before_the_scope_opens(queue: Queue) -> None:
    job = await queue.add("typed", {"n": "many"})
    opened: list[Job] = []

    async def scope(job: Job) -> AsyncGenerator[HandlerCall]:
        opened.append(job)
        yield nothing

    definition = JobDef[Payload, None]("typed")
    await drain(queue, [Handler(name="typed", scope=asynccontextmanager(scope), payload=definition.payload)])
    assert (await job.get_state(), opened) == ("failed", [])


# ── time's up ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_timeout_counts_as_an_attempt_and_the_next_one_has_all_of_it_again(queue: Queue, clock: FakeClock) -> None:
    job = await queue.add("slow", attempts=2, timeout="5s")
    started = asyncio.Semaphore(0)

    async def handle(job: Job) -> None:
        started.release()
        await asyncio.Event().wait()

    async with Worker(queue, handle) as worker:
        await started.acquire()
        clock.advance("5s")
        await started.acquire()
        clock.advance("4999ms")
        await job.refresh()
        assert (await job.get_state(), job.attempts_made) == ("active", 1)
        clock.advance("1ms")
        await worker.wait_until_idle()
    await job.refresh()
    assert (await job.get_state(), job.attempts_made, len(job.stack_trace)) == ("failed", 2, 2)


async def test_the_jobs_timeout_goes_before_the_handlers(queue: Queue, clock: FakeClock) -> None:
    job = await queue.add("slow", timeout="1s")
    started = asyncio.Event()

    async def handle(job: Job) -> None:
        started.set()
        await asyncio.Event().wait()

    async with Worker(queue, [handler(handle, "slow", timeout="1h")]) as worker:
        await started.wait()
        clock.advance("1s")
        await worker.wait_until_idle()
    await job.refresh()
    assert "timeout of 1s" in str(job.failed_reason)


async def test_an_error_while_cleaning_up_after_the_timeout_is_the_attempts(queue: Queue, clock: FakeClock) -> None:
    job = await queue.add("slow", timeout="1s")
    started = asyncio.Event()

    async def handle(job: Job) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("can't roll back")

    async with Worker(queue, handle) as worker:
        await started.wait()
        clock.advance("1s")
        await worker.wait_until_idle()
    await job.refresh()
    assert (await job.get_state(), job.failed_reason) == ("failed", "can't roll back")


async def test_a_plain_functions_own_timeout_error_is_not_the_jobs(queue: Queue) -> None:
    job = await queue.add("slow", timeout="5s")

    def handle(job: Job) -> None:
        raise TimeoutError("mine")

    await drain(queue, handle)
    await job.refresh()
    assert job.failed_reason == "mine"


async def test_a_thread_past_its_timeout_holds_slot_and_lock_until_it_returns(queue: Queue, server: Server, clock: FakeClock) -> None:
    job, next_job = await queue.add("slow", timeout="5s"), await queue.add("next")
    started, go_on = threading.Event(), threading.Event()

    def handle(job: Job) -> str:
        if job.name == "slow":
            started.set()
            job.cancelled.wait(timeout=20)
            go_on.wait(timeout=20)
        return "result"

    async with Worker(queue, handle, WorkerOptions(concurrency=1)) as worker:
        await eventually(lambda: _is(started.is_set()))
        clock.advance("5s")
        await eventually(lambda: _is(worker.running_jobs[0].cancelled.is_set()))
        assert await next_job.get_state() == "waiting"
        assert await server.commands.call("EXISTS", queue.keys.lock(job.id)) == 1
        go_on.set()
        await worker.wait_until_idle()
    await job.refresh()
    assert (await job.get_state(), job.attempts_made, job.return_value) == ("failed", 1, None)
    assert "timeout of 5s" in str(job.failed_reason)
    await next_job.refresh()
    assert (await next_job.get_state(), next_job.return_value) == ("completed", "result")


async def test_an_error_of_a_thread_past_its_timeout_does_not_count_either(queue: Queue, clock: FakeClock) -> None:
    job = await queue.add("slow", timeout="5s")
    started = threading.Event()

    def handle(job: Job) -> None:
        started.set()
        job.cancelled.wait(timeout=20)
        raise StopIteration

    async with Worker(queue, handle) as worker:
        await eventually(lambda: _is(started.is_set()))
        clock.advance("5s")
        await worker.wait_until_idle()
    await job.refresh()
    assert "timeout of 5s" in str(job.failed_reason)


async def test_progress_reported_by_a_thread_on_a_loop_of_its_own_is_refused_at_once(queue: Queue) -> None:
    raised: list[str] = []

    def handle(job: Job) -> None:
        with pytest.raises(WrongLoopError) as caught:
            asyncio.run(asyncio.wait_for(job.update_progress(50), 5))
        raised.append(str(caught.value))

    job = await queue.add("work", {})
    await drain(queue, handle)
    assert len(raised) == 1
    assert "belongs to another event loop" in raised[0]
    assert (await queue.get_job(job.id)).progress != 50  # nothing was sent
