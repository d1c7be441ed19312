"""Looks for jobs whose worker is gone, again and again. One worker of a queue does it for all, whoever comes first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from toril.clock import Clock
from toril.errors import ServerError
from toril.telemetry.logs import get_logger
from toril.wire.commands import QueueCommands
from toril.worker.health import Health
from toril.worker.missing import MissingJobs
from toril.worker.options import WorkerOptions

log = get_logger(__name__)

RETRY_MS: Final = 5_000


class StalledSweep:
    """Sweeps first when it starts, and then once an interval.

    Args:
        found: called with the id of each job that was put back.
        end_cancelled: fails a job that was cancelled before its worker died.
        missing: hears of ids without a job.
    """

    def __init__(
        self,
        commands: QueueCommands,
        options: WorkerOptions,
        clock: Clock,
        health: Health,
        found: Callable[[str], None],
        end_cancelled: Callable[[str], Awaitable[None]],
        missing: MissingJobs,
    ) -> None:
        self._commands = commands
        self._options = options
        self._clock = clock
        self._health = health
        self._found = found
        self._end_cancelled = end_cancelled
        self._missing = missing

    async def run_forever(self) -> None:
        """Sweep until cancelled."""
        while True:
            await self._clock.sleep(await self.sweep())

    async def sweep(self) -> int:
        """Sweep once; returns the ms to wait before the next time."""
        interval_ms = self._options.stalled_interval_ms
        try:
            reply = await self._commands.sweep_stalled(self._clock.now_ms(), interval_ms, self._options.max_stalled_count)
            for job_id in reply.recovered:
                log.warning("job stalled: its worker is gone; put back to wait", queue=self._commands.keys.queue, job_id=job_id)
                self._found(job_id)
            self._missing.dropped(len(reply.dropped), reply.dropped)
            for job_id in reply.cancelled:
                await self._end_cancelled(job_id)
        except ServerError as error:
            self._health.failed("stalled-sweep", error)
            return min(interval_ms, RETRY_MS)
        self._health.works("stalled-sweep")
        # Where another worker swept lately, wait for its throttle to run out: two equal timers would miss every second one.
        return reply.wait_ms or interval_ms
