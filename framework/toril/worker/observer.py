"""What is told of one worker to whoever measures or traces.

Where nobody does there is no observer, and a job costs no more than looking for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Final, Protocol, Self

from toril.errors import JobCancelledError
from toril.telemetry.hooks import HOOKS, JobOutcome, MeasuredWorker, Tracer, WorkerMeter
from toril.wire import replies
from toril.worker.outcome import Abandoned, Completed, Failed, Outcome, PutBack, PutOff, RateLimited, Retry, UnknownName, WaitForChildren
from toril.worker.running import RunningJob
from toril.worker.slots import Slots

_WORDS: Final[dict[type[Outcome], JobOutcome]] = {
    Completed: "completed",
    Failed: "failed",
    Retry: "retried",
    PutOff: "delayed",
    PutBack: "put_back",
    RateLimited: "rate_limited",
    WaitForChildren: "waiting_children",
    UnknownName: "unknown_name",
    Abandoned: "lost",
}


class LoopWatch(Protocol):
    """What notices that the event loop is blocked."""

    loop_blocks: int


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A `MeasuredWorker`."""

    queue_name: str
    _slots: Slots
    _watch: LoopWatch

    @property
    def slots_busy(self) -> int:
        return self._slots.running

    @property
    def slots_total(self) -> int:
        return self._slots.total

    @property
    def loop_blocks(self) -> int:
        return self._watch.loop_blocks


class Observer:
    """Called by the parts of a worker, in its event loop."""

    __slots__ = ("_tracer", "_worker_id", "meter")

    def __init__(self, meter: WorkerMeter | None, tracer: Tracer | None, worker_id: str) -> None:
        self.meter, self._tracer, self._worker_id = meter, tracer, worker_id

    @classmethod
    def of(cls, worker: MeasuredWorker, worker_id: str) -> Self | None:
        """The observer of a worker that begins to run; None: nobody wants to know."""
        if HOOKS.meter is None and HOOKS.tracer is None:
            return None
        return cls(None if HOOKS.meter is None else HOOKS.meter.follow(worker), HOOKS.tracer, worker_id)

    def begun(self, running: RunningJob) -> None:
        """Its attempt begins: called in the job's own task."""
        running.begun_s = perf_counter()
        if self._tracer is not None:
            job = running.job
            running.span = self._tracer.begun(job.queue_name, job, job.record.opts, self._worker_id, scheduler_id=job.record.scheduler_id)

    def gathered(self, running: RunningJob) -> None:
        """Its handler has ended."""
        if running.begun_s:  # else it was cancelled before it began
            running.ran_s = perf_counter() - running.begun_s

    def written(self, running: RunningJob, outcome: Outcome, code: int = 0) -> None:
        """The attempt is over, and this is what the server says of it."""
        word: JobOutcome = "completed" if code == 0 and type(outcome) is Completed else _word(outcome, code)
        if running.span is not None:
            running.span.ended(word, outcome.reason if isinstance(outcome, (Failed, Retry, UnknownName)) else None)
        if self.meter is None:
            return
        record = running.job.record
        due_ms = record.timestamp_ms + running.policy.delay_ms
        waited_ms = (record.processed_at_ms or due_ms) - due_ms
        self.meter.ended(
            None if running.handler is None else record.name,
            word,
            running.ran_s,
            waited_ms / 1_000,
            is_first=record.attempts_started <= 1,
        )

    def lock_lost(self) -> None:
        """A lock was lost while its handler ran."""
        if self.meter is not None:
            self.meter.lock_lost()

    def stalled(self) -> None:
        """A job of a dead worker was put back."""
        if self.meter is not None:
            self.meter.stalled()

    def close(self) -> None:
        """The worker has stopped."""
        if self.meter is not None:
            self.meter.close()


def _word(outcome: Outcome, code: int) -> JobOutcome:
    if code == replies.ENDED_CANCELLED:
        return "cancelled"
    if code == replies.UNKNOWN_NAME_FAILED:
        return "failed"
    if code < 0:
        return "lost"
    if isinstance(outcome, Failed) and isinstance(outcome.error, JobCancelledError):
        return "cancelled"
    return _WORDS[type(outcome)]
