"""A real NestJS application on `@nestjs/bullmq` and an application of ours, on the same queues."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from tests.compared import Compared
from tests.interop.handling import is_state
from tests.interop.peer import NodePeer
from toril import (
    FlowProducer,
    InjectFlowProducer,
    InjectQueue,
    Job,
    JobDef,
    Queue,
    QueueModule,
    QueueOptions,
    WorkerFactory,
    exponential,
    flow_job,
    injectable,
    module,
    on_global_queue_completed,
    on_global_queue_failed,
    process,
    processor,
)
from toril.application import Application
from toril.errors import JobFailedError
from toril.queues.events import CompletedEvent, FailedEvent
from toril.testing import eventually


class WelcomeEmail(BaseModel):
    to: str
    failures: int = 0


class Receipt(BaseModel):
    sentTo: str  # noqa: N815 -- the Node side reads it
    by: str = "toril"


WELCOME = JobDef[WelcomeEmail, Receipt]("welcome-email")


@processor("emails", concurrency=3)
class EmailProcessor:
    @process(WELCOME)
    async def welcome(self, job: Job[WelcomeEmail, Receipt]) -> Receipt:
        await job.update_progress(50)
        await job.log(f"to {job.data.to}")
        if job.attempts_made < job.data.failures:
            raise ValueError(f"mailbox {job.data.to} is full")
        return Receipt(sentTo=job.data.to)

    @process("digest")
    async def digest(self, job: Job) -> dict[str, Any]:
        parts = await job.get_children_values()
        return {"parts": sorted(part["sentTo"] for part in parts.values()), "by": "toril"}


@injectable()
class EmailService:
    def __init__(self, emails: Annotated[Queue, InjectQueue("emails")], flows: Annotated[FlowProducer, InjectFlowProducer()]) -> None:
        self.emails = emails
        self.flows = flows

    async def welcome(self, email: WelcomeEmail) -> Job[WelcomeEmail, Receipt]:
        return await self.emails.add(WELCOME, email, attempts=3, backoff=exponential("10ms"))


class Monitor:
    def __init__(self) -> None:
        self.ends: dict[str, object] = {}

    @on_global_queue_completed("emails")
    async def completed(self, event: CompletedEvent) -> None:
        self.ends[event.job_id] = event.return_value

    @on_global_queue_failed("emails")
    async def failed(self, event: FailedEvent) -> None:
        self.ends[event.job_id] = event.reason


QUEUES = QueueModule.register_queue(QueueOptions("emails"))


@module(imports=[QUEUES, QueueModule.register_flow_producer()], providers=[EmailService, Monitor], exports=[EmailService, Monitor])
class ProducerModule: ...


@module(imports=[QUEUES], providers=[EmailProcessor])
class ProcessorModule: ...


async def _application(url: str, prefix: str, *, processes: bool) -> Application:
    modules = [ProducerModule, ProcessorModule] if processes else [ProducerModule]

    @module(imports=[QueueModule.for_root(url=url, prefix=prefix), *modules])
    class Root: ...

    return await WorkerFactory.create(Root)


@pytest.fixture
async def nest(node_is_there: None, toril_server_url: str, toril_prefix: str) -> AsyncIterator[NodePeer]:
    async with NodePeer(toril_server_url, toril_prefix, "nest.mjs") as nest:
        yield nest


async def test_what_a_nest_service_adds_our_processor_runs(
    nest: NodePeer, toril_server_url: str, toril_prefix: str, compared: Compared
) -> None:
    await nest.ask("start", processes=False)
    async with await _application(toril_server_url, toril_prefix, processes=True) as app:
        good = await nest.ask("welcome", to="ann@example.com", opts={"priority": 2})
        third_time = await nest.ask("welcome", to="bob@example.com", failures=2)
        never = await nest.ask("welcome", to="cy@example.com", failures=9)
        ended = await nest.heard(lambda event: event["event"] == "completed", count=2)
        (failed,) = await nest.heard(lambda event: event["event"] == "failed")
        assert {event["id"]: event["returnvalue"] for event in ended} == {
            good: {"sentTo": "ann@example.com", "by": "toril"},
            third_time: {"sentTo": "bob@example.com", "by": "toril"},
        }
        assert (failed["id"], failed["failedReason"]) == (never, "mailbox cy@example.com is full")
        progress = await nest.heard(lambda event: event["event"] == "progress", count=7)
        assert {(event["data"], event["id"]) for event in progress} == {(50, good), (50, third_time), (50, never)}
        job = await app.queue("emails").get_job(third_time)
        assert (job.attempts_made, (await job.get_logs()).total) == (3, 3)
    await nest.ask("stop")
    compared.jobs += 3


async def test_what_our_service_adds_a_nest_processor_runs(
    nest: NodePeer, toril_server_url: str, toril_prefix: str, compared: Compared
) -> None:
    await nest.ask("start", processes=True)
    async with await _application(toril_server_url, toril_prefix, processes=False) as app:
        emails, monitor = app.get(EmailService), app.get(Monitor)
        good = await emails.welcome(WelcomeEmail(to="ann@example.com", failures=2))
        never = await emails.welcome(WelcomeEmail(to="bob@example.com", failures=9))
        assert await good.result(timeout="20s") == Receipt(sentTo="ann@example.com", by="nest")
        with pytest.raises(JobFailedError, match=r"mailbox bob@example\.com is full"):
            await never.result(timeout="20s")
        await eventually(lambda: _ended(monitor, good.id, never.id))
        assert monitor.ends[never.id] == "mailbox bob@example.com is full"
        await never.refresh()
        assert (never.progress, never.attempts_made, (await never.get_logs()).rows) == (50, 3, ["to bob@example.com"] * 3)
    heard = [event["attemptsMade"] for event in nest.events if event["event"] == "attempt failed" and event["id"] == never.id]
    assert heard == [1, 2, 3]
    await nest.ask("stop")
    compared.jobs += 2


def _ended(monitor: Monitor, *job_ids: str) -> None:
    assert set(job_ids) <= monitor.ends.keys()


async def test_flows_cross_from_nest_to_us_and_from_us_to_nest(
    nest: NodePeer, toril_server_url: str, toril_prefix: str, compared: Compared
) -> None:
    """Nest has the queue `emails`, we have another one; each adds a parent for the other side's worker with children on its own queue."""

    @processor("ours")
    class OurProcessor(EmailProcessor): ...

    ours = QueueModule.register_queue("ours")

    @module(imports=[QueueModule.for_root(url=toril_server_url, prefix=toril_prefix), ours, ProducerModule], providers=[OurProcessor])
    class Root: ...

    await nest.ask("start", processes=True)
    async with await WorkerFactory.create(Root) as app:
        addressees = ["ann@example.com", "bob@example.com"]
        by_us = await app.queue("ours").get_job(await nest.ask("digest", queue="ours", parts="emails", addressees=addressees))
        assert await by_us.result(timeout="20s") == {"parts": addressees, "by": "toril"}
        children = [flow_job(WELCOME, WelcomeEmail(to=to), queue="ours") for to in addressees]
        node = await app.get(EmailService).flows.add(flow_job("digest", {}, queue="emails", children=children))
        assert await node.job.result(timeout="20s") == {"parts": addressees, "by": "nest"}
        for child in node.children:
            await eventually(lambda: is_state(child.job, "completed"))  # noqa: B023 -- it is awaited here
    await nest.ask("stop")
    compared.jobs += 6
