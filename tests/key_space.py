"""A prefix's whole key space, read at one instant and sorted: which jobs, collections, locks and records each queue has.

Nothing here judges: that is `tests/invariants.py`. The prefix reads `bull` throughout, whatever it is in the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from tests.snapshot import Events, Keys, read_all
from toril.wire.connection import Server

Event: TypeAlias = dict[str, str]

COLLECTIONS: Final = ("wait", "paused", "active", "prioritized", "delayed", "waiting-children", "completed", "failed")
CHILD_KEYS: Final = ("dependencies", "processed", "failed", "unsuccessful")

_NO_JOBS: Final = frozenset({"meta", "metrics:completed", "metrics:failed"})


@dataclass
class QueueSpace:
    """What one queue has."""

    name: str
    keys: Keys = field(default_factory=dict[str, dict[str, Any]])
    """By what follows `bull:{queue}:`."""
    events: list[Event] = field(default_factory=list[Event])

    def __post_init__(self) -> None:
        self.meta: dict[str, str] = self._value("meta", {})
        self.marker: dict[str, float] = {member: float(score) for member, score in self._value("marker", [])}
        self.counter = int(self._value("id", "0"))
        self.stalled: list[str] = self._value("stalled", [])
        self.schedulers: dict[str, int] = {member: int(float(score)) for member, score in self._value("repeat", [])}
        self.records: dict[str, dict[str, str]] = {}
        self.jobs: dict[str, dict[str, str]] = {}
        self.locks: dict[str, str] = {}
        self.owners: dict[str, str] = {}
        self.payloads: set[str] = set()
        self.members: dict[str, list[str]] = {}
        """Ids of each collection, without the markers of versions before 5."""
        self.scores: dict[str, dict[str, int]] = {}
        for name in COLLECTIONS:
            self._sort_collection(name)
        for suffix, content in self.keys.items():
            self._sort_key(suffix, content)
        self.history: dict[str, list[Event]] = {}
        """The events of each job since it was last added, as far as the stream goes back."""
        for event in self.events:
            if event.get("event") == "added":
                self.history[event.get("jobId", "")] = [event]
            elif "jobId" in event:
                self.history.setdefault(event["jobId"], []).append(event)

    def has_whole_history(self, job_id: str) -> bool:
        """Whether the stream goes back to when the job was added."""
        events = self.history.get(job_id, [])
        return bool(events) and events[0]["event"] == "added"

    def was_retried_by_hand(self, job_id: str) -> bool:
        """Whether somebody let it run again after its end, which may have reset its counters."""
        return any(is_second_life(event) for event in self.history.get(job_id, ()))

    def ttl(self, suffix: str) -> int | None:
        """What is left of a key's time to live, in ms; None if it has none."""
        left: int | None = self.keys[suffix].get("ttl")
        return left

    @property
    def is_blocked(self) -> bool:
        """Wire §3.0 BLOCKED."""
        limit = self.concurrency
        return "paused" in self.meta or (limit is not None and len(self.members["active"]) >= limit)

    @property
    def concurrency(self) -> int | None:
        return int(self.meta["concurrency"]) if "concurrency" in self.meta else None

    def _value(self, suffix: str, nothing: Any) -> Any:  # noqa: ANN401 -- each type of key has its own
        return self.keys[suffix]["value"] if suffix in self.keys else nothing

    def _sort_collection(self, name: str) -> None:
        content = self._value(name, [])
        if name in {"wait", "paused", "active"}:
            self.members[name] = [job_id for job_id in content if not job_id.startswith("0:")]
        else:
            self.scores[name] = {job_id: int(float(score)) for job_id, score in content}
            self.members[name] = list(self.scores[name])

    def _sort_key(self, suffix: str, content: dict[str, Any]) -> None:
        if content["type"] == "string":
            if suffix.startswith("de:"):
                self.owners[suffix.removeprefix("de:")] = content["value"]
            elif suffix.endswith(":lock"):
                self.locks[suffix.removesuffix(":lock")] = content["value"]
        elif content["type"] == "hash" and suffix not in _NO_JOBS:
            value: dict[str, str] = content["value"]
            if suffix.startswith("dn:"):
                self.payloads.add(suffix.removeprefix("dn:"))
            elif suffix.startswith("repeat:") and ("ic" in value or suffix.removeprefix("repeat:") in self.schedulers):
                self.records[suffix.removeprefix("repeat:")] = value
            elif "timestamp" in value or not suffix.endswith((":processed", ":failed")):
                self.jobs[suffix] = value


@dataclass
class KeySpace:
    """All queues of a prefix."""

    keys: Keys
    events: Events

    def __post_init__(self) -> None:
        names = sorted({parts[1] for parts in (key.split(":", 2) for key in (*self.keys, *self.events)) if parts[0] == "bull"})
        self.queues = {name: self._sorted(name) for name in names}
        self._children: dict[str, dict[str, frozenset[str]]] = {}

    def queue(self, name: str) -> QueueSpace:
        """One queue; an empty one if nothing is there."""
        return self.queues.get(name) or QueueSpace(name)

    def find(self, key: str) -> dict[str, str] | None:
        """A job's hash by its full key."""
        parts = key.split(":", 2)
        if len(parts) < 3 or parts[0] != "bull" or parts[1] not in self.queues:
            return None
        return self.queues[parts[1]].jobs.get(parts[2])

    def children(self, parent_key: str) -> dict[str, frozenset[str]]:
        """The full keys in each of the four collections of a parent."""
        if parent_key not in self._children:
            self._children[parent_key] = {name: self._keys_in(f"{parent_key}:{name}") for name in CHILD_KEYS}
        return self._children[parent_key]

    def _keys_in(self, key: str) -> frozenset[str]:
        content = self.keys.get(key, {"type": "set", "value": []})
        if content["type"] == "zset":
            return frozenset(member for member, _ in content["value"])
        return frozenset(content["value"])

    def _sorted(self, name: str) -> QueueSpace:
        base = f"bull:{name}:"
        keys = {key.removeprefix(base): content for key, content in self.keys.items() if key.startswith(base)}
        return QueueSpace(name, keys, events_of(self.events.get(f"{base}events", ())))


def events_of(entries: Sequence[list[list[str]]]) -> list[Event]:
    """The entries of a stream, by their fields' names."""
    return [{field: value for field, value in entry} for entry in entries]  # noqa: C416 -- the pairs are lists


def is_second_life(event: Event) -> bool:
    """Whether a finished job runs again with this event."""
    return event["event"] == "waiting" and event.get("prev") in {"completed", "failed"}


async def read_key_space(server: Server, prefix: str) -> KeySpace:
    """All that the server holds under a prefix, at one instant."""
    return KeySpace(*await read_all(server, prefix))
