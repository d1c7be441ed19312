"""Jobs in traces of OpenTelemetry. That a trace goes on in Node, and comes back, is in `interop/test_tracing.py`."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from opentelemetry import trace

from tests.server.traced_functions import where
from tests.spans import CONSUMER, PRODUCER, Spans, collected
from toril import (
    FlowProducer,
    Job,
    JobOptions,
    Queue,
    ScheduleRule,
    Worker,
    WorkerOptions,
    configure_logging,
    fixed,
    flow_job,
    get_logger,
    handler,
    trace_jobs,
)
from toril.errors import MissingExtraError, ServerUnreachableError
from toril.telemetry.hooks import HOOKS
from toril.testing import FakeClock, eventually
from toril.wire.connection import Server


@pytest.fixture
def spans() -> Iterator[Spans]:
    with collected() as spans:
        yield spans


@contextmanager
def untraced() -> Generator[None]:
    """As a process that doesn't trace."""
    tracer, HOOKS.tracer = HOOKS.tracer, None
    yield
    HOOKS.tracer = tracer


async def drain(queue: Queue, handlers: Any, **options: Any) -> None:  # noqa: ANN401 -- whatever a worker takes
    async with Worker(queue, handlers, WorkerOptions(**options)) as worker:
        await worker.wait_until_idle()


async def ok(job: Job) -> None: ...


async def test_an_add_and_its_attempt_are_one_trace(queue: Queue, spans: Spans) -> None:
    job = await queue.add("n", {"a": 1})

    async def handle(job: Job) -> None:
        with spans.provider.get_tracer("app").start_as_current_span("inside"):
            await asyncio.sleep(0)

    await drain(queue, {"n": handle})
    added, inside, processed = spans.only("add q.n"), spans.only("inside"), spans.only("process q")
    assert (added.kind, added.parent, processed.kind) == (PRODUCER, None, CONSUMER)
    assert [processed.parent, inside.parent] == [added.id, processed.id]
    assert {added.trace, inside.trace, processed.trace} == {added.trace}
    assert added.attributes["bullmq.job.id"] == processed.attributes["messaging.message.id"] == job.id
    assert processed.attributes["toril.outcome"] == "completed"


async def test_a_plain_function_in_its_thread_belongs_to_the_attempt(queue: Queue, spans: Spans) -> None:
    seen: list[str] = []

    def handle(job: Job) -> None:
        seen.append(trace.format_span_id(trace.get_current_span().get_span_context().span_id))

    await queue.add("n")
    await drain(queue, {"n": handle})
    assert seen == [spans.only("process q").id]


async def test_what_runs_in_a_child_process_belongs_to_the_attempt(server: Server, prefix: str, spans: Spans) -> None:
    async with Queue("q", prefix=prefix, server=server) as queue:  # on the real clock: a process is started
        job = await queue.add("n")
        async with Worker(queue, [handler(where, "n", executor="process")]):
            found = await job.result(timeout="20s")
    processed = spans.only("process q")
    assert found == [processed.trace, processed.id]


async def test_each_attempt_has_a_span_and_tells_why_it_failed(queue: Queue, spans: Spans) -> None:
    async def bad(job: Job) -> None:
        raise ValueError("can't reach redis://:s3cret-word@db:6379")

    await queue.add("bad", attempts=2, backoff=fixed("0s"))
    await drain(queue, {"bad": bad})
    first, second = spans.named("process q")
    assert [span.attributes["toril.outcome"] for span in (first, second)] == ["retried", "failed"]
    assert [span.attributes["bullmq.job.attempts.made"] for span in (first, second)] == [1, 2]
    assert first.error == second.error == "can't reach redis://:***@db:6379"
    assert first.parent == second.parent == spans.only("add q.bad").id
    assert first.events == ["job failed"]


async def test_jobs_of_one_call_and_of_one_flow_share_a_parent(queue: Queue, server: Server, spans: Spans, clock: FakeClock) -> None:
    await queue.add_many([queue.job("a"), queue.job("b")])
    async with FlowProducer(prefix=queue.prefix, server=server, clock=clock) as flows:
        await flows.add(flow_job("root", queue="q", children=[flow_job("leaf", queue="q")]))
    await drain(queue, ok)
    bulk, flow = spans.only("addBulk q"), spans.only("addFlow q")
    assert list(bulk.attributes["bullmq.job.bulk.names"]) == ["a", "b"]
    parents = {span.attributes["bullmq.job.name"]: span.parent for span in spans.named("process q")}
    assert parents == {"a": bulk.id, "b": bulk.id, "root": flow.id, "leaf": flow.id}


