"""Finds the processors in a module graph, checks them against each other, and makes workers of them.

    graph ──► ProcessorExplorer.check ──► errors, together with all others of the graph
          └─► ProcessorExplorer.workers(ctx) ──► one Worker for each queue that has processors

A processor that is a singleton is called directly. One that lives as long as a job (it asks for the job, for a JobLogger, for a
session…) is made for each attempt, inside a scope that closes after the handler has returned and its result was serialised.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final, cast

from toril.di import ApplicationContext, Binding, DIError, EdgeKind, Graph, JobPlan, own_metadata, place_of, token_name
from toril.di import JobScope as ContainerScope
from toril.durations import Duration, optional_ms
from toril.errors import TorilError
from toril.modules.decorators import ProcessMetadata, ProcessorFields, ProcessorMetadata, handlers_in, listeners_in
from toril.modules.errors import (
    HandlerConflictError,
    InvalidProcessorError,
    NoHandlerError,
    NoJobHereError,
    ProcessorOptionsError,
    UnregisteredQueueError,
)
from toril.modules.tokens import QueueToken, queue_hint
from toril.queues.job import Job
from toril.queues.job_def import JobDef
from toril.telemetry.context import LOG_CONTEXT
from toril.telemetry.logs import JobLogger
from toril.worker.listeners import Listener, LocalEvent
from toril.worker.options import WorkerOptions
from toril.worker.processor import Handler, HandlerCall, annotated_types, is_async
from toril.worker.worker import Worker

DEFAULT_METHOD: Final = "process"
"""A processor without decorated methods may have one of this name, as in BullMQ's WorkerHost; it handles every name."""

WITHOUT_JOB: Final[frozenset[LocalEvent]] = frozenset({"error"})


@dataclass(frozen=True, slots=True)
class Processor:
    """One processor class in the graph."""

    binding: Binding
    cls: type
    metadata: ProcessorMetadata
    handlers: tuple[tuple[str, ProcessMetadata], ...]
    listeners: tuple[tuple[str, LocalEvent], ...]

    @property
    def queue(self) -> str:
        return self.metadata.queue

    @property
    def place(self) -> str:
        return f"{self.cls.__name__} ({self.metadata.place})"


def find_processors(graph: Graph) -> list[Processor]:
    """All providers whose class is decorated with `@processor`, in the order of the graph."""
    found: list[Processor] = []
    for binding in graph.bindings:
        cls = binding.cls
        metadata = own_metadata(cls, ProcessorMetadata) if cls is not None else None
        if cls is None or metadata is None:
            continue
        handlers = handlers_in(cls)
        method = getattr(cls, DEFAULT_METHOD, None)
        if not handlers and callable(method):
            handlers = [(DEFAULT_METHOD, ProcessMetadata(None, None, None, place_of(method)))]
        found.append(Processor(binding, cls, metadata, tuple(handlers), tuple(listeners_in(cls))))
    return found


# ── checks ────────────────────────────────────────────────────────────────────────────────────────────────────


def check_processors(graph: Graph) -> Iterator[DIError]:
    """Everything that is wrong with the processors of a graph."""
    by_queue: dict[str, list[Processor]] = {}
    for processor in find_processors(graph):
        by_queue.setdefault(processor.queue, []).append(processor)
        hint = queue_hint(processor.queue, graph.tokens())
        if hint is not None:
            yield UnregisteredQueueError(processor.cls.__name__, processor.queue, str(processor.metadata.place), hint)
        if not processor.handlers and not processor.listeners:
            yield NoHandlerError(processor.cls.__name__, processor.queue, str(processor.metadata.place))
        yield from _check_annotations(processor)
        yield from _check_listeners(graph, processor)
    for queue, processors in by_queue.items():
        yield from _check_names(queue, processors)
        yield from _check_options(queue, processors)


