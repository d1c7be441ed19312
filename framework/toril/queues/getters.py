"""Looking into a queue: single jobs, lists with paging, counts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal

from typing_extensions import TypeVar

from toril.errors import InvalidOptionError, JobNotFoundError
from toril.queues.job import Job, JobLogs
from toril.queues.manifests import WorkerManifest, read_manifest
from toril.queues.option_checks import check_priority
from toril.queues.states import NEWEST_FIRST, PENDING_STATES, STATES, JobState, state_key, state_of_key
from toril.wire.codec import JobRecord
from toril.wire.commands import QueueCommands

DataT = TypeVar("DataT", default=Any)
ResultT = TypeVar("ResultT", default=Any)

ID_PAGE: Final = 10_000
"""How many ids are listed at once where all jobs of a state are gone through."""

JOB_PAGE: Final = 100
"""And how many of them are read at once: each may hold much data."""

_MOST_REFILLS: Final = 100


@dataclass(frozen=True, slots=True)
class Metrics:
    """How many jobs have ended in one way."""

    count: int
    """Since somebody began to count."""
    per_minute: list[int]
    """In each full minute, the latest first."""
    counted_at_ms: int
    """When the latest full minute was closed."""
    counted: int
    """And `count` then."""


@dataclass(frozen=True, slots=True)
class WorkerClient:
    """A worker's connection, as the server lists it."""

    name: str | None
    """The worker's name, if it has one."""
    address: str
    """Where it comes from."""
    age_s: int
    """For how long it has been connected."""
    fields: Mapping[str, str]
    """All that the server tells of it."""


def worker_clients(listed: str, client_name: str) -> list[WorkerClient]:
    """Those in a CLIENT LIST that call themselves so, with or without a worker's name behind it (wire §6)."""
    found: list[WorkerClient] = []
    for line in listed.splitlines():
        parts = [part.partition("=") for part in line.split(" ")]
        fields = {name: value for name, _, value in parts}
        own = fields.get("name", "")
        if own == client_name or own.startswith(f"{client_name}:w:"):
            age = fields.get("age", "0")
            found.append(WorkerClient(own.removeprefix(client_name).removeprefix(":w:") or None, fields.get("addr", ""), int(age), fields))
    return found


