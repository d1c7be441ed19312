"""The options of jobs and queues: what users may say, checked when they say it.

An option that isn't given is None, so options can be laid over each other (`JobOptions.merged_over`):
queue defaults < definition < handler < call. Times are `timedelta` or text such as `"5s"`; what is kept is a `timedelta`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Final, TypedDict

from toril.calls import explained_class
from toril.durations import Duration
from toril.errors import InvalidOptionError
from toril.queues.option_checks import (
    check_duration,
    check_flag,
    check_job_id,
    check_priority,
    check_timestamp,
    check_whole,
    ms_of,
)
from toril.queues.option_parts import Backoff, Deduplication, KeepJobs, check_keep, check_keep_jobs
from toril.wire.keys import DEFAULT_PREFIX, QueueKeys
from toril.wire.option_names import FAILURE_FLAGS

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


class JobOptionFields(TypedDict, total=False):
    """The options of a job as keyword arguments; `JobOptions` says what they mean."""

    attempts: int | None
    backoff: Backoff | None
    delay: Duration | None
    priority: int | None
    lifo: bool | None
    timeout: Duration | None
    expires_in: Duration | None
    remove_on_complete: bool | int | KeepJobs | None
    remove_on_fail: bool | int | KeepJobs | None
    job_id: str | None
    deduplication: Deduplication | None
    fail_parent_on_failure: bool | None
    continue_parent_on_failure: bool | None
    ignore_dependency_on_failure: bool | None
    remove_dependency_on_failure: bool | None
    timestamp: datetime | None
    stack_trace_limit: int | None
    keep_logs: int | None
    size_limit: int | None


OF_JOBS: Final = dict.fromkeys(JobOptionFields.__annotations__, "it is an option of jobs: give it to the JobDef, or to add")
"""What to say to those who give it to something else."""

_ELSEWHERE: Final = {
    "retries": "how often it is tried in all is attempts",
    "max_retries": "how often it is tried in all is attempts",
    "countdown": "how long it waits is delay",
    "repeat": "jobs that come again and again are made by queue.job_schedulers, or by @cron and @interval",
}


@explained_class("a job", _ELSEWHERE)
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class JobOptions:
    """How a job is treated. None means "not said here".

    Raises:
        InvalidOptionError: names the option, its value and the fix.
        InvalidDurationError: a duration that is a bare number, negative, or no duration.
    """

    attempts: int | None = None
    """How often it is tried in all; not set, 0 and 1 all mean once."""
    backoff: Backoff | None = None
    """How long to wait before another attempt; not set: not at all."""
    delay: Duration | None = None
    """How long it waits before it may run for the first time. Decides before `priority`, which then counts when it is due."""
    priority: int | None = None
    """1 runs before 2, and so on up to 2,097,151; jobs without one (or with 0) run before all of these."""
    lifo: bool | None = None
    """Run it before those that wait already. Refused beside `delay` or `priority`; where these come from defaults, it means nothing."""
    timeout: Duration | None = None
    """How long one attempt may run before its handler is cancelled and the attempt counts as failed."""
    expires_in: Duration | None = None
    """How long it may wait for its first attempt, from when it may run; a worker that takes it later fails it without running it."""
    remove_on_complete: bool | int | KeepJobs | None = None
    """True: gone as soon as it has completed. A number: only the newest so many stay. Not set: the worker's rule."""
    remove_on_fail: bool | int | KeepJobs | None = None
    """The same for a job that failed for good."""
    job_id: str | None = None
    """An id of your own (empty: none). A job that exists under it already stays as it is, so adding twice adds once."""
    deduplication: Deduplication | None = None
    """Keeps it out while another one with the same id stands for it; `add` then returns that one."""
    fail_parent_on_failure: bool | None = None
    """Of a child in a flow: if it fails for good, its parent fails, too. At most one of these four; without one the parent waits on."""
    continue_parent_on_failure: bool | None = None
    """… its parent goes on at once, without waiting for the other children; `Job.get_failed_children` tells of it."""
    ignore_dependency_on_failure: bool | None = None
    """… its parent no longer waits for it; `Job.get_ignored_failures` tells of it."""
    remove_dependency_on_failure: bool | None = None
    """… its parent no longer waits for it, and nothing tells of it."""
    timestamp: datetime | None = None
    """When the job counts as created, from which its `delay` counts, too; not set: now. Must know its time zone."""
    stack_trace_limit: int | None = None
    """How many stack traces of failed attempts are kept, the latest ones; 0: none. Not set: what the worker keeps."""
    keep_logs: int | None = None
    """How many rows of the job's log are kept; not set: all."""
    size_limit: int | None = None
    """How many bytes of JSON the data may have; bigger data is refused when it is added. Not set: `DEFAULT_SIZE_LIMIT`, 10 MiB."""

    def __post_init__(self) -> None:
        check_whole("attempts", self.attempts, 0)
        check_whole("stack_trace_limit", self.stack_trace_limit, 0)
        check_whole("keep_logs", self.keep_logs, 1)
        check_whole("size_limit", self.size_limit, 1)
        check_priority(self.priority)
        check_flag("lifo", self.lifo)
        check_timestamp(self.timestamp)
        check_duration(self, "delay")
        if self.lifo:
            _check_lifo(self)
        check_duration(self, "timeout")
        check_duration(self, "expires_in")
        if self.timeout_ms == 0:
            raise InvalidOptionError("timeout", self.timeout, "no handler ends in no time; leave the option out for no timeout")
        if self.backoff is not None and type(self.backoff) is not Backoff:
            raise InvalidOptionError("backoff", self.backoff, 'write fixed("5s"), exponential("1s") or custom("name")')
        if self.deduplication is not None and type(self.deduplication) is not Deduplication:
            raise InvalidOptionError("deduplication", self.deduplication, 'write Deduplication("some-id", ttl="10s")')
        check_keep("remove_on_complete", self.remove_on_complete)
        check_keep("remove_on_fail", self.remove_on_fail)
        for name in FAILURE_FLAGS:
            check_flag(name, getattr(self, name))
        _check_failure_flags(self)
        if self.job_id is not None and self.job_id != "":
            check_job_id(self.job_id)

    @property
    def delay_ms(self) -> int | None:
        return ms_of(self.delay)

    @property
    def timeout_ms(self) -> int | None:
        return ms_of(self.timeout)

    @property
    def expires_in_ms(self) -> int | None:
        return ms_of(self.expires_in)

    @property
    def timestamp_ms(self) -> int | None:
        return None if self.timestamp is None else (self.timestamp - _EPOCH) // _MILLISECOND

    def merged_over(self, base: JobOptions) -> JobOptions:
        """These options, and those of `base` where nothing is said here.

        >>> JobOptions(attempts=5).merged_over(JobOptions(attempts=3, priority=1))
        JobOptions(attempts=5, priority=1)

        Raises:
            InvalidOptionError: together they say two things about what a child's failure does to its parent.
        """
        if base is NO_OPTIONS:
            return self
        if self is NO_OPTIONS:
            return base
        both = zip(_FIELDS, _values_of(self), _values_of(base), strict=True)
        merged = JobOptions.unchecked({name: under if over is None else over for name, over, under in both})
        _check_failure_flags(merged)
        return merged

    @classmethod
    def unchecked(cls, values: Mapping[str, Any]) -> JobOptions:
        """Options whose values have been checked before, or have to be taken as they are. Each field must be there."""
        options = object.__new__(cls)
        put = object.__setattr__
        for name, value in values.items():
            put(options, name, value)
        return options

    def without_timeout(self) -> JobOptions:
        """The same, without a timeout."""
        return JobOptions.unchecked(dict(zip(_FIELDS, _values_of(self), strict=True)) | {"timeout": None})

    def said(self) -> dict[str, Any]:
        """The options that are set, by their names."""
        return {name: value for name, value in zip(_FIELDS, _values_of(self), strict=True) if value is not None}

    def __repr__(self) -> str:
        return f"JobOptions({', '.join(f'{name}={value!r}' for name, value in self.said().items())})"


