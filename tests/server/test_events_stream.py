"""Events of a queue: what they say, and that none is missed when connections break."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.bench import STACK, T0, Bench, gone_wrong
from tests.proxy import Proxy, is_command
from toril.errors import QueueClosedError, ServerUnreachableError
from toril.queues.event_stream import QueueEvents
from toril.queues.events import (
    ActiveEvent,
    AddedEvent,
    CompletedEvent,
    DelayedEvent,
    DrainedEvent,
    FailedEvent,
    ProgressEvent,
    QueueEvent,
    RemovedEvent,
    RetriesExhaustedEvent,
    StalledEvent,
    UnknownEvent,
    WaitingEvent,
    read_event,
)
from toril.queues.queue import Queue
from toril.testing.eventually import eventually
from toril.wire import endings
from toril.wire.connection import Server


async def take(events: QueueEvents, count: int) -> list[QueueEvent]:
    return [await anext(events) for _ in range(count)]


async def reading(events: QueueEvents, bench: Bench) -> list[str]:
    """The ids of the connections that wait for events, once there is one."""

    async def probe() -> list[str]:
        listing: bytes = await bench.raw("CLIENT", "LIST")
        fields = [dict(field.split("=", 1) for field in line.split()) for line in listing.decode().splitlines()]
        found = [client["id"] for client in fields if client["name"] == bench.keys.events_client_name and client["cmd"] == "xread"]
        assert found
        return found

    return await eventually(probe)


async def test_a_job_is_followed_from_its_add_to_its_end(queue: Queue, bench: Bench) -> None:
    async with QueueEvents(queue) as events:
        job = await queue.add("n", attempts=2, job_id="j")
        await bench.claim()
        await job.update_progress({"done": 0.5})
        await bench.turn(endings.retried("j", "t", "boom", STACK, 500, lifo=False))
        bench.now += 500
        await bench.claim()
        await bench.turn(endings.completed("j", "t", b'{"sent":true}', ""))
        await job.remove()
        told = await take(events, 10)
        assert events.last_event_id == told[-1].stream_id
    ids = [event.stream_id for event in told]
    assert told == [
        AddedEvent(stream_id=ids[0], job_id="j", name="n"),
        WaitingEvent(stream_id=ids[1], job_id="j", previous=None),
        ActiveEvent(stream_id=ids[2], job_id="j"),
        ProgressEvent(stream_id=ids[3], job_id="j", value={"done": 0.5}),
        DelayedEvent(stream_id=ids[4], job_id="j", due_at_ms=T0 + 500),
        WaitingEvent(stream_id=ids[5], job_id="j", previous="delayed"),
        ActiveEvent(stream_id=ids[6], job_id="j"),
        CompletedEvent(stream_id=ids[7], job_id="j", return_value={"sent": True}),
        DrainedEvent(stream_id=ids[8]),
        RemovedEvent(stream_id=ids[9], job_id="j", previous="completed"),
    ]
    due = told[4]
    assert isinstance(due, DelayedEvent)
    assert due.due_at.timestamp() * 1_000 == T0 + 500
    assert told[0].at <= told[-1].at


async def test_a_failure_for_good_is_told_with_its_reason(queue: Queue, bench: Bench) -> None:
    await queue.add("n")
    await bench.claim()
    async with QueueEvents(queue) as events:
        await bench.turn(gone_wrong("1"))
        failed, exhausted = await take(events, 2)
    assert isinstance(failed, FailedEvent)
    assert (failed.job_id, failed.reason, failed.previous) == ("1", "boom", "active")
    assert isinstance(exhausted, RetriesExhaustedEvent)
    assert exhausted.attempts_made == 1


async def test_reading_begins_now_or_behind_a_given_event(queue: Queue, prefix: str, server: Server) -> None:
    await queue.add("early")
    async with QueueEvents(queue) as events:
        await queue.add("late")
        (first,) = await take(events, 1)
        assert isinstance(first, AddedEvent)
        assert first.name == "late"
    async with QueueEvents(queue, last_event_id=first.stream_id) as events:
        (second,) = await take(events, 1)
        assert second == WaitingEvent(stream_id=second.stream_id, job_id="2", previous=None)
    async with QueueEvents("q", prefix=prefix, server=server, last_event_id="0") as events:
        oldest = await anext(events)
        assert isinstance(oldest, AddedEvent)
        assert oldest.name == "early"


async def test_a_queues_name_and_an_address_are_enough(queue: Queue, toril_server_url: str, prefix: str) -> None:
    async with QueueEvents("q", prefix=prefix, url=toril_server_url) as events:
        await queue.add("n")
        assert isinstance(await anext(events), AddedEvent)
        assert events.queue_name == "q"


# ── connections that break ────────────────────────────────────────────────────────────────────────────────────────


async def cut_by_client_kill(bench: Bench, client: str) -> None:
    await bench.raw("CLIENT", "KILL", "ID", client)


async def unblocked(bench: Bench, client: str) -> None:
    await bench.raw("CLIENT", "UNBLOCK", client, "ERROR")


async def timed_out(bench: Bench, client: str) -> None:
    await bench.raw("CLIENT", "UNBLOCK", client, "TIMEOUT")


@pytest.mark.parametrize("interrupt", [cut_by_client_kill, unblocked, timed_out])
async def test_no_event_is_missed_or_told_twice_when_the_connection_breaks(
    queue: Queue, bench: Bench, interrupt: Callable[[Bench, str], Awaitable[None]]
) -> None:
    async with QueueEvents(queue) as events:
        told: list[QueueEvent] = []

        async def read() -> None:
            async for event in events:
                told.append(event)  # noqa: PERF401 -- one by one, as they come

        reader = asyncio.create_task(read())
        for _ in range(3):
            for client in await reading(events, bench):
                await interrupt(bench, client)
                await queue.add_many([queue.job("n"), queue.job("n")])
        await eventually(lambda: _assert(len(told) >= 12))
        await events.aclose()
        await reader
    assert [event.job_id for event in told if isinstance(event, AddedEvent)] == [str(i + 1) for i in range(6)]
    assert len({event.stream_id for event in told}) == 12


async def test_reading_outlives_a_server_that_is_away_and_does_not_spin(queue: Queue, toril_server_url: str, prefix: str) -> None:
    async with Proxy(toril_server_url) as proxy, QueueEvents("q", prefix=prefix, url=proxy.url) as events:
        next_event = asyncio.create_task(anext(events))
        await proxy.seen(is_command("XREAD"))
        before = proxy.connections
        proxy.down()
        await eventually(lambda: _assert(proxy.connections >= before + 3))
        await queue.add("n")
        assert proxy.connections < before + 20
        proxy.up()
        assert isinstance(await next_event, AddedEvent)


async def test_a_server_that_was_never_there_is_told_when_it_is_opened(prefix: str) -> None:
    async with Server("redis://127.0.0.1:1", patience_ms=0) as nowhere:
        with pytest.raises(ServerUnreachableError):
            async with QueueEvents("q", prefix=prefix, server=nowhere):
                pass


async def test_closing_ends_the_iteration_at_once(queue: Queue, bench: Bench) -> None:
    async with QueueEvents(queue) as events:
        reader = asyncio.create_task(anext(events, "ended"))
        await reading(events, bench)
        await events.aclose()
        async with asyncio.timeout(2):
            assert await reader == "ended"
        assert [event async for event in events] == []
    await events.aclose()


async def test_cancelling_a_reader_loses_nothing(queue: Queue, bench: Bench) -> None:
    async with QueueEvents(queue) as events:
        reader = asyncio.create_task(anext(events))
        await reading(events, bench)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await queue.add("n")
        assert isinstance(await anext(events), AddedEvent)


async def test_several_readers_share_the_events(queue: Queue) -> None:
    async with QueueEvents(queue) as events:
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(anext(events)) for _ in range(4)]
            await queue.add_many([queue.job("n"), queue.job("n")])
        told = [reader.result() for reader in readers]
    assert len({event.stream_id for event in told}) == 4


async def test_events_must_be_opened_first_and_only_once(queue: Queue) -> None:
    events = QueueEvents(queue)
    with pytest.raises(QueueClosedError, match="not open"):
        await anext(events)
    async with events:
        with pytest.raises(QueueClosedError, match="open already"):
            await events.__aenter__()


# ── reading entries ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("entry", "event"),
    [
        ({"event": "stalled", "jobId": "7"}, StalledEvent(stream_id="1-0", job_id="7")),
        ({"event": "progress", "jobId": "7", "data": "not json"}, ProgressEvent(stream_id="1-0", job_id="7", value="not json")),
        ({"event": "completed", "jobId": "7", "returnvalue": "NaN"}, CompletedEvent(stream_id="1-0", job_id="7", return_value="NaN")),
        ({"event": "removed", "jobId": "7", "prev": "wait"}, RemovedEvent(stream_id="1-0", job_id="7", previous="waiting")),
        ({"event": "removed", "jobId": "7", "prev": "unknown"}, RemovedEvent(stream_id="1-0", job_id="7", previous=None)),
        ({"event": "delayed", "jobId": "7", "delay": "1.7e12"}, DelayedEvent(stream_id="1-0", job_id="7", due_at_ms=1_700_000_000_000)),
        (
            {"event": "delayed", "jobId": "7", "delay": "soon"},
            UnknownEvent(stream_id="1-0", name="delayed", fields={"jobId": "7", "delay": "soon"}),
        ),
        ({"event": "completed"}, UnknownEvent(stream_id="1-0", name="completed", fields={})),
        ({"event": "mine", "jobId": "x"}, UnknownEvent(stream_id="1-0", name="mine", fields={"jobId": "x"})),
        (
            {"event": "debounced", "jobId": "7", "debounceId": "d"},
            UnknownEvent(stream_id="1-0", name="debounced", fields={"jobId": "7", "debounceId": "d"}),
        ),
        ({}, UnknownEvent(stream_id="1-0", name="", fields={})),
    ],
)
def test_whatever_stands_in_the_stream_becomes_an_event(entry: dict[str, str], event: QueueEvent) -> None:
    assert read_event("1-0", entry) == event


async def test_events_of_somebodys_own_are_told(queue: Queue, bench: Bench) -> None:
    async with QueueEvents(queue) as events:
        await bench.raw("XADD", bench.key("events"), "*", "event", "custom", "colour", "red")
        told = await anext(events)
    assert told == UnknownEvent(stream_id=told.stream_id, name="custom", fields={"colour": "red"})


def _assert(holds: bool) -> None:
    assert holds
