"""An application: from a root module to running workers, and back.

    create     scan ► check the whole graph ► make the instances ► reach the server
    start      on_module_init ► on_application_bootstrap ► schedules reconciled ► workers claim ► ready
    stop       not ready ► workers stop (each in its own order, see `worker.py`) ► on_module_destroy ► before_application_shutdown
               ► queues and connections closed ► on_application_shutdown ► generators closed, in reverse

Every step of stopping is bounded, and an error in one doesn't stop the next. A second signal forces: nothing is waited for that
could be put back.

An application lives once. One task, made by the first `start` or `stop`, brings it from its start to its very end; everybody else
asks that task to stop, and waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Collection, Coroutine
from contextlib import AbstractAsyncContextManager
from enum import Enum
from types import TracebackType
from typing import Any, Final, Self, TypeVar, overload

from toril.cancellation import finished, run_to_end, run_unless
from toril.creation import creates
from toril.di import ApplicationContext, ContextState, DynamicModule, Hook, Overrides, Token
from toril.di.overrides import NO_OVERRIDES
from toril.durations import Duration, optional_ms, to_ms
from toril.errors import QueueClosedError
from toril.modules.application_graph import graph_of
from toril.modules.connections import close_queues, find, reach_server, registered_queues
from toril.modules.decorators import ProcessorFields
from toril.modules.fleet import Fleet
from toril.modules.queues import prepare_queues
from toril.modules.roles import ROLES, Role, check_roles
from toril.modules.scheduling import Scheduling
from toril.modules.settings import TorilSettings
from toril.modules.tokens import SERVER, QueueToken
from toril.modules.workers import check_served, make_workers, running, served_queues, wait_until_idle
from toril.queues.queue import Queue
from toril.stop_signals import STOP_SIGNALS
from toril.telemetry.logs import get_logger
from toril.worker.worker import Worker

log = get_logger(__name__)

T = TypeVar("T")

START_STEP_LIMIT_MS: Final = 300_000
"""How long making one instance or one hook may take at start. Generous: it may load a model, migrate a database, or wait until
an embedded server has read its data."""

STOP_STEP_LIMIT_MS: Final = 10_000
"""How long one hook or one closing may take at stop."""

DEFAULT_CONNECT_TIMEOUT: Final = "30s"

DEFAULT_SHUTDOWN_TIMEOUT: Final = "25s"

_ADDS_ONLY: Final[tuple[Role, ...]] = ("producer",)


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
    @creates
    async def create(
        root: type | DynamicModule,
        *,
        overrides: Overrides = NO_OVERRIDES,
        roles: Collection[Role] | None = None,
        queues: Collection[str] | None = None,
        worker_options: ProcessorFields | None = None,
        shutdown_timeout: Duration | None = None,
        connect_timeout: Duration | None = None,
    ) -> Application:
        """Check the module graph, make its instances, and reach the server; `async with` starts the application, too.

        Args:
            root: the root module.
            overrides: what a test replaces.
            roles: what this process does; not set: everything. `worker` runs the processors' workers; `scheduler` reconciles and
                watches the schedules and runs the fleet's; either runs the schedules that each process has for itself;
                `producer` alone runs nothing and only adds jobs.
            queues: of the processors' workers, run only those of these queues.
            worker_options: come before those of the processors.
            shutdown_timeout: for running jobs at stop; not set: the settings', else 25 s.
            connect_timeout: how long to wait for the server; not set: the settings', else 30 s.

        Raises:
            GraphErrors: with everything that is wrong in the modules; nothing was created.
            InvalidOptionError: a role that doesn't exist; one of `queues` isn't registered, or has no processor.
            SettingsError, ServerError: what exists is closed again.
        """
        checked_roles = check_roles(roles)
        optional_ms(shutdown_timeout, "shutdown_timeout")  # before anything is made
        optional_ms(connect_timeout, "connect_timeout")
        graph = graph_of(root, overrides=overrides)
        for warning in graph.warnings:
            log.warning("module graph", warning=warning)
        check_served(graph, queues or (), "queues")
        ctx = ApplicationContext(graph)
        await ctx.create(limit_ms=START_STEP_LIMIT_MS)
        app = Application(ctx, checked_roles)
        try:
            settings = find(ctx, TorilSettings)
            if connect_timeout is None:
                connect_timeout = DEFAULT_CONNECT_TIMEOUT if settings is None else settings.connect_timeout
            if shutdown_timeout is None and settings is not None:
                shutdown_timeout = settings.shutdown_timeout
            await reach_server(ctx, connect_timeout)
            prepare_queues(ctx)
            names = served_queues(graph, checked_roles, queues)
            app.workers = tuple(make_workers(ctx, only_queues=names, overrides=worker_options, shutdown_timeout=shutdown_timeout))
            for worker in app.workers:
                worker.roles = [role for role in ROLES if role in checked_roles]
            app.shutdown_timeout = DEFAULT_SHUTDOWN_TIMEOUT if shutdown_timeout is None else shutdown_timeout
        except BaseException as error:
            await run_to_end(app.close_after(error))
            raise
        return app

    @staticmethod
    @creates
    async def create_application_context(
        root: type | DynamicModule,
        *,
        overrides: Overrides = NO_OVERRIDES,
        connect_timeout: Duration | None = None,
    ) -> Application:
        """Start an application's modules without its workers: for scripts, commands, and services that only add jobs.

        `async with WorkerFactory.create_application_context(AppModule) as app:` stops it at the end of the block; after
        `app = await …`, which returns when all hooks of starting have run, it is up to you: `await app.stop()`.
        It is `create(AppModule, roles=["producer"])`, started. Arguments and errors are those of `create`, and what hooks raise.
        """
        app = await WorkerFactory.create(root, overrides=overrides, roles=_ADDS_ONLY, connect_timeout=connect_timeout)
        return await app.start()


class Application:
    """A created application. `WorkerFactory.create` makes it.

    `await app.run()` runs it until a signal comes; `async with WorkerFactory.create(AppModule) as app:` runs it for the block.
    `app.ctx` is the container's view of it: `app.ctx.select(EmailModule)`, `app.ctx.resolve(…)`, `app.ctx.container`.
    """

    def __init__(self, ctx: ApplicationContext, roles: Collection[Role] = ROLES) -> None:
        self.ctx = ctx
        self.roles = frozenset(roles)
        self.workers: tuple[Worker, ...] = ()
        self.schedules = Scheduling(ctx, self.roles)
        self.shutdown_timeout: Duration = DEFAULT_SHUTDOWN_TIMEOUT
        self.on_ready: Callable[[Application], object] = _log_ready
        """Called when all workers claim. A process that is one of several tells its supervisor instead, which logs `ready` for all."""
        self._state = ApplicationState.CREATED
        self._stop_asked = asyncio.Event()
        self._begun = asyncio.Event()
        """Set when all workers claim, or when it has become clear that they never will."""
        self._signal: str | None = None
        self._life: asyncio.Task[None] | None = None

    # ── what can be asked ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def state(self) -> ApplicationState:
        return self._state

    @property
    def is_ready(self) -> bool:
        """Whether every worker claims jobs."""
        is_running = self._state is ApplicationState.RUNNING and not self._stop_asked.is_set()
        return is_running and all(worker.is_ready for worker in self.workers)

    @property
    def not_ready_because(self) -> list[str]:
        """Why it doesn't do its work right now, in words; empty if it does. May be asked from any thread."""
        if self._state is not ApplicationState.RUNNING or self._stop_asked.is_set():
            state = ApplicationState.STOPPING if self._stop_asked.is_set() else self._state
            return [f"the application is {state.value}"]
        return [f"queue {worker.queue.name}: {problem}" for worker in self.workers for problem in worker.not_ready_because]

    @property
    def overview(self) -> dict[str, object]:
        """What the log's `ready` tells: a worker and a producer that wait for each other in vain differ in server or prefix."""
        server = find(self.ctx, SERVER)
        if server is None:
            return {"queues": self.concurrency}
        prefixes = sorted({queue.prefix for queue in registered_queues(self.ctx)})
        return {"server": str(server.address), "prefix": ", ".join(prefixes), "queues": self.concurrency}

    @property
    def concurrency(self) -> dict[str, int]:
        """The queues that this process works on, each with how many jobs it runs at once."""
        return {worker.queue.name: worker.options.concurrency for worker in self.workers}

    @property
    def left_behind(self) -> int:
        """How many handlers and schedules would not end at stop; only the end of the process ends them."""
        return sum(worker.left_behind for worker in self.workers) + self.schedules.left_behind

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

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT; a second one forces. Raises what went wrong at start, in a worker, or at stop."""
        await self._run_with_signals(self._stop_asked.wait)

    async def run_until_idle(self) -> None:
        """Run until no queue has anything to claim at this moment, then stop. What is delayed stays for the next time."""

        async def idle() -> None:
            with contextlib.suppress(QueueClosedError):  # the end of this application tells why it stopped
                await wait_until_idle(self.workers)

        await self._run_with_signals(idle)

    async def start(self) -> Self:
        """Run in the background until `stop`; returns when all workers claim.

        Raises:
            QueueClosedError: it was started or stopped before, or is being stopped; make a new one.
            Others: what went wrong; everything is closed again. If this call is cancelled, it is, too.
        """
        await self._begin()
        if self._state is not ApplicationState.RUNNING:
            await self.stop()
            raise QueueClosedError("the application", self._state.value)
        return self

    def ask_to_stop(self, signal_name: str | None = None, *, force: bool = False) -> None:
        """Begin to stop; returns at once. What has not started yet doesn't. With `force` nothing waits for running jobs."""
        if self._signal is None:
            self._signal = signal_name
        self._stop_asked.set()
        if force:
            for worker in self.workers:
                worker.ask_to_stop(force=True)
            self.schedules.force()

    async def stop(self) -> None:
        """Stop in order, and wait until everything is closed, also if it was created only. May be called twice, and concurrently.

        Raises what went wrong in a worker or at stop (an ExceptionGroup of all steps that failed).
        """
        failure = await self._end()
        if failure is not None:
            raise failure

    async def __aenter__(self) -> Self:
        return self if self._state is ApplicationState.RUNNING else await self.start()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        failure = await self._end()
        if failure is not None and (error is None or isinstance(error, Exception)):  # a cancellation goes on
            raise failure

    # ── inside ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _run_with_signals(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        self._expect_new()
        with STOP_SIGNALS.heard_by(self._on_signal):
            await self._begin()
            try:
                await run_unless(self._stop_asked, work())
            except BaseException:
                await self._end()
                raise
            await self.stop()

    def _expect_new(self) -> None:
        if self._life is not None:
            raise QueueClosedError("the application", self._state.value)

    async def _begin(self) -> None:
        """Start, and wait until all workers claim or the stop is over. Raises what went wrong."""
        self._expect_new()
        self._life = asyncio.create_task(self._live(), name="application")
        try:
            await self._begun.wait()
        except asyncio.CancelledError:
            await self._end()
            raise
        if self._life.done():
            self._life.result()

    async def _end(self) -> BaseException | None:
        """Bring it to its end; returns what went wrong on the way."""
        self.ask_to_stop()
        if self._life is None:
            self._life = asyncio.create_task(self._close_all(), name="application")
        await run_to_end(finished(self._life))
        return self._life.exception()

    async def _live(self) -> None:
        try:
            try:
                self._state = ApplicationState.STARTING
                if await run_unless(self._stop_asked, self._init()) and not self._stop_asked.is_set():
                    await self._run_workers()
            except BaseException as error:
                if self._begun.is_set():  # else whoever starts it learns of it at once
                    log.error("the application broke down, and stops", exc_info=error)
                await run_to_end(self.close_after(error))
                raise
            await run_to_end(self._close_all())
        finally:
            # Whoever waits for the start looks at this task, which has ended when they wake.
            asyncio.get_running_loop().call_soon(self._begun.set)

    async def _init(self) -> None:
        await self.ctx.init(limit_ms=START_STEP_LIMIT_MS)
        await self.schedules.reconcile()

    async def _run_workers(self) -> None:
        try:
            shutdown_ms = to_ms(self.shutdown_timeout, "shutdown_timeout")
            async with self._hearing(), running(self.workers), self.schedules.running(shutdown_ms):
                self._state = ApplicationState.RUNNING
                self.on_ready(self)
                self._begun.set()
                await self._stop_asked.wait()
                self._state = ApplicationState.STOPPING
                log.info("stopping", signal=self._signal)
                for worker in self.workers:  # now, and not only when the schedules have stopped
                    worker.ask_to_stop()
        except QueueClosedError:
            if not self._stop_asked.is_set():  # else they were told to stop before they had started
                raise

    def _hearing(self) -> AbstractAsyncContextManager[None]:
        """The listeners of the fleet hear from before the workers start until they have stopped; not in a process that only adds jobs."""
        return Fleet(self.ctx).running() if self.roles & {"worker", "scheduler"} else contextlib.nullcontext()

    async def _close_all(self) -> None:
        errors = await self._close()
        if errors:
            raise ExceptionGroup(f"{len(errors)} steps of the stop failed", errors)

    async def close_after(self, failure: BaseException) -> None:
        """Close what a failure has left. What goes wrong then is noted on the failure, which is what the caller needs to see."""
        for error in await self._close():
            failure.add_note(f"and while stopping: {type(error).__name__}: {error}")

    async def _close(self) -> list[Exception]:
        """Everything that comes after the workers. Errors are returned when all is done."""
        self._stop_asked.set()
        self._state = ApplicationState.STOPPING
        ctx, limit_ms = self.ctx, STOP_STEP_LIMIT_MS
        errors: list[Exception] = []
        if ctx.state is not ContextState.CLOSED:  # as it is after a failed start
            errors += await ctx.stop(Hook.MODULE_DESTROY, limit_ms=limit_ms)
            errors += await ctx.stop(Hook.BEFORE_SHUTDOWN, signal=self._signal, limit_ms=limit_ms)
            errors += await close_queues(ctx, limit_ms)
            errors += await ctx.stop(Hook.SHUTDOWN, signal=self._signal, limit_ms=limit_ms)
            errors += await ctx.release(limit_ms=limit_ms)
        self._state = ApplicationState.STOPPED
        log.info("stopped")
        return errors

    def _on_signal(self, sent: signal.Signals) -> None:
        again = self._stop_asked.is_set()
        if again:
            log.warning("stopping at once", signal=sent.name)
        self.ask_to_stop(sent.name, force=again)


def _log_ready(app: Application) -> None:
    log.info("ready", **app.overview)
