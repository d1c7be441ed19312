"""Durations as users write them (`timedelta`, `"1h30m"`) and as the code keeps them (integer milliseconds)."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import TypeAlias

from toril.errors import InvalidDurationError
from toril.units import UNIT_MS

Duration: TypeAlias = timedelta | str
"""A `timedelta`, or text made of numbers and units: `"250ms"`, `"5s"`, `"1h30m"`, `"1.5d"`. Never a bare number."""

_EXAMPLES = 'write for example "250ms", "5s" or "1h30m"'
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)", re.ASCII)


def to_ms(value: Duration, option: str) -> int:
    """Read a duration as whole milliseconds; `option` names it in the error.

    >>> to_ms("1h30m", "delay"), to_ms(timedelta(seconds=2), "delay")
    (5400000, 2000)

    Raises:
        InvalidDurationError: a bare number, a negative duration, or text that is no duration.
    """
    if isinstance(value, timedelta):
        ms = value // timedelta(milliseconds=1)
    elif isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # untyped callers pass numbers
        ms = _parse(value, option)
    else:
        raise InvalidDurationError(option, value, _no_duration(value))
    if ms < 0:
        raise InvalidDurationError(option, value, "a duration can't be negative")
    return ms


def optional_ms(value: Duration | None, option: str) -> int | None:
    """`to_ms`, and None for None."""
    return None if value is None else to_ms(value, option)


def _parse(text: str, option: str) -> int:
    compact = text.strip().lower()
    if compact.startswith("-"):
        raise InvalidDurationError(option, text, "a duration can't be negative")
    total, position = 0.0, 0
    for part in _PART.finditer(compact):
        if compact[position : part.start()].strip():
            break
        total += float(part[1]) * UNIT_MS[part[2]]
        position = part.end()
    if not compact or position != len(compact):
        hint = _bare_number(compact) if re.fullmatch(r"\d+(\.\d+)?", compact) else _EXAMPLES
        raise InvalidDurationError(option, text, f"not a duration: {hint}")
    if math.isinf(total):
        raise InvalidDurationError(option, text, "too long to be counted")
    return round(total)


def _bare_number(value: object) -> str:
    return f'a bare number has no unit: write "{value}s" or "{value}ms" (or a timedelta)'


def _no_duration(value: object) -> str:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return _bare_number(value) if is_number else f"not a duration: {_EXAMPLES}"
