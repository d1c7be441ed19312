"""Names with a concurrency of their own: never more run than may, and a full name holds nobody else up.

The clock stands still unless a test moves it, so what happens here without moving it needs no polling.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from toril import Job, Queue, Worker, WorkerOptions, handler
from toril.testing import FakeClock, eventually
from toril.wire.connection import Connection
from toril.wire.turns import ClaimState, TurnReply, TurnRequest


class Turns:
    """Counts a queue's turns by what they told of the queue; those that claimed nothing and wrote nothing are `idle`."""

    def __init__(self, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        self.total = 0
        self.idle = 0
        self.states: Counter[ClaimState] = Counter()
        self.last = ClaimState.SATISFIED
        self._turn = queue.commands.turn
        monkeypatch.setattr(queue.commands, "turn", self._counted)

    async def _counted(self, connection: Connection, request: TurnRequest) -> TurnReply:
        reply = await self._turn(connection, request)
        self.total += 1
        self.idle += not reply.claimed and not request.endings
        self.states[reply.state] += request.claims > 0
        self.last = reply.state if request.claims else self.last
        return reply


class Load:
    """Handlers that count how many of them run at the same time, and how many jobs the server holds as active then."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.ran: Counter[str] = Counter()

    async def __call__(self, job: Job) -> None:
        self.running[job.name] += 1
        self.ran[job.name] += 1
        self.most[job.name] = max(self.most[job.name], self.running[job.name])
        self.most["all"] = max(self.most["all"], self.running.total())
        for _ in range(self.ran.total() % 4):
            await asyncio.sleep(0)  # so that they don't end in the order in which they began
        if self.ran.total() % 50 == 0:
            self.most["active"] = max(self.most["active"], await self.queue.get_active_count())
        self.running[job.name] -= 1


class Waiting:
    """A handler whose jobs wait until one of them may go on."""

    def __init__(self) -> None:
        self.started = asyncio.Semaphore(0)
        self.go_on = asyncio.Semaphore(0)
        self.ids: list[str] = []

    async def __call__(self, job: Job) -> None:
        self.ids.append(job.id)
        self.started.release()
        await self.go_on.acquire()


def collecting(ran: list[str]) -> Callable[[Job], Awaitable[None]]:
    async def handle(job: Job) -> None:
        ran.append(job.id)

    return handle


def _is(holds: bool) -> None:
    assert holds


# ── never more than may ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("concurrency", [4, 60])
async def test_no_limit_is_ever_exceeded_under_load(queue: Queue, concurrency: int) -> None:
    names = ("one", "three", "many", "unlimited")
    await queue.add_many([queue.job(names[number % 4], priority=number % 3) for number in range(800)])
    load = Load(queue)
    handlers = [handler(load, "one", concurrency=1), handler(load, "three", concurrency=3), handler(load, "many", concurrency=40)]
    async with Worker(queue, [*handlers, handler(load)], WorkerOptions(concurrency=concurrency)) as worker:
        await worker.wait_until_idle()
    assert load.ran == dict.fromkeys(names, 200)
    assert await queue.get_completed_count() == 800
    assert load.most["one"] == 1
    assert load.most["three"] <= 3
    assert load.most["many"] <= 40
    assert load.most["all"] <= concurrency
    assert 0 < load.most["active"] <= concurrency + 100  # what has ended waits in two turns under way, of 50 each


async def test_the_only_handlers_concurrency_bounds_the_worker(queue: Queue) -> None:
    await queue.add_many([queue.job("a") for _ in range(200)])
    load = Load(queue)
    async with Worker(queue, [handler(load, concurrency=2)]) as worker:
        await worker.wait_until_idle()
    assert load.most["all"] == 2
    assert load.ran["a"] == 200


async def test_no_more_jobs_are_claimed_than_there_are_slots(queue: Queue) -> None:
    await queue.add_many([queue.job(("full", "other")[number % 2]) for number in range(200)])
    waiting = Waiting()
    handlers = [handler(waiting, "full", concurrency=3), handler(waiting, "other")]
    async with Worker(queue, handlers, WorkerOptions(concurrency=8, shutdown_timeout="0s")) as worker:
        for turn in range(30):
            for _ in range(8 if turn == 0 else 1):
                await waiting.started.acquire()
            assert await queue.get_active_count() <= 9  # eight, and at most one whose end is being written
            assert len(worker.running_jobs) <= 9
            waiting.go_on.release()


async def test_a_job_that_is_put_off_or_fails_gives_its_names_slot_back(queue: Queue) -> None:
    await queue.add_many([queue.job("a", attempts=2) for _ in range(20)])
    load = Load(queue)

    async def handle(job: Job) -> None:
        await load(job)
        if job.attempts_made == 0:
            raise ValueError("no")

    async with Worker(queue, [handler(handle, "a", concurrency=1)]) as worker:
        await worker.wait_until_idle()
    assert (load.most["a"], load.ran["a"]) == (1, 40)


# ── a full name holds nobody up ───────────────────────────────────────────────────────────────────────────────


async def test_jobs_behind_two_thousand_of_a_full_name_run_while_that_is_full(queue: Queue) -> None:
    waiting, ran = Waiting(), list[str]()
    full = await queue.add_many([queue.job("full") for _ in range(2_000)])
    others = await queue.add_many([queue.job("other") for _ in range(60)])
    handlers = [handler(waiting, "full", concurrency=1), handler(collecting(ran), "other")]
    async with Worker(queue, handlers, WorkerOptions(shutdown_timeout="0s")):
        await waiting.started.acquire()
        await eventually(lambda: _is(len(ran) == 60))
        assert sorted(ran) == sorted(job.id for job in others)
        assert waiting.ids == [full[0].id]  # the first, and it still runs


async def test_prioritized_jobs_behind_those_of_a_full_name_run_while_that_is_full(queue: Queue) -> None:
    waiting, ran = Waiting(), list[str]()
    await queue.add_many([queue.job("full", priority=1) for _ in range(800)])
    others = await queue.add_many([queue.job("other", priority=2) for _ in range(10)])
    handlers = [handler(waiting, "full", concurrency=1), handler(collecting(ran), "other")]
    async with Worker(queue, handlers, WorkerOptions(shutdown_timeout="0s")):
        await waiting.started.acquire()
        await eventually(lambda: _is(len(ran) == 10))
        assert ran == [job.id for job in others]
        assert len(waiting.ids) == 1


async def test_the_jobs_of_a_full_name_run_in_their_order(queue: Queue) -> None:
    ran: list[str] = []
    jobs = await queue.add_many([queue.job(("full", "other")[number % 2]) for number in range(300)])
    async with Worker(queue, [handler(collecting(ran), "full", concurrency=1), handler(collecting([]), "other")]) as worker:
        await worker.wait_until_idle()
    assert ran == [job.id for job in jobs if job.name == "full"]


async def test_a_freed_name_is_used_at_once(queue: Queue) -> None:
    waiting = Waiting()
    jobs = await queue.add_many([queue.job("full") for _ in range(100)])
    async with Worker(queue, [handler(waiting, "full", concurrency=2)], WorkerOptions(shutdown_timeout="0s")):
        for _ in range(2):
            await waiting.started.acquire()
        for _ in range(60):
            waiting.go_on.release()
            await waiting.started.acquire()  # the clock stands still: no poll brings it
    assert waiting.ids == [job.id for job in jobs[:62]]


async def test_a_name_freed_while_the_worker_looked_far_behind_is_looked_for_at_the_front(queue: Queue) -> None:
    waiting, ran = Waiting(), list[str]()
    full = await queue.add_many([queue.job("full") for _ in range(1_500)])
    await queue.add("other")
    handlers = [handler(waiting, "full", concurrency=1), handler(collecting(ran), "other")]
    async with Worker(queue, handlers, WorkerOptions(shutdown_timeout="0s")):
        await waiting.started.acquire()
        await eventually(lambda: _is(len(ran) == 1))
        waiting.go_on.release()
        await waiting.started.acquire()
        assert waiting.ids == [job.id for job in full[:2]]


# ── without spinning ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_worker_that_finds_only_full_names_polls_and_does_not_spin(
    queue: Queue, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue.open()
    turns, waiting = Turns(queue, monkeypatch), Waiting()
    await queue.add_many([queue.job("full") for _ in range(700)])
    async with Worker(queue, [handler(waiting, "full", concurrency=1)], WorkerOptions(shutdown_timeout="0s")):
        await waiting.started.acquire()
        await eventually(lambda: _is(turns.last is ClaimState.ONLY_FULL_NAMES))
        before = turns.total
        for _ in range(20):
            await queue.get_active_count()  # round trips in which a worker that spins would take turns, too
        assert turns.total - before <= 1
        before = turns.total
        clock.advance("100ms")
        await eventually(lambda: _is(turns.total > before))
        for _ in range(20):
            await queue.get_active_count()
        assert turns.total - before <= 3  # one look is up to three windows of 500


async def test_a_worker_that_finds_only_full_names_sees_another_job_with_its_next_poll(queue: Queue, clock: FakeClock) -> None:
    waiting, ran = Waiting(), list[str]()
    await queue.add_many([queue.job("full") for _ in range(700)])
    handlers = [handler(waiting, "full", concurrency=1), handler(collecting(ran), "other")]
    async with Worker(queue, handlers, WorkerOptions(shutdown_timeout="0s")):
        await waiting.started.acquire()
        job = await queue.add("other")

        def it_ran() -> None:
            clock.advance("100ms")
            assert ran == [job.id]

        await eventually(it_ran)


async def test_a_backlog_of_a_full_name_costs_about_one_turn_a_job(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    await queue.open()
    turns, load = Turns(queue, monkeypatch), Load(queue)
    await queue.add_many([queue.job("full") for _ in range(300)])
    async with Worker(queue, [handler(load, "full", concurrency=1)], WorkerOptions(concurrency=50)) as worker:
        await worker.wait_until_idle()
    assert load.ran["full"] == 300
    assert turns.total < 2 * 300 + 50
