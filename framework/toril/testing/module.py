"""`Test.create_testing_module(...)`: an application for one test, with replacements, on a real server under a prefix of its own.

    t = await (
        Test.create_testing_module(imports=[EmailModule])
        .override_provider(EmailProvider).use_value(FailingProvider())
        .compile()
    )
    async with t:
        await t.get(EmailService).send_welcome_email(user)
        await t.drain("emails")

Compiled, instances exist and no hook has run; entering the block runs the hooks. Workers run only when the test says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from toril.application import Application, graph_of
from toril.clock import Clock
from toril.di import ApplicationContext, DynamicModule, Overrides, Provider, Token, caller_namespace, module, provide
from toril.di.places import Namespace
from toril.di.tokens import ForwardRef
from toril.durations import Duration, to_ms
from toril.errors import InvalidOptionError
from toril.modules.connections import find
from toril.modules.explorer import register_payloads
from toril.modules.queue_module import ENVIRONMENT, environment_for_test
from toril.modules.tokens import CLOCK, SERVER
from toril.modules.workers import check_served, make_workers, running, wait_until_idle
from toril.queues.queue import Queue
from toril.testing.clock import FakeClock
from toril.testing.environment import TestEnvironment, current_environment
from toril.wire.commands import shift_ttls
from toril.worker.worker import Worker

T = TypeVar("T")


class Test:
    """Makes testing modules."""

    __test__ = False  # not a test class

    @staticmethod
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

    def override_provider(self, token: object) -> ProviderOverride:
        """Replace what every module provides under this token; say by what: `.use_value`, `.use_class`, `.use_factory`."""
        return ProviderOverride(self, token)

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

    async def compile(self) -> TestingModule:
        """Check the graph and make the instances; no hook has run, no worker runs, nothing is connected.

        Raises:
            GraphErrors: with everything that is wrong; also for an override of something that isn't there.
        """
        clock: Clock = self._clock or FakeClock()
        overrides = Overrides(providers=self._providers, modules=self._modules, mocker=self._mocker)
        graph = graph_of(self._root, overrides=overrides, namespace=self._namespace)
        environment = None
        if graph.find_all(ENVIRONMENT):  # it has queues: give them this test's server, prefix and time
            environment = self._environment or current_environment()
            place = environment_for_test(environment.url, environment.prefix)
            ours: list[Provider] = [provide(CLOCK, use_value=clock), provide(ENVIRONMENT, use_factory=place)]
            overrides = replace(overrides, providers=[*ours, *self._providers])  # the test's own come last, and win
            graph = graph_of(self._root, overrides=overrides, namespace=self._namespace)
        ctx = ApplicationContext(graph)
        await ctx.create()
        register_payloads(ctx)
        return TestingModule(Application(ctx), find(ctx, CLOCK) or clock, environment)


class ProviderOverride:
    """By what a provider is replaced."""

    def __init__(self, builder: TestingModuleBuilder, token: Any) -> None:  # noqa: ANN401 -- whatever a token may be
        self._builder, self._token = builder, token

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


class TestingModule:
    """A compiled application for one test. `async with` runs its hooks, and stops and closes everything at the end."""

    __test__ = False

    def __init__(self, app: Application, clock: Clock, environment: TestEnvironment | None) -> None:
        self.app = app
        self.ctx = app.ctx
        self.clock = clock
        self._environment = environment
        self._running: list[Worker] = []

    @overload
    def get(self, token: Token[T]) -> T: ...
    @overload
    def get(self, token: type[T]) -> T: ...
    @overload
    def get(self, token: object) -> Any: ...  # noqa: ANN401 -- a token that says no type
    def get(self, token: object) -> Any:
        """An instance; see `ApplicationContext.get`."""
        return self.ctx.get(token)

    def queue(self, name: str) -> Queue[Any, Any]:
        """A registered queue. Raises NotFound, with what is near."""
        return self.app.queue(name)

    async def init(self) -> None:
        """Run the hooks of starting, once. `async with` does it."""
        await self.ctx.init()

    async def close(self) -> None:
        """Run the hooks of stopping, and close everything; also before `init`, and a second time. `async with` does it."""
        await self.app.stop()

    async def __aenter__(self) -> Self:
        await self.init()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def drain(self, *queues: str) -> None:
        """Run the workers of these queues (none: of all) until nothing is left to run at this moment, and stop them.

        What is delayed stays, retries with backoff among it: move the clock with `advance` and drain again.

        Raises:
            InvalidOptionError: a queue has no processor here.
        """
        check_served(self.ctx.graph, queues, "drain")
        workers = make_workers(self.ctx, only_queues=queues or None)
        self._running += workers
        try:
            async with running(workers):
                await wait_until_idle(workers)
        finally:
            self._running = [worker for worker in self._running if worker not in workers]

    async def advance(self, duration: Duration) -> None:
        """Let time pass: for the clock, and for every key with a time to live under the test's prefix. Then drain to see what it did.

        It is one jump, or, while a `drain` runs, many that are short enough for the locks of running jobs to be renewed.

        Raises:
            InvalidOptionError: the clock is no FakeClock, which nobody can move.
        """
        if not isinstance(self.clock, FakeClock):
            raise InvalidOptionError("advance", duration, "the clock of this testing module is real: leave out use_clock(), or wait")
        left_ms = to_ms(duration, "advance")
        while True:
            step_ms = min([left_ms, *(worker.options.lock_ms // 3 for worker in self._running)])
            await self._jump(self.clock, step_ms)
            left_ms -= step_ms
            if left_ms == 0:
                return

    async def _jump(self, clock: FakeClock, by_ms: int) -> None:
        clock.advance(timedelta(milliseconds=by_ms))
        server = find(self.ctx, SERVER)
        if server is not None and self._environment is not None:
            await shift_ttls(server, self._environment.prefix, by_ms)
        await clock.settle()
