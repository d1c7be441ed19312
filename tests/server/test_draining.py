"""`drain` ends when nothing is left to run, whoever added it, and not before."""

from __future__ import annotations

import asyncio
from typing import Annotated

import pytest

from toril import InjectQueue, Job, Queue, QueueModule, on_queue_completed, on_queue_failed, process, processor
from toril.errors import InvalidOptionError
from toril.testing import Test, TestingModule, eventually


class Seen:
    def __init__(self) -> None:
        self.lines: list[str] = []


@processor("left")
class Left:
    def __init__(self, right: Annotated[Queue, InjectQueue("right")], seen: Seen) -> None:
        self.right, self.seen = right, seen

    @process()
    async def run(self, job: Job) -> None:
        self.seen.lines.append(f"left {job.data['n']}")
        if job.data["n"] > 0:
            await self.right.add({"n": job.data["n"] - 1})


@processor("right")
class Right:
    def __init__(self, left: Annotated[Queue, InjectQueue("left")], seen: Seen) -> None:
        self.left, self.seen = left, seen

    @process()
    async def run(self, job: Job) -> None:
        self.seen.lines.append(f"right {job.data['n']}")

    @on_queue_completed()
    async def completed(self, job: Job, result: object) -> None:
        for _ in range(5):  # longer than the worker needs to find its queue empty
            await self.left.count()
        if job.data["n"] > 0:
            await self.left.add({"n": job.data["n"] - 1})


async def compiled(*providers: type) -> TestingModule:
    queues = QueueModule.register_queue("left", "right", "idle")
    return await Test.create_testing_module(imports=[queues], providers=[Seen, *providers]).compile()


async def test_what_handlers_and_listeners_add_to_other_queues_is_run_too() -> None:
    async with await compiled(Left, Right) as t:
        await t.queue("left").add({"n": 40})
        await t.drain()
        assert t.get(Seen).lines == [f"{'right' if n % 2 else 'left'} {n}" for n in range(40, -1, -1)]
        assert await t.queue("left").count() + await t.queue("right").count() == 0


async def test_only_the_queues_that_are_named_are_drained() -> None:
    async with await compiled(Left, Right) as t:
        await t.queue("left").add({"n": 2})
        await t.drain("left")
        assert t.get(Seen).lines == ["left 2"]
        await t.drain("right")
        assert t.get(Seen).lines == ["left 2", "right 1"]
        assert await t.queue("left").count() == 1


async def test_an_empty_queue_is_drained_at_once() -> None:
    async with await compiled(Left, Right) as t:
        await t.drain()
        await t.drain("left")
        assert t.get(Seen).lines == []


async def test_a_paused_queue_counts_as_drained() -> None:
    async with await compiled(Left, Right) as t:
        await t.queue("left").add({"n": 0})
        await t.queue("left").pause()
        await t.drain("left")
        assert t.get(Seen).lines == []
        await t.queue("left").resume()
        await t.drain("left")
        assert t.get(Seen).lines == ["left 0"]


async def test_a_queue_without_a_processor_can_not_be_drained() -> None:
    async with await compiled(Left, Right) as t:
        with pytest.raises(InvalidOptionError) as caught:
            await t.drain("idle")
        assert "no processor serves this queue (served are: left, right)" in str(caught.value)


async def test_two_drains_at_once_share_the_work() -> None:
    async with await compiled(Left, Right) as t:
        await t.queue("left").add_many([t.queue("left").job({"n": 1}) for _ in range(30)])
        async with asyncio.TaskGroup() as group:
            group.create_task(t.drain())
            group.create_task(t.drain())
        assert sorted(t.get(Seen).lines) == sorted([*["left 1"] * 30, *["right 0"] * 30])


class Gate:
    def __init__(self) -> None:
        self.reached = asyncio.Event()


@processor("left")
class Stuck:
    def __init__(self, gate: Gate, seen: Seen) -> None:
        self.gate, self.seen = gate, seen

    @process(timeout="2m")
    async def run(self, job: Job) -> None:
        self.gate.reached.set()
        await asyncio.Event().wait()

    @on_queue_failed()
    async def failed(self, job: Job, error: BaseException, final: bool) -> None:
        self.seen.lines.append(f"{type(error).__name__} {final}")


async def test_a_handlers_timeout_passes_with_the_clock() -> None:
    async with await compiled(Gate, Stuck) as t:
        job = await t.queue("left").add({}, attempts=1)
        draining = asyncio.create_task(t.drain("left"))
        await t.get(Gate).reached.wait()
        await t.advance("119s")
        assert not draining.done()
        await t.advance("1s")
        await draining
        assert t.get(Seen).lines == ["JobTimeoutError True"]
        assert await job.get_state() == "failed"


async def test_a_drain_that_is_cancelled_puts_its_jobs_back() -> None:
    async with await compiled(Gate, Stuck) as t:
        job = await t.queue("left").add({})
        draining = asyncio.create_task(t.drain("left"))
        await t.get(Gate).reached.wait()
        draining.cancel()
        # It stops as a worker stops: the handler may end first, until its time is over, too.
        await eventually(lambda: _is_over(t, draining))
        with pytest.raises(asyncio.CancelledError):
            await draining
        await job.refresh()
        assert (await job.get_state(), job.attempts_made) == ("waiting", 0)


async def _is_over(t: TestingModule, draining: asyncio.Task[None]) -> None:
    await t.advance("5s")
    assert draining.done()
