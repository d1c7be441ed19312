"""Child processes: where handlers with `executor="process"` run. (Threads need no more than the standard library's pool.)

    attempt ──open──► an idle child, or a new one ──job──► its result or error
                       ▲                                  │
                       └── idle ◄── within max_jobs_per_child ──► ended in the background
       cancelled (timeout, cancel, lost lock, stop): killed at once

There are never more children at work than jobs; children of handlers with equal programs are shared. Whoever knows the container says
how a child makes it (`ChildProgram`); nothing here does.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

from toril.cancellation import run_to_end
from toril.errors import (
    ChildHandlerError,
    ChildProcessDiedError,
    ChildProcessStartError,
    DelayedError,
    RateLimitError,
    UnrecoverableError,
    WaitingError,
)
from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.telemetry.hooks import HOOKS
from toril.telemetry.logs import chosen_logging, get_logger
from toril.units import format_ms
from toril.wire.codec import from_json
from toril.worker.child_process import ChildProcess
from toril.worker.frames import Message, as_bytes, record_message
from toril.worker.processor import Handler, HandlerCall
from toril.worker.programs import ChildProgram

log = get_logger(__name__)

START_LIMIT_S: Final = 300.0
"""How long a child may take until it serves. Generous: an application may load a model at its start."""

END_LIMIT_S: Final = 10.0
"""How long a child that is told to stop may take for its hooks."""

FORCED_END_LIMIT_S: Final = 1.0
"""The same once the stop is forced."""


class Children:
    """The child processes of one worker. Nothing is started before the first job that needs one."""

    def __init__(self, queue: Queue[Any, Any]) -> None:
        self._queue = queue
        self._all: set[ChildProcess] = set()
        self._idle: dict[tuple[str, str], list[ChildProcess]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self, handler: Handler, program: ChildProgram, job: Job[Any, Any]) -> AsyncGenerator[HandlerCall]:
        """A child for one attempt, from before its timeout begins. If the attempt doesn't wait for the answer, the child is killed.

        Raises:
            ChildProcessStartError: none could be started.
        """
        child = await self._take(program, job)

        async def call(job: Job[Any, Any]) -> object:
            return await _run(child, handler, program, job)

        try:
            yield call
        finally:
            await self._give_back(child, handler, program)

    async def aclose(self, *, force: bool = False) -> None:
        """Let all children run their hooks of stopping and exit; they have ten seconds for that, with `force` one."""
        for child in self._all:
            if child.is_busy:  # its job's task would not end at stop
                child.kill()
        for child in [child for children in self._idle.values() for child in children]:
            self._end_later(child, FORCED_END_LIMIT_S if force else END_LIMIT_S)
        self._idle.clear()
        if self._ending:
            await asyncio.wait(self._ending)

    async def _take(self, program: ChildProgram, job: Job[Any, Any]) -> ChildProcess:
        idle = self._idle.get(program.key, [])
        while idle:
            child = idle.pop()
            if child.is_alive:
                return child
            self._all.discard(child)
        try:
            child = await ChildProcess.start(f"toril child of queue {self._queue.name}")
        except OSError as error:
            raise ChildProcessStartError(job.id, job.queue_name, str(error)) from error
        self._all.add(child)
        try:
            await self._set_up(child, program, job)
        except BaseException:
            await run_to_end(self._kill(child))
            raise
        return child

    async def _set_up(self, child: ChildProcess, program: ChildProgram, job: Job[Any, Any]) -> None:
        """Let it make its application. All that may be secret goes through the pipe."""
        queue, reason = self._queue, f"it was not ready within {format_ms(round(START_LIMIT_S * 1_000))}"
        try:
            async with asyncio.timeout(START_LIMIT_S):
                answer = await child.ask(
                    "start",
                    entry=program.entry,
                    told=program.told,
                    queue=queue.name,
                    prefix=queue.prefix,
                    url=queue.server.address.url,
                    logging=chosen_logging(),
                )
        except TimeoutError:
            raise ChildProcessStartError(job.id, job.queue_name, reason) from None
        if answer is None:
            reason = f"it ended before it was ready (exit code {child.exit_code}); its standard error may tell more"
        elif answer["kind"] == "ready":
            log.debug("child process started", queue=queue.name, pid=child.pid)
            return
        else:
            reason = answer["text"]
            log.error("a child process can't make its application", queue=queue.name, reason=reason, stack=answer["stack"])
        raise ChildProcessStartError(job.id, job.queue_name, reason)

    async def _give_back(self, child: ChildProcess, handler: Handler, program: ChildProgram) -> None:
        most = handler.max_jobs_per_child
        if child.is_busy or not child.is_alive:
            await run_to_end(self._kill(child))
        elif most is not None and child.jobs_begun >= most:
            self._end_later(child)
        else:
            self._idle.setdefault(program.key, []).append(child)

    async def _kill(self, child: ChildProcess) -> None:
        child.kill()
        if not await child.wait_until_gone():
            log.error("a child process was killed, and still exists", queue=self._queue.name, pid=child.pid)
        self._all.discard(child)

    def _end_later(self, child: ChildProcess, limit_s: float = END_LIMIT_S) -> None:
        # Its log lines belong to no job.
        task = asyncio.create_task(self._end(child, limit_s), name=f"end of child process {child.pid}", context=contextvars.Context())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, child: ChildProcess, limit_s: float) -> None:
        await child.end(limit_s)
        self._all.discard(child)


async def _run(child: ChildProcess, handler: Handler, program: ChildProgram, job: Job[Any, Any]) -> object:
    """Run one job in a child: what it returned, checked, or an error in the place of what it raised."""
    heard, context = job.on_progress, contextvars.copy_context()  # the pipe's own context is that of the job it was opened for

    def progress(text: str) -> None:
        job.record.progress = as_bytes(text)
        if heard is not None:
            context.run(heard, job, job.progress)

    child.jobs_begun += 1
    child.on_progress = progress
    record = record_message(job.record)
    trace = None if HOOKS.tracer is None else HOOKS.tracer.carried()
    tells_progress = heard is not None
    answer = await child.ask("job", target=program.target, token=job.token, record=record, tells_progress=tells_progress, trace=trace)
    child.on_progress = None
    if answer is None:
        raise ChildProcessDiedError(job.id, job.queue_name, child.exit_code or 0)
    if answer["kind"] == "failed":
        raise _error_of(answer, job)
    value = as_bytes(answer["value"])
    return from_json(value) if handler.result.is_any else handler.result.decode(value, job.name, job.id)


def _error_of(answer: Message, job: Job[Any, Any]) -> Exception:
    """What stands for a child's error here. `signal` tells those that say what should happen to the job."""
    failure = ChildHandlerError(job.id, job.queue_name, answer["class_name"], answer["text"], answer["stack"], answer["is_final"])
    error: Exception
    match answer["signal"]:
        case "delayed":
            error = DelayedError(timedelta(milliseconds=answer["delay_ms"]), answer["text"])
        case "waiting":
            error = WaitingError(answer["text"])
        case "rate_limited":
            delay_ms = answer["delay_ms"]
            error = RateLimitError(None if delay_ms is None else timedelta(milliseconds=delay_ms))
        case "unrecoverable":
            error = UnrecoverableError(answer["text"])
        case _:
            return failure
    error.__cause__ = failure  # its traceback is the one to store
    return error
