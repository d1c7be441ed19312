"""Replays the golden dumps: what the released Node library left in the server after each step of a scenario.

A dump tells every key (of the prefix `bull`) after a step, and the events that the step wrote. `Replay.load` puts the keys of
one step into the server, under the test's own prefix; then the test does what the next step did, with the dump's clock; then
`Replay.differences` tells what isn't as it was with Node, by the rules of the wire specification, §10:

    opts, parent, data, returnvalue, progress   as parsed JSON
    stacktrace                                  how many stacks
    ttl                                         within 1.5 s
    marker                                      scores without their fraction
    sets                                        without order
    meta.version, length of the stream          not at all
    everything else                             byte for byte, and no key more or less
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.snapshot import Events, Keys, read_all, show
from toril.wire.commands import QueueCommands
from toril.wire.connection import Server
from toril.wire.endings import Ending
from toril.wire.jobs import FlowNode, NewJob
from toril.wire.keys import QueueKeys
from toril.wire.scripts import load as load_script
from toril.wire.turns import TurnReply, TurnRequest

GOLDEN: Final = Path(__file__).parent / "golden"

T0: Final = 1_700_000_000_000

_JSON_FIELDS: Final = frozenset({"opts", "parent", "data", "returnvalue", "progress"})
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
        wanted = {key: value for key, value in self.step.keys.items() if value["type"] != "stream"}
        problems = [f"{key}: missing, Node has {wanted[key]}" for key in wanted.keys() - found.keys()]
        problems += [f"{key}: not there with Node: {found[key]}" for key in found.keys() - wanted.keys()]
        for key in wanted.keys() & found.keys():
            problems += _compare(key, wanted[key], found[key])
        events = {key: new for key, entries in all_events.items() if (new := entries[self._seen_events.get(key, 0) :])}
        self._seen_events = {key: len(entries) for key, entries in all_events.items()}
        wanted_events = {key: value for key, value in self.step.events.items() if value}
        if events != wanted_events:
            problems.append("events:\n    ours " + _show(events) + "\n    Node " + _show(wanted_events))
        return sorted(problems)

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
        added = await self.queue(queue).add([self.job(job_id, queue) for job_id in job_ids], self.step.clock)
        assert [one.job_id for one in added] == list(job_ids)

    async def add_new(self, job_id: str, name: str, data: str, opts: str, now: int | None = None) -> None:
        """Add a job that is gone again, or changed, by the end of the step."""
        now = self.step.clock if now is None else now
        (added,) = await self.queue().add([new_job(name, data, opts, now, "")], now)
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


def _compare(key: str, wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    problems: list[str] = []
    if ("ttl" in wanted) != ("ttl" in found) or abs(wanted.get("ttl", 0) - found.get("ttl", 0)) > _TTL_TOLERANCE_MS:
        problems.append(f"{key}: ttl {found.get('ttl')}, Node has {wanted.get('ttl')}")
    if wanted["type"] != found["type"]:
        return [*problems, f"{key}: {found['type']}, Node has {wanted['type']}"]
    ours, theirs = found["value"], wanted["value"]
    if wanted["type"] == "hash":
        ours, theirs = _comparable(key, ours), _comparable(key, theirs)
        return problems + [
            f"{key}.{name}: {ours.get(name)!r}, Node has {theirs.get(name)!r}"
            for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name) != theirs.get(name)
        ]
    if key.endswith(":marker"):
        ours, theirs = ([[member, int(float(score))] for member, score in value] for value in (ours, theirs))
    elif wanted["type"] == "set":
        theirs = sorted(theirs)
    return problems if ours == theirs else [*problems, f"{key}: {ours}, Node has {theirs}"]


def _comparable(key: str, value: dict[str, str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, text in value.items():
        if name in _JSON_FIELDS:
            result[name] = json.loads(text)
        elif name == "stacktrace":
            result[name] = len(json.loads(text))
        elif not (name == "version" and key.endswith(":meta")):
            result[name] = text
    return result


def _show(events: Events) -> str:
    return " | ".join(
        f"{key.removeprefix('bull:').removesuffix(':events')} {show(entry)}" for key in sorted(events) for entry in events[key]
    )
