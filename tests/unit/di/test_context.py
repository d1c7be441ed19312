"""Asking an application context, and its containers."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType
from typing import Any

import pytest
from dependency_injector import containers, providers
from dependency_injector.wiring import Provide, inject

from tests.unit.di.building import app, context_of
from toril.di import (
    AmbiguousToken,
    ApplicationContext,
    DynamicModule,
    JobRef,
    ModuleRef,
    NotFound,
    NotReady,
    OutOfScope,
    Scope,
    WrongScope,
    build_graph,
    injectable,
    module,
    provide,
)


class Mailer: ...


def same(value: object) -> object:
    return value


class EmailService:
    def __init__(self, mailer: Mailer) -> None:
        self.mailer = mailer


class JobLog:
    def __init__(self, job: JobRef) -> None:
        self.job = job


@module(providers=[Mailer, EmailService, JobLog, provide("sender", use_existing=EmailService)], exports=[EmailService])
class EmailModule: ...


async def test_get_finds_a_provider_of_any_module_exported_or_not() -> None:
    async with ApplicationContext(build_graph(app(imports=[EmailModule]))) as ctx:
        service: EmailService = ctx.get(EmailService)
        assert service.mailer is ctx.get(Mailer)


async def test_what_nobody_provides_is_not_found_with_what_is_near() -> None:
    class EmailServise: ...

    async with ApplicationContext(build_graph(app(imports=[EmailModule]))) as ctx:
        with pytest.raises(NotFound) as caught:
            ctx.get(EmailServise)
        assert (caught.value.token, caught.value.hints) == ("EmailServise", ("did you mean EmailService?",))
        assert ctx.get_all(EmailServise) == []
        with pytest.raises(NotFound):
            await ctx.resolve(EmailServise)


async def test_row_05_what_several_modules_provide_is_ambiguous_and_names_them() -> None:
    ctx = context_of(Mailer, imports=[EmailModule])
    async with ctx:
        with pytest.raises(AmbiguousToken) as caught:
            ctx.get(Mailer)
        assert caught.value.modules == ("AppModule", "EmailModule")
        assert "select(Module).get(...)" in str(caught.value)
        assert len(ctx.get_all(Mailer)) == 2
        assert ctx.select(EmailModule).get(Mailer) is ctx.get(EmailService).mailer


async def test_select_sees_what_the_module_sees() -> None:
    async with ApplicationContext(build_graph(app(imports=[EmailModule]))) as ctx:
        root = ctx.select(ctx.graph.root.module)
        assert root.get(EmailService) is ctx.get(EmailService)
        with pytest.raises(NotFound) as caught:
            root.get(Mailer)
        assert caught.value.module == "AppModule"
        assert "does not export it" in str(caught.value)
        with pytest.raises(NotFound):
            ctx.select(module()(type("Elsewhere", (), {})))


async def test_select_of_a_class_with_several_dynamic_modules_is_ambiguous() -> None:
    one, two = DynamicModule(EmailModule, key="one"), DynamicModule(EmailModule, key="two")
    async with ApplicationContext(build_graph(app(imports=[one, two]))) as ctx:
        with pytest.raises(AmbiguousToken):
            ctx.select(EmailModule)
        assert ctx.select(one).get(Mailer) is not ctx.select(two).get(Mailer)


async def test_a_module_ref_is_injected_for_the_module_of_who_asks() -> None:
    class Uses:
        def __init__(self, ref: ModuleRef) -> None:
            self.ref = ref

    @module(providers=[Uses, provide("x", use_value=1)])
    class Inner: ...

    async with ApplicationContext(build_graph(app(imports=[Inner]))) as ctx:
        ref = ctx.get(Uses).ref
        assert (ref.module, ref.get("x")) == (Inner, 1)
        assert await ref.resolve("x") == 1
        assert ref.get(ModuleRef).module is Inner
        assert ctx.get(ModuleRef).module is ctx.graph.root.module
        with pytest.raises(NotFound):
            ref.get("y")


async def test_the_containers_hand_out_the_same_objects() -> None:
    async with ApplicationContext(build_graph(app(imports=[EmailModule]))) as ctx:
        assert ctx.container.email_module.email_service() is ctx.get(EmailService)
        assert ctx.container.email_module.sender() is ctx.get(EmailService)
        assert ctx.container.email_module.email_module() is ctx.get(EmailModule)


async def test_a_job_scoped_provider_of_the_container_answers_inside_a_job_only() -> None:
    ctx = ApplicationContext(build_graph(app(imports=[EmailModule])))
    async with ctx:
        with pytest.raises(OutOfScope):
            ctx.container.email_module.job_log()
        async with ctx.job_scope("J") as scope:
            assert ctx.container.email_module.job_log() is await scope.resolve(JobLog)


async def test_the_container_does_not_exist_before_create() -> None:
    with pytest.raises(NotReady):
        _ = context_of().container


async def test_functions_can_be_wired_to_the_containers() -> None:
    @inject
    def send(service: EmailService = Provide["email_module.email_service"]) -> EmailService:
        return service

    wired = ModuleType("toril_wired_for_test")
    wired.__dict__["send"] = send
    sys.modules[wired.__name__] = wired
    try:
        async with ApplicationContext(build_graph(app(imports=[EmailModule]))) as ctx:
            ctx.container.wire(modules=[wired], warn_unresolved=True)
            assert wired.__dict__["send"]() is ctx.get(EmailService)
            ctx.container.unwire()
    finally:
        del sys.modules[wired.__name__]


async def test_an_override_of_the_package_is_seen_by_the_containers_only() -> None:
    async with ApplicationContext(build_graph(app(imports=[EmailModule]))) as ctx:
        fake = Mailer()
        with ctx.container.email_module.mailer.override(providers.Object(fake)):
            assert ctx.container.email_module.mailer() is fake
            assert ctx.get(Mailer) is not fake


async def test_names_in_containers_are_readable_and_never_shadow_what_containers_have() -> None:
    class HTTPClient: ...

    class Provider2: ...

    names = ["providers", "override", "parent", "wire", "class", "2nd", "a.b", "A B", "a b", "é"]
    ctx = context_of(HTTPClient, Provider2, *(provide(name, use_value=name) for name in names))
    async with ctx:
        inner = ctx.container.app_module
        assert list(inner.providers) == [
            *("http_client", "provider2", "providers_", "override_", "parent_", "wire_", "class_"),
            *("_2nd", "a_b", "a_b_2", "a_b_3", "it", "app_module"),
        ]
        assert inner.providers_() == "providers"


async def test_dynamic_modules_are_found_in_the_root_container_by_their_names() -> None:
    imports = [DynamicModule(EmailModule, key="emails"), DynamicModule(EmailModule, key=2, name="Second"), EmailModule]
    async with ApplicationContext(build_graph(app(imports=imports))) as ctx:
        assert list(ctx.container.providers) == ["app_module", "email_module_emails", "second", "email_module"]


async def test_no_provider_of_a_started_application_hands_out_a_future() -> None:
    async def later() -> int:
        return 1

    class Uses:
        def __init__(self, mailer: Mailer) -> None: ...

    ctx = context_of(Uses, Mailer, provide("later", use_factory=later), provide("on top", use_factory=same, inject=["later"]))
    async with ctx:
        seen = 0
        found: list[Any] = list(ctx.container.traverse())
        for provider in found:
            if not isinstance(provider, providers.Container):
                value: object = provider()
                assert not asyncio.isfuture(value)
                assert not asyncio.iscoroutine(value)
                seen += 1
        assert seen >= 5
        assert ctx.get("on top") == 1


async def test_users_own_containers_are_values_like_any_other() -> None:
    class Theirs(containers.DeclarativeContainer):
        number = providers.Object(5)

    theirs = Theirs()
    async with context_of(provide("theirs", use_value=theirs), provide("provider", use_value=Theirs.number)) as ctx:
        assert ctx.get("theirs") is theirs
        assert ctx.get("provider") is Theirs.number


async def test_a_transient_provider_in_the_container_makes_a_new_one_each_time() -> None:
    @injectable(scope=Scope.TRANSIENT)
    class Brief: ...

    async with context_of(Brief) as ctx:
        assert ctx.container.app_module.brief() is not ctx.container.app_module.brief()


async def test_plans_and_lazies_refuse_what_needs_an_await_in_sync_calls() -> None:
    async def slow(job: JobRef) -> str:
        return f"slow {job}"

    ctx = context_of(provide("slow", use_factory=slow))
    async with ctx, ctx.job_scope("J") as scope:
        with pytest.raises(WrongScope) as caught:
            ctx.container.app_module.slow()
        assert caught.value.reason == "is made by something async or closed after use"
        assert caught.value.instead == "Use `await ....resolve(...)`."
        assert await scope.resolve("slow") == "slow J"
        assert ctx.container.app_module.slow() == "slow J", "once it is made, it can be handed out"
