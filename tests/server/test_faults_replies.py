"""Every reply that a working worker waits for is lost once, and the connection at any moment: no job is lost, none runs twice."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.proxy import Command, Cut, Proxy, at_random, is_command, is_script, nth
from tests.support import seeded_random
from toril.errors import AddOutcomeUnknownError, ServerError
from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.testing.eventually import eventually
from toril.wire.connection import Server
from toril.worker.options import WorkerOptions
from toril.worker.worker import Worker

CUTS = [Cut.BEFORE, Cut.AFTER]


@pytest.fixture
async def queue(proxy: Proxy, prefix: str) -> AsyncIterator[Queue]:
    """The worker's: it goes through the proxy."""
    async with Queue("q", prefix=prefix, url=proxy.url) as queue:
        yield queue


@pytest.fixture
async def outside(server: Server, prefix: str) -> AsyncIterator[Queue]:
    """The same queue by the way that is never cut."""
    async with Queue("q", prefix=prefix, server=server) as queue:
        yield queue


class Counting:
    """A handler that counts the attempts of each job."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()

    async def __call__(self, job: Job[Any, Any]) -> str:
        self.runs[job.id] += 1
        await asyncio.sleep(0)
        return job.id


def is_turn(*, claims: bool | None = None, endings: bool | None = None) -> Any:  # noqa: ANN401 -- Matches
    """A turn that does (or doesn't) claim and finish."""
    turn = is_script("turn")

    def matches(command: Command) -> bool:
        if not turn(command):
            return False
        args = command[5:]  # EVALSHA, digest, number of keys, two keys
        names = int(args[12])
        has = int(args[5]) > 0, len(args) > 13 + 2 * names
        return claims in {None, has[0]} and endings in {None, has[1]}

    return matches


async def all_completed(queue: Queue, ids: list[str]) -> None:
    counts = await queue.get_job_counts()
    assert {state: count for state, count in counts.items() if count} == {"completed": len(ids)}


# ── one lost reply ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("claims", "endings"), [(True, False), (None, True), (True, True)])
async def test_a_lost_turn_loses_no_job_and_runs_none_twice(
    proxy: Proxy, queue: Queue, outside: Queue, cut: Cut, claims: bool | None, endings: bool
) -> None:
    handler = Counting()
    jobs = await outside.add_many([outside.job("x", {"n": n}) for n in range(30)])
    proxy.decide = nth(1, is_turn(claims=claims, endings=endings), cut)
    async with Worker(queue, handler, WorkerOptions(concurrency=10, drain_delay="50ms")):
        await eventually(lambda: all_completed(outside, [job.id for job in jobs]))
    assert proxy.cuts == 1
    assert handler.runs == Counter(job.id for job in jobs)
    assert await outside.server.commands.call("LLEN", outside.keys.state("active")) == 0
    for job in jobs:
        await job.refresh()
        assert (job.return_value, job.attempts_made, job.attempts_started, job.stalled_count) == (job.id, 1, 1, 0)


@pytest.mark.parametrize("cut", CUTS)
async def test_a_lost_turn_that_only_finishes_is_written_while_the_worker_stops(
    proxy: Proxy, queue: Queue, outside: Queue, cut: Cut
) -> None:
    started, may_end = asyncio.Event(), asyncio.Event()

    async def handle(job: Job[Any, Any]) -> None:
        started.set()
        await may_end.wait()

    job = await outside.add("x", {})
    worker = Worker(queue, handle)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.run())
        await started.wait()
        proxy.decide = nth(1, is_turn(claims=False, endings=True), cut)
        worker.ask_to_stop()
        may_end.set()
    assert proxy.cuts == 1
    assert await job.get_state() == "completed"


@pytest.mark.parametrize("cut", CUTS)
async def test_a_lost_renewal_cancels_nobody(proxy: Proxy, queue: Queue, outside: Queue, cut: Cut) -> None:
    may_end, errors = asyncio.Event(), list[Exception]()

    async def handle(job: Job[Any, Any]) -> None:
        await may_end.wait()

    proxy.decide = nth(1, is_script("renew_locks"), cut)
    async with Worker(queue, handle, WorkerOptions(lock_duration="1s", stalled_interval="100ms")) as worker:
        worker.on("error", errors.append)
        job = await outside.add("x", {})
        await proxy.happened.wait()
        await proxy.seen(is_script("renew_locks"), 4)
        await eventually(lambda: _holds(worker.is_ready))
        may_end.set()
        await worker.wait_until_idle()
    await job.refresh()
    assert (await job.get_state(), job.attempts_started, errors) == ("completed", 1, [])


