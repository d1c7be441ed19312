"""`TestingModule`: a compiled application for one test. It runs jobs when the test says so, and moves time.

Compiled, instances exist and no hook has run; entering the block runs the hooks. Workers run only when the test says so:

    run_job       one job, to its end                 drain         what can run now
    run_workers   for the time of a block             advance       what becomes due while time passes
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar, overload

from typing_extensions import Unpack

from toril.application import Application
from toril.cancellation import run_to_end
from toril.clock import Clock, real_sleep
from toril.di import ContextState, NotReady, Token
from toril.durations import Duration, to_ms
from toril.errors import InvalidOptionError, JobFailedError, JobRemovedError
from toril.modules.connections import find, registered_queues
from toril.modules.fleet import Fleet
from toril.modules.tokens import SERVER
from toril.modules.workers import check_served
from toril.queues.drafts import MISSING
from toril.queues.job import Job
from toril.queues.job_def import JobDef
from toril.queues.options import JobOptionFields, JobOptions
from toril.queues.queue import Queue
from toril.testing.added_jobs import AddedJobs
from toril.testing.clock import FakeClock, housekeeping
from toril.testing.crew import Crew
from toril.testing.environment import TestEnvironment
from toril.testing.errors import LeakError, NeverEndsError, NotEnteredError
from toril.testing.leaks import LeakCheck
from toril.testing.single_job import Ends, serving_queue
from toril.testing.standstill import Standstill
from toril.wire.commands import shift_ttls
from toril.worker.stored_errors import reason_of
from toril.worker.worker import Worker

T = TypeVar("T")
D = TypeVar("D")
R = TypeVar("R")

_LOOK_MS: Final = 20

_NOTHING_DUE: Final = "nothing is due that could change that. Is the queue paused, or does the job wait for another one?"


class TestingModule(AddedJobs):
    """A compiled application for one test. `async with` runs its hooks, and stops and closes everything at the end."""

    __test__ = False

    def __init__(self, app: Application, clock: Clock, environment: TestEnvironment | None, leaks: LeakCheck) -> None:
        super().__init__(app.ctx)
        self.app = app
        self.clock = clock
        self._environment = environment
        self._leaks = leaks
        self._is_entered = self._is_closed = False
        self._crew = Crew(self.ctx, clock)
        self._ends: dict[str, Ends] = {}
        self._advancing = asyncio.Lock()
        if isinstance(clock, FakeClock):
            for queue in registered_queues(self.ctx):
                queue.result_watch = Standstill(queue, self.ctx.graph, clock, self._crew).watch

    @overload
    def get(self, token: Token[T]) -> T: ...
    @overload
    def get(self, token: type[T]) -> T: ...
    @overload
    def get(self, token: object) -> Any: ...  # noqa: ANN401 -- a token that says no type
    def get(self, token: object) -> Any:
        """An instance; see `ApplicationContext.get`."""
        return self.ctx.get(token)

    def queue(self, name: str) -> Queue[Any, Any]:
        """A registered queue.

        Raises:
            NotFound: it isn't; with what is near.
            NotEnteredError: outside of the block, as all calls below that run jobs or move time.
        """
        self._expect_entered(f"queue({name!r})")
        return self.app.queue(name)

    async def init(self) -> None:
        """Run the hooks of starting, once, and reconcile the schedules; if that fails, close everything. `async with` does it."""
        if self.ctx.state is not ContextState.CREATED:
            raise NotReady("init()", self.ctx.state, ContextState.CREATED)
        try:
            with self._leaks.starting():
                await self.ctx.init()
            await self.app.schedules.reconcile()
        except BaseException as error:
            await run_to_end(self._close_after(error))
            raise
        self._is_entered = True

    async def close(self) -> None:
        """Run the hooks of stopping, and close everything; also before `init`, and a second time. `async with` does it.

        Raises:
            LeakError: something that it had begun goes on: a task, a connection, a job.
        """
        if leaks := await self._close():
            raise LeakError(leaks)

    async def _close(self) -> list[str]:
        if self._is_closed:
            await self.app.stop()
            return []
        self._is_closed = True
        server = find(self.ctx, SERVER) if self.ctx.state is not ContextState.CLOSED else None
        leaks = await self._leaks.before_closing(self._crew, self._crew.used_queues)
        await self.app.stop()
        return leaks + await self._leaks.after_closing(server)

    async def _close_after(self, failure: BaseException) -> None:
        try:
            leaks = await self._close()
        except Exception as error:  # noqa: BLE001 -- what failed first is what the test needs to see
            failure.add_note(f"and while closing: {type(error).__name__}: {error}")
        else:
            if leaks:
                failure.add_note(str(LeakError(leaks)))

    async def __aenter__(self) -> Self:
        await self.init()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        leaks = await self._close()
        if leaks and error is None:
            raise LeakError(leaks)
        if leaks and error is not None:  # what the test itself says is more important
            error.add_note(str(LeakError(leaks)))

    def _expect_entered(self, call: str) -> None:
        if self._is_closed or not self._is_entered:
            raise NotEnteredError(call, self._is_closed)

    # ── running jobs ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def patience(self) -> timedelta:
        """How long work may go on at one instant, in real time, before it counts as endless: 60 s unless set."""
        return timedelta(milliseconds=self._crew.patience_ms)

    @patience.setter
    def patience(self, value: Duration) -> None:
        self._crew.patience_ms = to_ms(value, "patience")

    async def drain(self, *queues: str) -> None:
        """Run the workers of these queues (none: of all) until nothing is left to run at this moment, and stop them.

        What is delayed stays, retries with backoff among it, and what a rate limit holds back: `advance` lets time pass.

        Raises:
            InvalidOptionError: a queue has no processor here.
            StillBusyError: it did not come to an end; soon, if what runs waits for the clock, which stands still.
        """
        self._expect_entered("drain()")
        check_served(self.ctx.graph, queues, "drain")
        async with self._crew.work(queues or self._crew.served(), beside_others=True) as workers:
            await self._crew.settle(workers, jobs_may_wait=False)

    @asynccontextmanager
    async def run_workers(self, *queues: str) -> AsyncGenerator[None]:
        """Run the workers of these queues for the block; `advance` lets time pass for them, too.

        Without names those of all queues run, and all else that runs in a started application: listeners of the whole fleet, the
        schedules that each process has for itself.

        At its end jobs may come to theirs, but with a FakeClock those that wait for it are cancelled and put back.

        Raises:
            InvalidOptionError: a queue has no processor here.
        """
        self._expect_entered("run_workers()")
        check_served(self.ctx.graph, queues, "run_workers")
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._crew.work(queues or self._crew.served()))
            if not queues:
                with housekeeping():
                    await stack.enter_async_context(Fleet(self.ctx).running())
                    await stack.enter_async_context(self.app.schedules.running(to_ms(self.app.shutdown_timeout, "shutdown_timeout")))
                if isinstance(self.clock, FakeClock):
                    stack.callback(self.app.schedules.force)  # its stop would wait for the clock, which stands still
            yield

    @overload
    async def run_job(
        self,
        name: JobDef[D, R],
        data: D | Mapping[str, object],
        *,
        queue: str | None = None,
        options: JobOptions | None = None,
        **fields: Unpack[JobOptionFields],
    ) -> R: ...
    @overload
    async def run_job(
        self, name: JobDef[None, R], *, queue: str | None = None, options: JobOptions | None = None, **fields: Unpack[JobOptionFields]
    ) -> R: ...
    @overload
    async def run_job(
        self,
        name: str,
        data: object = ...,
        *,
        queue: str | None = None,
        options: JobOptions | None = None,
        **fields: Unpack[JobOptionFields],
    ) -> Any: ...  # noqa: ANN401 -- a mere name says no type
    async def run_job(
        self,
        name: Any,
        data: Any = MISSING,
        *,
        queue: str | None = None,
        options: JobOptions | None = None,
        **fields: Unpack[JobOptionFields],
    ) -> Any:
        """Add a job, run the worker of its queue until this job has ended, and return what its handler returned.

        With a FakeClock time passes as the job needs it: for its delay, and for its retries with their backoff. Other jobs of the
        queue that can run meanwhile do.

        Args:
            name: as in `Queue.add`, as the data and the options are.
            queue: where it is added; needed only where the processors of several queues handle jobs of this name.

        Raises:
            InvalidOptionError: no processor handles it, or those of several queues do.
            JobFailedError: it failed for good; its `__cause__` is what the handler raised in the last attempt, the very object.
            JobRemovedError: it was removed before it ended.
            NeverEndsError, StillBusyError: it does not come to its end.
            Others: what `Queue.add` raises.
        """
        self._expect_entered("run_job()")
        job_name: str = getattr(name, "name", name)  # of a definition, or the name itself
        target = self.queue(serving_queue(self.ctx.graph, job_name, queue))
        ends = self._ends.get(target.name) or self._ends.setdefault(target.name, Ends(target))
        with ends.watched():
            job: Job[Any, Any] = await target.add(name, data, options=options, **fields)
            async with self._crew.work([target.name]) as workers:
                end = await self._run_to_end(job, ends, workers)
        if isinstance(end, BaseException):
            raise JobFailedError(job.id, target.name, reason_of(end)) from end
        return job.read_result(end)

    async def _run_to_end(self, job: Job[Any, Any], ends: Ends, workers: Sequence[Worker]) -> bytes | BaseException:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._crew.patience_ms / 1_000
        hangs_since: float | None = None
        while True:
            clock = self.clock if isinstance(self.clock, FakeClock) else None
            await self._crew.settle(workers, jobs_may_wait=clock is not None, is_over=lambda: ends.find(job.id) is not None)
            if (end := ends.find(job.id)) is not None:
                return end
            [found] = await job.queue.commands.find_ends([job.id])  # it may have ended without a worker of ours
            if found is None:
                raise JobRemovedError(job.id, job.queue_name)
            if found.has_ended and found.return_value is not None:
                return found.return_value
            if found.has_ended:
                raise JobFailedError(job.id, job.queue_name, found.failed_reason)
            stop_ms = None if clock is None else await self._crew.next_stop_ms(clock, workers)
            hangs_since = (hangs_since or loop.time()) if clock is not None and self._crew.hangs(job.id, clock) else None
            is_in_vain = hangs_since is not None and (loop.time() - hangs_since) * 1_000 > self._crew.hang_ms
            if loop.time() > give_up_at or is_in_vain or (clock is not None and stop_ms is None):
                advice = self._crew.hanging_advice(job.id) or _NOTHING_DUE
                raise NeverEndsError(job.id, job.queue_name, await job.get_state() or "removed", advice)
            if clock is None or stop_ms is None:
                await real_sleep(_LOOK_MS)  # its events could wake us, but neither those of the clock nor of other processes
            else:
                await self._jump(clock, max(math.ceil(stop_ms) - clock.now_ms(), 0))

    # ── time ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def advance(self, duration: Duration) -> None:
        """Let time pass as if the workers of all queues ran meanwhile.

        What waits runs first. Then time goes on to the next moment when something is due (a delayed job, a retry, a schedule, the
        end of a rate limit, a timer or sleep on this clock), what is due runs, and so on; so a job that adds others for later sees
        them run, too. Keys of the test's prefix with a time to live grow older alike. `clock.advance` only jumps.

        A job that waits for the clock itself keeps its lock while time passes. If it needs more time than is given, it is
        cancelled at the end and put back to wait, unless its worker runs in a `run_workers` block or a `drain`.

        Raises:
            InvalidOptionError: the clock is no FakeClock, which nobody can move.
            StillBusyError: work at one moment did not come to an end.
        """
        self._expect_entered("advance()")
        clock = self.clock
        if not isinstance(clock, FakeClock):
            raise InvalidOptionError("advance", duration, "the clock of this testing module is real: leave out use_clock(), or wait")
        span_ms = to_ms(duration, "advance")
        async with self._advancing:
            end_ms = clock.now_ms() + span_ms
            async with self._crew.work(self._crew.served()):
                workers = self._crew.workers
                await self._crew.settle(workers, jobs_may_wait=True)
                while clock.now_ms() < end_ms:
                    stop_ms = await self._crew.next_stop_ms(clock, workers)
                    stop_ms = end_ms if stop_ms is None else min(end_ms, math.ceil(stop_ms))
                    await self._jump(clock, max(stop_ms - clock.now_ms(), 0))
                    await self._crew.settle(workers, jobs_may_wait=True)

    async def _jump(self, clock: FakeClock, by_ms: int) -> None:
        server = find(self.ctx, SERVER)
        if server is not None and self._environment is not None:
            # First of all: a job that a worker claims as soon as the clock has moved must not find its new lock aged.
            await shift_ttls(server, self._environment.prefix, by_ms)
        tasks = asyncio.all_tasks()
        clock.advance(timedelta(milliseconds=by_ms))
        woken = [timer.sleeper for timer in clock.last_fired if timer.job is None and timer.sleeper is not None]
        begun = list(asyncio.all_tasks() - tasks)
        await self._crew.time_has_passed(clock, [*woken, *begun])
