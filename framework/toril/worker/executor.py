"""One claimed job -> its outcome. Nothing that a user's code raises gets out of here.

The order within an attempt: payload validated → handler runs → result serialised → job scope closed → outcome.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any, Final, cast

from toril.clock import Clock
from toril.durations import optional_ms, to_ms
from toril.errors import (
    ChildHandlerError,
    DelayedError,
    FailedChildError,
    InvalidPayloadError,
    JobCancelledError,
    JobExpiredError,
    JobTimeoutError,
    NotJsonError,
    PayloadTooLargeError,
    RateLimitError,
    ServerError,
    ServerUnreachableError,
    TorilError,
    UnknownJobNameError,
    UnrecoverableError,
    WaitingChildrenError,
    WaitingError,
)
from toril.queues.backoff import next_delay_ms
from toril.queues.job import Job
from toril.queues.payloads import check_size
from toril.telemetry.context import LOG_CONTEXT
from toril.telemetry.logs import get_logger
from toril.wire.codec import from_json_or, to_json
from toril.wire.line import ReplyLostError
from toril.worker.calling import HandlerCaller
from toril.worker.executors import Children
from toril.worker.options import WorkerOptions
from toril.worker.outcome import Abandoned, Completed, Failed, Outcome, PutBack, PutOff, RateLimited, Retry, UnknownName, WaitForChildren
from toril.worker.processor import Handler, Registry
from toril.worker.running import CancelReason, RunningJob
from toril.worker.stored_errors import reason_of, stack_of

log = get_logger(__name__)

SCHEDULE_RETRY_MS: Final = 1_000

_FINAL: Final = (
    UnrecoverableError,
    InvalidPayloadError,
    NotJsonError,
    PayloadTooLargeError,
    JobCancelledError,
    JobExpiredError,
    FailedChildError,
)

STARTED_TOO_OFTEN: Final = "job started more than allowable limit"
"""BullMQ's words, by which Node tools know it."""