@pytest.mark.parametrize("cut", CUTS)
async def test_a_lost_sweep_is_made_again(proxy: Proxy, queue: Queue, outside: Queue, cut: Cut) -> None:
    handler = Counting()
    job = await outside.add("x", {})
    await outside.server.commands.call(  # a worker took it and died, and a sweep has seen that
        "EVAL", "redis.call('RPOPLPUSH', KEYS[1], KEYS[2]) redis.call('SADD', KEYS[3], ARGV[1])",
        3, outside.keys.state("wait"), outside.keys.state("active"), outside.keys.state("stalled"), job.id,
    )  # fmt: skip
    proxy.decide = nth(1, is_script("sweep_stalled"), cut)
    async with Worker(queue, handler, WorkerOptions(stalled_interval="100ms")):
        await eventually(lambda: all_completed(outside, [job.id]))
    await job.refresh()
    assert (proxy.cuts, handler.runs[job.id], job.stalled_count) == (1, 1, 1)


@pytest.mark.parametrize(("cut", "rows"), [(Cut.BEFORE, 1), (Cut.AFTER, 2)])
async def test_a_lost_log_row_is_told_to_the_handler_which_may_write_it_again(
    proxy: Proxy, queue: Queue, outside: Queue, cut: Cut, rows: int
) -> None:
    caught: list[ServerError] = []

    async def handle(job: Job[Any, Any]) -> int:
        try:
            return await job.log("row")
        except ServerError as error:
            caught.append(error)
            return await job.log("row")

    proxy.decide = nth(1, is_script("add_log"), cut)
    async with Worker(queue, handle):
        job = await outside.add("x", {})
        await eventually(lambda: all_completed(outside, [job.id]))
    assert len(caught) == 1
    assert (await job.get_logs()).rows == ["row"] * rows


@pytest.mark.parametrize("cut", CUTS)
async def test_lost_progress_is_written_again(proxy: Proxy, queue: Queue, outside: Queue, cut: Cut) -> None:
    async def handle(job: Job[Any, Any]) -> None:
        await job.update_progress(50)

    proxy.decide = nth(1, is_script("update_progress"), cut)
    async with Worker(queue, handle):
        job = await outside.add("x", {})
        await eventually(lambda: all_completed(outside, [job.id]))
    await job.refresh()
    assert (proxy.cuts, job.progress, job.attempts_started) == (1, 50, 1)


@pytest.mark.parametrize(("cut", "added"), [(Cut.BEFORE, 0), (Cut.AFTER, 1)])
async def test_an_add_whose_reply_is_lost_says_that_nobody_knows(proxy: Proxy, queue: Queue, outside: Queue, cut: Cut, added: int) -> None:
    handler = Counting()
    async with Worker(queue, handler, WorkerOptions(drain_delay="50ms")):
        proxy.decide = nth(1, is_script("add"), cut)
        with pytest.raises(AddOutcomeUnknownError):
            await queue.add("x", {}, job_id="mine")
        await eventually(lambda: _completed(outside, added))
        await queue.add("x", {}, job_id="mine")  # the same id: safe to add again
        await eventually(lambda: _completed(outside, 1))
    assert handler.runs == {"mine": 1}


# ── many ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_under_random_cuts_five_thousand_jobs_run_exactly_once(proxy: Proxy, queue: Queue, outside: Queue) -> None:
    source = seeded_random()
    handler = Counting()
    ids = [job.id for job in await outside.add_many([outside.job("x", {"n": n}) for n in range(5_000)])]
    turn, other = is_script("turn"), is_command("BZPOPMIN")
    proxy.decide = at_random(source, 0.05, lambda command: turn(command) or other(command))
    async with Worker(queue, handler, WorkerOptions(concurrency=50, drain_delay="50ms")):
        await eventually(lambda: all_completed(outside, ids), timeout="50s")
    assert proxy.cuts > 0
    assert handler.runs == Counter(ids)


async def test_connections_killed_again_and_again_lose_and_double_nothing(
    toril_server_url: str, outside: Queue, server: Server, prefix: str
) -> None:
    """The server itself kills them, only this worker's, at whatever they are doing: they have a user of their own."""
    handler = Counting()
    ids = [job.id for job in await outside.add_many([outside.job("x", {"n": n}) for n in range(2_000)])]
    parts = urlsplit(toril_server_url)
    url = f"{parts.scheme}://{prefix}:secret@{parts.netloc.rpartition('@')[2]}{parts.path}"
    killed = 0
    await server.commands.call("ACL", "SETUSER", prefix, "on", ">secret", "~*", "&*", "+@all")
    try:
        async with Queue("q", prefix=prefix, url=url) as queue, Worker(queue, handler, WorkerOptions(concurrency=5, drain_delay="50ms")):
            for already in range(50, 1_550, 50):
                await eventually(partial(_have_run, handler, already), timeout="20s")
                killed += await server.commands.call("CLIENT", "KILL", "USER", prefix)
            await eventually(lambda: all_completed(outside, ids), timeout="30s")
    finally:
        await server.commands.call("ACL", "DELUSER", prefix)
    assert killed >= 30
    assert handler.runs == Counter(ids)


