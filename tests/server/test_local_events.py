"""What `queue.on` and the processors' listeners hear of this process: of its workers, and of its own calls."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import pytest

from toril import (
    Deduplication,
    Job,
    JobLogger,
    Queue,
    QueueModule,
    Worker,
    fixed,
    get_logger,
    on_queue_cleaned,
    on_queue_drained,
    on_queue_paused,
    on_queue_removed,
    on_queue_resumed,
    on_queue_stalled,
    on_queue_waiting,
    process,
    processor,
)
from toril.di import GraphErrors
from toril.errors import InvalidOptionError
from toril.modules.errors import InvalidProcessorError
from toril.queues.listeners import LISTENER_ARGUMENTS, Listener, LocalEvent
from toril.testing import Test
from toril.wire.connection import Server
from toril.wire.keys import QueueKeys


def hear_all(queue: Queue) -> list[tuple[Any, ...]]:
    heard: list[tuple[Any, ...]] = []

    def listener_of(event: LocalEvent) -> Listener:
        return lambda *args: heard.append((event, *args))

    for event in LISTENER_ARGUMENTS:
        queue.on(event, listener_of(event))
    return heard


async def test_a_queue_hears_of_its_own_calls(queue: Queue) -> None:
    heard = hear_all(queue)
    await queue.pause()
    waiting, delayed = await queue.add_many([queue.job("a"), queue.job("b", delay="1h")])
    await delayed.promote()
    await queue.remove(waiting.id)
    await queue.resume()
    assert await queue.clean("0s", state="waiting") == [delayed.id]
    await queue.listeners.wait_until_quiet()
    assert heard == [
        ("paused",),
        ("waiting", waiting.id),
        ("waiting", delayed.id),
        ("removed", waiting.id),
        ("resumed",),
        ("cleaned", 1, "waiting"),
    ]


async def test_an_add_that_adds_nothing_is_told_to_nobody(queue: Queue) -> None:
    heard = hear_all(queue)
    await queue.add_many([queue.job("a", job_id="own"), queue.job("a", job_id="own"), queue.job("b", deduplication=Deduplication("once"))])
    await queue.add("a", job_id="own")
    kept_out = await queue.add("b", deduplication=Deduplication("once"))
    await queue.listeners.wait_until_quiet()
    assert heard == [("waiting", "own"), ("waiting", kept_out.id)]


async def test_a_queue_hears_of_the_workers_that_run_here(queue: Queue) -> None:
    async def handle(job: Job) -> int:
        await job.update_progress(50)
        if job.attempts_made == 0:
            raise ValueError("first")
        return 7

    job = await queue.add("a", attempts=2, backoff=fixed("0s"))
    heard = hear_all(queue)
    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
    await queue.listeners.wait_until_quiet()
    names = [name for name, *_ in heard]
    assert names == ["active", "progress", "failed", "waiting", "active", "progress", "completed", "drained"]
    by_name = {name: args for name, *args in heard}
    assert by_name["completed"][1] == 7
    assert (by_name["waiting"], by_name["failed"][2], by_name["drained"]) == ([job.id], False, [])


async def test_drained_is_told_once_and_only_after_work(queue: Queue) -> None:
    heard: list[str] = []
    queue.on("drained", lambda: heard.append("drained"))

    async def handle(job: Job) -> None: ...

    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
        worker.look_again()
        await worker.wait_until_idle()
        await queue.listeners.wait_until_quiet()
        assert heard == []
        await queue.add("a")
        await queue.add("b")
        worker.look_again()
        await worker.wait_until_idle()
        worker.look_again()
        await worker.wait_until_idle()
    await queue.listeners.wait_until_quiet()
    assert heard.count("drained") >= 1
    assert len(heard) <= 2  # two, if the second job came after the first one's end


async def test_a_stalled_job_is_told_by_the_worker_that_found_it(queue: Queue, server: Server, prefix: str) -> None:
    await queue.add("a")
    keys = QueueKeys(prefix, "q")
    await server.commands.call("LMOVE", keys.state("wait"), keys.state("active"), "RIGHT", "LEFT")
    await server.commands.call("SADD", keys.base + "stalled", "1")
    heard: list[tuple[str, str]] = []
    queue.on("stalled", lambda job_id: heard.append(("stalled", job_id)))
    queue.on("waiting", lambda job_id: heard.append(("waiting", job_id)))

    async def handle(job: Job) -> None: ...

    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
    await queue.listeners.wait_until_quiet()
    assert heard[:2] == [("stalled", "1"), ("waiting", "1")]


async def test_an_event_that_does_not_exist_is_refused_with_those_that_do(queue: Queue) -> None:
    with pytest.raises(InvalidOptionError, match="active, completed"):
        queue.on("finished", print)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]  # as an untyped caller


# ── in modules ────────────────────────────────────────────────────────────────────────────────────────────────


@processor("work")
class Everything:
    """Lives as long as a job, or as one call of a listener that has none."""

    heard: ClassVar[list[tuple[Any, ...]]] = []

    def __init__(self, log: JobLogger) -> None:
        self.log = log

    @process()
    async def run(self, job: Job) -> None: ...

    @on_queue_waiting()
    def waiting(self, job_id: str) -> None:
        self.heard.append(("waiting", job_id))
        self.log.warning("it waits", id=job_id)

    @on_queue_drained()
    async def drained(self) -> None:
        self.heard.append(("drained",))

    @on_queue_paused()
    async def paused(self) -> None:
        self.heard.append(("paused",))

    @on_queue_resumed()
    async def resumed(self) -> None:
        self.heard.append(("resumed",))

    @on_queue_removed()
    async def removed(self, job_id: str) -> None:
        self.heard.append(("removed", job_id))

    @on_queue_cleaned()
    async def cleaned(self, count: int, state: str) -> None:
        self.heard.append(("cleaned", count, state))

    @on_queue_stalled()
    async def stalled(self, job_id: str) -> None: ...


async def test_a_processors_listeners_hear_and_log_with_their_event(caplog: pytest.LogCaptureFixture) -> None:
    Everything.heard.clear()
    with caplog.at_level(logging.WARNING):
        async with await Test.create_testing_module(imports=[QueueModule.register_queue("work")], providers=[Everything]).compile() as t:
            queue = t.queue("work")
            await queue.pause()
            job = await queue.add("a")
            await queue.resume()
            await t.drain("work")
            await queue.remove(job.id)
            await queue.clean("0s", state="completed")
            await queue.listeners.wait_until_quiet()
    assert sorted(Everything.heard) == sorted(
        [("paused",), ("waiting", job.id), ("resumed",), ("drained",), ("removed", job.id), ("cleaned", 0, "completed")]
    )
    (record,) = [record for record in caplog.records if record.name == "toril.job"]
    assert "queue=work" in record.getMessage()
    assert "queue_event=waiting" in record.getMessage()


log = get_logger("test.listeners")


@processor("work")
class Single:
    @process()
    async def run(self, job: Job) -> None: ...

    @on_queue_drained()
    async def drained(self, job: Job) -> None: ...


async def test_a_listener_that_wants_what_it_wont_get_is_found_at_start() -> None:
    with pytest.raises(GraphErrors) as caught:
        await Test.create_testing_module(imports=[QueueModule.register_queue("work")], providers=[Single]).compile()
    (error,) = caught.value.errors
    assert isinstance(error, InvalidProcessorError)
    assert "drained(self" in str(error)


async def test_a_listener_of_a_jobs_event_logs_with_the_job(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    queue.on("completed", lambda job, result: log.warning("heard"))

    async def handle(job: Job) -> None: ...

    job = await queue.add("a")
    with caplog.at_level(logging.WARNING):
        async with Worker(queue, handle) as worker:
            await worker.wait_until_idle()
    (record,) = [record for record in caplog.records if record.name == "test.listeners"]
    assert f"job_id={job.id}" in record.getMessage()
