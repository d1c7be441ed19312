"""Whether a worker can do its work, as a state that can be asked: what is wrong right now, and since when."""

from __future__ import annotations

from dataclasses import dataclass

from toril.clock import Clock
from toril.telemetry.logs import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Problem:
    """One part that can't reach the server."""

    part: str
    reason: str
    since_ms: int


class Health:
    """Collects what fails. It logs when a part begins to fail and when it works again, and nothing in between."""

    def __init__(self, queue: str, clock: Clock) -> None:
        self._queue = queue
        self._clock = clock
        self._problems: dict[str, Problem] = {}

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What fails now; empty if all is well."""
        return tuple(self._problems.values())

    def failed(self, part: str, error: BaseException) -> None:
        """This part failed and will try again."""
        if part not in self._problems:
            self._problems[part] = Problem(part, str(error), self._clock.now_ms())
            log.warning("server not usable; trying again until it is", queue=self._queue, part=part, reason=str(error))

    def works(self, part: str) -> None:
        """This part has just succeeded."""
        if self._problems and (problem := self._problems.pop(part, None)) is not None:
            log.info("server usable again", queue=self._queue, part=part, after_ms=self._clock.now_ms() - problem.since_ms)
