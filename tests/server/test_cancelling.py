"""Cancelling jobs, wherever they are, and jobs that waited too long."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator

import pytest

from tests.bench import Bench, gone_wrong
from tests.proxy import Cut, Proxy, is_command, is_script, nth
from toril import (
    DelayedError,
    FlowProducer,
    Job,
    JobOptions,
    Queue,
    QueueEvents,
    RateLimitError,
    ScheduleRule,
    WaitingError,
    Worker,
    WorkerOptions,
    fixed,
    flow_job,
)
from toril.errors import InvalidOptionError, JobCancelledError, JobExpiredError, JobFailedError, JobNotFoundError, JobStateError
from toril.queues.events import FailedEvent
from toril.queues.states import JobState
from toril.testing import FakeClock, eventually
from toril.wire.connection import Server


@pytest.fixture
async def queue(server: Server, prefix: str, clock: FakeClock, letters: Queue) -> AsyncIterator[Queue]:
    async with Queue("work", prefix=prefix, server=server, clock=clock, dead_letter=letters) as queue:
        yield queue


class Rest:
    """A handler that rests until it is cancelled."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled: list[str] = []

    async def __call__(self, job: Job) -> None:
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.append(job.id)
            raise


# ── jobs that don't run ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("state", "options"),
    [("waiting", JobOptions()), ("delayed", JobOptions(delay="1h")), ("prioritized", JobOptions(priority=2))],
    ids=["waiting", "delayed", "prioritized"],
)
async def test_a_job_that_does_not_run_fails_at_once(queue: Queue, letters: Queue, state: JobState, options: JobOptions) -> None:
    async with QueueEvents(queue) as events:
        job = await queue.add("a", attempts=5, options=options)
        assert await queue.cancel(job.id, "not needed") == state
        failed = [event async for event in _until_failed(events)][-1]
    assert (failed.job_id, failed.reason, failed.previous) == (job.id, "cancelled: not needed", state)
    await job.refresh()
    assert (await job.get_state(), job.failed_reason, job.attempts_made) == ("failed", "cancelled: not needed", 0)
    assert await queue.count() == await letters.count() == 0
    with pytest.raises(JobFailedError, match="cancelled: not needed"):
        await job.result(timeout="5s")


async def _until_failed(events: QueueEvents) -> AsyncIterator[FailedEvent]:
    async for event in events:
        if isinstance(event, FailedEvent):
            yield event
            return


async def test_a_cancelled_job_that_keeps_nothing_is_gone(queue: Queue) -> None:
    job = await queue.add("a", remove_on_fail=True)
    await job.cancel()
    assert await queue.find_job(job.id) is None


async def test_a_job_that_has_ended_or_never_was_cant_be_cancelled(queue: Queue) -> None:
    async def nothing(job: Job) -> None: ...

    job = await queue.add("a")
    async with Worker(queue, nothing) as worker:
        await worker.wait_until_idle()
    with pytest.raises(JobStateError, match=" is completed; this needs it to be one that has not ended"):
        await queue.cancel(job.id)
    with pytest.raises(JobNotFoundError):
        await queue.cancel("4711")


async def test_a_schedulers_next_job_cant_be_cancelled(queue: Queue) -> None:
    job = await queue.job_schedulers.upsert("tick", ScheduleRule(every="1h", offset="1m"))
    with pytest.raises(JobStateError, match="scheduler"):
        await queue.cancel(job.id)
    assert await job.get_state() == "delayed"


async def test_a_custom_id_that_was_cancelled_can_be_used_again(queue: Queue) -> None:
    job = await queue.add("a", job_id="order-1")
    await job.cancel()
    await queue.remove("order-1")
    await queue.add("a", job_id="order-1")
    seen: list[str] = []

    async def handle(job: Job) -> None:
        seen.append(job.id)

    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
    assert seen == ["order-1"]


# ── jobs that run ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_running_job_is_cancelled_at_once_from_another_connection(queue: Queue, letters: Queue, toril_server_url: str) -> None:
    rest, told = Rest(), list[tuple[BaseException, bool]]()
    job = await queue.add("a", attempts=5)
    async with Worker(queue, rest) as worker, Queue("work", prefix=queue.prefix, url=toril_server_url) as elsewhere:
        worker.on("failed", lambda job, error, final: told.append((error, final)))
        await rest.started.wait()
        assert await elsewhere.cancel(job.id, "changed my mind") == "active"
        await worker.wait_until_idle()
    assert rest.cancelled == [job.id]
    await job.refresh()
    assert (await job.get_state(), job.failed_reason, job.attempts_made) == ("failed", "cancelled: changed my mind", 1)
    ((error, final),) = told
    assert isinstance(error, JobCancelledError)
    assert final
    assert await letters.count() == 0


