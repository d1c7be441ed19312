"""One typed method for each script, and for each plain command on a queue's keys.

Everything that goes in or comes out is in our own words; the scripts and the replies' layout are known only here.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from typing import Final

from toril.errors import QueueBusyError
from toril.wire import replies, scripts
from toril.wire.add_commands import AddCommands
from toril.wire.codec import claimed_record, id_text
from toril.wire.connection import Connection, Server
from toril.wire.job_commands import JobCommands
from toril.wire.keys import QueueKeys
from toril.wire.reads import LIST_STATES, READ_BATCH
from toril.wire.refusals import Argument
from toril.wire.turns import ClaimState, StalledReply, TurnReply, TurnRequest

NO_DETAILS: Final[Mapping[int, int | bytes]] = {}

MOVE_BATCH: Final = 1_000
CLEAN_BATCH: Final = 1_000
"""How many jobs one call moves or removes: a few ms of the server's time."""

LIST_PAGE: Final = 10_000
"""How many ids of a list are read at once."""


class QueueCommands(AddCommands, JobCommands):
    """The operations of the protocol on one queue."""

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
        codes, state, value, wait_position, prioritized_position, rows, details, dropped = replies.checked(
            await connection.run(scripts.load("turn"), self._bases, *args)
        )
        return TurnReply(
            codes,
            dict(zip(details[::2], details[1::2], strict=True)) if details else NO_DETAILS,
            [(row[1].decode(), claimed_record(row, request.now_ms)) for row in rows],
            ClaimState(state),
            value if isinstance(value, int) else 0,
            (wait_position, prioritized_position),
            "" if isinstance(value, int) else value.decode("utf-8", "replace"),
            dropped[0],
            [id_text(job_id) for job_id in dropped[1:]],
        )

    async def sweep_stalled(self, now_ms: int, interval_ms: int, max_stalled_count: int) -> StalledReply:
        """Put back the jobs whose worker is gone (wire §3.9)."""
        wait_ms, recovered, cancelled, dropped = await self._commands.run(
            scripts.load("sweep_stalled"), self._bases, now_ms, interval_ms, max_stalled_count, repeatable=True
        )
        return StalledReply(list(map(id_text, recovered)), list(map(id_text, cancelled)), list(map(id_text, dropped)), wait_ms)

    async def end_cancelled(self, job_id: str, now_ms: int, keep: str, metrics_points: int) -> str | None:
        """Fail a cancelled job whose worker is gone: the reason for it; None if it has ended or its worker lives, and nothing happened."""
        reply = await self._ask_job("end_cancelled", job_id, now_ms, keep, metrics_points)
        return str(reply, "utf-8") if reply else None

    async def wait_for_marker(self, connection: Connection, block_ms: int) -> int | None:
        """Sleep until somebody rings: the due time (ms) the marker tells, 0 for "now", None after `block_ms`."""
        reply = await connection.call("BZPOPMIN", self.keys.marker, block_ms / 1_000, block_ms=block_ms)
        return None if reply is None else _marker_ms(reply[2])

    async def ring(self, marker: int) -> None:
        """Write a marker that was taken in vain once more, so that another worker hears of it (wire §3.0 WAKE)."""
        member = "1" if marker else "0"
        await self._commands.call("ZADD", self.keys.marker, marker, member, repeatable=True)

    # ── the queue ─────────────────────────────────────────────────────────────────────────────────────────────

    async def trim_events(self, count: int) -> int:
        """Cut the events stream to about so many; how many went."""
        return int(await self._commands.call("XTRIM", self.keys.events, "MAXLEN", "~", count, repeatable=True))

    async def publish_event(self, name: str, fields: Mapping[str, str], max_events: int) -> str:
        """Write an event of somebody's own; its id in the stream."""
        pairs: list[Argument] = [part for pair in fields.items() for part in pair]
        reply: bytes = await self._commands.call("XADD", self.keys.events, "MAXLEN", "~", max_events, "*", "event", name, *pairs)
        return reply.decode()

    async def drop_deduplication(self, deduplication_id: str) -> bool:
        """Let the next job of this deduplication id in; whether there was one that kept it out."""
        return bool(await self._commands.call("DEL", self.keys.deduplication(deduplication_id), repeatable=True))

    async def pause(self) -> None:
        """Stop all claiming from the queue."""
        await self._commands.run(scripts.load("pause"), self._bases, repeatable=True)

    async def resume(self) -> None:
        """Let jobs be claimed again."""
        while await self._commands.run(scripts.load("resume"), self._bases, repeatable=True):
            pass  # a long list of an old version is merged in parts

    async def set_meta(self, fields: Mapping[str, int]) -> None:
        """Write settings of the queue that all workers obey: `concurrency`, or `max` and `duration` together (wire §1.3)."""
        pairs: list[Argument] = [part for pair in fields.items() for part in pair]
        await self._commands.call("HSET", self.keys.meta, *pairs, repeatable=True)

    async def drop_meta(self, *fields: str) -> None:
        """Take such settings away."""
        await self._commands.call("HDEL", self.keys.meta, *fields, repeatable=True)

    async def limit_rate(self, duration_ms: int) -> None:
        """Let nobody who has a rate limit claim for so long (wire §3.14)."""
        await self._commands.call("SET", self.keys.limiter, 2**53 - 1, "PX", duration_ms, repeatable=True)

    async def drop_rate_limit(self) -> None:
        """Forget how much of the rate limit is used up."""
        await self._commands.call("DEL", self.keys.limiter, repeatable=True)

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

    async def drain(self, *, delayed: bool) -> int:
        """Remove all jobs that wait, with the delayed ones if asked; how many (wire §3.12)."""
        removed = 0
        for state in ("wait", "paused", *(("delayed",) if delayed else ()), "prioritized"):  # the order in which parents run then
            passed = 0
            while passed >= 0:
                count, passed = await self._commands.run(scripts.load("drain"), self._bases, state, CLEAN_BATCH, passed)
                removed += count
        return removed

    async def obliterate(self, *, force: bool) -> None:
        """Remove a paused queue with all that belongs to it, our own keys too (wire §3.12).

        Raises:
            QueueBusyError: it isn't paused, or jobs run and `force` is False.
        """
        while code := await self._commands.run(scripts.load("obliterate"), self._bases, CLEAN_BATCH, int(force), repeatable=True):
            if code < 0:
                raise QueueBusyError(self.keys.queue, "it isn't paused" if code == -1 else "jobs are running")
        await remove_keys(self._commands, below(self.keys.own))

    async def remove_orphans(self) -> int:
        """Remove jobs that are in no collection; how many (wire §3.12).

        Most jobs wait in a list, where the server would have to look each of them up by walking through it. So what is in the lists
        is noted here beforehand, and only the others are sent; the script has the last word.
        """
        listed: set[bytes] = set()
        for state in LIST_STATES:
            start = 0
            while page := await self._commands.call("LRANGE", self.keys.state(state), start, start + LIST_PAGE - 1, repeatable=True):
                listed.update(page)
                start += LIST_PAGE
        removed, base = 0, len(self.keys.base.encode())
        async for keys in pages_of_keys(self._commands, below(self.keys.base)):
            ids = [key[base:] for key in keys if key[base:] not in listed]
            for at in range(0, len(ids), READ_BATCH):
                batch = ids[at : at + READ_BATCH]
                removed += await self._commands.run(scripts.load("remove_orphans"), self._bases, *batch, repeatable=True)
        return removed


