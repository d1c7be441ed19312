"""Cancelling and expiry race with whatever becomes of a job that doesn't run: either one wins, never both, and all tell the same."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import pytest

from tests.bench import Bench
from tests.ledger import Ledger
from tests.support import seeded_random
from toril import DelayedError, FlowProducer, Job, Queue, WaitingError, Worker, WorkerOptions, fixed, flow_job
from toril.errors import JobStateError
from toril.testing import FakeClock
from toril.wire.connection import Server

Rival: TypeAlias = Callable[[Job[Any, Any]], Awaitable[object]]


@pytest.fixture
async def queue(server: Server, prefix: str, clock: FakeClock, letters: Queue) -> AsyncIterator[Queue]:
    async with Queue("q", prefix=prefix, server=server, clock=clock, dead_letter=letters) as queue:
        yield queue


@pytest.fixture
def race(queue: Queue, letters: Queue, server: Server, prefix: str) -> Race:
    return Race(queue, letters, Bench(server, prefix))


class Race:
    """Workers whose handler ends as `endings` draws it, rivals that come at any moment, and what became of each job."""

    def __init__(self, queue: Queue, letters: Queue, bench: Bench) -> None:
        self.source = seeded_random()
        self.queue = queue
        self.letters = letters
        self.bench = bench
        self.clock = queue.clock
        self.ledger = Ledger()
        self.runs: Counter[str] = Counter()
        self.cancelled_in: dict[str, str] = {}
        """Where each job was when a cancel found it; `over` if that was refused."""
        self.resting: set[str] = set()
        """Jobs that don't end by themselves."""
        self.last_child: dict[str, Job[Any, Any]] = {}
        self.endings: Sequence[type[Exception] | None] = (None,)
        self._runs_until_cancel: dict[str, int] = {}
        self._begun: dict[str, asyncio.Event] = {}

    # ── the contestants ───────────────────────────────────────────────────────────────────────────────────────

    def worker(self, concurrency: int = 5) -> Worker:
        worker = Worker(self.queue, self.handle, WorkerOptions(concurrency=concurrency, metrics="5m"))
        self.ledger.watch(worker)
        worker.on("active", self._note)
        return worker

    async def _note(self, job: Job[Any, Any]) -> None:
        self.begun(job).set()

    def begun(self, job: Job[Any, Any]) -> asyncio.Event:
        return self._begun.setdefault(job.id, asyncio.Event())

    async def handle(self, job: Job[Any, Any]) -> str:
        self.runs[job.id] += 1
        if job.id in self.resting:
            await asyncio.Event().wait()
        await self.dally()
        ending = self.source.choice(self.endings) if self.runs[job.id] < 3 else None
        if ending is DelayedError:
            raise DelayedError("1s")
        if ending is not None:
            raise ending("not now")
        return job.id

    async def dally(self) -> None:
        """A few turns of the event loop, so that the next step comes at any moment of what runs meanwhile."""
        for _ in range(self.source.randrange(12)):
            await asyncio.sleep(0)

    async def cancel(self, job: Job[Any, Any]) -> None:
        try:
            self.cancelled_in[job.id] = await self.queue.cancel(job.id, "enough")
        except JobStateError:
            self.cancelled_in[job.id] = "over"
        self._runs_until_cancel[job.id] = self.runs[job.id]

    async def pass_time(self, job: Job[Any, Any]) -> None:
        assert isinstance(self.clock, FakeClock)
        self.clock.advance(f"{self.source.randrange(1, 400)}ms")

    async def challenge(self, jobs: Sequence[Job[Any, Any]], rivals: Sequence[Rival], *, running: float = 0) -> None:
        """All rivals for each job, in any order, at any moment; for that part of the jobs only once they run."""

        # A few at a time, in the order in which the workers take them: else all rivals are done before the first job has begun.
        places = asyncio.Semaphore(6)

        async def one(job: Job[Any, Any], *, waits: bool) -> None:
            if waits:
                await self.begun(self.last_child.get(job.id, job)).wait()
            for rival in self.source.sample(rivals, len(rivals)):
                await self.dally()
                await rival(job)

        async def in_turn(job: Job[Any, Any]) -> None:
            if self.source.random() < running:
                await one(job, waits=True)
            else:
                async with places:
                    await one(job, waits=False)

        async with asyncio.TaskGroup() as tasks:
            for job in jobs:
                tasks.create_task(in_turn(job))

    async def finish(self, *workers: Worker) -> None:
        """Let all time pass that jobs still wait for."""
        assert isinstance(self.clock, FakeClock)
        while True:
            for worker in workers:
                worker.look_again()
                await worker.wait_until_idle()
            if not await self.queue.count():
                break
            self.clock.advance("10s")
        for worker in workers:
            await worker.listeners.wait_until_quiet()

    # ── what became of them ───────────────────────────────────────────────────────────────────────────────────

    async def check(self, jobs: list[Job[Any, Any]]) -> Counter[str]:
        """One end of each, and the cancel was answered as it went out."""
        ways = await self.ledger.check(jobs, self.queue, self.letters, self.bench)
        assert sum(ways.values()) == len(jobs)
        for job in jobs:
            reason, where = job.failed_reason or "", self.cancelled_in.get(job.id)
            state = await job.get_state()
            if where not in (None, "over", "active"):
                assert (state, reason) == ("failed", "cancelled: enough")
                assert self.runs[job.id] == self._runs_until_cancel[job.id]
            if state == "completed":
                assert self.runs[job.id]
            elif reason == "cancelled: enough":
                assert where not in (None, "over")
            elif "expired" in reason:
                assert self.runs[job.id] == 0
        return ways


