"""Cancelling and timeouts race with the end of a handler: one of them wins, and everybody is told of the same one."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Literal, TypeAlias

import pytest

from tests.bench import Bench
from tests.ledger import Ledger
from tests.proxy import Command, Cut, Proxy, is_script, nth
from tests.server.process_functions import count_up
from tests.support import seeded_random
from toril import Handler, Job, Queue, Worker, WorkerOptions, fixed, handler
from toril.errors import JobStateError, JobTimeoutError, LockLostError
from toril.testing import FakeClock, eventually
from toril.wire.connection import Server

Kind: TypeAlias = Literal["coroutine", "thread", "process"]


@pytest.fixture
async def queue(server: Server, prefix: str, clock: FakeClock, letters: Queue) -> AsyncIterator[Queue]:
    async with Queue("q", prefix=prefix, server=server, clock=clock, dead_letter=letters) as queue:
        yield queue


class Gates:
    """Handlers that say when they begin, and end when they are told to."""

    def __init__(self, source: random.Random) -> None:
        self._source = source
        self._begun: dict[str, asyncio.Event] = {}
        self._gates: dict[str, asyncio.Event] = {}
        self._thread_gates: dict[str, threading.Event] = {}
        self.in_thread: set[str] = set()
        """Jobs whose thread has begun, so that their timeout runs."""

    def begun(self, job_id: str) -> asyncio.Event:
        return self._begun.setdefault(job_id, asyncio.Event())

    async def note(self, job: Job[Any, Any]) -> None:
        self.begun(job.id).set()

    def open(self, job_id: str) -> None:
        self._gates.setdefault(job_id, asyncio.Event()).set()
        self._thread_gates.setdefault(job_id, threading.Event()).set()

    async def coroutine(self, job: Job[Any, Any]) -> str:
        await self._gates.setdefault(job.id, asyncio.Event()).wait()
        if self._source.random() < 0.2:
            raise ValueError("no luck")
        return job.id

    def thread(self, job: Job[Any, Any]) -> str:
        self.in_thread.add(job.id)
        assert self._thread_gates.setdefault(job.id, threading.Event()).wait(30)
        return job.id

    def handlers(self, kind: Kind) -> list[Handler]:
        match kind:
            case "coroutine":
                return [handler(self.coroutine, "n", timeout="5s")]
            case "thread":
                return [handler(self.thread, "n", timeout="5s")]
            case "process":
                return [handler(count_up, "n", executor="process", timeout="5s")]


# ── at random ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("kind", "count"), [("coroutine", 150), ("thread", 100), ("process", 20)])
async def test_either_the_end_or_the_cancel_or_the_timeout_wins_and_all_tell_the_same(
    queue: Queue, letters: Queue, server: Server, prefix: str, clock: FakeClock, kind: Kind, count: int
) -> None:
    source = seeded_random()
    gates, bench = Gates(source), Bench(server, prefix)
    jobs = await queue.add_many(
        [
            queue.job(
                "n", source.randrange(300_000), attempts=source.choice((1, 2)), priority=source.choice((0, 0, 5)), backoff=fixed("0s")
            )
            for _ in range(count)
        ]
    )
    worker = Worker(queue, gates.handlers(kind), WorkerOptions(concurrency=2 if kind == "process" else 10, metrics="5m"))
    ledger = Ledger(worker)
    worker.on("active", gates.note)

    async def cancel(job: Job[Any, Any]) -> None:
        with suppress(JobStateError):  # it has ended
            await queue.cancel(job.id, "enough")

    async def open_gate(job: Job[Any, Any]) -> None:
        gates.open(job.id)

    async def pass_time(job: Job[Any, Any]) -> None:
        clock.advance("5s")

    async def challenge(job: Job[Any, Any]) -> None:
        if source.random() < 0.8:  # else it may still wait
            await gates.begun(job.id).wait()
        rivals = source.sample((cancel, open_gate, pass_time), source.choice((1, 2, 2, 3)))
        for rival in rivals:
            for _ in range(source.randrange(8)):
                await asyncio.sleep(0)
            await rival(job)
        gates.open(job.id)

    async with worker:
        async with asyncio.TaskGroup() as challenges:
            for job in jobs:
                challenges.create_task(challenge(job))
        await worker.wait_until_idle()
        await worker.listeners.wait_until_quiet()
    ways = await ledger.check(jobs, queue, letters, bench)
    assert sum(ways.values()) == count
    assert ways["completed"]
    assert ways["cancelled while active"]


# ── at the worst moment ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_cancel_after_the_end_was_written_and_before_the_worker_heard_of_it_is_refused(
    toril_server_url: str, server: Server, queue: Queue, letters: Queue, prefix: str, clock: FakeClock
) -> None:
    async with Proxy(toril_server_url) as proxy, Server(proxy.url) as slow:
        theirs = Queue("q", prefix=prefix, server=slow, clock=clock, dead_letter="dead-letter")
        gates = Gates(random.Random(1))
        job = await queue.add("n")
        worker = Worker(theirs, gates.handlers("thread"), WorkerOptions(metrics="5m"))
        ledger = Ledger(worker)
        async with worker:
            await eventually(lambda: _runs(worker))
            proxy.decide = nth(1, _ends_a_job, Cut.HOLD)
            gates.open(job.id)
            await proxy.happened.wait()
            await eventually(lambda: _has_state(job, "completed"))
            with pytest.raises(JobStateError):
                await queue.cancel(job.id, "enough")
            assert ledger.told == {}
            proxy.release()
            await worker.wait_until_idle()
            await worker.listeners.wait_until_quiet()
        assert await ledger.check([job], queue, letters, Bench(server, prefix)) == {"completed": 1}


@pytest.mark.parametrize("kind", ["coroutine", "thread", "process"])
@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER])
async def test_a_cancelled_jobs_end_whose_reply_is_lost_is_told_once(
    toril_server_url: str, server: Server, queue: Queue, letters: Queue, prefix: str, clock: FakeClock, kind: Kind, cut: Cut
) -> None:
    async with Proxy(toril_server_url) as proxy, Server(proxy.url) as slow:
        theirs = Queue("q", prefix=prefix, server=slow, clock=clock, dead_letter="dead-letter")
        gates = Gates(random.Random(1))
        job = await queue.add("n", 10**9)
        worker = Worker(theirs, gates.handlers(kind), WorkerOptions(metrics="5m"))
        ledger = Ledger(worker)
        async with worker:
            await eventually(lambda: _runs(worker))
            proxy.decide = nth(1, _ends_a_job, cut)
            assert await queue.cancel(job.id, "enough") == "active"
            if kind == "thread":
                await eventually(lambda: _is(worker.running_jobs[0].cancelled.is_set()))
                gates.open(job.id)
            await worker.wait_until_idle()
            await worker.listeners.wait_until_quiet()
        assert await ledger.check([job], queue, letters, Bench(server, prefix)) == {"cancelled while active": 1}


async def test_a_thread_past_its_timeout_keeps_slot_and_lock_and_what_it_returns_no_longer_counts(
    queue: Queue, letters: Queue, server: Server, prefix: str, clock: FakeClock
) -> None:
    gates = Gates(random.Random(1))
    late, other = await queue.add("n"), await queue.add("n")
    worker = Worker(queue, gates.handlers("thread"), WorkerOptions(concurrency=1, metrics="5m"))
    ledger = Ledger(worker)
    async with worker:
        await eventually(lambda: _is(late.id in gates.in_thread))
        clock.advance("5s")
        await eventually(lambda: _is(worker.running_jobs[0].cancelled.is_set()))
        assert await server.commands.call("EXISTS", queue.keys.lock(late.id)) == 1
        assert (await late.get_state(), await other.get_state()) == ("active", "waiting")
        gates.open(late.id)
        gates.open(other.id)
        await worker.wait_until_idle()
        await worker.listeners.wait_until_quiet()
    assert await ledger.check([late, other], queue, letters, Bench(server, prefix)) == {"failed while active": 1, "completed": 1}
    assert "ran longer than its timeout of 5s" in ledger.told[late.id][0]


# ── handlers that swallow their cancellation ──────────────────────────────────────────────────────────────────


class Stubborn:
    """A handler that returns a result all the same."""

    def __init__(self) -> None:
        self.began = asyncio.Event()

    async def __call__(self, job: Job[Any, Any]) -> str:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done"
        return "never"


async def test_a_handler_that_swallows_its_timeout_fails_all_the_same(
    queue: Queue, letters: Queue, server: Server, prefix: str, clock: FakeClock
) -> None:
    stubborn, errors = Stubborn(), list[BaseException]()
    job = await queue.add("n")
    worker = Worker(queue, [handler(stubborn.__call__, "n", timeout="5s")], WorkerOptions(metrics="5m"))
    worker.on("failed", lambda job, error, final: errors.append(error))
    ledger = Ledger(worker)
    async with worker:
        await stubborn.began.wait()
        clock.advance("5s")
        await worker.wait_until_idle()
        await worker.listeners.wait_until_quiet()
    assert [type(error) for error in errors] == [JobTimeoutError]
    assert await ledger.check([job], queue, letters, Bench(server, prefix)) == {"failed while active": 1}


async def test_a_handler_that_swallows_the_loss_of_its_lock_is_told_of_once(queue: Queue, server: Server, clock: FakeClock) -> None:
    stubborn, errors = Stubborn(), list[BaseException]()
    job = await queue.add("n")
    worker = Worker(queue, stubborn)
    worker.on("error", errors.append)
    async with worker:
        await stubborn.began.wait()
        await server.commands.call("SET", queue.keys.lock(job.id), "another worker's")
        clock.advance("10s")
        await clock.settle()
        await worker.wait_until_idle()
        await worker.listeners.wait_until_quiet()
    assert [type(error) for error in errors] == [LockLostError]
    assert await job.get_state() == "active"


def _ends_a_job(command: Command) -> bool:
    """A turn that writes how a job ended; a lane may send another one first, which only looks for more."""
    return is_script("turn")(command) and (b"c" in command or b"f" in command)


async def _runs(worker: Worker) -> None:
    assert worker.running_jobs


async def _has_state(job: Job[Any, Any], state: str) -> None:
    assert await job.get_state() == state


def _is(holds: bool) -> None:
    assert holds
