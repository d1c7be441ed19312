"""`Test.create_testing_module(...)`: an application for one test, with replacements, on a real server under a prefix of its own.

builder = Test.create_testing_module(imports=[EmailModule]).override_provider(EmailProvider).use_value(FailingProvider())
async with builder.compile() as t:
    await t.get(EmailService).send_welcome_email(user)
    await t.drain("emails")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from toril.application import Application
from toril.calls import explained
from toril.clock import Clock
from toril.creation import creates
from toril.di import ApplicationContext, DynamicModule, Overrides, Provider, caller_namespace, module, provide
from toril.di.places import Namespace
from toril.di.tokens import ForwardRef
from toril.errors import InvalidCallError
from toril.modules.application_graph import FEATURE_CHECKS, graph_of
from toril.modules.connections import find
from toril.modules.queue_module import ENVIRONMENT, environment_at
from toril.modules.queues import prepare_queues
from toril.modules.tokens import CLOCK
from toril.testing.clock import FakeClock
from toril.testing.environment import TestEnvironment, current_environment
from toril.testing.leaks import LeakCheck
from toril.testing.module import TestingModule


class Test:
    """Makes testing modules."""

    __test__ = False  # not a test class

    @staticmethod
    @explained()
    def create_testing_module(
        *, imports: Sequence[object] = (), providers: Sequence[object] = (), exports: Sequence[object] = ()
    ) -> TestingModuleBuilder:
        """Begin a testing module: a root module with these imports and providers."""
        namespace = caller_namespace(1)
        root = module(imports=imports, providers=providers, exports=exports)(type("TestingRootModule", (), {}))
        return TestingModuleBuilder(root, namespace)


class TestingModuleBuilder:
    """Collects replacements until `compile`. Each method returns the builder."""

    __test__ = False

    def __init__(self, root: type, namespace: Namespace | None) -> None:
        self._root = root
        self._namespace = namespace
        self._providers: list[Provider] = []
        self._modules: dict[type | DynamicModule, type | DynamicModule | ForwardRef] = {}
        self._mocker: Callable[[object], object] | None = None
        self._clock: Clock | None = None
        self._environment: TestEnvironment | None = None

    if not TYPE_CHECKING:  # type checkers report by themselves that it can't be entered

        async def __aenter__(self) -> None:
            raise InvalidCallError(
                "Test.create_testing_module", "begins a testing module that is yet to be made: add .compile()", "compile"
            )

        async def __aexit__(self, *_: object) -> None: ...

    def override_provider(self, token: object) -> ProviderOverride:
        """Replace what every module provides under this token; say by what: `.use_value`, `.use_class`, `.use_factory`."""
        return ProviderOverride(self, token)

    def override_interceptor(self, cls: type) -> ProviderOverride:
        """Replace an interceptor wherever its class is used: in `@use_interceptors`, under `APP_INTERCEPTOR`, as a provider."""
        return ProviderOverride(self, cls)

    def override_filter(self, cls: type) -> ProviderOverride:
        """Replace an exception filter wherever its class is used; it then gets the errors that the replaced one would."""
        return ProviderOverride(self, cls)

    def override_module(self, replaced: type | DynamicModule) -> ModuleOverride:
        """Import another module wherever this one is imported: `.use_module(...)`."""
        return ModuleOverride(self, replaced)

    def use_mocker(self, mocker: Callable[[object], object]) -> Self:
        """Inject what `mocker(token)` returns for everything that nothing provides; None: it stays missing."""
        self._mocker = mocker
        return self

    def use_clock(self, clock: Clock) -> Self:
        """Another clock than a `FakeClock` that begins at the real time; `SystemClock()` lets time pass by itself."""
        self._clock = clock
        return self

    def use_server(self, url: str, prefix: str) -> Self:
        """Another server than the plugin's; the caller removes what is left under the prefix."""
        self._environment = TestEnvironment(url, prefix)
        return self

    def add_provider_override(self, provider: Provider) -> Self:
        """Used by `override_provider`."""
        self._providers.append(provider)
        return self

    def add_module_override(self, replaced: type | DynamicModule, by: type | DynamicModule) -> Self:
        """Used by `override_module`."""
        self._modules[replaced] = by
        return self

    @creates
    async def compile(self) -> TestingModule:
        """Check the graph and make the instances, no more; with `async with` enter the module, too.

        Awaited only, no hook has run, no worker runs, nothing is connected.

        Raises:
            GraphErrors: with everything that is wrong; also for an override of something that isn't there.
        """
        clock: Clock = self._clock or FakeClock()
        overrides = Overrides(providers=self._providers, modules=self._modules, mocker=self._mocker)
        graph = graph_of(self._root, overrides=overrides, namespace=self._namespace, checks=FEATURE_CHECKS)
        environment = None
        if graph.find_all(ENVIRONMENT):  # it has queues: give them this test's server, prefix and time
            environment = self._environment or current_environment()
            place = environment_at(environment.url, environment.prefix, is_test=True)
            ours: list[Provider] = [provide(CLOCK, use_value=clock), provide(ENVIRONMENT, use_factory=place)]
            overrides = replace(overrides, providers=[*ours, *self._providers])  # the test's own come last, and win
            graph = graph_of(self._root, overrides=overrides, namespace=self._namespace, checks=FEATURE_CHECKS)
        ctx, leaks = ApplicationContext(graph), LeakCheck()
        with leaks.starting():
            await ctx.create()
        prepare_queues(ctx)
        return TestingModule(Application(ctx), find(ctx, CLOCK) or clock, environment, leaks)


class ProviderOverride:
    """By what a provider is replaced."""

    def __init__(self, builder: TestingModuleBuilder, token: Any) -> None:  # noqa: ANN401 -- whatever a token may be
        self._builder, self._token = builder, token

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            raise AttributeError(
                f"override_provider(…) has no {name!r}: say first by what, with .use_value(…), .use_class(…) or .use_factory(…)",
                name=name,
                obj=self,
            )

    def use_value(self, value: object) -> TestingModuleBuilder:
        """This object."""
        return self._builder.add_provider_override(provide(self._token, use_value=value))

    def use_class(self, cls: type) -> TestingModuleBuilder:
        """An instance of this class, made with its dependencies."""
        return self._builder.add_provider_override(provide(self._token, use_class=cls))

    def use_factory(self, factory: Callable[..., Any], inject: Sequence[object] | None = None) -> TestingModuleBuilder:
        """What this function returns or yields; arguments as in `provide`."""
        return self._builder.add_provider_override(provide(self._token, use_factory=factory, inject=inject))


class ModuleOverride:
    """By what a module is replaced."""

    def __init__(self, builder: TestingModuleBuilder, replaced: type | DynamicModule) -> None:
        self._builder, self._replaced = builder, replaced

    def use_module(self, by: type | DynamicModule) -> TestingModuleBuilder:
        """This module."""
        return self._builder.add_module_override(self._replaced, by)