def _check_lifo(options: JobOptions) -> None:
    for name, value, why in (
        ("priority", options.priority, "that decides when the job runs"),
        ("delay", options.delay_ms, "the job takes its place in line when its time has come"),
    ):
        if value:
            raise InvalidOptionError("lifo", True, f"it means nothing beside {name}, since {why}: leave out one of the two")


def _check_failure_flags(options: JobOptions) -> None:
    flags = [name for name, is_set in zip(FAILURE_FLAGS, _failure_flags_of(options), strict=True) if is_set]
    if len(flags) > 1:
        reason = f"it excludes {flags[0]}: a child's failure can do one thing to its parent; set one of them to False where it is a default"
        raise InvalidOptionError(flags[1], True, reason)


def check_job_options(name: str, value: object) -> None:
    """Refuse what is neither None nor JobOptions, a dict of them above all."""
    if value is not None and not isinstance(value, JobOptions):
        raise InvalidOptionError(name, value, "write JobOptions(attempts=3, …)")


def options_said(options: JobOptions | None, fields: JobOptionFields) -> JobOptions:
    """The options of one call: its keywords, laid over `options`.

    Raises:
        InvalidOptionError: of either, or both together.
    """
    check_job_options("options", options)
    said = NO_OPTIONS if options is None else options
    if not fields:
        return said
    if options is not None or not _ONE_JOB.isdisjoint(fields):
        return _laid_over(said, fields)
    values = tuple(fields.values())
    key = (*fields, *values, *map(type, values))  # 1 and True are equal, and only one of them is a number of attempts
    try:
        known, is_key = _SAID.get(key), True
    except TypeError:  # a value that can't be a key, say a list in a backoff
        known, is_key = None, False
    if not is_key:  # outside of `except`: what is wrong with the value would be told after that TypeError
        return _laid_over(said, fields)
    if known is None:
        if len(_SAID) >= _MOST_SAID:
            _SAID.clear()
        known = _SAID[key] = _laid_over(said, fields)
    return known


