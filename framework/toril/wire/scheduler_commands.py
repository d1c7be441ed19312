"""The operations of the protocol on a queue's job schedulers (wire §3.16).

A scheduler is a rule, a template, and one job that waits for the next time: its *iteration*. Whoever claims that creates the one
that follows, before the handler runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from toril.wire import scripts
from toril.wire.codec import id_text, to_json
from toril.wire.connection import Server
from toril.wire.keys import QueueKeys
from toril.wire.reads import number_or
from toril.wire.refusals import Argument

NAME_TAKEN: Final = -15
LATER: Final = -16
"""What `upsert_scheduler` answers instead; the script tells more of them."""


@dataclass(frozen=True, slots=True)
class Iteration:
    """What all iterations of a scheduler have in common; the script adds what depends on the time."""

    scheduler_id: str
    options: Mapping[str, Any]
    """The template's, in wire names."""
    repeat: Mapping[str, Any]
    """What follows the count in `repeat`, in wire names."""

    @property
    def priority(self) -> int:
        return int(self.options.get("priority", 0))

    @property
    def lifo(self) -> bool:
        return bool(self.options.get("lifo", False))

    @property
    def texts(self) -> tuple[bytes, bytes, bytes]:
        """Head of the options (open, ending in a comma or the brace), the id, and the rest of `repeat`, as the scripts splice them."""
        options = to_json(self.options, "the options of a scheduler")[:-1]
        repeat = to_json(self.repeat, "the rule of a scheduler")[1:-1]
        head = options if options == b"{" else options + b","
        return head, to_json(self.scheduler_id, "the id of a scheduler")[1:-1], b"," + repeat if repeat else b""


@dataclass(frozen=True, slots=True)
class SchedulerUpsert:
    """A scheduler to make or to change. Either `every_ms` or `next_ms` is above 0."""

    scheduler_id: str
    name: str
    data: bytes
    iteration: Iteration
    record: Mapping[str, Argument]
    """Fields of its record, in wire names, without those that the script knows better."""
    every_ms: int = 0
    next_ms: int = 0
    start_ms: int = 0
    offset_ms: int | None = None


@dataclass(frozen=True, slots=True)
class NotedSchedules:
    """What stands in the server about the schedules of one application (wire §11)."""

    version: str | None
    declared: Mapping[str, bytes]
    """The rules of those that it declares, as JSON, by scheduler id; while it reconciles, also those that it declared before."""
    added: Mapping[str, bytes]
    """Those that it has added while it ran."""

    @property
    def is_empty(self) -> bool:
        return self.version is None and not self.declared and not self.added


def iteration_id(scheduler_id: str, due_ms: int) -> str:
    """The id of the job that a scheduler runs at this time."""
    return f"repeat:{scheduler_id}:{due_ms}"


