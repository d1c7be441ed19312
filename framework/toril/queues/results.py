"""Waits for jobs to end: one reader of the events stream serves everybody in this process who waits for a job of the queue.

Nothing may slip through between looking and listening, so the order is:

    1. register     from here on the reader hands over the job's end
    2. position     wait until the reader knows from where it reads
    3. look         has the job ended already? It's in its hash; without a hash, in the stream's past
    4. listen       until the reader has it, or the time is up

The reader starts with the first who waits, and ends when nobody waits any more (at its next wake-up).
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Collection, Coroutine, Iterable
from copy import copy
from typing import Any, Final, NoReturn, TypeAlias

from toril.cancellation import run_beside
from toril.clock import Clock
from toril.errors import JobFailedError, JobRemovedError, QueueClosedError, ResultTimeoutError, ServerError, TorilError
from toril.queues.event_stream import EventStream
from toril.queues.option_values import moment
from toril.queues.states import state_of_key
from toril.wire.commands import QueueCommands
from toril.wire.connection import Server
from toril.wire.event_names import read_fields

CHECK_MS: Final = 5_000
"""Draining, cleaning and keep rules remove jobs without an event for each, so all that are waited for are looked at this often."""

_LOOK_BACK: Final = 1_000

End: TypeAlias = "bytes | Exception"
"""The JSON of what the handler returned, or the error to raise."""

ResultWatch: TypeAlias = Callable[[str], Coroutine[Any, Any, NoReturn]]
"""Goes on beside each wait for the job of this id, and ends it with what it raises."""


class Results:
    """The ends of one queue's jobs."""

    def __init__(self, server: Server, commands: QueueCommands, clock: Clock) -> None:
        self._server = server
        self._commands = commands
        self._clock = clock
        self._queue = commands.keys.queue
        self._waiting: dict[str, set[asyncio.Future[End]]] = {}
        self._reader: _Reader | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def wait(self, job_id: str, timeout_ms: int, watch: ResultWatch | None = None) -> bytes:
        """The JSON of what the job's handler returned.

        Raises:
            JobFailedError, JobRemovedError, ResultTimeoutError
            QueueClosedError: the queue was closed meanwhile.
            Others: what `watch` raises.
        """
        waiting = self._wait(job_id, timeout_ms)
        return await (waiting if watch is None else run_beside(watch(job_id), waiting))

    async def _wait(self, job_id: str, timeout_ms: int) -> bytes:
        if self._is_closed:
            raise QueueClosedError(f"queue {self._queue!r}")
        ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, set()).add(ended)
        reader = self._running_reader()
        limit = self._clock.timeout(timeout_ms)
        try:
            async with limit:
                await reader.positioned.wait()
                if not ended.done():
                    self._hand_over(await self._look({job_id}))
                end = await ended
        except TimeoutError:
            if not limit.expired():
                raise
            raise await self._too_late(job_id, timeout_ms) from reader.stream.trouble
        finally:
            self._forget(job_id, ended)
        if isinstance(end, Exception):
            raise copy(end)  # several may wait for the same job, and each raises an error of its own
        return end

    async def aclose(self) -> None:
        """Send everybody who waits away with `QueueClosedError`, and end the reader. May be called twice."""
        self._is_closed = True
        self._send_away(QueueClosedError(f"queue {self._queue!r}"))
        if self._reader is not None:
            await self._reader.stream.aclose()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _running_reader(self) -> _Reader:
        if self._reader is None:
            self._reader = reader = _Reader(self._server, self._commands)
            # In a context of its own: it outlives the job in whose handler somebody may be waiting.
            task = asyncio.create_task(self._read(reader), name=f"results of {self._queue}", context=contextvars.Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return self._reader

    async def _read(self, reader: _Reader) -> None:
        """Hand over ends as they happen, until nobody waits."""
        stream, loop = reader.stream, asyncio.get_running_loop()
        try:
            while self._waiting and not stream.is_closed and not await stream.settle():
                pass  # it has paused already
            reader.positioned.set()
            check_at = loop.time() + CHECK_MS / 1_000
            while self._waiting and not stream.is_closed:
                entries = await stream.read(CHECK_MS)
                ends = _ends_in(entries, self._waiting, self._queue)
                # Whoever began to wait after a job had ended may hear of its removal first: how it ended counts all the same.
                if gone := {job_id for job_id, end in ends.items() if isinstance(end, JobRemovedError)}:
                    ends |= await self._look_back(gone)
                self._hand_over(ends)
                if self._waiting and loop.time() >= check_at:
                    self._hand_over(await self._check())
                    check_at = loop.time() + CHECK_MS / 1_000
        except TorilError as error:  # such as a password that was changed: whoever waits must hear of it
            self._send_away(error)
        finally:
            self._reader = None
            reader.positioned.set()
            await stream.aclose()

    async def _check(self) -> dict[str, End]:
        try:
            return await self._look(list(self._waiting))
        except ServerError:  # the stream's reader will see it, too, and say so
            return {}

    async def _look(self, job_ids: Collection[str]) -> dict[str, End]:
        """The ends of those of these jobs that have ended or are gone."""
        found: dict[str, End] = {}
        gone: set[str] = set()
        for job_id, end in zip(job_ids, await self._commands.find_ends(list(job_ids)), strict=True):
            if end is None:
                gone.add(job_id)
            elif end.has_ended:
                found[job_id] = end.return_value if end.return_value is not None else JobFailedError(job_id, self._queue, end.failed_reason)
        if gone:
            found.update({job_id: JobRemovedError(job_id, self._queue) for job_id in gone} | await self._look_back(gone))
        return found

    async def _look_back(self, job_ids: set[str]) -> dict[str, End]:
        """The ends of removed jobs that the stream still tells, newest first; not those of an earlier job with the same id."""
        found: dict[str, End] = {}
        missing = set(job_ids)
        start = "+"
        while missing:
            entries = await self._commands.range_events_back(start, _LOOK_BACK)
            for _, entry in entries:
                name, fields = read_fields(entry)
                job_id = fields.get("job_id", "")
                if job_id not in missing:
                    continue
                if (end := _end(name, fields, self._queue)) is not None and name != "removed":
                    found[job_id] = end
                    missing.discard(job_id)
                elif name == "added" or (name == "waiting" and fields.get("previous") in {"completed", "failed"}):
                    missing.discard(job_id)  # here its last life began
            if len(entries) < _LOOK_BACK:
                break
            start = f"({entries[-1][0]}"
        return found

    def _hand_over(self, ends: dict[str, End]) -> None:
        for job_id, end in ends.items():
            for future in self._waiting.get(job_id, ()):
                if not future.done():
                    future.set_result(end)

    def _send_away(self, error: Exception) -> None:
        self._hand_over(dict.fromkeys(self._waiting, error))

    def _forget(self, job_id: str, ended: asyncio.Future[End]) -> None:
        ended.cancel()
        futures = self._waiting[job_id]
        futures.discard(ended)
        if not futures:
            del self._waiting[job_id]

    async def _too_late(self, job_id: str, timeout_ms: int) -> ResultTimeoutError:
        due_at_ms: int | None = None
        try:
            state: str = state_of_key(await self._commands.get_state(job_id)) or "unknown"
            if state == "delayed":
                due_at_ms = await self._commands.find_due_ms(job_id)
        except ServerError:
            state = "unknown: the server can't be reached"
        due_at = None if due_at_ms is None else moment(due_at_ms)
        return ResultTimeoutError(job_id, self._queue, timeout_ms, state, str(self._server.address), due_at)


class _Reader:
    def __init__(self, server: Server, commands: QueueCommands) -> None:
        self.stream = EventStream(server, commands)
        self.positioned = asyncio.Event()


def _ends_in(entries: Iterable[tuple[str, dict[str, str]]], wanted: Collection[str], queue: str) -> dict[str, End]:
    found: dict[str, End] = {}
    for _, entry in entries:
        if entry.get("event") in {"completed", "failed", "removed"}:
            name, fields = read_fields(entry)
            job_id = fields.get("job_id", "")
            if job_id in wanted and job_id not in found and (end := _end(name, fields, queue)) is not None:
                found[job_id] = end
    return found


def _end(name: str, fields: dict[str, str], queue: str) -> End | None:
    match name:
        case "completed":
            return fields.get("return_value", "null").encode()
        case "failed":
            return JobFailedError(fields["job_id"], queue, fields.get("reason", ""))
        case "removed":
            return JobRemovedError(fields["job_id"], queue)
        case _:
            return None
