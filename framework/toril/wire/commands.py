"""One typed method for each script, and for each plain command on a queue's keys.

Everything that goes in or comes out is in our own words; the scripts and the replies' layout are known only here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, TypeAlias

from toril.errors import AddOutcomeUnknownError, JobNotFoundError
from toril.wire import replies, scripts
from toril.wire.codec import JOB_FIELDS, JobRecord, id_text, job_record
from toril.wire.connection import Argument, Connection, ReplyLostError, Server
from toril.wire.keys import RESERVED_JOB_IDS, QueueKeys

ADD_BATCH: Final = 1_000
"""How many jobs one call of the add script takes; more are split, so that no script holds the server for long."""

READ_BATCH: Final = 500

MOVE_BATCH: Final = 1_000
CLEAN_BATCH: Final = 1_000
"""How many jobs one call moves or removes: a few ms of the server's time."""

LIST_STATES: Final = frozenset({"wait", "paused", "active"})


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to add, encoded. A `delay_ms` above 0 decides before `priority`, and that before `lifo`."""

    name: str
    data: bytes
    opts: bytes
    timestamp_ms: int
    delay_ms: int = 0
    priority: int = 0
    lifo: bool = False
    job_id: str = ""
    """Empty: the server numbers it."""


Ending: TypeAlias = tuple[Argument, ...]
"""How a claimed job leaves the active list, as the turn script takes it: seven values, or fourteen with a dead letter before them.
Made by the functions below, never by hand."""


def completed(job_id: str, token: str, value: bytes, keep: str) -> Ending:
    """It completed with `value` (JSON); `keep` as `keep_rule` writes it."""
    return ("c", job_id, token, value, "", keep, "")


def failed(job_id: str, token: str, reason: str, stack: bytes, keep: str, attempts: int, letter: Ending = ()) -> Ending:
    """It failed for good; `stack` is the JSON list of the stacks of all attempts, `attempts` how many it was allowed."""
    return (*letter, "f", job_id, token, _sendable(reason), stack, keep, attempts)


def dead_letter(base: str, job: NewJob) -> Ending:
    """What goes to another queue (by the base of its keys) if the job fails for good: a part of `failed` and `unknown_name`."""
    return ("l", base, job.name, job.data, job.opts, job.delay_ms, job.priority)


def retried(job_id: str, token: str, reason: str, stack: bytes, delay_ms: int, lifo: bool) -> Ending:
    """The attempt failed, and it runs again: at once, or after a delay."""
    if delay_ms > 0:
        return ("d", job_id, token, _sendable(reason), stack, delay_ms, "")
    return ("r", job_id, token, _sendable(reason), stack, 1 if lifo else 0, "")


def put_off(job_id: str, token: str, delay_ms: int) -> Ending:
    """Its handler wants it to run again later; no attempt is spent."""
    return ("o", job_id, token, "", "", delay_ms, "")


def put_back(job_id: str, token: str, limit_ms: int | None = None) -> Ending:
    """It runs again as soon as possible; no attempt is spent.

    With `limit_ms` because of a rate limit: one for so many ms is set first (0: there is one already), and what is left of it is
    the code.
    """
    return ("w", job_id, token, "" if limit_ms is None else limit_ms, "", "", "")


def unknown_name(job_id: str, token: str, reason: str, stack: bytes, keep: str, first_delay_ms: int, letter: Ending = ()) -> Ending:
    """Nobody here handles its name: put off with a delay that doubles each time, the sixth time failed."""
    return (*letter, "u", job_id, token, _sendable(reason), stack, keep, first_delay_ms)


def _sendable(text: str) -> bytes:
    """Text that somebody's code made: lone surrogates (a file's name can hold them) must not stop the job from ending."""
    return text.encode("utf-8", "backslashreplace")


def keep_rule(count: int | None, age_ms: int | None, limit: int | None = None) -> str:
    """What stays of finished jobs of one kind: all (None and None), at most `count`, none older than `age_ms`."""
    if count is None and age_ms is None:
        return ""
    return f"{'' if count is None else count},{'' if age_ms is None else age_ms},{'' if limit is None else limit}"


class ClaimState(IntEnum):
    """Why a turn claimed no more jobs than it did. The numbers are the script's."""

    SATISFIED = 0
    """It got all that it asked for."""
    EMPTY = 1
    """Nothing is waiting; `value` is when the next delayed job is due (ms), or 0."""
    LIMITED = 2
    """The rate limit is used up; `value` is for how many ms."""
    BLOCKED = 3
    """The queue is paused, or as many jobs are active as its global concurrency allows."""
    ONLY_FULL_NAMES = 4
    """What is waiting has names that have no free slot here."""
    LOOK_FURTHER = 5
    """The same as far as was looked; the next turn goes on from the positions."""


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """What one turn asks for: first finish `endings`, then claim up to `claims` jobs."""

    now_ms: int
    token: str
    """The lock of the first claimed job; the others get it with `:2`, `:3`… behind."""
    lock_ms: int
    lane: str = ""
    """Under which the answer is kept (worker id and lane), so that the turn may be sent again. Empty: it is not kept."""
    sequence: int = 0
    endings: Sequence[Ending] = ()
    claims: int = 0
    worker_name: str = ""
    free_by_name: Sequence[tuple[str, int]] = ()
    """Names with a limit of their own, with their free slots."""
    positions: tuple[int, int] = (0, 0)
    """From where to look, in the waiting and in the prioritized jobs."""
    limit_max: int = 0
    limit_ms: int = 0
    """The worker's own rate limit: so many jobs in so many ms; 0: none."""
    metrics_points: int = 0
    """For how many minutes finished jobs are counted; 0: they aren't."""


