"""One queue of a test, with short words for what the wire layer does and for what the server holds afterwards."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.snapshot import Keys, read_all, show
from toril.errors import TorilError
from toril.wire import endings
from toril.wire.commands import QueueCommands
from toril.wire.connection import Server
from toril.wire.endings import Ending
from toril.wire.jobs import NewJob
from toril.wire.keys import QueueKeys
from toril.wire.refusals import Argument
from toril.wire.turns import TurnReply, TurnRequest

T0: Final = 1_700_000_000_000

STACK: Final = b'["stack"]'


def done(job_id: str, token: str = "t", keep: str = "") -> Ending:
    """The job completed with `1`."""
    return endings.completed(job_id, token, b"1", keep)


def gone_wrong(job_id: str, token: str = "t", keep: str = "") -> Ending:
    """The job failed for good."""
    return endings.failed(job_id, token, "boom", STACK, keep, 0)


async def error_of(call: Awaitable[object]) -> BaseException | None:
    """What a call raises, of the errors of this library."""
    try:
        await call
    except TorilError as error:
        return error
    return None


@dataclass
class Bench:
    """A queue, and the time that its calls give (`now`), which only the test moves."""

    server: Server
    prefix: str
    queue: str = "q"
    now: int = T0
    commands: QueueCommands = field(init=False)
    keys: QueueKeys = field(init=False)

    def __post_init__(self) -> None:
        self.keys = QueueKeys(self.prefix, self.queue)
        self.commands = QueueCommands(self.server, self.keys)

    def key(self, suffix: str) -> str:
        return self.keys.base + suffix

    async def raw(self, *args: Argument) -> Any:  # noqa: ANN401 -- a reply has the type that the command gives it
        """A plain command."""
        return await self.server.commands.call(*args)

    # ── what is done ──────────────────────────────────────────────────────────────────────────────────────────

    async def add(
        self,
        count: int = 1,
        *,
        name: str = "n",
        delay: int = 0,
        priority: int = 0,
        lifo: bool = False,
        job_id: str = "",
    ) -> list[str]:
        """Add jobs that are all alike; their ids."""
        opts = json.dumps({"attempts": 0, "delay": delay, "priority": priority}).encode()
        job = NewJob(name, b"{}", opts, self.now, delay, priority, lifo, job_id)
        return [one.job_id for one in await self.commands.add([job] * count)]

    async def add_child(self, job_id: str, parent: str, parent_queue: str = "pq", **flags: bool) -> None:
        """Add a job, and tie it to a parent that exists, as FlowProducer does (wire §3.13)."""
        queue_key = f"{self.prefix}:{parent_queue}"
        await self.add(job_id=job_id)
        parent_json = json.dumps({"id": parent, "queueKey": queue_key} | flags)
        await self.raw("HSET", self.key(job_id), "parentKey", f"{queue_key}:{parent}", "parent", parent_json)
        await self.raw("SADD", f"{queue_key}:{parent}:dependencies", self.key(job_id))

    async def add_parent(self, job_id: str, queue: str = "pq", delay: int = 0, priority: int = 0) -> None:
        """Write a job that waits for children, as FlowProducer does (wire §3.1.5)."""
        base = f"{self.prefix}:{queue}:"
        values = ("name", "parent", "data", "{}", "opts", "{}", "timestamp", self.now, "delay", delay, "priority", priority)
        await self.raw("HSET", base + job_id, *values)
        await self.raw("ZADD", f"{base}waiting-children", self.now, job_id)

    async def turn(
        self,
        *endings: Ending,
        claims: int = 0,
        token: str = "t",
        lock_ms: int = 30_000,
        lane: str = "",
        sequence: int = 0,
        worker_name: str = "",
        free: Sequence[tuple[str, int]] = (),
        positions: tuple[int, int] = (0, 0),
        limit: tuple[int, int] = (0, 0),
    ) -> TurnReply:
        """One turn."""
        request = TurnRequest(
            self.now, token, lock_ms, lane, sequence, endings, claims, worker_name, free, positions, limit[0], limit[1]
        )  # fmt: skip
        return await self.commands.turn(self.server.commands, request)

    async def claim(self, count: int = 1, *, token: str = "t", free: Sequence[tuple[str, int]] = ()) -> list[str]:
        """Claim jobs; their ids."""
        return ids(await self.turn(claims=count, token=token, free=free))

    async def sweep(self) -> list[str]:
        """Look for stalled jobs, as if the last time were long ago; the ids that were put back."""
        await self.raw("DEL", self.keys.stalled_check)
        return list((await self.commands.sweep_stalled(self.now, 30_000, 1)).recovered)

    # ── what there is ─────────────────────────────────────────────────────────────────────────────────────────

    async def hash(self, job_id: str) -> dict[str, str]:
        """The fields of a job's hash."""
        flat: list[bytes] = await self.raw("HGETALL", self.key(job_id))
        return {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}

    async def members(self, state: str) -> list[str]:
        """The ids of a collection: of a list from its head, of a sorted set from its lowest score."""
        is_list = (await self.raw("TYPE", self.key(state))) == b"list"
        return [member.decode() for member in await self.raw("LRANGE" if is_list else "ZRANGE", self.key(state), 0, -1)]

    async def marker(self) -> list[str]:
        """The members of the marker."""
        return await self.members("marker")

    async def events(self) -> list[str]:
        """All events so far, as `waiting 7 prev=active`."""
        _, events = await read_all(self.server, self.prefix)
        return [show(entry) for entry in events.get(f"bull:{self.queue}:events", [])]

    async def new_events(self) -> list[str]:
        """The events since the last time, and forget them."""
        events = await self.events()
        await self.raw("DEL", self.key("events"))
        return events

    async def everything(self) -> Keys:
        """All keys but the streams."""
        keys, _ = await read_all(self.server, self.prefix)
        return keys


def ids(reply: TurnReply) -> list[str]:
    """The claimed jobs' ids."""
    return [record.job_id for _, record in reply.claimed]


def tokens(reply: TurnReply) -> list[str]:
    """The claimed jobs' lock tokens."""
    return [token for token, _ in reply.claimed]
