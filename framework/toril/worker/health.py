"""Whether a worker can do its work, as a state that can be asked: what is wrong right now, since when, and when something last worked."""

from __future__ import annotations

import time
from dataclasses import dataclass

from toril.clock import Clock
from toril.telemetry.outage import Outage


@dataclass(frozen=True, slots=True)
class Problem:
    """One part that can't reach the server."""

    part: str
    reason: str
    since_ms: int


class Health:
    """Collects what fails. All parts speak to one server: it logs when the first one fails, what is new, and when the last one works."""

    def __init__(self, queue: str, clock: Clock) -> None:
        self._clock = clock
        self._outage = Outage("server not usable; trying again until it is", clock, queue=queue)
        self._problems: dict[str, Problem] = {}
        self.worked_s = time.monotonic()
        """When a part last succeeded."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What fails now; empty if all is well."""
        return tuple(self._problems.values())

    def failed(self, part: str, error: BaseException) -> None:
        """This part failed and will try again."""
        if part not in self._problems:
            self._problems[part] = Problem(part, str(error), self._clock.now_ms())
        self._outage.failed(error, part=part)

    def works(self, part: str) -> None:
        """This part has just succeeded."""
        self.worked_s = time.monotonic()
        if self._problems and self._problems.pop(part, None) is not None and not self._problems:
            self._outage.over()
