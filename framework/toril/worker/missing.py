"""Tells of jobs that are gone though their ids were still there: somebody removed their keys, or the server evicted them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from toril.clock import Clock, Timer
from toril.telemetry.logs import get_logger

log = get_logger(__name__)

PAUSE_MS: Final = 60_000
"""A server that evicts does so again and again: after a line all that follow within this time are one."""

NAMED: Final = 10
"""How many ids a line names."""


class MissingJobs:
    """What one worker has met of them. Call `close` in the end, for what is yet to be told."""

    def __init__(self, queue: str, clock: Clock) -> None:
        self._queue = queue
        self._clock = clock
        self._count = 0
        self._ids: list[str] = []
        self._timer: Timer | None = None

    def dropped(self, count: int, ids: Sequence[str]) -> None:
        """So many ids without a job were taken out of the queue, these among them."""
        if count:
            self._count += count
            self._ids += ids[: NAMED - len(self._ids)]
            if self._timer is None:
                self._tell()

    def close(self) -> None:
        """Tell the rest. Harmless if it has been called."""
        if self._timer is not None:
            self._timer.cancel()
        if self._count:
            self._write()

    def _tell(self) -> None:
        self._timer = None
        if self._count:
            self._write()
            self._timer = self._clock.call_later(PAUSE_MS, self._tell)

    def _write(self) -> None:
        log.error(
            "jobs are gone, and their ids dropped: somebody removed their keys, or the server evicted them, which "
            "maxmemory-policy noeviction prevents",
            queue=self._queue,
            count=self._count,
            job_ids=self._ids,
        )
        self._count, self._ids = 0, []
