"""What a child process of an application runs: the same modules, with a container of its own, without workers and schedules."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from toril.application import START_STEP_LIMIT_MS, STOP_STEP_LIMIT_MS
from toril.di import ApplicationContext, ContextState, Hook, Overrides, module, provide
from toril.modules.application_graph import FEATURE_CHECKS, graph_of
from toril.modules.connections import close_queues
from toril.modules.queue_module import ENVIRONMENT, environment_at
from toril.modules.queues import prepare_queues
from toril.modules.tokens import QueueToken
from toril.modules.workers import handlers_here
from toril.queues.queue import Queue
from toril.telemetry.logs import get_logger
from toril.worker.processor import Handler, Registry
from toril.worker.programs import imported
from toril.worker.serving import ChildStart, Served

log = get_logger(__name__)


class _Application:
    """The handlers of one queue, as this container makes them."""

    def __init__(self, ctx: ApplicationContext, queue: str) -> None:
        self.queue: Queue[Any, Any] = ctx.get(QueueToken(queue))
        self._registry = Registry(queue, handlers_here(ctx, queue))

    def find(self, name: str, target: str) -> Handler | None:
        """By the job's name alone, as in the worker."""
        return self._registry.find(name)


@asynccontextmanager
async def serve_application(start: ChildStart) -> AsyncGenerator[Served]:
    """The entry: create the application, run its hooks of starting, serve, and run those of stopping.

    It uses the worker's server and prefix, whatever settings say here: in a test they are the test's.
    """
    modules: list[type] = [imported(path) for path in start.told["modules"]]
    root = modules[0] if len(modules) == 1 else module(imports=modules)(type("ChildRootModule", (), {}))
    environment = environment_at(start.url, start.told["prefix"], is_test=start.told["is_test"])
    graph = graph_of(root, overrides=Overrides(providers=[provide(ENVIRONMENT, use_factory=environment)]), checks=FEATURE_CHECKS)
    ctx = ApplicationContext(graph)
    await ctx.create(limit_ms=START_STEP_LIMIT_MS)
    try:
        prepare_queues(ctx)
        await ctx.init(limit_ms=START_STEP_LIMIT_MS)
        yield _Application(ctx, start.queue)
    finally:
        await _close(ctx)


async def _close(ctx: ApplicationContext) -> None:
    """As an application stops, without its log lines, which would look like the worker's."""
    limit_ms = STOP_STEP_LIMIT_MS
    if ctx.state is ContextState.CLOSED:  # as it is after a failed start
        return
    errors = await ctx.stop(Hook.MODULE_DESTROY, limit_ms=limit_ms)
    errors += await ctx.stop(Hook.BEFORE_SHUTDOWN, limit_ms=limit_ms)
    errors += await close_queues(ctx, limit_ms)
    errors += await ctx.stop(Hook.SHUTDOWN, limit_ms=limit_ms)
    errors += await ctx.release(limit_ms=limit_ms)
    for error in errors:
        log.error("a child process could not stop in order", exc_info=error)