async def test_a_running_job_whose_id_is_no_text_hears_of_it_at_once_too(queue: Queue, server: Server) -> None:
    """The clock stands still: no renewal of the lock tells it. No Node client writes such an id; a script of somebody may."""
    base, rest, job_id = queue.keys.base.encode(), Rest(), b"caf\xe9"
    await server.commands.call("HSET", base + job_id, "name", "a", "data", "{}", "opts", "{}", "timestamp", 1, "delay", 0, "priority", 0)
    await server.commands.call("LPUSH", base + b"wait", job_id)
    async with Worker(queue, rest) as worker:
        await rest.started.wait()
        (job,) = worker.running_jobs
        assert await queue.cancel(job.id) == "active"
        await worker.wait_until_idle()
    assert rest.cancelled == [job.id]
    assert await server.commands.call("ZSCORE", base + b"failed", job_id) is not None


async def test_without_the_channel_it_is_seen_when_the_lock_is_renewed(toril_server_url: str, prefix: str, clock: FakeClock) -> None:
    rest = Rest()
    async with (
        Proxy(toril_server_url) as proxy,
        Server(proxy.url) as server,
        Queue("work", prefix=prefix, server=server, clock=clock) as queue,
    ):
        job = await queue.add("a")
        async with Worker(queue, rest) as worker:
            await rest.started.wait()
            await server.commands.call("SET", queue.keys.cancellation(job.id), "by hand")  # nobody publishes
            clock.advance("10s")
            await clock.settle()
            await worker.wait_until_idle()
        assert rest.cancelled == [job.id]


async def test_a_handler_that_swallows_its_cancellation_fails_all_the_same(queue: Queue) -> None:
    started = asyncio.Event()

    async def stubborn(job: Job) -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done"
        return "never"

    job = await queue.add("a")
    async with Worker(queue, stubborn) as worker:
        await started.wait()
        await queue.cancel(job.id, "enough")
        await worker.wait_until_idle()
    await job.refresh()
    assert (await job.get_state(), job.failed_reason) == ("failed", "cancelled: enough")


async def test_a_thread_is_told_and_its_result_no_longer_counts(queue: Queue) -> None:
    started = threading.Event()

    def work(job: Job) -> str:
        started.set()
        assert job.cancelled.wait(20)
        return "done"

    job = await queue.add("a")
    async with Worker(queue, work) as worker:
        await eventually(lambda: _holds(started.is_set()))
        assert await queue.cancel(job.id) == "active"
        await worker.wait_until_idle()
    await job.refresh()
    assert (await job.get_state(), job.failed_reason, job.return_value) == ("failed", "cancelled: on request", None)


ENDINGS = ["retry", "delay", "limit", "short-limit", "later", "unknown"]


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_job_that_would_run_again_ends_if_it_was_cancelled_meanwhile(queue: Queue, server: Server, ending: str) -> None:
    """The worker has not heard of it: the attempt's end finds the key."""
    heard: list[tuple[str, object]] = []

    async def handle(job: Job) -> None:
        await server.commands.call("SET", queue.keys.cancellation(job.id), "too late")
        if ending in ("limit", "short-limit"):
            raise RateLimitError("1s" if ending == "limit" else "1ms")
        if ending == "later":
            raise DelayedError("1h")
        raise ValueError("again")

    job = await queue.add("a", attempts=3, backoff=fixed("1h" if ending == "delay" else "0s"))
    if ending == "unknown":
        await server.commands.call("SET", queue.keys.cancellation(job.id), "too late")
    worker = Worker(queue, {"b" if ending == "unknown" else "a": handle}, WorkerOptions(metrics="5m"))
    worker.on("failed", lambda job, error, final: heard.append((str(error), final)))
    worker.on("waiting", lambda job_id: heard.append(("waiting", job_id)))
    async with worker:
        await worker.wait_until_idle()
    await job.refresh()
    assert (await job.get_state(), job.failed_reason, job.attempts_made) == ("failed", "cancelled: too late", 1)
    assert heard == [("cancelled: too late", True)]
    assert await server.commands.call("HGET", queue.keys.metrics("failed"), "count") == b"1"
    own = [key async for key in _own_keys(server, queue)]
    assert [key for key in own if "receipt" not in key] == []


async def _own_keys(server: Server, queue: Queue) -> AsyncIterator[str]:
    for key in await server.commands.call("KEYS", f"{queue.keys.own}*"):
        yield key.decode()


async def test_a_job_that_was_cancelled_and_keeps_nothing_is_gone_whatever_its_attempt_wanted(queue: Queue, server: Server) -> None:
    async def handle(job: Job) -> None:
        await server.commands.call("SET", queue.keys.cancellation(job.id), "too late")
        raise ValueError("again")

    job = await queue.add("a", attempts=3, remove_on_fail=True)
    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
    assert await queue.find_job(job.id) is None