def _check_annotations(processor: Processor) -> Iterator[DIError]:
    for method, metadata in processor.handlers:
        try:
            _types_of(processor.cls, method, metadata)
        except TorilError as error:
            yield InvalidProcessorError(f"{processor.cls.__name__}.{method}", str(metadata.place), str(error))


def _check_names(queue: str, processors: Iterable[Processor]) -> Iterator[DIError]:
    seen: dict[str | None, str] = {}
    for processor in processors:
        for method, metadata in processor.handlers:
            name = _name_of(metadata)
            place = f"{processor.cls.__name__}.{method} ({metadata.place})"
            if name in seen:
                yield HandlerConflictError(queue, name, seen[name], place)
            seen.setdefault(name, place)


def _check_options(queue: str, processors: Iterable[Processor]) -> Iterator[DIError]:
    seen: dict[str, tuple[object, Processor]] = {}
    for processor in processors:
        for option, value in processor.metadata.options.items():
            earlier = seen.setdefault(option, (value, processor))
            if earlier[0] != value:
                first, second = (f"{one.place}: {option}={other!r}" for other, one in (earlier, (value, processor)))
                yield ProcessorOptionsError(queue, option, first, second)
        try:
            WorkerOptions(**processor.metadata.options)
        except TorilError as error:
            yield InvalidProcessorError(processor.cls.__name__, str(processor.metadata.place), str(error))


def _check_listeners(graph: Graph, processor: Processor) -> Iterator[DIError]:
    """JobLogger does without a job; everything else that asks for the current one would get nothing."""
    lonely = [method for method, event in processor.listeners if event in WITHOUT_JOB]
    if not lonely or not processor.binding.needs_job:
        return
    chain = _job_chain(processor.binding)
    if chain:
        yield NoJobHereError(processor.cls.__name__, lonely[0], tuple(one.name for one in chain), str(processor.metadata.place))


def _job_chain(start: Binding) -> list[Binding]:
    """From a binding to one that asks for the job itself, JobLogger apart; empty if there is none."""
    paths: list[list[Binding]] = [[start]]
    seen = {start}
    while paths:
        path = paths.pop(0)
        for edge in path[-1].edges:
            if edge.kind is EdgeKind.JOB and not edge.is_lazy and path[-1].token is not JobLogger:
                return path
            if edge.target is not None and not edge.is_lazy and edge.target not in seen:
                seen.add(edge.target)
                paths.append([*path, edge.target])
    return []


# ── workers ───────────────────────────────────────────────────────────────────────────────────────────────────


def make_workers(
    ctx: ApplicationContext,
    *,
    only_queues: Collection[str] | None = None,
    overrides: ProcessorFields | None = None,
    shutdown_timeout: Duration | None = None,
) -> list[Worker]:
    """One worker for each queue that has processors.

    Args:
        ctx: created, its singletons exist.
        only_queues: leave out all others.
        overrides: options that come before those of the processors (from the command line, say).
        shutdown_timeout: as in `WorkerOptions`.
    """
    by_queue: dict[str, list[Processor]] = {}
    for processor in find_processors(ctx.graph):
        if only_queues is None or processor.queue in only_queues:
            by_queue.setdefault(processor.queue, []).append(processor)
    workers: list[Worker] = []
    for name, processors in by_queue.items():
        queue = ctx.get(QueueToken(name))
        options: dict[str, Any] = {}
        for processor in processors:
            options |= processor.metadata.options
        options |= overrides or {}
        if shutdown_timeout is not None:
            options["shutdown_timeout"] = shutdown_timeout
        handlers = [_handler(ctx, processor, method, metadata) for processor in processors for method, metadata in processor.handlers]
        if not handlers:
            continue  # a class that only listens has nothing to listen to in this process
        worker = Worker(queue, handlers, WorkerOptions(**options))
        for processor in processors:
            for method, event in processor.listeners:
                worker.on(event, _listener(ctx, processor, method, event))
        workers.append(worker)
    return workers


