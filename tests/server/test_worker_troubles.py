"""Trouble in one place stays there: one job's data, one key, one part of the worker, one impatient caller."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.proxy import Proxy, is_command
from toril import Job, Queue, Worker, WorkerOptions
from toril.errors import DamagedKeyError
from toril.queues.job_schedulers import ScheduleRule
from toril.testing import FakeClock, eventually
from toril.wire.connection import Server
from toril.worker.locks import LockKeeper


@pytest.fixture
async def queue(server: Server, prefix: str) -> Queue:
    queue = Queue("work", prefix=prefix, server=server)
    await queue.open()
    return queue


class Held:
    """A handler whose jobs run until they may end."""

    def __init__(self) -> None:
        self.started = asyncio.Semaphore(0)
        self.may_end = asyncio.Event()

    async def __call__(self, job: Job) -> None:
        self.started.release()
        await self.may_end.wait()


def _is(holds: bool) -> None:
    assert holds


def _parts(worker: Worker) -> list[str]:
    return [problem.part for problem in worker.problems]


# ── a job's own data ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("age", ["9e15", "1e20", "1e306"])
async def test_a_job_with_options_beyond_all_bounds_runs_like_any_other(queue: Queue, server: Server, age: str) -> None:
    fields = ("name", "x", "data", "{}", "opts", f'{{"removeOnComplete":{{"age":{age}}}}}', "timestamp", 1)
    await server.commands.call("HSET", queue.keys.job("odd"), *fields)
    await server.commands.call("RPUSH", queue.keys.state("wait"), "odd")
    await queue.add("x")
    ran: list[str] = []

    async def handle(job: Job) -> None:
        ran.append(job.id)

    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
        assert worker.is_ready
    assert ran == ["odd", "1"]


async def test_an_outcome_that_cannot_be_written_keeps_no_other_from_being_written_and_told(
    queue: Queue, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """All outcomes are in one turn, whose script stops at the spoilt one: those before it are written by then, those behind it are not."""
    held, completed, errors = Held(), list[str](), list[BaseException]()

    async def handle(job: Job) -> None:
        if job.name == "spoilt":  # its lock becomes something that no script can read
            await server.commands.call("DEL", queue.keys.job(job.id) + ":lock")
            await server.commands.call("HSET", queue.keys.job(job.id) + ":lock", "a", "b")
        await held(job)

    async def has_completed(job: Job, result: object) -> None:
        completed.append(job.id)

    async def has_erred(error: BaseException) -> None:
        errors.append(error)

    jobs = await queue.add_many([queue.job("spoilt" if number == 5 else "fine") for number in range(11)])
    worker = Worker(queue, handle, WorkerOptions(concurrency=11, stalled_interval="1h"))
    worker.on("completed", has_completed)
    worker.on("error", has_erred)
    async with worker:
        for _ in jobs:
            await held.started.acquire()
        held.may_end.set()
        await worker.wait_until_idle()
        assert worker.is_ready
    assert sorted(completed, key=int) == [job.id for job in jobs if job.name == "fine"]
    assert [error.problems for error in errors if isinstance(error, DamagedKeyError)] == [
        (f"{queue.keys.lock('6')} holds a hash instead of a string",)
    ]
    assert await queue.get_completed_count() == 10
    assert "part=claim" not in caplog.text  # it was an outcome's fault, not that of claiming


# ── one of the queue's keys ───────────────────────────────────────────────────────────────────────────────────


async def test_while_nothing_can_be_claimed_the_worker_is_not_ready_and_says_so_once(
    queue: Queue, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "toril")
    clock = FakeClock()
    same = Queue("work", prefix=queue.keys.prefix, server=server, clock=clock)
    ran: list[str] = []

    async def handle(job: Job) -> None:
        ran.append(job.id)

    await server.commands.call("HSET", queue.keys.state("wait"), "no", "list")
    async with Worker(same, handle) as worker:
        await eventually(lambda: _is("claim" in _parts(worker)))
        assert not worker.is_ready
        for _ in range(3):
            clock.advance("1s")
            await queue.get_active_count()
        await server.commands.call("DEL", queue.keys.state("wait"))
        await queue.add("x")

        def it_ran() -> None:
            clock.advance("1s")
            assert ran == ["1"]

        await eventually(it_ran)
        await eventually(lambda: _is(worker.is_ready))
    told = [record.getMessage() for record in caplog.records if "usable" in record.getMessage()]
    assert f"{queue.keys.state('wait')} holds a hash instead of a list" in told[0]
    assert [line.split(" ")[1] for line in told] == ["not", "usable"]


async def test_a_schedule_goes_on_after_the_server_refused_to_add_the_next_iteration(server: Server, prefix: str) -> None:
    clock = FakeClock()
    queue = Queue("ticks", prefix=prefix, server=server, clock=clock)
    await queue.job_schedulers.upsert("beat", ScheduleRule(every="1h"))
    (job,) = await queue.get_waiting()
    schedules, aside = f"{queue.keys.base}repeat", f"{queue.keys.base}aside"
    await server.commands.call("RENAME", schedules, aside)
    await server.commands.call("SET", schedules, "no sorted set")  # the script fails, as it does on a read-only replica
    ran: list[str] = []

    async def handle(job: Job) -> None:
        ran.append(job.id)

    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
        assert ran == []
        assert await job.get_state() == "delayed"
        await server.commands.call("RENAME", aside, schedules)
        clock.advance("1s")
        await eventually(lambda: _is(ran == [job.id]))
        await worker.wait_until_idle()
    assert await queue.get_delayed_count() == 1  # the next one
    assert (await queue.get_job(job.id)).attempts_made == 1


# ── one part of the worker ────────────────────────────────────────────────────────────────────────────────────


async def test_a_worker_that_is_full_when_the_server_comes_back_is_ready_again(toril_server_url: str, server: Server, prefix: str) -> None:
    """With all slots taken nobody waits for a ring, so the doorbell must find out on its own that its connection works."""
    clock, held = FakeClock(), Held()
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(Proxy(toril_server_url))
        queue = await stack.enter_async_context(Queue("work", prefix=prefix, url=proxy.url, clock=clock))
        outside = await stack.enter_async_context(Queue("work", prefix=prefix, server=server, clock=clock))
        await outside.add("x", delay="1h")
        worker = await stack.enter_async_context(Worker(queue, held, WorkerOptions(concurrency=1, drain_delay="10s")))
        stack.callback(held.may_end.set)
        await proxy.seen(is_command("BZPOPMIN"))
        proxy.down()
        await eventually(lambda: _is("doorbell" in _parts(worker)))
        clock.advance("1h")
        proxy.up()
        await held.started.acquire()  # the lanes are back first, and take the only slot
        await eventually(lambda: _is(worker.is_ready))


async def test_an_error_that_nobody_foresaw_does_not_end_the_renewal_of_locks(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No part that is real raises one, so here one is made up."""
    renew, times = LockKeeper._renew, 0  # pyright: ignore[reportPrivateUsage]

    async def renew_badly(keeper: LockKeeper, interval_ms: int) -> bool:
        nonlocal times
        times += 1
        if times == 1:
            raise ValueError("nobody foresaw this")
        return await renew(keeper, interval_ms)

    monkeypatch.setattr(LockKeeper, "_renew", renew_badly)
    held = Held()
    async with Worker(queue, held, WorkerOptions(lock_duration="2s", stalled_interval="100ms")) as worker:
        job = await queue.add("x")
        await held.started.acquire()
        await eventually(lambda: _is(times >= 5))  # by then the first lock has long run out
        await eventually(lambda: _is(worker.is_ready))
        held.may_end.set()
        await worker.wait_until_idle()
    await job.refresh()
    assert (await job.get_state(), job.attempts_made, job.stalled_count) == ("completed", 1, 0)
    assert "nobody foresaw this" in caplog.text