class QueueGetters(Generic[DataT, ResultT]):
    """The reading half of `Queue`.

    Lists take `start` and `end` as Redis does: both included, `-1` is the last.
    """

    name: str

    async def find_job(self, job_id: str) -> Job[DataT, ResultT] | None:
        """The job with this id, or None."""
        record = await (await self._use()).find_job(job_id)
        return None if record is None else self._job(record)

    async def get_job(self, job_id: str) -> Job[DataT, ResultT]:
        """The job with this id. Raises JobNotFoundError."""
        job = await self.find_job(job_id)
        if job is None:
            raise JobNotFoundError(job_id, self.name)
        return job

    async def find_state(self, job_id: str) -> JobState | None:
        """Where the job is; None if there is no such job."""
        return state_of_key(await (await self._use()).get_state(job_id))

    async def get_job_logs(self, job_id: str, start: int = 0, end: int = -1, *, ascending: bool = True) -> JobLogs:
        """Rows `start` to `end` of a job's log, oldest first unless `ascending` is False; empty if there is no such job."""
        return JobLogs(*await (await self._use()).get_logs(job_id, start, end, ascending=ascending))

    async def get_jobs(
        self, states: JobState | Iterable[JobState] = STATES, start: int = 0, end: int = -1, *, ascending: bool = False
    ) -> list[Job[DataT, ResultT]]:
        """Jobs of one or several states, state by state; `start` and `end` count in each of them.

        Args:
            states: one state, or several.
            start: the first to return.
            end: the last to return.
            ascending: begin with the job that is oldest, or runs first; otherwise with the newest.
        """
        jobs: list[Job[DataT, ResultT]] = []
        for state in _checked(states):
            jobs += await self._list(state, start, end, ascending=ascending)
        return list({job.id: job for job in jobs}.values())

    async def scan_jobs(
        self, states: JobState | Iterable[JobState] = STATES, *, ascending: bool | None = None
    ) -> AsyncGenerator[Job[DataT, ResultT]]:
        """All jobs of one or several states, however many: `async for job in queue.scan_jobs("failed"): …`.

        Each state's ids are listed first, its jobs are then read 100 at a time; so while you go through them, jobs may be moved and
        removed. One that is gone by then is left out, and none comes twice.

        Args:
            states: one state, or several, which come one after the other.
            ascending: begin with the job that is oldest, or runs first; otherwise with the newest. Not set: as in `get_failed` and
                its like, ended jobs begin with the latest, others with the one that runs first.
        """
        commands = await self._use()
        seen: set[str] = set()
        for state in _checked(states):
            oldest_first = state not in NEWEST_FIRST if ascending is None else ascending
            ids: dict[str, None] = {}
            while page := await commands.list_ids(state_key(state), len(ids), len(ids) + ID_PAGE - 1, ascending=oldest_first):
                known = len(ids)
                ids |= dict.fromkeys(page)
                if len(ids) == known:  # the list has grown at its beginning meanwhile: what follows is known
                    break
            fresh = [job_id for job_id in ids if job_id not in seen]
            seen.update(fresh)
            for start in range(0, len(fresh), JOB_PAGE):
                for record in await commands.find_jobs(fresh[start : start + JOB_PAGE]):
                    if record is not None:
                        yield self._job(record)

    async def get_waiting(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Waiting jobs, the one that runs first in front."""
        return await self._list("waiting", start, end)

    async def get_active(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Running jobs, the one that was claimed first in front."""
        return await self._list("active", start, end)

    async def get_delayed(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Delayed jobs, the one that is due first in front."""
        return await self._list("delayed", start, end)

    async def get_prioritized(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Prioritized jobs, the one that runs first in front."""
        return await self._list("prioritized", start, end)

    async def get_waiting_children(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Jobs that wait for their children, the one that has waited longest in front."""
        return await self._list("waiting-children", start, end)

    async def get_completed(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Completed jobs, the latest in front."""
        return await self._list("completed", start, end)

    async def get_failed(self, start: int = 0, end: int = -1) -> list[Job[DataT, ResultT]]:
        """Jobs that failed for good, the latest in front."""
        return await self._list("failed", start, end)

    async def get_job_counts(self, *states: JobState) -> dict[JobState, int]:
        """How many jobs each of these states has, at one instant; of all states if none is given."""
        asked = _checked(states or STATES)
        return dict(zip(asked, await (await self._use()).count([state_key(state) for state in asked]), strict=True))

    async def count(self) -> int:
        """How many jobs are yet to run: waiting, prioritized, delayed, and waiting for children."""
        return sum((await self.get_job_counts(*PENDING_STATES)).values())

    async def get_waiting_count(self) -> int:
        """How many jobs may run now; those with a priority are counted by `get_prioritized_count`."""
        return await self._count("waiting")

    async def get_active_count(self) -> int:
        """How many jobs run."""
        return await self._count("active")

    async def get_delayed_count(self) -> int:
        """How many jobs wait for their time."""
        return await self._count("delayed")

    async def get_prioritized_count(self) -> int:
        """How many jobs with a priority may run now."""
        return await self._count("prioritized")

    async def get_waiting_children_count(self) -> int:
        """How many jobs wait for their children."""
        return await self._count("waiting-children")

    async def get_completed_count(self) -> int:
        """How many completed jobs are kept."""
        return await self._count("completed")

    async def get_failed_count(self) -> int:
        """How many failed jobs are kept."""
        return await self._count("failed")

    async def get_counts_per_priority(self, priorities: Iterable[int]) -> dict[int, int]:
        """How many jobs may run now of each of these priorities; 0: those without one."""
        asked = list(priorities)
        for priority in asked:
            check_priority(priority)
        return dict(zip(asked, await (await self._use()).count_priorities(asked), strict=True))

    async def find_deduplicated(self, deduplication_id: str) -> str | None:
        """The id of the job that keeps others of this deduplication id out, or None."""
        return await (await self._use()).find_deduplicated(deduplication_id)

    async def get_workers(self) -> list[WorkerClient]:
        """The workers of this queue that are connected, ours and Node's: each names one of its connections."""
        commands = await self._use()
        return worker_clients(await commands.clients(), commands.keys.client_name())

    async def get_worker_manifests(self) -> list[WorkerManifest]:
        """What the workers of this queue tell of themselves that are there now: which jobs they handle, where they run. Ours only."""
        commands = await self._use()
        now_ms, noted = await commands.noted_workers()
        manifests = [read_manifest(worker_id, text) for worker_id, text in noted.items()]
        return [one for one in manifests if one is not None and not one.is_stale(now_ms)]

    async def get_metrics(self, state: Literal["completed", "failed"], start: int = 0, end: int = -1) -> Metrics:
        """How many jobs have ended so, minute by minute, as far as the queue's workers count them (`WorkerOptions.metrics`).

        Args:
            state: completed or failed.
            start: the first minute to return; 0 is the latest one that is over.
            end: the last one, included.
        """
        if state not in ("completed", "failed"):
            raise InvalidOptionError("state", state, 'what is counted is "completed" and "failed"')
        (count, at_ms, at_count), per_minute = await (await self._use()).metrics(state, start, end)
        return Metrics(count, per_minute, at_ms, at_count)

    async def _count(self, state: JobState) -> int:
        return (await self.get_job_counts(state))[state]

    async def _list(self, state: JobState, start: int, end: int, *, ascending: bool | None = None) -> list[Job[DataT, ResultT]]:
        """A page of one state, each job once. Ids whose job is gone (removed this instant, or by hand) are left out; others follow."""
        oldest_first = state not in NEWEST_FIRST if ascending is None else ascending
        commands = await self._use()
        records: dict[str, JobRecord] = {}
        for _ in range(_MOST_REFILLS):
            ids = list(dict.fromkeys(await commands.list_ids(state_key(state), start, end, ascending=oldest_first)))
            found = [record for record in await commands.find_jobs(ids) if record is not None]
            records |= {record.job_id: record for record in found}
            missing = len(ids) - len(found)
            if not missing or end < 0 or start < 0:
                break
            start, end = end + 1, end + missing
        return [self._job(record) for record in records.values()]

    async def _use(self) -> QueueCommands:
        raise NotImplementedError

    def _job(self, record: JobRecord) -> Job[DataT, ResultT]:
        raise NotImplementedError


def _checked(states: JobState | Iterable[JobState]) -> list[JobState]:
    asked: list[JobState] = [states] if isinstance(states, str) else list(states)
    for state in asked:
        if state not in STATES:
            raise InvalidOptionError("states", state, f"the states of a job are {', '.join(STATES)}")
    return asked
