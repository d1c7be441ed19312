"""What is told of a time in which something can't be reached: that it began, each kind of error that is new, and how it ended.

Whoever tries again and again has the same trouble each time, and so have all others who try: none of that is worth a line.
"""

from __future__ import annotations

from toril.clock import Clock
from toril.telemetry.logs import get_logger

log = get_logger(__name__)


class Outage:
    """One server as one observer sees it.

    Args:
        event: the line for its beginning and for each new kind of error.
        fields: what its lines are bound to.
    """

    def __init__(self, event: str, clock: Clock, **fields: object) -> None:
        self._event = event
        self._clock = clock
        self._fields = fields
        self._since_ms = 0
        self._tries = 0
        self._kinds: set[type[BaseException]] = set()
        """Not the texts: one cut is told in many words by the system, and some hold what differs each time."""

    def failed(self, error: BaseException, **fields: object) -> None:
        """A try has failed."""
        if not self._tries:
            self._since_ms = self._clock.now_ms()
        self._tries += 1
        if type(error) not in self._kinds:
            self._kinds.add(type(error))
            log.warning(self._event, reason=str(error), **self._fields, **fields)

    def over(self) -> None:
        """It can be reached; says so if it could not."""
        if self._tries:
            log.info("server usable again", after_ms=self._clock.now_ms() - self._since_ms, failed_tries=self._tries, **self._fields)
            self._tries = 0
            self._kinds.clear()
