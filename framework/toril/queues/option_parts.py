"""What single options are made of: waits between attempts, which jobs are kept, which count as the same, how many may start."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from toril.calls import explained, explained_class
from toril.durations import Duration
from toril.errors import InvalidOptionError
from toril.queues.option_checks import check_duration, check_flag, check_text, check_whole, ms_of
from toril.wire.endings import keep_rule

BUILT_IN: Final = frozenset({"fixed", "exponential"})
"""The backoff strategies that every worker knows."""


@explained_class()
@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long a failed job waits for its next attempt. Made by `fixed`, `exponential` and `custom`."""

    strategy: str
    delay: Duration | None = None
    jitter: float = 0.0
    """Which part of the wait is left to chance: 0.5 waits between half and all of it. It never makes a wait longer."""
    cap: Duration | None = None
    """The longest wait (ours: Node workers that share the queue don't know it)."""

    def __post_init__(self) -> None:
        if type(self.strategy) is not str or not self.strategy:
            raise InvalidOptionError("backoff.strategy", self.strategy, "the name of a strategy is text, and not empty")
        check_duration(self, "delay", "backoff.delay")
        check_duration(self, "cap", "backoff.cap")
        if type(self.jitter) not in {int, float} or not 0 <= self.jitter <= 1:
            raise InvalidOptionError("backoff.jitter", self.jitter, "it is a part of the wait: write a number from 0 to 1, such as 0.5")

    @property
    def delay_ms(self) -> int | None:
        return ms_of(self.delay)

    @property
    def cap_ms(self) -> int | None:
        return ms_of(self.cap)


@explained()
def fixed(delay: Duration, *, jitter: float = 0.0) -> Backoff:
    """The same wait before every further attempt, shortened by up to `jitter` of it at random."""
    return Backoff(strategy="fixed", delay=delay, jitter=jitter)


@explained()
def exponential(delay: Duration, *, jitter: float = 0.5, cap: Duration | None = "1h") -> Backoff:
    """A wait that begins with `delay` and doubles with each failed attempt up to `cap`, shortened by up to `jitter` of it at random."""
    return Backoff(strategy="exponential", delay=delay, jitter=jitter, cap=cap)


@explained()
def custom(strategy: str, *, delay: Duration | None = None) -> Backoff:
    """A strategy that the queue's workers know by this name; Node workers on the same queue must know it, too."""
    if strategy in BUILT_IN:
        raise InvalidOptionError("backoff.strategy", strategy, f"this strategy is built in: write {strategy}(…) instead of custom(…)")
    return Backoff(strategy=strategy, delay=delay)


@explained_class()
@dataclass(frozen=True, slots=True, kw_only=True)
class KeepJobs:
    """How many ended jobs stay, and for how long. It is applied when a job of the same kind ends; no timer does it."""

    count: int | None = None
    """Only the newest so many; 0 keeps none."""
    age: Duration | None = None
    """None that ended longer ago; in whole seconds."""
    limit: int | None = None
    """How many jobs of too high an age are removed at a time (not set: 1,000)."""

    def __post_init__(self) -> None:
        check_whole("count", self.count, 0)
        check_whole("limit", self.limit, 1)
        check_duration(self, "age")
        if self.count is None and self.age is None:
            raise InvalidOptionError("count", None, "KeepJobs needs a count, an age, or both; to keep all jobs, write False instead")
        if (self.age_ms or 0) % 1_000:
            raise InvalidOptionError("age", self.age, "the age of ended jobs is counted in whole seconds")

    @classmethod
    def unchecked(cls, count: int | None, age: timedelta | None, limit: int | None) -> KeepJobs:
        """A rule that stands on the wire already, where an age may have parts of a second."""
        keep = object.__new__(cls)
        for name, value in (("count", count), ("age", age), ("limit", limit)):
            object.__setattr__(keep, name, value)
        return keep

    @property
    def age_ms(self) -> int | None:
        return ms_of(self.age)