def _laid_over(base: JobOptions, fields: JobOptionFields) -> JobOptions:
    merged = JobOptions(**fields).merged_over(base)
    if merged.lifo:
        _check_lifo(merged)
    return merged


_ONE_JOB: Final = frozenset({"job_id", "deduplication", "timestamp"})
"""What nobody says twice: it would only push out what is said again and again."""

_SAID: Final[dict[tuple[object, ...], JobOptions]] = {}
"""The options of earlier calls by their keywords: most calls of a process say the same, and checking it takes 4 us."""

_MOST_SAID: Final = 1_000
_FIELDS: Final = tuple(JobOptions.__dataclass_fields__)
_failure_flags_of: Final[Callable[[JobOptions], tuple[Any, ...]]] = attrgetter(*FAILURE_FLAGS)
_values_of: Final[Callable[[JobOptions], tuple[Any, ...]]] = attrgetter(*_FIELDS)

NO_OPTIONS: Final = JobOptions()
"""Nothing said at all."""


@explained_class()
@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    """A queue as an application registers it.

    Raises:
        InvalidOptionError: names the option, its value and the fix.
    """

    name: str = field(kw_only=False)
    prefix: str | None = None
    """What the queue's keys begin with; shared with the Node side. Not set: the application's, `bull` unless that says otherwise."""
    default_job_options: JobOptions = NO_OPTIONS
    """What its jobs have unless their definition, handler or `add` says otherwise."""
    keep_completed: KeepJobs | None = KeepJobs(count=1_000, age="24h")  # noqa: RUF009 -- it is frozen
    """What its worker keeps of completed jobs that don't say it themselves; None: all."""
    keep_failed: KeepJobs | None = KeepJobs(count=10_000, age="30d")  # noqa: RUF009 -- it is frozen
    """The same for failed jobs."""
    max_events: int | None = None
    """About how many events the stream keeps; not set: what stands in the server already, else 10,000."""
    dead_letter: str | None = None
    """Name of the queue that gets a `failed-job` for each job that fails for good; it must be registered, too."""

    def __post_init__(self) -> None:
        if self.dead_letter == self.name:
            raise InvalidOptionError("dead_letter", self.dead_letter, "a queue can't be its own: register another one")
        QueueKeys(DEFAULT_PREFIX if self.prefix is None else self.prefix, self.name)  # checks both names
        check_job_options("default_job_options", self.default_job_options)
        check_keep_jobs("keep_completed", self.keep_completed)
        check_keep_jobs("keep_failed", self.keep_failed)
        check_whole("max_events", self.max_events, 1)