class SchedulerCommands:
    """Holds no state but where to send."""

    def __init__(self, server: Server, keys: QueueKeys) -> None:
        self.keys = keys
        self._commands = server.commands_of(keys)
        self._bases = (keys.base, keys.own)

    async def upsert_scheduler(self, now_ms: int, scheduler: SchedulerUpsert) -> tuple[str, int] | int:
        """Make or change a scheduler; the id of its next iteration and the delay of that, or -10 or -11 if its slots are taken,
        `NAME_TAKEN` if its record would have the name of another one's run, `LATER` if its pattern's next time is taken, and another may
        not be."""
        head, quoted_id, rest = scheduler.iteration.texts
        fields: list[Argument] = []
        for name, value in scheduler.record.items():
            fields += (name, value)
        reply = await self._commands.run(
            scripts.load("upsert_scheduler"), self._bases, now_ms, scheduler.scheduler_id, scheduler.every_ms, scheduler.next_ms,
            scheduler.start_ms, "" if scheduler.offset_ms is None else scheduler.offset_ms, scheduler.name, scheduler.data,
            scheduler.iteration.priority, head, quoted_id, rest, int(scheduler.iteration.lifo), *fields,
        )  # fmt: skip
        return reply if isinstance(reply, int) else (id_text(reply[0]), reply[1])

    async def next_iteration(
        self, now_ms: int, scheduler_id: str, job_id: str, next_ms: int, count: int, iteration: Iteration
    ) -> str | None:
        """Add the iteration that follows the one that was claimed; its id, or "" if another worker did it, or nothing follows; None: at
        `next_ms` it can't run, nor, for an interval, at the times that follow."""
        head, quoted_id, rest = iteration.texts
        reply: bytes | int = await self._commands.run(
            scripts.load("next_iteration"), self._bases, now_ms, scheduler_id, job_id, next_ms, count, iteration.priority,
            head, quoted_id, rest, int(iteration.lifo), repeatable=True,
        )  # fmt: skip
        return None if isinstance(reply, int) else id_text(reply)

    async def remove_scheduler(self, scheduler_id: str) -> bool:
        """End a scheduler; whether there was one."""
        return bool(await self._commands.run(scripts.load("remove_scheduler"), self._bases, scheduler_id))

    async def scheduler_ids(self, start: int, end: int, *, ascending: bool) -> list[tuple[str, int]]:
        """Schedulers with the time of their current iteration, by that time."""
        command = "ZRANGE" if ascending else "ZREVRANGE"
        reply: list[bytes] = await self._commands.call(command, self.keys.schedulers, start, end, "WITHSCORES", repeatable=True)
        return [(id_text(reply[i]), number_or(reply[i + 1], 0)) for i in range(0, len(reply), 2)]

    async def count_schedulers(self) -> int:
        """How many schedulers there are."""
        return int(await self._commands.call("ZCARD", self.keys.schedulers, repeatable=True))

    async def scheduler_record(self, scheduler_id: str) -> dict[str, bytes]:
        """A scheduler's record by the names of wire §3.16.1; empty if there is none."""
        reply: list[bytes] = await self._commands.call("HGETALL", self.keys.scheduler(scheduler_id), repeatable=True)
        return {reply[i].decode("utf-8", "replace"): reply[i + 1] for i in range(0, len(reply), 2)}

    async def scheduler_time(self, scheduler_id: str) -> int | None:
        """When a scheduler's current iteration is due; None if there is no such scheduler."""
        score: bytes | None = await self._commands.call("ZSCORE", self.keys.schedulers, scheduler_id, repeatable=True)
        return None if score is None else number_or(score, 0)

    # ── those that are paused ─────────────────────────────────────────────────────────────────────────────────────

    async def note_paused(self, scheduler_id: str, record: bytes) -> None:
        """Keep the record of a scheduler that is paused, as JSON."""
        await self._commands.call("HSET", self.keys.paused_schedulers, scheduler_id, record, repeatable=True)

    async def forget_paused(self, scheduler_id: str) -> bool:
        """Forget that it was paused; whether that was noted."""
        return bool(await self._commands.call("HDEL", self.keys.paused_schedulers, scheduler_id, repeatable=True))

    async def is_noted_paused(self, scheduler_id: str) -> bool:
        """Whether a record is kept of it."""
        return bool(await self._commands.call("HEXISTS", self.keys.paused_schedulers, scheduler_id, repeatable=True))

    async def noted_paused(self) -> dict[str, bytes]:
        """All records that are kept, by scheduler id."""
        reply: list[bytes] = await self._commands.call("HGETALL", self.keys.paused_schedulers, repeatable=True)
        return {id_text(reply[i]): reply[i + 1] for i in range(0, len(reply), 2)}

    # ── what an application declares ──────────────────────────────────────────────────────────────────────────────

    async def noted_schedules(self, owner: str) -> NotedSchedules:
        """What is noted about an application's schedules."""
        reply: list[bytes] = await self._commands.call("HGETALL", self.keys.schedules(owner), repeatable=True)
        fields = {reply[i].decode(): reply[i + 1] for i in range(0, len(reply), 2)}
        version = fields.get("version")
        return NotedSchedules(None if version is None else version.decode(), _family(fields, "declared:"), _family(fields, "added:"))

    async def declare_schedules(
        self, owner: str, now_ms: int, *, token: str, until_ms: int, judged_by: str, version: str, rules: Mapping[str, bytes]
    ) -> int:
        """Begin to reconcile: 1 begun, 0 another one is under way, -1 the version is no longer the one that was judged by."""
        pairs = [text for pair in rules.items() for text in pair]
        script = scripts.load("declare_schedules")
        key = self.keys.schedules(owner)
        code: int = await self._commands.run(script, [key], now_ms, token, until_ms, judged_by, version, *pairs, repeatable=True)
        return code

    async def settle_schedules(self, owner: str, token: str, vanished: Iterable[str]) -> bool:
        """End it; False if another one has begun meanwhile."""
        script = scripts.load("settle_schedules")
        return bool(await self._commands.run(script, [self.keys.schedules(owner)], token, *vanished, repeatable=True))

    async def note_added(self, owner: str, scheduler_id: str, rule: bytes) -> None:
        """Note a schedule that the application adds while it runs."""
        await self._commands.call("HSET", self.keys.schedules(owner), f"added:{scheduler_id}", rule, repeatable=True)

    async def forget_schedule(self, owner: str, scheduler_id: str) -> None:
        """Note nothing about a schedule any more."""
        fields = (f"added:{scheduler_id}", f"declared:{scheduler_id}")
        await self._commands.call("HDEL", self.keys.schedules(owner), *fields, repeatable=True)


def _family(fields: Mapping[str, bytes], prefix: str) -> dict[str, bytes]:
    return {name.removeprefix(prefix): value for name, value in fields.items() if name.startswith(prefix)}
