"""Makes the workers of an application from its processors, and runs them together.

A processor that is a singleton is called directly. One that lives as long as a job (it asks for the job, for a JobLogger, for a
session…) is made for each attempt, inside a scope that closes after the handler has returned and its result was serialised;
so is one whose method asks for such things.
Its listeners get a scope of their own for each call.
"""

from __future__ import annotations

import asyncio
import functools
import operator
import os
import socket
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, cast

from toril.callables import call_off_loop
from toril.di import ApplicationContext, Binding, Graph, JobPlan, Scope
from toril.durations import Duration
from toril.errors import InvalidOptionError, QueueClosedError
from toril.modules.child_programs import application_program
from toril.modules.connections import find
from toril.modules.decorators import ProcessorFields
from toril.modules.explorer import HandlerMethod, Processor, find_processors
from toril.modules.handler_providers import HandlerToken
from toril.modules.roles import ROLES, Role
from toril.modules.schedule_explorer import schedule_queue
from toril.modules.schedule_registry import SchedulerRegistry
from toril.modules.tokens import QueueToken, queue_hint
from toril.queues.listeners import WITH_JOB, Listener, LocalEvent
from toril.queues.queue import Queue
from toril.worker.options import WorkerOptions
from toril.worker.processor import Handler, HandlerCall, JobScope, Surrounded
from toril.worker.worker import Worker


def served_queues(graph: Graph, roles: Collection[Role] = ROLES, only_queues: Collection[str] | None = None) -> list[str]:
    """The names of the queues that a process with these roles works on: those that have handlers, then that of the schedules.

    Args:
        only_queues: leave out others of those that have handlers.
    """
    by_queue, schedules = find_processors(graph), schedule_queue(graph)
    served = [name for name, processors in by_queue.items() if any(one.handlers for one in processors)]
    names = [name for name in served if only_queues is None or name in only_queues] if "worker" in roles else []
    return [*names, schedules] if schedules is not None and "scheduler" in roles else names


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
    """One worker for each queue that has handlers, and one for the queue of schedules.

    Args:
        ctx: created, its singletons exist.
        only_queues: leave out all others.
        overrides: options that come before those of the processors (from the command line, say).
        shutdown_timeout: as in `WorkerOptions`.
    """
    by_queue = find_processors(ctx.graph)
    workers: list[Worker] = []
    for name in served_queues(ctx.graph):
        if only_queues is not None and name not in only_queues:
            continue
        if name != schedule_queue(ctx.graph):
            workers.append(_make_worker(ctx, name, by_queue[name], overrides, shutdown_timeout))
            continue
        registry: object = find(ctx, SchedulerRegistry)
        if isinstance(registry, SchedulerRegistry):  # else a test's own object in its place
            workers.append(Worker(registry.queue, registry.handlers, _worker_options((), overrides, shutdown_timeout)))
    return workers


def _make_worker(
    ctx: ApplicationContext,
    queue: str,
    processors: Sequence[Processor],
    overrides: ProcessorFields | None,
    shutdown_timeout: Duration | None,
) -> Worker:
    handlers = [_handler_for(ctx, one) for processor in processors for one in processor.handlers]
    return Worker(ctx.get(QueueToken(queue)), handlers, _worker_options(processors, overrides, shutdown_timeout))


def _worker_options(processors: Sequence[Processor], overrides: ProcessorFields | None, shutdown_timeout: Duration | None) -> WorkerOptions:
    options: dict[str, Any] = {"name": f"{socket.gethostname()}-{os.getpid()}"}  # so that dashboards tell the processes apart
    for processor in processors:
        options |= processor.metadata.options
    options |= overrides or {}
    if shutdown_timeout is not None:
        options["shutdown_timeout"] = shutdown_timeout
    return WorkerOptions(**options)


def bind_listeners(ctx: ApplicationContext) -> None:
    """Let the processors' listeners hear of their queues: of what workers and calls in this process do."""
    for name, processors in find_processors(ctx.graph).items():
        queue: object = ctx.get(QueueToken(name))
        if not isinstance(queue, Queue):  # pyright: ignore[reportUnnecessaryIsInstance]  # a test's own object in its place
            continue
        for processor in processors:
            for method, event in processor.listeners:
                queue.on(event, _bind_listener(ctx, processor, method, event))


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


