"""How long a failed job waits for its next attempt: pure functions, chance comes from outside. Source: the wire specification, §8."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from toril.durations import Duration, to_ms
from toril.errors import InvalidOptionError, UnknownBackoffError
from toril.queues.option_parts import Backoff

if TYPE_CHECKING:
    from toril.queues.job import Job

BackoffStrategy: TypeAlias = "Callable[[int, BaseException, Job[Any, Any]], int | Duration | None]"
"""A strategy of a worker's own: how often the job has failed (1 the first time), the error, the job -> how long to wait.

A number is milliseconds, as BullMQ's strategies return them; None or -1 means that the job fails for good.
"""

LONGEST_WAIT_MS: Final = 365 * 86_400_000
"""No wait is longer than a year: doubling soon leaves the range in which due times can be kept."""


def fixed_ms(base_ms: int, jitter: float, chance: float) -> int:
    """The wait of the "fixed" strategy in ms; `chance` is from [0, 1).

    >>> fixed_ms(5_000, 0.0, 0.3), fixed_ms(5_000, 0.5, 0.0), fixed_ms(5_000, 0.5, 1.0)
    (5000, 2500, 5000)
    """
    return _shortened(base_ms, jitter, chance)


def exponential_ms(failures: int, base_ms: int, jitter: float, cap_ms: int | None, chance: float) -> int:
    """The wait of the "exponential" strategy in ms: `base_ms`, doubled for each earlier failure, at most `cap_ms`, then shortened.

    >>> [exponential_ms(n, 1_000, 0.0, 3_000, 0.0) for n in (1, 2, 3)]
    [1000, 2000, 3000]

    Raises:
        ValueError: `failures` is below 1; a job that never failed has nothing to back off from.
    """
    if failures < 1:
        raise ValueError(f"failures={failures}: a job that never failed has nothing to back off from")
    longest = LONGEST_WAIT_MS if cap_ms is None else min(cap_ms, LONGEST_WAIT_MS)
    return _shortened(min(base_ms << min(failures - 1, 64), longest), jitter, chance)


def next_delay_ms(
    backoff: Backoff | None,
    failures: int,
    error: BaseException,
    job: Job[Any, Any],
    *,
    strategies: Mapping[str, BackoffStrategy],
    random: Callable[[], float],
) -> int | None:
    """How long the job waits after its `failures`-th failure: 0 for not at all, None if the strategy gives it up.

    Args:
        backoff: from the job's options.
        failures: how often it has failed, with this time; 1 for the first.
        error: what the handler raised.
        job: for custom strategies.
        strategies: the worker's own, by name.
        random: a number from [0, 1).

    Raises:
        UnknownBackoffError: the strategy is neither built in nor among `strategies`.
        InvalidOptionError: a custom strategy returned what is no wait. What it raises itself comes out as it is.
    """
    if backoff is None:
        return 0
    base_ms = backoff.delay_ms or 0
    match backoff.strategy:
        case "fixed":
            return fixed_ms(base_ms, backoff.jitter, random() if backoff.jitter else 0.0)
        case "exponential":
            return exponential_ms(failures, base_ms, backoff.jitter, backoff.cap_ms, random() if backoff.jitter else 0.0)
        case name:
            strategy = strategies.get(name)
            if strategy is None:
                raise UnknownBackoffError(name, sorted(strategies))
            return _wait_of(strategy(failures, error, job), name)


def _wait_of(answer: int | Duration | None, name: str) -> int | None:
    if answer is None or answer == -1:
        return None
    if not isinstance(answer, int):
        return min(to_ms(answer, f"backoff strategy {name!r}"), LONGEST_WAIT_MS)
    if isinstance(answer, bool) or answer < 0:
        raise InvalidOptionError(f"backoff strategy {name!r}", answer, "return a duration, milliseconds, or None to fail for good")
    return min(answer, LONGEST_WAIT_MS)


def _shortened(wait_ms: int, jitter: float, chance: float) -> int:
    """Jitter takes off up to that part of the wait, so that jobs that failed together don't come back together."""
    if not jitter:
        return wait_ms
    return math.floor(chance * wait_ms * jitter + wait_ms * (1 - jitter))
