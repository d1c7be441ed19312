"""Many children: paging, counting, looking at a part of a flow; removing children and links to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.bench import T0, Bench, done, gone_wrong
from toril import ChildrenCounts, FlowProducer, Job, Queue, flow_job
from toril.errors import InvalidOptionError, JobNotFoundError, ParentError
from toril.queues.children import ChildKind
from toril.queues.options import JobOptionFields, JobOptions
from toril.testing import FakeClock
from toril.wire.connection import Server


@pytest.fixture
async def flows(server: Server, prefix: str) -> AsyncIterator[FlowProducer]:
    async with FlowProducer(prefix=prefix, server=server, clock=FakeClock(T0)) as flows:
        yield flows


async def with_children(flows: FlowProducer, queue: Queue, count: int) -> Job:
    """A job that waits for so many others, `c0`, `c1` and so on."""
    children = [flow_job("child", {}, queue="q", job_id=f"c{number}") for number in range(count)]
    tree = await flows.add(flow_job("parent", {}, queue="q", job_id="parent", children=children))
    assert [node.job.id for node in tree.children] == [f"c{number}" for number in range(count)]
    return await queue.get_job("parent")


async def all_pages(job: Job, kind: ChildKind) -> tuple[dict[str, Any], int]:
    """The children of one kind, and in how many pages they came."""
    found: dict[str, Any] = {}
    pages, cursor = 0, -1
    while cursor:
        page = await job.get_dependencies(kind, cursor=max(cursor, 0), count=100)
        found |= page.children
        pages, cursor = pages + 1, page.cursor
    return found, pages


async def test_many_children_come_page_by_page_and_none_is_left_out(flows: FlowProducer, queue: Queue) -> None:
    parent = await with_children(flows, queue, 1_000)
    found, pages = await all_pages(parent, "unprocessed")
    assert found == dict.fromkeys(f"{queue.keys.base}c{number}" for number in range(1_000))
    assert pages > 5
    assert await parent.get_dependencies_count() == ChildrenCounts(processed=0, unprocessed=1_000, ignored=0, failed=0)


async def test_each_kind_of_child_is_listed_and_counted_with_what_is_known_of_it(flows: FlowProducer, queue: Queue, bench: Bench) -> None:
    flags: list[JobOptionFields] = [{}, {"ignore_dependency_on_failure": True}, {"fail_parent_on_failure": True}, {}]
    options = [JobOptions(job_id=f"c{number}").merged_over(JobOptions(**said)) for number, said in enumerate(flags)]
    children = [flow_job("child", {}, queue="q", options=each) for each in options]
    await flows.add(flow_job("parent", {}, queue="q", job_id="parent", children=children))
    await bench.claim(3)
    await bench.turn(done("c0"), gone_wrong("c1", "t:2"), gone_wrong("c2", "t:3"))
    parent = await queue.get_job("parent")
    base = queue.keys.base
    assert (await parent.get_dependencies("processed")).children == {f"{base}c0": 1}
    assert (await parent.get_dependencies("ignored")).children == {f"{base}c1": "boom"} == await parent.get_ignored_failures()
    assert (await parent.get_dependencies("failed")).children == {f"{base}c2": None}
    assert (await parent.get_dependencies("unprocessed")).children == {f"{base}c3": None}
    assert await parent.get_dependencies_count() == ChildrenCounts(processed=1, unprocessed=1, ignored=1, failed=1)


async def test_pages_that_make_no_sense_are_refused(queue: Queue) -> None:
    job = await queue.add("n")
    with pytest.raises(InvalidOptionError, match="processed, unprocessed, ignored, failed"):
        await job.get_dependencies("pending")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose
    with pytest.raises(InvalidOptionError, match="count"):
        await job.get_dependencies("failed", count=0)
    with pytest.raises(InvalidOptionError, match="cursor"):
        await job.get_dependencies("failed", cursor=-1)
    assert (await job.get_dependencies("failed")).children == {}


async def test_a_flow_is_read_as_deep_and_as_wide_as_asked(flows: FlowProducer) -> None:
    leaves = [flow_job("leaf", {}, queue="q") for _ in range(30)]
    middle = [flow_job("middle", {}, queue="q", children=leaves), flow_job("middle", {}, queue="q")]
    root = await flows.add(flow_job("root", {}, queue="q", children=middle))

    async def shape(*, depth: int = 10, max_children: int = 20) -> list[str]:
        tree = await flows.get_flow(root.job.id, queue="q", depth=depth, max_children=max_children)
        assert tree is not None
        return sorted(node.job.name for node in tree)

    assert await shape(depth=1) == ["root"]
    assert await shape(depth=2) == ["middle", "middle", "root"]
    assert await shape() == sorted(["leaf"] * 20 + ["middle", "middle", "root"])
    assert await shape(max_children=1) in (["leaf", "middle", "root"], ["middle", "root"])
    assert await shape(max_children=30) == sorted(["leaf"] * 30 + ["middle", "middle", "root"])
    for bounds in ({"depth": 0}, {"max_children": 0}):
        with pytest.raises(InvalidOptionError, match="1 or more"):
            await shape(**bounds)


async def test_children_with_colons_in_their_ids_are_found_in_a_flow(flows: FlowProducer) -> None:
    child = flow_job("child", {}, queue="q", job_id="a:b:c")
    root = await flows.add(flow_job("root", {}, queue="q", children=[child]))
    tree = await flows.get_flow(root.job.id, queue="q")
    assert tree is not None
    assert [node.job.id for node in tree] == [root.job.id, "a:b:c"]


async def test_children_that_have_not_ended_are_removed_but_for_those_that_run_or_failed(
    flows: FlowProducer, queue: Queue, bench: Bench
) -> None:
    grandchild = flow_job("grandchild", {}, queue="q", job_id="g")
    children = [flow_job("child", {}, queue="q", job_id=f"c{number}") for number in range(4)]
    await flows.add(
        flow_job(
            "parent", {}, queue="q", job_id="parent", children=[*children, flow_job("c", {}, queue="q", job_id="c4", children=[grandchild])]
        )
    )
    assert await bench.claim(3) == ["c0", "c1", "c2"]
    await bench.turn(done("c0"), gone_wrong("c1", "t:2"))
    parent = await queue.get_job("parent")
    assert await parent.remove_unprocessed_children() == 3
    kept = {job_id: await queue.find_state(job_id) for job_id in ("c0", "c1", "c2", "c3", "c4", "g", "parent")}
    assert kept == {
        "c0": "completed", "c1": "failed", "c2": "active", "c3": None, "c4": None, "g": None, "parent": "waiting-children",
    }  # fmt: skip
    assert {event for event in await bench.events() if event.startswith("removed")} == {
        "removed c3 prev=wait", "removed c4 prev=wait", "removed g prev=wait",
    }  # fmt: skip
    assert await queue.find_job("g") is None


async def test_the_links_to_children_that_are_removed_go_from_the_top_down(flows: FlowProducer, queue: Queue, bench: Bench) -> None:
    middle = flow_job("middle", {}, queue="q", job_id="middle", children=[flow_job("leaf", {}, queue="q", job_id="leaf")])
    await flows.add(flow_job("root", {}, queue="q", job_id="root", children=[middle]))
    assert await (await queue.get_job("root")).remove_unprocessed_children() == 2
    told = [event for event in await bench.events() if event.startswith("waiting ") and "prev" in event]
    assert told == ["waiting root prev=waiting-children", "waiting middle prev=waiting-children"]  # BullMQ's order


async def test_a_parent_runs_when_the_last_child_that_it_waits_for_is_removed(flows: FlowProducer, queue: Queue) -> None:
    parent = await with_children(flows, queue, 3)
    assert await parent.remove_unprocessed_children() == 3
    assert await parent.get_state() == "waiting"
    assert await queue.get_job_counts("waiting", "waiting-children") == {"waiting": 1, "waiting-children": 0}
    assert await parent.remove_unprocessed_children() == 0
    await parent.remove()
    with pytest.raises(JobNotFoundError):
        await parent.remove_unprocessed_children()


async def test_a_child_is_set_free_from_its_parent_and_goes_on(flows: FlowProducer, queue: Queue) -> None:
    parent = await with_children(flows, queue, 1)
    child = await queue.get_job("c0")
    assert await child.remove_child_dependency() is True
    assert await parent.get_state() == "waiting"
    await child.refresh()
    assert (child.parent_key, await child.get_state()) == (None, "waiting")
    assert await child.remove_child_dependency() is False


async def test_a_child_that_its_parent_has_heard_of_stays_its_child(flows: FlowProducer, queue: Queue, bench: Bench) -> None:
    await with_children(flows, queue, 2)
    assert await bench.claim(1) == ["c0"]
    await bench.turn(done("c0"))
    child = await queue.get_job("c0")
    assert await child.remove_child_dependency() is False
    await child.refresh()
    assert child.parent_key == queue.keys.job("parent")


async def test_a_child_whose_parent_is_gone_says_so(flows: FlowProducer, queue: Queue, bench: Bench) -> None:
    await with_children(flows, queue, 1)
    await bench.raw("DEL", queue.keys.job("parent"))
    with pytest.raises(ParentError, match="doesn't exist"):
        await (await queue.get_job("c0")).remove_child_dependency()
