"""Sleeps while there is nothing to claim, and wakes when somebody rings or a delayed job is due.

    lanes found nothing ──► sleep(until) ──► BZPOPMIN on a connection of its own ──┬─► a ring        ─► claim
                                         └─► timer for the next due job ───────────┴─► drain_delay   ─► claim anyway

A ring wakes one worker only. One that can't claim when it comes (its slots have filled meanwhile, or it stops) hands it on.
A worker can take the ring and die before it claims. So after `drain_delay` a worker claims even without a ring; otherwise the
job would wait until somebody adds another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from toril.clock import Clock, Timer, real_sleep
from toril.errors import ServerError
from toril.wire.commands import QueueCommands
from toril.wire.connection import Connection, backoff_ms
from toril.worker.health import Health

LONGEST_BLOCK_MS: Final = 10_000
AFTER_FAILURE_BLOCK_MS: Final = 10
"""A ring may have been lost with the connection: look as soon as it stands again."""


class Doorbell:
    """Waits for one queue's marker.

    Args:
        connection: its own, since the wait blocks it.
        drain_delay_ms: how long to sleep at most.
        on_ring: called when it is time to claim.
        can_claim: whether a slot is free for what the ring tells of.
    """

    def __init__(
        self,
        commands: QueueCommands,
        connection: Connection,
        clock: Clock,
        drain_delay_ms: int,
        health: Health,
        on_ring: Callable[[], None],
        can_claim: Callable[[], bool],
    ) -> None:
        self._commands = commands
        self._connection = connection
        self._health = health
        self._clock = clock
        self._block_ms = min(drain_delay_ms, LONGEST_BLOCK_MS)
        self._on_ring = on_ring
        self._can_claim = can_claim
        self._wanted = asyncio.Event()
        self._due_timer: Timer | None = None
        self._due_ms = 0

    def sleep(self, next_due_ms: int) -> None:
        """Nothing to claim now: ring when somebody adds a job, or when `next_due_ms` (0: unknown) has come."""
        self._wanted.set()
        if next_due_ms and next_due_ms != self._due_ms:
            self._set_due(next_due_ms)

    async def run_forever(self) -> None:
        """Ring until cancelled."""
        pauses, block_ms, is_failing = backoff_ms(), self._block_ms, False
        try:
            while True:
                if not is_failing:  # else wanted or not: until it has worked once more, this worker counts as not ready
                    await self._wanted.wait()
                try:
                    marker = await self._commands.wait_for_marker(self._connection, block_ms)
                    self._health.works("doorbell")
                    pauses, block_ms, is_failing = backoff_ms(), self._block_ms, False
                    if marker is not None and not self._can_claim():
                        self._ring()  # first of all: sleep again only if a claim finds nothing
                        await self._commands.ring(marker)
                        continue
                except ServerError as error:
                    self._health.failed("doorbell", error)
                    block_ms, is_failing = AFTER_FAILURE_BLOCK_MS, True
                    await real_sleep(next(pauses))
                    continue
                if marker is not None and marker > self._clock.now_ms() + 1:
                    self._set_due(marker)
                else:
                    self._ring()
        finally:
            if self._due_timer is not None:
                self._due_timer.cancel()

    def _set_due(self, due_ms: int) -> None:
        """Of two due times the earlier one counts."""
        now_ms = self._clock.now_ms()
        if self._due_timer is not None:
            if now_ms < self._due_ms <= due_ms:
                return
            self._due_timer.cancel()
        self._due_ms = due_ms
        self._due_timer = self._clock.call_later(max(due_ms - now_ms, 0), self._due)

    def _due(self) -> None:
        self._due_timer = None
        self._due_ms = 0
        self._ring()

    def _ring(self) -> None:
        self._wanted.clear()
        self._on_ring()
