"""`QueueModule`: queues registered by name or with options, their defaults, prefixes, and what `add` checks."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from toril import (
    FlowProducer,
    Inject,
    InjectQueue,
    Job,
    JobDef,
    JobOptions,
    KeepJobs,
    Queue,
    QueueModule,
    QueueModuleOptions,
    QueueOptions,
    QueueToken,
    SystemClock,
    Token,
    WorkerFactory,
    exponential,
    fixed,
    module,
    process,
    processor,
    provide,
)
from toril.errors import InvalidOptionError, InvalidPayloadError, NotJsonError
from toril.testing import FakeClock, Test, TestingModule
from toril.wire.connection import Server


class Picture(BaseModel):
    width: int


RESIZE = JobDef[Picture, int]("resize", attempts=7, priority=3)


LIMIT = Token[int]("LIMIT")


@module(providers=[provide(LIMIT, use_value=5)], exports=[LIMIT])
class LimitsModule: ...


class Service:
    def __init__(self, images: Annotated[Queue, InjectQueue("images")]) -> None:
        self.images = images


@processor("images")
class Images:
    @process(RESIZE)
    async def resize(self, job: Job[Picture, int]) -> int:
        return job.data.width

    @process("crop")
    async def crop(self, job: Job[Picture, int]) -> int:
        return job.data.width

    @process()
    async def rest(self, job: Job) -> None: ...


async def compiled(*imports: object, providers: tuple[object, ...] = ()) -> TestingModule:
    return await Test.create_testing_module(imports=imports, providers=providers).compile()


# ── registering ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_several_queues_are_registered_at_once_by_name_and_by_options() -> None:
    several = QueueModule.register_queue("images", QueueOptions("mails", keep_failed=KeepJobs(count=50)), "reports")
    async with await compiled(several, providers=(Service,)) as t:
        assert t.get(Service).images is t.queue("images")
        assert [t.queue(name).name for name in ("images", "mails", "reports")] == ["images", "mails", "reports"]
        assert t.queue("mails").keep_failed == KeepJobs(count=50)


async def test_row_14_modules_that_register_the_same_queue_share_one_object() -> None:
    class First:
        def __init__(self, images: Annotated[Queue, InjectQueue("images")]) -> None:
            self.images = images

    class Second:
        def __init__(self, images: Annotated[Queue[Any, Any], InjectQueue("images")]) -> None:
            self.images = images

    @module(imports=[QueueModule.register_queue("images")], providers=[First], exports=[First])
    class FirstModule: ...

    @module(imports=[QueueModule.register_queue(QueueOptions("images"))], providers=[Second], exports=[Second])
    class SecondModule: ...

    async with await compiled(FirstModule, SecondModule) as t:
        assert t.get(First).images is t.get(Second).images
        assert t.get(QueueToken("images")) is t.get(First).images


async def test_options_may_come_from_a_factory_with_dependencies() -> None:
    async def options(most: int) -> QueueOptions:
        return QueueOptions("images", default_job_options=JobOptions(attempts=most))

    registered = QueueModule.register_queue_async("images", use_factory=options, inject=[LIMIT], imports=[LimitsModule])
    async with await compiled(registered, providers=(Service,)) as t:
        job = await t.get(Service).images.add("x", {})
        assert job.options.attempts == 5


async def test_a_factory_may_say_what_it_needs_by_its_annotations() -> None:
    def options(most: Annotated[int, Inject(LIMIT)]) -> QueueOptions:
        return QueueOptions("images", keep_failed=KeepJobs(count=most))

    async with await compiled(QueueModule.register_queue_async("images", use_factory=options, imports=[LimitsModule])) as t:
        assert t.queue("images").keep_failed == KeepJobs(count=5)


async def test_a_factory_that_returns_the_options_of_another_queue_is_refused() -> None:
    registered = QueueModule.register_queue_async("images", use_factory=lambda: QueueOptions("imgaes"))
    with pytest.raises(InvalidOptionError, match=r"register_queue_async\('images'\) got the options of another queue"):
        await compiled(registered)


async def test_a_queue_of_this_name_only_is_found_with_what_is_near() -> None:
    async with await compiled(QueueModule.register_queue("images")) as t:
        with pytest.raises(Exception, match="image") as caught:
            t.queue("image")
        assert "images" in str(caught.value)


# ── defaults ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_defaults_add_up_from_root_to_call() -> None:
    everywhere = QueueModule.for_root(
        default_job_options=JobOptions(attempts=2, stack_trace_limit=1, keep_logs=11, priority=9, backoff=fixed("1s"))
    )
    images = QueueModule.register_queue(QueueOptions("images", default_job_options=JobOptions(attempts=3, stack_trace_limit=2, priority=8)))
    async with await compiled(everywhere, images, QueueModule.register_queue("plain")) as t:
        plain = await t.queue("plain").add("resize", {"width": 1})
        assert (plain.options.attempts, plain.options.stack_trace_limit, plain.options.keep_logs) == (2, 1, 11)
        assert plain.options.backoff == fixed("1s")
        defined = await t.queue("images").add(RESIZE, Picture(width=1))
        assert (defined.options.attempts, defined.options.stack_trace_limit, defined.options.keep_logs) == (7, 2, 11)
        assert defined.options.priority == 3
        called = await t.queue("images").add(RESIZE, Picture(width=1), attempts=1, backoff=exponential("2s"))
        assert (called.options.attempts, called.options.priority, called.options.backoff) == (1, 3, exponential("2s"))


async def test_a_definition_that_a_handler_names_counts_for_its_name_too() -> None:
    async with await compiled(QueueModule.register_queue("images"), providers=(Images,)) as t:
        job = await t.queue("images").add("resize", {"width": 1})
        assert (job.options.attempts, job.options.priority) == (7, 3)


async def test_defaults_of_one_registration_are_for_the_queues_named_in_it() -> None:
    registered = QueueModule.register_queue(
        "images", QueueOptions("mails", default_job_options=JobOptions(attempts=2)), default_job_options=JobOptions(attempts=6)
    )
    async with await compiled(registered) as t:
        assert (await t.queue("images").add("x", {})).options.attempts == 6
        assert (await t.queue("mails").add("x", {})).options.attempts == 2


async def test_root_options_may_come_from_a_factory() -> None:
    async def options() -> QueueModuleOptions:
        return QueueModuleOptions(default_job_options=JobOptions(attempts=4))

    async with await compiled(QueueModule.for_root_async(use_factory=options), QueueModule.register_queue("images")) as t:
        assert (await t.queue("images").add("x", {})).options.attempts == 4


class RootOptions:
    """Makes options, from what it gets injected."""

    def __init__(self, most: Annotated[int, Inject(LIMIT)]) -> None:
        self.most = most

    async def create_options(self) -> QueueModuleOptions:
        return QueueModuleOptions(default_job_options=JobOptions(attempts=self.most))


class ImageOptions:
    def create_options(self) -> QueueOptions:
        return QueueOptions("images", default_job_options=JobOptions(attempts=8))


@module(providers=[ImageOptions], exports=[ImageOptions])
class ImageOptionsModule: ...


async def test_options_may_come_from_a_class_that_the_module_makes() -> None:
    root = QueueModule.for_root_async(use_class=RootOptions, imports=[LimitsModule])
    async with await compiled(root, QueueModule.register_queue("images")) as t:
        assert (await t.queue("images").add("x", {})).options.attempts == 5


async def test_options_may_come_from_an_object_of_an_imported_module() -> None:
    async with await compiled(QueueModule.register_queue_async("images", use_existing=ImageOptions, imports=[ImageOptionsModule])) as t:
        assert (await t.queue("images").add("x", {})).options.attempts == 8


async def test_what_a_queue_keeps_reaches_the_worker() -> None:
    registered = QueueModule.register_queue(
        QueueOptions("few", keep_completed=KeepJobs(count=2), keep_failed=KeepJobs(count=1)), QueueOptions("all", keep_completed=None)
    )

    @processor("few")
    class Few:
        @process()
        async def run(self, job: Job) -> None:
            if job.name == "bad":
                raise ValueError("as told")

    @processor("all")
    class All:
        @process()
        async def run(self, job: Job) -> None: ...

    async with await compiled(registered, providers=(Few, All)) as t:
        few = t.queue("few")
        await few.add_many([few.job(name, {}) for name in ("good", "bad") * 5])
        await t.queue("all").add_many([t.queue("all").job("good", {}) for _ in range(5)])
        await t.drain()
        counts = await few.get_job_counts()
        assert (counts["completed"], counts["failed"]) == (2, 1)
        assert (await t.queue("all").get_job_counts())["completed"] == 5


async def test_a_queue_keeps_a_bounded_number_unless_told_otherwise() -> None:
    async with await compiled(QueueModule.register_queue("images")) as t:
        assert t.queue("images").keep_completed == KeepJobs(count=1_000, age="24h")
        assert t.queue("images").keep_failed == KeepJobs(count=10_000, age="30d")


# ── prefixes and servers ──────────────────────────────────────────────────────────────────────────────────────


async def test_in_a_test_queues_of_other_prefixes_stay_apart_under_the_tests(prefix: str) -> None:
    registered = QueueModule.register_queue(QueueOptions("images", prefix="other"), "mails")
    async with await compiled(QueueModule.for_root(prefix="mine"), registered) as t:
        assert (t.queue("mails").prefix, t.queue("images").prefix) == (prefix, f"{prefix}-other")


async def test_an_applications_queues_have_the_prefix_of_the_root_or_their_own(toril_server_url: str, prefix: str) -> None:
    registered = QueueModule.register_queue(QueueOptions("images", prefix=f"{prefix}:own"), "mails")

    @module(imports=[QueueModule.for_root(url=toril_server_url, prefix=prefix), registered])
    class AppModule: ...

    async with await WorkerFactory.create(AppModule) as app:
        assert (app.queue("mails").prefix, app.queue("images").prefix) == (prefix, f"{prefix}:own")
        job = await app.queue("images").add("x", {})
        async with Queue("images", prefix=f"{prefix}:own", url=toril_server_url) as same:
            assert (await same.get_job(job.id)).name == "x"


async def test_an_application_without_settings_has_its_server_and_prefix_from_the_environment(
    toril_server_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @module(imports=[QueueModule.register_queue("mails", QueueOptions("images", prefix=f"{prefix}:own"))])
    class AppModule: ...

    monkeypatch.setenv("REDIS_URL", toril_server_url)
    monkeypatch.setenv("TORIL_PREFIX", prefix)
    async with await WorkerFactory.create(AppModule) as app:
        assert (app.queue("mails").prefix, app.queue("images").prefix) == (prefix, f"{prefix}:own")
        job = await app.queue("mails").add("x", {})
    async with Queue("mails") as alone:
        assert (await alone.get_job(job.id)).name == "x"
    assert FlowProducer().prefix == prefix
    assert Queue("mails", prefix="said").prefix == "said"
    monkeypatch.setenv("TORIL_PREFIX", "")
    assert Queue("mails").prefix == "bull"


async def test_all_queues_of_an_application_share_server_and_clock() -> None:
    async with await compiled(QueueModule.register_queue("images", "mails")) as t:
        assert t.queue("images").server is t.queue("mails").server
        assert t.queue("images").clock is t.clock
        assert isinstance(t.queue("images").server, Server)
        assert isinstance(t.clock, FakeClock)


async def test_outside_of_tests_time_passes_by_itself(toril_server_url: str, prefix: str) -> None:
    @module(imports=[QueueModule.for_root(url=toril_server_url, prefix=prefix), QueueModule.register_queue("images")])
    class AppModule: ...

    async with await WorkerFactory.create(AppModule) as app:
        assert isinstance(app.queue("images").clock, SystemClock)


def test_options_do_not_show_the_address() -> None:
    assert "s3cret" not in repr(QueueModuleOptions(url="redis://:s3cret@host"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        QueueModuleOptions().prefix = "x"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]  # on purpose


# ── payloads ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["resize", "crop"])
async def test_what_a_handler_here_takes_is_checked_at_add(name: str) -> None:
    async with await compiled(QueueModule.register_queue("images"), providers=(Images,)) as t:
        queue = t.queue("images")
        with pytest.raises(InvalidPayloadError, match="width"):
            await queue.add(name, {"width": "wide"})
        with pytest.raises(InvalidPayloadError, match="width"):
            await queue.add_many([queue.job(name, {"width": 1}), queue.job(name, {})])
        assert sum((await queue.get_job_counts()).values()) == 0, "nothing was sent"
        await queue.add(name, {"width": 1})
        await queue.add(name, Picture(width=2))


async def test_what_no_handler_here_names_goes_if_it_is_json() -> None:
    async with await compiled(QueueModule.register_queue("images"), providers=(Images,)) as t:
        await t.queue("images").add("elsewhere", {"width": "wide"})
        with pytest.raises(NotJsonError, match="deep"):
            await t.queue("images").add("elsewhere", {"deep": [object()]})
