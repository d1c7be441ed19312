"""Keeps the library's own lines from filling the log when the same trouble meets a thousand jobs: told once, then how often.

    12:00:00 warning an attempt failed; the job runs again   job_id=1 reason="no route to host"
    12:00:10 warning an attempt failed; the job runs again   repeated=812 within=10s job_ids=[2, 3, 4, …] reason="no route to host"

Only warnings and errors of loggers below `toril`, and never what an application says itself, through a JobLogger or otherwise.
"""

from __future__ import annotations

import logging
import re
import threading
from dataclasses import dataclass, field
from typing import Any, Final, cast

from toril.telemetry.log_event import LogEvent

WINDOW_S: Final = 10.0
MOST_KINDS: Final = 1_000
"""So many kinds of lines are counted at the same time; others are written as they come."""

NAMED: Final = 10
"""How many of the jobs a line about repeated ones names."""

OF_ONE_JOB: Final = frozenset(
    "job_id attempt delay_ms ran_ms exception stack stalled_count blocked_ms trace_id span_id after_ms failed_tries".split()
)
"""Fields in which lines may differ that say the same."""

_WORDS: Final = frozenset(("reason", "error"))
_NUMBER: Final = re.compile(r"\d+")


@dataclass(slots=True)
class _Kind:
    """Lines that say the same, since the last one that was written."""

    record: logging.LogRecord
    count: int = 0
    job_ids: list[object] = field(default_factory=list[object])


class Repeats(logging.Filter):
    """A filter of one handler.

    Args:
        handler: writes what passes, and later what was held back.
        window_s: how long lines that say the same are counted before that is told.
    """

    def __init__(self, handler: logging.Handler, window_s: float = WINDOW_S) -> None:
        super().__init__()
        self._handler, self._window_s = handler, window_s
        self._kinds: dict[object, _Kind] = {}
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is to be written now."""
        if record.levelno < logging.WARNING or not isinstance(record.msg, LogEvent):
            return True
        if not record.name.startswith("toril.") or record.name == "toril.job" or "repeated" in record.msg.fields:
            return True
        try:
            key = _key(record, record.msg)
        except Exception:  # noqa: BLE001 -- a value or error that can't be shown: whoever writes the line copes with that
            return True
        with self._lock:
            kind = self._kinds.get(key)
            if kind is None:
                if len(self._kinds) < MOST_KINDS:
                    self._kinds[key] = _Kind(record)
                    self._set_timer()
                return True
            kind.record, kind.count = record, kind.count + 1
            if "job_id" in record.msg.fields and len(kind.job_ids) < NAMED:
                kind.job_ids.append(record.msg.fields["job_id"])
        return False

    def tell(self) -> None:
        """Write what was held back, and begin to count anew."""
        with self._lock:
            held_back = [kind for kind in self._kinds.values() if kind.count]
            # What goes on is told once each window; what has ended isn't counted any more.
            self._kinds = {key: _Kind(kind.record) for key, kind in self._kinds.items() if kind.count}
            self._timer = None
            if self._kinds:
                self._set_timer()
        for kind in held_back:
            self._handler.handle(self._summary(kind))

    def close(self) -> None:
        """Write what was held back; from now on nothing is."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            held_back, self._kinds, self._timer = [kind for kind in self._kinds.values() if kind.count], {}, None
        for kind in held_back:
            self._handler.handle(self._summary(kind))

    def _set_timer(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(self._window_s, self.tell)
            self._timer.daemon = True
            self._timer.name = "toril-log-repeats"
            self._timer.start()

    def _summary(self, kind: _Kind) -> logging.LogRecord:
        record, event = kind.record, cast("LogEvent", kind.record.msg)
        told: dict[str, object] = {name: value for name, value in event.fields.items() if name not in OF_ONE_JOB}
        told |= {"repeated": kind.count, "within": f"{self._window_s:g}s"}
        if kind.job_ids:
            told["job_ids"] = kind.job_ids
        message: Any = LogEvent(event.event, told)
        return logging.LogRecord(record.name, record.levelno, record.pathname, record.lineno, message, (), None, record.funcName)


def _key(record: logging.LogRecord, event: LogEvent) -> object:
    error = record.exc_info[1] if record.exc_info else None
    said = tuple(
        (name, _NUMBER.sub("#", str(value)) if name in _WORDS else str(value))
        for name, value in event.fields.items()
        if name not in OF_ONE_JOB
    )
    return record.name, record.levelno, event.event, type(error), _NUMBER.sub("#", str(error)), said
