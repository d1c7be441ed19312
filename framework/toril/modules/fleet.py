"""Listeners that hear what happens to a queue in the whole fleet: found in the module graph, checked, and fed from the events stream."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from toril.callables import call_off_loop
from toril.cancellation import finished, run_to_end
from toril.clock import real_sleep
from toril.di import ApplicationContext, Binding, DIError, Graph, Scope, own_metadata
from toril.di.discovery import find_methods
from toril.di.providers import InjectableMetadata
from toril.modules.decorators import ProcessorMetadata
from toril.modules.errors import InvalidProcessorError, NoJobHereError, UnregisteredQueueError
from toril.modules.explorer import within
from toril.modules.fleet_decorators import FleetMetadata
from toril.modules.listener_checks import fleet_arguments, misfits
from toril.modules.tokens import QueueToken, queue_hint
from toril.queues.event_stream import QueueEvents
from toril.queues.events import QueueEvent
from toril.queues.listeners import EventContext, Listener, ListenerCalls
from toril.queues.queue import Queue
from toril.telemetry.logs import get_logger
from toril.wire.connection import backoff_ms

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FleetListener:
    """One method that hears one kind of event."""

    binding: Binding
    cls: type
    method: str
    metadata: FleetMetadata

    @property
    def queue(self) -> str | None:
        """The queue that it says, or that its class processes; None: neither."""
        own = own_metadata(self.cls, ProcessorMetadata)
        return self.metadata.queue or (None if own is None else own.queue)

    @property
    def names(self) -> Mapping[str, Any]:
        """What annotations of its class may name besides what its file can see."""
        own = own_metadata(self.cls, InjectableMetadata)
        return {} if own is None or own.namespace is None else own.namespace.names

    @property
    def place(self) -> str:
        """Which method, and where it is written."""
        return f"{self.cls.__name__}.{self.method} ({self.metadata.place})"


def find_fleet_listeners(graph: Graph) -> list[FleetListener]:
    """All of them in all providers, in the order of the graph."""
    return [FleetListener(one.binding, one.cls, one.method, one.metadata) for one in find_methods(graph.bindings, FleetMetadata)]


def check_fleet_listeners(graph: Graph) -> Iterator[DIError]:
    """Everything that is wrong with them; one of the checks that `build_graph` is given."""
    for one in find_fleet_listeners(graph):
        name, place = f"{one.cls.__name__}.{one.method}", within(one.metadata.place, one.binding)
        if one.queue is None:
            event = one.metadata.event.event_name
            reason = f'its class processes no queue: name the one it listens to, as in @on_global_queue_{event}("emails")'
            yield InvalidProcessorError(name, place, reason)
        elif (hint := queue_hint(one.queue, graph.tokens())) is not None:
            yield UnregisteredQueueError(name, one.queue, place, hint, "listens to")
        decorator = f"@on_global_queue_{one.metadata.event.event_name}"
        for reason in misfits(one.cls, one.method, decorator, fleet_arguments(one.metadata.event), one.names):
            yield InvalidProcessorError(name, place, reason)
        if chain := graph.job_chain(one.binding):
            yield NoJobHereError(one.cls.__name__, one.method, tuple(binding.name for binding in chain), place)


class Fleet:
    """The feeds of one application: for each queue that somebody listens to, one reader of its stream."""

    def __init__(self, ctx: ApplicationContext) -> None:
        by_queue: dict[str, list[FleetListener]] = {}
        for one in find_fleet_listeners(ctx.graph):
            by_queue.setdefault(one.queue or "", []).append(one)
        self._feeds: list[_Feed] = []
        for name, listeners in by_queue.items():
            queue: object = ctx.get(QueueToken(name))
            if isinstance(queue, Queue):  # pyright: ignore[reportUnnecessaryIsInstance]  # a test's own object in its place
                self._feeds.append(_Feed(queue, _bound(ctx, listeners)))

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Feed them for the time of the block: with all that happens from its beginning on.

        Raises:
            ServerError: the server can't be reached at the beginning. Later it is waited for.
        """
        async with contextlib.AsyncExitStack() as stack:
            for feed in self._feeds:
                await stack.enter_async_context(feed.running())
            yield


class _Feed:
    def __init__(self, queue: Queue[Any, Any], listeners: Mapping[type[QueueEvent], Sequence[Listener]]) -> None:
        self._queue = queue
        self._listeners = listeners
        self._calls = ListenerCalls()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        async with QueueEvents(self._queue) as events:
            # No group: what the block raises must come out as it is.
            reader = asyncio.create_task(self._read_forever(events), name=f"events of {self._queue.name}")
            try:
                yield
            finally:
                reader.cancel()
                await run_to_end(finished(reader))
                await run_to_end(self._calls.aclose())

    async def _read_forever(self, events: QueueEvents) -> None:
        pauses = backoff_ms()
        while True:
            try:
                async for event in events:
                    pauses = backoff_ms()
                    for listener in self._listeners.get(type(event), ()):
                        self._calls.begin(event.event_name, listener, (event,), EventContext(self._queue.name, event.event_name))
                return  # it was closed
            except Exception as error:
                log.error("the events of a queue can't be read; trying again", queue=self._queue.name, exc_info=error)
            await real_sleep(next(pauses))


def _bound(ctx: ApplicationContext, listeners: Sequence[FleetListener]) -> dict[type[QueueEvent], list[Listener]]:
    bound: dict[type[QueueEvent], list[Listener]] = {}
    for one in listeners:
        bound.setdefault(one.metadata.event, []).append(_bind(ctx, one))
    return bound


def _bind(ctx: ApplicationContext, one: FleetListener) -> Listener:
    binding, method = one.binding, one.method
    if binding.scope is Scope.SINGLETON:
        return cast("Listener", getattr(ctx.instance_of(binding), method))
    plan = ctx.plan_for(binding)

    @functools.wraps(getattr(one.cls, method))  # so that a log line about it names the listener
    async def call_in_scope(event: QueueEvent) -> None:
        async with ctx.job_scope(None) as scope:
            listener: Callable[[QueueEvent], Any] = getattr(await scope.build(plan), method)
            await call_off_loop(listener, event)

    return call_in_scope
