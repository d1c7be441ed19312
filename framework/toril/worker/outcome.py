"""How an attempt ended, as one union, and how that is told to the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, assert_never

from toril.wire import commands
from toril.wire.commands import Ending
from toril.worker.policy import JobPolicy


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
class UnknownName:
    """Nobody here handles the job's name."""

    error: BaseException
    reason: str
    stack: bytes


@dataclass(slots=True)
class Abandoned:
    """The job isn't ours any more (its lock is lost): whatever the handler did, nothing is written."""


Outcome: TypeAlias = Completed | Retry | Failed | PutOff | PutBack | UnknownName | Abandoned


def ending(outcome: Outcome, job_id: str, token: str, policy: JobPolicy, unknown_name_delay_ms: int) -> Ending | None:
    """What the turn script is told; None if nothing may be written."""
    match outcome:
        case Completed():
            return commands.completed(job_id, token, outcome.value, policy.keep_completed)
        case Retry():
            return commands.retried(job_id, token, outcome.reason, outcome.stack, outcome.delay_ms, policy.lifo)
        case Failed():
            return commands.failed(job_id, token, outcome.reason, outcome.stack, policy.keep_failed, policy.attempts)
        case PutOff():
            return commands.put_off(job_id, token, outcome.delay_ms)
        case PutBack():
            return commands.put_back(job_id, token)
        case UnknownName():
            return commands.unknown_name(job_id, token, outcome.reason, outcome.stack, policy.keep_failed, unknown_name_delay_ms)
        case Abandoned():
            return None
        case _:
            assert_never(outcome)
