"""How an attempt ended, as one union, and how that is told to the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

from toril.errors import JobCancelledError
from toril.queues.dead_letters import letter_about
from toril.queues.queue import Queue
from toril.telemetry.logs import get_logger
from toril.wire import endings
from toril.wire.endings import Ending
from toril.worker.running import RunningJob

log = get_logger(__name__)


@dataclass(slots=True)
class Completed:
    """The handler returned."""

    value: bytes
    """Its result, JSON."""
    result: object


@dataclass(slots=True)
class Retry:
    """The attempt failed, and there will be another one."""

    error: BaseException
    reason: str
    stack: bytes
    """JSON list of the stacks of all attempts."""
    delay_ms: int


@dataclass(slots=True)
class Failed:
    """It failed for good."""

    error: BaseException
    reason: str
    stack: bytes


@dataclass(slots=True)
class PutOff:
    """The handler asked to run later."""

    delay_ms: int


@dataclass(slots=True)
class PutBack:
    """The handler asked to run again soon, or the worker stopped before it ended. No attempt is spent."""


@dataclass(slots=True)
class RateLimited:
    """What the handler needs takes no more for a while. The job runs again, and no attempt is spent."""

    limit_ms: int
    """For how long; 0: as the queue's rate limit says by now."""


@dataclass(slots=True)
class WaitForChildren:
    """The handler asked to run again when the job's children have ended."""


@dataclass(slots=True)
class UnknownName:
    """Nobody here handles the job's name."""

    error: BaseException
    reason: str
    stack: bytes


@dataclass(slots=True)
class Abandoned:
    """The job isn't ours any more (its lock is lost): whatever the handler did, nothing is written."""


Outcome: TypeAlias = Completed | Retry | Failed | PutOff | PutBack | RateLimited | WaitForChildren | UnknownName | Abandoned


def ending(outcome: Outcome, running: RunningJob, letters: Queue[Any, Any] | None, unknown_name_delay_ms: int) -> Ending | None:
    """What the turn script is told; None if nothing may be written. `letters`: where a letter about a failed job goes."""
    job_id, token, policy = running.job.id, running.token, running.policy
    keep = policy.keep_failed
    match outcome:
        case Completed():
            return endings.completed(job_id, token, outcome.value, policy.keep_completed)
        case Retry():
            return endings.retried(job_id, token, outcome.reason, outcome.stack, outcome.delay_ms, policy.lifo, keep)
        case Failed():
            letter = _letter(outcome, running, letters)
            return endings.failed(job_id, token, outcome.reason, outcome.stack, keep, policy.attempts, letter)
        case PutOff():
            return endings.put_off(job_id, token, outcome.delay_ms, keep)
        case PutBack():
            return endings.put_back(job_id, token, None, keep)
        case RateLimited():
            return endings.put_back(job_id, token, outcome.limit_ms, keep)
        case WaitForChildren():
            return endings.waiting_for_children(job_id, token, keep)
        case UnknownName():
            letter = _letter(outcome, running, letters)
            reason, stack = outcome.reason, outcome.stack
            return endings.unknown_name(job_id, token, reason, stack, keep, policy.attempts, unknown_name_delay_ms, letter)
        case Abandoned():
            return None
        case _:
            assert_never(outcome)


def _letter(outcome: Failed | UnknownName, running: RunningJob, letters: Queue[Any, Any] | None) -> Ending:
    if letters is None or isinstance(outcome.error, JobCancelledError):
        return ()
    try:
        letter = letter_about(running.job, outcome.reason, outcome.stack, letters)
    except Exception as error:  # noqa: BLE001 -- data that is no JSON to us, a model or a size limit of the letters' queue: the job fails all the same
        log.error("no dead letter could be made; the job is among the failed ones only", job_id=running.job.id, reason=str(error))
        return ()
    return endings.dead_letter(letters.keys.base, letter)
