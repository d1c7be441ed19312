"""`Test.create_testing_module`: an application for one test, with replacements, its own time, and its own part of the server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Protocol

import pytest

from toril import (
    Inject,
    InjectQueue,
    Job,
    Queue,
    QueueModule,
    QueueOptions,
    SystemClock,
    Token,
    exponential,
    module,
    process,
    processor,
    provide,
)
from toril.di import GraphErrors, NotFound, UnknownOverride
from toril.errors import InvalidOptionError
from toril.modules.tokens import CLOCK, SERVER
from toril.testing import FakeClock, Test
from toril.testing.environment import NoTestEnvironmentError, current_environment, set_environment
from toril.wire.connection import Server

SENDER = Token[str]("SENDER")


class Mailer(Protocol):
    async def send(self, to: str) -> str: ...


class SmtpMailer:
    async def send(self, to: str) -> str:
        raise AssertionError("a test must not send mails")


class FakeMailer:
    def __init__(self, signature: Annotated[str, Inject(SENDER)] = "nobody") -> None:
        self.signature = signature
        self.sent: list[str] = []
        self.hooks: list[str] = []

    async def send(self, to: str) -> str:
        self.sent.append(to)
        return self.signature

    async def on_module_init(self) -> None:
        self.hooks.append("init")

    async def on_module_destroy(self) -> None:
        self.hooks.append("destroy")


@module(providers=[provide(Mailer, use_class=SmtpMailer), provide(SENDER, use_value="us")], exports=[Mailer, SENDER])
class MailModule: ...


class Failing(Exception):
    pass


@processor("mails")
class Mails:
    def __init__(self, mailer: Mailer) -> None:
        self.mailer = mailer
        self.attempts = 0

    @process("send")
    async def send(self, job: Job[str, str]) -> str:
        return await self.mailer.send(job.data)

    @process("fails once")
    async def fails_once(self, job: Job) -> str:
        self.attempts += 1
        if job.attempts_made == 0:
            raise Failing
        return "at last"

    @process("passes on")
    async def passes_on(self, job: Job) -> None:
        await job.queue.add("send", "somebody")


class Service:
    def __init__(self, mails: Annotated[Queue, InjectQueue("mails")]) -> None:
        self.mails = mails


@module(imports=[MailModule, QueueModule.register_queue("mails", "unserved")], providers=[Mails, Service], exports=[Service])
class AppModule: ...


def application() -> Any:  # noqa: ANN401 -- a builder; the next call says of what
    return Test.create_testing_module(imports=[AppModule])


async def sent_by(builder: Any) -> str:  # noqa: ANN401 -- see above
    async with await builder.compile() as t:
        job = await t.get(Service).mails.add("send", "somebody")
        await t.drain("mails")
        result: str = await job.result(timeout="5s")
        return result


# ── replacements ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_provider_is_replaced_by_a_value() -> None:
    fake = FakeMailer("by value")
    assert await sent_by(application().override_provider(Mailer).use_value(fake)) == "by value"
    assert fake.sent == ["somebody"]


async def test_a_provider_is_replaced_by_a_class_with_its_dependencies() -> None:
    assert await sent_by(application().override_provider(Mailer).use_class(FakeMailer)) == "us"


async def test_a_provider_is_replaced_by_a_factory_whose_rest_runs_at_the_end() -> None:
    closed: list[str] = []

    async def mailer(sender: str) -> AsyncIterator[Mailer]:
        yield FakeMailer(f"{sender}, by factory")
        closed.append("closed")

    assert await sent_by(application().override_provider(Mailer).use_factory(mailer, inject=[SENDER])) == "us, by factory"
    assert closed == ["closed"]


async def test_a_module_is_replaced_wherever_it_is_imported() -> None:
    @module(providers=[provide(Mailer, use_value=FakeMailer("by module"))], exports=[Mailer])
    class OtherMailModule: ...

    assert await sent_by(application().override_module(MailModule).use_module(OtherMailModule)) == "by module"


async def test_a_mocker_gives_what_nothing_provides_and_only_that() -> None:
    asked: list[object] = []

    def mocker(token: object) -> object:
        asked.append(token)
        return FakeMailer("by mocker") if token is Mailer else None

    alone = Test.create_testing_module(imports=[QueueModule.register_queue("mails")], providers=[Mails, Service]).use_mocker(mocker)
    assert await sent_by(alone) == "by mocker"
    assert asked.count(Mailer) >= 1
    assert Service not in asked


async def test_what_a_mocker_does_not_give_stays_missing() -> None:
    alone = Test.create_testing_module(imports=[QueueModule.register_queue("mails")], providers=[Mails]).use_mocker(lambda _: None)
    with pytest.raises(GraphErrors, match="Mailer"):
        await alone.compile()


async def test_an_override_of_what_is_not_there_is_an_error_with_what_is_near() -> None:
    class Maler: ...

    with pytest.raises(GraphErrors) as caught:
        await application().override_provider(Maler).use_value(Maler()).compile()
    (error,) = caught.value.errors
    assert isinstance(error, UnknownOverride)
    assert (error.target, error.kind) == ("Maler", "provider")
    assert "did you mean" in str(error)
    assert "Mailer" in str(error)


async def test_an_override_of_a_module_that_is_not_there_is_an_error() -> None:
    @module()
    class Nowhere: ...

    with pytest.raises(GraphErrors, match="the module Nowhere can't be overridden"):
        await application().override_module(Nowhere).use_module(MailModule).compile()


async def test_hooks_run_with_the_block_and_not_before() -> None:
    fake = FakeMailer()
    t = await application().override_provider(Mailer).use_class(FakeMailer).compile()
    made = t.get(Mailer)
    assert isinstance(made, FakeMailer)
    assert made.hooks == []
    async with t:
        assert made.hooks == ["init"]
    assert made.hooks == ["init", "destroy"]
    await t.close()
    assert made.hooks == ["init", "destroy"]
    assert fake.hooks == []


async def test_a_module_without_queues_needs_no_server() -> None:
    set_environment(None)  # as outside of pytest
    async with await Test.create_testing_module(imports=[MailModule]).override_provider(Mailer).use_class(FakeMailer).compile() as t:
        assert t.get(SENDER) == "us"
        await t.drain()
        await t.advance("1h")


async def test_something_unknown_is_told_with_what_is_near() -> None:
    async with await application().compile() as t:
        with pytest.raises(NotFound):
            t.get(FakeMailer)
        for ask in (t.queue, t.app.queue):
            with pytest.raises(NotFound, match=r"queue 'mail' is not registered; did you mean 'mails'\?"):
                ask("mail")
            with pytest.raises(
                NotFound, match=r"queue 'orders' is not registered: add QueueModule\.register_queue\('orders'\) to the imports"
            ):
                ask("orders")


# ── drain ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_no_worker_runs_unless_the_test_says_so() -> None:
    async with await application().override_provider(Mailer).use_class(FakeMailer).compile() as t:
        job = await t.queue("mails").add("send", "somebody")
        assert await job.get_state() == "waiting"
        assert t.app.workers == ()


async def test_drain_runs_what_handlers_add_too_and_can_be_repeated() -> None:
    fake = FakeMailer()
    async with await application().override_provider(Mailer).use_value(fake).compile() as t:
        for round_ in (1, 2):
            await t.queue("mails").add("passes on", {})
            await t.drain()
            assert fake.sent == ["somebody"] * round_


async def test_drain_of_an_unknown_queue_names_what_is_near() -> None:
    async with await application().compile() as t:
        with pytest.raises(InvalidOptionError, match="did you mean 'mails'"):
            await t.drain("mail")
        with pytest.raises(InvalidOptionError, match="served are: mails"):
            await t.drain("unserved")


async def test_what_is_delayed_stays_until_the_clock_has_moved() -> None:
    fake = FakeMailer()
    async with await application().override_provider(Mailer).use_value(fake).compile() as t:
        job = await t.queue("mails").add("send", "somebody", delay="1h")
        await t.drain("mails")
        await t.advance("59m")
        await t.drain("mails")
        assert (fake.sent, await job.get_state()) == ([], "delayed")
        await t.advance("1m")
        await t.drain("mails")
        assert (fake.sent, await job.get_state()) == (["somebody"], "completed")


async def test_a_retry_with_backoff_waits_for_the_clock() -> None:
    async with await application().override_provider(Mailer).use_class(FakeMailer).compile() as t:
        job = await t.queue("mails").add("fails once", {}, attempts=2, backoff=exponential("1m"))
        await t.drain()
        assert (t.get(Mails).attempts, await job.get_state()) == (1, "delayed")
        await t.advance("1m")
        await t.drain()
        assert await job.result(timeout="5s") == "at last"


# ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_times_to_live_under_the_tests_prefix_pass_with_the_clock(prefix: str, server: Server) -> None:
    async with await application().compile() as t:
        await t.queue("mails").add("send", "somebody")
        keys = [f"{prefix}:mails:lives", f"{prefix}-other:mails:lives", f"toril:{prefix}:lives"]
        for key in (*keys, f"{prefix}x:not ours"):
            await server.commands.call("SET", key, "1", "PX", "60000")
        await t.advance("59s")
        for key in keys:
            assert 0 < await server.commands.call("PTTL", key) <= 1_000
        await t.advance("1s")
        assert [await server.commands.call("EXISTS", key) for key in keys] == [0, 0, 0]
        assert await server.commands.call("PTTL", f"{prefix}x:not ours") > 30_000
        await server.commands.call("DEL", f"{prefix}x:not ours")


async def test_an_own_fake_clock_is_the_applications() -> None:
    clock = FakeClock(1_700_000_000_000)
    async with await application().use_clock(clock).compile() as t:
        job = await t.queue("mails").add("send", "somebody")
        assert t.clock is clock
        assert t.get(CLOCK) is clock
        assert job.timestamp_ms == 1_700_000_000_000


async def test_a_real_clock_can_not_be_moved() -> None:
    async with await application().use_clock(SystemClock()).compile() as t:
        with pytest.raises(InvalidOptionError, match=r"leave out use_clock\(\)"):
            await t.advance("1s")


# ── the server ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_modules_of_one_test_share_its_prefix_and_others_are_apart(toril_server_url: str, prefix: str) -> None:
    async with (
        await application().compile() as one,
        await application().compile() as same,
        await application().use_server(toril_server_url, f"{prefix}-apart").compile() as apart,
    ):
        job = await one.queue("mails").add("send", "somebody")
        assert one.queue("mails").prefix == prefix
        assert (await same.queue("mails").get_job(job.id)).name == "send"
        assert await apart.queue("mails").find_job(job.id) is None
        assert one.get(SERVER) is not apart.get(SERVER)


async def test_everything_is_closed_when_compiling_fails() -> None:
    closed: list[str] = []

    async def resource() -> AsyncIterator[FakeMailer]:
        yield FakeMailer()
        closed.append("closed")

    @module(providers=[provide(FakeMailer, use_factory=resource)], exports=[FakeMailer])
    class ResourceModule: ...

    def broken(_: FakeMailer) -> QueueOptions:
        raise LookupError("no options")

    mails = QueueModule.register_queue_async("mails", use_factory=broken, inject=[FakeMailer], imports=[ResourceModule])
    with pytest.raises(LookupError, match="no options"):
        await Test.create_testing_module(imports=[mails]).compile()
    assert closed == ["closed"]


def test_outside_of_a_test_there_is_no_environment() -> None:
    set_environment(None)
    with pytest.raises(NoTestEnvironmentError, match=r"\.use_server\(url, prefix\)"):
        current_environment()


PROGRAM = """
import asyncio
from toril import QueueModule
from toril.testing import Test
from toril.testing.environment import NoTestEnvironmentError

async def main():
    try:
        await Test.create_testing_module(imports=[QueueModule.register_queue("mails")]).compile()
    except NoTestEnvironmentError as error:
        print(error)

asyncio.run(main())
"""


@pytest.mark.blocks_the_loop
def test_outside_of_pytest_compiling_a_module_with_queues_is_an_error(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    assert "name one with .use_server(url, prefix)" in done.stdout
