"""One typed method for each script, and for each plain command on a queue's keys.

Everything that goes in or comes out is in our own words; the scripts and the replies' layout are known only here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from toril.wire import replies, scripts
from toril.wire.add_commands import AddCommands
from toril.wire.bulk_commands import BulkCommands
from toril.wire.codec import claimed_record, id_text
from toril.wire.connection import Connection, Server
from toril.wire.keys import QueueKeys
from toril.wire.refusals import Argument
from toril.wire.turns import ClaimState, StalledReply, TurnReply, TurnRequest

NO_DETAILS: Final[Mapping[int, int | bytes]] = {}


class QueueCommands(AddCommands, BulkCommands):
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
