"""Why a worker can't do its work right now. Can be asked from any thread, also while the event loop is blocked."""

from __future__ import annotations

import time
from typing import Final

from toril.units import format_ms
from toril.worker.health import Health
from toril.worker.locks import LockKeeper
from toril.worker.options import WorkerOptions
from toril.worker.turn import Lanes

LATE_MS: Final = 5_000
"""How much later than it should the server may have been heard of. The network's own bound is twice as long."""


class Readiness:
    """Of one worker that runs."""

    def __init__(self, health: Health, options: WorkerOptions, lanes: Lanes, keeper: LockKeeper) -> None:
        self._health, self._options, self._lanes, self._keeper = health, options, lanes, keeper

    def problems(self) -> list[str]:
        """What is wrong; empty if the worker claims jobs and keeps them."""
        now_s = time.monotonic()
        found = [f"{problem.part}: {problem.reason}" for problem in self._health.problems]
        blocked_ms = self._keeper.blocked_ms
        if blocked_ms > self._options.loop_block_warning_ms:
            found.append(f"the event loop has been blocked for {_text(blocked_ms)}")
        unrenewed_ms = (now_s - self._keeper.renewed_s) * 1_000
        if unrenewed_ms > self._options.lock_ms * 2 // 3:  # one renewal was missed, and the next one is due
            found.append(f"locks were last renewed {_text(unrenewed_ms)} ago, and last {_text(self._options.lock_ms)}")
        if not found and self._is_silent(now_s, blocked_ms):
            found.append(f"the server was last heard of {_text((now_s - self._health.worked_s) * 1_000)} ago")
        return found

    def _is_silent(self, now_s: float, blocked_ms: float) -> bool:
        """Whether the server should have been heard of by now."""
        heard_s, asked_s, silent_for_ms = self._health.worked_s, self._lanes.asked_s, self._lanes.silent_for_ms
        if asked_s is not None and (now_s - max(heard_s, asked_s)) * 1_000 > LATE_MS + blocked_ms:
            return True  # a turn has no answer, for which the loop would have been there
        return silent_for_ms is not None and (now_s - heard_s) * 1_000 > silent_for_ms + LATE_MS


def _text(ms: float) -> str:
    return format_ms(round(ms / 100) * 100)
