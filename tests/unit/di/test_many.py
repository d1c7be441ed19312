"""Several values under one token: who sees which, in what order, and how long they live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import pytest

from tests.unit.di.building import app, context_of, only_error
from toril.di import (
    INQUIRER,
    ApplicationContext,
    DynamicModule,
    GraphErrors,
    Inject,
    JobRef,
    Lazy,
    ManyToken,
    ModuleRef,
    OutOfScope,
    Overrides,
    Scope,
    UnresolvedDependency,
    WrongScope,
    build_graph,
    global_module,
    injectable,
    module,
    provide,
)


class Check:
    """Something to collect."""


class Redis(Check): ...


class Disk(Check): ...


CHECKS = ManyToken[Check]("CHECKS")
NUMBERS = ManyToken[int]("NUMBERS")
NAMED = ManyToken["Named"]("NAMED")
EVERYWHERE = ManyToken[int]("EVERYWHERE", everywhere=True)


class Health:
    def __init__(self, checks: Annotated[list[Check], Inject(CHECKS)]) -> None:
        self.checks = checks


class Sum:
    def __init__(self, numbers: Annotated[Sequence[int], Inject(NUMBERS)] = ()) -> None:
        self.numbers = numbers


def numbers_module(*numbers: int, imports: tuple[object, ...] = (), exports: tuple[object, ...] = (NUMBERS,)) -> DynamicModule:
    @module(imports=imports, providers=[provide(NUMBERS, use_value=number) for number in numbers], exports=exports)
    class Numbers: ...

    return DynamicModule(Numbers, name=f"Numbers{numbers}")


async def test_all_that_a_module_provides_under_the_token_comes_as_a_list_in_the_order_of_writing() -> None:
    own = [provide(CHECKS, use_class=Redis), provide(CHECKS, use_existing=Disk), Disk, provide(CHECKS, use_factory=Check, inject=[])]
    async with context_of(*own, Health) as ctx:
        checks = ctx.get(Health).checks
        assert [type(check) for check in checks] == [Redis, Disk, Check]
        assert checks[1] is ctx.get(Disk), "an alias is the same object"
        assert ctx.get_all(CHECKS) == checks


async def test_each_who_asks_gets_a_list_of_its_own_with_the_same_things() -> None:
    class Other:
        def __init__(self, checks: Annotated[list[Check], Inject(CHECKS)]) -> None:
            self.checks = checks

    async with context_of(provide(CHECKS, use_class=Redis), Health, Other) as ctx:
        ctx.get(Other).checks.clear()
        assert len(ctx.get(Health).checks) == 1


async def test_a_module_sees_its_own_then_what_imports_export_then_what_global_modules_export() -> None:
    @global_module
    @module(providers=[provide(NUMBERS, use_value=4)], exports=[NUMBERS])
    class Global: ...

    passed_on = numbers_module(3)
    imports = [Global, numbers_module(2), numbers_module(imports=(passed_on,), exports=(passed_on,)), numbers_module(9, exports=())]
    async with context_of(provide(NUMBERS, use_value=1), Sum, imports=imports) as ctx:
        assert ctx.get(Sum).numbers == [1, 4, 2, 3], "a global module that is imported, too, comes as an import; 9 is not exported"
        assert ctx.select(ctx.graph.root.module).get_all(NUMBERS) == [1, 4, 2, 3]
        assert sorted(ctx.get_all(NUMBERS)) == [1, 2, 3, 4, 9]


async def test_everywhere_means_exported_or_not() -> None:
    @module(providers=[provide(EVERYWHERE, use_value=2)])
    class Hidden: ...

    class Asks:
        def __init__(self, numbers: Annotated[list[int], Inject(EVERYWHERE)]) -> None:
            self.numbers = numbers

    async with context_of(provide(EVERYWHERE, use_value=1), Asks, imports=[Hidden]) as ctx:
        assert ctx.get(Asks).numbers == [1, 2]


async def test_one_thing_on_two_ways_comes_once() -> None:
    shared = numbers_module(1)
    ways = [numbers_module(imports=(shared,), exports=(shared,)), shared]
    async with context_of(Sum, imports=ways) as ctx:
        assert ctx.get(Sum).numbers == [1]


async def test_where_there_is_none_a_default_stays_and_otherwise_it_is_an_error() -> None:
    async with context_of(Sum) as ctx:
        assert ctx.get(Sum).numbers == ()
        assert ctx.get_all(NUMBERS) == []
    error = only_error(app(providers=[Health]), UnresolvedDependency)
    assert error.hints == (
        "nothing is provided under CHECKS: write provide(CHECKS, ...), or give the parameter the default () for an empty list.",
    )


async def test_what_is_not_exported_is_named() -> None:
    @module(providers=[provide(CHECKS, use_class=Redis)])
    class Feature: ...

    error = only_error(app(providers=[Health], imports=[Feature]), UnresolvedDependency)
    assert error.hints == ("CHECKS stands for what Feature provides: import that, and export CHECKS there.",)


async def test_a_job_scoped_one_makes_the_list_and_who_asks_for_it_job_scoped() -> None:
    @injectable(scope=Scope.JOB)
    class OfJob(Check):
        def __init__(self, job: JobRef) -> None:
            self.job = job

    class Root:
        def __init__(self, later: Lazy[Annotated[list[Check], Inject(CHECKS)]]) -> None:
            self.later = later

    async with context_of(provide(CHECKS, use_class=Redis), provide(CHECKS, use_class=OfJob), Health, Root) as ctx:
        assert ctx.graph.find_all(Health)[0].scope is Scope.JOB
        async with ctx.job_scope("job 1") as scope:
            health = await scope.resolve(Health)
            assert [type(each) for each in health.checks] == [Redis, OfJob]
            assert ctx.get(Root).later.get() == health.checks, "the same objects in one job"


async def test_transient_ones_are_made_for_each_list() -> None:
    @injectable(scope=Scope.TRANSIENT)
    class New(Check): ...

    async with context_of(provide(CHECKS, use_class=New), Health, provide("other", use_class=Health)) as ctx:
        assert ctx.get(Health).checks[0] is not ctx.get("other").checks[0]


class Named:
    def __init__(self, inquirer: Annotated[object, Inject(INQUIRER)]) -> None:
        self.inquirer = inquirer


async def named(inquirer: Annotated[object, Inject(INQUIRER)]) -> Named:
    return Named(inquirer)


class Asks:
    def __init__(self, named: Annotated[list[Named], Inject(NAMED)]) -> None:
        self.inquirers = [each.inquirer for each in named]


class AsksInJob(Asks):
    def __init__(self, named: Annotated[list[Named], Inject(NAMED)], job: JobRef) -> None:
        super().__init__(named)


@pytest.mark.parametrize("is_async", [False, True])
async def test_transient_ones_know_who_asked_for_the_list(is_async: bool) -> None:
    by_factory, by_class = provide(NAMED, use_factory=named, scope=Scope.TRANSIENT), provide(NAMED, use_class=Named, scope=Scope.TRANSIENT)
    one = by_factory if is_async else by_class
    async with context_of(one, one, Asks, AsksInJob) as ctx:
        assert ctx.get(Asks).inquirers == [Asks]
        async with ctx.job_scope("job") as scope:
            assert (await scope.resolve(AsksInJob)).inquirers == [AsksInJob]
        assert (await ctx.select(ctx.graph.root.module).create(AsksAgain)).inquirers == [AsksAgain]


class AsksAgain(Asks): ...


async def test_get_of_several_says_how_to_get_them() -> None:
    async with context_of(provide(NUMBERS, use_value=1)) as ctx:
        for ask in (ctx.get, ctx.select(ctx.graph.root.module).get):
            with pytest.raises(WrongScope, match=r"NUMBERS stands for several things.* Use `get_all"):
                ask(NUMBERS)


async def test_an_override_takes_the_place_of_all_that_a_module_has() -> None:
    overrides = Overrides(providers=[provide(NUMBERS, use_value=7)])
    async with context_of(provide(NUMBERS, use_value=1), provide(NUMBERS, use_value=2), Sum, overrides=overrides) as ctx:
        assert ctx.get(Sum).numbers == [7]


async def test_the_same_provider_twice_is_one() -> None:
    async with context_of(provide(CHECKS, use_class=Redis), provide(CHECKS, use_class=Redis), Health) as ctx:
        assert len(ctx.get(Health).checks) == 1


async def test_members_have_names_of_their_own_in_the_container() -> None:
    async with context_of(provide(NUMBERS, use_value=1), provide(NUMBERS, use_value=2)) as ctx:
        container = ctx.container.app_module
        assert (container.numbers(), container.numbers_2()) == (1, 2)


# ── classes that no module provides ───────────────────────────────────────────────────────────────────────────


class Mailer: ...


class Report:
    def __init__(self, mailer: Mailer, numbers: Annotated[list[int], Inject(NUMBERS)], module_ref: ModuleRef) -> None:
        self.mailer, self.numbers, self.module_ref = mailer, numbers, module_ref


async def test_row_19_create_makes_a_class_as_if_the_module_provided_it_each_time_anew() -> None:
    async with context_of(Mailer, provide(NUMBERS, use_value=1)) as ctx:
        module_ref = ctx.select(ctx.graph.root.module)
        one, two = await module_ref.create(Report), await module_ref.create(Report)
        assert one is not two
        assert one.mailer is ctx.get(Mailer)
        assert one.numbers == [1]
        assert Report not in ctx.graph.by_token


async def test_create_waits_for_what_is_async_and_closes_it_with_the_job() -> None:
    log: list[str] = []

    async def session(job: JobRef) -> Any:  # noqa: ANN401  # an async generator
        log.append(f"open for {job}")
        yield "session"
        log.append("close")

    class Import:
        def __init__(self, session: Annotated[str, Inject("session")]) -> None:
            self.session = session

    async with context_of(provide("session", use_factory=session, scope=Scope.JOB)) as ctx:
        async with ctx.job_scope("job 1"):
            made = await ctx.select(ctx.graph.root.module).create(Import)
            assert (made.session, log) == ("session", ["open for job 1"])
        assert log == ["open for job 1", "close"]
        with pytest.raises(OutOfScope):
            await ctx.select(ctx.graph.root.module).create(Import)


async def test_create_of_what_the_module_can_not_see_is_an_error_with_its_place() -> None:
    @module(providers=[Mailer])
    class Elsewhere: ...

    ctx = ApplicationContext(build_graph(app(imports=[Elsewhere], providers=[provide(NUMBERS, use_value=1)])))
    async with ctx:
        module_ref = ctx.select(ctx.graph.root.module)
        for _ in range(2):
            with pytest.raises(GraphErrors, match="Mailer is provided by Elsewhere, which does not export it") as caught:
                await module_ref.create(Report)
            (error,) = caught.value.errors
            assert isinstance(error, UnresolvedDependency)


async def test_create_tells_transient_dependencies_who_asks() -> None:
    class Named:
        def __init__(self, inquirer: Annotated[object, Inject(INQUIRER)]) -> None:
            self.inquirer = inquirer

    class Asks:
        def __init__(self, named: Named) -> None:
            self.named = named

    async with context_of(provide(Named, use_class=Named, scope=Scope.TRANSIENT)) as ctx:
        assert (await ctx.select(ctx.graph.root.module).create(Asks)).named.inquirer is Asks
