"""A child process from the inside: it makes what its program names, then runs one job after the other, and tells how each ended.

    main ─► start ─► Entry (an application, or just functions) ─► ready ─► job ─► done | failed ─► … ─► stop

Standard input and output belong to the worker. What the handlers print goes to standard error; what they read is empty. A thread waits
for the end of the input: then the worker's process is gone, and this one ends in the middle of whatever it does.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from toril.durations import optional_ms
from toril.errors import DelayedError, RateLimitError, UnknownJobNameError, UnrecoverableError, WaitingError
from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.telemetry.context import LOG_CONTEXT
from toril.telemetry.hooks import HOOKS
from toril.telemetry.logs import follow_logging, get_logger
from toril.wire.codec import from_json
from toril.worker.calling import HandlerCaller
from toril.worker.executor import is_final
from toril.worker.frames import Frames, Message, as_text, frame, record_from
from toril.worker.lasting_output import let_output_last
from toril.worker.processor import Handler, handler
from toril.worker.programs import imported
from toril.worker.stored_errors import reason_of, stack_of

log = get_logger(__name__)

_SET_PARENT_DEATH_SIGNAL: Final = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class ChildStart:
    """What an entry is told."""

    told: Any
    queue: str
    prefix: str
    url: str


class Served(Protocol):
    """What a child serves: its queue, and its handlers by what they are found by."""

    queue: Queue[Any, Any]

    def find(self, name: str, target: str) -> Handler | None:
        """The handler of jobs of this name; `target` is that of its `ChildProgram`. It runs right here, in this process."""
        ...


Entry: TypeAlias = Callable[[ChildStart], AbstractAsyncContextManager[Served]]
"""Makes what a child serves, and takes it down at the end."""


def main() -> None:
    """Serve until told to stop, or until the worker's process is gone."""
    _end_with_parent()
    pipe = _Pipe()
    asyncio.run(_serve(pipe))


class _Pipe:
    """The way to the worker."""

    def __init__(self) -> None:
        self._input, self._output = os.dup(0), os.dup(1)  # which no program that a job starts inherits
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        let_output_last()
        self._sending = threading.Lock()

    def send(self, kind: str, **content: object) -> None:
        """From any thread."""
        left = memoryview(frame(kind, **content))
        with self._sending, suppress(BrokenPipeError):  # the worker is gone: the other thread ends us
            while left:
                left = left[os.write(self._output, left) :]

    async def receive(self) -> asyncio.Queue[Message]:
        """Begin to read in a thread, which ends the process when the input ends."""
        loop, received = asyncio.get_running_loop(), asyncio.Queue[Message]()

        def read() -> None:
            frames = Frames()
            while data := os.read(self._input, 1 << 16):
                for message in frames.feed(data):
                    loop.call_soon_threadsafe(received.put_nowait, message)
            if os.getpgrp() == os.getpid():
                os.killpg(0, signal.SIGKILL)  # with all that the job has started
            os._exit(1)

        threading.Thread(target=read, name="toril-pipe", daemon=True).start()
        return received


def _end_with_parent() -> None:
    """Let the kernel kill this process with its parent, where it can: code that holds the interpreter's lock keeps our thread from it."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


async def _serve(pipe: _Pipe) -> None:
    messages = await pipe.receive()
    start = await messages.get()
    if start["logging"] is not None:
        follow_logging(start["logging"])
    is_ready = False
    try:
        entry: Entry = imported(start["entry"])
        async with entry(ChildStart(from_json(start["told"]), start["queue"], start["prefix"], start["url"])) as served:
            await served.queue.open()
            pipe.send("ready")
            is_ready = True
            await _serve_jobs(pipe, messages, served)
    except BaseException as error:
        if is_ready:  # the worker asks for nothing more
            log.error("a child process could not stop in order", exc_info=error)
        else:
            pipe.send("broken", text=_text_of(error), stack=stack_of(error))
        if not isinstance(error, Exception):
            raise


async def _serve_jobs(pipe: _Pipe, messages: asyncio.Queue[Message], served: Served) -> None:
    with ThreadPoolExecutor(1, thread_name_prefix="toril-job") as threads:
        caller = HandlerCaller(threads)
        while (message := await messages.get())["kind"] == "job":
            # A task for each, since it may leave context variables behind.
            await asyncio.create_task(_run_job(pipe, message, served, caller))


async def _run_job(pipe: _Pipe, message: Message, served: Served, caller: HandlerCaller) -> None:
    record = record_from(message["record"])
    try:
        found = served.find(record.name, message["target"])
        if found is None:
            raise UnknownJobNameError(record.job_id, served.queue.name, record.name, ())
        job: Job[Any, Any] = Job(served.queue, record, token=message["token"], payload=found.payload, result_type=found.result)
        if message["tells_progress"]:
            job.on_progress = lambda job, _value: pipe.send("progress", value=as_text(job.record.progress or b"0"))
        LOG_CONTEXT.set(job)
        if HOOKS.tracer is not None and message["trace"] is not None:
            HOOKS.tracer.go_on(message["trace"])
        completed = await caller.run(found, job)
    except BaseException as error:  # noqa: BLE001 -- a handler's error is its outcome, whatever it is
        pipe.send("failed", **_failure(error))
    else:
        pipe.send("done", value=as_text(completed.value))


def _failure(error: BaseException) -> dict[str, object]:
    signal_name, delay_ms = None, None
    if isinstance(error, DelayedError):
        signal_name, delay_ms = "delayed", optional_ms(error.delay, "DelayedError.delay")
    elif isinstance(error, RateLimitError):
        signal_name, delay_ms = "rate_limited", optional_ms(error.duration, "RateLimitError.duration")
    elif isinstance(error, WaitingError):
        signal_name = "waiting"
    elif isinstance(error, UnrecoverableError):
        signal_name = "unrecoverable"
    kind = type(error)
    return {
        "class_name": kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}",
        "text": reason_of(error),
        "stack": stack_of(error),
        "is_final": is_final(error),
        "signal": signal_name,
        "delay_ms": delay_ms,
    }


def _text_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {reason_of(error)}"


# ── functions, without a container ────────────────────────────────────────────────────────────────────────────


class _Functions:
    def __init__(self, queue: Queue[Any, Any]) -> None:
        self.queue = queue
        self._handlers: dict[tuple[str, str], Handler] = {}

    def find(self, name: str, target: str) -> Handler | None:
        """The handler of this function; importing its file is up to the first job."""
        if (name, target) not in self._handlers:
            path, _, definition = target.partition(" ")
            call = imported(path)
            self._handlers[name, target] = handler(call, call.__globals__[definition] if definition else name)
        return self._handlers[name, target]


@asynccontextmanager
async def serve_functions(start: ChildStart) -> AsyncGenerator[Served]:
    """The entry for handlers that are plain functions."""
    async with Queue[Any, Any](start.queue, prefix=start.prefix, url=start.url) as queue:
        yield _Functions(queue)
