"""The real BullMQ and Toril do the same, each on its own prefix of one server; after each step both must hold the same.

          ┌─► differential.mjs  ─► prefix "…n:" ─┐
    step ─┤                                      ├─► the same keys, the same events, the same answer
          └─► toril_side.py     ─► prefix "…t:" ─┘

What may differ is told in `ALLOWED`, and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from tests.comparison import event_differences, key_differences
from tests.interop.peer import NodePeer
from tests.interop.spelling import Json
from tests.interop.toril_side import TorilSide
from tests.snapshot import Events, Keys, delete_all, read_all
from toril.wire.connection import Server
from toril.wire.line import Argument

T0: Final = 1_700_000_000_000

TTL_TOLERANCE_MS: Final = 60_000
"""Times to live are of an hour or more; a step takes milliseconds."""

ALLOWED: Final = {
    "put back, prioritized": (
        "A prioritized job that is put back rings for the other workers (wire §11). Node leaves that out, so a job that was put back by "
        "a worker that stops would lie there until somebody looks."
    ),
    "obliterated": (
        "`obliterate` leaves nothing behind. Node leaves the rate limit's counter, and the jobs that wait for children (these are "
        "removed by hand before it, on both sides)."
    ),
    "no parent to drop": (
        "Taking a job that has no parent away from its parent is answered with False. Node raises an error that names a parent `undefined`."
    ),
    "a scheduler without a run": (
        "A rule that has no run before its end is refused with an error. Node writes nothing, as we do, but answers as if it were done."
    ),
}
"""Each way in which Toril deliberately leaves something else behind than Node, and why."""


NOT_TRIED: Final = {
    "upsert while paused": (
        "Changing a scheduler of a paused queue replaces its waiting iteration. Node looks for that in the list `paused` of old versions, "
        "so the old one stays beside the new one."
    ),
    "drain with iterations": (
        "`drain` leaves a scheduler's waiting iteration in its place. Node can keep another job's id instead, whose hash is gone."
    ),
}
"""What Node does wrong in a way that can't be undone afterwards: such steps are left out."""


class Difference(AssertionError):
    """The two sides differ after a step."""


@dataclass
class World:
    """Both sides, what they hold, and how much was compared."""

    server: Server
    node: NodePeer
    ours: TorilSide
    prefixes: tuple[str, str]
    """Node's, and ours."""
    steps: int = 0
    """How often the two key spaces were held against each other."""
    keys: Keys = field(default_factory=dict[str, dict[str, Any]])
    events: Events = field(default_factory=dict[str, list[list[list[str]]]])
    counted: Counter[str] = field(default_factory=Counter[str])
    """How often each operation was compared."""
    allowed: Counter[str] = field(default_factory=Counter[str])
    """How often each allowed difference was met."""

    @property
    def operations(self) -> int:
        """How many operations were compared; a batch counts as its parts."""
        return self.counted.total()

    def told(self) -> str:
        """All that was compared, in a line."""
        each = ", ".join(f"{count} {name}" for name, count in self.counted.most_common())
        allowed = ", ".join(f"{count} {name!r}" for name, count in self.allowed.most_common()) or "none"
        return f"{self.steps:,} steps, {self.operations:,} operations: {each}; allowed differences: {allowed}"

    async def reset(self) -> None:
        """Forget everything."""
        for prefix in self.prefixes:
            await delete_all(self.server, prefix)
        await self.both("reset", 0)
        self.keys, self.events = {}, {}

    async def both(self, operation: str, now: int, **args: Json) -> tuple[dict[str, Any], dict[str, Any]]:
        """Let both sides do it; Node's answer, and ours."""
        node, ours = await asyncio.gather(self.node.ask(operation, now=now, **args), self.ours.ask(operation, now, **args))
        return node, ours

    async def step(self, operation: str, now: int, **args: Json) -> dict[str, Any]:
        """Do it on both sides, and compare; the answer. Raises Difference."""
        before = self.events
        node, ours = await self.both(operation, now, **args)
        told = f"{operation} at T0+{now - T0} with {args}"
        await self.compare(told, before, operation, args)
        if operation == "drop_child_link" and node == {"error": -5} and ours == {"value": False}:
            self.allowed["no parent to drop"] += 1
        elif operation == "upsert_scheduler" and node == {"value": None} and str(ours.get("error")).startswith("invalid:"):
            self.allowed["a scheduler without a run"] += 1
        elif (difference := _answers_differ(node, ours)) is not None:
            raise Difference(f"{told}\n  {difference}")
        self.counted[operation] += max(1, len(args.get("endings", ())) + len(args.get("claims", ())))
        return ours

    async def raw(self, *command: Argument, key: str) -> None:
        """A plain command on a key of both prefixes: its name goes after the first word."""
        name, *rest = command
        for prefix in self.prefixes:
            await self.server.commands.call(name, f"{prefix}:{key}", *rest)
        await self.compare(f"{command} on {key}", self.events, "raw", {})

    async def compare(self, told: str, before: Events, operation: str, args: dict[str, Any]) -> None:
        """Read both key spaces, and hold them against each other. Raises Difference."""
        node_keys, node_events = await read_all(self.server, self.prefixes[0])
        self.keys, self.events = await read_all(self.server, self.prefixes[1])
        await self._allow(operation, args, node_keys)
        problems = key_differences(self.keys, node_keys, TTL_TOLERANCE_MS)
        if node_events != self.events:
            problems += event_differences(_since(self.events, before), _since(node_events, before))
        self.steps += 1
        if problems:
            raise Difference("\n  ".join([told, *problems]))

    async def _allow(self, operation: str, args: dict[str, Any], node_keys: Keys) -> None:
        """Bring Node's side in line where a difference is allowed."""
        if operation == "obliterate":
            limiter = f"bull:{args['queue']}:limiter"
            if limiter in node_keys and limiter not in self.keys:
                del node_keys[limiter]
                await self.server.commands.call("DEL", limiter.replace("bull:", f"{self.prefixes[0]}:", 1))
                self.allowed["obliterated"] += 1
        endings = args["endings"] if operation == "turn" else [args] if operation == "end" else []
        if any(one["how"] in {"put back", "rate limit"} for one in endings):
            for key in [key for key in self.keys if key.endswith(":marker") and ["0", "0"] in self.keys[key]["value"]]:
                marker = node_keys.setdefault(key, {"type": "zset", "value": []})
                if ["0", "0"] not in marker["value"]:
                    marker["value"].insert(0, ["0", "0"])
                    await self.server.commands.call("ZADD", key.replace("bull:", f"{self.prefixes[0]}:", 1), 0, "0")
                    self.allowed["put back, prioritized"] += 1


def _answers_differ(node: dict[str, Any], ours: dict[str, Any]) -> str | None:
    if ours.get("value") is not None and isinstance(ours["value"], dict) and "refused" in ours["value"]:
        ours = {"error": ours["value"]["refused"]}
    if node == ours:
        return None
    if isinstance(node.get("error"), str) and "error" in ours and isinstance(ours["error"], str):
        return None  # both refuse it, each in its own words
    return f"ours answers {ours}, Node {node}"


def _since(events: Events, before: Events) -> Events:
    return {key: entries[len(before.get(key, ())) :] for key, entries in events.items()}
