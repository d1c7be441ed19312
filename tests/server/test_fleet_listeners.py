"""`@on_global_queue_…`: methods that hear what happens to a queue in the whole fleet."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from toril import (
    Job,
    JobLogger,
    Queue,
    QueueModule,
    Worker,
    WorkerFactory,
    module,
    on_global_queue_added,
    on_global_queue_cleaned,
    on_global_queue_completed,
    on_global_queue_drained,
    on_global_queue_failed,
    on_global_queue_paused,
    on_global_queue_stalled,
    process,
    processor,
)
from toril.di import GraphErrors
from toril.errors import InvalidOptionError
from toril.modules.errors import InvalidProcessorError, UnregisteredQueueError
from toril.queues.events import AddedEvent, CompletedEvent, DrainedEvent, Event, FailedEvent, PausedEvent
from toril.testing import Test, eventually
from toril.wire.connection import Server


class Monitor:
    def __init__(self) -> None:
        self.heard: list[Event] = []

    @on_global_queue_completed("work")
    async def completed(self, event: CompletedEvent) -> None:
        self.heard.append(event)

    @on_global_queue_failed("work")
    def failed(self, event: FailedEvent) -> None:
        self.heard.append(event)

    @on_global_queue_drained("work")
    async def drained(self, event: DrainedEvent) -> None:
        raise ValueError("a listener's own trouble")

    @on_global_queue_paused("work")
    @on_global_queue_added("work")
    async def several(self, event: AddedEvent | PausedEvent) -> None:
        self.heard.append(event)


@module(imports=[QueueModule.register_queue("work")], providers=[Monitor], exports=[Monitor])
class MonitorModule: ...


async def test_they_hear_what_another_process_does(
    toril_server_url: str, server: Server, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    @module(imports=[QueueModule.for_root(url=toril_server_url, prefix=prefix), MonitorModule])
    class Root: ...

    elsewhere = Queue("work", prefix=prefix, server=server)

    async def handle(job: Job) -> str:
        if job.name == "bad":
            raise ValueError("no")
        return "done"

    async with await WorkerFactory.create(Root) as app:
        monitor = app.get(Monitor)
        good, bad = await elsewhere.add_many([elsewhere.job("good"), elsewhere.job("bad")])
        async with Worker(elsewhere, handle) as worker:
            await worker.wait_until_idle()
        await elsewhere.pause()
        await eventually(lambda: _has(monitor, PausedEvent))
        heard = {type(event): event for event in monitor.heard}
        completed, failed = heard[CompletedEvent], heard[FailedEvent]
        assert isinstance(completed, CompletedEvent)
        assert isinstance(failed, FailedEvent)
        assert (completed.job_id, completed.return_value, failed.job_id, failed.reason) == (good.id, "done", bad.id, "no")
        assert [event.name for event in monitor.heard if isinstance(event, AddedEvent)] == ["good", "bad"]
    assert "a listener's own trouble" in caplog.text


def _has(monitor: Monitor, kind: type[Event]) -> None:
    assert any(isinstance(event, kind) for event in monitor.heard)


async def test_a_process_that_only_adds_jobs_reads_no_stream(toril_server_url: str, server: Server, prefix: str) -> None:
    @module(imports=[QueueModule.for_root(url=toril_server_url, prefix=prefix), MonitorModule])
    class Root: ...

    async with await WorkerFactory.create(Root, roles=["producer"]) as app:
        clients: bytes = await server.commands.call("CLIENT", "LIST")
        assert app.queue("work").keys.events_client_name.encode() not in clients


@processor("work")
class Own:
    """Its class says which queue."""

    heard: ClassVar[list[tuple[str, str]]] = []

    def __init__(self, log: JobLogger) -> None:
        self.log = log

    @process()
    async def run(self, job: Job) -> None: ...

    @on_global_queue_completed()
    def completed(self, event: CompletedEvent) -> None:
        self.heard.append((event.job_id, type(self.log).__name__))


async def test_in_a_processor_the_queue_is_its_own_and_each_call_has_a_scope(toril_server_url: str, prefix: str) -> None:
    @module(imports=[QueueModule.for_root(url=toril_server_url, prefix=prefix), QueueModule.register_queue("work")], providers=[Own])
    class Root: ...

    Own.heard.clear()
    async with await WorkerFactory.create(Root) as app:
        job = await app.queue("work").add("a")
        await eventually(lambda: _equal(Own.heard, [(job.id, "JobLogger")]))


def _equal(one: object, other: object) -> None:
    assert one == other


class Homeless:
    @on_global_queue_stalled()
    async def stalled(self, event: Any) -> None: ...  # noqa: ANN401 -- never called

    @on_global_queue_cleaned("nowhere")
    async def cleaned(self) -> None: ...


async def test_what_cant_work_is_found_at_start() -> None:
    with pytest.raises(GraphErrors) as caught:
        await Test.create_testing_module(imports=[QueueModule.register_queue("work")], providers=[Homeless]).compile()
    texts = sorted(f"{type(error).__name__}: {error}" for error in caught.value.errors)
    assert len(texts) == 3
    assert "cleaned(self, event)" in texts[0]
    assert '@on_global_queue_stalled("emails")' in texts[1]
    assert texts[2].startswith(UnregisteredQueueError.__name__)
    assert InvalidProcessorError.__name__ in texts[0]


class Mistyped:
    @on_global_queue_completed("work")
    async def completed(self, event: FailedEvent) -> None: ...

    @on_global_queue_paused("work")
    @on_global_queue_added("work")
    async def several(self, event: AddedEvent) -> None: ...

    @on_global_queue_failed("work")
    async def failed(self, job: Job) -> None: ...

    @on_global_queue_drained("work")
    async def drained(self, event: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore[reportUndefinedVariable, reportUnknownParameterType]

    @on_global_queue_stalled("work")
    async def whatever(self, event: Event, *more: int) -> None: ...


async def test_the_annotation_of_an_event_is_checked_at_start_as_those_of_handlers_are() -> None:
    with pytest.raises(GraphErrors) as caught:
        await Test.create_testing_module(imports=[QueueModule.register_queue("work")], providers=[Mistyped]).compile()
    told = {error.processor: error for error in caught.value.errors if isinstance(error, InvalidProcessorError)}
    assert set(told) == {"Mistyped.completed", "Mistyped.several", "Mistyped.failed", "Mistyped.drained"}
    assert told["Mistyped.completed"].reason == (
        "`event: FailedEvent` does not fit @on_global_queue_completed, which is called with (event: CompletedEvent): "
        "write `event: CompletedEvent` there (from toril.queues.events)"
    )
    assert "called with (event: PausedEvent)" in told["Mistyped.several"].reason
    assert "`job: Job` does not fit @on_global_queue_failed" in told["Mistyped.failed"].reason
    assert "'Nowhere'" in told["Mistyped.drained"].reason
    assert "test_fleet_listeners.py:" in told["Mistyped.drained"].place


def test_brackets_are_needed() -> None:
    with pytest.raises(InvalidOptionError, match="needs brackets"):
        on_global_queue_completed(print)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # as one may write it
