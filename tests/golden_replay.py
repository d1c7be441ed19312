"""Replays the golden dumps: what the released Node library left in the server after each step of a scenario.

A dump tells every key (of the prefix `bull`) after a step, and the events that the step wrote. `Replay.load` puts the keys of
one step into the server, under the test's own prefix; then the test does what the next step did, with the dump's clock; then
`Replay.differences` tells what isn't as it was with Node, by the rules of `tests.comparison`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.comparison import event_differences, key_differences
from tests.snapshot import Events, Keys, read_all
from toril.wire.commands import QueueCommands
from toril.wire.connection import Server
from toril.wire.endings import Ending
from toril.wire.jobs import FlowNode, NewJob
from toril.wire.keys import QueueKeys
from toril.wire.scripts import load as load_script
from toril.wire.turns import TurnReply, TurnRequest

GOLDEN: Final = Path(__file__).parent / "golden"

T0: Final = 1_700_000_000_000

_TTL_TOLERANCE_MS: Final = 1_500


@dataclass(frozen=True, slots=True)
class GoldenStep:
    """One step of a scenario, and the keys as they were before it."""

    scenario: str
    number: int
    title: str
    clock: int
    keys: Keys
    events: Events
    before: Keys


@cache
def scenario(name: str) -> tuple[GoldenStep, ...]:
    """All steps of one file."""
    content = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    steps: list[GoldenStep] = []
    before: Keys = {}
    for step in content["steps"]:
        steps.append(GoldenStep(name, step["step"], step["title"], step["clock"], step["keys"], step["new_events"], before))
        before = step["keys"]
    return tuple(steps)


@cache
def scenarios() -> tuple[str, ...]:
    """The names of all files."""
    return tuple(sorted(path.stem for path in GOLDEN.glob("*.json")))


@dataclass
class Replay:
    """The server as one step finds it, and the operations of the library in terms of the dump."""

    server: Server
    prefix: str
    step: GoldenStep
    _seen_events: dict[str, int] = field(default_factory=dict[str, int])

    # ── the server's keys ─────────────────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Write the keys that the step starts from."""
        for key, content in self.step.before.items():
            name, value = self._ours(key), content.get("value", [])
            match content["type"]:
                case "string":
                    await self.raw("SET", name, self._ours(value))
                case "list":
                    await self.raw("RPUSH", name, *map(self._ours, value))
                case "set":
                    await self.raw("SADD", name, *map(self._ours, value))
                case "zset":
                    await self.raw("ZADD", name, *(self._ours(part) for member, score in value for part in (score, member)))
                case "hash":
                    await self.raw("HSET", name, *(self._ours(part) for pair in value.items() for part in pair))
                case _:
                    continue  # a stream: only what a step adds is compared
            if "ttl" in content:
                await self.raw("PEXPIRE", name, content["ttl"])

    async def differences(self) -> list[str]:
        """What the server holds now, and what the step wrote, against the dump."""
        found, all_events = await read_all(self.server, self.prefix)
        events = {key: entries[self._seen_events.get(key, 0) :] for key, entries in all_events.items()}
        self._seen_events = {key: len(entries) for key, entries in all_events.items()}
        return key_differences(found, self.step.keys, _TTL_TOLERANCE_MS) + event_differences(events, self.step.events)

    async def raw(self, *args: str | int) -> Any:  # noqa: ANN401 -- a reply has the type that the command gives it
        """A plain command, for what the library has no operation for (a lock that expires)."""
        return await self.server.commands.call(*args)

    # ── operations ────────────────────────────────────────────────────────────────────────────────────────────

    def queue(self, name: str = "q") -> QueueCommands:
        return QueueCommands(self.server, QueueKeys(self.prefix, name))

    def job(self, job_id: str, queue: str = "q") -> NewJob:
        """The job as the dump has it after the step."""
        value = self.step.keys[f"bull:{queue}:{job_id}"]["value"]
        own_id = "" if job_id.isdigit() else job_id
        parent_key, parent, opts = (self._ours(value.get(field, "")) for field in ("parentKey", "parent", "opts"))
        return new_job(value["name"], value["data"], opts, int(value["timestamp"]), own_id, parent_key, parent)

    async def add_flow(self, parent: NewJob, *children: NewJob) -> list[str | None]:
        """Add a parent of the queue `pq` and its children of the queue `cq`."""
        bases = {queue: self.queue(queue).keys.base for queue in ("pq", "cq")}
        nodes = [
            FlowNode(bases["pq"], parent, has_children=True),
            *(FlowNode(bases["cq"], child, has_children=False) for child in children),
        ]
        return await self.queue("pq").add_flow(nodes, self.step.clock)

    async def add(self, *job_ids: str, queue: str = "q") -> None:
        """Add jobs of the dump in one call; those with a number for id are numbered by the server."""
        added = await self.queue(queue).add([self.job(job_id, queue) for job_id in job_ids])
        assert [one.job_id for one in added] == list(job_ids)

    async def add_new(self, job_id: str, name: str, data: str, opts: str, now: int | None = None) -> None:
        """Add a job that is gone again, or changed, by the end of the step."""
        now = self.step.clock if now is None else now
        (added,) = await self.queue().add([new_job(name, data, opts, now, "")])
        assert added.job_id == job_id

    async def turn(
        self,
        queue: str = "q",
        now: int | None = None,
        *,
        token: str = "tok",
        endings: Sequence[Ending] = (),
        claims: int = 0,
        worker_name: str = "",
        limit: tuple[int, int] = (0, 0),
        metrics_points: int = 0,
    ) -> TurnReply:
        """One turn, at the step's clock if not told otherwise."""
        request = TurnRequest(
            self.step.clock if now is None else now,
            token,
            lock_ms=30_000,
            endings=endings,
            claims=claims,
            worker_name=worker_name,
            limit_max=limit[0],
            limit_ms=limit[1],
            metrics_points=metrics_points,
        )
        return await self.queue(queue).turn(self.server.commands, request)

    async def claim(self, job_id: str, token: str, *, queue: str = "q", now: int | None = None, worker: str = "") -> None:
        """Claim one job, which must be this one."""
        reply = await self.turn(queue, now, token=token, claims=1, worker_name=worker)
        assert [(held, record.job_id) for held, record in reply.claimed] == [(token, job_id)]

    async def end(self, ending: Ending, *, queue: str = "q", now: int | None = None, code: int = 0, metrics_points: int = 0) -> None:
        """End one job, without a claim; `code` is what the script must answer."""
        assert (await self.turn(queue, now, endings=[ending], metrics_points=metrics_points)).codes == [code]

    async def claim_nothing(self, queue: str = "q") -> TurnReply:
        reply = await self.turn(queue, claims=1)
        assert list(reply.claimed) == []
        return reply

    async def renew(self, job_id: str, token: str) -> None:
        keys = QueueKeys(self.prefix, "q")
        lost = await self.server.commands.run(load_script("renew_locks"), [keys.base, keys.own], 30_000, job_id, token)
        assert lost == []

    # ── inside ────────────────────────────────────────────────────────────────────────────────────────────────

    def _ours(self, text: str) -> str:
        return text.replace("bull:", f"{self.prefix}:")


def new_job(name: str, data: str, opts: str, timestamp_ms: int, job_id: str, parent_key: str = "", parent: str = "") -> NewJob:
    """A job whose place follows from its options."""
    options = json.loads(opts)
    return NewJob(
        name,
        data.encode(),
        opts.encode(),
        timestamp_ms,
        options.get("delay", 0),
        options.get("priority", 0),
        options.get("lifo", False),
        job_id,
        json.dumps(options["de"]).encode() if "de" in options else b"",
        parent_key,
        parent.encode(),
    )
