"""Jobs on their way to the server, encoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(slots=True)  # frozen, it would take 0.8 us to make instead of 0.3
class NewJob:
    """A job to add, encoded. A `delay_ms` above 0 decides before `priority`, and that before `lifo`. Nobody changes it."""

    name: str
    data: bytes
    opts: bytes
    timestamp_ms: int
    delay_ms: int = 0
    priority: int = 0
    lifo: bool = False
    job_id: str = ""
    """Empty: the server numbers it."""
    deduplication: bytes = b""
    """As the options have it under `de`, JSON; empty: none."""
    parent_key: str = ""
    """Full key of the job that waits for this one; empty: none does."""
    parent: bytes = b""
    """What the hash tells of it, JSON."""

    def is_like(self, other: NewJob) -> bool:
        """Whether they differ in nothing but their data, and neither has an id of its own."""
        return (
            self.timestamp_ms == other.timestamp_ms
            and self.opts == other.opts
            and self.name == other.name
            and self.delay_ms == other.delay_ms
            and self.priority == other.priority
            and self.lifo == other.lifo
            and not self.job_id
            and not other.job_id
            and self.deduplication == other.deduplication
            and self.parent_key == other.parent_key
            and self.parent == other.parent
        )


class Added(NamedTuple):
    """What became of a job to add."""

    job_id: str
    is_new: bool
    """False: the id is that of a job that was there, since it has the same custom id or stands for this one (deduplication)."""


@dataclass(frozen=True, slots=True)
class FlowNode:
    """One job of a flow, which may lie in a queue of its own."""

    base: str
    """Base of that queue's keys."""
    job: NewJob
    has_children: bool
