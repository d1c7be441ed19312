"""Which refusals of Toril and of Node mean the same: theirs is a code, or a text."""

from __future__ import annotations

import re
from typing import Final

from toril.errors import InvalidOptionError, JobStateError, ParentError, TorilError

REFUSALS: Final[dict[str, tuple[int | str, ...]]] = {
    "JobNotFoundError": (-1,),
    "JobStateError: in another state": (-3,),
    "JobStateError: a scheduler's": (-8,),
    "ParentError: it is gone": (-5,),
    "ParentError: the job has another": (-7,),
    "SchedulerBusyError": (-10, -11),
    "QueueBusyError": ("Cannot obliterate queue with active jobs",),
    "PayloadTooLargeError": (r"The size of job [mn] exceeds the limit \d+ bytes",),
    "InvalidOptionError: job_id": ("Custom Id cannot be integers", "Custom Id cannot contain :"),
    "InvalidOptionError: priority": ("Priority should be between 0 and 2097151", "Priority should not be float"),
    "InvalidOptionError: ignore_dependency_on_failure": (
        "The following options cannot be used together: failParentOnFailure, ignoreDependencyOnFailure",
    ),
    "InvalidOptionError: remove_dependency_on_failure": (
        "The following options cannot be used together: removeDependencyOnFailure, continueParentOnFailure",
    ),
    "InvalidOptionError: backoff.jitter": ("Jitter should be between 0 and 1",),
    "InvalidOptionError: deduplication.id": ("Deduplication id must be provided",),
    "InvalidOptionError: deduplication": (
        "Deduplication and parent options cannot be used together",
        "keepLastIfActive deduplication cannot be used on flow nodes with a parent",
        "Deduplication options cannot be used on flow nodes with children",
    ),
    "InvalidOptionError: every, pattern": (
        r"Either \.pattern or \.every options must be defined for this repeatable job",
        r"Both \.pattern and \.every options are defined for this repeatable job",
    ),
    "InvalidOptionError: immediately": (r"Both \.immediately and \.startDate options are defined for this repeatable job",),
    "InvalidOptionError: end": ("End date must be greater than current timestamp",),
    "InvalidCronError: cron": (r"Constraint error, got value 61 expected range 0-59",),
}
"""Our kinds of errors, and what Node says instead. Whatever isn't here is a difference."""


def kind_of(error: TorilError) -> str:
    """An error of ours as the table has it: its class, and what it is about where one class stands for several refusals."""
    kind = type(error).__name__
    match error:
        case InvalidOptionError():
            return f"{kind}: {error.option}"
        case JobStateError():
            return f"{kind}: " + ("a scheduler's" if "job scheduler" in error.actual else "in another state")
        case ParentError():
            return f"{kind}: " + ("the job has another" if "another parent" in error.reason else "it is gone")
        case _:
            return kind


def mean_the_same(ours: str, node: int | str) -> bool:
    """Whether an error of ours, told by its kind, and what Node says are one refusal."""
    return any(node == said if isinstance(said, int) else re.fullmatch(said, str(node)) is not None for said in REFUSALS.get(ours, ()))