# ── no server for a while ─────────────────────────────────────────────────────────────────────────────────────


async def test_without_a_server_handlers_go_on_and_their_outcomes_are_written_later(
    proxy: Proxy, queue: Queue, outside: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "toril")
    started, may_end, done = asyncio.Event(), asyncio.Event(), list[str]()

    async def handle(job: Job[Any, Any]) -> str:
        if job.name == "slow":
            started.set()
            await may_end.wait()
        done.append(job.name)
        return job.name

    async with Worker(queue, handle, WorkerOptions(drain_delay="50ms")) as worker:
        slow = await outside.add("slow", {})
        await started.wait()
        assert worker.is_ready
        proxy.down()
        quick = await outside.add("quick", {})
        await eventually(lambda: _holds(not worker.is_ready))
        may_end.set()
        await eventually(lambda: _holds(any(problem.part.startswith(worker.id) for problem in worker.problems)))
        assert {problem.part for problem in worker.problems} >= {"doorbell"}
        assert all(problem.reason and problem.since_ms for problem in worker.problems)
        refused = proxy.connections
        await eventually(lambda: _holds(proxy.connections > refused + 3))  # it tries again and again
        assert await slow.get_state() == "active"
        proxy.up()
        await eventually(lambda: all_completed(outside, [slow.id, quick.id]))
        await eventually(lambda: _holds(worker.is_ready))
        assert worker.problems == ()
    assert done == ["slow", "quick"]
    lines = [record.getMessage() for record in caplog.records]
    assert 1 <= len([line for line in lines if "trying again" in line]) <= 2  # the cut, and that nobody lets us in: whoever meets it first
    assert len([line for line in lines if "server usable again" in line]) == 1


async def test_while_the_server_is_away_a_worker_neither_floods_the_log_nor_runs_in_circles(
    proxy: Proxy, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "toril")
    held = asyncio.Event()

    async def handle(job: Job[Any, Any]) -> None:
        await held.wait()

    options = WorkerOptions(concurrency=2, lock_duration="1s", stalled_interval="100ms", drain_delay="50ms")
    async with Worker(queue, handle, options) as worker:
        await queue.add("x", {})
        await eventually(lambda: _holds(len(worker.running_jobs) == 1))
        before, began = proxy.connections, time.monotonic()
        proxy.down()
        await eventually(lambda: _holds(proxy.connections >= before + 25))
        assert time.monotonic() - began > 1  # five parts try, each after pauses that double up to 2 s
        proxy.up()
        await eventually(lambda: _holds(worker.is_ready))
        held.set()
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("toril")]
    assert 1 <= len([line for line in lines if "trying again" in line]) <= 2, lines
    (end,) = [line for line in lines if "usable again" in line]
    assert int(end.split("failed_tries=")[1].split()[0]) >= 10


async def test_a_worker_with_all_slots_taken_notices_too_that_the_server_is_gone(
    proxy: Proxy, queue: Queue, outside: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing but the renewal of locks speaks to the server then."""
    caplog.set_level(logging.INFO, "toril")
    started, may_end = asyncio.Event(), asyncio.Event()

    async def handle(job: Job[Any, Any]) -> None:
        started.set()
        await may_end.wait()

    options = WorkerOptions(concurrency=1, lock_duration="3s", stalled_interval="1h")
    async with Worker(queue, handle, options) as worker:
        job = await outside.add("x", {})
        await started.wait()
        proxy.down()
        await eventually(lambda: _holds([problem.part for problem in worker.problems] == ["locks"]))
        assert not worker.is_ready
        proxy.up()
        await eventually(lambda: _holds(worker.is_ready))
        may_end.set()
        await eventually(lambda: all_completed(outside, [job.id]))
    lines = [record.getMessage() for record in caplog.records if "usable" in record.getMessage()]
    assert "part=locks" in lines[0]
    assert "server usable again" in lines[-1]


async def test_a_worker_that_starts_without_a_server_begins_when_there_is_one(proxy: Proxy, queue: Queue, outside: Queue) -> None:
    handler = Counting()
    job = await outside.add("x", {})
    proxy.down()
    async with Worker(queue, handler) as worker:
        await eventually(lambda: _holds(bool(worker.problems)))
        assert not worker.is_ready
        proxy.up()
        await eventually(lambda: all_completed(outside, [job.id]))
        await eventually(lambda: _holds(worker.is_ready))
    assert handler.runs == {job.id: 1}


def _holds(fact: bool) -> None:
    assert fact


async def _completed(queue: Queue, count: int) -> None:
    assert await queue.get_completed_count() == count
    assert await queue.count() == 0


def _have_run(handler: Counting, count: int) -> None:
    assert len(handler.runs) >= count
