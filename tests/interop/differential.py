"""The real BullMQ and Toril do the same, each on its own prefix of one server; after each step both must hold the same.

          ┌─► differential.mjs  ─► prefix "…n:" ─┐
    step ─┤                                      ├─► the same keys, the same events, the same answer
          └─► toril_side.py     ─► prefix "…t:" ─┘

What may differ is told in `ALLOWED`, and nowhere else.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from tests.comparison import event_differences, key_differences
from tests.interop.peer import NodePeer
from tests.interop.refusals import mean_the_same
from tests.interop.spelling import Json
from tests.interop.toril_side import TorilSide
from tests.snapshot import Events, Keys, delete_all, read_all
from toril.wire.connection import Server
from toril.wire.refusals import Argument

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
    "a tree with a child that is gone": ("getFlow raises a TypeError where a child has ended and was removed; we leave the child out"),
    "what an orphan holds": (
        "`remove_orphaned_jobs` lets the parent of a job that it removes wait for it no longer, and the next job with its deduplication id "
        "in. Node leaves the parent waiting for ever, and the id taken (there both are let go by hand before it)."
    ),
    "no parent to drop": (
        "Taking a job that has no parent away from its parent is answered with False. Node raises an error that names a parent `undefined`."
    ),
    "a scheduler without a run": (
        "A rule that has no run before its end is refused with an error. Node writes nothing, as we do, but answers as if it were done."
    ),
    "the stack of a refused end": (
        "A job whose end was refused, and that is failed then, gets one stack. Node keeps the refused one in its object, and writes both."
    ),
}
"""Each way in which Toril deliberately leaves something else behind than Node, and why."""


NOT_TRIED: Final = {
    "upsert while paused": (
        "Changing a scheduler of a paused queue replaces its waiting iteration. Node looks for that in the list `paused` of old versions, "
        "so the old one stays beside the new one."
    ),
    "upsert over a run": (
        "Changing a scheduler leaves a run alone that was promoted, or began at once, and whose time is the pattern's next one still: "
        "the next run comes at a later time. Node writes it over that run, which then is active, say, and delayed."
    ),
    "parents with colons": (
        "A parent whose id has colons (`a:b:c`, or a scheduler's run) goes on when its last child is removed. Node can't read such a key, "
        "and lets it wait for ever."
    ),
    "clean with a limit": (
        "The limit counts the jobs that `clean` removes. Node looks at so many, and stops behind them, however many of these stay."
    ),
    "some orphans": (
        "`remove_orphaned_jobs` removes any job that is in no list. Node leaves those whose ids have colons (a scheduler's runs, too), and "
        'a job "1" while the marker has a member that is called so.'
    ),
    "drain with iterations": (
        "`drain` leaves a scheduler's waiting iteration in its place. Node can keep another job's id instead, whose hash is gone."
    ),
}
"""What Node does otherwise in a way that can't be undone afterwards: such steps are left out."""


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
    old: NodePeer
    """BullMQ 5, which does what both sides then find."""
    steps: int = 0
    """How often the two key spaces were held against each other."""
    keys: Keys = field(default_factory=dict[str, dict[str, Any]])
    events: Events = field(default_factory=dict[str, list[list[list[str]]]])
    counted: Counter[str] = field(default_factory=Counter[str])
    """How often each operation was compared."""
    allowed: Counter[str] = field(default_factory=Counter[str])
    """How often each allowed difference was met."""
    refused: set[str] = field(default_factory=set[str])
    """The holds of which an end was refused."""

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
        self.refused.clear()

    async def both(
        self, operation: str, now: int, *, by_node: bool = False, by_old: bool = False, **args: Json
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Let both sides do it, or one Node on both prefixes; Node's answer, and ours, as if their prefix were `bull`."""
        if by_node or by_old:
            peer = self.old if by_old else self.node
            node, ours = [await peer.ask(operation, now=now, prefix=prefix, **args) for prefix in self.prefixes]
        else:
            node, ours = await asyncio.gather(self.node.ask(operation, now=now, **args), self.ours.ask(operation, now, **args))
        return _unprefixed(node, self.prefixes[0]), _unprefixed(ours, self.prefixes[1])

    async def step(self, operation: str, now: int, **args: Json) -> dict[str, Any]:
        """Do it on both sides, and compare; the answer. Raises Difference.

        Args:
            operation: what is done.
            now: the time for both, ms.
            args: what the operation takes; `by_node=True`: Node does it on our prefix, too, since our API has no word for it;
                `by_old=True`: BullMQ 5 does it on both.
        """
        before = self.events
        node, ours = await self.both(operation, now, **args)
        told = f"{operation} at T0+{now - T0} with {args}"
        await self.compare(told, before, operation, args)
        if operation == "drop_child_link" and node == {"error": -5} and ours == {"value": False}:
            self.allowed["no parent to drop"] += 1
        elif operation == "upsert_scheduler" and node == {"value": None} and ours.get("error") == "InvalidOptionError: end":
            self.allowed["a scheduler without a run"] += 1
        elif operation == "look" and "Cannot destructure property 'job'" in str(node.get("error")) and "value" in ours:
            self.allowed["a tree with a child that is gone"] += 1
        elif (difference := _answers_differ(node, ours)) is not None:
            raise Difference(f"{told}\n  {difference}")
        if args.get("linked") or args.get("owners"):
            self.allowed["what an orphan holds"] += 1
        self._note_refusals(operation, args, ours)
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
        endings = _endings(operation, args)
        for one in endings:
            if one["hold"] in self.refused and one["how"] in {"fail", "give up"}:
                await self._allow_stacks(node_keys)
        if any(one["how"] in {"put back", "rate limit"} for one in endings):
            for key in [key for key in self.keys if key.endswith(":marker") and ["0", "0"] in self.keys[key]["value"]]:
                marker = node_keys.setdefault(key, {"type": "zset", "value": []})
                if ["0", "0"] not in marker["value"]:
                    marker["value"].insert(0, ["0", "0"])
                    await self.server.commands.call("ZADD", key.replace("bull:", f"{self.prefixes[0]}:", 1), 0, "0")
                    self.allowed["put back, prioritized"] += 1

    async def _allow_stacks(self, node_keys: Keys) -> None:
        """Take from Node's jobs the stacks of refused ends."""
        for key in [key for key in node_keys if "stacktrace" in node_keys[key]["value"] and key in self.keys]:
            node, ours = node_keys[key]["value"], json.loads(self.keys[key]["value"].get("stacktrace", "[]"))
            stacks = json.loads(node["stacktrace"])
            if len(stacks) > len(ours):
                node["stacktrace"] = json.dumps(stacks[len(stacks) - len(ours) :])
                await self.server.commands.call("HSET", key.replace("bull:", f"{self.prefixes[0]}:", 1), "stacktrace", node["stacktrace"])
                self.allowed["the stack of a refused end"] += 1

    def _note_refusals(self, operation: str, args: dict[str, Any], ours: dict[str, Any]) -> None:
        """Remember of which holds an end was refused."""
        answer: dict[str, Any] = ours.get("value") or {}
        codes: list[int] = answer["codes"] if operation == "turn" else [answer.get("refused", 0)] if operation == "end" else []
        for ending, code in zip(_endings(operation, args), codes, strict=True):
            if code < 0 and ending["how"] in {"fail", "give up"}:
                self.refused.add(ending["hold"])


def _endings(operation: str, args: dict[str, Any]) -> list[dict[str, Any]]:
    match operation:
        case "turn":
            return list(args["endings"])
        case "end":
            return [args]
        case _:
            return []


def _answers_differ(node: dict[str, Any], ours: dict[str, Any]) -> str | None:
    if ours.get("value") is not None and isinstance(ours["value"], dict) and "refused" in ours["value"]:
        ours = {"error": ours["value"]["refused"]}
    if node == ours:
        return None
    if "error" in node and isinstance(ours.get("error"), str) and mean_the_same(ours["error"], node["error"]):
        return None
    return f"ours answers {ours}, Node {node}"


def _unprefixed(answer: dict[str, Any], prefix: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(json.dumps(answer).replace(f"{prefix}:", "bull:"))
    return read


def _since(events: Events, before: Events) -> Events:
    return {key: entries[len(before.get(key, ())) :] for key, entries in events.items()}
