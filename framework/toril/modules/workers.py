"""Makes the workers of an application from its processors, and runs them together.

A processor that is a singleton is called directly. One that lives as long as a job (it asks for the job, for a JobLogger, for a
session…) is made for each attempt, inside a scope that closes after the handler has returned and its result was serialised.
Its listeners get a scope of their own for each call.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, cast

from toril.di import ApplicationContext, Graph, JobPlan, Scope
from toril.durations import Duration
from toril.errors import InvalidOptionError, QueueClosedError
from toril.modules.decorators import ProcessorFields
from toril.modules.explorer import HandlerMethod, Processor, find_processors
from toril.modules.tokens import QueueToken, queue_hint
from toril.telemetry.context import LOG_CONTEXT
from toril.worker.listeners import Listener, LocalEvent
from toril.worker.options import WorkerOptions
from toril.worker.processor import Handler, HandlerCall, JobScope, is_async
from toril.worker.worker import Worker

WITHOUT_JOB: Final[frozenset[LocalEvent]] = frozenset({"error"})
"""What is heard without a job: nothing that the listener's class needs may ask for one."""


def served_queues(graph: Graph) -> list[str]:
    """The names of the queues that have handlers, in the order of the graph."""
    return [name for name, processors in find_processors(graph).items() if any(one.handlers for one in processors)]


def check_served(graph: Graph, queues: Collection[str], option: str) -> None:
    """Refuse names of queues that have no handlers here; `option` is what they were given for. Raises InvalidOptionError."""
    served = served_queues(graph)
    for name in queues:
        if name not in served:
            hint = queue_hint(name, graph.tokens()) or f"no processor serves this queue (served are: {', '.join(served) or 'none'})"
            raise InvalidOptionError(option, name, hint)


def make_workers(
    ctx: ApplicationContext,
    *,
    only_queues: Collection[str] | None = None,
    overrides: ProcessorFields | None = None,
    shutdown_timeout: Duration | None = None,
) -> list[Worker]:
    """One worker for each queue that has handlers.

    Args:
        ctx: created, its singletons exist.
        only_queues: leave out all others.
        overrides: options that come before those of the processors (from the command line, say).
        shutdown_timeout: as in `WorkerOptions`.
    """
    by_queue = find_processors(ctx.graph)
    wanted = [name for name in served_queues(ctx.graph) if only_queues is None or name in only_queues]
    return [_make_worker(ctx, name, by_queue[name], overrides, shutdown_timeout) for name in wanted]


def _make_worker(
    ctx: ApplicationContext,
    queue: str,
    processors: Sequence[Processor],
    overrides: ProcessorFields | None,
    shutdown_timeout: Duration | None,
) -> Worker:
    options: dict[str, Any] = {}
    for processor in processors:
        options |= processor.metadata.options
    options |= overrides or {}
    if shutdown_timeout is not None:
        options["shutdown_timeout"] = shutdown_timeout
    handlers = [_bind_handler(ctx, one) for processor in processors for one in processor.handlers]
    worker = Worker(ctx.get(QueueToken(queue)), handlers, WorkerOptions(**options))
    for processor in processors:
        for method, event in processor.listeners:
            worker.on(event, _bind_listener(ctx, processor, method, event))
    return worker


# ── running them together ─────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def running(workers: Sequence[Worker]) -> AsyncGenerator[None]:
    """Run workers for the time of the block, which begins when all claim; at its end they stop, in order.

    Raises what a worker raises that breaks down (an ExceptionGroup for several). The block is cancelled then.
    """
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker.run(), name=f"worker of {worker.queue.name}")
            try:
                for worker in workers:
                    await worker.wait_until_started()
                yield
            finally:
                for worker in workers:
                    worker.ask_to_stop()
    except BaseExceptionGroup as errors:
        # That a worker has stopped is told to everybody who waits for it; why it has is what counts.
        causes = errors.split(QueueClosedError)[1] or errors
        failure = causes.exceptions[0] if len(causes.exceptions) == 1 else causes
    if failure is not None:  # raised out here, or the group would become its context
        raise failure