async def test_a_stop_without_a_server_ends_and_the_unwritten_job_runs_again_elsewhere(
    toril_server_url: str, server: Server, prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("toril.worker.worker.WRITE_TIMEOUT_MS", 200)  # real time: the network's is
    options, ran = WorkerOptions(lock_duration="1s", stalled_interval="100ms", drain_delay="50ms"), list[str]()
    held, earlier = Held(), threading.enumerate()
    outside = Queue("work", prefix=prefix, server=server)
    async with Proxy(toril_server_url) as proxy, Queue("work", prefix=prefix, url=proxy.url) as queue:
        async with asyncio.timeout(15):  # it would be the whole patience of the test
            async with Worker(queue, held, options) as worker:
                job = await outside.add("x")
                await held.started.acquire()
                proxy.down()
                held.may_end.set()
        assert worker.state.value == "stopped"
        assert not worker.is_ready
        assert worker.left_behind == 0
    assert await job.get_state() == "active"
    assert "outcomes could not be written at stop" in caplog.text
    assert not [one.name for one in threading.enumerate() if one not in earlier and one.name.startswith("toril")]

    async def handle(job: Job) -> None:
        ran.append(job.id)

    async with Worker(outside, handle, options):
        await eventually(lambda: _is(ran == [job.id]))
    await job.refresh()
    assert (await job.get_state(), job.attempts_made, job.stalled_count) == ("completed", 1, 1)


# ── an impatient caller ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def user(server: Server, prefix: str) -> AsyncIterator[str]:
    """A user of the server's own, by whom the connections of one test can be told from others."""
    await server.commands.call("ACL", "SETUSER", prefix, "on", ">secret", "~*", "&*", "+@all")
    yield prefix
    await server.commands.call("ACL", "DELUSER", prefix)


async def test_a_run_that_is_cancelled_again_while_it_closes_leaves_nothing_open(
    toril_server_url: str, server: Server, prefix: str, user: str
) -> None:
    parts = urlsplit(toril_server_url)
    host = parts.netloc.rpartition("@")[2]
    url = parts._replace(netloc=f"{user}:secret@{host}").geturl()
    listening, may_go_on, heard = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def listen(*_: Any) -> None:  # noqa: ANN401 -- whatever a listener gets
        listening.set()
        await may_go_on.wait()
        heard.set()

    async def handle(job: Job) -> None: ...

    async def connections() -> int:
        listed: bytes = await server.commands.call("CLIENT", "LIST")
        return listed.decode().count(f"user={user} ")

    async with Queue("closing", prefix=prefix, url=url) as queue:
        worker = Worker(queue, handle)
        worker.on("active", listen)
        run = asyncio.create_task(worker.run())
        await queue.add("x")
        await listening.wait()
        assert await connections() >= 3  # the queue's, a lane's, the doorbell's
        run.cancel()
        await eventually(lambda: _is("toril locks closing" not in thread_names()))  # all is written: now it closes
        run.cancel()
        for _ in range(5):
            await connections()
        assert not run.done()  # it still waits for the listener
        may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert heard.is_set()

        async def only_the_queues_own() -> None:
            assert await connections() == 1

        await eventually(only_the_queues_own)


async def test_a_run_that_is_cancelled_at_each_of_its_steps_leaves_nothing_open(toril_server_url: str, prefix: str) -> None:
    async def handle(job: Job) -> None: ...

    async with Queue("closing", prefix=prefix, url=toril_server_url) as queue:
        worker = Worker(queue, handle)
        job = await queue.add("x")  # before it runs: one that has looked already is idle until it is told
        run = asyncio.create_task(worker.run())
        await worker.wait_until_idle()
        assert len(queue.server.open_connections) >= 3  # the queue's, a lane's, the doorbell's
        while not run.done():
            run.cancel()
            await asyncio.sleep(0)
        assert len(queue.server.open_connections) == 1
        assert await job.get_state() == "completed"


def thread_names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


async def test_a_job_whose_id_is_no_text_runs_and_ends(server: Server, prefix: str) -> None:
    """No Node client writes such an id; a script of somebody may."""
    queue = Queue("work", prefix=prefix, server=server, clock=FakeClock(1_700_000_000_000))
    job_id = b"caf\xe9"
    base = queue.keys.base.encode()
    await server.commands.call("HSET", base + job_id, "name", "a", "data", "{}", "opts", "{}", "timestamp", 1, "delay", 0, "priority", 0)
    await server.commands.call("LPUSH", base + b"wait", job_id)
    await queue.add("b")
    seen: list[str] = []

    async def handle(job: Job) -> None:
        await job.update_progress(50)
        seen.append(job.name)

    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
    assert sorted(seen) == ["a", "b"]
    assert await server.commands.call("ZSCORE", base + b"completed", job_id) is not None
    (found,) = [job for job in await queue.get_completed() if job.name == "a"]
    assert await queue.remove(found.id)
    assert await server.commands.call("EXISTS", base + job_id) == 0


@pytest.mark.parametrize("score", ["inf", "-inf"])
async def test_a_marker_that_tells_no_time_wakes_the_worker(server: Server, prefix: str, score: str) -> None:
    queue = Queue("work", prefix=prefix, server=server)
    done = asyncio.Event()

    async def handle(job: Job) -> None:
        done.set()

    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
        await server.commands.call("ZADD", queue.keys.marker, score, "0")
        await queue.add("a")
        await done.wait()
