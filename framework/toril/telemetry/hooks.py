"""What workers and queues tell of themselves to whoever measures or traces: nothing, and at no cost, unless somebody does.

    Worker ──► Observer ─┬─► HOOKS.meter     counts                 (metrics.py)
                         └─► HOOKS.tracer    follows single jobs    (spans.py)
    Queue.add ───────────────►

A worker looks here when it begins to run, so whoever wants to hear of it is installed before that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

JobOutcome: TypeAlias = Literal[
    "completed",
    "failed",
    "cancelled",
    "retried",
    "delayed",
    "put_back",
    "rate_limited",
    "waiting_children",
    "unknown_name",
    "lost",
]
"""How an attempt ended. After the first three the job is over; `lost` is one whose outcome no longer counted, or could not be written."""

AddOperation: TypeAlias = Literal["add", "addBulk", "addFlow"]
"""As BullMQ's traces call them."""

FINAL_OUTCOMES: Final[frozenset[JobOutcome]] = frozenset({"completed", "failed", "cancelled"})


class MeasuredWorker(Protocol):
    """What can be asked of a worker at any time, from any thread."""

    @property
    def queue_name(self) -> str: ...

    @property
    def slots_busy(self) -> int: ...

    @property
    def slots_total(self) -> int: ...

    @property
    def loop_blocks(self) -> int:
        """How often its event loop was blocked for longer than `loop_block_warning`."""
        ...


class WorkerMeter(Protocol):
    """Hears of one worker. All calls come from its event loop, between the jobs, so they return at once."""

    def ended(self, name: str | None, outcome: JobOutcome, ran_s: float, waited_s: float, *, is_first: bool) -> None:
        """An attempt has ended.

        Args:
            name: the job's; None: one that nobody here handles.
            outcome: how it ended.
            ran_s: how long its handler ran.
            waited_s: from when the job could have run (it was added, or its delay was over) until this attempt began.
            is_first: whether it was the job's first attempt.
        """
        ...

    def turn(self, round_trip_s: float, /) -> None:
        """A turn was answered."""
        ...

    def stalled(self) -> None:
        """A job of a dead worker was put back."""
        ...

    def lock_lost(self) -> None:
        """A job's lock was lost while its handler ran here."""
        ...

    def loop_late(self, late_s: float, /) -> None:
        """The event loop came so much too late to what it was to do at a certain time."""
        ...

    def close(self) -> None:
        """The worker has stopped."""
        ...


class Meter(Protocol):
    """Measures the workers of this process."""

    def follow(self, worker: MeasuredWorker) -> WorkerMeter:
        """A worker begins to run."""
        ...


class JobSpan(Protocol):
    """One attempt, as a trace shows it."""

    def ended(self, outcome: JobOutcome, reason: str | None) -> None:
        """It has ended; `reason`: why it failed, if it did."""
        ...


class AddSpan(Protocol):
    """Adding jobs, as a trace shows it."""

    def carried(self, opts: bytes) -> bytes:
        """A job's options on the wire, JSON, with the trace among them: whoever runs the job goes on with it."""
        ...

    def added(self, job_ids: Sequence[str]) -> None:
        """These jobs were added."""
        ...


class TracedJob(Protocol):
    """What is asked of a job that is to be traced."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def attempt(self) -> int: ...


class Tracer(Protocol):
    """Traces the jobs of this process."""

    def adding(
        self, operation: AddOperation, queue: str, names: Sequence[str], *, scheduler_id: str | None = None
    ) -> AbstractContextManager[AddSpan]:
        """Jobs of these names are added in the block, or upserted as those of a scheduler; what it raises is noted."""
        ...

    def begun(self, queue: str, job: TracedJob, opts: bytes, worker_id: str, *, scheduler_id: str | None) -> JobSpan:
        """An attempt begins. Called in a task of its own, whose context from now on is that of the attempt."""
        ...

    def carried(self) -> str | None:
        """The trace that this code belongs to, as text for another process; None: to none."""
        ...

    def go_on(self, carried: str) -> None:
        """From now on let this task belong to the trace that was carried here."""
        ...

    def log_fields(self) -> Mapping[str, object]:
        """By which a line of the log is found in the trace that it belongs to; nothing outside of one."""
        ...


@dataclass(slots=True)
class Hooks:
    """Who wants to hear of this process's workers and queues."""

    meter: Meter | None = None
    tracer: Tracer | None = None


HOOKS: Final = Hooks()
"""Those of a process are one, as its logs are."""