async def next_due_ms(server: Server, keys: QueueKeys, now_ms: int) -> int | None:
    """For tests: when the queue's next delayed job is due or its rate limit is over, after now; None if nothing is delayed or limited."""
    reply = await server.commands_of(keys).call(
        "ZRANGE", keys.state("delayed"), (now_ms + 1) * 4096, "+inf", "BYSCORE", "LIMIT", 0, 1, "WITHSCORES", repeatable=True
    )
    times = [int(float(reply[1])) // 4096] if reply else []
    limited_ms: int = await server.commands_of(keys).call("PTTL", keys.limiter, repeatable=True)
    if limited_ms > 0:
        times.append(now_ms + limited_ms)
    return min(times, default=None)


async def pages_of_keys(connection: Connection, pattern: str) -> AsyncGenerator[list[bytes]]:
    """The names of all keys that match, page by page; one may come twice."""
    cursor: bytes | str = "0"
    while True:
        cursor, keys = await connection.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1_000, repeatable=True)
        if keys:
            yield keys
        if cursor == b"0":
            return


async def remove_keys(connection: Connection, pattern: str) -> None:
    """Remove all keys whose names match, page by page."""
    async for keys in pages_of_keys(connection, pattern):
        await connection.call("UNLINK", *keys, repeatable=True)


def below(base: str) -> str:
    """The pattern of all keys that begin with `base`, whatever that holds."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", base) + "*"


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
