"""Names and ids of any text: each is refused before anything is written, with the option's name, or works in every respect.

Examples are the same in every run. `TORIL_EXAMPLES=2000` looks at other and more ones; a failure prints how to repeat its example.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeAlias, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.snapshot import Events, Keys, delete_all, read_all
from toril import Deduplication, Job, JobOptions, Queue, QueueEvents, ScheduleRule, Worker, WorkerOptions
from toril.errors import InvalidOptionError
from toril.queues.events import CompletedEvent, DeduplicatedEvent
from toril.testing import FakeClock
from toril.wire.connection import Server

_EXAMPLES: Final = os.environ.get("TORIL_EXAMPLES")
T0: Final = 1_700_000_000_000

bounded = settings(
    max_examples=int(_EXAMPLES or 40),
    derandomize=_EXAMPLES is None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

_ODD: Final = [
    "", " ", "\0", "a\0b", "\n", "a\r\nb", "\x1b[31m", "\x7f", ":", "a:b", "a:b:c", "{a}", "{}", "}{", "{", "*", "[a-z]?", "\\",
    "%s%n", '"', "'", "wait", "repeat", "0", "7", "-1", "0:1", "1e5", "💥", "שלום", "مرحبا", "e\u0301", "\u202egnp", "\u2028",
    "\ufeff", "\ud800", "a\udfffb", "__proto__", "x" * 5_000, "é" * 3_000, "../..", "toril", "bull", "nan",
]  # fmt: skip
Test: TypeAlias = Callable[..., Coroutine[Any, Any, None]]

_TEXTS: Final = st.text(st.characters(), max_size=12) | st.sampled_from(_ODD) | st.lists(st.sampled_from(_ODD), max_size=3).map("".join)


def odd_texts(test: Test) -> Test:
    """Each of the odd texts, and others."""
    for text in _ODD:
        test = example(text=text)(test)
    marked = pytest.mark.timeout(0)(pytest.mark.blocks_the_loop(bounded(given(text=_TEXTS)(test))))
    return cast("Test", marked)


async def everything(server: Server, prefix: str) -> tuple[Keys, Events]:
    return await read_all(server, prefix)


async def check_refused(error: InvalidOptionError, option: str, server: Server, prefix: str, before: object) -> None:
    assert error.option == option
    assert await everything(server, prefix) == before


async def opened(server: Server, prefix: str, clock: FakeClock | None = None) -> Queue:
    """An empty queue, also where the example before has failed."""
    await delete_all(server, prefix)
    return await Queue("q", prefix=prefix, server=server, clock=clock).open()


async def process(queue: Queue, name: str | None = None) -> list[Job]:
    """The jobs that a worker of this name runs until nothing is left."""
    ran: list[Job] = []

    async def note(job: Job) -> None:
        ran.append(job)

    async with Worker(queue, note, WorkerOptions(name=name)) as worker:
        await worker.wait_until_idle()
    return ran


@odd_texts
async def test_a_queue_of_any_name(server: Server, prefix: str, text: str) -> None:
    await delete_all(server, prefix)
    try:
        queue = Queue(text, prefix=prefix, server=server)
    except InvalidOptionError as error:
        await check_refused(error, "queue", server, prefix, (dict[str, object](), dict[str, object]()))
        return
    async with QueueEvents(queue) as events, queue:
        job = await queue.add("n", {"a": 1})
        later = await queue.add("n", delay="1h")
        await job.log("row")
        assert [one.id for one in await queue.get_jobs()] == [job.id, later.id]
        assert [one.id for one in await process(queue)] == [job.id]
        async for event in events:
            if isinstance(event, CompletedEvent):
                assert event.job_id == job.id
                break
        assert await job.result(timeout="5s") is None
        assert await queue.remove(later.id)
        assert (await queue.get_job_logs(job.id)).rows == ["row"]
        assert (await queue.get_job_counts("completed", "delayed")) == {"completed": 1, "delayed": 0}
        other = Queue(text + "x", prefix=prefix, server=server)
        await other.add("n")
        await queue.obliterate(force=True)
        assert await other.count() == 1
        await other.obliterate(force=True)
    assert await everything(server, prefix) == ({}, {})


@odd_texts
async def test_a_job_of_any_name(server: Server, prefix: str, text: str) -> None:
    queue = await opened(server, prefix)
    before = await everything(server, prefix)
    try:
        job = await queue.add(text, {})
    except InvalidOptionError as error:
        await check_refused(error, "name", server, prefix, before)
        return
    assert (await queue.get_job(job.id)).name == text
    assert [(one.id, one.name) for one in await process(queue)] == [(job.id, text)]
    await queue.obliterate(force=True)


@odd_texts
async def test_a_job_of_any_id(server: Server, prefix: str, text: str) -> None:
    queue = await opened(server, prefix)
    before = await everything(server, prefix)
    try:
        job = await queue.add("n", job_id=text)
    except InvalidOptionError as error:
        await check_refused(error, "job_id", server, prefix, before)
        return
    assert job.id == text or not text
    await job.log("row")
    async with QueueEvents(queue) as events:
        assert [one.id for one in await process(queue)] == [job.id]
        async for event in events:
            if isinstance(event, CompletedEvent):
                assert event.job_id == job.id
                break
    assert await job.result(timeout="5s") is None
    assert [one.id for one in await queue.get_completed()] == [job.id]
    await job.retry("completed")
    assert await job.get_state() == "waiting"
    assert await job.cancel() == "waiting"
    assert await job.remove()
    assert await queue.find_job(job.id) is None
    await queue.obliterate(force=True)


@odd_texts
async def test_a_scheduler_of_any_id(server: Server, prefix: str, text: str) -> None:
    clock = FakeClock(T0)
    queue = await opened(server, prefix, clock)
    before = await everything(server, prefix)
    rule = ScheduleRule(every="1h")
    try:
        first = await queue.job_schedulers.upsert(text, rule, name="tick")
    except InvalidOptionError as error:
        await check_refused(error, "scheduler_id", server, prefix, before)
        return
    assert first.id == f"repeat:{text}:{T0}"
    assert (await queue.job_schedulers.get(text)).id == text
    assert [one.id for one in await queue.job_schedulers.list()] == [text]
    assert [one.id for one in await process(queue)] == [first.id]
    assert [one.id for one in await queue.get_delayed()] == [f"repeat:{text}:{T0 + 3_600_000}"]
    clock.advance("1h")
    assert [one.id for one in await process(queue)] == [f"repeat:{text}:{T0 + 3_600_000}"]
    await queue.job_schedulers.upsert(text, ScheduleRule(pattern="0 0 * * *"), name="tick", options=JobOptions(priority=1))
    assert len(await queue.get_delayed()) == 1
    assert await queue.job_schedulers.remove(text)
    assert await queue.job_schedulers.list() == []
    assert await queue.get_delayed() == []
    await queue.obliterate(force=True)


@odd_texts
async def test_a_deduplication_of_any_id(server: Server, prefix: str, text: str) -> None:
    queue = await opened(server, prefix)
    before = await everything(server, prefix)
    try:
        once = Deduplication(text)
        job = await queue.add("n", deduplication=once)
    except InvalidOptionError as error:
        await check_refused(error, "deduplication.id", server, prefix, before)
        return
    async with QueueEvents(queue) as events:
        again = await queue.add("n", deduplication=once)
        event = await anext(events)
    assert again.id == job.id
    assert isinstance(event, DeduplicatedEvent)
    assert event.deduplication_id == text
    assert await queue.find_deduplicated(text) == job.id
    assert (await queue.get_job(job.id)).deduplication_id == text
    assert [one.id for one in await process(queue)] == [job.id]
    assert await queue.find_deduplicated(text) is None
    other = await queue.add("n", deduplication=once)
    assert other.id != job.id
    assert await queue.remove_deduplication_key(text)
    await queue.obliterate(force=True)


@odd_texts
async def test_a_worker_of_any_name(server: Server, prefix: str, text: str) -> None:
    queue = await opened(server, prefix)
    job = await queue.add("n")
    before = await everything(server, prefix)
    listed: list[str | None] = []

    async def look(_: Job) -> None:
        listed.extend(worker.name for worker in await queue.get_workers())

    try:
        options = WorkerOptions(name=text)
    except InvalidOptionError as error:
        await check_refused(error, "name", server, prefix, before)
    else:
        async with Worker(queue, look, options) as worker:
            await worker.wait_until_idle()
        await job.refresh()
        assert (await job.get_state(), job.processed_by or "") == ("completed", text)
        assert len(listed) == 1
    await queue.obliterate(force=True)


async def test_a_scheduler_takes_no_place_of_another_ones_job(server: Server, prefix: str) -> None:
    queue = await opened(server, prefix, FakeClock(T0))
    job = await queue.job_schedulers.upsert("x", ScheduleRule(every="1h"))
    for id_of_a_run in (f"x:{T0}", f"x:{T0}:logs", f"x:{T0 + 3_600_000}"):
        with pytest.raises(InvalidOptionError, match=f'call it for example "{id_of_a_run.replace(":", "-")}"'):
            await queue.job_schedulers.upsert(id_of_a_run, ScheduleRule(every="1h"))
    assert await job.get_state() == "waiting"