def handler_of(one: HandlerMethod, *, call: HandlerCall | Surrounded | None = None, scope: JobScope | None = None) -> Handler:
    """What the worker needs to know of a method. Raises what `HandlerMethod.types` and `Handler` raise."""
    signature = one.signature()
    payload, result = signature.types(one.definition)
    return Handler(
        name=one.metadata.name,
        call=call,
        scope=scope,
        is_async=signature.is_async,
        payload=payload,
        result=result,
        concurrency=one.metadata.concurrency,
        timeout_ms=one.metadata.timeout_ms,
        place=one.place,
    )


def handlers_here(ctx: ApplicationContext, queue: str) -> list[Handler]:
    """The handlers of a queue as they run in this very process: what a child process serves."""
    return [_bind_handler(ctx, one) for processor in find_processors(ctx.graph).get(queue, ()) for one in processor.handlers]


def _handler_for(ctx: ApplicationContext, one: HandlerMethod) -> Handler:
    if one.metadata.executor != "process":
        return _bind_handler(ctx, one)
    program = application_program(ctx, one.processor.binding)
    return replace(handler_of(one, call=one.function), program=program, max_jobs_per_child=one.metadata.max_jobs_per_child)


def _bind_handler(ctx: ApplicationContext, one: HandlerMethod) -> Handler:
    binding, signature = one.processor.binding, one.signature()
    filled = ctx.graph.find(binding.node, HandlerToken(one))
    if filled is not None:
        return _bind_injected(ctx, one, filled)
    if binding.scope is Scope.SINGLETON:
        return handler_of(one, call=signature.filled(getattr(ctx.instance_of(binding), one.method), {}))
    method: Callable[[Any], Any] = operator.attrgetter(one.method)

    def fill(processor: object) -> HandlerCall:
        return signature.filled(method(processor), {})

    call_of = method if signature.takes_only_the_job else fill
    return handler_of(one, scope=functools.partial(_Scoped, ctx, ctx.plan_for(binding), call_of))


def _bind_injected(ctx: ApplicationContext, one: HandlerMethod, binding: Binding) -> Handler:
    """A handler with parameters that the container fills: once and for all, if all of them stay."""
    plan = ctx.plan_for(binding)
    if binding.has_fixed_parts:
        return handler_of(one, call=plan.build(ctx.job_scope(None) if plan.is_tracked else None))
    return handler_of(one, scope=functools.partial(_Scoped, ctx, plan, _unchanged))


def _unchanged(call: HandlerCall | Surrounded) -> HandlerCall | Surrounded:
    return call


def _bind_listener(ctx: ApplicationContext, processor: Processor, method: str, event: LocalEvent) -> Listener:
    binding = processor.binding
    if binding.scope is Scope.SINGLETON:
        return cast("Listener", getattr(ctx.instance_of(binding), method))
    plan, listener_of = ctx.plan_for(binding), operator.attrgetter(method)

    @functools.wraps(getattr(processor.cls, method))  # so that a log line about it names the listener
    async def call_in_scope(*args: Any) -> None:  # noqa: ANN401 -- each event has arguments of its own
        job = args[0] if event in WITH_JOB else None
        async with _Scoped(ctx, plan, listener_of, job) as listener:
            # A plain function must not block the loop here either.
            await call_off_loop(listener, *args)

    return call_in_scope


class _Scoped:
    """The scope of one call: makes what the plan makes, hands out what is to be called, closes what was opened.

    A class, since the same as a generator costs each job 2 µs more (measured: 5 against 3).
    """

    __slots__ = ("_call_of", "_plan", "_scope")

    def __init__(self, ctx: ApplicationContext, plan: JobPlan, call_of: Callable[[Any], Any], job: object) -> None:
        self._scope, self._plan, self._call_of = ctx.job_scope(job), plan, call_of

    async def __aenter__(self) -> Any:  # noqa: ANN401 -- a handler or listener, which take what they want
        self._scope.enter()
        try:
            made = self._scope.begin(self._plan)
            return self._call_of(await made if self._plan.awaits else made)
        except BaseException as error:
            await self._scope.__aexit__(type(error), error, error.__traceback__)
            raise

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._scope.must_close:
            await self._scope.__aexit__(kind, error, trace)
        else:
            self._scope.leave()
