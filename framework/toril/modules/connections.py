"""The connections of an application: its server is reached before anything starts, and closed with all queues at stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from toril.clock import SystemClock
from toril.di import ApplicationContext, Token
from toril.durations import Duration, to_ms
from toril.modules.tokens import SERVER, QueueToken
from toril.queues.queue import Queue
from toril.telemetry.outage import Outage

T = TypeVar("T")


def find(ctx: ApplicationContext, token: type[T] | Token[T]) -> T | None:
    """The singleton under a token, or None if no module provides it."""
    return ctx.get(token) if ctx.graph.find_all(token) else None


async def reach_server(ctx: ApplicationContext, timeout: Duration) -> None:
    """Wait until the server answers; that it doesn't is logged. Without queues there is nothing to wait for.

    Raises:
        ServerUnreachableError: not in time. ServerRefusedError, ServerTooOldError: at once.
    """
    server = find(ctx, SERVER)
    if server is not None:
        outage = Outage("waiting for the server", SystemClock())  # the network's time is real
        await server.wait_until_ready(to_ms(timeout, "connect_timeout"), outage.failed)
        outage.over()


def registered_queues(ctx: ApplicationContext) -> list[Queue[Any, Any]]:
    """All queues, without those in whose place a test has put an object of its own."""
    queues = (ctx.instance_of(binding) for binding in ctx.graph.bindings if isinstance(binding.token, QueueToken))
    return [queue for queue in queues if isinstance(queue, Queue)]


async def close_queues(ctx: ApplicationContext, limit_ms: int) -> list[Exception]:
    """Close all queues, and then the server's connection; what goes wrong is returned, and doesn't keep the others open."""
    closers: list[Callable[[], Coroutine[Any, Any, None]]] = [queue.close for queue in registered_queues(ctx)]
    server = find(ctx, SERVER)
    if server is not None:
        closers.append(server.aclose)
    errors: list[Exception] = []
    for close in closers:
        try:
            async with asyncio.timeout(limit_ms / 1_000):  # the network's time is real
                await close()
        except Exception as error:  # noqa: BLE001 -- the next one must be closed all the same
            errors.append(error)
    return errors
