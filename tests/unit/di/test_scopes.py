"""Transient and job scope: who gets which instance, who becomes job-scoped, who must not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Generic, TypeVar

import pytest

from tests.unit.di.building import app, context_of, errors_of, only_error
from toril.di import (
    INQUIRER,
    JOB_REF,
    ApplicationContext,
    CaptiveDependency,
    Inject,
    JobRef,
    Lazy,
    ModuleRef,
    OutOfScope,
    Scope,
    Token,
    UnresolvedDependency,
    WrongScope,
    build_graph,
    current_job,
    current_scope,
    injectable,
    module,
    provide,
)

D = TypeVar("D")


class Job(Generic[D]):
    def __init__(self, id: str) -> None:  # noqa: A002  # as a job calls it
        self.id = id


class JobLog:
    def __init__(self, job: JobRef) -> None:
        self.job = job


class Bubbles:
    def __init__(self, log: JobLog) -> None:
        self.log = log


@injectable(scope=Scope.TRANSIENT)
class Named:
    def __init__(self, inquirer: Annotated[object, Inject(INQUIRER)]) -> None:
        self.inquirer = inquirer


def test_row_10_request_is_another_word_for_job() -> None:
    assert Scope["REQUEST"] is Scope.JOB


async def test_row_10_everything_in_one_job_shares_its_instances_and_other_jobs_have_their_own() -> None:
    class Handler:
        def __init__(self, log: JobLog, bubbles: Bubbles) -> None:
            self.log, self.bubbles = log, bubbles

    ctx = context_of(JobLog, Bubbles, Handler)
    async with ctx:
        async with ctx.job_scope("one") as scope:
            one = await scope.resolve(Handler)
            assert one.log is one.bubbles.log is await scope.resolve(JobLog)
            assert one.log.job == "one"
        async with ctx.job_scope("two") as scope:
            two = await scope.resolve(Handler)
            assert two.log.job == "two"
        assert two.log is not one.log


def test_row_11_what_depends_on_the_job_becomes_job_scoped_itself() -> None:
    graph = build_graph(app(providers=[JobLog, Bubbles]))
    assert [binding.scope for binding in graph.bindings] == [Scope.JOB, Scope.JOB, Scope.SINGLETON]


@injectable(scope=Scope.SINGLETON)
class Strict:
    def __init__(self, bubbles: Bubbles) -> None: ...


class WithHook:
    def __init__(self, log: JobLog) -> None: ...

    async def on_module_init(self) -> None: ...


def test_row_11_a_promised_singleton_that_needs_the_job_is_captive() -> None:
    error = only_error(app(providers=[JobLog, Bubbles, Strict]), CaptiveDependency)
    assert (error.captor, error.module, error.chain) == ("Strict", "AppModule", ("Strict", "Bubbles", "JobLog", "JobRef"))
    assert error.reason == "it is declared singleton"
    assert str(error).startswith("Strict lives as long as the application, JobLog only as long as one job: Strict in AppModule")
    assert "(Strict -> Bubbles -> JobLog -> JobRef), but it is declared singleton.\n- in Strict, ask for `bubbles: Lazy[Bub" in str(error)


def test_row_11_a_singleton_with_hooks_that_needs_the_job_is_captive() -> None:
    error = only_error(app(providers=[JobLog, WithHook]), CaptiveDependency)
    assert error.reason == "it has lifecycle hooks (on_module_init), which run once for the application"


def test_row_11_a_modules_class_that_needs_the_job_is_captive() -> None:
    @module(providers=[JobLog])
    class Root:
        def __init__(self, log: JobLog) -> None: ...

    error = only_error(Root, CaptiveDependency)
    assert error.reason == "it is a module's class, which is created once"
    assert not any("scope=Scope.JOB" in hint for hint in error.hints), "a module's class can't be anything else"


def test_a_captive_factory_and_who_asks_for_the_job_itself_are_told_how_to_write_it() -> None:
    @injectable(scope=Scope.SINGLETON)
    class Asks:
        def __init__(self, job: JobRef) -> None: ...

    def make(log: Annotated[object, Inject("log")]) -> object:
        return log

    made = [provide("log", use_factory=make, inject=[JobLog]), provide("made", use_factory=make, scope=Scope.SINGLETON)]
    asks, factory = errors_of(app(providers=[JobLog, Asks, *made]))
    assert isinstance(asks, CaptiveDependency)
    assert isinstance(factory, CaptiveDependency)
    assert str(asks).startswith("Asks lives as long as the application, the current job only as long as it runs: Asks in AppModule")
    assert asks.hints[0].startswith("in Asks, ask for `job: Lazy[JobRef]`, and call `self.job.get()` while a job runs")
    assert factory.hints[0].startswith("in 'made', ask for `log: Annotated[Lazy[...], Inject('log')]`, and call `log.get()` while")
    assert factory.hints[1].endswith("so that each job gets its own: write `scope=Scope.JOB` in its `provide(...)`.")


def test_who_depends_on_a_captive_singleton_is_not_reported_as_well() -> None:
    class Above:
        def __init__(self, strict: Strict) -> None: ...

    assert len(errors_of(app(providers=[JobLog, Bubbles, Strict, Above]))) == 1


def test_hooks_of_a_class_that_is_job_scoped_by_declaration_are_warned_of() -> None:
    declared = provide(WithHook, use_class=WithHook, scope=Scope.JOB)
    assert build_graph(app(providers=[JobLog, declared])).warnings == [
        "WithHook in AppModule is job-scoped, so its hooks never run: on_module_init"
    ]


async def test_lazy_reaches_the_current_jobs_instance_from_a_singleton() -> None:
    class Monitor:
        def __init__(self, log: Lazy[JobLog], job: Lazy[Annotated[Any, Inject(JOB_REF)]]) -> None:
            self.log, self.job = log, job

    class Handler:
        def __init__(self, log: JobLog, monitor: Monitor) -> None:
            self.log, self.monitor = log, monitor

    ctx = context_of(JobLog, Monitor, Handler)
    async with ctx:
        handler_binding = ctx.graph.find(ctx.graph.root, Handler)
        assert handler_binding is not None
        monitor = ctx.get(Monitor)
        with pytest.raises(OutOfScope, match="JobLog is job-scoped, and there is no current job"):
            monitor.log.get()
        async with ctx.job_scope("J") as scope:
            early = monitor.log.get()
            handler = await scope.build(ctx.plan_for(handler_binding))
            assert handler.log is early is monitor.log.get() is await monitor.log.resolve()
            assert monitor.job.get() == "J"


async def test_row_10_transient_means_a_new_one_for_each_who_asks() -> None:
    class First:
        def __init__(self, named: Named) -> None:
            self.named = named

    class Second:
        def __init__(self, named: Named, again: Named) -> None:
            self.named, self.again = named, again

    async with context_of(Named, First, Second) as ctx:
        first, second = ctx.get(First), ctx.get(Second)
        assert len({id(first.named), id(second.named), id(second.again)}) == 3
        assert (first.named.inquirer, second.named.inquirer) == (First, Second)
        assert (await ctx.resolve(Named)).inquirer is None
        with pytest.raises(WrongScope, match="transient"):
            ctx.get(Named)


def test_inquirer_is_for_transient_providers_only() -> None:
    class Single:
        def __init__(self, inquirer: Annotated[object, Inject(INQUIRER)]) -> None: ...

    error = only_error(app(providers=[Single]), UnresolvedDependency)
    assert error.hints == ("INQUIRER is known to transient providers only: declare scope=Scope.TRANSIENT.",)


async def test_a_transient_provider_of_a_job_knows_its_inquirer_and_shares_the_jobs_instances() -> None:
    class Handler:
        def __init__(self, log: JobLog, named: NamedInJob) -> None:
            self.log, self.named = log, named

    @injectable(scope=Scope.TRANSIENT)
    class NamedInJob:
        def __init__(self, log: JobLog, inquirer: Annotated[object, Inject(INQUIRER)]) -> None:
            self.log, self.inquirer = log, inquirer

    ctx = context_of(JobLog, NamedInJob, Handler)
    async with ctx:
        with pytest.raises(OutOfScope):
            await ctx.resolve(NamedInJob)
        async with ctx.job_scope("J") as scope:
            handler = await scope.resolve(Handler)
            assert handler.named.inquirer is Handler
            assert handler.named.log is handler.log
            other = await scope.resolve(NamedInJob)
            assert other is not handler.named
            assert other.log is handler.log


async def test_a_transient_async_factory_is_awaited_for_each_singleton_that_asks() -> None:
    made: list[object] = []

    async def brief(inquirer: Annotated[object, Inject(INQUIRER)]) -> object:
        await asyncio.sleep(0)
        made.append(inquirer)
        return object()

    class Above:
        """A transient class on top of the async one, which dependency-injector can't make either."""

        def __init__(self, brief: Annotated[object, Inject("brief")]) -> None:
            self.brief = brief

    class First:
        def __init__(self, brief: Annotated[object, Inject("brief")], above: Above) -> None:
            self.brief, self.above = brief, above

    ctx = context_of(
        provide("brief", use_factory=brief, scope=Scope.TRANSIENT), provide(Above, use_class=Above, scope=Scope.TRANSIENT), First
    )
    async with ctx:
        first = ctx.get(First)
        assert first.brief is not first.above.brief
        assert made == [First, Above]
        with pytest.raises(WrongScope, match="resolve"):
            ctx.container.app_module.brief()
        assert isinstance(await ctx.resolve(Above), Above)


