"""`Worker`: starts, watches and stops the parts that run one queue's jobs.

    Doorbell ──rings──► Lanes ──claimed──► one task a job: Executor ──outcome──► Lanes ──finish──► server
       ▲                  │                                                        │
       └── nothing there ─┘                    LockKeeper (thread) renews locks until the last outcome is written
                                               StalledSweep looks for jobs of dead workers
                                               Control hears at once of cancelled jobs

States: new → running → stopping → stopped. Stopping has one order, each step with a bound of its own:

    stop claiming → jobs may end (`shutdown_timeout`) → the others are cancelled and put back → outcomes written
    → locks no longer renewed → connections closed

A second `stop(force=True)` skips the waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from enum import Enum
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from toril.calls import explained
from toril.cancellation import run_to_end
from toril.errors import QueueClosedError, ServerError, ServerUnreachableError
from toril.queues.job import Job
from toril.queues.listeners import EventSource, Listeners
from toril.queues.queue import Queue
from toril.telemetry.logs import get_logger
from toril.units import format_ms
from toril.wire.commands import QueueCommands
from toril.wire.connection import Connection, Server
from toril.wire.line import ReplyLostError
from toril.wire.server_checks import check_server
from toril.worker.attempts import Attempts
from toril.worker.calling import HandlerCaller
from toril.worker.control import Control
from toril.worker.executor import Executor
from toril.worker.executors import Children
from toril.worker.health import Health, Problem
from toril.worker.locks import LockKeeper
from toril.worker.missing import MissingJobs
from toril.worker.observer import Measured, Observer
from toril.worker.options import WorkerOptions
from toril.worker.presence import Presence
from toril.worker.processor import Handlers, Registry, handlers_of
from toril.worker.readiness import Readiness
from toril.worker.running import CancelReason, RunningJob
from toril.worker.slots import Slots
from toril.worker.stalled import StalledSweep
from toril.worker.turn import LANES, Lane, Lanes
from toril.worker.waiting import Doorbell

log = get_logger(__name__)

D = TypeVar("D")
R = TypeVar("R")

CANCEL_TIMEOUT_MS: Final = 2_000
"""How long cancelled handlers may take to clean up at stop. With the next bound it is what a stop takes at most beyond its
`shutdown_timeout`: with the default of that, 29 s, which is less than the 30 s that many platforms give before they kill."""

WRITE_TIMEOUT_MS: Final = 2_000
"""How long the last outcomes may take to be written at stop; after that the stalled sweep of others recovers their jobs."""

_OPTIONS: Final = {each.name: f"write WorkerOptions({each.name}=…)" for each in fields(WorkerOptions)}


class WorkerState(Enum):
    """Where a worker is in its life."""

    NEW = "new"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Worker(EventSource):
    """Runs the jobs of one queue until it is stopped.

        async with Queue("emails") as queue:
            worker = Worker(queue, {"welcome-email": send_welcome}, WorkerOptions(concurrency=20))
            await worker.run()

    Args:
        queue: whose jobs to run. The worker uses its server and its clock, and never closes it.
        handlers: one function for every job, functions by job name, or `Handler`s. A function takes the job or its data (see
            `handler`); a plain `def` runs in a thread. A `Registry` may get and lose handlers while the worker runs.
        options: how.

    Raises:
        ProcessorError: no handler, or two for one name.
    """

    @explained("Worker", _OPTIONS)
    def __init__(self, queue: Queue[D, R], handlers: Handlers[D, R] | Registry, options: WorkerOptions | None = None) -> None:
        self.queue = queue
        self.options = options or WorkerOptions()
        self.registry = handlers if isinstance(handlers, Registry) else Registry(queue.name, handlers_of(handlers))
        self.id = secrets.token_hex(6)
        self.roles: Sequence[str] = ()
        """Those of the application's process, which sets them before the start: the worker only tells them to tools."""
        self.listeners = Listeners(queue.name, queue.listeners)
        self._clock = queue.clock
        self._state = WorkerState.NEW
        self._health = Health(queue.name, self._clock)
        self._slots = Slots(self.registry.total(self.options.concurrency), self.registry.limits)
        self._stop_asked = asyncio.Event()
        self._is_forced = False
        self._step = asyncio.Event()
        """Set when no job runs any more, when one is claimed while the worker stops, and when the stop is forced."""
        self._idle = asyncio.Event()
        self._started = asyncio.Event()
        self._stopped = asyncio.Event()
        self._lanes: Lanes | None = None
        self._readiness: Readiness | None = None
        self._attempts = Attempts(queue, self.registry, self.options, self._slots, self.listeners, self._step.set)
        self.left_behind = 0
        """After the stop: how many handlers would not end (threads, mostly). The process must exit to end them."""

    # ── what can be asked ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def state(self) -> WorkerState:
        return self._state

    @property
    def is_ready(self) -> bool:
        """Whether it claims jobs: it runs, and reached the server when it last tried."""
        return self._state is WorkerState.RUNNING and not self._health.problems

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What fails right now."""
        return self._health.problems

    @property
    def not_ready_because(self) -> list[str]:
        """Why it is of no use right now, in words; empty if it claims jobs and keeps them. May be asked from any thread."""
        if self._state is not WorkerState.RUNNING or self._readiness is None:
            return [f"the worker is {self._state.value}"]
        return self._readiness.problems()

    @property
    def running_jobs(self) -> tuple[Job[Any, Any], ...]:
        """The jobs whose handlers run now."""
        return tuple(running.job for running in self._attempts.running.values())

    @property
    def attempts_begun(self) -> int:
        """How many jobs it has begun to run since it was made."""
        return self._attempts.begun

    @property
    def attempts(self) -> tuple[RunningJob, ...]:
        """The same with all that the worker knows about them, up to when their outcomes are written."""
        return tuple(self._attempts.running.values())

    @property
    def is_waiting(self) -> bool:
        """Whether it has nothing to do until a handler ends, somebody rings, or time passes."""
        return self._lanes is not None and self._lanes.is_waiting

    # ── life ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Run jobs until `stop` is called, or this task is cancelled, which stops it in the same orderly way.

        Raises:
            QueueClosedError: it ran already; make a new one.
            ServerRefusedError: the server's user may not do all that a queue needs.
        """
        if self._state is not WorkerState.NEW:
            raise QueueClosedError(f"the worker of queue {self.queue.name!r}", self._state.value)
        self._state = WorkerState.RUNNING
        try:
            await self.queue.open()
            if not self._stop_asked.is_set():  # by then: a lane would claim before the stop could keep it from that
                await self._run(self.queue.server, self.queue.commands)
        finally:
            self._state = WorkerState.STOPPED
            self._started.set()
            self._stopped.set()
            self._step.set()
            self._idle.set()

    async def _run(self, server: Server, commands: QueueCommands) -> None:
        lanes = [Lane(f"{self.id}:{number}", server.connection(commands.keys)) for number in range(LANES)]
        bell_connection = server.connection(commands.keys, commands.keys.client_name(self.options.name))
        doorbell = Doorbell(
            commands, bell_connection, self._clock, self.options.drain_delay_ms, self._health, self._look_again, self._can_claim
        )
        missing = MissingJobs(self.queue.name, self._clock)
        self._lanes = Lanes(
            commands,
            lanes,
            self._slots,
            doorbell,
            self._health,
            self._clock,
            options=self.options,
            start=self._attempts.start,
            turn_ended=self._turn_ended,
            drained=functools.partial(self.listeners.tell, "drained"),
            missing=missing,
        )
        sweep = StalledSweep(commands, self.options, self._clock, self._health, self._stalled, self._attempts.end_cancelled, missing)
        channel = server.subscription(commands.keys, commands.keys.control)
        control = Control(commands, channel, self._attempts)
        presence = Presence(self.queue, self.id, self.options, self.registry, self.roles, server.commands_of(commands.keys))
        # Locks are renewed until the last outcome is written.
        keeper = LockKeeper(server, commands.keys, self.options, self._clock, self._attempts, control.look_soon, presence, self._health)
        self._readiness = Readiness(self._health, self.options, self._lanes, keeper)
        self._attempts.observer = observer = Observer.of(Measured(self.queue.name, self._slots, keeper), self.id)
        if observer is not None and observer.meter is not None:
            self._lanes.on_round_trip, keeper.on_late = observer.meter.turn, observer.meter.loop_late
        threads = ThreadPoolExecutor(self.options.concurrency, thread_name_prefix=f"toril-{self.queue.name}")
        children = Children(self.queue)
        self._attempts.connect(self._lanes, Executor(self.registry, self.options, self._clock, HandlerCaller(threads), children))
        try:
            with contextlib.suppress(ServerError):  # its loop will try again, and say so
                await bell_connection.connect()  # by its name tools see this worker, also while it is too busy to wait
            if bell_connection.is_connected:
                with contextlib.suppress(ServerUnreachableError, ReplyLostError):
                    await check_server(server, commands.keys)
                await presence.begin()
            self._started.set()
            async with keeper, asyncio.TaskGroup() as keepers:
                tasks = [keepers.create_task(sweep.run_forever(), name="stalled-sweep")]
                tasks.append(keepers.create_task(doorbell.run_forever(), name="doorbell"))
                tasks.append(keepers.create_task(control.run_forever(), name="control"))
                tasks.append(keepers.create_task(control.look_when_asked(), name="cancellations"))
                tasks += [keepers.create_task(self._lanes.run_forever(lane), name=f"lane {lane.name}") for lane in lanes]
                try:
                    await self._stop_asked.wait()
                finally:
                    await run_to_end(self._wind_down(self._lanes))
                    for task in tasks:
                        task.cancel()
        finally:
            if observer is not None:
                observer.close()
            missing.close()
            threads.shutdown(wait=False, cancel_futures=True)
            # All in one: who cancels again during a first step must not keep the second from being taken.
            await run_to_end(self._close(children, presence, [bell_connection, *(lane.connection for lane in lanes)]))

    async def _close(self, children: Children, presence: Presence, connections: list[Connection]) -> None:
        async with contextlib.AsyncExitStack() as stack:  # each in spite of what goes wrong in those before it
            for connection in connections:
                stack.push_async_callback(connection.aclose)
            stack.push_async_callback(presence.end)
            stack.push_async_callback(self.listeners.aclose)
            await children.aclose(force=self._is_forced)

    def ask_to_stop(self, *, force: bool = False) -> None:
        """Begin to stop, from anywhere in the loop; returns at once. `force`: don't wait for jobs to end by themselves."""
        self._stop_asked.set()
        if force:
            self._is_forced = True
            self._step.set()

    async def stop(self, *, force: bool = False) -> None:
        """Stop, and wait until it has stopped. Harmless if it never ran or has stopped already."""
        self.ask_to_stop(force=force)
        if self._state is not WorkerState.NEW:
            await self._stopped.wait()

    @property
    def is_idle(self) -> bool:
        """Whether the last look at the queue found nothing to claim now, and all that was claimed has ended and is written."""
        return self._state is WorkerState.RUNNING and self._lanes is not None and self._lanes.found_nothing

    def look_again(self) -> None:
        """Look for jobs now, as if somebody had rung; until that has found nothing, it isn't idle."""
        if self._lanes is not None:
            self._lanes.look_again()

    async def wait_until_started(self) -> None:
        """Wait until it claims jobs. Raises QueueClosedError if it ended before that."""
        await self._started.wait()
        if self._state is WorkerState.STOPPED:
            raise QueueClosedError(f"the worker of queue {self.queue.name!r}", self._state.value)

    async def wait_until_idle(self) -> None:
        """Wait until the queue has nothing more to claim now, and all that was claimed has ended and is written.

        Raises:
            QueueClosedError: the worker stopped before that.
        """
        while not self.is_idle:
            if self._state in (WorkerState.STOPPING, WorkerState.STOPPED):
                raise QueueClosedError(f"the worker of queue {self.queue.name!r}", self._state.value)
            self._idle.clear()
            await self._idle.wait()

    async def __aenter__(self) -> Self:
        self._runner = asyncio.create_task(self.run(), name=f"worker of {self.queue.name}")
        started = asyncio.create_task(self._started.wait())
        await asyncio.wait({started, self._runner}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if self._runner.done():
            await self._runner  # raises what went wrong
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.ask_to_stop()
        await self._runner

    async def _wind_down(self, lanes: Lanes) -> None:
        """The stop's steps up to the last outcome, each bounded."""
        self._state = WorkerState.STOPPING
        lanes.stop_claiming()
        attempts = self._attempts
        attempts.is_stopping = True
        if attempts.unended and not self._is_forced:
            log.info(
                "stopping: running jobs may end; who stops it again (a second Ctrl-C) puts them back at once",
                queue=self.queue.name,
                running=attempts.unended,
                at_most=format_ms(self.options.shutdown_timeout_ms),
            )
            await self._wait_until(lambda: not attempts.unended or self._is_forced, self.options.shutdown_timeout_ms)
        # A turn that was under way may claim jobs meanwhile; those that were told already are not told twice.
        while True:
            told = attempts.uncancelled
            for running in told:
                running.cancel(CancelReason.STOP)
            if told:
                log.info("stopping: what still runs is cancelled, and put back", queue=self.queue.name, jobs=len(told))
            if told:
                await self._wait_until(lambda: not attempts.unended or bool(attempts.uncancelled), CANCEL_TIMEOUT_MS)
            if not attempts.uncancelled and (not await self._write_outcomes(lanes) or not attempts.uncancelled):
                break
        self.left_behind = attempts.unended
        if self.left_behind:
            log.error(
                "handlers did not end at stop; their jobs run again elsewhere once their locks have expired",
                queue=self.queue.name,
                job_ids=[job.id for job in self.running_jobs],
            )

    async def _write_outcomes(self, lanes: Lanes) -> bool:
        """Wait, for a bounded time, until the server has confirmed all outcomes; False if it has not."""
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_MS / 1_000):  # the network's time is real
                await lanes.wait_until_quiet()
        except TimeoutError:
            log.error("outcomes could not be written at stop; their jobs will run again", queue=self.queue.name, count=lanes.unwritten)
            return False
        return True

    async def _wait_until(self, is_over: Callable[[], bool], timeout_ms: int) -> None:
        """Wait for that, at most so long; asked at each of the stop's steps. The caller looks at what is left."""
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout(timeout_ms):
                while not is_over():
                    self._step.clear()
                    await self._step.wait()

    # ── what its parts tell ───────────────────────────────────────────────────────────────────────────────────

    def _stalled(self, job_id: str) -> None:
        if self._attempts.observer is not None:
            self._attempts.observer.stalled()
        self.listeners.tell("stalled", job_id)
        self.listeners.tell("waiting", job_id)

    def _look_again(self) -> None:
        self._lanes_of().look_again()

    def _can_claim(self) -> bool:
        return self._lanes_of().can_claim

    def _turn_ended(self) -> None:
        if self.is_idle:
            self._idle.set()

    def _lanes_of(self) -> Lanes:
        assert self._lanes is not None  # made before anything that could call this
        return self._lanes
