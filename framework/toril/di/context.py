"""The running application: its instances, its state, and the way in from outside.

    new ─► creating ─► created ─► starting ─► running ─► closing ─► closed

`create()` makes every singleton, in order. In *created* instances exist and no hook has run: what a test wants that checks wiring.
`init()` runs `on_module_init`, then `on_application_bootstrap`, and leads to *running*. `close()` runs everything that stops.

**For the layer above**, which has more to start and stop than the container knows of: the stages of stopping can be run one by one,
each at most once, with other work between them, and a limit for each single step:

    errors = await ctx.stop(Hook.MODULE_DESTROY, limit_ms=5_000)                 # when no job runs any more
    errors += await ctx.stop(Hook.BEFORE_SHUTDOWN, signal="SIGTERM", limit_ms=5_000)
    ...                                                                          # close queues and connections
    errors += await ctx.stop(Hook.SHUTDOWN, signal="SIGTERM", limit_ms=5_000)
    errors += await ctx.release(limit_ms=5_000)                                  # generators

`plan_for(binding)` gives the compiled plan of a processor or listener, `instance_of(binding)` a singleton; `graph.bindings` has them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar, overload

from toril.clock import Clock, SystemClock
from toril.di.bindings import Binding
from toril.di.containers import Containers, RootContainer
from toril.di.errors import AmbiguousToken, NotFound, NotReady
from toril.di.graph import Graph, with_needs
from toril.di.instances import Instances, describe
from toril.di.job_scope import JobScope
from toril.di.lifecycle import Bound, ContextState, Hook, call_hook, close_generators, has_hook, run_all
from toril.di.module import DynamicModule
from toril.di.module_ref import ModuleRef
from toril.di.plan import JobPlan
from toril.di.providers import Scope
from toril.di.tokens import Token, token_name

T = TypeVar("T")

_STOP_HOOKS = (Hook.MODULE_DESTROY, Hook.BEFORE_SHUTDOWN, Hook.SHUTDOWN)


class ApplicationContext:
    """The modules of an application come to life: `app.ctx`, or `async with ApplicationContext(graph) as ctx: ctx.get(EmailService)`.

    Args:
        graph: from `build_graph`; one context a graph.
        clock: for the limits of single steps.
        track_jobs: whether plans keep what they made, so that `resolve` within a job finds it. By default only where the graph itself
            shows that somebody may ask (`Lazy` of something job-scoped, `ModuleRef`), since it costs most of a microsecond a job.
    """

    def __init__(self, graph: Graph, *, clock: Clock | None = None, track_jobs: bool | None = None) -> None:
        self.graph = graph
        self._clock: Clock = clock or SystemClock()
        tracks = graph.needs_tracking() if track_jobs is None else track_jobs
        self._instances = Instances(graph, tracks_jobs=tracks)
        self._stages_begun: set[Hook] = set()
        self._closing = asyncio.Lock()

    @property
    def state(self) -> ContextState:
        """Where it stands."""
        return self._instances.state

    @property
    def container(self) -> RootContainer:
        """The providers as dependency-injector's containers, `ctx.container.email_module.email_service()`, also for `.wire(...)`.

        An `.override()` there is seen by `@inject`ed functions only: what has been created, `get` and job plans keep the old object.

        Raises:
            NotReady: before `create()`.
        """
        if self._instances.containers is None:
            raise NotReady("container", self.state, "created")
        return self._instances.containers.root

    # ── asking ────────────────────────────────────────────────────────────────────────────────────────────────

    @overload
    def get(self, token: Token[T]) -> T: ...
    @overload
    def get(self, token: type[T]) -> T: ...
    @overload
    def get(self, token: object) -> Any: ...  # noqa: ANN401  # as the token, so the result
    def get(self, token: object) -> Any:
        """The one instance of a singleton, whichever module provides it.

        Raises:
            NotFound: nothing does.
            AmbiguousToken: several modules do, each its own: see `select` and `get_all`.
            WrongScope: it is transient or job-scoped: see `resolve`.
            NotReady: too early or too late.
        """
        return self._instances.get(token)

    @overload
    def get_all(self, token: Token[T]) -> list[T]: ...
    @overload
    def get_all(self, token: type[T]) -> list[T]: ...
    @overload
    def get_all(self, token: object) -> list[Any]: ...
    def get_all(self, token: object) -> list[Any]:
        """The instances of all modules that provide it, each once, in the order of modules; empty if none does."""
        return self._instances.get_all(token)

    @overload
    async def resolve(self, token: Token[T], job: object = None) -> T: ...
    @overload
    async def resolve(self, token: type[T], job: object = None) -> T: ...
    @overload
    async def resolve(self, token: object, job: object = None) -> Any: ...  # noqa: ANN401  # see get
    async def resolve(self, token: object, job: object = None) -> Any:
        """Of any scope: the singleton, a new transient instance, or the instance of `job` (by default of the current job).

        A `job` that isn't current gets a scope for just this call. What has to be closed after use can't be had this way (WrongScope):
        open a `job_scope`. A transient instance with a teardown is closed with the current job, or else with the application.

        Raises:
            OutOfScope: it is job-scoped, and there is no job. Others as in `get`.
        """
        return await self._instances.resolve(token, job)

    def select(self, module: type | DynamicModule) -> ModuleRef:
        """The application as seen from one module.

        Raises:
            NotFound: it is not part of the application. AmbiguousToken: several dynamic modules have this class.
        """
        nodes = [node for node in self.graph.nodes if module in (node.module, node.dynamic)]
        name = module.display_name if isinstance(module, DynamicModule) else token_name(module)
        if not nodes:
            raise NotFound(name)
        if len(nodes) > 1:
            raise AmbiguousToken(name, [node.path for node in nodes])
        return ModuleRef(self._instances, nodes[0])

    def job_scope(self, job: object) -> JobScope:
        """The scope for one run of one job, to be entered with `async with`; None for a scope without a job."""
        return JobScope(self._instances, job)

    def plan_for(self, binding: Binding) -> JobPlan:
        """The compiled way to make `binding` for a job; for a singleton simply its instance. Compiled once."""
        return self._instances.plan_for(binding)

    def instance_of(self, binding: Binding) -> Any:  # noqa: ANN401  # its class is known to whoever asks
        """The instance of a singleton's binding. Raises NotReady if it isn't there (yet, or any more)."""
        return self._instances.instance_of(binding)

    # ── starting and stopping ─────────────────────────────────────────────────────────────────────────────────

    async def create(self, *, limit_ms: int | None = None, only: Iterable[Binding] | None = None) -> None:
        """Make all singletons, dependencies first. If one fails, what exists is stopped and closed, and the error comes out.

        Args:
            limit_ms: how long each async factory may take.
            only: make these and what they need; asking for others raises NotReady.
        """
        self._expect("create()", ContextState.NEW)
        self._instances.state = ContextState.CREATING
        bound = Bound(self._clock, limit_ms)
        try:
            self._instances.containers = Containers(self.graph, self._instances)
            wanted = None if only is None else with_needs(only)
            for binding in self.graph.order:
                if binding.scope is Scope.SINGLETON and (wanted is None or binding in wanted):
                    await self._instances.create(binding, self._instances.containers, bound)
        except BaseException as exc:
            await self._abandon(exc, limit_ms)
            raise
        self._instances.state = ContextState.CREATED

    async def init(self, *, limit_ms: int | None = None) -> None:
        """Run the hooks of starting; as in `create`, a failure stops and closes everything.

        Args:
            limit_ms: how long each hook may take.
        """
        self._expect("init()", ContextState.CREATED)
        self._instances.state = ContextState.STARTING
        bound = Bound(self._clock, limit_ms)
        try:
            for hook in (Hook.MODULE_INIT, Hook.APPLICATION_BOOTSTRAP):
                for binding, instance in self._instances.in_order():
                    await self._call_hook(binding, instance, hook, bound)
        except BaseException as exc:
            await self._abandon(exc, limit_ms)
            raise
        self._instances.state = ContextState.RUNNING

    async def stop(self, hook: Hook, *, signal: str | None = None, limit_ms: int | None = None) -> list[Exception]:
        """Run one of the three hooks of stopping on every instance, dependants first. A second call for the same hook does nothing.

        Args:
            signal: name of the signal that stops the application, for the hooks.
            limit_ms: how long each hook may take; then it is cancelled, which is an error like any other.

        Returns:
            What the hooks raised. A cancellation hits one hook only, and is raised when all have run.
        """
        if hook not in _STOP_HOOKS:
            raise ValueError(f"{hook} is a hook of starting")
        if hook in self._stages_begun:
            return []
        self._stages_begun.add(hook)
        self._instances.state = ContextState.CLOSING
        steps = [
            (_hook_text(binding, hook), lambda instance=instance: call_hook(instance, hook, signal))
            for binding, instance in reversed(self._instances.in_order())
            if has_hook(instance, hook)
        ]
        return await run_all(steps, Bound(self._clock, limit_ms))

    async def release(self, *, limit_ms: int | None = None) -> list[Exception]:
        """Close what generator factories opened, the last one first; after that the context is closed. Returns as `stop` does."""
        self._instances.state = ContextState.CLOSING
        try:
            return await run_all(close_generators(self._instances.closers), Bound(self._clock, limit_ms))
        finally:
            self._instances.state = ContextState.CLOSED
            self._instances.forget_plans()

    async def start(self, *, limit_ms: int | None = None) -> None:
        """`create()` and `init()`."""
        if self.state is ContextState.NEW:
            await self.create(limit_ms=limit_ms)
        await self.init(limit_ms=limit_ms)

    async def close(self, *, signal: str | None = None, limit_ms: int | None = None) -> None:
        """Run what has not run yet of stopping. A second call does nothing, a concurrent one waits for the first.

        Raises:
            ExceptionGroup: of everything that hooks and generators raised.
            NotReady: the context is just being created or started.
        """
        if self.state in (ContextState.CREATING, ContextState.STARTING):
            raise NotReady("close()", self.state, "created or running")
        async with self._closing:
            if self.state is not ContextState.CLOSED:
                errors = await self._close_all(signal, limit_ms)
                if errors:
                    raise ExceptionGroup(f"{len(errors)} errors while the application was closing", errors)

    async def __aenter__(self) -> ApplicationContext:
        if self.state is not ContextState.RUNNING:
            await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    # ── inside ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _call_hook(self, binding: Binding, instance: object, hook: Hook, bound: Bound) -> None:
        if not has_hook(instance, hook):
            return
        what = _hook_text(binding, hook)
        try:
            await bound.run(call_hook(instance, hook), what)
        except BaseException as exc:
            exc.add_note(f"while running {what}")
            raise

    async def _abandon(self, cause: BaseException, limit_ms: int | None) -> None:
        """Close what a failed start left. What goes wrong in that is noted on the cause, which is what the caller needs to see."""
        for error in await self._close_all(None, limit_ms):
            cause.add_note(f"and while closing what existed: {type(error).__name__}: {error}")

    async def _close_all(self, signal: str | None, limit_ms: int | None) -> list[Exception]:
        errors: list[Exception] = []
        cancelled: asyncio.CancelledError | None = None
        for stage in self._stop_stages(signal, limit_ms):
            try:
                errors += await stage
            except asyncio.CancelledError as exc:  # raised by a stage when it is through
                cancelled = exc
        if cancelled is not None:
            raise cancelled from (ExceptionGroup("errors while closing", errors) if errors else cancelled.__cause__)
        return errors

    def _stop_stages(self, signal: str | None, limit_ms: int | None) -> Iterator[Awaitable[list[Exception]]]:
        for hook in _STOP_HOOKS:
            yield self.stop(hook, signal=signal, limit_ms=limit_ms)
        yield self.release(limit_ms=limit_ms)

    def _expect(self, what: str, needed: ContextState) -> None:
        if self.state is not needed:
            raise NotReady(what, self.state, needed)


def _hook_text(binding: Binding, hook: Hook) -> str:
    return f"{hook.value} of {describe(binding)}"
