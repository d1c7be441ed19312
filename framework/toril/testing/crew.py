"""The workers of a testing module: runs them for a block, and knows when nothing more happens at this instant.

A job that runs may wait for the clock, which stands still, or do something real: ask a database, render in a thread. The first
needs the clock to move, the second must not see it move, or its timeout would be over at once. So a running job is

    asleep      its task waits in `clock.sleep`                         time may pass at once
    unknown     it has a timeout, or something else set for later       time may pass after a short real wait
                it has nothing to do with the clock, or runs elsewhere  after a longer one: maybe it waits for another job

and once it has had its wait, that isn't repeated until a timer of its own fires.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from toril.clock import Clock, real_sleep
from toril.di import ApplicationContext
from toril.modules.connections import reach_server
from toril.modules.tokens import QueueToken
from toril.modules.workers import make_workers, running, served_queues
from toril.queues.queue import Queue
from toril.telemetry.context import LOG_CONTEXT
from toril.testing.clock import FakeClock, housekeeping
from toril.testing.errors import StillBusyError
from toril.wire.commands import next_due_ms
from toril.worker.running import RunningJob
from toril.worker.worker import Worker, WorkerState

SHORT_WAIT_S: Final = 1.0
LONG_WAIT_S: Final = 5.0
STOP_WAIT_S: Final = 10.0
"""How long workers may take to stop in real time, before the fake clock is moved past the bounds of their stop."""

CONNECT_TIMEOUT: Final = "5s"

_LOOK_MS: Final = 1
_STILL_LOOKS: Final = 1_500
"""So many looks in a row, about 2 s, must find nothing but jobs that wait for the clock, before somebody who moves it is given up."""


class Crew:
    """The workers that run now.

    Args:
        ctx: their container.
        clock: the test's.
    """

    def __init__(self, ctx: ApplicationContext, clock: Clock) -> None:
        self._ctx = ctx
        self._clock = clock
        self.patience_ms = 60_000
        self.workers: list[Worker] = []
        self.all_ids: set[str] = set()
        """Of every worker that has ever run here: the locks of its jobs begin with it."""
        self.used_queues: set[Queue[Any, Any]] = set()
        self.left_behind: list[str] = []
        """Jobs whose handlers would not end when their worker stopped."""
        self._waited_for: dict[str, object] = {}  # lock tokens, with their jobs
        self._seen: tuple[int, frozenset[str]] = (0, frozenset())
        self._unchanged_since = 0.0

    def served(self) -> list[str]:
        """The queues that have handlers here, and are real: a test may have put an object of its own in the place of one."""
        names = served_queues(self._ctx.graph)
        objects: list[tuple[str, object]] = [(name, self._ctx.get(QueueToken(name))) for name in names]
        return [name for name, queue in objects if isinstance(queue, Queue)]

    @property
    def begun(self) -> int:
        """How many attempts the workers that run now have begun."""
        return _begun(self.workers)

    @property
    def hang_ms(self) -> int:
        """How long jobs whose timeouts stand still may show no sign of life, in real time: 10 s unless `patience` is set."""
        return self.patience_ms // 6

    def of(self, queues: Collection[str]) -> list[Worker]:
        """The workers of these queues that run now."""
        return [worker for worker in self.workers if worker.queue.name in queues]

    @asynccontextmanager
    async def work(self, queues: Collection[str], *, beside_others: bool = False) -> AsyncGenerator[list[Worker]]:
        """Run the workers of these queues for the block, without those that run already (unless they shall have company).

        At the end of the block a job may go on as long as it does something real; one that waits for a clock that stands still is
        cancelled and put back.

        Yields:
            All workers of these queues.

        Raises:
            ServerError: the server can't be reached in a few seconds of real time, or is of no use.
        """
        taken = set[str]() if beside_others else {worker.queue.name for worker in self.workers}
        made = make_workers(self._ctx, only_queues=[name for name in queues if name not in taken])
        if made:
            await reach_server(self._ctx, CONNECT_TIMEOUT)  # workers wait for it as long as it takes
        self.workers += made
        self.all_ids |= {worker.id for worker in made}
        self.used_queues |= {worker.queue for worker in made}
        is_fake = isinstance(self._clock, FakeClock)
        timer: asyncio.TimerHandle | None = None
        try:
            with housekeeping():
                block = running(made)
                await block.__aenter__()
            try:
                yield self.of(queues)
                for worker in made:
                    worker.ask_to_stop()
                if is_fake:
                    await self._until(made, jobs_may_wait=True)
            except BaseException as error:
                timer = self._stop(made)
                if not await block.__aexit__(type(error), error, error.__traceback__):
                    raise
            else:
                timer = self._stop(made)
                await block.__aexit__(None, None, None)
        finally:
            if timer is not None:
                timer.cancel()
            self.workers = [worker for worker in self.workers if worker not in made]
            for worker in made:
                if worker.left_behind:
                    self.left_behind += [_line(one) for one in worker.attempts]

    def _stop(self, workers: Sequence[Worker]) -> asyncio.TimerHandle | None:
        """The bounds of a worker's stop are the clock's; that one stands still. So nothing is waited for, and time is helped."""
        if not isinstance(self._clock, FakeClock):
            return None
        clock = self._clock
        for worker in workers:
            worker.ask_to_stop(force=True)
        return asyncio.get_running_loop().call_later(STOP_WAIT_S, lambda: clock.advance("10s"))

    # ── when nothing happens any more ─────────────────────────────────────────────────────────────────────────

    async def settle(self, workers: Sequence[Worker], *, jobs_may_wait: bool, is_over: Callable[[], bool] = lambda: False) -> None:
        """Wait until these workers have run all that can run at this instant.

        Args:
            jobs_may_wait: jobs that wait for the clock may still run then.
            is_over: whether there is no need to wait any longer.

        Raises:
            StillBusyError: it took longer than `patience`.
        """
        give_up_at = asyncio.get_running_loop().time() + self.patience_ms / 1_000
        first = _begun(workers)
        # As in `wait_until_idle`: what looks idle may only not have heard yet of a job that another one has just added.
        while True:
            begun = _begun(workers)
            await self._until(workers, jobs_may_wait=jobs_may_wait, give_up_at=give_up_at, first=first, is_over=is_over)
            if is_over():
                return
            for worker in workers:
                await worker.listeners.wait_until_quiet()
            if _begun(workers) != begun:
                continue
            for worker in workers:
                worker.look_again()
            await self._until(workers, jobs_may_wait=jobs_may_wait, give_up_at=give_up_at, first=first, is_over=is_over)
            if _begun(workers) == begun:
                return

    async def _until(
        self,
        workers: Sequence[Worker],
        *,
        jobs_may_wait: bool,
        give_up_at: float | None = None,
        first: int = 0,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        loop = asyncio.get_running_loop()
        if give_up_at is None:
            give_up_at = loop.time() + self.patience_ms / 1_000
        self._unchanged_since = loop.time()
        stillness = _Stillness()
        while not is_over() and not all(self._is_still(worker, jobs_may_wait) for worker in workers):
            attempts = [one for worker in workers for one in worker.attempts]
            sleeps, needs_ms = self._sleep(attempts), None if jobs_may_wait else self.needs_ms(attempts)
            if needs_ms is None:
                stillness.reset()
            elif all(worker.is_waiting for worker in workers):  # one that only looks for jobs, as it does now and then, changes nothing
                stillness.note((self._clock.now_ms(), sleeps, {one.token for one in attempts}), loop.time())
            is_in_vain = stillness.looks > _STILL_LOOKS and (sleeps or stillness.lasts(loop.time(), self.hang_ms))
            if loop.time() > give_up_at or is_in_vain:
                busy = [worker for worker in workers if not self._is_still(worker, jobs_may_wait=False)]
                lines = [_line(one) for worker in busy for one in worker.attempts]
                names = sorted({worker.queue.name for worker in busy})
                waited_ms, needed_ms = (self.hang_ms, needs_ms) if is_in_vain else (self.patience_ms, None)
                raise StillBusyError(names, lines, _begun(workers) - first, waited_ms, needed_ms, sleeps)
            await real_sleep(_LOOK_MS)  # nothing tells us that all of them have come to rest
            if jobs_may_wait:
                self._wait_for_the_unknown(workers, loop.time())

    def _is_still(self, worker: Worker, jobs_may_wait: bool) -> bool:
        if worker.state is WorkerState.STOPPED:
            return True
        if not worker.is_waiting:
            return False
        return not worker.attempts or (jobs_may_wait and all(self._waits_for_time(one) for one in worker.attempts))

    def _sleep(self, attempts: Sequence[RunningJob]) -> bool:
        """Whether all of these sleep on the clock, so that nothing goes on unless somebody moves it."""
        clock = self._clock
        return isinstance(clock, FakeClock) and all(clock.is_asleep(one.task) for one in attempts)

    def needs_ms(self, attempts: Sequence[RunningJob]) -> int | None:
        """How far the clock must move until each of these goes on, or its timeout is over; None: one of them is not known to wait for it.

        What runs in threads and processes does real work, as far as anybody knows.
        """
        clock = self._clock
        if not attempts or not isinstance(clock, FakeClock):
            return None
        needs = [clock.needed_ms(one.job) if _runs_here(one) and not one.is_gathered else None for one in attempts]
        known = [each for each in needs if each is not None]
        return max(known) if len(known) == len(needs) else None

    def hangs(self, job_id: str, clock: FakeClock) -> bool:
        """Whether this job's handler runs here, in the event loop, and nothing that this clock could bring is due."""
        attempts = self._attempts_of(job_id)
        return bool(attempts) and all(_runs_here(one) and not one.is_gathered for one in attempts) and clock.next_due_ms() is None

    def hanging_advice(self, job_id: str) -> str | None:
        """Which handler of this job has not ended; None: none runs here."""
        lines = [_line(one) for one in self._attempts_of(job_id)]
        if not lines:
            return None
        return f"its handler has not ended: {'; '.join(lines)}. Does it wait for what never comes, or in real time (asyncio.sleep)?"

    def _attempts_of(self, job_id: str) -> list[RunningJob]:
        return [one for worker in self.workers for one in worker.attempts if one.job.id == job_id]

    def _waits_for_time(self, one: RunningJob) -> bool:
        if one.is_gathered:
            return False
        if one.token in self._waited_for or one.job is LOG_CONTEXT.get():  # the caller's own: it waits for us
            return True
        return isinstance(self._clock, FakeClock) and self._clock.is_asleep(one.task)

    def _wait_for_the_unknown(self, workers: Sequence[Worker], now: float) -> None:
        attempts = [one for worker in workers for one in worker.attempts]
        seen = _begun(workers), frozenset(one.token for one in attempts if not one.is_gathered)
        if seen != self._seen or not all(worker.is_waiting for worker in workers if worker.state is not WorkerState.STOPPED):
            self._seen, self._unchanged_since = seen, now
            return
        for one in attempts:
            has_timers = isinstance(self._clock, FakeClock) and self._clock.needed_ms(one.job) is not None
            if now - self._unchanged_since > (SHORT_WAIT_S if _runs_here(one) and has_timers else LONG_WAIT_S):
                self._waited_for[one.token] = one.job

    # ── what comes next ───────────────────────────────────────────────────────────────────────────────────────

    async def next_stop_ms(self, clock: FakeClock, workers: Sequence[Worker]) -> float | None:
        """When something is due next, as far as anybody here knows: a timer, a delayed job, a limit's end, the renewal of a lock."""
        times = [clock.next_due_ms()]
        now_ms = clock.now_ms()
        queues = [worker.queue for worker in workers if worker.state is WorkerState.RUNNING]
        times += [await next_due_ms(queue.server, queue.keys, now_ms) for queue in queues]
        times += [now_ms + worker.options.lock_ms // 3 for worker in self.workers if worker.attempts]
        return min((time for time in times if time is not None), default=None)

    async def time_has_passed(self, clock: FakeClock, others: Sequence[asyncio.Task[Any]]) -> None:
        """After a move: let all that it woke do what it woke for.

        Args:
            others: tasks outside of jobs: what slept on the clock, and what its callbacks have begun.
        """
        active = [timer.job for timer in clock.last_fired if timer.job is not None]
        self._waited_for = {token: job for token, job in self._waited_for.items() if all(job is not one for one in active)}
        if any(worker.attempts for worker in self.workers):
            await clock.settle()  # the locks are renewed by now; without jobs there are none
        give_up_at = asyncio.get_running_loop().time() + SHORT_WAIT_S
        while asyncio.get_running_loop().time() < give_up_at and not all(task.done() or clock.is_asleep(task) for task in others):
            await real_sleep(_LOOK_MS)  # they may do anything, and don't tell


class _Stillness:
    """How long nothing has changed: in time, and in looks, of which an event loop that is held up takes only one."""

    def __init__(self) -> None:
        self.looks = 0
        self._seen: object = None
        self._since = 0.0

    def reset(self) -> None:
        self.looks, self._seen = 0, None

    def note(self, seen: object, now: float) -> None:
        if seen != self._seen:
            self.looks, self._seen, self._since = 0, seen, now
        self.looks += 1

    def lasts(self, now: float, ms: int) -> bool:
        return (now - self._since) * 1_000 > ms


def _runs_here(one: RunningJob) -> bool:
    return one.handler is not None and one.handler.is_async


def _begun(workers: Sequence[Worker]) -> int:
    return sum(worker.attempts_begun for worker in workers)


def _line(one: RunningJob) -> str:
    job: Any = one.job
    where = f", handled by {one.handler.place}" if one.handler is not None and one.handler.place else ""
    return f"job {job.id} {job.name!r} of queue {job.queue_name!r}, attempt {job.attempt}{where}"
