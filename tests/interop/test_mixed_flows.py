"""Flows whose jobs run on both sides: whoever adds them, whoever runs the children, whatever a child's failure means."""

from __future__ import annotations

from collections.abc import AsyncIterator
from operator import itemgetter
from typing import Any, Final

import pytest

from tests.compared import Compared
from tests.interop.handling import handle, is_state
from tests.interop.peer import NodePeer
from toril import FlowJob, FlowProducer, Job, JobNode, JobOptions, Queue, Worker, flow_job
from toril.testing import eventually

FLAGS: Final[dict[str, JobOptions]] = {
    "failParentOnFailure": JobOptions(fail_parent_on_failure=True),
    "continueParentOnFailure": JobOptions(continue_parent_on_failure=True),
    "ignoreDependencyOnFailure": JobOptions(ignore_dependency_on_failure=True),
    "removeDependencyOnFailure": JobOptions(remove_dependency_on_failure=True),
    "": JobOptions(),
}
BY_TORIL, BY_NODE = "here", "there"
"""Queues, by whose worker runs their jobs."""


@pytest.fixture
async def flows(toril_server_url: str, toril_prefix: str) -> AsyncIterator[FlowProducer]:
    async with FlowProducer(url=toril_server_url, prefix=toril_prefix) as flows:
        yield flows


@pytest.fixture
async def here(toril_server_url: str, toril_prefix: str, each_node: NodePeer) -> AsyncIterator[Queue]:
    """A queue whose jobs run here, while Node runs those of `there`."""
    await each_node.ask("work", queue=BY_NODE, options={})
    async with Queue(BY_TORIL, prefix=toril_prefix, url=toril_server_url) as queue, Worker(queue, handle):
        yield queue


@pytest.fixture
async def there(toril_server_url: str, toril_prefix: str) -> AsyncIterator[Queue]:
    async with Queue(BY_NODE, prefix=toril_prefix, url=toril_server_url) as queue:
        yield queue


def _as_node(flow: FlowJob, prefix: str, opts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The same flow for Node's producer; `opts` by the names of the jobs."""
    draft = flow.draft
    children = [_as_node(child, prefix, opts) for child in flow.children]
    own = {"name": draft.name, "queueName": flow.queue, "prefix": prefix, "data": draft.data, "opts": opts.get(draft.name, {})}
    return own | ({"children": children} if children else {})


async def _add(flow: FlowJob, who: str, flows: FlowProducer, node: NodePeer, opts: dict[str, dict[str, Any]] | None = None) -> str:
    """Let one side add it; the id of its root."""
    if who == "toril":
        return (await flows.add(flow)).job.id
    return str(await node.ask("addFlow", flow=_as_node(flow, flows.prefix, opts or {})))


def _names(node: JobNode) -> dict[str, Any]:
    return {"name": node.job.name, "children": [_names(child) for child in sorted(node.children, key=lambda child: child.job.name)]}


@pytest.mark.parametrize("who", ["toril", "node"])
async def test_a_tree_of_three_levels_runs_on_both_sides(
    each_node: NodePeer, here: Queue, there: Queue, flows: FlowProducer, who: str, compared: Compared
) -> None:
    def half(name: str, queue: str) -> FlowJob:
        leaves = [flow_job(f"{name}{n}", {"returns": n}, queue=leaf) for n, leaf in ((1, BY_TORIL), (2, BY_NODE), (3, BY_TORIL))]
        return flow_job(name, {"sum": 1}, queue=queue, children=leaves)

    root_id = await _add(
        flow_job("root", {"sum": 1}, queue=BY_NODE, children=[half("a", BY_TORIL), half("b", BY_NODE)]), who, flows, each_node
    )
    root = await there.get_job(root_id)
    assert await root.result(timeout="20s") == 12
    tree = await flows.get_flow(root_id, queue=BY_NODE)
    assert tree is not None
    theirs = await each_node.ask("getFlow", queue=BY_NODE, id=root_id)
    for level in (theirs, *theirs["children"]):
        level["children"].sort(key=itemgetter("name"))
    assert _names(tree) == theirs
    assert [child["name"] for child in theirs["children"]] == ["a", "b"]
    assert (await each_node.ask("children", queue=BY_NODE, id=root_id))["values"] == await root.get_children_values()
    compared.jobs += 9


async def test_a_handler_of_either_side_waits_for_a_child_that_it_gives_the_other_one(
    each_node: NodePeer, here: Queue, there: Queue, compared: Compared
) -> None:
    by_toril = await here.add("parent", {"spawn": BY_NODE, "sum": 1})
    by_node = await there.add("parent", {"spawn": BY_TORIL, "sum": 1})
    for parent, child_queue in ((by_toril, there), (by_node, here)):
        assert await parent.result(timeout="20s") == 7
        await parent.refresh()
        assert parent.attempts_made == 1  # waiting for it is no attempt
        assert [key.startswith(f"{child_queue.prefix}:{child_queue.name}:") for key in await parent.get_children_values()] == [True]
    compared.jobs += 4


@pytest.mark.parametrize("fails", [BY_TORIL, BY_NODE])
@pytest.mark.parametrize("who", ["toril", "node"])
async def test_a_child_that_fails_does_to_its_parent_what_its_flag_says(
    each_node: NodePeer, here: Queue, there: Queue, flows: FlowProducer, who: str, fails: str, compared: Compared
) -> None:
    above = there if fails == BY_TORIL else here
    parents: dict[str, Job] = {}
    for flag, options in FLAGS.items():
        children = [flow_job("bad", {"giveUp": True}, queue=fails, options=options)]
        if flag != "continueParentOnFailure":  # that parent goes on at once, and couldn't complete while another child is pending
            children.append(flow_job("good", {"returns": 5}, queue=above.name))
        flow = flow_job("parent", {"returns": "went on"}, queue=above.name, children=children)
        parent_id = await _add(flow, who, flows, each_node, {"bad": {flag: True} if flag else {}})
        parents[flag] = await above.get_job(parent_id)
    bad = f"{flows.prefix}:{fails}:"
    for flag, parent in parents.items():
        match flag:
            case "failParentOnFailure":
                await eventually(lambda: is_state(parent, "failed"))  # noqa: B023 -- it is awaited here
            case "":
                await eventually(lambda: _waits_for(parent, bad))  # noqa: B023
            case _:
                await eventually(lambda: is_state(parent, "completed"))  # noqa: B023
        await parent.refresh()
        told = await each_node.ask("get", queue=above.name, id=parent.id)
        assert (flag, parent.failed_reason, parent.return_value) == (flag, told.get("failedReason"), told["returnvalue"])
        assert (flag, parent.return_value) == (flag, None if flag in {"failParentOnFailure", ""} else "went on")
        if flag == "failParentOnFailure":
            assert (parent.failed_reason or "").startswith(f"child {bad}")
        ignored = await parent.get_ignored_failures()
        tells = flag in {"continueParentOnFailure", "ignoreDependencyOnFailure"}
        assert (flag, [*ignored.values()]) == (flag, ["gives up"] if tells else [])
        assert (await each_node.ask("children", queue=above.name, id=parent.id))["ignored"] == ignored
        compared.jobs += 3


async def _waits_for(parent: Job, child: str) -> None:
    """Its other child has ended, and it waits for this one."""
    assert [key.startswith(child) for key in await parent.get_pending_children()] == [True]
    assert await parent.get_state() == "waiting-children"
