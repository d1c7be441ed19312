"""Finding decorated classes and methods of what the modules provide."""

from __future__ import annotations

from dataclasses import dataclass
from unittest.mock import MagicMock

import pytest

from tests.unit.di.building import context_of
from toril.di import DiscoveryService, JobRef, Lazy, OutOfScope, Scope, mark, module, provide


@dataclass(frozen=True)
class Check:
    name: str


@dataclass(frozen=True)
class Plugin:
    order: int


class Base:
    @mark(Check("inherited"))
    def inherited(self) -> str:
        return "inherited"

    @mark(Check("overridden"))
    def overridden(self) -> str:
        return "base"


@mark(Plugin(1))
class Redis(Base):
    mock = MagicMock()  # answers to every attribute

    def overridden(self) -> str:
        return "redis"

    @mark(Check("second"))
    @mark(Check("first"))
    async def ping(self) -> str:
        return "pong"

    @staticmethod
    @mark(Check("static"))
    def static() -> str:
        return "static"


class Sub(Redis):
    """Has the methods' notes, not the class'."""


class Health:
    def __init__(self, discovery: DiscoveryService, later: Lazy[DiscoveryService]) -> None:
        self.discovery, self.later = discovery, later


async def test_classes_are_found_by_their_own_notes_in_each_module() -> None:
    @module(providers=[Redis, Sub])
    class Other: ...

    async with context_of(Redis, Health, imports=[Other]) as ctx:
        discovery = ctx.get(Health).discovery
        assert discovery is ctx.get(DiscoveryService)
        assert discovery is ctx.get(Health).later.get()
        found = discovery.classes(Plugin)
        assert [(one.metadata, one.provided.module.__name__, one.provided.cls) for one in found] == [
            (Plugin(1), "AppModule", Redis),
            (Plugin(1), "Other", Redis),
        ]
        assert found[0].provided.instance.get() is not found[1].provided.instance.get()
        assert found[1].provided.instance.get() is ctx.select(Other).get(Redis)


async def test_methods_are_found_bound_and_as_the_subclass_decorates_them() -> None:
    async with context_of(Redis) as ctx:
        found = {one.metadata.name: one for one in ctx.get(DiscoveryService).methods(Check)}
        assert list(found) == ["inherited", "first", "second", "static"]
        assert found["inherited"].bound()() == "inherited"
        assert await found["first"].bound()() == "pong"
        assert found["static"].bound()() == "static"


async def test_providers_lists_everything_that_modules_list_and_their_classes() -> None:
    async with context_of(Redis, provide("other", use_existing=Redis), provide("port", use_value=1)) as ctx:
        providers = ctx.get(DiscoveryService).providers()
        assert [(one.token, one.scope) for one in providers] == [
            (Redis, Scope.SINGLETON),
            ("port", Scope.SINGLETON),
            (ctx.graph.root.module, Scope.SINGLETON),
        ]


async def test_a_job_scoped_instance_is_that_of_the_current_job() -> None:
    @mark(Plugin(2))
    class OfJob:
        def __init__(self, job: JobRef) -> None:
            self.job = job

    async with context_of(OfJob) as ctx:
        (found,) = ctx.get(DiscoveryService).classes(Plugin)
        with pytest.raises(OutOfScope):
            found.provided.instance.get()
        async with ctx.job_scope("job 1") as scope:
            assert found.provided.instance.get() is await scope.resolve(OfJob)
