"""The scripts' result codes -> errors, in one table. Source: the wire specification, §3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from toril.errors import (
    DeadLetterError,
    FailedChildError,
    JobError,
    JobNotFoundError,
    JobStateError,
    LockLostError,
    ParentError,
    PendingChildrenError,
    TorilError,
)

NO_CHILD_PENDING: Final = 1
UNKNOWN_NAME_FAILED: Final = 2
ENDED_CANCELLED: Final = 3
"""Somebody had cancelled the job before its attempt's end was written: it has failed for good."""

LETTER_REFUSED: Final = -13
"""The dead letter can't be written; the job is as it was."""

OUTCOME_REFUSED: Final = -14
"""A key of the job's parent keeps its end from being written; the job is as it was."""

MISSING_JOB: Final = -1
MISSING_LOCK: Final = -2
WRONG_STATE: Final = -3
PENDING_CHILDREN: Final = -4
MISSING_PARENT: Final = -5
LOCK_MISMATCH: Final = -6
SCHEDULED_ITERATION: Final = -8
FAILED_CHILD: Final = -9


class StaleTurnError(TorilError):
    """A turn came after a later one of its lane had been answered; the server did nothing."""

    def __str__(self) -> str:
        return "a turn arrived after a later one of its lane had been answered; nothing was done"


class NoSuchQueueError(JobError):
    """A dead letter's job can't go back: its queue isn't there."""

    def __str__(self) -> str:
        return f"the queue that {super().__str__()} came from doesn't exist any more"


def job_error(code: int, job_id: str, queue: str, expected: str = "active") -> JobError:
    """The error that a negative result code stands for; `expected` is the state that the operation needs."""
    match code:
        case -1:
            return JobNotFoundError(job_id, queue)
        case -2:
            return LockLostError(job_id, queue, "it expired, or the job was removed")
        case -3:
            return JobStateError(job_id, queue, expected)
        case -4:
            return PendingChildrenError(job_id, queue)
        case -6:
            return LockLostError(job_id, queue, "another worker holds it")
        case -8:
            return JobStateError(job_id, queue, "a plain job", "the pending iteration of a job scheduler (remove the scheduler instead)")
        case -9:
            return FailedChildError(job_id, queue)
        case -12:
            return NoSuchQueueError(job_id, queue)
        case _:
            raise ValueError(f"unknown result code {code} for job {job_id} of queue {queue!r}: are two versions of Toril mixed?")


def state_text(key: str) -> str:
    """How an error names the state whose jobs this key holds (as `get_state` returns it)."""
    return {"wait": "waiting", "paused": "waiting", "unknown": "in no state (it never was, or was removed)"}.get(key, key)


def no_room_error(letter_id: str, queue: str, reply: Sequence[Any]) -> DeadLetterError:
    """Why a letter isn't replayed: -13 and what keeps its job's queue from taking the job."""
    problem = bytes(reply[1]).decode("utf-8", "replace")
    return DeadLetterError(letter_id, queue, f"its job can't go back, since the key {problem}: mend or delete that key, then replay again")


def parent_error(code: int, parent_key: str, place: int, before: int = 0) -> ParentError:
    """Why a job can't be the child of another one: -5 or -7; `place` is that of the job among those that were to be added, `before` how
    many of them earlier calls have added."""
    if code == MISSING_PARENT:
        added = f"the first {before} entries were added, and nothing else" if before else "nothing was added"
        return ParentError(parent_key, f"that job doesn't exist; {added}", place)
    return ParentError(parent_key, "a job with this id has another parent, which still lives; the others were added", place)


def checked(reply: Any) -> Any:  # noqa: ANN401 -- the layout is the caller's
    """The reply of a turn, or the error it stands for."""
    if isinstance(reply, int):
        raise StaleTurnError
    return reply
