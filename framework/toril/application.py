"""An application: from a root module to running workers, and back.

    create     scan ► check the whole graph ► make the instances ► reach the server
    start      on_module_init ► on_application_bootstrap ► workers claim ► ready
    stop       not ready ► workers stop (each in its own order, see `worker.py`) ► on_module_destroy ► before_application_shutdown
               ► queues and connections closed ► on_application_shutdown ► generators closed, in reverse

Every step of stopping is bounded, and an error in one doesn't stop the next. A second signal forces: nothing is waited for that
could be put back.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Collection, Generator, Sequence
from enum import Enum
from types import TracebackType
from typing import Any, Final, Self, TypeVar, overload

from toril.cancellation import run_to_end
from toril.clock import SystemClock
from toril.di import ApplicationContext, DynamicModule, Graph, Hook, Overrides, Token, build_graph
from toril.di.overrides import NO_OVERRIDES
from toril.di.places import Namespace
from toril.durations import Duration, to_ms
from toril.errors import QueueClosedError, ServerUnreachableError
from toril.modules.decorators import ProcessorFields
from toril.modules.explorer import check_processors, make_workers, register_payloads
from toril.modules.settings import TorilSettings
from toril.modules.tokens import CLOCK, SERVER, QueueToken, queue_adviser
from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.telemetry.logs import get_logger
from toril.wire.connection import Server
from toril.worker.worker import Worker

log = get_logger(__name__)

T = TypeVar("T")

STEP_LIMIT_MS: Final = 10_000
"""How long one hook or one closing may take, at start and at stop."""

DEFAULT_CONNECT_TIMEOUT: Final = "30s"


class ApplicationState(Enum):
    """Where an application is in its life."""

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"


class WorkerFactory:
    """Makes applications."""

    @staticmethod
    async def create(
        root: type | DynamicModule,
        *,
        overrides: Overrides = NO_OVERRIDES,
        queues: Collection[str] | None = None,
        worker_options: ProcessorFields | None = None,
        shutdown_timeout: Duration | None = None,
        connect_timeout: Duration | None = None,
    ) -> Application:
        """Check the module graph, make its instances, and reach the server.

        Args:
            root: the root module.
            overrides: what a test replaces.
            queues: run the workers of these queues only.
            worker_options: come before those of the processors.
            shutdown_timeout: for running jobs at stop; not set: the settings', else 25 s.
            connect_timeout: how long to wait for the server; not set: the settings', else 30 s.

        Raises:
            GraphErrors: with everything that is wrong in the modules; nothing was created.
            SettingsError, ServerError: what exists is closed again.
        """
        graph = graph_of(root, overrides=overrides)
        for warning in graph.warnings:
            log.warning("module graph", warning=warning)
        ctx = ApplicationContext(graph)
        await ctx.create(limit_ms=STEP_LIMIT_MS)
        app = Application(ctx)
        try:
            settings = find(ctx, TorilSettings)
            if connect_timeout is None:
                connect_timeout = DEFAULT_CONNECT_TIMEOUT if settings is None else settings.connect_timeout
            if shutdown_timeout is None and settings is not None:
                shutdown_timeout = settings.shutdown_timeout
            await app.reach_server(connect_timeout)
            app.make_workers(queues, worker_options, shutdown_timeout)
        except BaseException:
            await run_to_end(app.close())
            raise
        return app


def graph_of(root: type | DynamicModule, *, overrides: Overrides = NO_OVERRIDES, namespace: Namespace | None = None) -> Graph:
    """The checked module graph, with the rules for queues and processors; arguments as in `build_graph`. Raises GraphErrors."""
    return build_graph(root, overrides=overrides, checks=[check_processors], advisers=[queue_adviser], job_types=[Job], namespace=namespace)


async def run_until_idle(workers: Sequence[Worker]) -> None:
    """Run workers until none of them has anything to claim at this moment, and stop them."""
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.run(), name=f"worker of {worker.queue.name}")
        try:
            for worker in workers:
                await worker.wait_until_started()
            while not all(worker.is_idle for worker in workers):
                for worker in workers:  # one may give work to another, so look again until all are idle together
                    await worker.wait_until_idle()
        finally:
            for worker in workers:
                worker.ask_to_stop()


def find(ctx: ApplicationContext, token: type[T] | Token[T]) -> T | None:
    """The singleton under a token, or None if no module provides it."""
    return ctx.get(token) if ctx.graph.find_all(token) else None


class Application:
    """A created application. `WorkerFactory.create` makes it.

    `await app.run()` runs it until a signal comes; `async with app:` runs it for the block.
    """

    def __init__(self, ctx: ApplicationContext) -> None:
        self.ctx = ctx
        self.workers: tuple[Worker, ...] = ()
        self._clock = find(ctx, CLOCK) or SystemClock()
        self._state = ApplicationState.CREATED
        self._stop_asked = asyncio.Event()
        self._ready = asyncio.Event()
        self._signal: str | None = None
        self._runner: asyncio.Task[None] | None = None

    # ── what can be asked ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def state(self) -> ApplicationState:
        return self._state

    @property
    def is_ready(self) -> bool:
        """Whether every worker claims jobs."""
        return self._state is ApplicationState.RUNNING and all(worker.is_ready for worker in self.workers)

    @property
    def left_behind(self) -> int:
        """How many handlers would not end at stop; only the end of the process ends them."""
        return sum(worker.left_behind for worker in self.workers)

    @overload
    def get(self, token: Token[T]) -> T: ...
    @overload
    def get(self, token: type[T]) -> T: ...
    @overload
    def get(self, token: object) -> Any: ...  # noqa: ANN401 -- a token that says no type
    def get(self, token: object) -> Any:
        """An instance from the container; see `ApplicationContext.get`."""
        return self.ctx.get(token)

    def queue(self, name: str) -> Queue[Any, Any]:
        """A registered queue. Raises NotFound, with what is near."""
        return self.ctx.get(QueueToken(name))

    # ── life ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def reach_server(self, timeout: Duration) -> None:
        """Wait until the server answers. Harmless without queues.

        Raises:
            ServerUnreachableError: not in time. ServerRefusedError, ServerTooOldError: at once.
        """
        server = find(self.ctx, SERVER)
        if server is not None:

            def report(error: ServerUnreachableError) -> None:
                log.warning("waiting for the server", reason=str(error))

            await server.wait_until_ready(to_ms(timeout, "connect_timeout"), report)

    def make_workers(
        self, queues: Collection[str] | None = None, options: ProcessorFields | None = None, shutdown_timeout: Duration | None = None
    ) -> None:
        """Make the workers of these queues (None: all that have processors); they run from `start` on.

        Raises:
            NotFound: one of the queues isn't registered, with what is near.
        """
        for name in queues or ():
            self.queue(name)
        register_payloads(self.ctx)
        self.workers = tuple(make_workers(self.ctx, only_queues=queues, overrides=options, shutdown_timeout=shutdown_timeout))

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT; a second one forces. Raises what went wrong at start or in a worker."""
        with self._signals():
            await self._run()

    async def run_until_idle(self) -> None:
        """Run until no queue has anything to claim at this moment, then stop. What is delayed stays for the next time."""
        with self._signals():
            async with asyncio.TaskGroup() as group:
                runner = group.create_task(self._run())
                await self._wait_for_start(runner)
                while not self._stop_asked.is_set() and not all(worker.is_idle for worker in self.workers):
                    for worker in self.workers:  # one may give work to another, so look again until all are idle together
                        with contextlib.suppress(QueueClosedError):  # a signal stops them meanwhile
                            await worker.wait_until_idle()
                self.ask_to_stop()

    def ask_to_stop(self, signal_name: str | None = None, *, force: bool = False) -> None:
        """Begin to stop; returns at once. A second call with `force` skips the waiting for jobs."""
        if self._signal is None:
            self._signal = signal_name
        self._stop_asked.set()
        if force:
            for worker in self.workers:
                worker.ask_to_stop(force=True)

    async def start(self) -> Self:
        """Run in the background until `stop`; returns when all workers claim."""
        self._runner = asyncio.create_task(self._run(), name="application")
        await self._wait_for_start(self._runner)
        return self

    async def stop(self) -> None:
        """Stop in order, and wait for it. Also for an application that was created only. May be called twice."""
        self.ask_to_stop()
        if self._runner is not None:
            await self._runner
        else:
            await self.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def close(self) -> None:
        """Everything that comes after the workers. Errors are logged, and raised together when all is done."""
        if self._state is ApplicationState.STOPPED:
            return
        self._state = ApplicationState.STOPPED
        ctx, limit_ms = self.ctx, STEP_LIMIT_MS
        errors = await ctx.stop(Hook.MODULE_DESTROY, limit_ms=limit_ms)
        errors += await ctx.stop(Hook.BEFORE_SHUTDOWN, signal=self._signal, limit_ms=limit_ms)
        errors += await self._close_queues()
        errors += await ctx.stop(Hook.SHUTDOWN, signal=self._signal, limit_ms=limit_ms)
        errors += await ctx.release(limit_ms=limit_ms)
        for error in errors:
            log.error("a step of the stop failed", exc_info=error)
        if errors:
            raise ExceptionGroup(f"{len(errors)} steps of the stop failed", errors)

    async def _run(self) -> None:
        try:
            await self._start_up()
            async with asyncio.TaskGroup() as group:
                for worker in self.workers:
                    group.create_task(worker.run(), name=f"worker of {worker.queue.name}")
                for worker in self.workers:
                    await worker.wait_until_started()
                self._state = ApplicationState.RUNNING
                log.info("ready", queues={worker.queue.name: worker.options.concurrency for worker in self.workers})
                self._ready.set()
                await self._stop_asked.wait()
                self._state = ApplicationState.STOPPING
                log.info("stopping", signal=self._signal)
                for worker in self.workers:
                    worker.ask_to_stop()
        finally:
            self._stop_asked.set()
            await run_to_end(self.close())
            log.info("stopped")

    async def _start_up(self) -> None:
        if self._state is not ApplicationState.CREATED:
            raise QueueClosedError("the application", self._state.value)
        self._state = ApplicationState.STARTING
        await self.ctx.init(limit_ms=STEP_LIMIT_MS)

    async def _wait_for_start(self, runner: asyncio.Task[None]) -> None:
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({ready, runner}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if runner.done():
            await runner  # raises what went wrong

    async def _close_queues(self) -> list[Exception]:
        errors: list[Exception] = []
        closers: list[Callable[[], Any]] = [
            self.ctx.instance_of(binding).close for binding in self.ctx.graph.bindings if isinstance(binding.token, QueueToken)
        ]
        server: Server | None = find(self.ctx, SERVER)
        if server is not None:
            closers.append(server.aclose)
        for close in closers:
            try:
                async with asyncio.timeout(STEP_LIMIT_MS / 1_000):  # the network's time is real
                    await close()
            except Exception as error:  # noqa: BLE001 -- the next one must be closed all the same
                errors.append(error)
        return errors

    @contextlib.contextmanager
    def _signals(self) -> Generator[None]:
        """SIGTERM and SIGINT ask to stop, in this block."""
        loop = asyncio.get_running_loop()
        installed: list[signal.Signals] = []
        for one in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # not the main thread, or no signals here
                loop.add_signal_handler(one, self._on_signal, one.name)
                installed.append(one)
        try:
            yield
        finally:
            for one in installed:
                loop.remove_signal_handler(one)

    def _on_signal(self, name: str) -> None:
        again = self._stop_asked.is_set()
        if again:
            log.warning("stopping at once", signal=name)
        self.ask_to_stop(name, force=again)
