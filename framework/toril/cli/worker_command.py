"""What `toril worker` is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerCommand:
    """The arguments of `toril worker`, as they were typed; the application checks them. A supervisor hands them on as JSON."""

    module: str
    concurrency: int | None
    queues: Sequence[str] | None
    roles: Sequence[str] | None
    shutdown_timeout: str | None
    connect_timeout: str | None
    burst: bool
    debug: bool
    is_probed: bool = False
    """Whether it answers probes, itself or through its supervisor."""
