"""What each worker of a queue tells of itself, in the server: where it runs, and which jobs it has handlers for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from toril.wire.codec import from_json_or, to_json

STALE_MS: Final = 45_000
"""A worker that has not said for so long that it is there, is gone: it says so every 10 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerManifest:
    """What a worker of ours tells of itself. Node's tell nothing."""

    id: str
    """The worker's; the tokens of its locks begin with it."""
    name: str | None
    """As in `WorkerOptions`; jobs that it has run show it as `processed_by`."""
    host: str
    pid: int
    version: str
    """Of Toril."""
    handlers: Sequence[str]
    """The names of jobs that it has handlers for."""
    handles_all: bool
    """Whether it has one for every other name."""
    concurrency: int
    """How many jobs it runs at once."""
    started_at_ms: int
    """By the server's clock, as the next one."""
    seen_at_ms: int
    """When it last said that it is there."""
    clock_off_ms: int
    """By how much its clock is ahead of the server's; negative: behind."""
    roles: Sequence[str] = field(default_factory=list[str])
    """What the process of its application does: `producer`, `worker`, `scheduler`; empty for a worker without an application."""
    blocked_ms: int
    """For how long a handler had been blocking its event loop when it last said that it is there; 0: none did."""

    def handles(self, job_name: str) -> bool:
        """Whether it has a handler for jobs of this name."""
        return self.handles_all or job_name in self.handlers

    def is_stale(self, server_ms: int) -> bool:
        """Whether it is gone without having said so."""
        return server_ms - self.seen_at_ms > STALE_MS

    def text(self) -> bytes:
        """As it stands in the server."""
        fields = {
            "name": self.name, "host": self.host, "pid": self.pid, "version": self.version,
            "handlers": list(self.handlers), "handlesAll": self.handles_all, "concurrency": self.concurrency, "roles": list(self.roles),
            "startedAt": self.started_at_ms, "seenAt": self.seen_at_ms, "clockOff": self.clock_off_ms,
            "blockedFor": self.blocked_ms,
        }  # fmt: skip
        return to_json(fields, "the manifest of a worker")


def read_manifest(worker_id: str, text: bytes) -> WorkerManifest | None:
    """What a worker has told; None for what no worker of ours has written."""
    found = from_json_or(text, None)
    if not isinstance(found, dict):
        return None
    fields = cast("dict[str, Any]", found)
    name = fields.get("name")
    return WorkerManifest(
        id=worker_id,
        name=name if isinstance(name, str) else None,
        host=str(fields.get("host", "")),
        pid=_whole(fields, "pid"),
        version=str(fields.get("version", "")),
        handlers=_texts(fields, "handlers"),
        handles_all=fields.get("handlesAll") is True,
        concurrency=_whole(fields, "concurrency"),
        roles=_texts(fields, "roles"),
        started_at_ms=_whole(fields, "startedAt"),
        seen_at_ms=_whole(fields, "seenAt"),
        clock_off_ms=_whole(fields, "clockOff"),
        blocked_ms=_whole(fields, "blockedFor"),
    )


def _texts(fields: dict[str, Any], name: str) -> list[str]:
    value = fields.get(name)
    return [str(one) for one in cast("list[object]", value)] if isinstance(value, list) else []


def _whole(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    return value if isinstance(value, int) else 0