def jobs_of(race: Race, count: int, options: Callable[[random.Random], dict[str, Any]]) -> Awaitable[list[Job[Any, Any]]]:
    return race.queue.add_many([race.queue.job("n", number, **options(race.source)) for number in range(count)])


def refused_in_time(call: Rival) -> Rival:
    """The same, but it may come too late."""

    async def rival(job: Job[Any, Any]) -> None:
        try:
            await call(job)
        except JobStateError:
            assert await job.get_state() != "delayed"

    return rival


def cancelled(ways: Counter[str]) -> int:
    return sum(count for way, count in ways.items() if way.startswith("cancelled"))


# ── cancel against what moves a job on ────────────────────────────────────────────────────────────────────────


async def test_a_delayed_job_is_either_cancelled_or_promoted_and_run(race: Race) -> None:
    jobs = await jobs_of(race, 150, lambda source: {"delay": f"{source.randrange(1, 9_000)}ms", "priority": source.choice((0, 0, 3))})
    async with race.worker() as worker:
        await race.challenge(jobs, [race.cancel, race.pass_time, refused_in_time(Job.promote)])
        await race.finish(worker)
    ways = await race.check(jobs)
    assert ways["cancelled while delayed"]
    assert ways["completed"]


async def test_a_prioritized_job_is_either_cancelled_or_claimed_whatever_its_priority_becomes(race: Race) -> None:
    async def change(job: Job[Any, Any]) -> None:
        await job.change_priority(race.source.randrange(5))

    jobs = await jobs_of(race, 200, lambda source: {"priority": source.randrange(1, 9)})
    async with race.worker(2) as worker:
        by_priority = sorted(jobs, key=lambda job: job.options.priority or 0)
        await race.challenge(by_priority, [race.cancel, refused_in_time(change)], running=0.3)
        await race.finish(worker)
    ways = await race.check(jobs)
    assert ways["cancelled while prioritized"]
    assert ways["completed"]


async def test_a_parent_is_either_cancelled_or_goes_on_after_its_last_child_which_may_be_cancelled_too(race: Race, server: Server) -> None:
    parents: list[Job[Any, Any]] = []
    everyone: list[Job[Any, Any]] = []
    async with FlowProducer(server=server, prefix=race.queue.prefix, clock=race.clock) as flows:
        flows.use(race.queue)
        for _ in range(80):
            fails_it = race.source.random() < 0.5
            below = [flow_job("child", queue="q", fail_parent_on_failure=fails_it) for _ in range(race.source.randrange(1, 4))]
            tree = await flows.add(flow_job("parent", queue="q", children=below))
            parents.append(tree.job)
            everyone += [node.job for node in tree]
            race.last_child[tree.job.id] = tree.children[-1].job

    async def cancel_child(parent: Job[Any, Any]) -> None:
        child = race.last_child[parent.id]
        if child.options.fail_parent_on_failure and race.source.random() < 0.5:  # else the parent would wait for ever
            await race.cancel(child)

    async with race.worker(3) as worker:
        await race.challenge(parents, [race.cancel, cancel_child], running=0.7)
        await race.finish(worker)
    ways = await race.check(everyone)
    assert ways["cancelled while waiting-children"]
    assert "completed" in [await parent.get_state() for parent in parents]


