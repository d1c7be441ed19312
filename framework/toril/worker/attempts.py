"""The attempts of one worker: each from its claim until the server has confirmed what came of it.

claimed ─► task: Executor ─► outcome ─► gathered ─► written ─► listeners hear
              ▲                                       └─► refused: the job isn't ours any more
              └── cancelled: the worker stops, the lock is lost, or somebody cancelled the job
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from toril.errors import JobCancelledError, LetterRefusedError, LockLostError, OutcomeRefusedError
from toril.queues.job import Job
from toril.queues.listeners import Listeners
from toril.queues.payloads import ANY_DATA, ANY_RESULT
from toril.queues.queue import Queue
from toril.telemetry.logs import get_logger
from toril.wire import replies
from toril.wire.codec import JobRecord
from toril.wire.endings import Ending
from toril.worker.executor import Executor
from toril.worker.observer import Observer
from toril.worker.options import WorkerOptions
from toril.worker.outcome import Abandoned, Completed, Failed, Outcome, PutBack, RateLimited, Retry, UnknownName, WaitForChildren, ending
from toril.worker.outcome_log import JOBS, log_outcome
from toril.worker.policy import Policies
from toril.worker.processor import Handler, Registry
from toril.worker.running import CancelReason, RunningJob
from toril.worker.slots import Slots
from toril.worker.turn import Lanes

log = get_logger(__name__)

MOST_EXPECTED: Final = 100
"""How many cancelled jobs that other workers run are remembered: one may be on its way here."""

_END_OF_PROCESS: Final = (KeyboardInterrupt, asyncio.CancelledError)
"""What a handler raises while its worker stops, if somebody is ending the process (a second Ctrl-C): no failure of the job."""

REFUSED_RETRY_MS: Final = 5_000
"""How long a job whose end (or dead letter) could not be written waits until that is tried again."""


class Attempts:
    """What runs in one worker.

    Args:
        changed: called when no job runs any more, and for each one that is claimed while the worker stops.
    """

    def __init__(
        self,
        queue: Queue[Any, Any],
        registry: Registry,
        options: WorkerOptions,
        slots: Slots,
        listeners: Listeners,
        changed: Callable[[], None],
    ) -> None:
        self.running: dict[str, RunningJob] = {}
        """The jobs that run or whose outcome isn't written yet, by token. Changed by the loop, read by the renewal thread."""
        self.begun = 0
        """How many there have been."""
        self.is_stopping = False
        self.observer: Observer | None = None
        self._queue = queue
        self._registry = registry
        self._slots = slots
        self._listeners = listeners
        self._changed = changed
        self.look_soon: Callable[[str], None] | None = None
        """Asks whether a job is to be cancelled."""
        self._expected: dict[str, None] = {}
        self._unknown_name_delay_ms = options.unknown_name_delay_ms
        self._max_stalled_count = options.max_stalled_count
        self._metrics_points = options.metrics_points
        self._policies = Policies(queue.keep_completed, queue.keep_failed)
        self._tasks: dict[asyncio.Task[None], RunningJob] = {}
        self._lanes: Lanes | None = None
        self._executor: Executor | None = None

    def connect(self, lanes: Lanes, executor: Executor) -> None:
        """Say who runs attempts and who writes their outcomes; before the first one."""
        self._lanes, self._executor = lanes, executor

    @property
    def unended(self) -> int:
        """How many handlers have not ended."""
        return len(self._tasks)

    @property
    def uncancelled(self) -> list[RunningJob]:
        """Those that may still end by themselves."""
        return [running for running in self.running.values() if running.is_uncancelled]

    def start(self, token: str, record: JobRecord) -> None:
        """Run a job that was claimed."""
        self.begun += 1
        handler = self._registry.find(record.name)
        job = self._job(record, handler, token)
        running = RunningJob(job, token, self._policies.of(record.opts), handler)
        self.running[token] = running
        task = running.task = asyncio.create_task(self._run_job(running), name=record.job_id)
        self._tasks[task] = running
        task.add_done_callback(self._task_ended)
        if self._expected and self._expected.pop(record.job_id, self) is None and self.look_soon is not None:
            self.look_soon(record.job_id)
        if self.is_stopping:
            self._changed()

    def _job(self, record: JobRecord, handler: Handler | None, token: str | None = None) -> Job[Any, Any]:
        payload, result = (handler.payload, handler.result) if handler is not None else (ANY_DATA, ANY_RESULT)
        return Job(self._queue, record, token=token, payload=payload, result_type=result)

    # ── from outside: what must end before its time ───────────────────────────────────────────────────────────

    def lock_lost(self, token: str, reason: str) -> None:
        """Another worker may be running this job."""
        running = self.running.get(token)
        if running is None or running.is_gathered:
            return  # it ended meanwhile; the server decides about its outcome
        error = LockLostError(running.job.id, self._queue.name, reason)
        log.error("lock lost: the handler is cancelled", queue=self._queue.name, job_id=running.job.id, reason=str(error))
        running.cancel(CancelReason.LOCK_LOST)
        if self.observer is not None:
            self.observer.lock_lost()
        self._listeners.tell("error", error)

    def is_running(self, job_id: str) -> bool:
        """Whether the job's handler runs here, and nobody has cancelled it yet."""
        return any(running.job.id == job_id for running in self.uncancelled)

    def expect_cancelled(self, job_id: str) -> None:
        """Somebody wants this job to end, which isn't here (yet)."""
        self._expected[job_id] = None
        if len(self._expected) > MOST_EXPECTED:
            del self._expected[next(iter(self._expected))]

    def cancel(self, job_id: str, reason: str) -> None:
        """Somebody wants this job to end."""
        for running in self.uncancelled:
            if running.job.id == job_id:
                log.info("job cancelled", queue=self._queue.name, job_id=job_id, job_name=running.job.name, reason=reason)
                running.cancel(CancelReason.ASKED, JobCancelledError(job_id, self._queue.name, reason))

    async def end_cancelled(self, job_id: str) -> None:
        """Fail a job that somebody cancelled before its worker died; nothing happens if that has been done."""
        commands = self._queue.commands
        record = await commands.find_job(job_id)
        if record is None:
            return
        keep, now_ms = self._policies.of(record.opts).keep_failed, self._queue.clock.now_ms()
        reason = await commands.end_cancelled(job_id, now_ms, keep, self._metrics_points)
        if reason is not None:
            record.attempts_made -= 1  # this attempt was never ended, so it isn't counted
            self._tell_cancelled(self._job(record, self._registry.find(record.name)), reason, record.stack_trace)

    # ── one attempt ───────────────────────────────────────────────────────────────────────────────────────────

    async def _run_job(self, running: RunningJob) -> None:
        if self.observer is not None:
            self.observer.begun(running)
        if self._listeners.hears("active"):
            self._listeners.tell("active", running.job)
        if self._listeners.hears("progress"):
            running.job.on_progress = self._tell_progress
        self._gather(running, await self._executor_of().attempt(running))

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        running = self._tasks.pop(task)
        if not running.is_gathered:
            if task.cancelled():  # before it ran at all: its coroutine never began
                self._gather(running, self._executor_of().cancelled(running, asyncio.CancelledError()))
            elif (error := task.exception()) is not None:  # ours, not the handler's
                log.error("the attempt failed outside of its handler", queue=self._queue.name, job_id=running.job.id, exc_info=error)
                self._gather(running, self._executor_of().failure(running, error))
        if not self._tasks:
            self._changed()

    def _gather(self, running: RunningJob, outcome: Outcome) -> None:
        """The attempt is over: its slot is free, and its outcome goes out with the next turn. The lock is kept until then."""
        running.is_gathered = True
        if self.is_stopping and isinstance(outcome, (Failed, Retry)) and isinstance(outcome.error, _END_OF_PROCESS):
            outcome = PutBack()
        if self.observer is not None:
            self.observer.gathered(running)
        self._slots.release(running.job.name)
        self._send(running, outcome)

    def _send(self, running: RunningJob, outcome: Outcome) -> None:
        lanes = self._lanes_of()
        end = ending(outcome, running, self._queue.letters, self._unknown_name_delay_ms)
        if end is None:
            self._over(running, outcome)
            lanes.look_again()
        else:
            if isinstance(outcome, RateLimited):
                lanes.hold()
            lanes.gather(_Ended(end, self, running, outcome))

    def written(self, running: RunningJob, outcome: Outcome, code: int, detail: int | bytes) -> None:
        """The server has answered."""
        if code and self._goes_on(running, outcome, code, detail):
            return
        job = running.job
        self._over(running, outcome, code)
        if isinstance(outcome, RateLimited):
            limit_ms = outcome.limit_ms if code == replies.ENDED_CANCELLED else detail
            self._lanes_of().release(limit_ms if isinstance(limit_ms, int) else 0)
        if code == replies.ENDED_CANCELLED and isinstance(detail, bytes):
            stack = outcome.stack if isinstance(outcome, (Failed, Retry, UnknownName)) else job.record.stack_trace
            self._tell_cancelled(job, detail.decode(), stack)
        elif code < 0:
            error = replies.job_error(code, job.id, job.queue_name)
            log.warning("an outcome was refused: the job isn't ours any more", queue=job.queue_name, job_id=job.id, reason=str(error))
            self._listeners.tell("error", error)
        elif isinstance(outcome, Completed):
            if JOBS.is_enabled_for("info"):
                log_outcome(job, outcome, self._queue.clock, self._max_stalled_count)
            if self._listeners.hears("completed"):
                job.record.attempts_made, job.record.return_value, job.token = job.attempts_made + 1, outcome.value, None
                self._listeners.tell("completed", job, outcome.result)
        elif isinstance(outcome, (Failed, Retry)) or code == replies.UNKNOWN_NAME_FAILED:
            self._tell_failed(job, outcome)
        elif not isinstance(outcome, UnknownName):  # that was told when it was met
            log_outcome(job, outcome, self._queue.clock, self._max_stalled_count)
            if isinstance(outcome, (PutBack, RateLimited)):
                self._listeners.tell("waiting", job.id)

    def _goes_on(self, running: RunningJob, outcome: Outcome, code: int, detail: int | bytes) -> bool:
        """Whether the server has refused this outcome, and the job, which is still ours, gets another one."""
        job = running.job
        if code in (replies.PENDING_CHILDREN, replies.FAILED_CHILD) and isinstance(outcome, (Completed, WaitForChildren)):
            # Refused, and the job is still ours: now it can only fail (wire T10).
            self._send(running, self._executor_of().failure(running, replies.job_error(code, job.id, job.queue_name)))
            return True
        if isinstance(outcome, WaitForChildren) and code == replies.NO_CHILD_PENDING:
            self._send(running, PutBack())
            return True
        if code in (replies.LETTER_REFUSED, replies.OUTCOME_REFUSED) and isinstance(detail, bytes):
            kind = LetterRefusedError if code == replies.LETTER_REFUSED else OutcomeRefusedError
            self._refused(running, outcome, kind(job.id, self._queue.name, detail.decode("utf-8", "replace")))
            return True
        return False

    def _over(self, running: RunningJob, outcome: Outcome, code: int = 0) -> None:
        self.running.pop(running.token, None)
        if self.observer is not None:
            self.observer.written(running, outcome, code)

    def _tell_progress(self, job: Job[Any, Any], value: object) -> None:
        self._listeners.tell("progress", job, value)

    def _tell_failed(self, job: Job[Any, Any], outcome: Outcome) -> None:
        if isinstance(outcome, (Failed, Retry, UnknownName)):
            record = job.record
            log_outcome(job, outcome, self._queue.clock, self._max_stalled_count)
            record.attempts_made, record.failed_reason, record.stack_trace = record.attempts_made + 1, outcome.reason, outcome.stack
            job.token = None  # its lock is gone
            self._listeners.tell("failed", job, outcome.error, not isinstance(outcome, Retry))
            if isinstance(outcome, Retry) and outcome.delay_ms == 0:
                self._listeners.tell("waiting", job.id)

    def _refused(self, running: RunningJob, outcome: Outcome, error: LetterRefusedError | OutcomeRefusedError) -> None:
        """The job is still ours and keeps its lock. Neither it nor its letter may be lost, so it ends when its end can be written."""
        if not running.is_refused:
            running.is_refused = True  # told once for each job, not with each try
            log.error("an end can't be written: the job stays active until it can", reason=str(error), **running.job.log_fields())
            self._listeners.tell("error", error)
        if isinstance(outcome, RateLimited):
            self._lanes_of().release(0)  # the next try holds them anew
        self._queue.clock.call_later(REFUSED_RETRY_MS, functools.partial(self._try_again, running, outcome))

    def _try_again(self, running: RunningJob, outcome: Outcome) -> None:
        if not self.is_stopping:  # else its lock runs out, and the sweep of another worker puts it back
            self._send(running, outcome)

    def _tell_cancelled(self, job: Job[Any, Any], reason: str, stack: bytes | None) -> None:
        error = JobCancelledError(job.id, job.queue_name, reason)
        self._tell_failed(job, Failed(error, str(error), stack or b"[]"))

    def dropped(self, running: RunningJob, outcome: Outcome, error: Exception) -> None:
        """The server can't process the outcome at all, because of what the job's keys hold. The lock runs out, and the sweep decides."""
        self._over(running, Abandoned())
        if isinstance(outcome, RateLimited):
            self._lanes_of().release(0)
        log.error("an outcome could not be written", queue=self._queue.name, job_id=running.job.id, error=str(error))
        self._listeners.tell("error", error)

    def _lanes_of(self) -> Lanes:
        assert self._lanes is not None  # connected before anything that could call this
        return self._lanes

    def _executor_of(self) -> Executor:
        assert self._executor is not None  # connected before anything that could call this
        return self._executor


@dataclass(slots=True)
class _Ended:
    """An attempt's outcome on its way to the server (`Gathered`): whose it is."""

    ending: Ending
    attempts: Attempts
    running: RunningJob
    outcome: Outcome

    def written(self, code: int, detail: int | bytes) -> None:
        self.attempts.written(self.running, self.outcome, code, detail)

    def dropped(self, error: Exception) -> None:
        self.attempts.dropped(self.running, self.outcome, error)
