"""Hooks and states: the order of starting and stopping, and what happens when a step fails, hangs or is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.unit.di.building import app, context_of
from toril.clock import SystemClock, Timer
from toril.di import (
    ApplicationContext,
    ContextState,
    DynamicModule,
    Hook,
    JobRef,
    NotReady,
    OnModuleInit,
    Scope,
    build_graph,
    injectable,
    module,
    provide,
)

LOG: list[str] = []


@pytest.fixture(autouse=True)
def _empty_log() -> None:
    LOG.clear()


class Hooked:
    """Has every hook, plain and async in turn."""

    def _log(self, what: str) -> None:
        LOG.append(f"{type(self).__name__}.{what}")

    async def on_module_init(self) -> None:
        self._log("init")

    def on_application_bootstrap(self) -> None:
        self._log("bootstrap")

    async def on_module_destroy(self) -> None:
        self._log("destroy")

    def before_application_shutdown(self, signal: str | None) -> None:
        self._log(f"before({signal})")

    async def on_application_shutdown(self, signal: str | None) -> None:
        self._log(f"shutdown({signal})")


class A(Hooked): ...


class B(Hooked):
    def __init__(self, a: A) -> None: ...


def test_the_protocols_fit_classes_with_the_methods() -> None:
    assert isinstance(A(), OnModuleInit)
    assert not isinstance(object(), OnModuleInit)


async def test_row_16_hooks_run_dependencies_first_at_start_and_in_reverse_at_stop() -> None:
    async def pool(b: B) -> AsyncIterator[str]:
        LOG.append("pool opened")
        yield "pool"
        LOG.append("pool closed")

    class Root(Hooked): ...

    root = module(providers=[B, A, provide("pool", use_factory=pool)])(Root)
    ctx = ApplicationContext(build_graph(DynamicModule(root)))
    await ctx.create()
    assert LOG == ["pool opened"]
    await ctx.init()
    assert LOG[1:] == ["A.init", "B.init", "Root.init", "A.bootstrap", "B.bootstrap", "Root.bootstrap"]
    LOG.clear()
    await ctx.close(signal="SIGTERM")
    assert [
        *("Root.destroy", "B.destroy", "A.destroy"),
        *("Root.before(SIGTERM)", "B.before(SIGTERM)", "A.before(SIGTERM)"),
        *("Root.shutdown(SIGTERM)", "B.shutdown(SIGTERM)", "A.shutdown(SIGTERM)"),
        "pool closed",
    ] == LOG


async def test_created_is_a_state_of_its_own_in_which_instances_exist_and_no_hook_has_run() -> None:
    ctx = context_of(A, B)
    seen = [ctx.state]
    with pytest.raises(NotReady) as caught:
        ctx.get(A)
    assert (caught.value.what, caught.value.state) == ("A", "new")
    await ctx.create()
    seen.append(ctx.state)
    assert isinstance(ctx.get(A), A)
    assert LOG == []
    await ctx.init()
    seen.append(ctx.state)
    await ctx.close()
    seen.append(ctx.state)
    assert seen == [ContextState.NEW, ContextState.CREATED, ContextState.RUNNING, ContextState.CLOSED]
    with pytest.raises(NotReady):
        ctx.get(A)


async def test_starting_twice_is_refused_and_closing_twice_does_nothing() -> None:
    ctx = context_of(A)
    await ctx.start()
    with pytest.raises(NotReady):
        await ctx.start()
    with pytest.raises(NotReady):
        await ctx.create()
    await ctx.close()
    LOG.clear()
    await ctx.close()
    assert LOG == []


async def test_a_context_that_never_started_can_be_closed() -> None:
    ctx = context_of(A)
    await ctx.close()
    assert ctx.state is ContextState.CLOSED
    assert LOG == []


async def test_entering_a_created_context_only_runs_the_hooks() -> None:
    ctx = context_of(A)
    await ctx.create()
    async with ctx:
        assert ctx.state is ContextState.RUNNING


async def test_a_concurrent_close_waits_for_the_first() -> None:
    gate = asyncio.Event()

    class Slow:
        async def on_module_destroy(self) -> None:
            await gate.wait()
            LOG.append("destroyed")

    ctx = context_of(Slow)
    await ctx.start()
    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.close())
        await asyncio.sleep(0)
        second = group.create_task(ctx.close())
        await asyncio.sleep(0)
        assert not second.done()
        gate.set()
    assert LOG == ["destroyed"]


async def test_an_alias_gets_no_hooks_and_one_value_under_two_tokens_gets_them_once() -> None:
    value = A()
    providers = [provide("one", use_value=value), provide("two", use_value=value), provide("three", use_existing="one")]
    async with context_of(*providers):
        assert LOG == ["A.init", "A.bootstrap"]


async def test_row_17_transient_and_job_scoped_instances_get_no_hooks() -> None:
    @injectable(scope=Scope.TRANSIENT)
    class Brief(Hooked): ...

    @injectable(scope=Scope.JOB)
    class InJob(Hooked):
        def __init__(self, job: JobRef) -> None: ...

    ctx = context_of(Brief, InJob)
    async with ctx, ctx.job_scope("J") as scope:
        await scope.resolve(InJob)
        await ctx.resolve(Brief)
    assert LOG == []


async def test_a_shutdown_hook_may_leave_out_the_signal() -> None:
    class Short:
        def on_application_shutdown(self) -> None:
            LOG.append("shutdown")

    async with context_of(Short):
        pass
    assert LOG == ["shutdown"]


def fail(text: str) -> None:
    raise ValueError(text)


class FailsToStop(Hooked):
    async def on_module_destroy(self) -> None:
        raise ValueError("destroy")

    async def on_application_shutdown(self, signal: str | None) -> None:
        raise KeyError("shutdown")


async def test_errors_of_stopping_are_collected_and_stop_nothing() -> None:
    async def resource() -> AsyncIterator[int]:
        yield 1
        raise OSError("close")

    ctx = context_of(A, FailsToStop, provide("r", use_factory=resource))
    await ctx.start()
    LOG.clear()
    with pytest.raises(ExceptionGroup) as caught:
        await ctx.close()
    assert [type(error) for error in caught.value.exceptions] == [ValueError, KeyError, OSError]
    assert [error.__notes__ for error in caught.value.exceptions] == [
        ["while running on_module_destroy of FailsToStop in AppModule"],
        ["while running on_application_shutdown of FailsToStop in AppModule"],
        ["while running the teardown of 'r' in AppModule"],
    ]
    assert LOG == ["A.destroy", "FailsToStop.before(None)", "A.before(None)", "A.shutdown(None)"]
    assert ctx.state is ContextState.CLOSED


async def test_the_stages_of_stopping_can_be_run_one_by_one_and_each_runs_once() -> None:
    ctx = context_of(A, FailsToStop)
    await ctx.start()
    LOG.clear()
    errors = await ctx.stop(Hook.MODULE_DESTROY)
    assert [str(error) for error in errors] == ["destroy"]
    assert ctx.state.value == "closing"
    assert LOG == ["A.destroy"]
    assert await ctx.stop(Hook.MODULE_DESTROY) == []
    errors += await ctx.stop(Hook.BEFORE_SHUTDOWN, signal="SIGINT")
    assert isinstance(ctx.get(A), A), "until the end, instances can be asked for"
    errors += await ctx.stop(Hook.SHUTDOWN, signal="SIGINT")
    errors += await ctx.release()
    assert len(errors) == 2
    assert ctx.state is ContextState.CLOSED
    await ctx.close()
    with pytest.raises(ValueError, match="hook of starting"):
        await ctx.stop(Hook.MODULE_INIT)


async def test_close_runs_what_the_single_stages_left() -> None:
    ctx = context_of(A)
    await ctx.start()
    LOG.clear()
    await ctx.stop(Hook.MODULE_DESTROY)
    await ctx.close()
    assert LOG == ["A.destroy", "A.before(None)", "A.shutdown(None)"]


class ManualClock(SystemClock):
    """Its timeouts end when the test says so."""

    def __init__(self) -> None:
        self.blocks: list[asyncio.Timeout] = []

    def timeout(self, delay_ms: float) -> asyncio.Timeout:
        self.blocks.append(asyncio.timeout(None))
        return self.blocks[-1]

    def expire(self) -> None:
        self.blocks[-1].reschedule(asyncio.get_running_loop().time())

    def call_later(self, delay_ms: float, callback: object) -> Timer:
        raise AssertionError("limits are timeouts")


async def test_a_hook_that_hangs_is_cancelled_at_its_limit_and_the_rest_goes_on() -> None:
    clock = ManualClock()

    class Hangs:
        async def on_module_destroy(self) -> None:
            clock.expire()
            await asyncio.Event().wait()

    ctx = ApplicationContext(build_graph(app(providers=[A, Hangs])), clock=clock)
    await ctx.start()
    LOG.clear()
    with pytest.raises(ExceptionGroup) as caught:
        await ctx.close(limit_ms=5_000)
    (error,) = caught.value.exceptions
    assert isinstance(error, TimeoutError)
    assert str(error) == "on_module_destroy of Hangs in AppModule took longer than 5s and was cancelled"
    assert LOG == ["A.destroy", "A.before(None)", "A.shutdown(None)"]


async def test_an_async_factory_that_hangs_is_cancelled_at_its_limit() -> None:
    clock = ManualClock()

    async def hangs() -> int:
        clock.expire()
        await asyncio.Event().wait()
        return 1

    ctx = ApplicationContext(build_graph(app(providers=[provide("n", use_factory=hangs)])), clock=clock)
    with pytest.raises(TimeoutError, match="'n' in AppModule took longer than 1s"):
        await ctx.start(limit_ms=1_000)
    assert ctx.state is ContextState.CLOSED


async def test_a_timeout_of_the_hooks_own_stays_its_own() -> None:
    class Own:
        async def on_module_init(self) -> None:
            raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await context_of(Own).start(limit_ms=60_000)


async def test_a_failing_start_closes_exactly_what_was_created() -> None:
    async def opened() -> AsyncIterator[int]:
        LOG.append("opened")
        yield 1
        LOG.append("closed")

    async def fails() -> AsyncIterator[int]:
        fail("no server")
        yield 1

    async def never() -> AsyncIterator[int]:
        LOG.append("never")
        yield 1

    providers = [provide("a", use_factory=opened), A, provide("b", use_factory=fails), provide("c", use_factory=never)]
    ctx = context_of(*providers)
    with pytest.raises(ValueError, match="no server") as caught:
        await ctx.start()
    assert caught.value.__notes__ == ["while creating 'b' in AppModule"]
    assert LOG == ["opened", "A.destroy", "A.before(None)", "A.shutdown(None)", "closed"]
    assert ctx.state is ContextState.CLOSED


async def test_a_failing_init_hook_closes_everything_and_what_fails_then_is_noted() -> None:
    class Fails:
        async def on_application_bootstrap(self) -> None:
            raise ValueError("not today")

    ctx = context_of(A, FailsToStop, Fails)
    with pytest.raises(ValueError, match="not today") as caught:
        await ctx.start()
    assert caught.value.__notes__ == [
        "while running on_application_bootstrap of Fails in AppModule",
        "and while closing what existed: ValueError: destroy",
        "and while closing what existed: KeyError: 'shutdown'",
    ]
    assert "A.shutdown(None)" in LOG


async def test_a_cancelled_close_still_runs_every_step_and_then_lets_the_cancellation_out() -> None:
    waiting = asyncio.Event()

    class Waits:
        async def on_module_destroy(self) -> None:
            waiting.set()
            await asyncio.Event().wait()

    async def resource() -> AsyncIterator[int]:
        yield 1
        LOG.append("closed")

    ctx = context_of(provide("r", use_factory=resource), A, Waits)
    await ctx.start()
    LOG.clear()
    task = asyncio.create_task(ctx.close())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert LOG == ["A.destroy", "A.before(None)", "A.shutdown(None)", "closed"]
    assert ctx.state is ContextState.CLOSED


async def test_a_cancelled_start_closes_what_exists() -> None:
    waiting = asyncio.Event()

    async def resource() -> AsyncIterator[int]:
        yield 1
        LOG.append("closed")

    async def hangs() -> int:
        waiting.set()
        await asyncio.Event().wait()
        return 1

    ctx = context_of(provide("r", use_factory=resource), provide("n", use_factory=hangs))
    task = asyncio.create_task(ctx.start())
    await waiting.wait()
    with pytest.raises(NotReady):
        await ctx.close()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert LOG == ["closed"]
    assert ctx.state is ContextState.CLOSED


async def test_a_hook_that_lets_a_foreign_cancellation_out_is_an_error_like_any_other() -> None:
    class Confused:
        async def on_module_destroy(self) -> None:
            raise asyncio.CancelledError

    ctx = context_of(A, Confused)
    await ctx.start()
    with pytest.raises(ExceptionGroup) as caught:
        await ctx.close()
    assert "although nobody cancelled it" in str(caught.value.exceptions[0])
    assert "A.shutdown(None)" in LOG
