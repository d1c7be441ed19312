"""Which option of a handler counts where several say something, and what producers of the same process get to know."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from toril import (
    InjectQueue,
    Job,
    JobDef,
    JobOptions,
    Queue,
    QueueModule,
    QueueOptions,
    QueueToken,
    Scope,
    injectable,
    process,
    processor,
)
from toril.errors import InvalidPayloadError
from toril.modules.workers import make_workers
from toril.testing import Test, TestingModule


class Picture(BaseModel):
    width: int


BOUNDED = JobDef[Picture, int]("bounded", timeout="20s", attempts=5)
UNBOUNDED = JobDef[Picture, int]("unbounded", timeout="20s")


async def compiled(*providers: type, timeout: str | None = None) -> TestingModule:
    options = QueueOptions("images", default_job_options=JobOptions(timeout=timeout, attempts=2))
    return await Test.create_testing_module(imports=[QueueModule.register_queue(options)], providers=providers).compile()


@processor("images")
class Images:
    @process(BOUNDED, timeout="30s")
    async def bounded(self, job: Job[Picture, int]) -> int:
        return job.data.width

    @process(UNBOUNDED)
    async def unbounded(self, job: Job[Picture, int]) -> int:
        return job.data.width

    @process("named", timeout="40s")
    async def named(self, job: Job) -> None: ...


async def test_a_handlers_timeout_comes_before_that_of_definition_and_queue_and_after_that_of_the_call() -> None:
    async with await compiled(Images, timeout="10s") as t:
        queue = t.queue("images")
        data = Picture(width=1)
        said = [
            (await queue.add(BOUNDED, data)).options,
            (await queue.add("bounded", {"width": 1})).options,
            (await queue.add(BOUNDED, data, timeout="5s")).options,
            (await queue.add(UNBOUNDED, data)).options,
            (await queue.add("named")).options,
            (await queue.add("other")).options,
        ]
        # Where the handler decides, the job says nothing: so the next deploy may decide otherwise.
        assert [options.timeout_ms for options in said] == [None, None, 5_000, 20_000, None, 10_000]
        assert [options.attempts for options in said] == [5, 5, 5, 2, 2, 2]
        [worker] = make_workers(t.ctx)
        assert {one.name: one.timeout_ms for one in worker.registry.handlers} == {"bounded": 30_000, "unbounded": None, "named": 40_000}


@processor("images")
class Rest:
    async def process(self, job: Job[Picture, int]) -> int:
        return job.data.width


async def test_the_type_of_a_handler_for_every_name_is_checked_at_add_too() -> None:
    async with await compiled(Rest) as t:
        queue = t.queue("images")
        for name in ("a", "b"):
            with pytest.raises(InvalidPayloadError) as caught:
                await queue.add(name, {"width": "wide"})
            assert (caught.value.name, caught.value.model) == (name, "Picture")
        job: Job[Any, Any] = await queue.add({"width": 3})
        assert job.data == Picture(width=3)
        await t.drain()
        assert await job.result(timeout="5s") == 3


class Made:
    def __init__(self) -> None:
        self.count = 0


@injectable(scope=Scope.TRANSIENT)
@processor("images")
class Fresh:
    def __init__(self, made: Made) -> None:
        made.count += 1

    @process()
    async def run(self, job: Job) -> None: ...


async def test_a_transient_processor_is_made_for_each_attempt() -> None:
    async with await compiled(Made, Fresh) as t:
        await t.queue("images").add_many([t.queue("images").job("a") for _ in range(3)])
        await t.drain()
        assert await t.queue("images").get_completed_count() == 3
        assert t.get(Made).count == 3


class Service:
    def __init__(self, images: Annotated[Queue, InjectQueue("images")]) -> None:
        self.images = images


class FakeQueue:
    def __init__(self) -> None:
        self.added: list[tuple[str, object]] = []

    async def add(self, name: str, data: object) -> None:
        self.added.append((name, data))


async def test_a_test_may_put_an_object_of_its_own_in_the_place_of_a_queue() -> None:
    fake = FakeQueue()
    queues = QueueModule.register_queue("images")
    builder = Test.create_testing_module(imports=[queues], providers=[Service, Images])
    async with await builder.override_provider(QueueToken("images")).use_value(fake).compile() as t:
        await t.get(Service).images.add("named", {"n": 1})
        assert fake.added == [("named", {"n": 1})]
