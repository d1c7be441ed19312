"""One job, as its producer and its handler see it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NamedTuple, cast

from typing_extensions import TypeVar

from toril.calls import explained
from toril.durations import Duration, to_ms
from toril.errors import InvalidOptionError, JobNotFoundError, LockLostError
from toril.queues.children import JobChildren
from toril.queues.option_checks import check_whole
from toril.queues.option_values import moment, stored_options, waiting_from
from toril.queues.options import JobOptions
from toril.queues.payloads import ANY_DATA, ANY_RESULT, DATA_DEPTH, PayloadType, check_size
from toril.queues.states import JobState
from toril.queues.sync_job import SyncJob
from toril.wire.codec import JobRecord, check_readable, from_json_or, shortened, to_json

if TYPE_CHECKING:
    from toril.queues.queue import Queue

DataT = TypeVar("DataT", default=Any)
ResultT = TypeVar("ResultT", default=Any)

PROGRESS_LIMIT: Final = 64 * 1024
"""How many bytes of JSON a progress value may have: each stands in the events stream, too, beside 10,000 others."""

_UNREAD: Final = object()
_flags = threading.Lock()


class JobLogs(NamedTuple):
    """Rows of a job's log."""

    rows: list[str]
    total: int
    """How many rows there are in all."""


class Job(JobChildren, Generic[DataT, ResultT]):
    """One job: what was asked for, how far it is, what came of it.

    It shows the job as it was when it was read (or added); `refresh()` reads it again. A worker makes one for every job it
    claims, so making one costs next to nothing: all that can be worked out is worked out when it is asked for.

    Args:
        queue: where it lives.
        record: its hash.
        data: its data, if it has been read from the record already.
        token: the token of its lock, as long as the caller holds that. Each run has another one, so it serves as a fencing token.
        payload: the type of its data.
        result_type: the type of its result.
    """

    __slots__ = ("_cancelled", "_data", "_payload", "_result_type", "on_progress", "queue", "record", "token")

    def __init__(
        self,
        queue: Queue[Any, Any],
        record: JobRecord,
        data: DataT = _UNREAD,  # type: ignore[assignment]  # stands for no value of any type
        token: str | None = None,
        *,
        payload: PayloadType[DataT] = ANY_DATA,
        result_type: PayloadType[ResultT] = ANY_RESULT,
    ) -> None:
        self.queue = queue
        self.record = record
        self.token = token
        self.on_progress: Callable[[Job[Any, Any], object], None] | None = None
        """Called with each progress that is reported here; the worker sets it where somebody listens."""
        self._data = data
        self._payload = payload
        self._result_type = result_type
        self._cancelled: threading.Event | None = None

    # ── what was asked for ────────────────────────────────────────────────────────────────────────────────────

    @property
    def id(self) -> str:
        return self.record.job_id

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def queue_name(self) -> str:
        return self.queue.name

    @property
    def data(self) -> DataT:
        """The data, checked against the job's type.

        Raises:
            InvalidPayloadError: it doesn't fit.
        """
        if self._data is _UNREAD:
            self._data = self._payload.decode(self.record.data, self.record.name, self.record.job_id)
        return self._data

    @property
    def options(self) -> JobOptions:
        """The options it was added with, after all merging."""
        return stored_options(self.record.opts)

    @property
    def timestamp_ms(self) -> int:
        return self.record.timestamp_ms

    @property
    def timestamp(self) -> datetime:
        """When it was added, in UTC."""
        return moment(self.record.timestamp_ms)

    @property
    def delay_ms(self) -> int:
        """What it waits or waited for in `delayed`; 0 once it has become due."""
        return self.record.delay_ms

    @property
    def priority(self) -> int:
        """Its priority now, which may have been changed since it was added."""
        return self.record.priority

    @property
    def deduplication_id(self) -> str | None:
        """The id under which it keeps others out, or kept them out while it had not ended."""
        return self.record.deduplication_id

    @property
    def parent_key(self) -> str | None:
        """The full key of the job that waits for this one."""
        return self.record.parent_key

    # ── how far it is ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def attempts_made(self) -> int:
        """Attempts that have ended."""
        return self.record.attempts_made

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1: the one that runs here, else the last one that has ended."""
        return self.attempts_made + 1 if self.token is not None else max(self.attempts_made, 1)

    @property
    def attempts_started(self) -> int:
        """How often a worker took it, runs that a crash ended included."""
        return self.record.attempts_started

    @property
    def stalled_count(self) -> int:
        """How often it was taken from a worker that had died or lost its lock."""
        return self.record.stalled_count

    @property
    def progress(self) -> Any:  # noqa: ANN401 -- whatever JSON the handler reported
        """What was last reported with `update_progress`; 0 before that."""
        return from_json_or(self.record.progress, 0)

    @property
    def processed_at_ms(self) -> int | None:
        return self.record.processed_at_ms

    @property
    def processed_at(self) -> datetime | None:
        """When a worker last took it, in UTC."""
        return None if self.record.processed_at_ms is None else moment(self.record.processed_at_ms)

    @property
    def processed_by(self) -> str | None:
        """The name of the worker that last took it, if that has one."""
        return self.record.processed_by

    @property
    def cancelled(self) -> threading.Event:
        """Set when this run should end: its timeout is over, it was cancelled, its lock was lost, or the process stops.

        For handlers that are a plain `def`, since a thread can't be cancelled from outside: ask `job.cancelled.is_set()`
        now and then. May be used from any thread.
        """
        if self._cancelled is None:
            with _flags:  # the handler's thread and the worker's loop may both come first
                if self._cancelled is None:
                    self._cancelled = threading.Event()
        return self._cancelled

    # ── what came of it ───────────────────────────────────────────────────────────────────────────────────────

    @property
    def return_value(self) -> ResultT | None:
        """What its handler returned; None if it has not completed.

        Raises:
            InvalidPayloadError: it doesn't fit the job's result type.
        """
        return None if self.record.return_value is None else self.read_result(self.record.return_value)

    @property
    def failed_reason(self) -> str | None:
        """The text of the last attempt's error; stays when a later attempt completes."""
        return self.record.failed_reason

    @property
    def stack_trace(self) -> list[str]:
        """The stack traces of failed attempts, oldest first."""
        stacks = from_json_or(self.record.stack_trace, [])
        return [str(stack) for stack in cast("list[object]", stacks)] if isinstance(stacks, list) else []

    @property
    def finished_at_ms(self) -> int | None:
        return self.record.finished_at_ms

    @property
    def finished_at(self) -> datetime | None:
        """When it completed or failed for good, in UTC."""
        return None if self.record.finished_at_ms is None else moment(self.record.finished_at_ms)

    # ── what can be done with it ──────────────────────────────────────────────────────────────────────────────

    async def update_progress(self, value: object) -> None:
        """Report how far it is: any JSON of up to 64 KiB; by custom a number up to 100.

        Raises:
            JobNotFoundError, NotJsonError, PayloadTooLargeError
        """
        text = to_json(value, f"the progress of job {self.id}")
        check_size(text, PROGRESS_LIMIT, self.name, "progress")
        await self.queue.commands.update_progress(self.id, text)
        self.record.progress = text
        if self.on_progress is not None:
            self.on_progress(self, value)

    async def update_data(self, data: DataT | Mapping[str, object]) -> None:
        """Put other data in the place of the job's own; a later attempt sees it.

        Raises:
            JobNotFoundError, InvalidPayloadError, NotJsonError, PayloadTooLargeError
        """
        text = self._payload.encode(data, self.name)
        check_size(text, self.options.size_limit, self.name)
        check_readable(text, f"the data of job {self.name!r}", DATA_DEPTH)
        await self.queue.commands.update_data(self.id, text)
        self.record.data = text
        self._data = cast("DataT", _UNREAD)

    async def log(self, row: str) -> int:
        """Append a row to the job's log, which dashboards show, and return how many rows there are.

        The newest `keep_logs` rows stay. A row of more than 20,000 characters loses its middle, and tells how much of it; half a
        character (a lone surrogate) is written as its code. Raises JobNotFoundError.
        """
        return await self.queue.commands.add_log(self.id, shortened(row), self.options.keep_logs or 0)

    @property
    def sync(self) -> SyncJob[DataT]:
        """`update_progress`, `update_data`, `log` and `extend_lock` for handlers that are a plain `def`, in threads and child processes.

        `job.sync.update_progress(50)` blocks its thread until that is done.
        """
        return SyncJob(self)

    async def get_logs(self, start: int = 0, end: int = -1, *, ascending: bool = True) -> JobLogs:
        """Rows `start` to `end` (both included; negative ones count from the end), oldest first unless `ascending` is False."""
        return JobLogs(*await self.queue.commands.get_logs(self.id, start, end, ascending=ascending))

    async def clear_logs(self, *, keep: int = 0) -> None:
        """Remove its log, but for the newest `keep` rows."""
        check_whole("keep", keep, 0)
        await self.queue.commands.clear_logs(self.id, keep)

    async def extend_lock(self, duration: Duration) -> None:
        """Let the job belong to this run for so long from now on, even if the lock can't be renewed meanwhile.

        For a handler that is about to call C code which holds the interpreter for longer than the worker's `lock_duration`. The
        price: if the process dies, the job runs again that much later.

        Raises:
            LockLostError: another worker may have it; also if this object was not given to a handler, and so holds no lock.
            InvalidOptionError: no time at all.
        """
        lock_ms = to_ms(duration, "duration")
        if not lock_ms:
            raise InvalidOptionError("duration", duration, "a lock needs a span of time, such as 5m")
        if self.token is None:
            raise LockLostError(self.id, self.queue_name, "it was read from the queue, and only a handler's job holds a lock")
        await self.queue.commands.extend_lock(self.id, self.token, lock_ms)

    async def remove_deduplication_key(self) -> bool:
        """Let the next job with its deduplication id in; False if it isn't this job that keeps the others out."""
        if self.record.deduplication_id is None:
            return False
        return await self.queue.commands.drop_deduplication_of(self.id, self.record.deduplication_id)

    async def get_state(self) -> JobState | None:
        """Where the job is now; None if it is gone."""
        return await self.queue.find_state(self.id)

    async def refresh(self) -> None:
        """Read the job again. Raises JobNotFoundError if it is gone."""
        record = await self.queue.commands.find_job(self.id)
        if record is None:
            raise JobNotFoundError(self.id, self.queue_name)
        self.record = record
        self._data = cast("DataT", _UNREAD)

    async def promote(self) -> None:
        """Run it now instead of at its time. Raises JobStateError unless it is delayed."""
        await self.queue.commands.promote(self.id)
        self.record.delay_ms = 0
        self.queue.listeners.tell("waiting", self.id)

    async def change_delay(self, delay: Duration) -> None:
        """Let it wait so long from now on. Raises JobNotFoundError, and JobStateError unless it is delayed."""
        delay_ms = to_ms(delay, "delay")
        await self.queue.commands.change_delay(self.id, self.queue.clock.now_ms(), delay_ms)
        self.record.delay_ms = delay_ms

    async def change_priority(self, priority: int, *, lifo: bool = False) -> None:
        """Give it another priority (0: none), behind those that have it, or before them (`lifo`). One that doesn't wait keeps it for later.

        Raises:
            JobNotFoundError
            InvalidOptionError: no whole number from 0 to 2,097,151.
        """
        JobOptions(priority=priority)  # checks it
        await self.queue.commands.change_priority(self.id, priority, lifo=lifo)
        self.record.priority = priority

    async def retry(self, state: Literal["failed", "completed"] = "failed", *, reset_attempts: bool = False) -> None:
        """Run a job that has ended once more.

        Args:
            state: where it is.
            reset_attempts: forget the attempts made and started, so that it has all of its attempts again (and, with `expires_in`,
                all of its time to wait).

        Raises:
            JobNotFoundError, JobStateError
        """
        await self.queue.open()
        await self.queue.commands.retry_job(
            self.id,
            state,
            lifo=self.options.lifo or False,
            reset_made=reset_attempts,
            reset_started=reset_attempts,
            opts=waiting_from(self.record.opts, self.queue.clock.now_ms()) if reset_attempts else b"",
        )
        self.queue.listeners.tell("waiting", self.id)

    async def cancel(self, reason: str = "on request") -> JobState:
        """Cancel the job, as `Queue.cancel` does."""
        return await self.queue.cancel(self.id, reason)

    async def remove(self) -> bool:
        """Remove the job, as `Queue.remove` does."""
        return await self.queue.remove(self.id)

    @explained("Job.result")
    async def result(self, *, timeout: Duration) -> ResultT:
        """Wait until the job has ended, and return what its handler returned.

        Works from any process, also after the job was removed, as long as the events stream remembers how it ended. Cancelling
        the caller does nothing to the job.

        Args:
            timeout: how long to wait at most.

        Raises:
            JobFailedError: it failed for good.
            JobRemovedError: it was removed, so there is no result.
            ResultTimeoutError: it has not ended in time; a `TimeoutError`, too.
            InvalidPayloadError: what its handler returned doesn't fit the result type.
            NeverEndsError: in a testing module, whose clock stands still, nothing will bring the job to its end.
        """
        return self.read_result(await self.queue.results.wait(self.id, to_ms(timeout, "timeout"), self.queue.result_watch))

    def read_result(self, text: bytes) -> ResultT:
        """JSON as the job's result type. Raises InvalidPayloadError."""
        return self._result_type.decode(text, self.name, self.id)

    def log_fields(self) -> Mapping[str, object]:
        """What a log line about this job is bound to."""
        return {"queue": self.queue_name, "job_id": self.id, "job_name": self.name, "attempt": self.attempt}

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.name!r} of queue {self.queue_name!r}>"
