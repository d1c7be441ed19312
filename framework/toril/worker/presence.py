"""Tells the server that a worker is there, and which jobs it has handlers for, so that somebody else can say why a job doesn't run.

    start ─► noted, and those forgotten that are gone without a word      stop ─► forgotten
    every 10 s, from the thread that renews the locks: noted anew

That it can't be told keeps no worker from working.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

from toril.errors import ServerError
from toril.queues.manifests import WorkerManifest, read_manifest
from toril.queues.queue import Queue
from toril.telemetry.logs import get_logger
from toril.wire import presence
from toril.wire.connection import Connection
from toril.worker.options import WorkerOptions
from toril.worker.processor import Registry

log = get_logger(__name__)

REFRESH_S: Final = 10
"""Real time, as the network's: what counts is whether the process lives."""

PATIENCE_S: Final = 1

_VERSION: Final = version("toril")
_HOST: Final = socket.gethostname()


class Presence:
    """One worker's. Its loop calls `begin` and `end`, the thread that renews its locks `refresh` in between.

    Args:
        roles: what its process does.
        connection: the loop's.
    """

    def __init__(
        self,
        queue: Queue[Any, Any],
        worker_id: str,
        options: WorkerOptions,
        registry: Registry,
        roles: Sequence[str],
        connection: Connection,
    ) -> None:
        self._connection, self._roles = connection, roles
        self._keys, self._clock = queue.keys, queue.clock
        self._id, self._options, self._registry = worker_id, options, registry
        self._started_at_ms: int | None = None
        self._due = 0.0
        self._has_warned = False

    @property
    def is_due(self) -> bool:
        """Whether it is time to say again that the worker is there."""
        return time.monotonic() >= self._due

    async def begin(self) -> None:
        """Note the worker, and forget those that are gone."""
        connection = self._connection
        try:
            now_ms = await self._note(connection, blocked_ms=0)
            noted = await presence.noted_workers(connection, self._keys)
            manifests = {worker_id: read_manifest(worker_id, text) for worker_id, text in noted.items()}
            gone = [worker_id for worker_id, one in manifests.items() if one is None or one.is_stale(now_ms)]
            if gone:
                await presence.forget_workers(connection, self._keys, *gone)
        except ServerError as error:
            self._could_not(error)

    async def refresh(self, connection: Connection, blocked_ms: int) -> None:
        """Say again that the worker is there, on the thread's connection, and in little time: locks are to be renewed, too.

        Args:
            connection: the thread's own.
            blocked_ms: for how long a handler has been blocking the event loop; 0: none does.
        """
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._note(connection, blocked_ms=blocked_ms)
        except (ServerError, TimeoutError) as error:
            self._could_not(error)

    async def end(self) -> None:
        """The worker stops. If the server can't be told within a moment, others will forget it."""
        if not self._connection.is_connected:
            return
        try:
            async with asyncio.timeout(PATIENCE_S):
                await presence.forget_workers(self._connection, self._keys, self._id)
        except (ServerError, TimeoutError) as error:
            self._could_not(error)

    async def _note(self, connection: Connection, *, blocked_ms: int) -> int:
        self._due = time.monotonic() + REFRESH_S  # if it can't be told now, soon enough again
        now_ms = await presence.server_ms(connection)
        if self._started_at_ms is None:
            self._started_at_ms = now_ms
        manifest = WorkerManifest(
            id=self._id,
            name=self._options.name,
            host=_HOST,
            pid=os.getpid(),
            version=_VERSION,
            handlers=self._registry.names,
            handles_all=self._registry.handles_all,
            concurrency=self._registry.total(self._options.concurrency),
            roles=self._roles,
            started_at_ms=self._started_at_ms,
            seen_at_ms=now_ms,
            clock_off_ms=self._clock.now_ms() - now_ms,
            blocked_ms=blocked_ms,
        )
        await presence.note_worker(connection, self._keys, self._id, manifest.text())
        return now_ms

    def _could_not(self, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "this worker can't be noted in the server, so tools don't see it", queue=self._keys.queue, reason=str(error) or "no answer"
            )
