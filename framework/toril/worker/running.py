"""The jobs that run in this worker right now, and why one of them is being cancelled."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum

from toril.errors import JobCancelledError
from toril.queues.job import Job
from toril.telemetry.hooks import JobSpan
from toril.worker.policy import JobPolicy
from toril.worker.processor import Handler


class CancelReason(Enum):
    """Why the worker cancels a job's task. A cancellation without one came out of the handler itself."""

    STOP = "the worker stops"
    LOCK_LOST = "its lock is lost"
    ASKED = "somebody cancelled the job"


@dataclass(slots=True, eq=False)
class RunningJob:
    """One attempt, from its claim until its outcome is gathered. Known by its lock token, which no other attempt ever has."""

    job: Job[object, object]
    token: str
    policy: JobPolicy
    handler: Handler | None
    task: asyncio.Task[None] | None = None
    cancel_reason: CancelReason | None = None
    cancel_error: JobCancelledError | None = None
    """With which the job fails, where somebody cancelled it."""
    is_gathered: bool = False
    """Whether its outcome is known; then it only waits to be written."""

    is_refused: bool = False
    """Whether its dead letter could not be written; it is tried again then."""

    begun_s: float = 0.0
    """Noted by an `Observer`, as is for how long it has run."""
    ran_s: float = 0.0
    span: JobSpan | None = None

    @property
    def is_uncancelled(self) -> bool:
        """Whether its handler may still end by itself."""
        return self.cancel_reason is None and not self.is_gathered

    def cancel(self, reason: CancelReason, error: JobCancelledError | None = None) -> None:
        """Stop it; the first reason counts. A thread can't be stopped: it is told through `job.cancelled`."""
        if self.cancel_reason is None and not self.is_gathered:
            self.cancel_reason, self.cancel_error = reason, error
            if self.task is not None:
                self.task.cancel()
