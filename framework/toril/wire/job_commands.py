"""What is done to one job by its id: a typed method for each script."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from toril.errors import JobNotFoundError, JobStateError, ServerError
from toril.wire import replies, scripts
from toril.wire.endings import sendable
from toril.wire.jobs import NewJob
from toril.wire.keys import RESERVED_JOB_IDS
from toril.wire.reads import QueueReads
from toril.wire.refusals import Argument


class JobCommands(QueueReads):
    """The part of `QueueCommands` that is about single jobs."""

    async def update_progress(self, job_id: str, progress: bytes) -> None:
        """Raises JobNotFoundError."""
        await self._on_job("update_progress", job_id, progress, repeatable=True)

    async def update_data(self, job_id: str, data: bytes) -> None:
        """Raises JobNotFoundError."""
        await self._on_job("update_data", job_id, data, repeatable=True)

    async def add_log(self, job_id: str, row: str, keep: int) -> int:
        """Append a row to the job's log, keep the newest `keep` (0: all), and return how many there are. Raises JobNotFoundError."""
        return await self._on_job("add_log", job_id, sendable(row), keep)

    async def remove(self, job_id: str) -> bool:
        """Remove the job and what belongs to it; False if a worker holds its lock. Unknown ids count as removed (wire §3.11).

        Raises:
            JobStateError: it is a job scheduler's pending iteration.
        """
        return bool(await self._on_job("remove", job_id, repeatable=True))

    async def cancel(self, job_id: str, now_ms: int, reason: str, keep: str) -> str:
        """Fail a job that isn't running; the key name of the collection it was in. `active`: its worker was told, and will do it.

        Raises:
            JobNotFoundError
            JobStateError: it has ended, or is a job scheduler's pending iteration.
        """
        reply = await self._ask_job("cancel", job_id, now_ms, sendable(reason), keep, expected="one that has not ended")
        return str(reply, "utf-8")

    async def replay_letter(self, job_id: str, now_ms: int, base: str, job: NewJob) -> str | None:
        """Put a job back into the queue with this base, and take away the dead letter (of this queue) that told of it; the new id.

        None: the queue with that base doesn't exist. Repeating it is harmless: the same id comes back.

        Raises:
            JobNotFoundError: there is no such letter.
            LockLostError: a worker is at it.
            DeadLetterError: a key of that queue holds what it can't.
        """
        args = (now_ms, base, job.name, job.data, job.opts, job.priority, int(job.lifo))
        try:
            reply: Any = await self._ask_job("replay_letter", job_id, *args, repeatable=True)
        except replies.NoSuchQueueError:
            return None
        if type(reply) is not bytes:
            raise replies.no_room_error(job_id, self.keys.queue, reply)
        return str(reply, "utf-8")

    async def replayed(self, letter_id: str) -> str | None:
        """The id of the job that this dead letter has become, if that was within a day."""
        reply = await self._commands.call("GET", self.keys.replayed(letter_id), repeatable=True)
        return None if reply is None else str(reply, "utf-8")

    async def promote(self, job_id: str) -> None:
        """Let a delayed job run now. Raises JobStateError."""
        await self._on_job("promote", job_id, expected="delayed")

    async def change_delay(self, job_id: str, now_ms: int, delay_ms: int) -> None:
        """Let a delayed job wait so long from now on. Raises JobNotFoundError, JobStateError."""
        await self._on_job("change_delay", job_id, now_ms, delay_ms, expected="delayed", repeatable=True)

    async def change_priority(self, job_id: str, priority: int, *, lifo: bool) -> None:
        """Give a job another priority, behind or before (`lifo`) those that have it. Raises JobNotFoundError."""
        await self._on_job("change_priority", job_id, priority, 1 if lifo else 0)

    async def retry_job(self, job_id: str, state: str, *, lifo: bool, reset_made: bool, reset_started: bool, opts: bytes = b"") -> None:
        """Let a completed or failed job run again, with other options if some are given. Raises JobNotFoundError, JobStateError."""
        await self._on_job("retry_job", job_id, state, int(lifo), int(reset_made), int(reset_started), opts, expected=state)

    async def _on_job(self, script: str, job_id: str, *args: Argument, repeatable: bool = False, expected: str = "active") -> int:
        return int(await self._ask_job(script, job_id, *args, repeatable=repeatable, expected=expected))

    async def _ask_job(self, script: str, job_id: str, *args: Argument, repeatable: bool = False, expected: str = "active") -> Any:  # noqa: ANN401 -- each script has a reply of its own
        if job_id in RESERVED_JOB_IDS:  # its "hash" would be one of the queue's own keys
            raise JobNotFoundError(job_id, self.keys.queue)
        reply: Any = await self._commands.run(scripts.load(script), self._bases, job_id, *args, repeatable=repeatable)
        if isinstance(reply, int) and reply < 0:
            error = replies.job_error(reply, job_id, self.keys.queue, expected)
            if reply == replies.WRONG_STATE:
                with suppress(ServerError):  # what went wrong is known already, and this only adds to it
                    error = JobStateError(job_id, self.keys.queue, expected, replies.state_text(await self.get_state(job_id)))
            raise error
        return reply

    async def drop_child_link(self, job_id: str) -> bool:
        """Let a job's parent no longer wait for it; False if none does. Raises JobNotFoundError, and ParentError if that is gone."""
        code = await self._on_job("drop_child_link", job_id)
        if code == 2:
            raise replies.parent_error(-5, f"of {self.keys.job(job_id)}", 0)
        return code == 0

    async def remove_unprocessed(self, job_id: str) -> int:
        """Remove a job's children that have not ended and don't run; how many. Raises JobNotFoundError."""
        return await self._on_job("remove_unprocessed", job_id)

    async def extend_lock(self, job_id: str, token: str, lock_ms: int) -> None:
        """Let the job belong to the holder of this token for so long from now on. Raises LockLostError."""
        await self._on_job("extend_lock", job_id, token, lock_ms, repeatable=True)

    async def clear_logs(self, job_id: str, keep: int) -> None:
        """Remove a job's log but for its newest `keep` rows."""
        key = self.keys.logs(job_id)
        if keep:
            await self._commands.call("LTRIM", key, -keep, -1, repeatable=True)
        else:
            await self._commands.call("DEL", key, repeatable=True)

    async def drop_deduplication_of(self, job_id: str, deduplication_id: str) -> bool:
        """Let the next job of a deduplication id in, if it is this job that keeps it out."""
        return bool(await self._on_job("drop_deduplication", job_id, deduplication_id))
