"""Numbers with units, as people read them."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def format_ms(ms: int) -> str:
    """Write milliseconds as `to_ms` reads them back.

    >>> format_ms(90_000), format_ms(0)
    ('1m30s', '0s')
    """
    rest, parts = ms, ""
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(rest, UNIT_MS[unit])
        if count:
            parts += f"{count}{unit}"
    return parts or "0s"


def format_duration(value: timedelta | str) -> str:
    """A duration as somebody gave it, in the same spelling: a text is left as it is.

    >>> format_duration(timedelta(minutes=1.5)), format_duration("90s")
    ('1m30s', '90s')
    """
    return format_ms(max(value // timedelta(milliseconds=1), 0)) if isinstance(value, timedelta) else value