async def test_a_transient_generator_lives_as_long_as_who_asked_for_it() -> None:
    log: list[str] = []

    async def session() -> AsyncIterator[str]:
        log.append("opened")
        yield "session"
        log.append("closed")

    class Single:
        def __init__(self, session: Annotated[str, Inject("session")]) -> None: ...

    ctx = context_of(provide("session", use_factory=session, scope=Scope.TRANSIENT), Single)
    async with ctx:
        assert log == ["opened"]
        async with ctx.job_scope("J") as scope:
            await scope.resolve("session")
            assert log == ["opened", "opened"]
        assert log == ["opened", "opened", "closed"]
    assert log == ["opened", "opened", "closed", "closed"]


async def test_a_jobs_generators_are_closed_in_reverse_when_it_ends() -> None:
    log: list[str] = []

    async def session(job: JobRef) -> AsyncIterator[str]:
        log.append(f"session of {job} opened")
        yield f"session of {job}"
        log.append("session closed")

    def transaction(session: Annotated[str, Inject("session")]) -> Iterator[str]:
        yield f"transaction in {session}"
        log.append("transaction closed")

    ctx = context_of(
        provide("session", use_factory=session, scope=Scope.JOB), provide("transaction", use_factory=transaction, scope=Scope.JOB)
    )
    async with ctx:
        async with ctx.job_scope("J") as scope:
            assert await scope.resolve("transaction") == "transaction in session of J"
            assert await scope.resolve("transaction") == "transaction in session of J"
            assert log == ["session of J opened"]
        assert log == ["session of J opened", "transaction closed", "session closed"]


