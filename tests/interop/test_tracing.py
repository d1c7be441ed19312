"""One trace through Node (bullmq-otel) and Toril: whoever runs a job goes on with the trace of whoever has added it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.interop.peer import NodePeer
from tests.spans import CONSUMER, PRODUCER, Seen, Spans, collected
from toril import Job, Queue, ScheduleRule, Worker, WorkerOptions
from toril.testing import eventually


@pytest.fixture
def spans() -> Iterator[Spans]:
    with collected() as spans:
        yield spans


@pytest.fixture
async def traced(node_is_there: None, toril_server_url: str, toril_prefix: str) -> AsyncIterator[NodePeer]:
    async with NodePeer(toril_server_url, toril_prefix, "traced.mjs") as peer:
        yield peer


async def node_spans(peer: NodePeer, name: str) -> list[Seen]:
    return [Seen(**span) for span in await peer.ask("spans") if span["name"] == name]


async def only(peer: NodePeer, name: str) -> Seen:
    async def probe() -> Seen:
        (span,) = await node_spans(peer, name)
        return span

    return await eventually(probe)


async def test_a_trace_goes_from_node_through_toril_back_to_node(traced: NodePeer, queue: Queue, spans: Spans) -> None:
    back = Queue("back", prefix=queue.prefix, server=queue.server)

    async def handle(job: Job) -> None:
        await back.add("answer", {})

    await traced.ask("work", queue="back")
    job_id = await traced.ask("request", queue="q", name="question", data={})
    async with Worker(queue, {"question": handle}, WorkerOptions()):
        await traced.heard(lambda said: said["event"] == "ran")
        await eventually(lambda: spans.only("process q"))
    request, added = await only(traced, "request"), await only(traced, "add q.question")
    processed, answered = spans.only("process q"), spans.only("add back.answer")
    processed_back = await only(traced, "process back")
    assert {span.trace for span in (request, added, processed, answered, processed_back)} == {request.trace}
    assert [added.parent, processed.parent, answered.parent, processed_back.parent] == [request.id, added.id, processed.id, answered.id]
    assert processed.attributes["bullmq.job.id"] == job_id


async def test_a_trace_goes_from_toril_through_node_back_to_toril(traced: NodePeer, queue: Queue, spans: Spans) -> None:
    there = Queue("there", prefix=queue.prefix, server=queue.server)
    await traced.ask("work", queue="there")

    async def handle(job: Job) -> None: ...

    async with Worker(queue, {"next": handle}, WorkerOptions()):
        await there.add("question", {"then": "q"})
        await eventually(lambda: spans.only("process q"))
    added, processed_there = spans.only("add there.question"), await only(traced, "process there")
    added_there, processed = await only(traced, "add q.next"), spans.only("process q")
    assert {span.trace for span in (processed_there, added_there, processed)} == {added.trace}
    assert [processed_there.parent, added_there.parent, processed.parent] == [added.id, processed_there.id, added_there.id]


async def test_runs_of_a_scheduler_of_node_are_traces_of_their_own_here(traced: NodePeer, queue: Queue, spans: Spans) -> None:
    await traced.ask("schedule", queue="q", id="ticks", every=100, name="tick")

    async def handle(job: Job) -> None: ...

    async with Worker(queue, {"tick": handle}, WorkerOptions()):
        await eventually(lambda: _is_at_least(spans.named("process q"), 3))
    upserted, runs = await only(traced, "add q.tick"), spans.named("process q")
    assert {(run.parent, *run.links) for run in runs} == {(None, upserted.id)}
    assert len({run.trace for run in runs} - {upserted.trace}) == len(runs)


async def test_a_scheduler_from_here_is_traced_by_node_as_its_own(traced: NodePeer, queue: Queue, spans: Spans) -> None:
    await queue.job_schedulers.upsert("ticks", ScheduleRule(every="100ms"), name="tick")
    await traced.ask("work", queue="q")

    async def have_run() -> list[Seen]:
        found = await node_spans(traced, "process q")
        _is_at_least(found, 2)
        return found

    upserted, runs = spans.only("add q.tick"), await eventually(have_run)
    assert {(run.trace, run.parent) for run in runs} == {(upserted.trace, upserted.id)}


async def test_both_sides_call_the_same_things_by_the_same_names(traced: NodePeer, queue: Queue, spans: Spans) -> None:
    async def handle(job: Job) -> None: ...

    await traced.ask("request", queue="q", name="n", data={})
    async with Worker(queue, handle, WorkerOptions()):
        await queue.add("n", {})
        await eventually(lambda: _count(spans.named("process q"), 2))
    await traced.ask("work", queue="other")
    await traced.ask("request", queue="other", name="n", data={})
    theirs = {span.name: span for span in (await only(traced, "add q.n"), await only(traced, "process other"))}
    ours = {"add q.n": spans.only("add q.n"), "process other": spans.named("process q")[0]}
    timed = {"bullmq.job.attempt_finished_timestamp", "bullmq.job.processed.timestamp"}  # a span has times of its own
    for name, span in theirs.items():
        assert span.kind == ours[name].kind == (PRODUCER if name.startswith("add") else CONSUMER)
        assert span.attributes.keys() - timed <= ours[name].attributes.keys()
        assert span.events == ours[name].events


def _is_at_least(found: list[Seen], wanted: int) -> None:
    assert len(found) >= wanted


def _count(found: list[Seen], wanted: int) -> None:
    assert len(found) == wanted
