"""Job schedulers that both sides make, read and keep alive: whoever claims a run must add the next one, once."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from tests.compared import Compared
from tests.interop.handling import handle
from tests.interop.peer import NodePeer
from toril import Job, Queue, QueueEvents, ScheduleRule, Worker, WorkerOptions
from toril.errors import InvalidOptionError
from toril.queues.events import AddedEvent, CompletedEvent
from toril.testing import eventually

EVERY_MS = 150


async def _next_runs(queue: Queue, count: int) -> list[str]:
    """Wait for so many further runs; their ids."""
    ids: list[str] = []
    async with QueueEvents(queue) as events:
        async for event in events:
            if isinstance(event, CompletedEvent):
                ids.append(event.job_id)
                if len(ids) == count:
                    break
    return ids


async def _added(queue: Queue) -> list[str]:
    """The ids of all runs that were ever added."""
    last = await queue.add("the last one")
    ids: list[str] = []
    async with QueueEvents(queue, last_event_id="0") as events:
        async for event in events:
            if isinstance(event, AddedEvent):
                if event.job_id == last.id:
                    break
                ids.append(event.job_id)
    return ids


@pytest.mark.parametrize("makes", ["here", "in node"])
async def test_a_scheduler_lives_on_while_its_claimers_alternate(each_node: NodePeer, queue: Queue, makes: str, compared: Compared) -> None:
    if makes == "here":
        await queue.job_schedulers.upsert("beat", ScheduleRule(every=f"{EVERY_MS}ms"), name="tick", data={"returns": 1})
    else:
        template = {"name": "tick", "data": {"returns": 1}}
        await each_node.ask("upsertScheduler", queue="q", scheduler="beat", repeat={"every": EVERY_MS}, template=template)
    ran: list[str] = []
    for claims in ("node", "toril", "node", "toril", "both"):
        async with AsyncExitStack() as stack:
            if claims != "toril":
                await each_node.ask("work", queue="q", options={})
            if claims != "node":
                await stack.enter_async_context(Worker(queue, handle))
            ran += await _next_runs(queue, 3)
            if claims != "toril":
                await each_node.ask("stop", queue="q")
    (theirs,) = await each_node.ask("schedulers", queue="q")
    (ours,) = await queue.job_schedulers.list()
    assert (theirs["key"], theirs["every"], theirs["template"]["data"]) == ("beat", EVERY_MS, {"returns": 1})
    assert (ours.id, ours.every_ms, ours.next_ms, ours.iterations) == ("beat", EVERY_MS, theirs["next"], theirs["iterationCount"])
    assert len(set(ran)) == len(ran)
    slots = sorted(int(job_id.rpartition(":")[2]) for job_id in ran)
    assert {slot % EVERY_MS for slot in slots} == {slots[0] % EVERY_MS}
    added = await _added(queue)
    assert len(set(added)) == len(added) == ours.iterations, "each run has added one next run, and only one"
    assert await each_node.ask("removeScheduler", queue="q", scheduler="beat")
    assert await queue.job_schedulers.list() == []
    compared.jobs += len(ran)


async def test_a_cron_rule_that_node_makes_is_read_and_followed_here(each_node: NodePeer, queue: Queue, compared: Compared) -> None:
    await each_node.ask(
        "upsertScheduler",
        queue="q",
        scheduler="nightly",
        repeat={"pattern": "* * * * * *", "limit": 3, "tz": "Europe/Berlin"},
        template={"name": "n", "data": {"x": 1}, "opts": {"attempts": 2}},
    )
    (found,) = await queue.job_schedulers.list()
    assert (found.id, found.pattern, found.tz, found.name, found.data, found.limit) == (
        "nightly", "* * * * * *", "Europe/Berlin", "n", {"x": 1}, 3,
    )  # fmt: skip
    ran: list[Job] = []
    done = asyncio.Event()

    async def run(job: Job) -> None:
        ran.append(job)
        if len(ran) == 3:
            done.set()

    async with Worker(queue, run, WorkerOptions(drain_delay="1m")):
        await asyncio.wait_for(done.wait(), 20)
    assert [(job.name, job.data, job.options.attempts) for job in ran] == [("n", {"x": 1}, 2)] * 3
    assert {int(job.id.rpartition(":")[2]) % 1_000 for job in ran} == {0}
    await eventually(lambda: _is_empty(queue))  # the limit is reached
    compared.jobs += 3


async def test_a_cron_rule_that_is_made_here_is_read_and_followed_by_node(each_node: NodePeer, queue: Queue, compared: Compared) -> None:
    rule = ScheduleRule(pattern="* * * * * *", tz="Europe/Berlin", limit=3)
    await queue.job_schedulers.upsert("nightly", rule, name="n", data={"returns": 1})
    (found,) = await each_node.ask("schedulers", queue="q")
    assert (found["key"], found["pattern"], found["tz"], found["limit"]) == ("nightly", "* * * * * *", "Europe/Berlin", 3)
    await each_node.ask("work", queue="q", options={"drainDelay": 60})
    ran = await each_node.heard(lambda event: event["event"] == "ran", count=3)
    assert {int(event["id"].rpartition(":")[2]) % 1_000 for event in ran} == {0}
    await eventually(lambda: _is_empty(queue))
    compared.jobs += 3


async def _is_empty(queue: Queue) -> None:
    counts = await queue.get_job_counts("waiting", "active", "delayed")
    assert counts == {"waiting": 0, "active": 0, "delayed": 0}


async def test_a_scheduler_that_is_called_like_anothers_run_destroys_it_there_and_is_refused_here(node: NodePeer, queue: Queue) -> None:
    due = (int(time.time()) // 3_600 + 1) * 3_600_000
    template: dict[str, object] = {"name": "n", "data": {}}
    for name in ("theirs", "q"):
        await node.ask("upsertScheduler", queue=name, scheduler="x", repeat={"pattern": "0 0 * * * *"}, template=template)
    await node.ask("upsertScheduler", queue="theirs", scheduler=f"x:{due}", repeat={"every": 7_200_000}, template=template)
    assert (await node.ask("get", queue="theirs", id=f"repeat:x:{due}"))["timestamp"] is None  # a record, and no job any more
    with pytest.raises(InvalidOptionError, match="a run of another scheduler"):
        await queue.job_schedulers.upsert(f"x:{due}", ScheduleRule(every="2h"))
    assert (await queue.get_job(f"repeat:x:{due}")).name == "n"
