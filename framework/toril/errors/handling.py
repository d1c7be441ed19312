"""What a handler raises to say what should happen to its job."""

from __future__ import annotations

from datetime import timedelta

from toril.errors.base import TorilError
from toril.units import format_duration


class JobSignal(TorilError):
    """Base of what a handler raises to say what should happen to its job."""


class UnrecoverableError(JobSignal):
    """The job can't succeed, however often it is tried: it fails at once, whatever `attempts` says."""


class DelayedError(JobSignal):
    """Run the job again after `delay`; this run does not count as an attempt.

    Args:
        delay: a `timedelta` or text such as `"30s"`.
        message: for the log.
    """

    def __init__(self, delay: timedelta | str, message: str = "") -> None:
        super().__init__(delay, message)
        self.delay, self.message = delay, message

    def __str__(self) -> str:
        return self.message or f"run again in {format_duration(self.delay)}"


class WaitingError(JobSignal):
    """Run the job again as soon as possible, before all others; this run does not count as an attempt."""


class WaitingChildrenError(JobSignal):
    """Run the job again when its children have ended; this run does not count as an attempt. If none is pending, it runs again at once.

    A handler adds children with `queue.add(…, parent=job)`, notes in `job.update_data` how far it is, and raises this.
    """


class RateLimitError(JobSignal):
    """What the job needs (somebody's API, say) takes no more at the moment: run it again later; this run does not count as an attempt.

    Until then this worker claims nothing more, and neither do others of the queue that have a rate limit of their own or of the
    queue's (`WorkerOptions.limiter`, `Queue.set_global_rate_limit`); those that have none don't look at it.

    Args:
        duration: for how long, a `timedelta` or text such as `"30s"`; left out where `Queue.rate_limit` has just said it.
    """

    def __init__(self, duration: timedelta | str | None = None) -> None:
        super().__init__(duration)
        self.duration = duration

    def __str__(self) -> str:
        return "rate limit exceeded" if self.duration is None else f"rate limit exceeded; again in {format_duration(self.duration)}"
