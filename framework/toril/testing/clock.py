"""`FakeClock`: time that passes only when a test says so."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Final, Self

from toril.clock import Timeout, Timer, real_sleep
from toril.durations import Duration, to_ms
from toril.queues.job import Job
from toril.telemetry.context import LOG_CONTEXT

_LOOK_S = 0.01
"""How often a waiting thread looks at the clock: the event that it waits for can't be set by the clock, too."""

_SETTLE_MS = 2_000
_SETTLE_LOOK_MS = 2


_HOUSEKEEPING: Final[ContextVar[bool]] = ContextVar("toril_housekeeping", default=False)


@contextmanager
def housekeeping() -> Generator[None]:
    """Timers of tasks that are started in this block are no reason to stop while time passes, unless they are the user's own.

    Handlers, schedules and listeners have a log context, and by that their timers are known.

    A worker that has nothing to do sweeps, polls and renews again and again, and none of it would be missed.
    """
    token = _HOUSEKEEPING.set(True)
    try:
        yield
    finally:
        _HOUSEKEEPING.reset(token)


class FakeTimer:
    """A callback that waits for its time."""

    __slots__ = ("callback", "due_ms", "job", "matters", "sleeper")

    def __init__(self, due_ms: float, callback: Callable[[], object]) -> None:
        self.due_ms = due_ms
        self.callback: Callable[[], object] | None = callback
        context = LOG_CONTEXT.get()
        self.job: Job[object, object] | None = context if isinstance(context, Job) else None
        """The job in whose handler it was made."""
        self.matters = context is not None or not _HOUSEKEEPING.get()
        self.sleeper: asyncio.Task[object] | None = None
        """The task that sleeps until then."""

    def cancel(self) -> None:
        """Make sure that the callback doesn't run any more."""
        self.callback = None


class FakeClock:
    """A clock that stands still. `advance` moves it, and runs what is due on the way, in order.

    Everything of the library that reads or waits for time follows it: delays, timeouts of handlers, intervals, sleeps. What it
    doesn't move: bounds of network calls, your own `asyncio.sleep`, other processes, and the server's times to live (for those
    use `TestingModule.advance`).

    Args:
        now_ms: where it stands first; by default the real time.
    """

    def __init__(self, now_ms: int | None = None) -> None:
        self._now_ms = float(time.time_ns() // 1_000_000 if now_ms is None else now_ms)  # noqa: TID251 -- only where it starts
        self._timers: list[tuple[float, int, FakeTimer]] = []
        self._numbers = itertools.count()
        self._threads: dict[threading.Thread, float] = {}
        """Threads that wait, or did when their time came, and until when."""
        self.last_fired: list[FakeTimer] = []
        """The timers that the last move has run, without those that don't matter (see `housekeeping`)."""

    def now_ms(self) -> int:
        return int(self._now_ms)

    def call_later(self, delay_ms: float, callback: Callable[[], object]) -> Timer:
        return self._call_later(delay_ms, callback)

    def _call_later(self, delay_ms: float, callback: Callable[[], object]) -> FakeTimer:
        timer = FakeTimer(self._now_ms + max(delay_ms, 0), callback)
        heapq.heappush(self._timers, (timer.due_ms, next(self._numbers), timer))
        if delay_ms <= 0:
            asyncio.get_running_loop().call_soon(self._run_due)
        return timer

    async def sleep(self, delay_ms: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._call_later(delay_ms, lambda: _wake(woken))
        timer.sleeper = asyncio.current_task()
        try:
            await woken
        finally:
            timer.cancel()

    def timeout(self, delay_ms: float) -> Timeout:
        return FakeTimeout(self, delay_ms)

    def wait(self, event: threading.Event, delay_ms: float) -> bool:
        thread = threading.current_thread()
        until = self._threads[thread] = self._now_ms + delay_ms
        while self._now_ms < until and not event.wait(_LOOK_S):
            pass
        if event.is_set():
            self._threads.pop(thread, None)
        return event.is_set()

    def next_due_ms(self) -> float | None:
        """When the next timer that matters is due, after now."""
        return min((timer.due_ms for timer in self._waiting() if timer.matters and timer.due_ms > self._now_ms), default=None)

    def is_asleep(self, task: asyncio.Task[object] | None) -> bool:
        """Whether this task waits for this clock, and for nothing else."""
        return task is not None and any(timer.sleeper is task for timer in self._waiting())

    def needed_ms(self, job: object) -> int | None:
        """How far it must move until something in this job's handler is due, be it only the end of a timeout; None: nothing there waits."""
        due_ms = min((timer.due_ms for timer in self._waiting() if timer.job is job), default=None)
        return None if due_ms is None else max(math.ceil(due_ms - self._now_ms), 0)

    @property
    def waiting_threads(self) -> int:
        """How many threads wait for this clock."""
        return sum(thread.is_alive() for thread in list(self._threads))

    async def settle(self) -> None:
        """After a jump: wait until the threads whose time has come have done what they woke for, and wait again; at most 2 s each."""
        for thread in list(self._threads):
            for _ in range(_SETTLE_MS // _SETTLE_LOOK_MS):
                if not thread.is_alive() or self._threads.get(thread, math.inf) > self._now_ms:
                    break
                await real_sleep(_SETTLE_LOOK_MS)  # it can't wake us: it doesn't know that we wait
            else:
                self._threads.pop(thread, None)  # it does something else now
            if not thread.is_alive():
                self._threads.pop(thread, None)

    def advance(self, duration: Duration) -> None:
        """Jump forward; callbacks that become due are called at their time, before the clock moves on. Call it in the event loop."""
        target = self._now_ms + to_ms(duration, "advance")
        self.last_fired = []
        while self._timers and self._timers[0][0] <= target:
            self._now_ms = max(self._now_ms, self._timers[0][0])
            self._run_due()
        self._now_ms = target

    def _run_due(self) -> None:
        while self._timers and self._timers[0][0] <= self._now_ms:
            _, _, timer = heapq.heappop(self._timers)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                if timer.matters:
                    self.last_fired.append(timer)
                callback()

    def _waiting(self) -> Generator[FakeTimer]:
        return (timer for _, _, timer in self._timers if timer.callback is not None)


class FakeTimeout:
    """asyncio's own timeout without a deadline; the fake clock moves the deadline to now when its time has come."""

    def __init__(self, clock: FakeClock, delay_ms: float) -> None:
        self._clock = clock
        self._delay_ms = delay_ms
        self._block = asyncio.timeout(None)
        self._timer: Timer | None = None

    def expired(self) -> bool:
        """Whether the time was up."""
        return self._block.expired()

    async def __aenter__(self) -> Self:
        await self._block.__aenter__()
        loop = asyncio.get_running_loop()
        self._timer = self._clock.call_later(self._delay_ms, lambda: self._block.reschedule(loop.time()))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        if self._timer is not None:
            self._timer.cancel()
        await self._block.__aexit__(kind, error, trace)
        return None


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
