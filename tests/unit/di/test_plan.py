"""Compiled job plans."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import AsyncIterator
from typing import Annotated

import pytest

from tests.unit.di.building import context_of
from toril.di import (
    ApplicationContext,
    AwaitableValue,
    Inject,
    JobPlan,
    JobRef,
    Lazy,
    ModuleRef,
    NotReady,
    PlanKind,
    Scope,
    injectable,
    provide,
)


class Config: ...


class Log:
    def __init__(self, job: JobRef) -> None:
        self.job = job


class Repo:
    def __init__(self, log: Log, config: Config) -> None:
        self.log, self.config = log, config


class Handler:
    def __init__(self, log: Log, repo: Repo, *, config: Config) -> None:
        self.log, self.repo, self.config = log, repo, config


def plan_of(ctx: ApplicationContext, token: object) -> JobPlan:
    binding = ctx.graph.find(ctx.graph.root, token)
    assert binding is not None
    return ctx.plan_for(binding)


async def test_a_plan_reads_like_what_one_would_write_by_hand() -> None:
    async with context_of(Config, Log, Repo, Handler) as ctx:
        plan = plan_of(ctx, Handler)
        body = plan.source.splitlines()
        assert body[1:] == [
            "    def build(job):",
            "        if job is None: refuse_without_job()",
            "        log_1 = new_log_4(job)",
            "        repo_2 = new_repo_6(log_1, config_5)",
            "        handler_3 = new_handler_7(log_1, repo_2, config=config_5)",
            "        return handler_3",
            "    return build",
        ]
        handler = plan.build("J")
        assert handler.log is handler.repo.log
        assert handler.config is ctx.get(Config)
        assert (plan.kind, plan.is_tracked) == (PlanKind.SYNC, False)
        assert plan_of(ctx, Handler) is plan


async def test_a_singletons_plan_is_a_constant() -> None:
    async with context_of(Config) as ctx:
        plan = plan_of(ctx, Config)
        assert plan.kind is PlanKind.CONSTANT
        assert plan.build("J") is ctx.get(Config)
        async with ctx.job_scope("J") as scope:
            assert await scope.build(plan) is ctx.get(Config)


async def test_an_async_factory_makes_the_plan_async_and_a_generator_gives_it_a_stack() -> None:
    async def made(job: JobRef) -> str:
        return "made"

    async def session(job: JobRef) -> AsyncIterator[str]:
        yield "session"

    class Above:
        def __init__(self, made: Annotated[str, Inject("made")]) -> None:
            self.made = made

    ctx = context_of(provide("made", use_factory=made), provide("session", use_factory=session), Above)
    async with ctx:
        kinds = {token: plan_of(ctx, token).kind for token in ("made", "session", Above)}
        assert kinds == {"made": PlanKind.ASYNC, "session": PlanKind.TEARDOWN, Above: PlanKind.ASYNC}
        async with ctx.job_scope("J") as scope:
            assert (await scope.build(plan_of(ctx, Above))).made == "made"
            assert await scope.build(plan_of(ctx, "session")) == "session"


@pytest.mark.parametrize("asks_later", [False, True])
async def test_plans_are_tracked_only_where_somebody_can_ask_later(asks_later: bool) -> None:
    class Monitor:
        def __init__(self, log: Lazy[Log]) -> None: ...

    async with context_of(Config, Log, Repo, Handler, *([Monitor] if asks_later else [])) as ctx:
        assert plan_of(ctx, Handler).is_tracked is asks_later


async def test_a_lazy_singleton_needs_no_tracking_and_a_module_ref_does() -> None:
    class LazyConfig:
        def __init__(self, config: Lazy[Config]) -> None: ...

    class Refers:
        def __init__(self, ref: ModuleRef) -> None: ...

    assert not context_of(Config, LazyConfig).graph.needs_tracking()
    assert context_of(Refers).graph.needs_tracking()


async def test_tracking_can_be_asked_for() -> None:
    graph = context_of(Config, Log, Repo, Handler).graph
    ctx = ApplicationContext(graph, track_jobs=True)
    async with ctx, ctx.job_scope("J") as scope:
        handler = await scope.build(plan_of(ctx, Handler))
        assert await ctx.resolve(Log) is handler.log


def same_name() -> type:
    def init(self: Log, log: Log) -> None:
        self.job = log

    return type("Same", (Log,), {"__init__": init})


async def test_two_classes_of_one_name_never_get_each_others_objects() -> None:
    one, two = same_name(), same_name()

    class Both:
        def __init__(self, a: Annotated[object, Inject(one)], b: Annotated[object, Inject(two)]) -> None:
            self.a, self.b = a, b

    async with context_of(Log, one, two, Both) as ctx:
        both = plan_of(ctx, Both).build("J")
        assert (type(both.a), type(both.b)) == (one, two)


async def test_names_of_users_never_reach_the_text_unescaped() -> None:
    evil = type("x); import os; (", (), {"__init__": Log.__init__})
    async with context_of(evil) as ctx:
        assert plan_of(ctx, evil).build("J").job == "J"


async def test_a_constructors_error_shows_the_generated_line_while_the_application_runs() -> None:
    class Fails:
        def __init__(self, log: Log) -> None:
            raise ValueError("broken")

    async with context_of(Log, Fails) as ctx:
        plan = plan_of(ctx, Fails)
        with pytest.raises(ValueError, match="broken") as caught:
            plan.build("J")
        text = "".join(traceback.format_exception(caught.value))
        assert "fails_2 = new_fails_4(log_1)" in text
        filename = plan.build.__code__.co_filename
        assert filename in linecache.cache
    assert filename not in linecache.cache
    with pytest.raises(NotReady):
        plan_of(ctx, Fails)


async def test_a_plain_factory_that_returns_a_coroutine_for_a_job_is_refused() -> None:
    async def later() -> int:
        return 1

    def make(job: JobRef) -> object:
        return later()

    async with context_of(provide("n", use_factory=make)) as ctx:
        with pytest.raises(AwaitableValue):
            plan_of(ctx, "n").build("J")


async def test_a_transient_dependency_is_made_anew_in_a_tracked_and_in_a_plain_plan() -> None:
    @injectable(scope=Scope.TRANSIENT)
    class Brief:
        def __init__(self, log: Log, config: Config) -> None:
            self.log = log

    class Uses:
        def __init__(self, one: Brief, two: Brief, log: Log) -> None:
            self.one, self.two, self.log = one, two, log

    for track in (False, True):
        ctx = ApplicationContext(context_of(Config, Log, Brief, Uses).graph, track_jobs=track)
        async with ctx, ctx.job_scope("J") as scope:
            uses = await scope.build(plan_of(ctx, Uses))
            assert uses.one is not uses.two
            assert uses.one.log is uses.two.log is uses.log