class Executor:
    """Runs attempts. It keeps nothing of them.

    Args:
        registry: the handlers.
        options: the worker's.
        clock: bounds attempts that have a timeout.
        caller: calls handlers in this process.
        children: where handlers run that want a process of their own.
    """

    def __init__(self, registry: Registry, options: WorkerOptions, clock: Clock, caller: HandlerCaller, children: Children) -> None:
        self._registry = registry
        self._options = options
        self._clock = clock
        self._caller = caller
        self._children = children

    async def attempt(self, running: RunningJob) -> Outcome:
        """Run one attempt to its end. Only the end of the whole process stops it from returning an outcome."""
        outcome = await self._attempt(running)
        if running.cancel_error is not None:  # whatever the handler made of being cancelled
            return self.failure(running, running.cancel_error)
        if running.cancel_reason is CancelReason.LOCK_LOST:
            return Abandoned()
        return outcome

    async def _attempt(self, running: RunningJob) -> Outcome:
        job = running.job
        LOG_CONTEXT.set(job)
        try:
            if job.record.scheduler_id is not None and (put_off := await self._continue_schedule(job)) is not None:
                return put_off
            if running.handler is None or self._must_fail(job) is not None:
                return self._without_running(running)
            expires_at_ms = running.policy.expires_at_ms
            if expires_at_ms is not None and job.attempts_started <= 1 and (late_ms := self._clock.now_ms() - expires_at_ms) > 0:
                raise JobExpiredError(job.id, job.queue_name, late_ms)
            _ = job.data  # reads and checks it, before anything is opened for this attempt
            in_here = running.handler.program is None
            done = await (self._in_time(running, running.handler) if in_here else self._in_child(running, running.handler))
            check_size(done.value, self._options.result_size_limit, job.name, "result")
            return done
        except asyncio.CancelledError as error:
            return self.cancelled(running, error)
        except (DelayedError, WaitingError, RateLimitError, WaitingChildrenError) as signal:
            return _as_asked(signal)
        except BaseException as error:  # noqa: BLE001 -- a handler's error is its outcome; SystemExit must not end the worker either
            return self.failure(running, error)

    def failure(self, running: RunningJob, error: BaseException) -> Retry | Failed:
        """What follows from an error: another attempt, or the end (wire §8)."""
        job, policy = running.job, running.policy
        reason, stack = reason_of(error), self._stacks(running, error)
        attempt = job.attempts_made + 1
        most = self._options.max_started_attempts
        if attempt < policy.attempts and not is_final(error) and (most is None or job.attempts_started < most):
            try:
                delay_ms = next_delay_ms(
                    policy.backoff, attempt, error, job, strategies=self._options.backoff_strategies, random=random.random
                )
            except BaseException as strategy_error:  # a user's code, as the handler is: not even SystemExit gets out
                log.error("backoff strategy failed", queue=job.queue_name, job_id=job.id, exc_info=strategy_error)
                return Failed(strategy_error, reason_of(strategy_error), self._stacks(running, strategy_error))
            if delay_ms is not None:
                return Retry(error, reason, stack, delay_ms)
        return Failed(error, reason, stack)

    async def _continue_schedule(self, job: Job[Any, Any]) -> PutBack | PutOff | None:
        """Add the iteration that follows this one, before anything else: if this worker dies then, the schedule goes on.

        Returns what must become of the job if that failed: it has to be claimed again, or nothing would follow it.
        """
        try:
            await job.queue.job_schedulers.follow(job)
        except (ServerUnreachableError, ReplyLostError) as error:
            log.warning("the next iteration could not be added; the job is put back", reason=str(error))
            return PutBack()
        except ServerError as error:  # a full server or a damaged key, say: it answers at once, so wait between the tries
            log.warning("the server refused to add the next iteration; the job is put off", reason=str(error))
            return PutOff(SCHEDULE_RETRY_MS)
        except TorilError as error:  # a rule that somebody else wrote and that can't be read: this run is still due
            log.error("nothing follows this iteration: its rule can't be read", reason=str(error))
        return None

    def _must_fail(self, job: Job[Any, Any]) -> str | None:
        """Why the job fails without running, if it does (wire §3.2)."""
        most = self._options.max_started_attempts
        if job.record.deferred_failure is None and most is not None and job.attempts_started > most:
            return STARTED_TOO_OFTEN
        return job.record.deferred_failure

    def _without_running(self, running: RunningJob) -> Outcome:
        job = running.job
        reason = self._must_fail(job)
        if reason is not None:
            return self.failure(running, UnrecoverableError(reason))
        unknown = UnknownJobNameError(job.id, job.queue_name, job.name, self._registry.names)
        if self._options.unknown_names == "fail":
            return Failed(unknown, reason_of(unknown), self._stacks(running, unknown))
        log.warning(
            "no handler for this job's name; put back, since a newer deploy may own it", job_name=job.name, known=self._registry.names
        )
        return UnknownName(unknown, reason_of(unknown), self._stacks(running, unknown))

    async def _in_child(self, running: RunningJob, handler: Handler) -> Completed:
        assert handler.program is not None
        # The start of a child doesn't count against the timeout.
        async with self._children.open(handler, handler.program, running.job) as call:
            there = replace(handler, call=call, scope=None, is_async=True)
            return await self._in_time(running, there)

    async def _in_time(self, running: RunningJob, handler: Handler) -> Completed:
        job = running.job
        timeout_ms = running.policy.timeout_ms or handler.timeout_ms
        if timeout_ms is None:
            return await self._caller.run(handler, job)
        limit = self._clock.timeout(timeout_ms)
        try:
            async with limit:
                completed = await self._caller.run(handler, job)
        except TimeoutError as error:
            if not limit.expired() or running.cancel_reason is not None:
                raise  # the handler's own
            raise JobTimeoutError(job.id, job.queue_name, timeout_ms) from error
        if limit.expired() and running.cancel_reason is None:  # it swallowed its cancellation: what it returned no longer counts
            raise JobTimeoutError(job.id, job.queue_name, timeout_ms)
        return completed

    def cancelled(self, running: RunningJob, error: asyncio.CancelledError) -> Outcome:
        """What follows from a cancellation: that depends on who cancelled."""
        match running.cancel_reason:
            case CancelReason.STOP:
                return PutBack()
            case CancelReason.LOCK_LOST:
                return Abandoned()
            case CancelReason.ASKED:
                return self.failure(running, running.cancel_error or error)
            case None:
                return self.failure(running, error)  # the handler cancelled itself, or let something's cancellation out

    def _stacks(self, running: RunningJob, error: BaseException) -> bytes:
        """The stacks of all attempts as JSON, oldest first, cut to the newest as many as the job wants."""
        limit = running.policy.stack_trace_limit
        earlier = from_json_or(running.job.record.stack_trace, [])
        stacks = [str(text) for text in cast("list[object]", earlier)] if isinstance(earlier, list) else []
        stacks.append(_stack_of(error))
        return to_json(stacks[-limit:] if limit else [], "the stack traces")


def _stack_of(error: BaseException) -> str:
    """The traceback; of what was raised in a child process the one from there, since the one from here tells nothing."""
    for one in (error, error.__cause__):
        if isinstance(one, ChildHandlerError):
            return one.stack
    return stack_of(error)


def _as_asked(signal: DelayedError | WaitingError | RateLimitError | WaitingChildrenError) -> Outcome:
    """What a handler's signal asks for. Raises InvalidOptionError."""
    if isinstance(signal, DelayedError):
        return PutOff(to_ms(signal.delay, "DelayedError.delay"))
    if isinstance(signal, RateLimitError):
        return RateLimited(optional_ms(signal.duration, "RateLimitError.duration") or 0)
    return WaitForChildren() if isinstance(signal, WaitingChildrenError) else PutBack()


def is_final(error: BaseException) -> bool:
    """Errors that another attempt can't mend. Node's own class is known by its name only."""
    if isinstance(error, ChildHandlerError):
        return error.is_final
    return isinstance(error, _FINAL) or type(error).__name__ == "UnrecoverableError"
