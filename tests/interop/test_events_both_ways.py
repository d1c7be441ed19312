"""Both libraries' `QueueEvents` hear the same, whoever makes it happen: every kind of event, in the same order, with the same fields."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

import pytest

from tests.compared import Compared
from tests.interop.handling import handle, is_state
from tests.interop.peer import NodePeer
from toril import Deduplication, FlowProducer, Queue, QueueEvents, Worker, WorkerOptions, fixed, flow_job
from toril.queues.events import Event, UnknownEvent, WaitingEvent
from toril.queues.states import JobState, state_of_key
from toril.testing import eventually

KINDS: Final = {
    "active", "added", "cleaned", "completed", "deduplicated", "delayed", "drained", "duplicated", "failed", "paused", "progress",
    "removed", "resumed", "retries-exhausted", "stalled", "waiting", "waiting-children",
}  # fmt: skip

NODE_NAMES: Final = {
    "job_id": "jobId", "name": "name", "due_at_ms": "delay", "value": "data", "return_value": "returnvalue", "reason": "failedReason",
    "attempts_made": "attemptsMade", "deduplication_id": "deduplicationId", "deduplicated_job_id": "deduplicatedJobId", "count": "count",
}  # fmt: skip
WITH_ORIGIN: Final = frozenset({"failed", "removed", "waiting", "waiting-children"})
AS_TEXT: Final = frozenset({"attempts_made", "count"})
"""What Node's `QueueEvents` hands out as the stream has it."""


def _as_node_tells_it(event: Event) -> dict[str, Any]:
    """An event of ours in the words of Node's. Where a job comes from is compared apart."""
    if isinstance(event, UnknownEvent):
        return dict(event.fields)
    told = {field.name: getattr(event, field.name) for field in fields(event) if field.name in NODE_NAMES}
    return {NODE_NAMES[name]: str(value) if name in AS_TEXT else value for name, value in told.items()}


def _name(event: Event) -> str:
    return event.name if isinstance(event, UnknownEvent) else event.event_name


def _told(node: NodePeer) -> list[tuple[str, str, dict[str, Any]]]:
    """What Node has heard so far: where in the stream, what, its fields."""
    said = [event for event in node.events if "streamId" in event]
    return [
        (event["streamId"], event["event"], {name: value for name, value in event["fields"].items() if name != "prev"}) for event in said
    ]


def _origins(node: NodePeer) -> list[JobState | None]:
    """Where the jobs come from that Node has heard of."""
    return [state_of_key(event["fields"].get("prev", "")) for event in node.events if event["event"] in WITH_ORIGIN]


async def _let_toril_do_it(queue: Queue, url: str, prefix: str) -> None:
    async with Worker(queue, handle, WorkerOptions(stalled_interval="100ms")), FlowProducer(url=url, prefix=prefix) as flows:
        await queue.add("a", {"progress": {"n": 1}, "returns": {"é": [1]}}, job_id="mine")
        await queue.add("a", {}, job_id="mine")
        poor = await queue.add("b", {"fail": 9}, attempts=2, backoff=fixed("5ms"))
        await eventually(lambda: is_state(poor, "failed"))
        await flows.add(flow_job("parent", {"sum": 1}, queue="q", children=[flow_job("child", {"returns": 1}, queue="q")]))
        once = await queue.add("c", {}, delay="1h", deduplication=Deduplication("d"))
        await queue.add("c", {}, deduplication=Deduplication("d"))
        await queue.pause()
        await queue.remove(once.id)
        await queue.resume()
        await eventually(lambda: _is_drained(queue))
        await (await queue.add("nothing is behind it", {})).result(timeout="10s")
        await queue.clean("0s", state="failed")


async def _let_node_do_it(node: NodePeer, prefix: str, queue: Queue) -> None:
    async def add(name: str, data: dict[str, Any], **opts: object) -> Any:  # noqa: ANN401 -- a job as Node shows it
        return await node.ask("add", queue="q", name=name, data=data, opts=opts)

    await node.ask("work", queue="q", options={"stalledInterval": 100})
    await add("a", {"progress": {"n": 1}, "returns": {"é": [1]}}, jobId="mine")
    await add("a", {}, jobId="mine")
    poor = await queue.get_job((await add("b", {"fail": 9}, attempts=2, backoff=5))["id"])
    await eventually(lambda: is_state(poor, "failed"))
    child = {"name": "child", "data": {"returns": 1}, "queueName": "q", "prefix": prefix}
    await node.ask("addFlow", flow={"name": "parent", "data": {"sum": 1}, "queueName": "q", "prefix": prefix, "children": [child]})
    once = await add("c", {}, delay=3_600_000, deduplication={"id": "d"})
    await add("c", {}, deduplication={"id": "d"})
    await node.ask("remove", queue="q", id=once["id"])
    await eventually(lambda: _is_drained(queue))
    if node.library != "bullmq5":  # which moves the jobs that wait: 5 must not pause a queue that it shares
        await node.ask("pause", queue="q")
        await node.ask("resume", queue="q")
    await node.ask("waitUntilFinished", queue="q", id=(await add("nothing is behind it", {}))["id"], ttl=10_000)
    await node.ask("clean", queue="q", grace=0, limit=10, type="failed")
    await node.ask("stop", queue="q")


async def _is_drained(queue: Queue) -> None:
    counts = await queue.get_job_counts()
    assert {counts[state] for state in ("waiting", "active", "delayed", "prioritized", "waiting-children")} == {0}


@pytest.mark.parametrize("who", ["toril", "node"])
async def test_both_hear_every_kind_of_event_alike(
    each_node: NodePeer, queue: Queue, toril_server_url: str, toril_prefix: str, who: str, compared: Compared
) -> None:
    await each_node.ask("follow", queue="q")
    async with QueueEvents(queue, last_event_id="0") as events:
        forgotten = await queue.add("a", {"returns": "late"})
        assert await each_node.ask("claimAndForget", queue="q", lock=50) == forgotten.id  # its lock lapses: it will stall
        if who == "toril":
            await _let_toril_do_it(queue, toril_server_url, toril_prefix)
        else:
            await _let_node_do_it(each_node, toril_prefix, queue)
        last = await queue.add("the last one", {})
        heard: list[Event] = []
        async for event in events:
            heard.append(event)
            if isinstance(event, WaitingEvent) and event.job_id == last.id:
                break
    await each_node.heard(lambda said: said["event"] == "waiting" and said["fields"]["jobId"] == last.id)
    kinds = KINDS - {"paused", "resumed"} | {"debounced"} if (each_node.library, who) == ("bullmq5", "node") else KINDS
    assert {_name(event) for event in heard} == kinds
    assert _told(each_node) == [(event.stream_id, _name(event), _as_node_tells_it(event)) for event in heard]
    assert _origins(each_node) == [getattr(event, "previous", None) for event in heard if _name(event) in WITH_ORIGIN]
    compared.operations += len(heard)
