"""Who works on a queue, and what can be said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toril.queues.getters import WorkerClient
from toril.queues.manifests import WorkerManifest
from toril.queues.queue import Queue


@dataclass(frozen=True, slots=True)
class Workforce:
    """The workers of one queue. All name their connection; ours leave a manifest beside it."""

    clients: Sequence[WorkerClient]
    manifests: Sequence[WorkerManifest]

    @property
    def is_ours(self) -> bool:
        """Whether each of them tells of itself, so that together they tell all. Node's tell nothing."""
        return bool(self.manifests) and len(self.manifests) >= len(self.clients)

    @property
    def slots(self) -> int | None:
        """How many jobs they can run at once; None: some don't tell."""
        return sum(one.concurrency for one in self.manifests) if self.is_ours else None

    @property
    def names(self) -> list[str]:
        """The names that somebody has a handler for."""
        return sorted({name for one in self.manifests for name in one.handlers})

    def may_handle(self, job_name: str) -> bool:
        """Whether somebody has a handler for jobs of this name, as far as is known."""
        return not self.is_ours or any(one.handles(job_name) for one in self.manifests)

    def is_connected(self, worker_name: str | None) -> bool:
        """Whether a worker of this name is there now."""
        return any(one.name == worker_name for one in self.clients)


async def read_workforce(queue: Queue[Any, Any]) -> Workforce:
    """Ask the server. What a worker has told counts while it is connected: one that was killed leaves its manifest for a while."""
    clients = await queue.get_workers()
    unnamed, names = queue.keys.client_name(), {one.name for one in clients}

    def is_there(one: WorkerManifest) -> bool:
        return one.name is None or queue.keys.client_name(one.name).removeprefix(f"{unnamed}:w:") in names

    return Workforce(clients, [one for one in await queue.get_worker_manifests() if is_there(one)])
