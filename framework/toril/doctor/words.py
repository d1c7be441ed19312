"""How findings say things."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from toril.units import format_ms

_MOST_LISTED: Final = 5


def span_text(ms: int) -> str:
    """A length of time as people read it: its two largest units, and no milliseconds above a second.

    >>> span_text(3_723_004), span_text(59_900), span_text(12)
    ('1h2m', '59s', '12ms')
    """
    for unit_ms, next_ms in ((86_400_000, 3_600_000), (3_600_000, 60_000), (1_000, 1_000)):
        if ms >= unit_ms:
            return format_ms(ms // next_ms * next_ms)
    return format_ms(ms)


def jobs_word(count: int) -> str:
    """A number of jobs."""
    return "1 job" if count == 1 else f"{count:,} jobs"


def listed(texts: Sequence[str]) -> str:
    """The first few of them, and how many there are beside."""
    shown = ", ".join(texts[:_MOST_LISTED])
    return shown if len(texts) <= _MOST_LISTED else f"{shown} and {len(texts) - _MOST_LISTED:,} more"
