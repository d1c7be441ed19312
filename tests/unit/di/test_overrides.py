"""What a test replaces in the graph."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import MagicMock

from tests.unit.di.building import app, context_of, only_error
from toril.di import (
    ApplicationContext,
    DynamicModule,
    JobRef,
    Overrides,
    Scope,
    UnknownOverride,
    UnresolvedDependency,
    build_graph,
    injectable,
    module,
    provide,
)


class Unbuildable:
    def __init__(self) -> None:
        raise AssertionError("an overridden provider must not be built")


class NotProvided: ...


class Mailer:
    def __init__(self, unbuildable: Unbuildable, missing: NotProvided) -> None: ...


class Service:
    def __init__(self, mailer: Mailer) -> None:
        self.mailer = mailer


class FakeMailer(Mailer):
    def __init__(self) -> None: ...


async def test_an_overridden_providers_own_dependencies_need_not_exist() -> None:
    fake = FakeMailer()
    async with context_of(Mailer, Service, overrides=Overrides(providers=[provide(Mailer, use_value=fake)])) as ctx:
        assert ctx.get(Service).mailer is fake is ctx.get(Mailer)


async def test_an_override_replaces_the_token_in_every_module() -> None:
    @module(providers=[Mailer, Service])
    class One: ...

    @module(providers=[Mailer, Service])
    class Two: ...

    fake = FakeMailer()
    graph = build_graph(app(imports=[One, Two]), overrides=Overrides(providers=[provide(Mailer, use_value=fake)]))
    async with ApplicationContext(graph) as ctx:
        assert [service.mailer for service in ctx.get_all(Service)] == [fake, fake]
        assert ctx.get(Mailer) is fake, "one object in two modules is not ambiguous"


async def test_an_override_may_be_a_class_or_a_factory_with_dependencies_and_teardown() -> None:
    log: list[str] = []

    class Clock: ...

    async def fake(clock: Clock) -> AsyncIterator[Mailer]:
        yield FakeMailer()
        log.append("closed")

    async with context_of(Clock, Mailer, Service, overrides=Overrides(providers=[provide(Mailer, use_factory=fake)])) as ctx:
        assert isinstance(ctx.get(Service).mailer, FakeMailer)
    assert log == ["closed"]
    async with context_of(Mailer, Service, overrides=Overrides(providers=[provide(Mailer, use_class=FakeMailer)])) as ctx:
        assert isinstance(ctx.get(Service).mailer, FakeMailer)


async def test_an_override_ends_the_job_scope_of_what_it_replaces() -> None:
    class JobMailer:
        def __init__(self, job: JobRef) -> None: ...

    class Uses:
        def __init__(self, mailer: JobMailer) -> None: ...

    graph = build_graph(app(providers=[JobMailer, Uses]), overrides=Overrides(providers=[provide(JobMailer, use_value=1)]))
    assert {binding.scope for binding in graph.bindings} == {Scope.SINGLETON}


def test_row_20_an_unknown_override_is_an_error_with_what_is_near() -> None:
    class Mailr: ...

    error = only_error(
        app(providers=[provide(Mailer, use_value=1)]), UnknownOverride, overrides=Overrides(providers=[provide(Mailr, use_value=1)])
    )
    assert (error.target, error.kind, error.near) == ("Mailr", "provider", ("Mailer",))
    told = "because the graph has no such provider; did you mean Mailer?"
    assert str(error) == f"the provider Mailr can't be overridden ({error.place}), {told}"
    assert error.place.startswith("tests/unit/di/test_overrides.py:")


@module(providers=[provide("n", use_value=1)], exports=["n"])
class Real: ...


@module(providers=[provide("n", use_value=2)], exports=["n"])
class Fake: ...


async def test_row_19_a_module_is_replaced_wherever_it_is_imported_or_exported() -> None:
    @module(imports=[Real], exports=[Real])
    class Between: ...

    graph = build_graph(app(imports=[Between], providers=[provide("m", use_existing="n")]), overrides=Overrides(modules={Real: Fake}))
    assert [node.name for node in graph.nodes] == ["AppModule", "Between", "Fake"]
    async with ApplicationContext(graph) as ctx:
        assert ctx.get("m") == 2


async def test_a_dynamic_module_is_replaced_by_its_class_or_by_itself() -> None:
    dynamic = DynamicModule(Real, key="a")
    for overrides in (Overrides(modules={Real: Fake}), Overrides(modules={dynamic: Fake})):
        graph = build_graph(app(imports=[dynamic]), overrides=overrides)
        assert [node.name for node in graph.nodes] == ["AppModule", "Fake"]


def test_row_20_an_unknown_module_override_is_an_error() -> None:
    @module()
    class Reel: ...

    error = only_error(app(imports=[Real]), UnknownOverride, overrides=Overrides(modules={Reel: Fake}))
    assert (error.target, error.kind, error.near) == ("Reel", "module", ("Real",))


async def test_row_19_a_mocker_is_asked_once_for_each_token_that_is_missing() -> None:
    asked: list[object] = []

    def mocker(token: object) -> object:
        asked.append(token)
        return MagicMock(name=str(token))

    class Also:
        def __init__(self, missing: NotProvided, maybe: Unbuildable | None) -> None:
            self.missing, self.maybe = missing, maybe

    class Again:
        def __init__(self, missing: NotProvided) -> None:
            self.missing = missing

    async with context_of(Also, Again, overrides=Overrides(mocker=mocker)) as ctx:
        assert asked == [NotProvided]
        assert ctx.get(Also).missing is ctx.get(Again).missing is ctx.get(NotProvided)
        assert ctx.get(Also).maybe is None, "what is optional needs no mock"


def test_what_the_mocker_does_not_know_stays_missing() -> None:
    assert only_error(app(providers=[Service]), UnresolvedDependency, overrides=Overrides(mocker=lambda _: None)).consumer == "Service"


async def test_a_mock_is_not_taken_for_something_with_hooks() -> None:
    mock: Any = MagicMock()
    async with context_of(provide("mock", use_value=mock)):
        pass
    assert mock.mock_calls == []


async def test_an_overriding_class_brings_its_own_scope() -> None:
    @injectable(scope=Scope.TRANSIENT)
    class Brief(FakeMailer): ...

    async with context_of(Mailer, overrides=Overrides(providers=[provide(Mailer, use_class=Brief)])) as ctx:
        assert await ctx.resolve(Mailer) is not await ctx.resolve(Mailer)
