"""Processors in an application: how jobs find their methods, how long what they need lives, and what listeners hear."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from toril import (
    Job,
    JobDef,
    JobLogger,
    Queue,
    QueueModule,
    QueueOptions,
    Scope,
    injectable,
    on_queue_active,
    on_queue_completed,
    on_queue_error,
    on_queue_failed,
    on_queue_progress,
    process,
    processor,
    provide,
)
from toril.modules.workers import make_workers
from toril.telemetry.log_event import LogEvent
from toril.testing import Test, TestingModule
from toril.wire.connection import Server


class Picture(BaseModel):
    width: int


RESIZE = JobDef[Picture, int]("resize")


class Notes:
    """What happened, in order; provided to whoever writes it down."""

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def add(self, *line: Any) -> None:  # noqa: ANN401 -- whatever is worth a note
        self.lines.append(line[0] if len(line) == 1 else line)


async def compiled(*providers: object, queue: str | QueueOptions = "images") -> TestingModule:
    return await Test.create_testing_module(imports=[QueueModule.register_queue(queue)], providers=[Notes, *providers]).compile()


# ── which method ──────────────────────────────────────────────────────────────────────────────────────────────


@processor("images", concurrency=4)
class ByName:
    def __init__(self, notes: Notes) -> None:
        self.notes = notes

    @process(RESIZE)
    async def resize(self, job: Job[Picture, int]) -> int:
        return job.data.width // 2

    @process("crop")
    async def crop(self, job: Job[Picture, int]) -> int:
        return job.data.width - 1

    @process("slow")
    def slow(self, job: Job) -> str:
        return threading.current_thread().name

    @process()
    async def rest(self, job: Job) -> str:
        return f"the rest, {job.name}"


async def test_a_job_finds_its_method_by_definition_by_name_or_the_one_for_the_rest() -> None:
    async with await compiled(ByName) as t:
        queue = t.queue("images")
        jobs = [await queue.add(RESIZE, Picture(width=10))]
        jobs += await queue.add_many([queue.job("crop", {"width": 10}), queue.job("other", {}), queue.job("resize", {"width": 20})])
        unnamed = await queue.add({"any": "thing"})
        await t.drain("images")
        assert [await job.result(timeout="5s") for job in (*jobs, unnamed)] == [5, 9, "the rest, other", 10, "the rest, __default__"]


async def test_a_plain_method_runs_in_a_thread() -> None:
    async with await compiled(ByName) as t:
        job = await t.queue("images").add("slow", {})
        await t.drain()
        assert await job.result(timeout="5s") != threading.main_thread().name


async def test_a_job_tells_which_process_ran_it() -> None:
    async with await compiled(ByName) as t:
        job = await t.queue("images").add("crop", {"width": 10})
        await t.drain("images")
        await job.refresh()
        assert job.processed_by == f"{socket.gethostname()}-{os.getpid()}"


async def test_a_class_may_have_a_method_named_process_instead() -> None:
    @processor("images")
    class Host:
        async def process(self, job: Job[Picture, int]) -> int:
            return job.data.width

    async with await compiled(Host) as t:
        job = await t.queue("images").add("whatever", {"width": 3})
        await t.drain()
        assert await job.result(timeout="5s") == 3


async def test_handlers_of_a_base_class_count() -> None:
    class Base:
        @process("inherited")
        async def inherited(self, job: Job) -> str:
            return type(self).__name__

    @processor("images")
    class Derived(Base): ...

    async with await compiled(Derived) as t:
        job = await t.queue("images").add("inherited", {})
        await t.drain()
        assert await job.result(timeout="5s") == "Derived"


async def test_two_classes_of_one_queue_are_one_worker() -> None:
    @processor("images", concurrency=7)
    class One:
        @process("one")
        async def one(self, job: Job) -> str:
            return "One"

    @processor("images", lock_duration="20s")
    class Two:
        @process("two")
        async def two(self, job: Job) -> str:
            return "Two"

    async with await compiled(One, Two) as t:
        (worker,) = make_workers(t.ctx)
        assert (worker.options.concurrency, worker.options.lock_ms) == (7, 20_000)
        queue = t.queue("images")
        jobs = await queue.add_many([queue.job("one", {}), queue.job("two", {})])
        await t.drain()
        assert [await job.result(timeout="5s") for job in jobs] == ["One", "Two"]


async def test_what_a_factory_makes_handles_jobs_too() -> None:
    @processor("images")
    class Made:
        def __init__(self, size: int) -> None:
            self.size = size

        @process()
        async def run(self, job: Job) -> int:
            return self.size

    def make() -> Made:
        return Made(3)

    async with await compiled(provide(Made, use_factory=make)) as t:
        job = await t.queue("images").add("x", {})
        await t.drain()
        assert await job.result(timeout="5s") == 3


async def test_data_that_does_not_fit_fails_for_good_without_a_call(prefix: str, server: Server) -> None:
    async with await compiled(ByName) as t:
        outside = Queue("images", prefix=prefix, server=server, clock=t.clock)  # knows no handlers, as another process would not
        job = await outside.add("crop", {"width": "wide"}, attempts=5)
        await t.drain()
        found = await t.queue("images").get_job(job.id)
        assert (await found.get_state(), found.attempts_made) == ("failed", 1)
        assert found.failed_reason is not None
        assert "width" in found.failed_reason


# ── how long it lives ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_processor_that_needs_nothing_of_the_job_exists_once() -> None:
    @processor("images")
    class Single:
        def __init__(self, notes: Notes) -> None:
            notes.add("made")

        @process()
        async def run(self, job: Job) -> None: ...

    async with await compiled(Single) as t:
        await t.queue("images").add_many([t.queue("images").job("x", {}) for _ in range(3)])
        await t.drain()
        assert t.get(Notes).lines == ["made"]


async def test_a_processor_that_asks_for_the_job_is_made_for_each_attempt_and_gets_its_data_typed() -> None:
    @processor("images")
    class Scoped:
        def __init__(self, job: Job[Picture, int], notes: Notes) -> None:
            self.job, self.notes = job, notes

        @process(RESIZE)
        async def run(self, job: Job[Picture, int]) -> int:
            assert self.job is job
            self.notes.add(id(self), self.job.data.width, job.attempts_made)
            if job.attempts_made == 0:
                raise ValueError("once")
            return self.job.data.width

    async with await compiled(Scoped) as t:
        job = await t.queue("images").add(RESIZE, Picture(width=8), attempts=2)
        await t.drain()
        assert await job.result(timeout="5s") == 8
        assert [line[1:] for line in t.get(Notes).lines] == [(8, 0), (8, 1)]


class Session:
    """Something that is opened for each attempt, and ends with it."""

    def __init__(self, notes: Notes, job: Job) -> None:
        self.notes, self.job = notes, job


async def session(notes: Notes, job: Job) -> AsyncIterator[Session]:
    notes.add("open", job.name)
    try:
        yield Session(notes, job)
    except ValueError:
        notes.add("rollback", await job.get_state())
        raise
    else:
        notes.add("commit", await job.get_state())
        if job.name == "unclosable":
            raise OSError("commit failed")


@processor("images")
class WithSession:
    def __init__(self, session: Session) -> None:
        self.session = session

    @process()
    async def run(self, job: Job) -> str:
        self.session.notes.add("run", job.name)
        if job.name == "bad":
            raise ValueError("as told")
        return "done"

    @on_queue_completed()
    async def completed(self, job: Job, result: object) -> None:
        self.session.notes.add("heard", result)


SESSION = provide(Session, use_factory=session, scope=Scope.JOB)


async def test_row_11_a_resource_of_an_attempt_is_committed_before_the_job_is_finished_and_a_listener_gets_its_own() -> None:
    async with await compiled(WithSession, SESSION) as t:
        job = await t.queue("images").add("good", {})
        await t.drain()
        assert t.get(Notes).lines == [
            ("open", "good"),
            ("run", "good"),
            ("commit", "active"),
            ("open", "good"),
            ("heard", "done"),
            ("commit", "completed"),
        ]
        assert await job.result(timeout="5s") == "done"


async def test_a_resource_of_a_failed_attempt_is_rolled_back_each_time() -> None:
    async with await compiled(WithSession, SESSION) as t:
        job = await t.queue("images").add("bad", {}, attempts=2)
        await t.drain()
        assert t.get(Notes).lines == [("open", "bad"), ("run", "bad"), ("rollback", "active")] * 2
        assert await job.get_state() == "failed"


async def test_a_resource_that_fails_to_close_fails_the_attempt() -> None:
    async with await compiled(WithSession, SESSION) as t:
        job = await t.queue("images").add("unclosable", {})
        await t.drain()
        found = await t.queue("images").get_job(job.id)
        assert (await found.get_state(), found.failed_reason) == ("failed", "commit failed")
        assert ("heard", "done") not in t.get(Notes).lines


async def test_a_resource_that_fails_to_open_fails_the_attempt_without_a_call() -> None:
    def broken(notes: Notes, job: Job) -> Iterator[Session]:
        if job.attempts_made == 0:
            raise OSError("no connection")
        yield Session(notes, job)

    async with await compiled(WithSession, provide(Session, use_factory=broken, scope=Scope.JOB)) as t:
        job = await t.queue("images").add("good", {}, attempts=2)
        await t.drain()
        assert await job.result(timeout="5s") == "done"
        assert t.get(Notes).lines == [("run", "good"), ("heard", "done")]


@injectable(scope=Scope.JOB)
class Cart:
    def __init__(self, job: Job) -> None: ...


class Left:
    def __init__(self, cart: Cart) -> None:
        self.cart = cart


class Right:
    def __init__(self, cart: Cart) -> None:
        self.cart = cart


async def test_what_several_ask_for_in_one_attempt_is_one_object() -> None:
    @processor("images")
    class Both:
        def __init__(self, left: Left, right: Right) -> None:
            self.left, self.right = left, right

        @process()
        async def run(self, job: Job) -> bool:
            return self.left.cart is self.right.cart

    async with await compiled(Both, Left, Right, Cart) as t:
        job = await t.queue("images").add("x", {})
        await t.drain()
        assert await job.result(timeout="5s") is True


# ── listeners ─────────────────────────────────────────────────────────────────────────────────────────────────


@processor("images")
class Listening:
    def __init__(self, notes: Notes) -> None:
        self.notes = notes

    @process()
    async def run(self, job: Job) -> str:
        await job.update_progress(50)
        if job.name == "bad":
            raise ValueError("as told")
        return "done"

    @on_queue_active()
    async def active(self, job: Job) -> None:
        self.notes.add("active", job.name)

    @on_queue_progress()
    async def progress(self, job: Job, value: object) -> None:
        self.notes.add("progress", value)

    @on_queue_completed()
    def completed(self, job: Job, result: object) -> None:
        self.notes.add("completed", result, threading.current_thread() is threading.main_thread())

    @on_queue_failed()
    async def failed(self, job: Job, error: BaseException, final: bool) -> None:
        self.notes.add("failed", str(error), final)


async def test_listeners_hear_of_a_job_that_completes() -> None:
    async with await compiled(Listening) as t:
        await t.queue("images").add("good", {})
        await t.drain()
        assert t.get(Notes).lines == [("active", "good"), ("progress", 50), ("completed", "done", False)]


async def test_listeners_hear_of_every_failed_attempt_and_whether_it_is_the_last() -> None:
    async with await compiled(Listening) as t:
        await t.queue("images").add("bad", {}, attempts=2)
        await t.drain()
        heard = [line for line in t.get(Notes).lines if line[0] == "failed"]
        assert heard == [("failed", "as told", False), ("failed", "as told", True)]


async def test_a_class_that_only_listens_hears_of_jobs_that_another_class_handles() -> None:
    @processor("images")
    class OnlyListens:
        def __init__(self, notes: Notes) -> None:
            self.notes = notes

        @on_queue_completed()
        async def completed(self, job: Job, result: object) -> None:
            self.notes.add("other class heard", job.name)

    async with await compiled(Listening, OnlyListens) as t:
        await t.queue("images").add("good", {})
        await t.drain()
        assert ("other class heard", "good") in t.get(Notes).lines


async def test_a_listener_that_raises_disturbs_nothing_and_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    @processor("images")
    class Broken:
        def __init__(self, log: JobLogger) -> None: ...

        @process()
        async def run(self, job: Job) -> str:
            return "done"

        @on_queue_completed()
        async def hears(self, job: Job, result: object) -> None:
            raise LookupError("in the listener")

    async with await compiled(Broken) as t:
        job = await t.queue("images").add("x", {})
        await t.drain()
        assert await job.result(timeout="5s") == "done"
    assert "Broken.hears" in caplog.text
    assert "in the listener" in caplog.text


async def test_a_listener_of_a_job_scoped_class_may_be_a_plain_method_in_a_thread() -> None:
    @processor("images")
    class Plain:
        def __init__(self, log: JobLogger, notes: Notes) -> None:
            self.notes = notes

        @process()
        async def run(self, job: Job) -> None: ...

        @on_queue_completed()
        def completed(self, job: Job, result: object) -> None:
            self.notes.add(threading.current_thread() is threading.main_thread())

    async with await compiled(Plain) as t:
        await t.queue("images").add("x", {})
        await t.drain()
        assert t.get(Notes).lines == [False]


# ── logs ──────────────────────────────────────────────────────────────────────────────────────────────────────


@processor("images")
class Logging:
    def __init__(self, log: JobLogger) -> None:
        self.log = log

    @process()
    async def run(self, job: Job) -> None:
        self.log.info("in the handler", extra="field")
        if job.name == "fails once" and job.attempt == 1:
            raise LookupError
        if job.name == "loses its lock":
            await job.queue.server.commands.call("DEL", job.queue.keys.lock(job.id))

    @on_queue_active()
    async def active(self, job: Job) -> None:
        self.log.info("in a listener")

    @on_queue_failed()
    async def failed(self, job: Job, error: BaseException, final: bool) -> None:
        self.log.info(f"failed {job.attempt}")

    @on_queue_completed()
    async def completed(self, job: Job, result: object) -> None:
        self.log.info(f"completed {job.attempt}")

    @on_queue_error()
    async def trouble(self, error: Exception) -> None:
        self.log.warning("in the error listener")


def events(caplog: pytest.LogCaptureFixture) -> dict[str, dict[str, object]]:
    return {one.msg.event: dict(one.msg.fields) for one in caplog.records if isinstance(one.msg, LogEvent) and one.name == "toril.job"}


async def test_a_job_logger_tells_which_job_it_is_in_handler_and_listener(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "toril.job")
    async with await compiled(Logging) as t:
        job = await t.queue("images").add("x", {})
        await t.drain()
    bound = {"queue": "images", "job_id": job.id, "job_name": "x", "attempt": 1}
    assert events(caplog) == {"in the handler": {**bound, "extra": "field"}, "in a listener": bound, "completed 1": bound}


async def test_a_listener_that_hears_of_an_attempts_end_logs_the_attempt_that_ended(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "toril.job")
    async with await compiled(Logging) as t:
        job = await t.queue("images").add("fails once", {}, attempts=2)
        await t.drain()
        found = await t.queue("images").get_job(job.id)
    assert {event: fields["attempt"] for event, fields in events(caplog).items()} == {
        "in the handler": 2, "in a listener": 2, "failed 1": 1, "completed 2": 2,
    }  # fmt: skip
    assert (job.attempt, found.attempt, found.log_fields()["attempt"]) == (1, 2, 2)


async def test_a_job_logger_in_an_error_listener_tells_queue_and_event(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "toril.job")
    async with await compiled(Logging) as t:
        await t.queue("images").add("loses its lock", {})
        await t.drain()
    assert events(caplog)["in the error listener"] == {"queue": "images", "queue_event": "error"}
