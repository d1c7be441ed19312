"""What the probes say of one worker process. Everything here is asked from other threads than the one that it is about."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Final

from toril.application import Application
from toril.errors import MissingExtraError, TorilError
from toril.queues.depths import depth_of
from toril.telemetry.metrics import Metrics, measure_jobs
from toril.units import format_ms
from toril.worker.options import WorkerOptions
from toril.worker.worker import Worker

BEAT_S: Final = 0.25
BUSY_MS: Final = 1_000
"""A loop that has been blocked for longer isn't asked how much waits in the queues."""

DEPTHS_LIMIT_S: Final = 1.5
"""How long looking at the queues may take; a scraper waits for 10 s in all."""


class ProcessProbe:
    """Can be asked from the start of the process, before there is an event loop or an application."""

    def __init__(self) -> None:
        self._app: Application | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beat_s = 0.0
        self._metrics: Metrics | None = None
        if importlib.util.find_spec("prometheus_client") is not None:
            self._metrics = measure_jobs()

    def watch_loop(self) -> None:
        """From now on watch the running event loop: only it can keep up its beat."""
        self._loop = asyncio.get_running_loop()
        self._keep_beating()

    def watch(self, app: Application) -> None:
        """From now on tell of this application."""
        self._app = app

    def livez(self) -> Sequence[str]:
        blocked_ms = self._blocked_ms()
        if blocked_ms <= self._most_blocked_ms():
            return ()
        return [f"the event loop has been blocked for {format_ms(round(blocked_ms))}, and the jobs of this process are given up"]

    def readyz(self) -> Sequence[str]:
        return ["the application is being created"] if self._app is None else self._app.not_ready_because

    def metrics(self) -> bytes:
        if self._metrics is None:
            raise MissingExtraError("/metrics", "metrics", "prometheus-client")
        from prometheus_client import generate_latest

        self._look_at_queues(self._metrics)
        return generate_latest()

    # ── inside ────────────────────────────────────────────────────────────────────────────────────────────────

    def _keep_beating(self) -> None:
        self._beat_s = time.monotonic()
        asyncio.get_running_loop().call_later(BEAT_S, self._keep_beating)

    def _blocked_ms(self) -> float:
        return 0.0 if self._loop is None else max(0.0, time.monotonic() - self._beat_s - BEAT_S) * 1_000

    def _most_blocked_ms(self) -> int:
        """Past this the renewal thread takes the process for dead, and lets its locks expire."""
        workers = () if self._app is None else self._app.workers
        return min((worker.options.max_loop_block_ms for worker in workers), default=WorkerOptions().max_loop_block_ms)

    def _look_at_queues(self, metrics: Metrics) -> None:
        """What can't be looked at isn't shown: an old number would look like a new one."""
        if self._app is None or self._loop is None or self._loop.is_closed():
            return
        looking = asyncio.run_coroutine_threadsafe(_look(metrics, self._app.workers), self._loop)
        try:
            looking.result(0 if self._blocked_ms() > BUSY_MS else DEPTHS_LIMIT_S)
        except FutureTimeoutError:
            looking.cancel()
            for worker in self._app.workers:
                metrics.of(worker.queue.name).depth = None


async def _look(metrics: Metrics, workers: Sequence[Worker]) -> None:
    for worker in workers:
        numbers = metrics.of(worker.queue.name)
        try:
            numbers.depth = await depth_of(worker.queue)
        except TorilError:  # the server is away, a key is damaged, or the queue is closed: others tell of it
            numbers.depth = None