@dataclass(frozen=True, slots=True)
class TurnReply:
    """What a turn did."""

    codes: Sequence[int]
    """One for each ending: 0 done, negative why it was refused (`replies.job_error`), 1 an unknown name that failed for good; of a
    `put_back` with a limit the ms that are left of that."""
    claimed: Sequence[tuple[str, JobRecord]]
    """Each with its lock token."""
    state: ClaimState
    value: int
    positions: tuple[int, int]


@dataclass(frozen=True, slots=True)
class StalledReply:
    """What a sweep found: the ids it put back, or how long to wait because another worker swept lately."""

    recovered: Sequence[str]
    wait_ms: int


@dataclass(frozen=True, slots=True)
class JobEnd:
    """Whether a job has ended, and how: it completed if there is a `return_value` (every completed job has one), else it failed."""

    has_ended: bool
    return_value: bytes | None
    failed_reason: str


class QueueCommands:
    """The operations of the protocol on one queue. Holds no state but where to send."""

    def __init__(self, server: Server, keys: QueueKeys) -> None:
        self.keys = keys
        self._server = server
        self._commands = server.commands
        self._bases = (keys.base, keys.own)

    # ── adding ────────────────────────────────────────────────────────────────────────────────────────────────

    async def add(self, jobs: Sequence[NewJob], now_ms: int) -> list[str]:
        """Add jobs in order and return their ids; a job whose custom id exists already is left as it is.

        Delays count from `now_ms`.

        Raises:
            AddOutcomeUnknownError: the reply was lost; the add is not repeated, since that could add twice.
            ServerUnreachableError: nothing was sent.
        """
        ids: list[str] = []
        for start in range(0, len(jobs), ADD_BATCH):
            batch = jobs[start : start + ADD_BATCH]
            args: list[Argument] = [now_ms]
            for job in batch:
                args += (job.name, job.data, job.opts, job.timestamp_ms, job.delay_ms, job.priority, 1 if job.lifo else 0, job.job_id)
            try:
                reply: list[bytes] = await self._commands.run(scripts.load("add"), self._bases, *args)
            except ReplyLostError as error:
                raise AddOutcomeUnknownError(self.keys.queue, len(jobs) - start, error.reason) from error
            ids += map(id_text, reply)
        return ids

    async def set_max_events(self, count: int | None) -> None:
        """Write how long the events stream may get; None writes BullMQ's default where nothing is set yet."""
        if count is None:
            await self._commands.call("HSETNX", self.keys.meta, "opts.maxLenEvents", 10_000, repeatable=True)
        else:
            await self._commands.call("HSET", self.keys.meta, "opts.maxLenEvents", count, repeatable=True)

    # ── the worker ────────────────────────────────────────────────────────────────────────────────────────────

    async def turn(self, connection: Connection, request: TurnRequest) -> TurnReply:
        """Finish and claim in one script, on the lane's own connection. Never repeated here: the lane does, unchanged.

        Raises:
            replies.StaleTurnError: a later turn of this lane has been answered already.
        """
        args: list[Argument] = [
            request.now_ms, request.token, request.lock_ms, request.lane, request.sequence, request.claims, request.worker_name,
            request.limit_max, request.limit_ms, *request.positions, request.metrics_points, len(request.free_by_name),
        ]  # fmt: skip
        for name, free in request.free_by_name:
            args += (name, free)
        for ending in request.endings:
            args += ending
        codes, state, value, wait_position, prioritized_position, rows = replies.checked(
            await connection.run(scripts.load("turn"), self._bases, *args)
        )
        return TurnReply(
            codes,
            [(row[1].decode(), job_record(id_text(row[0]), row[2:])) for row in rows],
            ClaimState(state),
            value,
            (wait_position, prioritized_position),
        )

    async def sweep_stalled(self, now_ms: int, interval_ms: int, max_stalled_count: int) -> StalledReply:
        """Put back the jobs whose worker is gone (wire §3.9)."""
        wait_ms, recovered = await self._commands.run(
            scripts.load("sweep_stalled"), self._bases, now_ms, interval_ms, max_stalled_count, repeatable=True
        )
        return StalledReply(list(map(id_text, recovered)), wait_ms)

    async def wait_for_marker(self, connection: Connection, block_ms: int) -> int | None:
        """Sleep until somebody rings: the due time (ms) the marker tells, 0 for "now", None after `block_ms`."""
        reply = await connection.call("BZPOPMIN", self.keys.marker, block_ms / 1_000, block_ms=block_ms)
        return None if reply is None else _marker_ms(reply[2])

    async def ring(self, marker: int) -> None:
        """Write a marker that was taken in vain once more, so that another worker hears of it (wire §3.0 WAKE)."""
        member = "1" if marker else "0"
        await self._commands.call("ZADD", self.keys.marker, marker, member, repeatable=True)

    # ── one job ───────────────────────────────────────────────────────────────────────────────────────────────

    async def find_job(self, job_id: str) -> JobRecord | None:
        """The job as it is now, or None."""
        jobs = await self.find_jobs([job_id])
        return jobs[0]

    async def find_jobs(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """Several jobs, in the order of their ids; None where there is none."""
        found: list[JobRecord | None] = []
        for start in range(0, len(job_ids), READ_BATCH):
            ids = job_ids[start : start + READ_BATCH]
            rows = await self._commands.run(scripts.load("get_jobs"), self._bases, *JOB_FIELDS_HEADER, *ids, repeatable=True)
            found += [job_record(job_id, row) if row else None for job_id, row in zip(ids, rows, strict=True)]
        return found

    async def get_state(self, job_id: str) -> str:
        """The key name of the collection that holds the job (`wait`, not `waiting`), or `unknown`."""
        reply: bytes = await self._commands.run(scripts.load("get_state"), self._bases, job_id, repeatable=True)
        return reply.decode()

    async def update_progress(self, job_id: str, progress: bytes) -> None:
        """Raises JobNotFoundError."""
        await self._on_job("update_progress", job_id, progress, repeatable=True)

    async def update_data(self, job_id: str, data: bytes) -> None:
        """Raises JobNotFoundError."""
        await self._on_job("update_data", job_id, data, repeatable=True)

    async def add_log(self, job_id: str, row: str, keep: int) -> int:
        """Append a row to the job's log, keep the newest `keep` (0: all), and return how many there are. Raises JobNotFoundError."""
        return await self._on_job("add_log", job_id, _sendable(row), keep)

    async def get_logs(self, job_id: str, start: int = 0, end: int = -1, *, ascending: bool = True) -> tuple[list[str], int]:
        """Rows `start` to `end` (inclusive; negative ones count from the end) and how many there are."""
        key = self.keys.logs(job_id)
        first, last = (start, end) if ascending else (-end - 1, -start - 1)
        rows: list[bytes] = await self._commands.call("LRANGE", key, first, last, repeatable=True)
        count: int = await self._commands.call("LLEN", key, repeatable=True)
        texts = [row.decode("utf-8", "replace") for row in rows]
        return (texts if ascending else texts[::-1]), count

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
        reply = await self._ask_job("cancel", job_id, now_ms, _sendable(reason), keep, expected="one that has not ended")
        return str(reply, "utf-8")

    async def find_cancellation(self, job_id: str) -> str | None:
        """Why a running job is to be cancelled; None: it isn't."""
        reason: bytes | None = await self._commands.call("GET", self.keys.cancellation(job_id), repeatable=True)
        return None if reason is None else reason.decode("utf-8", "replace")

    async def replay_letter(self, job_id: str, now_ms: int, base: str, job: NewJob) -> str | None:
        """Put a job back into the queue with this base, and take away the dead letter (of this queue) that told of it; the new id.

        None: the queue with that base doesn't exist. Repeating it is harmless: the same id comes back.

        Raises:
            JobNotFoundError: there is no such letter.
            LockLostError: a worker is at it.
        """
        args = (now_ms, base, job.name, job.data, job.opts, job.priority, int(job.lifo))
        try:
            reply = await self._ask_job("replay_letter", job_id, *args, repeatable=True)
        except replies.NoSuchQueueError:
            return None
        return str(reply, "utf-8")

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
            raise replies.job_error(reply, job_id, self.keys.queue, expected)
        return reply

    async def find_ends(self, job_ids: Sequence[str]) -> list[JobEnd | None]:
        """How these jobs ended, or that they have not yet; None where there is no such job."""
        found: list[JobEnd | None] = []
        for start in range(0, len(job_ids), READ_BATCH):
            ids = job_ids[start : start + READ_BATCH]
            rows = await self._commands.run(
                scripts.load("get_jobs"), self._bases, 4, "name", "finishedOn", "returnvalue", "failedReason", *ids, repeatable=True
            )
            found += [JobEnd(row[1] is not None, row[2], (row[3] or b"").decode("utf-8", "replace")) if row else None for row in rows]
        return found

    # ── the queue ─────────────────────────────────────────────────────────────────────────────────────────────

    async def count(self, states: Sequence[str]) -> list[int]:
        """How many jobs each of these states holds, all at the same instant."""
        counts: list[int] = await self._commands.run(scripts.load("counts"), self._bases, *states, repeatable=True)
        return counts

    async def pause(self) -> None:
        """Stop all claiming from the queue."""
        await self._commands.run(scripts.load("pause"), self._bases, repeatable=True)

    async def resume(self) -> None:
        """Let jobs be claimed again."""
        while await self._commands.run(scripts.load("resume"), self._bases, repeatable=True):
            pass  # a long list of an old version is merged in parts

    async def is_paused(self) -> bool:
        """Whether the queue is paused."""
        return bool(await self._commands.call("HEXISTS", self.keys.meta, "paused", repeatable=True))

    async def set_meta(self, fields: Mapping[str, int]) -> None:
        """Write settings of the queue that all workers obey: `concurrency`, or `max` and `duration` together (wire §1.3)."""
        pairs: list[Argument] = [part for pair in fields.items() for part in pair]
        await self._commands.call("HSET", self.keys.meta, *pairs, repeatable=True)

    async def drop_meta(self, *fields: str) -> None:
        """Take such settings away."""
        await self._commands.call("HDEL", self.keys.meta, *fields, repeatable=True)

    async def find_meta(self, *fields: str) -> list[int | None]:
        """Such settings; None for what isn't set, or can't be read as a number."""
        values: list[bytes | None] = await self._commands.call("HMGET", self.keys.meta, *fields, repeatable=True)
        return [int(value) if value is not None and value.isdigit() else None for value in values]

    async def limit_rate(self, duration_ms: int) -> None:
        """Let nobody who has a rate limit claim for so long (wire §3.14)."""
        await self._commands.call("SET", self.keys.limiter, 2**53 - 1, "PX", duration_ms, repeatable=True)

    async def drop_rate_limit(self) -> None:
        """Forget how much of the rate limit is used up."""
        await self._commands.call("DEL", self.keys.limiter, repeatable=True)

    async def rate_limit_ttl_ms(self, most: int | None) -> int:
        """For how long the queue's rate limit is used up, 0: it isn't. `most` is how many jobs it allows; None: the queue's own number."""
        if most is None:
            (most,) = await self.find_meta("max")
        used: bytes | None = await self._commands.call("GET", self.keys.limiter, repeatable=True)
        if used is None or (most is not None and int(used) < most):
            return 0
        return max(int(await self._commands.call("PTTL", self.keys.limiter, repeatable=True)), 0)

    async def metrics(self, state: str, start: int, end: int) -> tuple[list[int], list[int]]:
        """Of `completed` or `failed`: (count, time and count at the last full minute), and per minute, the newest first."""
        head: list[bytes | None] = await self._commands.call(
            "HMGET", self.keys.metrics(state), "count", "prevTS", "prevCount", repeatable=True
        )
        data: list[bytes] = await self._commands.call("LRANGE", self.keys.metrics_data(state), start, end, repeatable=True)
        return [int(value or 0) for value in head], [int(value) for value in data]

    async def move_all(self, state: str, limit: int | None, until_ms: int | None) -> int:
        """Let jobs of one state (failed, completed, delayed) wait, the oldest first; how many were moved.

        Args:
            limit: not more than so many; None: all.
            until_ms: only those that ended (or, delayed, are due) by then; None: all.
        """
        moved = 0
        until: Argument = "+inf" if until_ms is None else until_ms
        while limit is None or moved < limit:
            batch = MOVE_BATCH if limit is None else min(MOVE_BATCH, limit - moved)
            count: int = await self._commands.run(scripts.load("move_all"), self._bases, state, batch, until)
            moved += count
            if count < batch:
                break
        return moved

    async def clean(self, state: str, until_ms: int, limit: int | None) -> list[str]:
        """Remove jobs of one state that are older than a moment; their ids (wire §3.12)."""
        removed: list[str] = []
        while limit is None or len(removed) < limit:
            batch = CLEAN_BATCH if limit is None else min(CLEAN_BATCH, limit - len(removed))
            ids: list[bytes] = await self._commands.run(scripts.load("clean"), self._bases, state, until_ms, batch)
            removed += map(id_text, ids)
            if len(ids) < batch:
                break
        return removed

    async def list_ids(self, state: str, start: int, end: int, *, ascending: bool) -> list[str]:
        """Ids `start` to `end` (inclusive, as Redis counts) of one state; ascending is oldest (or most urgent) first."""
        key = self.keys.state(state)
        if state not in LIST_STATES:
            reply = await self._commands.call("ZRANGE" if ascending else "ZREVRANGE", key, start, end, repeatable=True)
        elif ascending:  # a list's oldest entry is its last
            reply = (await self._commands.call("LRANGE", key, -end - 1, -start - 1, repeatable=True))[::-1]
        else:
            reply = await self._commands.call("LRANGE", key, start, end, repeatable=True)
        return list(map(id_text, reply))

    async def locked_jobs(self) -> dict[str, str]:
        """For tests: the active jobs whose locks are held, with their tokens."""
        ids: list[bytes] = await self._commands.call("LRANGE", self.keys.state("active"), 0, -1, repeatable=True)
        held: dict[str, str] = {}
        for job_id in map(id_text, ids):
            token: bytes | None = await self._commands.call("GET", self.keys.lock(job_id), repeatable=True)
            if token is not None:
                held[job_id] = token.decode()
        return held

    # ── the events stream ─────────────────────────────────────────────────────────────────────────────────────

    async def last_event_id(self) -> str:
        """The id of the newest event, `0-0` if there is none."""
        reply = await self._commands.call("XREVRANGE", self.keys.events, "+", "-", "COUNT", 1, repeatable=True)
        return reply[0][0].decode() if reply else "0-0"

    async def read_events(self, connection: Connection, after: str, block_ms: int) -> list[tuple[str, dict[str, str]]]:
        """Events after an id (`$`: from now on), waiting up to `block_ms` for the first; empty if none came."""
        reply = await connection.call(
            "XREAD", "COUNT", READ_BATCH, "BLOCK", block_ms, "STREAMS", self.keys.events, after, repeatable=True, block_ms=block_ms
        )
        return _entries(reply[0][1]) if reply else []

    async def range_events(self, start: str, end: str, count: int) -> list[tuple[str, dict[str, str]]]:
        """At most `count` events from `start` to `end`; `(` before an id leaves it out, `-` and `+` are the ends."""
        return _entries(await self._commands.call("XRANGE", self.keys.events, start, end, "COUNT", count, repeatable=True))

    async def range_events_back(self, start: str, count: int) -> list[tuple[str, dict[str, str]]]:
        """At most `count` events from `start` (`+`: the newest; `(` before an id leaves it out) backwards, newest first."""
        return _entries(await self._commands.call("XREVRANGE", self.keys.events, start, "-", "COUNT", count, repeatable=True))


async def next_due_ms(server: Server, keys: QueueKeys, now_ms: int) -> int | None:
    """For tests: when the queue's next delayed job is due or its rate limit is over, after now; None if nothing is delayed or limited."""
    reply = await server.commands.call(
        "ZRANGE", keys.state("delayed"), (now_ms + 1) * 4096, "+inf", "BYSCORE", "LIMIT", 0, 1, "WITHSCORES", repeatable=True
    )
    times = [int(float(reply[1])) // 4096] if reply else []
    limited_ms: int = await server.commands.call("PTTL", keys.limiter, repeatable=True)
    if limited_ms > 0:
        times.append(now_ms + limited_ms)
    return min(times, default=None)


async def shift_ttls(server: Server, prefix: str, by_ms: int) -> int:
    """For tests: let `by_ms` pass for everything under a prefix that has a time to live, and wake who sleeps on a queue there."""
    shifted: int = await server.commands.run(scripts.load("shift_ttls"), (prefix, f"toril:{prefix}"), by_ms)
    return shifted


def _marker_ms(score: bytes) -> int:
    """A marker's due time; what makes no sense counts as "now"."""
    try:
        return int(float(score))
    except (ValueError, OverflowError):
        return 0


JOB_FIELDS_HEADER: Final[tuple[Argument, ...]] = (len(JOB_FIELDS), *JOB_FIELDS)


def _entries(reply: Iterable[Any]) -> list[tuple[str, dict[str, str]]]:
    entries: list[tuple[str, dict[str, str]]] = []
    for entry_id, flat in reply:
        texts = [text.decode("utf-8", "replace") for text in flat]
        entries.append((entry_id.decode(), dict(zip(texts[::2], texts[1::2], strict=True))))
    return entries
