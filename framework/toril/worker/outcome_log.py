"""What the log says of each attempt: one line, from a logger that can be set to another level by its name, `toril.jobs`."""

from __future__ import annotations

from typing import Any, Final

from toril.clock import Clock
from toril.errors import JobCancelledError
from toril.queues.job import Job
from toril.telemetry.logs import get_logger
from toril.wire.codec import from_json_or
from toril.worker.outcome import Abandoned, Completed, Failed, Outcome, PutBack, PutOff, RateLimited, Retry, UnknownName, WaitForChildren

JOBS: Final = get_logger("toril.jobs")

STALLED_TOO_OFTEN: Final = "job stalled more than allowable limit"
"""What the sweep gives a job as its end (wire 3.9)."""


def log_outcome(job: Job[Any, Any], outcome: Outcome, clock: Clock, max_stalled_count: int) -> None:
    """Tell how an attempt has ended: what went well at `info`, one that failed as a warning, a job that did for good as an error."""
    fields = {**job.log_fields()}
    if isinstance(outcome, (Failed, Retry, UnknownName)) and outcome.reason == STALLED_TOO_OFTEN:
        fields |= {"stalled_count": job.stalled_count, "max_stalled_count": max_stalled_count}
    match outcome:
        case Completed():
            begun_ms = job.processed_at_ms
            JOBS.info("the job completed", ran_ms=None if begun_ms is None else max(0, clock.now_ms() - begun_ms), **fields)
        case Retry():
            JOBS.warning("an attempt failed; the job runs again", delay_ms=outcome.delay_ms, reason=outcome.reason, **fields)
        case Failed() | UnknownName():
            _log_final(outcome, fields)
        case PutOff():
            JOBS.info("the job is put off, as its handler wants", delay_ms=outcome.delay_ms, **fields)
        case PutBack():
            JOBS.info("the job is put back, and runs again", **fields)
        case RateLimited():
            JOBS.info("the job is put back until a rate limit has passed", **fields)
        case WaitForChildren():
            JOBS.info("the job waits for its children", **fields)
        case Abandoned():
            pass  # that its lock was lost has been told


def _log_final(outcome: Failed | UnknownName, fields: dict[str, object]) -> None:
    if isinstance(outcome.error, JobCancelledError):
        JOBS.info("the job is cancelled", reason=outcome.reason, **fields)
        return
    # The stored stack, not the exception itself: it has no lone surrogates, and isn't longer than can be read.
    stacks: list[str] = from_json_or(outcome.stack, [])
    JOBS.error("the job failed for good", reason=outcome.reason, exception="".join(stacks[-1:]), **fields)
