"""One side adds, the other one runs: every form of every option is understood, and does what it says."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import pytest

from tests.compared import Compared
from tests.interop.handling import handle, is_state
from tests.interop.peer import NodePeer
from tests.line_process import PeerError
from toril import Deduplication, JobOptions, KeepJobs, Queue, QueueEvents, Worker, WorkerOptions, custom, exponential, fixed
from toril.errors import JobFailedError
from toril.queues.events import ActiveEvent
from toril.testing import eventually

Options: TypeAlias = Mapping[str, Any]

KEEP: Final = {"age": 3_600, "count": 10, "limit": 5}

BOTH_WAYS: Final[Mapping[str, tuple[Options, JobOptions]]] = {
    "nothing": ({}, JobOptions(attempts=0)),
    "a fixed wait": ({"attempts": 3, "backoff": {"type": "fixed", "delay": 1_000}}, JobOptions(attempts=3, backoff=fixed("1s"))),
    "a growing wait": (
        {"attempts": 3, "backoff": {"type": "exponential", "delay": 500, "jitter": 0.5}},
        JobOptions(attempts=3, backoff=exponential("500ms", jitter=0.5, cap=None)),
    ),
    "a wait of one's own": ({"backoff": {"type": "mine", "delay": 5}}, JobOptions(backoff=custom("mine", delay="5ms"))),
    "delay": ({"delay": 3_600_000}, JobOptions(delay="1h")),
    "priority": ({"priority": 2_097_151}, JobOptions(priority=2_097_151)),
    "lifo": ({"lifo": True}, JobOptions(lifo=True)),
    "an id": ({"jobId": "order-7 é"}, JobOptions(job_id="order-7 é")),
    "an id of three parts": ({"jobId": "a:b:c"}, JobOptions(job_id="a:b:c")),
    "remove what completes": ({"removeOnComplete": True, "removeOnFail": True}, JobOptions(remove_on_complete=True, remove_on_fail=True)),
    "keep what completes": ({"removeOnComplete": False, "removeOnFail": False}, JobOptions(remove_on_complete=False, remove_on_fail=False)),
    "keep some": ({"removeOnComplete": 5, "removeOnFail": 0}, JobOptions(remove_on_complete=5, remove_on_fail=0)),
    "keep for a while": (
        {"removeOnComplete": KEEP, "removeOnFail": {"age": 60}},
        JobOptions(remove_on_complete=KeepJobs(age="1h", count=10, limit=5), remove_on_fail=KeepJobs(age="1m")),
    ),
    "traces and logs": ({"stackTraceLimit": 2, "keepLogs": 3}, JobOptions(stack_trace_limit=2, keep_logs=3)),
    "size": ({"sizeLimit": 1_000}, JobOptions(size_limit=1_000)),
    "a time of one's own": ({"timestamp": 1_700_000_000_000}, JobOptions(timestamp=datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC))),
    "once": ({"deduplication": {"id": "d"}}, JobOptions(deduplication=Deduplication("d"))),
    "throttled": ({"deduplication": {"id": "d", "ttl": 5_000}}, JobOptions(deduplication=Deduplication("d", ttl="5s"))),
    "debounced": (
        {"delay": 5_000, "deduplication": {"id": "d", "ttl": 5_000, "extend": True, "replace": True}},
        JobOptions(delay="5s", deduplication=Deduplication("d", ttl="5s", extend=True, replace=True)),
    ),
    "the last one": (
        {"deduplication": {"id": "d", "keepLastIfActive": True}},
        JobOptions(deduplication=Deduplication("d", keep_last_if_active=True)),
    ),
    "rescheduled": (
        {"delay": 5_000, "deduplication": {"id": "d", "reschedule": True}},
        JobOptions(delay="5s", deduplication=Deduplication("d", reschedule=True)),
    ),
}

FROM_NODE_ONLY: Final[Mapping[str, tuple[Options, JobOptions]]] = {
    "a bare number as backoff": ({"attempts": 2, "backoff": 250}, JobOptions(attempts=2, backoff=fixed("250ms"))),
    "a negative delay": ({"delay": -5}, JobOptions(delay="0s")),
    "a key of somebody's own": ({"mine": {"x": [1]}, "attempts": 2}, JobOptions(attempts=2)),
}


async def test_options_that_node_gives_are_read_here(node: NodePeer, toril_server_url: str, toril_prefix: str, compared: Compared) -> None:
    for number, (form, (theirs, ours)) in enumerate({**BOTH_WAYS, **FROM_NODE_ONLY}.items()):
        async with Queue(f"q{number}", prefix=toril_prefix, url=toril_server_url) as queue:
            added = await node.ask("add", queue=queue.name, name="a", data={"n": 1}, opts=theirs)
            job = await queue.get_job(added["id"])
            assert (form, job.options) == (form, ours.merged_over(JobOptions(attempts=0)))
            read = await node.ask("get", queue=queue.name, id=job.id)
            assert (job.name, job.data, job.delay_ms, job.priority) == ("a", {"n": 1}, read["delay"], read["priority"])
        compared.operations += 1


async def test_options_that_are_given_here_are_read_by_node(
    node: NodePeer, toril_server_url: str, toril_prefix: str, compared: Compared
) -> None:
    for number, (form, (theirs, ours)) in enumerate(BOTH_WAYS.items()):
        async with Queue(f"q{number}", prefix=toril_prefix, url=toril_server_url) as queue:
            added = await queue.add("a", {"n": 1}, options=ours)
            read = await node.ask("get", queue=queue.name, id=added.id)
            assert (form, read["opts"]) == (form, {"attempts": 0, **theirs})
            assert (read["name"], read["data"], read["delay"], read["priority"]) == ("a", {"n": 1}, added.delay_ms, added.priority)
        compared.operations += 1


# ── run by the other one ──────────────────────────────────────────────────────────────────────────────────────────


async def test_jobs_that_are_added_here_run_in_node(each_node: NodePeer, queue: Queue, compared: Compared) -> None:
    await each_node.ask("work", queue="q", options={"name": "bull", "concurrency": 5})
    first = await queue.add("a", {"progress": {"done": 1}, "log": "a row", "returns": "é"}, priority=3)
    second = await queue.add("b", {"fail": 2}, attempts=3, backoff=exponential("10ms"), timeout="5s", expires_in="1h")
    third = await queue.add("c", {"fail": 9}, attempts=2, backoff=fixed("1ms"), stack_trace_limit=1)
    later = await queue.add("d", {}, delay="300ms", remove_on_complete=True)
    hopeless = await queue.add("e", {"giveUp": True}, attempts=5)
    assert await first.result(timeout="20s") == "é"
    assert [(result["by"], result["attempts"]) for result in [await job.result(timeout="20s") for job in (second, later)]] == [
        ("node", 2),
        ("node", 0),
    ]
    with pytest.raises(JobFailedError, match="gives up"):
        await hopeless.result(timeout="20s")
    await eventually(lambda: is_state(third, "failed"))
    for job in (first, third, hopeless):
        await job.refresh()
    assert (first.progress, first.processed_by, (await first.get_logs()).rows) == ({"done": 1}, "bull", ["a row"])
    assert (third.failed_reason, third.attempts_made, len(third.stack_trace)) == ("asked to fail: 2", 2, 1)
    assert hopeless.attempts_made == 1
    assert await later.get_state() is None
    compared.jobs += 5


async def test_jobs_that_node_adds_run_here_and_it_waits_for_their_results(each_node: NodePeer, queue: Queue, compared: Compared) -> None:
    async def add(name: str, data: dict[str, Any], **opts: object) -> str:
        return str((await each_node.ask("add", queue="q", name=name, data=data, opts=opts))["id"])

    async with Worker(queue, handle, WorkerOptions(name="snake", concurrency=5)):
        first = await add("a", {"progress": {"done": 1}, "log": "a row", "returns": "é"}, priority=3)
        second = await add("b", {"fail": 2}, attempts=3, backoff={"type": "exponential", "delay": 10, "jitter": 0.5})
        third = await add("c", {"fail": 9}, attempts=2, backoff=1, stackTraceLimit=1)
        later = await add("d", {"returns": 4}, delay=300, removeOnComplete=True)
        hopeless = await add("e", {"giveUp": True}, attempts=5)
        assert await each_node.ask("waitUntilFinished", queue="q", id=later, ttl=20_000) == 4
        assert await each_node.ask("waitUntilFinished", queue="q", id=first, ttl=20_000) == "é"
        assert (await each_node.ask("waitUntilFinished", queue="q", id=second, ttl=20_000))["attempts"] == 2
        with pytest.raises(PeerError, match="asked to fail: 2"):
            await each_node.ask("waitUntilFinished", queue="q", id=third, ttl=20_000)
        with pytest.raises(PeerError, match="gives up"):
            await each_node.ask("waitUntilFinished", queue="q", id=hopeless, ttl=20_000)
    shown = {job_id: await each_node.ask("get", queue="q", id=job_id) for job_id in (first, third, hopeless)}
    assert (shown[first]["progress"], shown[first]["processedBy"]) == ({"done": 1}, "snake")
    assert (await each_node.ask("logs", queue="q", id=first)) == {"logs": ["a row"], "count": 1}
    assert (shown[third]["attemptsMade"], len(shown[third]["stacktrace"])) == (2, 1)
    assert shown[hopeless]["attemptsMade"] == 1
    assert await each_node.ask("state", queue="q", id=later) is None
    compared.jobs += 5


@pytest.mark.parametrize("runs", ["here", "in node"])
@pytest.mark.parametrize("adds", ["here", "in node"])
async def test_jobs_run_in_the_same_order_whoever_adds_and_whoever_runs(
    node: NodePeer, queue: Queue, adds: str, runs: str, compared: Compared
) -> None:
    forms: list[tuple[Options, JobOptions]] = [
        ({}, JobOptions()),
        ({"priority": 2}, JobOptions(priority=2)),
        ({"priority": 1}, JobOptions(priority=1)),
        ({}, JobOptions()),
        ({"lifo": True}, JobOptions(lifo=True)),
        ({"priority": 1}, JobOptions(priority=1)),
    ]
    await queue.pause()
    if adds == "here":
        ids = [job.id for job in await queue.add_many([queue.job("a", {}, options=ours) for _, ours in forms])]
    else:
        ids = await node.ask("addBulk", queue="q", jobs=[{"name": "a", "opts": theirs} for theirs, _ in forms])
    if runs == "in node":
        await node.ask("work", queue="q", options={"concurrency": 1})
    async with AsyncExitStack() as stack:
        if runs == "here":
            await stack.enter_async_context(Worker(queue, handle, WorkerOptions(concurrency=1)))
        events = await stack.enter_async_context(QueueEvents(queue))
        await queue.resume()
        order: list[int] = []
        async for event in events:
            if isinstance(event, ActiveEvent):
                order.append(ids.index(event.job_id))
                if len(order) == len(ids):
                    break
    assert order == [4, 0, 3, 2, 5, 1]
    compared.jobs += len(ids)
