"""Flows: jobs that wait for others; added as a tree, or one by one at run time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from pydantic import BaseModel

from tests.proxy import Cut, Proxy, is_script, nth
from toril import (
    Deduplication,
    FlowProducer,
    InjectFlowProducer,
    Job,
    JobDef,
    JobOptions,
    Queue,
    QueueEvents,
    QueueModule,
    QueueOptions,
    WaitingChildrenError,
    Worker,
    flow_job,
)
from toril.di import GraphErrors
from toril.errors import AddOutcomeUnknownError, InvalidOptionError, InvalidPayloadError, JobNotFoundError, ParentError
from toril.testing import FakeClock, Test
from toril.wire.connection import Server


class Resize(BaseModel):
    width: int


RESIZE = JobDef[Resize, int]("resize", attempts=2)


@pytest.fixture
async def flows(server: Server, prefix: str, clock: FakeClock) -> AsyncIterator[FlowProducer]:
    async with FlowProducer(prefix=prefix, server=server, clock=clock) as flows:
        yield flows


@pytest.fixture
def videos(server: Server, prefix: str, clock: FakeClock) -> Queue:
    return Queue("videos", prefix=prefix, server=server, clock=clock)


@pytest.fixture
def images(server: Server, prefix: str, clock: FakeClock) -> Queue:
    return Queue("images", prefix=prefix, server=server, clock=clock)


async def double(job: Job) -> int:
    return int(job.data["width"]) * 2


async def add_up(job: Job) -> int:
    return sum((await job.get_children_values()).values())


async def run(queue: Queue, handler: object) -> None:
    async with Worker(queue, handler) as worker:  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # any of them
        await worker.wait_until_idle()


NO_FLAGS = dict.fromkeys(JobOptions.__dataclass_fields__)


async def test_a_parent_runs_when_its_children_have_and_reads_what_they_returned(flows: FlowProducer, videos: Queue, images: Queue) -> None:
    node = await flows.add(
        flow_job(
            "render",
            {"title": "x"},
            queue="videos",
            priority=3,
            children=[flow_job(RESIZE, Resize(width=width), queue="images") for width in (1, 2)],
        )
    )
    assert await node.job.get_state() == "waiting-children"
    assert [child.job.options.attempts for child in node.children] == [2, 2]
    assert len(await node.job.get_pending_children()) == 2
    await run(videos, add_up)
    assert await node.job.get_state() == "waiting-children"
    await run(images, double)
    assert await node.job.get_state() == "prioritized"
    await run(videos, add_up)
    await node.job.refresh()
    assert node.job.return_value == 6
    assert await node.job.get_children_values() == {
        f"{images.keys.qualified_name}:{child.job.id}": n for child, n in zip(node.children, (2, 4), strict=True)
    }


async def test_a_tree_of_three_levels_is_added_level_by_level_and_read_back(flows: FlowProducer, images: Queue) -> None:
    tree = flow_job(
        "root",
        queue="videos",
        children=[
            flow_job("a", queue="images", children=[flow_job("a1", queue="images"), flow_job("a2", queue="images")]),
            flow_job("b", queue="images"),
        ],
    )
    added = await flows.add(tree)
    assert [node.job.name for node in added] == ["root", "a", "a1", "a2", "b"]
    assert [job.name for job in await images.get_waiting()] == ["b", "a1", "a2"]
    found = await flows.get_flow(added.job.id, queue="videos")
    assert found is not None
    assert sorted(node.job.name for node in found) == ["a", "a1", "a2", "b", "root"]
    shallow = await flows.get_flow(added.job.id, queue="videos", depth=2, max_children=1)
    assert shallow is not None
    assert len(list(shallow)) == 2
    assert await flows.get_flow("nope", queue="videos") is None


@pytest.mark.parametrize(
    ("flag", "state_after_failure"),
    [
        ("fail_parent_on_failure", "waiting"),
        ("continue_parent_on_failure", "waiting"),
        ("ignore_dependency_on_failure", "waiting-children"),
        ("remove_dependency_on_failure", "waiting-children"),
        ("", "waiting-children"),
    ],
)
async def test_a_childs_failure_does_to_its_parent_what_its_flag_says(
    flows: FlowProducer, videos: Queue, images: Queue, flag: str, state_after_failure: str
) -> None:
    options = JobOptions.unchecked({**NO_FLAGS, **({flag: True} if flag else {})})
    bad = flow_job("bad", queue="images", options=options)
    node = await flows.add(flow_job("render", queue="videos", children=[bad, flow_job("good", queue="images", delay="1h")]))

    async def work(job: Job) -> None:
        raise ValueError("broken")

    await run(images, work)
    assert await node.job.get_state() == state_after_failure
    assert len(await node.job.get_pending_children()) == (1 if flag else 2)
    reasons = await node.job.get_ignored_failures()
    assert list(reasons.values()) == (["broken"] if flag in ("continue_parent_on_failure", "ignore_dependency_on_failure") else [])
    assert len(await node.job.get_failed_children()) == (1 if flag == "fail_parent_on_failure" else 0)
    if flag == "fail_parent_on_failure":
        await run(videos, add_up)
        await node.job.refresh()
        assert (await node.job.get_state(), node.job.failed_reason) == (
            "failed",
            f"child {images.keys.qualified_name}:{node.children[0].job.id} failed",
        )


async def test_children_are_added_at_run_time_and_waited_for(videos: Queue, images: Queue) -> None:
    runs: list[int] = []

    async def handle(job: Job) -> int:
        step = job.data["step"]
        runs.append(step)
        if step == 1:
            await images.add("resize", {"width": 4}, parent=job)
            await job.update_data({"step": 2})
            raise WaitingChildrenError
        return sum((await job.get_children_values()).values())

    job = await videos.add("render", {"step": 1})
    await run(videos, handle)
    assert (await job.get_state(), runs) == ("waiting-children", [1])
    await run(images, double)
    await run(videos, handle)
    await job.refresh()
    assert (runs, job.return_value, job.attempts_made, job.attempts_started) == ([1, 2], 8, 1, 2)


async def test_who_waits_for_children_and_has_none_runs_again_at_once(videos: Queue) -> None:
    runs: list[int] = []

    async def handle(job: Job) -> None:
        runs.append(job.attempts_started)
        if len(runs) == 1:
            raise WaitingChildrenError

    job = await videos.add("render")
    await run(videos, handle)
    assert (runs, await job.get_state()) == ([1, 2], "completed")


async def test_a_parent_that_completes_too_early_fails(videos: Queue, images: Queue) -> None:
    async def handle(job: Job) -> None:
        await images.add("resize", {"width": 4}, parent=job)

    job = await videos.add("render")
    await run(videos, handle)
    await job.refresh()
    assert await job.get_state() == "failed"
    assert "pending children" in (job.failed_reason or "")


async def test_a_child_of_a_parent_that_is_gone_is_refused_and_nothing_is_added(videos: Queue, images: Queue) -> None:
    parent = await videos.add("render")
    await parent.remove()
    drafts = [images.job("a"), images.job("b", parent=parent)]
    with pytest.raises(ParentError) as caught:
        await images.add_many(drafts)
    assert (caught.value.parent_key, caught.value.place) == (f"{videos.keys.qualified_name}:{parent.id}", 1)
    assert await images.count() == 0


async def test_a_removed_child_is_no_longer_waited_for(flows: FlowProducer, images: Queue) -> None:
    node = await flows.add(flow_job("render", queue="videos", children=[flow_job("a", queue="images"), flow_job("b", queue="images")]))
    await node.children[0].job.remove()
    assert await node.job.get_state() == "waiting-children"
    assert await images.commands.drop_child_link(node.children[1].job.id)
    assert await node.job.get_state() == "waiting"
    assert not await images.commands.drop_child_link(node.children[1].job.id)
    with pytest.raises(JobNotFoundError):
        await images.commands.drop_child_link("nope")


async def test_a_flow_whose_reply_is_lost_is_not_added_twice(toril_server_url: str, prefix: str) -> None:
    async with Proxy(toril_server_url) as proxy, FlowProducer(prefix=prefix, url=proxy.url) as flows:
        proxy.decide = nth(1, is_script("add_flow"), Cut.AFTER)
        with pytest.raises(AddOutcomeUnknownError):
            await flows.add(flow_job("render", queue="videos", children=[flow_job("a", queue="images")]))
        async with Queue("images", prefix=prefix, url=toril_server_url) as images:
            assert await images.get_waiting_count() == 1


async def test_parents_whose_last_children_are_drained_run_in_bullmqs_order(
    flows: FlowProducer, images: Queue, prefix: str, server: Server
) -> None:
    """Delayed children go before prioritized ones."""
    late = await flows.add(flow_job("late", queue="videos", children=[flow_job("a", queue="images", priority=1)]))
    early = await flows.add(flow_job("early", queue="videos", children=[flow_job("a", queue="images", delay="1h")]))
    await images.drain(delayed=True)
    async with Queue("videos", prefix=prefix, server=server) as videos:
        assert [job.id for job in await videos.get_waiting()] == [late.job.id, early.job.id]


@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER, Cut.LATE])
async def test_an_idempotent_flow_is_added_again_and_only_once(toril_server_url: str, prefix: str, cut: Cut) -> None:
    async with Proxy(toril_server_url) as proxy, FlowProducer(prefix=prefix, url=proxy.url) as flows:
        proxy.decide = nth(1, is_script("add_flow"), cut)
        node = await flows.add(flow_job("render", queue="videos", children=[flow_job("a", queue="images")]), idempotent=True)
        async with Queue("images", prefix=prefix, url=toril_server_url) as images, QueueEvents(images, last_event_id="0") as events:
            [child] = await images.get_waiting()
            assert child.id == node.children[0].job.id
            await child.remove()  # as a worker would that keeps nothing
            await proxy.deliver_late()
            assert await images.get_waiting_count() == 0
            heard = [(await anext(events)).event_name for _ in range(3)]
        assert heard == ["added", "waiting", "removed"]


async def test_what_cant_be_a_flow_is_refused_before_anything_is_sent(flows: FlowProducer, images: Queue) -> None:
    once = Deduplication("once")
    with pytest.raises(InvalidOptionError, match="deduplication"):
        await flows.add(flow_job("render", queue="videos", children=[flow_job("a", queue="images", deduplication=once)]))
    with pytest.raises(InvalidPayloadError):
        await flows.add(flow_job("render", queue="videos", children=[flow_job(RESIZE, {"width": "wide"}, queue="images")]))
    with pytest.raises(InvalidOptionError, match="excludes"):
        flow_job("a", queue="images", fail_parent_on_failure=True, ignore_dependency_on_failure=True)
    with pytest.raises(InvalidOptionError, match="a job with a parent"):
        await images.add("a", parent=await images.add("p"), deduplication=once)
    assert await images.count() == 1


# ── in modules ────────────────────────────────────────────────────────────────────────────────────────────────


class Renderer:
    def __init__(self, flows: Annotated[FlowProducer, InjectFlowProducer("flows")]) -> None:
        self.flows = flows


async def test_a_registered_producer_knows_the_registered_queues() -> None:
    imports = [
        QueueModule.register_queue(QueueOptions("videos", default_job_options=JobOptions(attempts=7)), "images"),
        QueueModule.register_flow_producer("flows"),
    ]
    async with await Test.create_testing_module(imports=imports, providers=[Renderer]).compile() as t:
        node = await t.get(Renderer).flows.add(flow_job("render", queue="videos", children=[flow_job("a", queue="images")]))
        assert node.job.options.attempts == 7
        assert json.loads((await t.queue("images").get_waiting())[0].record.opts)["parent"]["id"] == node.job.id


async def test_a_producer_that_nobody_registers_is_found_at_start() -> None:
    imports = [QueueModule.register_flow_producer("flow")]
    with pytest.raises(GraphErrors, match="did you mean 'flow'"):
        await Test.create_testing_module(imports=imports, providers=[Renderer]).compile()