# ── cancel against being put back ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("backoff", ["0s", "200ms"])
async def test_a_job_that_its_handler_puts_back_is_either_cancelled_or_runs_again(race: Race, backoff: str) -> None:
    race.endings = (DelayedError, WaitingError, ValueError, None)
    jobs = await jobs_of(
        race, 150, lambda source: {"attempts": 3, "backoff": fixed(backoff), "priority": source.choice((0, 0, 3)), "expires_in": "1h"}
    )
    async with race.worker() as worker:
        await race.challenge(jobs, [race.cancel, race.pass_time], running=1)
        await race.finish(worker)
    ways = await race.check(jobs)
    assert cancelled(ways)
    assert ways["completed"]
    assert max(race.runs.values()) > 1


async def test_a_job_that_a_stopping_worker_puts_back_is_either_cancelled_or_runs_elsewhere(race: Race) -> None:
    jobs: list[Job[Any, Any]] = []
    for _ in range(25):
        more = await jobs_of(race, 8, lambda source: {"attempts": 2, "priority": source.choice((0, 0, 3))})
        jobs += more
        race.resting = {job.id for job in more}
        async with race.worker(8) as worker, asyncio.TaskGroup() as tasks:
            await asyncio.gather(*(race.begun(job).wait() for job in more))
            tasks.create_task(race.challenge(more[::2], [race.cancel]))
            await race.dally()
            await worker.stop(force=True)
        await worker.listeners.wait_until_quiet()
        race.resting.clear()
        async with race.worker() as worker:
            await race.finish(worker)
    ways = await race.check(jobs)
    assert ways["cancelled while active"]
    assert ways["completed"] >= 100
    assert not ways["failed while active"]  # no attempt was spent


# ── expiry ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_job_either_begins_in_time_or_expires_and_one_that_began_goes_on(race: Race) -> None:
    race.endings = (DelayedError, WaitingError, ValueError, None)

    def options(source: random.Random) -> dict[str, Any]:
        delay, priority = source.choice(("0ms", "1ms", "500ms")), source.choice((0, 0, 3))
        return {
            "expires_in": f"{source.randrange(1, 40_000)}ms",
            "delay": delay,
            "priority": priority,
            "attempts": 4,
            "backoff": fixed("0s"),
        }

    jobs = await jobs_of(race, 200, options)
    async with race.worker() as worker:
        await race.challenge(jobs, [race.pass_time], running=0.5)
        await race.finish(worker)
    ways = await race.check(jobs)
    assert ways.keys() == {"completed", "failed while active"}


async def test_a_job_past_its_time_is_either_cancelled_without_a_letter_or_expires_with_one(race: Race) -> None:
    def options(source: random.Random) -> dict[str, Any]:
        delay, priority = source.choice(("0ms", "1ms", "500ms")), source.choice((0, 0, 3))
        return {"expires_in": f"{source.randrange(1, 10_000)}ms", "delay": delay, "priority": priority, "attempts": 2}

    jobs = await jobs_of(race, 250, options)
    async with race.worker(2) as worker:
        await race.challenge(jobs, [race.cancel, race.pass_time], running=0.4)
        await race.finish(worker)
    ways = await race.check(jobs)
    assert ways["failed while active"]
    assert cancelled(ways)


@pytest.mark.parametrize("option", [{"delay": "1m"}, {"priority": 3}], ids=["delayed", "prioritized"])
async def test_a_job_runs_at_the_last_moment_of_its_time_and_expires_at_the_next(
    race: Race, clock: FakeClock, option: dict[str, Any]
) -> None:
    in_time = await race.queue.add("n", **option, expires_in="1m")
    late = await race.queue.add("n", **option, expires_in="59999ms", attempts=5)
    clock.advance("2m" if "delay" in option else "1m")
    async with race.worker() as worker:
        await race.finish(worker)
    assert await race.check([in_time, late]) == {"completed": 1, "failed while active": 1}
    assert "expired 1ms before" in (late.failed_reason or "")
