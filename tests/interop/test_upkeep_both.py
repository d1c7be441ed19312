"""What keeps a queue in order leaves the same keys and events here as in Node; each side does it to a queue of its own."""

from __future__ import annotations

import json
import re
from typing import cast

import pytest

from tests.interop.peer import NodePeer
from tests.snapshot import read_all, show
from toril import FlowProducer, Queue, QueueEvents, flow_job
from toril.queues.events import UnknownEvent
from toril.wire.connection import Server

OURS, THEIRS = "ours", "theirs"


async def _left(server: Server, prefix: str, queue: str) -> tuple[dict[str, str], list[str]]:
    """All keys of one of the two queues and its events, told without its name and without times (and `meta`, which Node always writes)."""
    keys, events = await read_all(server, prefix)
    base = f"bull:{queue}:"
    told = {
        name.removeprefix(base): re.sub(r"\d{13,}", "#", json.dumps(key["value"], sort_keys=True)).replace(f"bull:{queue}", "queue")
        for name, key in keys.items()
        if name.startswith(base) and name != f"{base}meta"
    }
    return told, [show(entry) for entry in events.get(f"{base}events", [])]


@pytest.fixture
async def queues(server: Server, prefix: str) -> dict[str, Queue]:
    return {name: await Queue(name, prefix=prefix, server=server).open() for name in (OURS, THEIRS)}


async def _families(queues: dict[str, Queue], server: Server, prefix: str) -> None:
    """The same flow in both queues: a parent, and children that run, failed, wait, and wait for a child of their own."""
    async with FlowProducer(prefix=prefix, server=server) as flows:
        for name, queue in queues.items():
            grandchild = flow_job("grandchild", {}, queue=name, job_id="g")
            children = [flow_job("child", {}, queue=name, job_id=f"c{number}") for number in range(3)]
            children.append(flow_job("child", {}, queue=name, job_id="c3", children=[grandchild]))
            await flows.add(flow_job("parent", {}, queue=name, job_id="parent", children=children))
            await server.commands.call("SET", queue.keys.lock("c0"), "token")
            await server.commands.call("LREM", queue.keys.state("wait"), 1, "c1")
            await server.commands.call("ZADD", queue.keys.state("failed"), 1, "c1")


async def test_unprocessed_children_are_removed_alike(node: NodePeer, queues: dict[str, Queue], server: Server, prefix: str) -> None:
    await _families(queues, server, prefix)
    await (await queues[OURS].get_job("parent")).remove_unprocessed_children()
    await node.ask("onJob", queue=THEIRS, id="parent", method="removeUnprocessedChildren", arguments=[])
    assert await _left(server, prefix, OURS) == await _left(server, prefix, THEIRS)


async def test_a_child_is_set_free_alike(node: NodePeer, queues: dict[str, Queue], server: Server, prefix: str) -> None:
    await _families(queues, server, prefix)
    await (await queues[OURS].get_job("g")).remove_child_dependency()
    await node.ask("onJob", queue=THEIRS, id="g", method="removeChildDependency", arguments=[])
    assert await _left(server, prefix, OURS) == await _left(server, prefix, THEIRS)


async def test_orphans_are_removed_alike(node: NodePeer, queues: dict[str, Queue], server: Server, prefix: str) -> None:
    await _families(queues, server, prefix)
    for queue in queues.values():
        await queue.add_many([queue.job("n", job_id=job_id) for job_id in ("kept", "lost")])
        job = await queue.get_job("lost")
        await job.log("row")
        await server.commands.call("LREM", queue.keys.state("wait"), 1, "lost")
    assert await queues[OURS].remove_orphaned_jobs() == 1
    assert await node.ask("onQueue", queue=THEIRS, method="removeOrphanedJobs", arguments=[]) == 1
    assert await _left(server, prefix, OURS) == await _left(server, prefix, THEIRS)


async def test_children_are_counted_and_paged_alike(node: NodePeer, queues: dict[str, Queue], server: Server, prefix: str) -> None:
    await _families(queues, server, prefix)
    parent = await queues[OURS].get_job("parent")
    theirs = await node.ask("onJob", queue=OURS, id="parent", method="getDependenciesCount", arguments=[])
    ours = await parent.get_dependencies_count()
    assert (ours.processed, ours.unprocessed, ours.ignored, ours.failed) == tuple(
        theirs[kind] for kind in ("processed", "unprocessed", "ignored", "failed")
    )
    page = await node.ask(
        "onJob", queue=OURS, id="parent", method="getDependencies", arguments=[{"unprocessed": {"cursor": 0, "count": 10}}]
    )
    assert sorted(page["unprocessed"]) == sorted((await parent.get_dependencies("unprocessed")).children)


async def test_events_of_ones_own_are_heard_on_the_other_side(node: NodePeer, queues: dict[str, Queue]) -> None:
    await node.ask("listen", queue=OURS, name="order-paid")
    await queues[OURS].publish_event("order-paid", {"order": "7"})
    (heard,) = await node.heard(lambda event: event["event"] == "order-paid")
    assert heard["fields"]["order"] == "7"
    async with QueueEvents(queues[OURS]) as events:
        await node.ask("publish", queue=OURS, event={"eventName": "order-sent", "order": "8"})
        event = cast("UnknownEvent", await anext(events))
    assert (event.name, event.fields) == ("order-sent", {"order": "8"})
