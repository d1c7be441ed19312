"""Keeps the locks of running jobs, from a thread of its own with a connection of its own, and watches the event loop.

A handler that blocks the event loop must not lose its job, so renewal can't depend on the loop. (Only C code that holds the
GIL for longer than the lock lasts can still starve it.)

    loop     beats every 250 ms ──────────────┐
    thread   looks every 500 ms: ─► beat old? ─► the running handler is named in the log, with its stack
                                 ─► renewal due? ─► all locks in one call ─► lost ones are reported to the loop
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, cast

from toril.cancellation import run_to_end
from toril.clock import Clock
from toril.errors import ServerError
from toril.telemetry.logs import get_logger
from toril.wire import scripts
from toril.wire.codec import id_text
from toril.wire.connection import Server
from toril.wire.keys import QueueKeys
from toril.wire.refusals import Argument
from toril.worker.attempts import Attempts
from toril.worker.health import Health
from toril.worker.options import WorkerOptions
from toril.worker.presence import Presence

log = get_logger(__name__)

BEAT_S: Final = 0.25
TICK_MS: Final = 500
RETRY_MS: Final = 500
RENEWAL_TIMEOUT_MS: Final = 3_000
"""How long one renewal may take, connecting included, before it is tried again."""

CANCEL_ASKED: Final = 1
LOST_REASONS: Final = {-2: "it expired, or the job was removed", -6: "another worker holds it"}


class LockKeeper:
    """A context manager: the renewal thread lives exactly as long as its block.

    Args:
        attempts: what runs; changed by the loop, read by the thread.
        on_cancel: called in the loop with the id of a job that somebody wants to be cancelled.
        presence: noted again in between.
        health: hears when renewing begins to fail, and when it works again.
    """

    def __init__(
        self,
        server: Server,
        keys: QueueKeys,
        options: WorkerOptions,
        clock: Clock,
        attempts: Attempts,
        on_cancel: Callable[[str], None],
        presence: Presence,
        health: Health,
    ) -> None:
        self._keys = keys
        self._connection = server.connection(keys, reply_timeout_ms=RENEWAL_TIMEOUT_MS)
        self._options = options
        self._clock = clock
        self._running = attempts.running
        self._on_lost = attempts.lock_lost
        self._on_cancel = on_cancel
        self._presence = presence
        self._health = health
        self._is_failing = False
        self._due_ms = 0
        self._reported = 0.0
        self._lost: set[str] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._beat = 0.0
        self._beat_s = min(BEAT_S, options.loop_block_warning_ms / 4_000)
        self._beat_timer: asyncio.TimerHandle | None = None
        self.renewed_s = time.monotonic()
        """When the locks were last renewed, or there were none to renew."""
        self.on_late: Callable[[float], None] | None = None
        """Called at each beat with how many seconds it came too late."""
        self.loop_blocks = 0
        """How often the loop was blocked for longer than `loop_block_warning`."""

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._keep_beating()
        self._thread = threading.Thread(target=self._run, name=f"toril locks {self._keys.queue}", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        if self._thread is not None:
            await run_to_end(asyncio.to_thread(self._thread.join, 5))  # bounded: its socket timeout is shorter

    def _keep_beating(self) -> None:
        now = time.monotonic()
        if self.on_late is not None and self._beat:
            self.on_late(now - self._beat - self._beat_s)
        self._beat = now
        self._beat_timer = self._loop.call_later(self._beat_s, self._keep_beating)

    @property
    def blocked_ms(self) -> float:
        """For how long the loop has not beaten, beyond what is due."""
        return max(0.0, time.monotonic() - self._beat - self._beat_s) * 1_000

    # ── in the thread ─────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        interval_ms = self._options.lock_ms // 3
        self._due_ms = self._clock.now_ms() + interval_ms
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:  # its own: the other one may be blocked
            try:
                while not self._clock.wait(self._stop, min(TICK_MS, interval_ms)):
                    try:
                        self._look(runner, interval_ms)
                    except Exception as error:  # noqa: BLE001 -- without this thread all jobs would lose their locks: try again
                        self._note_failure(error)
            finally:
                runner.run(self._connection.aclose())

    def _look(self, runner: asyncio.Runner, interval_ms: int) -> None:
        beat = self._beat
        blocked_ms = (time.monotonic() - beat) * 1_000
        if blocked_ms > self._options.loop_block_warning_ms and beat != self._reported:
            self._reported = beat
            self._report_blocked_loop(blocked_ms)
        if blocked_ms > self._options.max_loop_block_ms:
            return  # not busy but dead: let others have the jobs
        now_ms = self._clock.now_ms()
        if not self._due_ms - interval_ms <= now_ms < self._due_ms:  # due, or the clock was set back
            self._due_ms = now_ms + (interval_ms if runner.run(self._renew(interval_ms)) else min(RETRY_MS, interval_ms))
        if self._presence.is_due and not self._is_failing:
            is_blocked = blocked_ms > self._options.loop_block_warning_ms
            runner.run(self._presence.refresh(self._connection, round(blocked_ms) if is_blocked else 0))

    async def _renew(self, interval_ms: int) -> bool:
        """Extend all locks in one call; whether the server answered."""
        running = self._running.copy()
        self._lost &= running.keys()
        held = [(one.job.id, token) for token, one in running.items() if token not in self._lost]
        if not held:
            self._note_success()
            return True
        args: list[Argument] = [self._options.lock_ms]
        for job_id, token in held:
            args += (job_id, token)
        bases = (self._keys.base, self._keys.own)
        try:
            async with asyncio.timeout(min(RENEWAL_TIMEOUT_MS, interval_ms) / 1_000):  # the network's time is real
                flat: list[bytes | int] = await self._connection.run(scripts.load("renew_locks"), bases, *args)
        except (ServerError, TimeoutError) as error:
            self._note_failure(error)
            return False
        self._note_success()
        # A job can be here twice, if it was lost, put back and claimed again between two renewals: then the older attempt lost it.
        tokens: dict[str, deque[str]] = {}
        for job_id, token in held:
            tokens.setdefault(job_id, deque()).append(token)
        for told_id, code in zip(flat[::2], flat[1::2], strict=True):
            job_id = id_text(cast("bytes", told_id))
            if code == CANCEL_ASKED:
                self._loop.call_soon_threadsafe(self._on_cancel, job_id)
                continue
            token = tokens[job_id].popleft()
            self._lost.add(token)
            self._loop.call_soon_threadsafe(self._on_lost, token, LOST_REASONS.get(cast("int", code), "it is gone"))
        return True

    def _note_failure(self, error: Exception) -> None:
        self._is_failing = True
        self._loop.call_soon_threadsafe(self._health.failed, "locks", error)

    def _note_success(self) -> None:
        self.renewed_s = time.monotonic()
        if self._is_failing:
            self._is_failing = False
            self._loop.call_soon_threadsafe(self._health.works, "locks")

    def _report_blocked_loop(self, blocked_ms: float) -> None:
        self.loop_blocks += 1
        task = asyncio.current_task(self._loop)
        culprit = next((r for r in self._running.copy().values() if r.task is task), None) if task is not None else None
        frame = sys._current_frames().get(self._loop_thread)  # pyright: ignore[reportPrivateUsage]  # the documented way to another thread's stack
        log.warning(
            "the event loop is blocked: make this handler a plain def, or await inside it",
            queue=self._keys.queue,
            blocked_ms=round(blocked_ms),
            job_id=culprit.job.id if culprit else None,
            job_name=culprit.job.name if culprit else None,
            stack="".join(traceback.format_stack(frame)) if frame else None,
        )