def register_payloads(ctx: ApplicationContext) -> None:
    """Tell every queue what the handlers of this process take, so that `add` checks it: in processes that only produce, too."""
    for processor in find_processors(ctx.graph):
        queue = ctx.get(QueueToken(processor.queue))
        for method, metadata in processor.handlers:
            name = _name_of(metadata)
            if name is not None:
                payload, result = _types_of(processor.cls, method, metadata)
                if isinstance(metadata.name, JobDef):
                    queue.register_payload(name, payload, result=result, options=metadata.name.options)
                else:
                    queue.register_payload(name, payload, result=result)


def _name_of(metadata: ProcessMetadata) -> str | None:
    return metadata.name.name if isinstance(metadata.name, JobDef) else metadata.name


def _types_of(cls: type, method: str, metadata: ProcessMetadata) -> tuple[Any, Any]:
    if isinstance(metadata.name, JobDef):
        return metadata.name.payload, metadata.name.result
    return annotated_types(getattr(cls, method), skip_self=True)


def _handler(ctx: ApplicationContext, processor: Processor, method: str, metadata: ProcessMetadata) -> Handler:
    payload, result = _types_of(processor.cls, method, metadata)
    common = Handler(
        name=_name_of(metadata),
        call=_never_called,
        is_async=is_async(getattr(processor.cls, method)),
        payload=payload,
        result=result,
        concurrency=metadata.concurrency,
        timeout_ms=optional_ms(metadata.timeout, "timeout"),
        place=f"{processor.cls.__name__}.{method} ({metadata.place})",
    )
    if not processor.binding.needs_job:
        return replace(common, call=getattr(ctx.instance_of(processor.binding), method))
    plan = ctx.plan_for(processor.binding)

    def open_scope(job: Job[Any, Any], /) -> _Scoped:
        return _Scoped(ctx.job_scope(job), plan, method)

    return replace(common, call=None, scope=open_scope)


def _never_called(job: Job[Any, Any]) -> None:
    raise AssertionError(f"a handler without its instance was called for job {job.id}")


class _Scoped(AbstractAsyncContextManager[HandlerCall]):
    """The scope of one attempt: makes the processor, hands out its bound method, closes what was opened."""

    __slots__ = ("_method", "_plan", "_scope")

    def __init__(self, scope: ContainerScope, plan: JobPlan, method: str) -> None:
        self._scope, self._plan, self._method = scope, plan, method

    async def __aenter__(self) -> HandlerCall:
        await self._scope.__aenter__()
        try:
            return cast("HandlerCall", getattr(await self._scope.build(self._plan), self._method))
        except BaseException as error:
            await self._scope.__aexit__(type(error), error, error.__traceback__)
            raise

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._scope.__aexit__(kind, error, trace)


@dataclass(frozen=True, slots=True)
class EventContext:
    """Stands where a job would, for a listener that hears of something without one."""

    queue: str
    event: str

    def log_fields(self) -> dict[str, object]:
        """What a log line of the listener is bound to."""
        return {"queue": self.queue, "queue_event": self.event}


def _listener(ctx: ApplicationContext, processor: Processor, method: str, event: LocalEvent) -> Listener:
    """The listener's method; one of a class that lives as long as a job gets a scope of its own for each call."""
    if not processor.binding.needs_job:
        return cast("Listener", getattr(ctx.instance_of(processor.binding), method))
    plan = ctx.plan_for(processor.binding)
    without_job = EventContext(processor.queue, event)

    async def call_in_scope(*args: Any) -> None:  # noqa: ANN401 -- each event has arguments of its own
        context = args[0] if event not in WITHOUT_JOB else without_job
        LOG_CONTEXT.set(context)
        async with _Scoped(ctx.job_scope(context), plan, method) as bound:
            answer = bound(*args)
            if answer is not None and hasattr(answer, "__await__"):
                await answer

    call_in_scope.__qualname__ = f"{token_name(processor.cls)}.{method}"
    return call_in_scope
