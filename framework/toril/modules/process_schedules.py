"""Runs the schedules that every process has for itself: those of scope `process`, and timeouts.

Each is one task: it rests until it is due, runs, and rests again, so a schedule never overlaps itself. What fails is logged and ends
nothing. At stop those that rest end at once; those that run may come to their end for a while, then they are cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final

from toril.cancellation import run_to_end
from toril.clock import Clock
from toril.modules.schedules import Schedule, first_due_ms, next_due_ms
from toril.queues.listeners import EventContext
from toril.telemetry.context import LOG_CONTEXT
from toril.telemetry.logs import get_logger
from toril.worker.worker import CANCEL_TIMEOUT_MS

log = get_logger(__name__)

LONGEST_REST_MS: Final = 60_000
"""Who waits for a time of the wall clock looks at it this often: the machine may sleep, or its clock be set."""

THREADS: Final = 32


class ProcessSchedules:
    """Runs them for the time of `running()`. Those that are added meanwhile begin at once."""

    def __init__(self, clock: Clock, queue: str) -> None:
        self._clock = clock
        self._queue = queue
        self._schedules: dict[str, Schedule] = {}
        self._due_ms: dict[str, int] = {}
        self._tasks: dict[asyncio.Task[None], Schedule] = {}
        self._working: set[asyncio.Task[None]] = set()
        self._threads: ThreadPoolExecutor | None = None
        self._in_threads = 0
        self._is_running = False
        self._is_forced = False
        self._step = asyncio.Event()
        """Set when a run has ended, and when the stop is forced."""
        self._unended = 0

    @property
    def left_behind(self) -> int:
        """How many runs would not end at stop. Only the end of the process ends them."""
        return self._unended + (0 if self._is_running else self._in_threads)

    def next_ms(self, name: str) -> int | None:
        """When a schedule runs next; None while it runs, when it is over, and when nothing runs."""
        return self._due_ms.get(name)

    def add(self, schedule: Schedule) -> None:
        """Run it, from now on or from the beginning of `running()` on."""
        self._schedules[schedule.name] = schedule
        if self._is_running:
            self._begin(schedule)

    def discard(self, name: str) -> None:
        """Don't run it again; a run that is under way goes on."""
        schedule = self._schedules.pop(name, None)
        self._due_ms.pop(name, None)
        for task, its in self._tasks.items():
            if its is schedule and task not in self._working:
                task.cancel()

    def force(self) -> None:
        """Don't wait for runs at stop."""
        self._is_forced = True
        self._step.set()

    @asynccontextmanager
    async def running(self, limit_ms: int) -> AsyncGenerator[None]:
        """Run them for the time of the block; at its end, runs that are under way get `limit_ms` before they are cancelled."""
        self._is_running = True
        for schedule in self._schedules.values():
            self._begin(schedule)
        try:
            yield
        finally:
            await run_to_end(self._stop(limit_ms))

    async def _stop(self, limit_ms: int) -> None:
        self._is_running = False
        for task in self._tasks.keys() - self._working:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout(limit_ms):
                while self._working and not self._is_forced:
                    self._step.clear()
                    await self._step.wait()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CANCEL_TIMEOUT_MS / 1_000)
        self._unended = len(self._working)
        if self.left_behind:
            log.error("schedules did not end at stop", schedules=[self._tasks[task].name for task in self._working])
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    def _begin(self, schedule: Schedule) -> None:
        rule, now_ms = schedule.rule, self._clock.now_ms()
        due_ms = now_ms + (schedule.after_ms or 0) if rule is None else first_due_ms(rule, now_ms)
        if due_ms is None:
            return
        self._due_ms[schedule.name] = due_ms  # known at once, and not only when the task has begun
        task = asyncio.create_task(self._live(schedule, due_ms), name=f"schedule {schedule.name}")
        self._tasks[task] = schedule
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a schedule broke down and doesn't run any more", exc_info=error)

    async def _live(self, schedule: Schedule, first_ms: int) -> None:
        """All runs of one schedule in this process."""
        LOG_CONTEXT.set(EventContext(self._queue, schedule.name))
        rule, runs = schedule.rule, 0
        due_ms: int | None = first_ms
        while due_ms is not None and self._is_running and self._schedules.get(schedule.name) is schedule:
            self._due_ms[schedule.name] = due_ms
            await self._rest(due_ms, is_wall_time=rule is not None and rule.pattern is not None)
            self._due_ms.pop(schedule.name, None)
            await self._run(schedule)
            runs += 1
            is_over = rule is None or (rule.limit is not None and runs >= rule.limit)
            due_ms = None if is_over or rule is None else next_due_ms(rule, due_ms, self._clock.now_ms())

    async def _rest(self, due_ms: int, *, is_wall_time: bool) -> None:
        left_ms = due_ms - self._clock.now_ms()
        if not is_wall_time:
            await self._clock.sleep(max(left_ms, 0))
            return
        while left_ms > 0:
            await self._clock.sleep(min(left_ms, LONGEST_REST_MS))
            left_ms = due_ms - self._clock.now_ms()

    async def _run(self, schedule: Schedule) -> None:
        """One run. Nothing that a user's code raises gets out of here."""
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs here
        self._working.add(task)
        try:
            async with schedule.open() as call:
                await (call() if schedule.is_async else self._in_thread(call))
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and task.cancelling():
                raise
            log.error("schedule failed", schedule=schedule.name, exc_info=error)
        finally:
            self._working.discard(task)
            self._step.set()

    async def _in_thread(self, call: Callable[[], Any]) -> None:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="toril-schedules")
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()
        work = self._threads.submit(context.run, _result_or_error, call)
        self._in_threads += 1
        work.add_done_callback(lambda _work: self._thread_ended(loop))
        error = await asyncio.wrap_future(work)
        if error is not None:
            raise error

    def _thread_ended(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody counts any more
            loop.call_soon_threadsafe(self._count_down)

    def _count_down(self) -> None:
        self._in_threads -= 1


def _result_or_error(call: Callable[[], Any]) -> BaseException | None:
    """What the call raised: a future takes no StopIteration, and would then never be done."""
    try:
        call()
    except BaseException as error:  # noqa: BLE001 -- raised again in the loop
        return error
    return None
