"""What can be asked of a queue's keys; nothing here writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from toril.wire import scripts
from toril.wire.codec import JobRecord, id_text, job_record
from toril.wire.connection import Connection, Server
from toril.wire.keys import QueueKeys
from toril.wire.presence import noted_workers, server_ms

READ_BATCH: Final = 500

CHILD_KINDS: Final = {
    "processed": ("HSCAN", "processed"),
    "ignored": ("HSCAN", "failed"),
    "failed": ("ZSCAN", "unsuccessful"),
    "unprocessed": ("SSCAN", "dependencies"),
}
"""What became of a job's children: how to read on in those of a kind, and where they stand (wire §1.4)."""

LIST_STATES: Final = frozenset({"wait", "paused", "active"})

ALL_FIELDS: Final = 0


@dataclass(frozen=True, slots=True)
class JobEnd:
    """Whether a job has ended, and how: it completed if there is a `return_value` (every completed job has one), else it failed."""

    has_ended: bool
    return_value: bytes | None
    failed_reason: str


class QueueReads:
    """The reading half of `QueueCommands`. Holds no state but where to send."""

    def __init__(self, server: Server, keys: QueueKeys) -> None:
        self.keys = keys
        self._server = server
        self._commands = server.commands_of(keys)
        self._bases = (keys.base, keys.own)

    async def find_job(self, job_id: str) -> JobRecord | None:
        """The job as it is now, or None."""
        jobs = await self.find_jobs([job_id])
        return jobs[0]

    async def find_jobs(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """Several jobs, in the order of their ids; None where there is none."""
        found: list[JobRecord | None] = []
        for start in range(0, len(job_ids), READ_BATCH):
            ids = job_ids[start : start + READ_BATCH]
            rows = await self._commands.run(scripts.load("get_jobs"), self._bases, ALL_FIELDS, *ids, repeatable=True)
            found += [job_record(job_id, row) if row else None for job_id, row in zip(ids, rows, strict=True)]
        return found

    async def get_state(self, job_id: str) -> str:
        """The key name of the collection that holds the job (`wait`, not `waiting`), or `unknown`."""
        reply: bytes = await self._commands.run(scripts.load("get_state"), self._bases, job_id, repeatable=True)
        return reply.decode()

    async def find_due_ms(self, job_id: str) -> int | None:
        """Until when a delayed job waits; None: it isn't delayed (any more), or nobody can tell."""
        score: bytes | None = await self._commands.call("ZSCORE", self.keys.state("delayed"), job_id, repeatable=True)
        number = number_or(score, -1)  # somebody may have written an "inf"
        return number // 4096 if number >= 0 else None

    async def list_due(self, until_ms: int, most: int) -> list[str]:
        """The ids of the delayed jobs whose time has come by then, and at most so many: those that are due for longest."""
        last = until_ms * 4096 + 4095
        ids = await self._commands.call("ZRANGEBYSCORE", self.keys.state("delayed"), "-inf", last, "LIMIT", 0, most, repeatable=True)
        return list(map(id_text, ids))

    async def get_logs(self, job_id: str, start: int = 0, end: int = -1, *, ascending: bool = True) -> tuple[list[str], int]:
        """Rows `start` to `end` (inclusive; negative ones count from the end) and how many there are."""
        key = self.keys.logs(job_id)
        first, last = (start, end) if ascending else (-end - 1, -start - 1)
        rows: list[bytes] = await self._commands.call("LRANGE", key, first, last, repeatable=True)
        count: int = await self._commands.call("LLEN", key, repeatable=True)
        texts = [row.decode("utf-8", "replace") for row in rows]
        return (texts if ascending else texts[::-1]), count

    async def find_lock(self, job_id: str) -> tuple[str, int] | None:
        """The token of the worker that holds the job, and for how long it still does, ms; None: nobody holds it."""
        token: bytes | None = await self._commands.call("GET", self.keys.lock(job_id), repeatable=True)
        left_ms: int = await self._commands.call("PTTL", self.keys.lock(job_id), repeatable=True)
        return None if token is None else (token.decode("utf-8", "replace"), max(left_ms, 0))

    async def find_cancellation(self, job_id: str) -> str | None:
        """Why a running job is to be cancelled; None: it isn't."""
        reason: bytes | None = await self._commands.call("GET", self.keys.cancellation(job_id), repeatable=True)
        return None if reason is None else reason.decode("utf-8", "replace")

    async def children(self, job_id: str, most: int) -> list[str]:
        """Full keys of a job's children, ended ones first, and at most so many."""
        found: dict[str, None] = {}
        for kind in CHILD_KINDS:
            cursor = 0
            while len(found) < most:
                page, cursor = await self.children_page(job_id, kind, cursor, most)
                found.update(dict.fromkeys(page))
                if not cursor:
                    break
        return list(found)[:most]

    async def children_page(self, job_id: str, kind: str, cursor: int, count: int) -> tuple[dict[str, bytes | None], int]:
        """About `count` children of one kind by their full keys, with what is stored of them; and the next cursor, 0 at the end."""
        command, suffix = CHILD_KINDS[kind]
        key = f"{self.keys.job(job_id)}:{suffix}"
        following, found = await self._commands.call(command, key, cursor, "COUNT", count, repeatable=True)
        if command == "SSCAN":
            return {id_text(child): None for child in found}, int(following)
        with_values = command == "HSCAN"
        pairs = zip(found[::2], found[1::2], strict=True)
        return {id_text(child): value if with_values else None for child, value in pairs}, int(following)

    async def count_children(self, job_id: str) -> list[int]:
        """How many children a job has of each kind: processed, unprocessed, ignored, failed."""
        counts: list[int] = await self._commands.run(scripts.load("count_children"), self._bases, job_id, repeatable=True)
        return counts

    async def children_values(self, job_id: str) -> dict[str, bytes]:
        """What a job's children have returned, JSON, by their full keys."""
        return _pairs(await self._commands.call("HGETALL", f"{self.keys.job(job_id)}:processed", repeatable=True))

    async def ignored_failures(self, job_id: str) -> dict[str, bytes]:
        """Why those children have failed that their parent didn't wait for any more."""
        return _pairs(await self._commands.call("HGETALL", f"{self.keys.job(job_id)}:failed", repeatable=True))

    async def failed_children(self, job_id: str) -> list[str]:
        """Full keys of the children whose failure fails their parent."""
        return list(map(id_text, await self._commands.call("ZRANGE", f"{self.keys.job(job_id)}:unsuccessful", 0, -1, repeatable=True)))

    async def pending_children(self, job_id: str) -> list[str]:
        """Full keys of the children that have not ended."""
        return list(map(id_text, await self._commands.call("SMEMBERS", f"{self.keys.job(job_id)}:dependencies", repeatable=True)))

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

    async def find_fields(self, job_ids: Sequence[str], *fields: str) -> list[list[bytes | None] | None]:
        """Single fields of several jobs, by their names on the wire, the first of which every job has; None where there is no such job."""
        found: list[list[bytes | None] | None] = []
        for start in range(0, len(job_ids), READ_BATCH):
            ids = job_ids[start : start + READ_BATCH]
            rows = await self._commands.run(scripts.load("get_jobs"), self._bases, len(fields), *fields, *ids, repeatable=True)
            found += [row or None for row in rows]
        return found

    async def unlocked(self, job_ids: Sequence[str]) -> list[str]:
        """Those of these ids for which nobody holds a lock."""
        reply: list[bytes] = await self._commands.run(scripts.load("unlocked"), self._bases, *job_ids, repeatable=True)
        return list(map(id_text, reply))

    async def find_orphans(self, candidates: Sequence[str | bytes]) -> list[str]:
        """Those of these ids whose job is in no collection, and isn't locked: nobody will ever run or find it."""
        reply: list[bytes] = await self._commands.run(scripts.load("find_orphans"), self._bases, *candidates, repeatable=True)
        return list(map(id_text, reply))

    async def count_priorities(self, priorities: Sequence[int]) -> list[int]:
        """How many jobs may run now of each of these priorities; 0: those without one."""
        counts: list[int] = []
        for priority in priorities:
            if priority == 0:
                counts.append(await self._commands.call("LLEN", self.keys.state("wait"), repeatable=True))
            else:
                low, high = priority * 2**32, (priority + 1) * 2**32 - 1
                counts.append(await self._commands.call("ZCOUNT", self.keys.state("prioritized"), low, high, repeatable=True))
        return counts

    async def find_deduplicated(self, deduplication_id: str) -> str | None:
        """The id of the job that stands for all of this deduplication id."""
        reply: bytes | None = await self._commands.call("GET", self.keys.deduplication(deduplication_id), repeatable=True)
        return None if reply is None else id_text(reply)

    async def clients(self) -> str:
        """Who is connected to the server, as CLIENT LIST tells it."""
        reply: bytes = await self._commands.call("CLIENT", "LIST", repeatable=True)
        return reply.decode("utf-8", "replace")

    async def noted_workers(self) -> tuple[int, dict[str, bytes]]:
        """The time at the server, and what workers have told of themselves, by their ids."""
        return await server_ms(self._commands), await noted_workers(self._commands, self.keys)

    async def count(self, states: Sequence[str]) -> list[int]:
        """How many jobs each of these states holds, all at the same instant."""
        counts: list[int] = await self._commands.run(scripts.load("counts"), self._bases, *states, repeatable=True)
        return counts

    async def is_paused(self) -> bool:
        """Whether the queue is paused."""
        return bool(await self._commands.call("HEXISTS", self.keys.meta, "paused", repeatable=True))

    async def find_meta(self, *fields: str) -> list[int | None]:
        """Such settings; None for what isn't set, or is no number that the scripts obey (`setting` in queue.lua)."""
        values: list[bytes | None] = await self._commands.call("HMGET", self.keys.meta, *fields, repeatable=True)
        found = [number_or(value, -1) for value in values]
        return [number if number >= 0 else None for number in found]

    async def rate_limit_ttl_ms(self, most: int | None) -> int:
        """For how long the queue's rate limit is used up, 0: it isn't. `most` is how many jobs it allows; None: the queue's own number."""
        if most is None:
            (most,) = await self.find_meta("max")
        used: bytes | None = await self._commands.call("GET", self.keys.limiter, repeatable=True)
        if used is None or (most is not None and number_or(used, 0) < most):
            return 0
        return max(int(await self._commands.call("PTTL", self.keys.limiter, repeatable=True)), 0)

    async def metrics(self, state: str, start: int, end: int) -> tuple[list[int], list[int]]:
        """Of `completed` or `failed`: (count, time and count at the last full minute), and per minute, the newest first."""
        head: list[bytes | None] = await self._commands.call(
            "HMGET", self.keys.metrics(state), "count", "prevTS", "prevCount", repeatable=True
        )
        data: list[bytes] = await self._commands.call("LRANGE", self.keys.metrics_data(state), start, end, repeatable=True)
        return [number_or(value, 0) for value in head], [number_or(value, 0) for value in data]

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

    async def locked_jobs(self) -> dict[str, str]:
        """For tests: the active jobs whose locks are held, with their tokens."""
        ids: list[bytes] = await self._commands.call("LRANGE", self.keys.state("active"), 0, -1, repeatable=True)
        held: dict[str, str] = {}
        for job_id in map(id_text, ids):
            token: bytes | None = await self._commands.call("GET", self.keys.lock(job_id), repeatable=True)
            if token is not None:
                held[job_id] = token.decode()
        return held


def number_or(text: bytes | None, default: int) -> int:
    """What a number says that anybody may have written; `default` where there is none, or none that a script could use."""
    try:
        number = float(text or b"")
    except ValueError:
        return default
    return int(number) if abs(number) < 2**53 else default


def _pairs(reply: list[bytes]) -> dict[str, bytes]:
    return {id_text(reply[i]): reply[i + 1] for i in range(0, len(reply), 2)}


def _entries(reply: Iterable[Any]) -> list[tuple[str, dict[str, str]]]:
    entries: list[tuple[str, dict[str, str]]] = []
    for entry_id, flat in reply:
        texts = [text.decode("utf-8", "replace") for text in flat]
        entries.append((entry_id.decode(), dict(zip(texts[::2], texts[1::2], strict=True))))
    return entries
