"""Handlers that take the job, or its data, and what they want injected: how long each of these lives, and who sees what."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from toril import (
    Inject,
    InjectQueue,
    Job,
    JobDef,
    JobLogger,
    JobRef,
    Lazy,
    ModuleRef,
    Queue,
    QueueModule,
    Scope,
    Token,
    Worker,
    handler,
    injectable,
    module,
    process,
    processor,
    provide,
)
from toril.errors import JobFailedError
from toril.modules.workers import make_workers
from toril.testing import Test, TestingModule


class Picture(BaseModel):
    width: int


class Size(BaseModel):
    pixels: int


RESIZE = JobDef[Picture, Size]("resize")
LIMIT = Token[int]("LIMIT")


class Notes:
    """What happened, in order."""

    def __init__(self) -> None:
        self.lines: list[Any] = []


class Singleton:
    """One for the application."""


@injectable(scope=Scope.TRANSIENT)
class Transient:
    """One for each who asks."""


class Session:
    """One for each attempt; `session` opens and closes it."""


async def session(notes: Notes, job: JobRef) -> AsyncIterator[Session]:
    notes.lines.append(f"open {job.name}")
    try:
        yield Session()
    except ValueError:
        notes.lines.append("roll back")
        raise
    notes.lines.append("commit")


class Repository:
    """Lives as long as the session that it asks for."""

    def __init__(self, session: Session) -> None:
        self.session = session


SHARED = [Notes, Singleton, Transient, Repository, provide(Session, use_factory=session, scope=Scope.JOB), provide(LIMIT, use_value=7)]


async def compiled(*processors: type, providers: list[object] | None = None) -> TestingModule:
    imports = [QueueModule.register_queue("images")]
    return await Test.create_testing_module(imports=imports, providers=[*(providers or SHARED), *processors]).compile()


async def run(t: TestingModule, name: str, data: object = None, *, times: int = 1) -> list[Any]:
    queue = t.queue("images")
    jobs = await queue.add_many([queue.job(name, {} if data is None else data) for _ in range(times)])
    await t.drain("images")
    return [await job.result(timeout="5s") for job in jobs]


async def test_a_handler_may_take_the_data_the_job_or_both() -> None:
    @processor("images")
    class Images:
        @process(RESIZE)
        async def resize(self, picture: Picture) -> Size:
            return Size(pixels=picture.width**2)

        @process("both")
        async def both(self, picture: Picture, *, job: Job) -> str:
            return f"{job.name} {picture.width}"

        @process("in a thread")
        def in_a_thread(self, picture: Picture, notes: Notes) -> bool:
            return threading.current_thread() is not threading.main_thread()

        @process("named")
        async def named(self, *, job: Job[Picture, int]) -> int:
            return job.data.width

        @process("static")
        @staticmethod
        async def static(picture: Picture, limit: Annotated[int, Inject(LIMIT)]) -> int:
            return picture.width * limit

    async with await compiled(Images) as t:
        assert await run(t, "resize", {"width": 3}) == [Size(pixels=9)]
        job = await t.queue("images").add(RESIZE, Picture(width=4))
        await t.drain()
        assert await job.result(timeout="5s") == Size(pixels=16)
        assert await run(t, "both", {"width": 3}) == ["both 3"]
        assert await run(t, "in a thread", {"width": 3}) == [True]
        assert await run(t, "named", {"width": 3}) == [3]
        assert await run(t, "static", {"width": 3}) == [21]


async def test_data_that_does_not_fit_the_parameter_fails_for_good_without_a_call() -> None:
    @processor("images")
    class Images:
        @process("resize")
        async def resize(self, picture: Picture, notes: Notes) -> None:
            notes.lines.append("called")

    async with await compiled(Images) as t:
        queue = Queue("images", prefix=t.queue("images").prefix, server=t.queue("images").server)  # knows no handler, as Node
        job = await queue.add("resize", {"width": "wide"}, attempts=3)
        await t.drain()
        await job.refresh()
        assert (await job.get_state(), job.attempts_made) == ("failed", 1)
        assert "width" in str(job.failed_reason)
        assert t.get(Notes).lines == []


async def test_what_is_injected_lives_as_long_as_its_scope_says() -> None:
    seen: list[tuple[object, ...]] = []

    @processor("images")
    class Images:
        @process("see")
        async def see(self, job: Job, one: Singleton, new: Transient, session: Session, repository: Repository, log: JobLogger) -> None:
            assert repository.session is session
            assert isinstance(log, JobLogger)
            seen.append((self, one, new, session))

    async with await compiled(Images) as t:
        await run(t, "see", times=3)
        assert [len({id(row[index]) for row in seen}) for index in range(4)] == [1, 1, 3, 3]
        assert seen[0][0] is t.get(Images)
        assert seen[0][1] is t.get(Singleton)
        assert sorted(t.get(Notes).lines) == ["commit"] * 3 + ["open see"] * 3


async def test_a_processor_and_its_handler_share_what_one_attempt_made() -> None:
    @processor("images")
    class Images:
        def __init__(self, repository: Repository) -> None:
            self.repository = repository

        @process("share")
        async def share(self, job: Job, session: Session, ref: JobRef) -> bool:
            return self.repository.session is session and ref is job

        @process("plain")
        async def plain(self, picture: Picture) -> int:
            return picture.width

    async with await compiled(Images) as t:
        assert await run(t, "share") == [True]
        assert t.get(Notes).lines == ["open share", "commit"]
        assert await run(t, "plain", {"width": 5}) == [5]


async def test_a_resource_of_a_handler_is_closed_after_the_result_was_serialised_and_rolled_back_when_it_failed() -> None:
    @processor("images")
    class Images:
        @process("fail")
        async def fail(self, job: Job, session: Session) -> None:
            raise ValueError("no")

        @process("misfit")
        async def misfit(self, job: Job, session: Session, notes: Notes) -> int:
            notes.lines.append("returns")
            wrong: Any = "no number"
            return wrong  # type: ignore[no-any-return]  # a result that lies

    async with await compiled(Images) as t:
        for name, lines in (("fail", ["open fail", "roll back"]), ("misfit", ["open misfit", "returns"])):
            t.get(Notes).lines.clear()
            job = await t.queue("images").add(name)
            await t.drain()
            assert await job.get_state() == "failed"
            assert t.get(Notes).lines == lines


async def test_the_return_annotation_is_the_type_of_the_result_where_no_definition_says_it() -> None:
    @processor("images")
    class Images:
        @process("size")
        async def size(self, picture: Picture) -> Size:
            return Size(pixels=picture.width)

        @process("lie")
        async def lie(self, picture: Picture) -> Size:
            wrong: Any = {"pixels": "many"}
            return wrong  # type: ignore[no-any-return]  # a result that lies

    async with await compiled(Images) as t:
        assert await run(t, "size", {"width": 3}) == [Size(pixels=3)]
        job = await t.queue("images").add("lie", {"width": 3}, attempts=3)
        await t.drain()
        await job.refresh()
        assert (job.attempts_made, await job.get_state()) == (1, "failed")
        assert "pixels" in str(job.failed_reason)


async def test_optional_things_defaults_queues_tokens_lazies_and_module_refs_are_injected_as_in_a_constructor() -> None:
    @processor("images")
    class Images:
        @process("ask")
        async def ask(
            self,
            job: Job,
            images: Annotated[Queue, InjectQueue("images")],
            missing: Queue | None,
            number: int = 3,
            *,
            limit: Annotated[int, Inject(LIMIT)],
            lazy: Lazy[Session],
            ref: ModuleRef,
        ) -> list[object]:
            session = await lazy.resolve()
            assert session is lazy.get()
            assert await ref.resolve(Repository) is await ref.resolve(Repository)
            assert (await ref.resolve(Repository)).session is session
            return [images.name, missing, number, limit]

    async with await compiled(Images) as t:
        assert await run(t, "ask") == [["images", None, 3, 7]]
        assert t.get(Notes).lines == ["open ask", "commit"]


async def test_each_module_fills_its_own_handlers() -> None:
    @processor("images")
    class Images:
        @process("limit")
        async def limit(self, job: Job, limit: Annotated[int, Inject(LIMIT)]) -> int:
            return limit

    @processor("other")
    class Others(Images):
        """The same method, inherited, in another module."""

    @module(imports=[QueueModule.register_queue("other")], providers=[Others, provide(LIMIT, use_value=8)])
    class OtherModule: ...

    imports = [QueueModule.register_queue("images"), OtherModule]
    t = await Test.create_testing_module(imports=imports, providers=[Images, provide(LIMIT, use_value=7)]).compile()
    async with t:
        jobs = [await t.queue(name).add("limit") for name in ("images", "other")]
        await t.drain()
        assert [await job.result(timeout="5s") for job in jobs] == [7, 8]


async def test_a_test_may_replace_what_a_handler_asks_for() -> None:
    @processor("images")
    class Images:
        @process("limit")
        async def limit(self, job: Job, limit: Annotated[int, Inject(LIMIT)]) -> int:
            return limit

    builder = Test.create_testing_module(imports=[QueueModule.register_queue("images")], providers=[*SHARED, Images])
    async with await builder.override_provider(LIMIT).use_value(9).compile() as t:
        assert await run(t, "limit") == [9]
    asks_in_vain = Test.create_testing_module(imports=[QueueModule.register_queue("images")], providers=[Images])
    async with await asks_in_vain.use_mocker(lambda token: 10 if token is LIMIT else None).compile() as t:
        assert await run(t, "limit") == [10]


async def test_things_that_stay_are_found_once_and_the_plain_handler_is_called_as_it_is() -> None:
    class Uncopied:
        made = 0

        def __init__(self) -> None:
            Uncopied.made += 1

    @processor("images")
    class Images:
        @process("plain")
        async def plain(self, job: Job) -> None: ...

        @process("staying")
        async def staying(self, job: Job, thing: Uncopied, number: int = 2) -> None: ...

    async with await compiled(Images, providers=[Uncopied]) as t:
        (worker,) = make_workers(t.ctx)
        plain, staying = (worker.registry.find(name) for name in ("plain", "staying"))
        assert plain is not None
        assert staying is not None
        assert plain.call == t.get(Images).plain
        assert staying.scope is None  # no scope is opened for its attempts
        assert Uncopied.made == 1


async def test_functions_take_data_too(toril_server_url: str, toril_prefix: str) -> None:
    def square(picture: Picture, power: int = 2) -> Size:
        return Size(pixels=picture.width**power)

    async def fail(number: int) -> None:
        raise ValueError(f"number {number}")

    queue = Queue("images", url=toril_server_url, prefix=toril_prefix)
    async with queue, Worker(queue, [handler(square, RESIZE), handler(fail, "fail")]):
        job = await queue.add(RESIZE, Picture(width=3))
        assert await job.result(timeout="5s") == Size(pixels=9)
        failing = await queue.add("fail", 5)
        with pytest.raises(JobFailedError, match="number 5"):
            await failing.result(timeout="5s")


def generator_session(notes: Notes) -> Iterator[Session]:
    notes.lines.append("open")
    yield Session()
    notes.lines.append("close")


async def test_a_plain_handler_gets_things_that_are_made_in_the_loop_and_closed_after_its_thread_has_returned() -> None:
    @processor("images")
    class Images:
        @process("work")
        def work(self, job: Job, session: Session, notes: Notes) -> str:
            notes.lines.append(threading.current_thread() is threading.main_thread())
            return type(session).__name__

    async with await compiled(Images, providers=[Notes, provide(Session, use_factory=generator_session, scope=Scope.JOB)]) as t:
        assert await run(t, "work") == ["Session"]
        assert t.get(Notes).lines == ["open", False, "close"]


@processor("apart")
class Apart:
    @process("where", executor="process")
    def where(self, picture: Picture, session: Session, notes: Notes, log: JobLogger) -> tuple[int, str]:
        return os.getpid() + picture.width, f"{type(session).__name__} {notes.lines}"


@module(
    imports=[QueueModule.register_queue("apart")],
    providers=[Apart, Notes, provide(Session, use_factory=generator_session, scope=Scope.JOB)],
)
class ApartModule: ...


async def test_a_handler_in_a_child_process_gets_what_its_own_container_has() -> None:
    async with await Test.create_testing_module(imports=[ApartModule]).compile() as t:
        job = await t.queue("apart").add("where", Picture(width=0))
        await t.drain("apart")
        pid, seen = await job.result(timeout="5s")
        assert pid != os.getpid()
        assert seen == "Session ['open']"
        assert t.get(Notes).lines == []