async def wait_until_idle(workers: Sequence[Worker]) -> None:
    """Wait until none of these running workers has anything to claim at this moment, and nothing that they started runs any more.

    Raises:
        QueueClosedError: one of them stopped.
    """
    # All being idle proves nothing: a handler or listener of one may just have added a job for another, whose ring is on its
    # way. So first wait until nothing runs that could add more, and then let each look once more.
    while True:
        begun = _begun(workers)
        for worker in workers:
            await worker.wait_until_idle()
        for worker in workers:
            await worker.listeners.wait_until_quiet()
        if _begun(workers) != begun:
            continue
        for worker in workers:
            worker.look_again()
        for worker in workers:
            await worker.wait_until_idle()
        if _begun(workers) == begun:
            return


def _begun(workers: Sequence[Worker]) -> int:
    return sum(worker.attempts_begun for worker in workers)


# ── handlers and listeners ────────────────────────────────────────────────────────────────────────────────────


def handler_of(one: HandlerMethod, *, call: HandlerCall | None = None, scope: JobScope | None = None) -> Handler:
    """What the worker needs to know of a method. Raises what `HandlerMethod.types` and `Handler` raise."""
    payload, result = one.types()
    return Handler(
        name=one.metadata.name,
        call=call,
        scope=scope,
        is_async=one.is_async,
        payload=payload,
        result=result,
        concurrency=one.metadata.concurrency,
        timeout_ms=one.metadata.timeout_ms,
        place=one.place,
    )


def _bind_handler(ctx: ApplicationContext, one: HandlerMethod) -> Handler:
    binding = one.processor.binding
    if binding.scope is Scope.SINGLETON:
        return handler_of(one, call=getattr(ctx.instance_of(binding), one.method))
    return handler_of(one, scope=functools.partial(_Scoped, ctx, ctx.plan_for(binding), one.method))


def _bind_listener(ctx: ApplicationContext, processor: Processor, method: str, event: LocalEvent) -> Listener:
    binding = processor.binding
    if binding.scope is Scope.SINGLETON:
        return cast("Listener", getattr(ctx.instance_of(binding), method))
    plan, without_job = ctx.plan_for(binding), EventContext(processor.queue, event)

    @functools.wraps(getattr(processor.cls, method))  # so that a log line about it names the listener
    async def call_in_scope(*args: Any) -> None:  # noqa: ANN401 -- each event has arguments of its own
        job = None if event in WITHOUT_JOB else args[0]
        LOG_CONTEXT.set(job or without_job)
        async with _Scoped(ctx, plan, method, job) as listener:
            # A plain function must not block the loop here either.
            await (listener(*args) if is_async(listener) else asyncio.to_thread(listener, *args))

    return call_in_scope


class _Scoped:
    """The scope of one call: makes the processor, hands out its bound method, closes what was opened.

    A class, since the same as a generator costs each job 2 µs more (measured: 5 against 3).
    """

    __slots__ = ("_method", "_plan", "_scope")

    def __init__(self, ctx: ApplicationContext, plan: JobPlan, method: str, job: object) -> None:
        self._scope, self._plan, self._method = ctx.job_scope(job), plan, method

    async def __aenter__(self) -> Any:  # noqa: ANN401 -- a handler or listener, which take what they want
        await self._scope.__aenter__()
        try:
            return getattr(await self._scope.build(self._plan), self._method)
        except BaseException as error:
            await self._scope.__aexit__(type(error), error, error.__traceback__)
            raise

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._scope.__aexit__(kind, error, trace)


@dataclass(frozen=True, slots=True)
class EventContext:
    """Stands where a job would, in the logs of a listener that hears of something without one."""

    queue: str
    event: str

    def log_fields(self) -> dict[str, object]:
        """What a log line of the listener is bound to."""
        return {"queue": self.queue, "queue_event": self.event}
