"""What bounds the work on a queue over all workers of the fleet, Node's included: how many jobs at once, how many in a time."""

from __future__ import annotations

from datetime import timedelta

from toril.durations import Duration, to_ms
from toril.errors import InvalidOptionError
from toril.queues.option_checks import check_whole
from toril.queues.option_parts import RateLimit
from toril.wire.commands import QueueCommands


class QueueLimits:
    """The bounding part of `Queue`. What is set here stays in the server until it is removed."""

    async def set_global_concurrency(self, concurrency: int) -> None:
        """Let no more than so many jobs run at the same time, over all workers and names. Running ones go on.

        Raises:
            InvalidOptionError: no whole number of at least 1. (To let nothing run, pause the queue.)
        """
        check_whole("concurrency", concurrency, 1)
        await (await self._use()).set_meta({"concurrency": concurrency})

    async def get_global_concurrency(self) -> int | None:
        """What `set_global_concurrency` has set; None: nothing."""
        return (await (await self._use()).find_meta("concurrency"))[0]

    async def remove_global_concurrency(self) -> None:
        """Let each worker run as many jobs as its own concurrency allows."""
        await (await self._use()).drop_meta("concurrency")

    async def set_global_rate_limit(self, max: int, duration: Duration) -> None:  # noqa: A002 -- as BullMQ names it
        """Let no more than `max` jobs start in each span of `duration`, over all workers. It counts more than a worker's own limiter.

        A worker that has a limiter of its own measures the span by that.

        Raises:
            InvalidOptionError, InvalidDurationError
        """
        limit = RateLimit(max=max, duration=duration)
        await (await self._use()).set_meta({"max": limit.max, "duration": limit.duration_ms})

    async def get_global_rate_limit(self) -> RateLimit | None:
        """What `set_global_rate_limit` has set; None: nothing, or nothing that makes sense."""
        most, duration_ms = await (await self._use()).find_meta("max", "duration")
        if not most or not duration_ms or duration_ms > timedelta.max // timedelta(milliseconds=1):
            return None
        return RateLimit(max=most, duration=timedelta(milliseconds=duration_ms))

    async def remove_global_rate_limit(self) -> None:
        """Forget what `set_global_rate_limit` has set."""
        await (await self._use()).drop_meta("max", "duration")

    async def rate_limit(self, duration: Duration) -> None:
        """Stop claiming for so long, in all workers that have a rate limit (their own or the queue's); others don't look at it.

        A handler that has been told "too many requests" calls this and then raises `RateLimitError()`, or, in one,
        `RateLimitError(duration)`.
        """
        duration_ms = to_ms(duration, "duration")
        if not duration_ms:
            raise InvalidOptionError("duration", duration, "a limit needs a span of time, such as 1s")
        await (await self._use()).limit_rate(duration_ms)

    async def get_rate_limit_ttl(self, max: int | None = None) -> timedelta:  # noqa: A002 -- as BullMQ names it
        """For how long the rate limit is used up; zero if it isn't.

        Args:
            max: how many jobs the limit allows, where it is a worker's own; left out: the queue's.
        """
        check_whole("max", max, 1)
        return timedelta(milliseconds=await (await self._use()).rate_limit_ttl_ms(max))

    async def remove_rate_limit_key(self) -> None:
        """Let workers claim again at once, as if no job had started in this span. One that sleeps wakes at most 30 s later."""
        await (await self._use()).drop_rate_limit()

    async def _use(self) -> QueueCommands:
        raise NotImplementedError
