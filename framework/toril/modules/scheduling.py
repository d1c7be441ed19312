"""What an application does about its schedules: binds them to the objects whose methods they are, reconciles, watches, runs.

role scheduler             reconcile ► the worker of the queue of schedules claims ► watchdog, once a minute
role worker or scheduler   schedules of scope `process`, and timeouts
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

from toril.di import ApplicationContext, Scope
from toril.modules.connections import find
from toril.modules.roles import Role
from toril.modules.schedule_explorer import ScheduledMethod, find_schedules, owner_of
from toril.modules.schedule_registry import SchedulerRegistry
from toril.modules.schedules import Schedule, ScheduleCall
from toril.queues.job import Job
from toril.queues.listeners import EventContext
from toril.queues.queue import Queue
from toril.telemetry.context import LOG_CONTEXT
from toril.telemetry.logs import get_logger

log = get_logger(__name__)

WATCH_INTERVAL_MS: Final = 60_000


class Scheduling:
    """The schedules of a created application; without a ScheduleModule it does nothing.

    Args:
        ctx: created, its singletons exist.
        roles: what this process does.
    """

    def __init__(self, ctx: ApplicationContext, roles: frozenset[Role]) -> None:
        self.roles = roles
        registry: object = find(ctx, SchedulerRegistry)
        # Either may be a test's own object in its place.
        self._registry = registry if isinstance(registry, SchedulerRegistry) and _is_queue(registry.queue) else None
        if self._registry is not None:
            schedules = [_bound(ctx, one, self._registry.queue.name) for one in find_schedules(ctx.graph)]
            self._registry.bind(schedules, owner=owner_of(ctx.graph), roles=roles)
            self._registry.queue.on("failed", _report)

    @property
    def left_behind(self) -> int:
        """How many runs would not end at stop."""
        return 0 if self._registry is None else self._registry.process_schedules.left_behind

    def force(self) -> None:
        """Don't wait for runs at stop."""
        if self._registry is not None:
            self._registry.process_schedules.force()

    async def reconcile(self) -> None:
        """In a process with the role `scheduler`: make the server have the schedules that are declared."""
        if self._registry is not None and "scheduler" in self.roles:
            await self._registry.reconcile()

    @asynccontextmanager
    async def running(self, limit_ms: int) -> AsyncGenerator[None]:
        """For the time of the block: watch the schedules, and run those that each process has for itself.

        Args:
            limit_ms: how long runs that are under way at its end may take before they are cancelled.
        """
        async with contextlib.AsyncExitStack() as stack:
            if self._registry is not None and "scheduler" in self.roles:
                await stack.enter_async_context(_watching(self._registry))
            if self._registry is not None and self.roles & {"worker", "scheduler"}:
                await stack.enter_async_context(self._registry.process_schedules.running(limit_ms))
            yield


@asynccontextmanager
async def _watching(registry: SchedulerRegistry) -> AsyncGenerator[None]:
    async with asyncio.TaskGroup() as group:
        watchdog = group.create_task(_watch_forever(registry), name="watchdog of schedules")
        try:
            yield
        finally:
            watchdog.cancel()


async def _watch_forever(registry: SchedulerRegistry) -> None:
    while True:
        await registry.clock.sleep(WATCH_INTERVAL_MS)
        try:
            await registry.look()
        except Exception as error:  # noqa: BLE001 -- the edge of the loop; in a minute it looks again
            log.warning("the schedules could not be looked at", reason=str(error), error=type(error).__name__)


def _is_queue(value: object) -> bool:
    return isinstance(value, Queue)


def _report(job: Job[Any, Any], error: BaseException, final: bool) -> None:
    log.error("schedule failed", schedule=job.name, job_id=job.id, final=final, exc_info=error)


# ── binding ───────────────────────────────────────────────────────────────────────────────────────────────────


def _bound(ctx: ApplicationContext, one: ScheduledMethod, queue: str) -> Schedule:
    metadata = one.metadata
    return Schedule(
        name=one.name,
        scope=metadata.scope,
        rule=metadata.rule,
        after_ms=metadata.after_ms,
        open=_opener(ctx, one, EventContext(queue, one.name)),
        is_async=one.is_async,
        place=one.place,
    )


def _opener(
    ctx: ApplicationContext, one: ScheduledMethod, context: EventContext
) -> Callable[[], AbstractAsyncContextManager[ScheduleCall]]:
    binding, method = one.binding, one.method
    if binding.scope is Scope.SINGLETON:
        call: ScheduleCall = getattr(ctx.instance_of(binding), method)
        return lambda: contextlib.nullcontext(call)
    plan = ctx.plan_for(binding)

    @asynccontextmanager
    async def open_scope() -> AsyncGenerator[ScheduleCall]:
        LOG_CONTEXT.set(context)  # there is no job: what asks for a JobLogger is bound to the schedule
        async with ctx.job_scope(None) as scope:
            yield getattr(await scope.build(plan), method)

    return open_scope