async def run_and_fail(ctx: ApplicationContext) -> None:
    async with ctx.job_scope("J") as scope:
        await scope.resolve("session")
        raise ValueError("handler")


async def test_a_failing_job_is_thrown_into_its_generators_which_can_not_swallow_it() -> None:
    seen: list[BaseException] = []

    async def session(job: JobRef) -> AsyncIterator[str]:
        try:
            yield "session"
        except ValueError as exc:
            seen.append(exc)  # and not raised again

    ctx = context_of(provide("session", use_factory=session))
    async with ctx:
        with pytest.raises(ValueError, match="handler"):
            await run_and_fail(ctx)
        assert [str(error) for error in seen] == ["handler"]


async def test_a_scope_that_fails_to_close_lets_the_error_out_and_ends_all_the_same() -> None:
    async def session(job: JobRef) -> AsyncIterator[str]:
        yield "session"
        raise ValueError("commit failed")

    ctx = context_of(provide("session", use_factory=session))
    async with ctx:
        with pytest.raises(ValueError, match="commit failed"):
            async with ctx.job_scope("J") as scope:
                await scope.resolve("session")
        assert current_scope() is None


async def test_current_job_is_set_for_the_block_and_reset_after_it() -> None:
    ctx = context_of(JobLog)
    async with ctx:
        with pytest.raises(OutOfScope):
            current_job()
        async with ctx.job_scope("one"):
            assert current_job() == "one"
            async with ctx.job_scope("two"):
                assert current_job() == "two"
            assert current_job() == "one"
            assert ctx.get(JOB_REF) == "one"
        with pytest.raises(OutOfScope):
            current_job()


