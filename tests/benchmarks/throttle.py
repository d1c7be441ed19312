"""Holds processes to a share of a core: they are stopped as soon as they have used more, and go on when their share has caught up.

So servers can be the bottleneck even on a machine with few cores, where clients would be it: what counts then are ratios.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

PERIOD_S = 0.005
LONGEST_SAVING_S = 0.1


class Throttle:
    """`with Throttle(pids, 0.1):` each of them gets a tenth of a core for the block."""

    def __init__(self, pids: Sequence[int], share: float) -> None:
        self._pids, self._share = pids, share
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="throttle", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        for pid in self._pids:
            os.kill(pid, signal.SIGCONT)

    def _run(self) -> None:
        """A bucket for each process: its share of the time that passes fills it, up to a tenth of a second's; what it uses empties it."""
        time_before = time.monotonic()
        used_before = {pid: used_s(pid) for pid in self._pids}
        buckets = dict.fromkeys(self._pids, 0.0)
        while not self._over.wait(PERIOD_S):
            now = time.monotonic()
            for pid in self._pids:
                used = used_s(pid)
                filled = buckets[pid] + self._share * (now - time_before) - (used - used_before[pid])
                buckets[pid], used_before[pid] = min(filled, self._share * LONGEST_SAVING_S), used
                os.kill(pid, signal.SIGSTOP if buckets[pid] < 0 else signal.SIGCONT)
            time_before = now


def used_s(pid: int) -> float:
    """Seconds that a process's threads have run on a core."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
