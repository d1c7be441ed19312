"""When a worker counts as not ready, by what its parts say. Real processes under real faults are in `server/test_probes.py`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, cast

import pytest

from toril import SystemClock, WorkerOptions
from toril.worker.health import Health
from toril.worker.readiness import Readiness

OPTIONS = WorkerOptions(lock_duration="30s", drain_delay="5s", loop_block_warning="1s")


@dataclass
class Parts:
    """Of a worker that is well."""

    silent_for_ms: int | None = 5_000
    blocked_ms: float = 0.0
    unrenewed_s: float = 0.0
    unheard_s: float = 0.0
    unanswered_s: float | None = None
    problem: str = ""

    def problems(self, options: WorkerOptions = OPTIONS) -> list[str]:
        health = Health("q", SystemClock())
        health.worked_s -= self.unheard_s
        if self.problem:
            health.failed("doorbell", OSError(self.problem))
        self.renewed_s = time.monotonic() - self.unrenewed_s
        self.asked_s = None if self.unanswered_s is None else time.monotonic() - self.unanswered_s
        return Readiness(health, options, cast("Any", self), cast("Any", self)).problems()


@pytest.mark.parametrize(
    "well",
    [
        Parts(),
        Parts(unrenewed_s=19),  # each third of 30 s, and one may be late
        Parts(unheard_s=9),  # it looks each 5 s
        Parts(silent_for_ms=None, unheard_s=3_600),  # all slots are busy: it has nothing to ask
        Parts(silent_for_ms=30_000, unheard_s=34),  # a rate limit
        Parts(silent_for_ms=None, unheard_s=3_600, unanswered_s=4),  # after that hour it has asked again
        Parts(silent_for_ms=None, unheard_s=4, unanswered_s=3_600),  # one lane or the other always waits: all are answered
        Parts(blocked_ms=900),
    ],
)
def test_a_worker_that_is_well(well: Parts) -> None:
    assert well.problems() == []


@pytest.mark.parametrize(
    ("ill", "told"),
    [
        (Parts(problem="gone"), "doorbell: gone"),
        (Parts(unrenewed_s=21), "locks were last renewed 21s ago, and last 30s"),
        (Parts(unheard_s=11), "the server was last heard of 11s ago"),
        (Parts(silent_for_ms=None, unheard_s=3_600, unanswered_s=6), "the server was last heard of 1h ago"),
        (Parts(silent_for_ms=30_000, unheard_s=36), "the server was last heard of 36s ago"),
        (Parts(blocked_ms=1_500), "the event loop has been blocked for 1s500ms"),
    ],
)
def test_what_is_wrong_is_told(ill: Parts, told: str) -> None:
    assert ill.problems() == [told]


def test_an_answer_that_waits_for_a_blocked_loop_is_not_missing() -> None:
    options = WorkerOptions(loop_block_warning="20s")
    assert Parts(silent_for_ms=None, unheard_s=8, unanswered_s=8, blocked_ms=7_000).problems(options) == []
    assert Parts(silent_for_ms=None, unheard_s=14, unanswered_s=14, blocked_ms=7_000).problems(options) != []


def test_that_the_server_is_silent_is_not_told_beside_its_cause() -> None:
    assert Parts(problem="gone", unheard_s=60).problems() == ["doorbell: gone"]