async def test_many_jobs_in_one_task_and_many_tasks_at_once_keep_their_own() -> None:
    ctx = context_of(JobLog, Bubbles)

    async def run(job: str) -> None:
        async with ctx.job_scope(job) as scope:
            first = await scope.resolve(Bubbles)
            await asyncio.sleep(0)
            assert (await ctx.resolve(Bubbles)) is first
            assert first.log.job == job == current_job()

    async with ctx:
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(run(f"t{number}"))
        for number in range(20):
            await run(f"s{number}")


async def test_a_task_that_outlives_its_job_is_out_of_scope() -> None:
    go_on = asyncio.Event()
    ctx = context_of(JobLog)

    async def straggler() -> str:
        await go_on.wait()
        try:
            await ctx.resolve(JobLog)
        except OutOfScope:
            return "out of scope"
        return "resolved"

    async with ctx, asyncio.TaskGroup() as group:
        async with ctx.job_scope("J") as scope:
            task = group.create_task(straggler())
            await asyncio.sleep(0)
        go_on.set()
        assert await task == "out of scope"
        with pytest.raises(OutOfScope):
            await scope.resolve(JobLog)


async def test_a_scope_is_entered_once() -> None:
    ctx = context_of(JobLog)
    async with ctx:
        scope = ctx.job_scope("J")
        async with scope:
            with pytest.raises(WrongScope, match="only once"):
                await scope.__aenter__()
        with pytest.raises(WrongScope) as caught:
            await scope.__aenter__()
    assert str(caught.value) == "a job's scope can be entered only once. Take a new one: `ctx.job_scope(job)`."


async def test_a_job_of_another_application_is_not_ours() -> None:
    ours, theirs = context_of(JobLog), context_of(JobLog)
    async with ours, theirs, theirs.job_scope("J"):
        with pytest.raises(OutOfScope):
            await ours.resolve(JobLog)


async def test_resolve_with_a_job_opens_a_scope_for_the_call() -> None:
    ctx = context_of(JobLog, Bubbles)
    async with ctx:
        assert (await ctx.resolve(Bubbles, "J")).log.job == "J"
        async with ctx.job_scope("K") as scope:
            assert await ctx.resolve(Bubbles, "K") is await scope.resolve(Bubbles)
            assert (await ctx.resolve(Bubbles, "L")).log.job == "L"


async def test_resolve_with_a_job_refuses_what_would_never_be_closed() -> None:
    async def session(job: JobRef) -> AsyncIterator[str]:
        yield "session"

    async with context_of(provide("session", use_factory=session)) as ctx:
        with pytest.raises(WrongScope) as caught:
            await ctx.resolve("session", "J")
    assert caught.value.reason == "has something to close when the job ends"
    assert caught.value.instead == "Use `async with ctx.job_scope(job) as scope: await scope.resolve(...)`."


async def test_get_of_something_job_scoped_is_refused_with_the_way_to_get_it() -> None:
    async with context_of(JobLog) as ctx:
        with pytest.raises(WrongScope) as caught:
            ctx.get(JobLog)
        assert (caught.value.token, caught.value.reason) == ("JobLog", "is job-scoped, so there is no single instance")
        assert caught.value.instead == "Use `await ....resolve(...)`."