async def test_a_job_keeps_its_options_and_its_trace_in_them(queue: Queue, spans: Spans) -> None:
    job = await queue.add("n", priority=7, attempts=3)
    stored = json.loads((await queue.get_job(job.id)).record.opts)
    carrier = json.loads(stored.pop("tm"))
    assert stored == {"attempts": 3, "priority": 7}
    assert carrier["traceparent"].split("-")[2] == spans.only("add q.n").id


async def test_each_run_of_a_scheduler_has_a_trace_of_its_own_and_a_link_to_the_upsert(
    queue: Queue, spans: Spans, clock: FakeClock
) -> None:
    with spans.provider.get_tracer("app").start_as_current_span("request"):
        job = await queue.job_schedulers.upsert("digests", ScheduleRule(every="1m"), name="digest", options=JobOptions(priority=7))
    async with Worker(queue, {"digest": ok}, WorkerOptions()):
        for count in (1, 2, 3):
            await eventually(partial(_has, spans, count))
            clock.advance("1m")
    upserted, runs = spans.only("add q.digest"), spans.named("process q")[:3]
    assert (upserted.parent, upserted.attributes["bullmq.job.id"]) == (spans.only("request").id, job.id)
    assert [(run.parent, run.links) for run in runs] == [(None, [upserted.id])] * 3
    assert len({run.trace for run in (*runs, upserted)}) == 4
    assert {span.attributes["bullmq.job.scheduler.id"] for span in (*runs, upserted)} == {"digests"}


async def test_the_template_of_a_scheduler_holds_no_trace_and_runs_without_one_have_no_link(queue: Queue, spans: Spans) -> None:
    await queue.job_schedulers.upsert("digests", ScheduleRule(every="1m"), options=JobOptions(priority=7))
    stored: list[bytes] = await queue.server.commands.call("HGETALL", queue.keys.scheduler("digests"))
    assert b"".join(stored).count(b"traceparent") == 0
    with untraced():
        await queue.job_schedulers.upsert("digests", ScheduleRule(every="1m"), options=JobOptions(priority=7))
    async with Worker(queue, {"digests": ok}, WorkerOptions()):
        await eventually(partial(_has, spans, 1))
    assert [(run.parent, run.links) for run in spans.named("process q")] == [(None, [])]


def _has(spans: Spans, runs: int) -> None:
    assert len(spans.named("process q")) >= runs


async def test_the_workers_own_trace_is_nobodys_parent(queue: Queue, spans: Spans) -> None:
    with untraced():
        await queue.add("n")
    with spans.provider.get_tracer("app").start_as_current_span("start"):
        await drain(queue, {"n": ok})
    assert spans.only("process q").parent is None


@pytest.mark.parametrize("tm", ['"no JSON"', "7", '"[]"', '"{\\"traceparent\\":7}"', '"{\\"traceparent\\":\\"00-zz-1-1\\"}"'])
async def test_a_context_that_can_not_be_read_is_none(queue: Queue, spans: Spans, tm: str) -> None:
    with untraced():
        job = await queue.add("n")
    await queue.server.commands.call("HSET", f"{queue.keys.base}{job.id}", "opts", f'{{"attempts":1,"tm":{tm}}}')
    await drain(queue, {"n": ok})
    assert spans.only("process q").parent is None
    assert await queue.get_completed_count() == 1


async def test_an_add_that_fails_says_so(spans: Spans) -> None:
    async with Queue("q", url="redis://127.0.0.1:1") as queue:
        with pytest.raises(ServerUnreachableError):
            await queue.add("n")
    added = spans.only("add q.n")
    assert added.error is not None
    assert "ServerUnreachableError" in added.error


async def test_lines_of_the_log_name_the_trace(queue: Queue, spans: Spans) -> None:
    lines = io.StringIO()
    configure_logging(log_format="json", stream=lines)

    async def handle(job: Job) -> None:
        get_logger("app").info("inside")

    await queue.add("n")
    await drain(queue, {"n": handle})
    get_logger("app").info("outside")
    told = {line["event"]: line for line in map(json.loads, lines.getvalue().splitlines())}
    processed = spans.only("process q")
    assert (told["inside"]["trace_id"], told["inside"]["span_id"]) == (processed.trace, processed.id)
    assert "trace_id" not in told["outside"]


async def test_without_the_call_nothing_is_traced_or_carried(queue: Queue) -> None:
    assert HOOKS.tracer is None
    job = await queue.add("n")
    assert b"tm" not in (await queue.get_job(job.id)).record.opts
    spans: list[object] = []

    async def handle(job: Job) -> None:
        spans.extend(running.span for running in worker.attempts)

    worker = Worker(queue, handle, WorkerOptions())
    async with worker:
        await worker.wait_until_idle()
    assert spans == [None]


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingExtraError, match=r"needs opentelemetry-api, which isn't installed: pip install 'toril\[otel\]'"):
        trace_jobs()
