"""Local listeners: what happens in this process, told to functions that want to hear it.

A listener never delays a job: coroutine functions run in tasks of their own, plain ones one after the other in a thread. An
awaitable that a plain one returns (a lambda that calls a coroutine function, say) is awaited in a task, too.
One that raises is logged with its name, and nothing else happens.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, overload

from toril.callables import is_async, place_of
from toril.errors import InvalidOptionError
from toril.telemetry.context import LOG_CONTEXT, LogContext
from toril.telemetry.logs import get_logger

if TYPE_CHECKING:
    from toril.queues.job import Job
    from toril.queues.states import JobState

log = get_logger(__name__)

LocalEvent: TypeAlias = Literal[
    "active", "completed", "failed", "progress", "error", "stalled", "waiting", "drained", "paused", "resumed", "removed", "cleaned"
]

LISTENER_ARGUMENTS: Final[Mapping[LocalEvent, tuple[str, ...]]] = {
    "active": ("job",),
    "completed": ("job", "result"),
    "failed": ("job", "error", "final"),
    "progress": ("job", "value"),
    "error": ("error",),
    "stalled": ("job_id",),
    "waiting": ("job_id",),
    "drained": (),
    "paused": (),
    "resumed": (),
    "removed": ("job_id",),
    "cleaned": ("count", "state"),
}
"""The events, and what their listeners get."""

WITH_JOB: Final[frozenset[LocalEvent]] = frozenset({"active", "completed", "failed", "progress"})
"""The events whose first argument is the live job."""

Listener: TypeAlias = Callable[..., Any]

CLOSE_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class EventContext:
    """Stands where a job would, in the logs of a listener or schedule that runs without one."""

    queue: str
    event: str

    def log_fields(self) -> dict[str, object]:
        """What a log line is bound to."""
        return {"queue": self.queue, "queue_event": self.event}


class ListenerCalls:
    """Calls listeners so that none of them delays anybody: coroutine functions in tasks, plain ones one after the other in a thread."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread: ThreadPoolExecutor | None = None

    def begin(self, event: str, listener: Listener, args: tuple[object, ...], about: LogContext) -> None:
        """Call a listener; returns at once. `about`: what log lines of it are bound to."""
        context = contextvars.copy_context()
        context.run(LOG_CONTEXT.set, about)
        if is_async(listener):
            self._await(event, listener, lambda: listener(*args), context)
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="toril-listeners")
        self._thread.submit(self._call, event, listener, args, context, asyncio.get_running_loop())

    def _await(self, event: str, listener: Listener, call: Callable[[], Awaitable[object]], context: contextvars.Context) -> None:
        task = asyncio.create_task(_awaited(event, listener, call), name=f"listener of {event}", context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _call(
        self, event: str, listener: Listener, args: tuple[object, ...], context: contextvars.Context, loop: asyncio.AbstractEventLoop
    ) -> None:
        """In the thread."""
        try:
            returned: object = context.run(listener, *args)
            if inspect.isawaitable(returned):
                loop.call_soon_threadsafe(self._await, event, listener, lambda: returned, context)
        except BaseException as error:  # noqa: BLE001 -- nobody looks at what the thread's future holds
            _report(event, listener, error)

    async def wait_until_quiet(self) -> None:
        """Wait until all that was told so far has been heard, for a bounded time."""
        await self._wait_for_thread()  # first: its calls may leave something to await
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)

    async def aclose(self) -> None:
        """Let what was told be heard, for a bounded time; what takes longer is cancelled."""
        await self._wait_for_thread()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)
            for task in late:
                task.cancel()
            if late:
                log.warning("listeners took too long at stop and were cancelled", count=len(late))
                await asyncio.wait(late, timeout=CLOSE_TIMEOUT_S)
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = None

    async def _wait_for_thread(self) -> None:
        if self._thread is not None:
            last = asyncio.wrap_future(self._thread.submit(lambda: None))
            await asyncio.wait({last}, timeout=CLOSE_TIMEOUT_S)