def keep_text(keep: bool | int | KeepJobs | None) -> str | None:
    """A `remove_on_…` option as the scripts take it; None if it isn't set: then the worker's own rule applies."""
    if keep is None:
        return None
    if isinstance(keep, KeepJobs):
        return keep_rule(keep.count, keep.age_ms, keep.limit)
    if isinstance(keep, bool):
        return keep_rule(0 if keep else None, None)
    return keep_rule(keep, None)


def check_keep(name: str, keep: object) -> None:
    """Refuse what is no rule for ended jobs of one job's own."""
    if keep is None or isinstance(keep, (bool, KeepJobs)):
        return
    if not isinstance(keep, int) or keep < 0:
        raise InvalidOptionError(name, keep, "write True, False, how many jobs to keep, or KeepJobs(count=…, age=…)")


def check_keep_jobs(name: str, value: object) -> None:
    """Refuse what is neither None nor KeepJobs."""
    if value is not None and not isinstance(value, KeepJobs):
        raise InvalidOptionError(name, value, "write KeepJobs(count=…, age=…), or None to keep all")


@explained_class()
@dataclass(frozen=True, slots=True, kw_only=True)
class Deduplication:
    """Keeps jobs out while another one with the same id stands for them.

        Deduplication("order-7")                                         until that one has ended
        Deduplication("order-7", ttl="10s")                              for so long (throttle)
        Deduplication("order-7", ttl="10s", extend=True)                 for so long after the last try
        Deduplication("order-7", ttl="10s", replace=True) and a delay    the last one wins, if the other still waits for its time (debounce)

    Raises:
        InvalidOptionError: names the option, its value and the fix.
    """

    id: str = field(kw_only=False)
    ttl: Duration | None = None
    """For how long; not set: until the job that stands for the others has ended."""
    extend: bool = False
    """Each job that is kept out starts the time anew."""
    replace: bool = False
    """A job that waits for its time gives way to the new one; one that may run already doesn't."""
    keep_last_if_active: bool = False
    """While the other one runs, the newest is kept, and added when that has ended. No `ttl` goes with it."""
    reschedule: bool = False
    """A job that is kept out gives its delay to the one that stands for it, if that still waits for its time."""

    def __post_init__(self) -> None:
        if type(self.id) is not str or not self.id:
            raise InvalidOptionError("deduplication.id", self.id, "it is text, and not empty")
        check_text("deduplication.id", self.id)
        check_duration(self, "ttl", "deduplication.ttl")
        for name in ("extend", "replace", "keep_last_if_active", "reschedule"):
            check_flag(f"deduplication.{name}", getattr(self, name))
        if self.ttl_ms == 0:
            raise InvalidOptionError("deduplication.ttl", self.ttl, "a time to live is longer than nothing; leave it out for no end")
        if self.extend and self.ttl is None:
            raise InvalidOptionError("deduplication.extend", True, "there is no ttl that could be extended")
        if self.keep_last_if_active and self.ttl is not None:
            reason = "with keep_last_if_active the other one stands until it has ended, and no ttl bounds that: leave out one of the two"
            raise InvalidOptionError("deduplication.ttl", self.ttl, reason)
        if self.reschedule and self.replace:
            raise InvalidOptionError("deduplication.reschedule", True, "with replace the new job takes the other's place anyway")

    @property
    def ttl_ms(self) -> int | None:
        return ms_of(self.ttl)


@explained_class()
@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """How many jobs may start in how long: `RateLimit(max=10, duration="1s")`.

    Raises:
        InvalidOptionError, InvalidDurationError
    """

    max: int
    duration: Duration

    def __post_init__(self) -> None:
        if self.max is None:  # pyright: ignore[reportUnnecessaryComparison]  # an untyped caller
            raise InvalidOptionError("max", self.max, "write how many jobs may start")
        check_whole("max", self.max, 1)
        check_duration(self, "duration")
        if not self.duration_ms:
            raise InvalidOptionError("duration", self.duration, "a limit needs a span of time, such as 1s")

    @property
    def duration_ms(self) -> int:
        return ms_of(self.duration) or 0
