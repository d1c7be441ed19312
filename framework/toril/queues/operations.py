"""What a person or a program does to jobs that are in a queue already: cancel, remove, pause, retry, promote, drain, clean."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from toril.calls import explained
from toril.clock import Clock
from toril.durations import Duration, to_ms
from toril.errors import DamagedJobsError, JobNotFoundError
from toril.queues.listeners import Listeners
from toril.queues.option_parts import KeepJobs, keep_text
from toril.queues.option_values import stored_options
from toril.queues.options import JobOptions
from toril.queues.states import JobState, state_key, state_of_key
from toril.wire.commands import QueueCommands


class QueueOperations:
    """The operating part of `Queue`. Listeners of this process hear what is done here."""

    name: str
    clock: Clock
    listeners: Listeners
    keep_failed: KeepJobs | None

    async def cancel(self, job_id: str, reason: str = "on request") -> JobState:
        """Cancel a job, from any process: it fails for good with the reason `cancelled: …`, without a retry or a dead letter.

        Returns:
            Where the job was. `active`: its worker was told, cancels the handler at once, and then fails the job (a plain `def` in
            a thread can't be stopped, but is told through `job.cancelled`, and what it returns no longer counts). In every other
            state it has failed by now. A Node worker doesn't know this: a job that one runs goes on.

        Raises:
            JobNotFoundError
            JobStateError: it has ended already, or is the pending iteration of a job scheduler (remove that instead).
        """
        commands = await self._use()
        record = await commands.find_job(job_id)
        if record is None:
            raise JobNotFoundError(job_id, self.name)
        keep = keep_text(stored_options(record.opts).remove_on_fail)
        if keep is None:
            keep = keep_text(self.keep_failed) or ""
        state = state_of_key(await commands.cancel(job_id, self.clock.now_ms(), reason, keep))
        assert state is not None  # it was in one of them
        return state

    async def remove(self, job_id: str) -> bool:
        """Remove a job and all that belongs to it. False if a worker is running it; True also if there is no such job.

        Raises:
            JobStateError: it is the pending iteration of a job scheduler.
        """
        is_removed = await (await self._use()).remove(job_id)
        if is_removed:
            self.listeners.tell("removed", job_id)
        return is_removed

    async def pause(self) -> None:
        """Stop all workers of the fleet, Node's included, from claiming; running jobs go on, adding goes on. May be called twice."""
        await (await self._use()).pause()
        self.listeners.tell("paused")

    async def resume(self) -> None:
        """Let workers claim again. May be called twice."""
        await (await self._use()).resume()
        self.listeners.tell("resumed")

    async def is_paused(self) -> bool:
        """Whether the queue is paused."""
        return await (await self._use()).is_paused()

    async def retry_jobs(
        self, state: Literal["failed", "completed"] = "failed", *, limit: int | None = None, until: datetime | None = None
    ) -> int:
        """Run jobs that have ended once more, the oldest first; how many. Their priorities don't count then.

        Args:
            limit: not more than so many.
            until: only those that ended by then.

        Raises:
            DamagedJobsError: some were left as they are, since keys of their parents are damaged; it names them. All others are done.
        """
        until_ms = None if until is None else JobOptions(timestamp=until).timestamp_ms
        return await (await self._use()).move_all(state, limit, until_ms)

    async def promote_jobs(self, *, limit: int | None = None) -> int:
        """Let delayed jobs run now, the one that is due first in front; how many. Their priorities don't count then."""
        return await (await self._use()).move_all("delayed", limit, None)

    async def drain(self, *, delayed: bool = False) -> int:
        """Remove all jobs that wait (with `delayed` also those that wait for their time); how many. No event tells of each.

        Running and ended jobs, those that wait for children, and the next jobs of schedulers stay.

        Raises:
            DamagedJobsError: some were left as they are, since keys of their parents are damaged; it names them. All others are gone.
        """
        return await (await self._use()).drain(delayed=delayed)

    async def obliterate(self, *, force: bool = False) -> None:
        """Remove the queue with all that belongs to it: jobs, events, schedulers, settings. It is paused first.

        Args:
            force: also if jobs run; their workers then find that they are gone.

        Raises:
            QueueBusyError: jobs run. The queue stays paused then.
            DamagedJobsError: some were left as they are, since keys of their parents (of other queues) are damaged; it names them. All
                others are gone, and the queue stays paused.
        """
        await self.pause()
        await (await self._use()).obliterate(force=force)

    @explained("Queue.clean")
    async def clean(self, grace: Duration, *, limit: int | None = None, state: JobState = "completed") -> list[str]:
        """Remove jobs of one state that are older than `grace`; their ids.

        Of ended jobs the end counts, of others when they were taken or added. Running jobs and a scheduler's next run stay.

        Args:
            grace: how old they must be; `"0s"` removes all.
            limit: not more than so many are removed, the oldest (of delayed ones those that are due first).
            state: which jobs.

        Raises:
            DamagedJobsError: some were left as they are, since keys of their parents are damaged; it names them. All others are gone.
        """
        until_ms = self.clock.now_ms() - to_ms(grace, "grace")
        try:
            removed = await (await self._use()).clean(state_key(state), until_ms, limit)
        except DamagedJobsError as error:
            self.listeners.tell("cleaned", error.done, state)
            raise
        self.listeners.tell("cleaned", len(removed), state)
        return removed

    async def _use(self) -> QueueCommands:
        raise NotImplementedError