@pytest.mark.parametrize("how", ["add", "flow", "retry", "retry-all"])
async def test_a_cancellation_that_a_node_worker_never_heard_of_does_not_cancel_the_next_job_of_that_id(
    queue: Queue, server: Server, prefix: str, how: str
) -> None:
    """Node's workers know nothing of our keys: they stay behind when one of them ends the job."""

    async def add() -> None:
        if how == "flow":
            async with FlowProducer(server=server, prefix=prefix) as flows:
                await flows.add(flow_job("parent", queue="other", children=[flow_job("a", queue="work", job_id="order-1")]))
        else:
            await queue.add("a", job_id="order-1")

    bench = Bench(server, prefix, "work")
    bench.now = queue.clock.now_ms()
    await add()
    assert await bench.claim() == ["order-1"]
    await bench.turn(gone_wrong("order-1"))
    await server.commands.call("MSET", queue.keys.cancellation("order-1"), "long ago", bench.keys.own + "unknown:order-1", 5)
    if how in ("add", "flow"):
        await queue.remove("order-1")
        await server.commands.call("MSET", queue.keys.cancellation("order-1"), "long ago", bench.keys.own + "unknown:order-1", 5)
        await add()
    elif how == "retry-all":
        await queue.retry_jobs()
    else:
        await (await queue.get_job("order-1")).retry()
    assert [key async for key in _own_keys(server, queue)] == []
    seen: list[str] = []

    async def handle(job: Job) -> None:
        seen.append(job.id)
        raise ValueError("again")

    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
    assert seen == ["order-1"]
    assert (await queue.get_job("order-1")).failed_reason == "again"


async def test_a_cancellation_that_a_node_worker_never_heard_of_does_not_cancel_the_run_that_node_retries(
    queue: Queue, server: Server
) -> None:
    bench = Bench(server, queue.prefix, "work")
    bench.now = queue.clock.now_ms()
    job = await queue.add("a", attempts=3, backoff=fixed("0s"))
    assert await bench.claim() == [job.id]
    await bench.turn(gone_wrong(job.id))
    await server.commands.call("SET", queue.keys.cancellation(job.id), "long ago")
    # As Node's `job.retry()` does it (wire §3.10), which leaves our keys alone.
    await server.commands.call("HDEL", bench.key(job.id), "finishedOn", "processedOn", "failedReason")
    await server.commands.call("ZREM", bench.key("failed"), job.id)
    await server.commands.call("LPUSH", bench.key("wait"), job.id)
    seen: list[int] = []

    async def handle(job: Job) -> None:
        seen.append(job.attempts_made)
        raise ValueError("again")

    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
    await job.refresh()
    assert (seen, job.failed_reason) == ([1, 2], "again")


async def test_a_job_whose_worker_died_before_it_obeyed_is_failed_by_the_sweep(queue: Queue, server: Server) -> None:
    job = await queue.add("a")
    rest = Rest()
    async with Worker(queue, rest) as worker:
        await rest.started.wait()
        await server.commands.call("SET", queue.keys.cancellation(job.id), "gone")
        await server.commands.call("SADD", queue.keys.base + "stalled", job.id)
        await server.commands.call("DEL", queue.keys.lock(job.id), queue.keys.stalled_check)
        reply = await queue.commands.sweep_stalled(queue.clock.now_ms(), 30_000, 1)
        assert (list(reply.recovered), list(reply.cancelled)) == ([], [job.id])
        await server.commands.call("DEL", queue.keys.stalled_check)
        heard: list[tuple[str, bool]] = []
        other = Worker(queue, {"b": rest}, WorkerOptions(metrics="5m"))
        other.on("failed", lambda job, error, final: heard.append((str(error), final)))
        async with other:
            await eventually(lambda: _holds(bool(heard)))
        await worker.stop(force=True)
    await job.refresh()
    assert (await job.get_state(), job.failed_reason, job.attempts_made) == ("failed", "cancelled: gone", 0)
    assert heard == [("cancelled: gone", True)]
    assert await server.commands.call("HGET", queue.keys.metrics("failed"), "count") == b"1"
    assert await server.commands.call("EXISTS", queue.keys.cancellation(job.id)) == 0


async def test_a_cancelled_job_whose_worker_died_and_that_keeps_nothing_is_gone(queue: Queue, server: Server) -> None:
    job = await queue.add("a", remove_on_fail=True)
    bench = Bench(server, queue.prefix, "work")
    bench.now = queue.clock.now_ms()
    await bench.claim()
    await queue.cancel(job.id)
    await server.commands.call("SADD", queue.keys.base + "stalled", job.id)
    await server.commands.call("DEL", queue.keys.lock(job.id))
    async with Worker(queue, {"b": Rest()}):
        await eventually(lambda: _is_gone(queue, job.id))


