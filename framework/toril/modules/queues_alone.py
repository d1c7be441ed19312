"""The queues of an application without the rest of it: for a program that looks at them and operates them, and runs nothing.

Only what the queues need is made: settings, the server, and what the functions that make their options ask for. No mail server
is connected, no database opened, no hook runs, no listener hears.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from toril.di import ApplicationContext, Graph
from toril.modules.application_graph import graph_of
from toril.modules.connections import find, registered_queues
from toril.modules.explorer import register_payloads
from toril.modules.queue_module import ENVIRONMENT
from toril.modules.queues import link_dead_letters
from toril.modules.tokens import SERVER, QueueOptionsToken, QueueToken
from toril.queues.queue import Queue
from toril.wire.connection import Server

STEP_LIMIT_MS: Final = 30_000
"""How long it may take to make one thing; an embedded server may have to start, and to read its data."""


@dataclass(frozen=True, slots=True)
class ApplicationQueues:
    """What `application_queues` has opened."""

    graph: Graph
    queues: dict[str, Queue[Any, Any]]
    """By name, with all that the modules say of them: prefixes, types of data, where dead letters go."""
    server: Server | None
    """None: the application registers no queue."""
    prefix: str | None
    """That of all queues but those that have one of their own."""


@asynccontextmanager
async def application_queues(root: type) -> AsyncGenerator[ApplicationQueues]:
    """Open the queues of an application for the time of the block. Nothing connects before the first command.

    Raises:
        GraphErrors, SettingsError, InvalidRedisUrlError, EmbeddedServerError, and what functions raise that make options.
    """
    graph = graph_of(root)
    wanted = [one for one in graph.bindings if isinstance(one.token, (QueueToken, QueueOptionsToken)) or one.token in (SERVER, ENVIRONMENT)]
    ctx = ApplicationContext(graph)
    await ctx.create(limit_ms=STEP_LIMIT_MS, only=wanted)
    try:
        register_payloads(ctx)
        link_dead_letters(ctx)
        environment = find(ctx, ENVIRONMENT)
        queues = {queue.name: queue for queue in registered_queues(ctx)}
        yield ApplicationQueues(graph, queues, find(ctx, SERVER), None if environment is None else environment.prefix)
    finally:
        await ctx.close()
