"""Hears at once what a worker is told from outside. The server's keys are the truth, and the lock keeper looks at them, too:
this only saves the wait for the next renewal.

A job may be cancelled in the very moment in which it is claimed, and the word of it may come before the job does. So what is said
about jobs that don't run here is remembered for a while.

    Queue.cancel ─► key cancel:{id} ─┬─► published on the queue's channel ─► Control ─┬─► reads the key ─► the handler is cancelled
                                     └─► seen when the lock is renewed ───────────────┘
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from toril.clock import real_sleep
from toril.errors import ServerError
from toril.telemetry.logs import get_logger
from toril.wire.commands import QueueCommands
from toril.wire.connection import Subscription, backoff_ms
from toril.worker.attempts import Attempts

log = get_logger(__name__)

CANCEL: Final = "cancel "


class Control:
    """Listens to one queue's channel.

    Args:
        subscription: to the channel.
        attempts: what runs here.
    """

    def __init__(self, commands: QueueCommands, subscription: Subscription, attempts: Attempts) -> None:
        self._commands = commands
        self._subscription = subscription
        self._attempts = attempts
        attempts.look_soon = self.look_soon
        self._asked: asyncio.Queue[str] = asyncio.Queue()

    async def run_forever(self) -> None:
        """Listen until cancelled. A lost connection is no trouble worth a word: others of this worker will tell."""
        pauses = backoff_ms()
        while True:
            with contextlib.suppress(ServerError):
                async with contextlib.aclosing(aiter(self._subscription)) as messages:
                    async for message in messages:
                        pauses = backoff_ms()
                        if not message.startswith(CANCEL):
                            continue
                        job_id = message.removeprefix(CANCEL)
                        if self._attempts.is_running(job_id):
                            await self.look(job_id)
                        else:
                            self._attempts.expect_cancelled(job_id)
            await real_sleep(next(pauses))

    async def look(self, job_id: str) -> None:
        """Whether this job is to be cancelled, by the server's key. Raises ServerError."""
        reason = await self._commands.find_cancellation(job_id)
        if reason is not None:
            self._attempts.cancel(job_id, reason)

    def look_soon(self, job_id: str) -> None:
        """The same, by whoever may not wait."""
        self._asked.put_nowait(job_id)

    async def look_when_asked(self) -> None:
        """Do what `look_soon` asks for, until cancelled."""
        while True:
            job_id = await self._asked.get()
            with contextlib.suppress(ServerError):  # the next renewal will tell again
                await self.look(job_id)