async def _is_gone(queue: Queue, job_id: str) -> None:
    assert await queue.find_job(job_id) is None


# ── expiry ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_job_that_waited_too_long_is_not_run(queue: Queue, letters: Queue, clock: FakeClock) -> None:
    ran: list[str] = []

    async def handle(job: Job) -> None:
        ran.append(job.id)

    errors: list[BaseException] = []
    late, delayed = await queue.add_many([queue.job("a", attempts=3, expires_in="1m"), queue.job("b", delay="2m", expires_in="1m")])
    clock.advance("2m")
    worker = Worker(queue, handle)
    worker.on("failed", lambda job, error, final: errors.append(error))
    async with worker:
        await worker.wait_until_idle()
    assert ran == [delayed.id]  # its time to wait began when it became due
    await late.refresh()
    assert (await late.get_state(), late.attempts_made) == ("failed", 1)
    (error,) = errors
    assert isinstance(error, JobExpiredError)
    assert error.late_ms == 60_000
    assert [letter.job_id for letter in await letters.dead_letters.list()] == [late.id]


async def test_a_retry_with_all_attempts_anew_has_all_its_time_anew(queue: Queue, clock: FakeClock) -> None:
    job = await queue.add("a", expires_in="1m")
    clock.advance("2m")
    ran: list[str] = []

    async def handle(job: Job) -> None:
        ran.append(job.id)

    for _ in range(2):
        async with Worker(queue, handle) as worker:
            await worker.wait_until_idle()
        if not ran:
            await job.refresh()
            await job.retry(reset_attempts=True)
    assert ran == [job.id]
    assert json.loads((await queue.get_job(job.id)).record.opts)["expiresAt"] == clock.now_ms() + 60_000


async def test_a_template_of_a_scheduler_cant_expire(queue: Queue) -> None:
    with pytest.raises(InvalidOptionError, match="expires_in"):
        await queue.job_schedulers.upsert("tick", ScheduleRule(every="1h"), options=JobOptions(expires_in="1m"))


def _holds(it: bool) -> None:
    assert it


async def test_stopping_is_not_cancelling(queue: Queue) -> None:
    rest = Rest()
    job = await queue.add("a")
    async with Worker(queue, rest, WorkerOptions(shutdown_timeout="1ms")) as worker:
        await rest.started.wait()
        worker.ask_to_stop(force=True)
    assert await job.get_state() == "waiting"


async def test_a_job_that_is_cancelled_while_its_claim_is_on_the_way_is_cancelled_at_once(
    toril_server_url: str, prefix: str, queue: Queue
) -> None:
    """The word about it comes before the job does."""
    rest = Rest()
    async with Proxy(toril_server_url) as proxy, Server(proxy.url) as server:
        slow = Queue("work", prefix=prefix, server=server, clock=queue.clock)
        job = await queue.add("a")
        proxy.decide = nth(1, is_script("turn"), Cut.HOLD)
        async with Worker(slow, rest) as worker:
            await proxy.seen(is_command("SUBSCRIBE"), 1)
            await eventually(lambda: _active(job))
            await eventually(lambda: _listens(queue))
            assert await queue.cancel(job.id, "too early") == "active"
            await eventually(lambda: _holds(bool(worker._attempts._expected)))  # pyright: ignore[reportPrivateUsage]  # that the word has come can't be seen otherwise
            proxy.release()
            await worker.wait_until_idle()
    await job.refresh()
    assert (await job.get_state(), job.failed_reason) == ("failed", "cancelled: too early")


async def _active(job: Job) -> None:
    assert await job.get_state() == "active"


async def _listens(queue: Queue) -> None:
    assert (await queue.server.commands.call("PUBSUB", "NUMSUB", queue.keys.control))[1] == 1


async def test_an_iteration_whose_schedule_has_no_next_one_yet_cant_be_cancelled(queue: Queue, clock: FakeClock) -> None:
    await queue.job_schedulers.upsert("tick", ScheduleRule(every="1h"))
    clock.advance("1h")
    bench = Bench(queue.server, queue.prefix, queue.name)
    bench.now = clock.now_ms()
    (job_id,) = await bench.claim()
    with pytest.raises(JobStateError, match="scheduler"):
        await queue.cancel(job_id)
    assert await queue.get_job_counts("active", "failed") == {"active": 1, "failed": 0}


async def test_a_job_that_has_begun_in_time_may_go_on_after_it(queue: Queue, clock: FakeClock) -> None:
    calls: list[str] = []

    async def later(job: Job) -> None:
        calls.append(job.id)
        if len(calls) == 1:
            clock.advance("2m")
            raise WaitingError

    job = await queue.add("a", expires_in="1m")
    async with Worker(queue, later) as worker:
        await worker.wait_until_idle()
    assert (await job.get_state(), len(calls)) == ("completed", 2)