class Listeners:
    """The listeners of one queue or worker, by event. Where there is none, telling costs a look or two into a dict.

    Args:
        queue: its name, for logs.
        above: the queue's listeners, where these are a worker's: they hear everything, too.
    """

    def __init__(self, queue: str, above: Listeners | None = None) -> None:
        self._queue = queue
        self._above = above
        self._by_event: dict[str, list[Listener]] = {}
        self._calls = ListenerCalls()

    def add(self, event: LocalEvent, listener: Listener) -> None:
        """Hear of an event from now on.

        Raises:
            InvalidOptionError: there is no such event.
        """
        if event not in LISTENER_ARGUMENTS:
            raise InvalidOptionError("event", event, f"write one of {', '.join(LISTENER_ARGUMENTS)}")
        self._by_event.setdefault(event, []).append(listener)

    def hears(self, event: LocalEvent) -> bool:
        """Whether anybody listens."""
        return event in self._by_event or (self._above is not None and event in self._above._by_event)

    def tell(self, event: LocalEvent, *args: object) -> None:
        """Call every listener of the event; returns at once."""
        if self._above is not None:
            self._above.tell(event, *args)
        for listener in self._by_event.get(event, ()):
            about = cast("LogContext", args[0]) if event in WITH_JOB else EventContext(self._queue, event)
            self._calls.begin(event, listener, args, about)

    async def wait_until_quiet(self) -> None:
        """Wait until all that was told so far has been heard, also by those above, for a bounded time."""
        if self._above is not None:
            await self._above.wait_until_quiet()
        await self._calls.wait_until_quiet()

    async def aclose(self) -> None:
        """Let what was told be heard, also by those above, for a bounded time; what takes longer here is cancelled."""
        if self._above is not None:
            await self._above.wait_until_quiet()
        await self._calls.aclose()


class EventSource:
    """What one can listen to: a queue, a worker."""

    listeners: Listeners

    @overload
    def on(self, event: Literal["active"], listener: Callable[[Job[Any, Any]], object]) -> None: ...
    @overload
    def on(self, event: Literal["completed", "progress"], listener: Callable[[Job[Any, Any], Any], object]) -> None: ...
    @overload
    def on(self, event: Literal["failed"], listener: Callable[[Job[Any, Any], BaseException, bool], object]) -> None: ...
    @overload
    def on(self, event: Literal["error"], listener: Callable[[Exception], object]) -> None: ...
    @overload
    def on(self, event: Literal["stalled", "waiting", "removed"], listener: Callable[[str], object]) -> None: ...
    @overload
    def on(self, event: Literal["drained", "paused", "resumed"], listener: Callable[[], object]) -> None: ...
    @overload
    def on(self, event: Literal["cleaned"], listener: Callable[[int, JobState], object]) -> None: ...
    @overload
    def on(self, event: LocalEvent, listener: Listener) -> None: ...

    def on(self, event: LocalEvent, listener: Listener) -> None:
        """Hear what happens here: of a worker what it does, of a queue what its workers in this process and calls on this object do.

        Args:
            event: one of `LISTENER_ARGUMENTS`, which tells the arguments, too; `QueueEvents` tells of the whole fleet.
            listener: a plain or coroutine function; what a plain one returns is awaited if it can be. It delays nothing, and what it
                raises is logged.

        Raises:
            InvalidOptionError: there is no such event.
        """
        self.listeners.add(event, listener)


async def _awaited(event: str, listener: Listener, call: Callable[[], Awaitable[object]]) -> None:
    try:
        await call()
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 -- a user's listener must not disturb anything else; SystemExit would end the loop
        _report(event, listener, error)


def _report(event: str, listener: Listener, error: BaseException) -> None:
    log.error("listener failed", event_name=event, listener=place_of(listener), exc_info=error)
