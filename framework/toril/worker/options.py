"""`WorkerOptions`: how a worker claims, keeps and ends jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from toril.calls import explained_class
from toril.durations import Duration, optional_ms, to_ms
from toril.errors import InvalidOptionError
from toril.queues.backoff import BackoffStrategy
from toril.queues.option_checks import check_text
from toril.queues.option_parts import RateLimit
from toril.queues.options import OF_JOBS
from toril.queues.payloads import DEFAULT_SIZE_LIMIT

DEFAULT_CONCURRENCY = 10


@explained_class(fixes=OF_JOBS)
@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerOptions:
    """Checked as it is made. Durations are a `timedelta` or text such as `"30s"`; the `…_ms` fields are made from them."""

    concurrency: int = DEFAULT_CONCURRENCY
    """How many jobs run at the same time, over all names."""
    name: str | None = None
    """Shown in each job it runs (`processed_by`) and in the lists of workers of Node tools."""
    lock_duration: Duration = "30s"
    """For how long a claimed job belongs to this worker without a renewal; the locks are renewed three times in it."""
    stalled_interval: Duration = "30s"
    """How often to look for jobs whose worker is gone. One worker of a queue does it for all."""
    max_stalled_count: int = 1
    """How often a job may lose its worker before it is failed."""
    max_started_attempts: int | None = None
    """How often a job may be started at all, runs without an outcome among them (a crash, `DelayedError`, a stop); not set: no limit.
    One that is taken once more is failed without running, and after an error in its last one it isn't tried again."""
    drain_delay: Duration = "5s"
    """How long an idle worker sleeps at most before it looks again, should nobody ring."""
    shutdown_timeout: Duration = "25s"
    """How long running jobs may take to end once the worker stops; then they are cancelled and put back, for which they have 2 s."""
    max_loop_block: Duration = "5m"
    """A handler that blocks the event loop for longer than this loses its jobs: the process counts as dead."""
    loop_block_warning: Duration = "1s"
    """A handler that blocks the event loop for longer than this is named in the log, with its stack."""
    unknown_names: Literal["put_back", "fail"] = "put_back"
    """A job whose name has no handler: put back five times with growing delay (a newer deploy may own it), or failed at once."""
    unknown_name_delay: Duration = "5s"
    """The first of those delays; each further one is twice as long."""
    limiter: RateLimit | None = None
    """How many jobs may start in how long, over all workers of the queue that have a limiter. (`Queue.set_global_rate_limit` bounds
    all of them, and counts more.) A limited worker runs due jobs up to 30 s late."""
    metrics: Duration | None = None
    """For how long the numbers of jobs that completed and failed are kept minute by minute (`Queue.get_metrics`); not set: they
    aren't counted. In a mixed fleet all workers must count, Node's included, or the numbers are too low."""
    result_size_limit: int = DEFAULT_SIZE_LIMIT
    """How many bytes of JSON the result of a job may have. A bigger one fails the job for good: to run it again would give the same."""
    backoff_strategies: Mapping[str, BackoffStrategy] = field(default_factory=dict[str, BackoffStrategy])
    """Strategies of your own, by the name that `custom(name)` gives them."""

    lock_ms: int = field(init=False)
    stalled_interval_ms: int = field(init=False)
    drain_delay_ms: int = field(init=False)
    shutdown_timeout_ms: int = field(init=False)
    max_loop_block_ms: int = field(init=False)
    loop_block_warning_ms: int = field(init=False)
    unknown_name_delay_ms: int = field(init=False)
    metrics_points: int = field(init=False)

    def __post_init__(self) -> None:
        if self.name is not None:
            check_text("name", self.name)
        _check_count("concurrency", self.concurrency, at_least=1)
        _check_count("result_size_limit", self.result_size_limit, at_least=1)
        _check_count("max_stalled_count", self.max_stalled_count, at_least=0)
        if self.max_started_attempts is not None:
            _check_count("max_started_attempts", self.max_started_attempts, at_least=1)
        if self.unknown_names not in ("put_back", "fail"):
            raise InvalidOptionError("unknown_names", self.unknown_names, 'write "put_back" or "fail"')
        for option, made in (
            ("lock_duration", "lock_ms"),
            ("stalled_interval", "stalled_interval_ms"),
            ("drain_delay", "drain_delay_ms"),
            ("shutdown_timeout", "shutdown_timeout_ms"),
            ("max_loop_block", "max_loop_block_ms"),
            ("loop_block_warning", "loop_block_warning_ms"),
            ("unknown_name_delay", "unknown_name_delay_ms"),
        ):
            object.__setattr__(self, made, to_ms(getattr(self, option), option))
        if self.limiter is not None and not isinstance(self.limiter, RateLimit):  # pyright: ignore[reportUnnecessaryIsInstance]  # untyped callers
            raise InvalidOptionError("limiter", self.limiter, 'write RateLimit(max=10, duration="1s")')
        object.__setattr__(self, "metrics_points", (optional_ms(self.metrics, "metrics") or 0) // 60_000)
        if self.metrics is not None and self.metrics_points < 1:
            raise InvalidOptionError("metrics", self.metrics, "what is counted minute by minute needs at least one, such as 7d")
        if self.lock_ms < 1_000:
            raise InvalidOptionError("lock_duration", self.lock_duration, "a lock shorter than 1s can't be renewed in time")
        if self.stalled_interval_ms < 100 or self.drain_delay_ms < 10:
            reason = "the shortest stalled_interval is 100ms, the shortest drain_delay 10ms"
            raise InvalidOptionError("stalled_interval, drain_delay", (self.stalled_interval, self.drain_delay), reason)


def _check_count(option: str, value: int, at_least: int) -> None:
    if type(value) is not int or value < at_least:  # an untyped caller may pass anything
        raise InvalidOptionError(option, value, f"write a whole number of at least {at_least}")
