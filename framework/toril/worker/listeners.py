"""Local listeners: what happens in this process, told to functions that want to hear it.

A listener never delays a job: coroutine functions run in tasks of their own, plain ones one after the other in a thread.
One that raises is logged with its name, and nothing else happens.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal, TypeAlias

from toril.errors import InvalidOptionError
from toril.telemetry.logs import get_logger
from toril.worker.processor import is_async, place_of

log = get_logger(__name__)

LocalEvent: TypeAlias = Literal["active", "completed", "failed", "progress", "error"]

LOCAL_EVENTS: Final[tuple[LocalEvent, ...]] = ("active", "completed", "failed", "progress", "error")
"""Their listeners get: (job), (job, result), (job, error, final), (job, value), (error)."""

Listener: TypeAlias = Callable[..., Any]

CLOSE_TIMEOUT_S: Final = 5.0


class Listeners:
    """The listeners of one worker, by event. Where there is none, telling costs one look into a dict."""

    def __init__(self) -> None:
        self._by_event: dict[str, list[Listener]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread: ThreadPoolExecutor | None = None

    def add(self, event: LocalEvent, listener: Listener) -> None:
        """Hear of an event from now on.

        Raises:
            InvalidOptionError: there is no such event.
        """
        if event not in LOCAL_EVENTS:
            raise InvalidOptionError("event", event, f"write one of {', '.join(LOCAL_EVENTS)}")
        self._by_event.setdefault(event, []).append(listener)

    def hears(self, event: LocalEvent) -> bool:
        """Whether anybody listens."""
        return event in self._by_event

    def tell(self, event: LocalEvent, *args: object) -> None:
        """Call every listener of the event; returns at once."""
        for listener in self._by_event.get(event, ()):
            if is_async(listener):
                task = asyncio.create_task(_call_async(event, listener, args), name=f"listener of {event}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                if self._thread is None:
                    self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="toril-listeners")
                context = contextvars.copy_context()
                self._thread.submit(context.run, _call, event, listener, args)

    async def wait_until_quiet(self) -> None:
        """Wait until all that was told so far has been heard, for a bounded time."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)
        await self._wait_for_thread()

    async def aclose(self) -> None:
        """Let what was told be heard, for a bounded time; what takes longer is cancelled."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)
            for task in late:
                task.cancel()
            if late:
                log.warning("listeners took too long at stop and were cancelled", count=len(late))
                await asyncio.wait(late, timeout=CLOSE_TIMEOUT_S)
        await self._wait_for_thread()
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = None

    async def _wait_for_thread(self) -> None:
        if self._thread is not None:
            last = asyncio.wrap_future(self._thread.submit(lambda: None))
            await asyncio.wait({last}, timeout=CLOSE_TIMEOUT_S)


async def _call_async(event: str, listener: Listener, args: tuple[object, ...]) -> None:
    try:
        await listener(*args)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 -- a user's listener must not disturb anything else; SystemExit would end the loop
        _report(event, listener, error)


def _call(event: str, listener: Listener, args: tuple[object, ...]) -> None:
    try:
        listener(*args)
    except BaseException as error:  # noqa: BLE001 -- nobody looks at what the thread's future holds
        _report(event, listener, error)


def _report(event: str, listener: Listener, error: BaseException) -> None:
    log.error("listener failed", event_name=event, listener=place_of(listener), exc_info=error)