async def test_the_layers_own_job_type_means_the_current_job() -> None:
    class Uses:
        def __init__(self, job: Job[int], bare: Job) -> None:  # type: ignore[type-arg]  # pyright: ignore[reportMissingTypeArgument, reportUnknownParameterType]  # what is tested
            self.jobs = (job, bare)  # pyright: ignore[reportUnknownMemberType]

    job = Job[int]("7")
    ctx = context_of(Uses, job_types=[Job])
    async with ctx, ctx.job_scope(job) as scope:
        assert (await scope.resolve(Uses)).jobs == (job, job)  # pyright: ignore[reportUnknownMemberType]
        assert ctx.get(Job) is job
    with pytest.raises(OutOfScope):
        ctx.get(Job)


async def test_a_scope_without_a_job_serves_those_who_can_do_without_and_refuses_the_others() -> None:
    class Either:
        def __init__(self, job: Annotated[Job[int] | None, Inject(JOB_REF)]) -> None:
            self.job = job

    ctx = context_of(JobLog, Either)
    async with ctx, ctx.job_scope(None) as scope:
        assert (await scope.resolve(Either)).job is None
        with pytest.raises(OutOfScope):
            await scope.resolve(JobLog)
        with pytest.raises(OutOfScope):
            current_job()
    chains = {binding.name: [step.name for step in ctx.graph.job_chain(binding)] for binding in ctx.graph.bindings}
    assert chains == {"JobLog": ["JobLog"], "Either": [], "AppModule": []}


def test_job_chain_tells_how_the_job_is_needed() -> None:
    graph = build_graph(app(providers=[JobLog, Bubbles]))
    binding = graph.find(graph.root, Bubbles)
    assert binding is not None
    assert [step.name for step in graph.job_chain(binding)] == ["Bubbles", "JobLog"]


async def test_row_19_module_ref_resolves_the_current_jobs_instance() -> None:
    class Handler:
        def __init__(self, log: JobLog, ref: ModuleRef) -> None:
            self.log, self.ref = log, ref

    ctx = context_of(JobLog, Handler)
    async with ctx:
        binding = ctx.graph.find(ctx.graph.root, Handler)
        assert binding is not None
        async with ctx.job_scope("J") as scope:
            handler = await scope.build(ctx.plan_for(binding))
            assert await handler.ref.resolve(JobLog) is handler.log
            assert await handler.ref.resolve(JOB_REF) == "J"


async def test_two_tasks_of_one_job_that_ask_at_once_share_one_async_instance() -> None:
    started = asyncio.Event()
    made: list[int] = []

    async def slow(job: JobRef) -> object:
        made.append(1)
        started.set()
        for _ in range(5):
            await asyncio.sleep(0)
        return object()

    ctx = context_of(provide("slow", use_factory=slow))
    async with ctx, ctx.job_scope("J") as scope, asyncio.TaskGroup() as group:
        tasks = [group.create_task(scope.resolve("slow")) for _ in range(3)]
        assert len({id(await task) for task in tasks}) == 1
    assert made == [1]


async def test_when_the_one_who_makes_it_is_cancelled_the_next_in_line_tries_again() -> None:
    started = asyncio.Event()
    made: list[int] = []

    async def slow(job: JobRef) -> int:
        made.append(1)
        if len(made) == 1:
            started.set()
            await asyncio.Event().wait()
        return len(made)

    ctx = context_of(provide("slow", use_factory=slow))
    async with ctx, ctx.job_scope("J") as scope, asyncio.TaskGroup() as group:
        first = group.create_task(scope.resolve("slow"))
        await started.wait()
        second = group.create_task(scope.resolve("slow"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == 2


async def test_none_made_for_a_job_is_made_once() -> None:
    calls: list[int] = []

    def nothing(job: JobRef) -> None:
        calls.append(1)

    ctx = context_of(provide("nothing", use_factory=nothing))
    async with ctx, ctx.job_scope("J") as scope:
        assert [await scope.resolve("nothing") for _ in range(3)] == [None] * 3
    assert calls == [1]


COUNT = Token[int]("COUNT")


async def test_job_scoped_values_of_typed_tokens_keep_their_type() -> None:
    def count(job: JobRef) -> int:
        return len(str(job))

    ctx = context_of(provide(COUNT, use_factory=count))
    async with ctx, ctx.job_scope("four") as scope:
        number: int = await scope.resolve(COUNT)
        assert number == 4
