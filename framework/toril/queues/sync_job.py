"""What a handler that is a plain `def` does with its job from the thread that it runs in.

    handler's thread ── job.sync.log("…") ──► event loop: `job.log("…")` ──► server
           ▲ waits                                      │
           └────────────── row count, or the error ─────┘

The thread waits for the loop, never the other way round: so a call on the loop's own thread is refused, since it would wait for itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import CancelledError, Future, wait
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from toril.durations import Duration
from toril.errors import SyncCallError
from toril.units import format_ms

if TYPE_CHECKING:
    from toril.queues.job import Job

DataT = TypeVar("DataT")
T = TypeVar("T")

PATIENCE_MS: Final = 30_000
"""How long a call may take: more than the bounds of what is sent to the server, which come first unless the loop is blocked."""

_ENDED: Final = "the event loop that was to carry it out has ended"

LOOK_MS: Final = 500
"""How often a call that waits looks whether it is still worth it."""


class SyncJob(Generic[DataT]):
    """`job.sync`: what `Job` has as coroutines, for the threads of blocking handlers and for those that they start.

    Each call blocks its thread until the event loop has carried it out, and raises what the coroutine would. A call that still waits
    when the run is over (timeout, cancel, lost lock, stop) is given up; one that begins then is tried all the same.

    Raises:
        SyncCallError: on the event loop's own thread, where it would wait for itself; the loop has ended, or has not come to it
            within 30 s; the run was over while it waited.
    """

    __slots__ = ("_job",)

    def __init__(self, job: Job[DataT, Any]) -> None:
        self._job = job

    def update_progress(self, value: object) -> None:
        """As `Job.update_progress`."""
        self._run("update_progress", lambda: self._job.update_progress(value))

    def update_data(self, data: DataT | Mapping[str, object]) -> None:
        """As `Job.update_data`."""
        self._run("update_data", lambda: self._job.update_data(data))

    def log(self, row: str) -> int:
        """As `Job.log`."""
        return self._run("log", lambda: self._job.log(row))

    def extend_lock(self, duration: Duration) -> None:
        """As `Job.extend_lock`."""
        self._run("extend_lock", lambda: self._job.extend_lock(duration))

    def _run(self, name: str, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        loop = self._job.queue.loop
        if loop is None or not loop.is_running():
            raise SyncCallError(name, "the event loop that is to carry it out doesn't run (any more)")
        if loop is _running_loop():
            raise SyncCallError(name, f"on the event loop's own thread it would wait for itself; write `await job.{name}(…)` there")
        coroutine = call()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        except RuntimeError:  # it was closed in this very moment
            coroutine.close()
            raise SyncCallError(name, _ENDED) from None
        self._wait(name, future, loop)
        try:
            return future.result()
        except CancelledError:
            raise SyncCallError(name, _ENDED) from None

    def _wait(self, name: str, future: Future[T], loop: asyncio.AbstractEventLoop) -> None:
        give_up_at = time.monotonic() + PATIENCE_MS / 1_000  # real time, as all that is about the network
        while True:
            # In steps, since nothing wakes a thread when a loop ends, and only one thing at a time can.
            done, _ = wait((future,), LOOK_MS / 1_000)
            if done:
                return
            if not loop.is_running():
                raise SyncCallError(name, _ENDED)
            if self._job.cancelled.is_set():
                reason = "the run is over (timeout, cancel, lost lock, or stop), and the server had not answered yet"
            elif time.monotonic() > give_up_at:
                reason = f"the event loop has not carried it out within {format_ms(PATIENCE_MS)}; does a handler block it?"
            else:
                continue
            future.cancel()
            raise SyncCallError(name, reason)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
