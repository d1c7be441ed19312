"""What is near to a misspelt name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

_ENOUGH: Final = 0.7
_SHORT: Final = 12
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def snake(name: str) -> str:
    """A name as Python writes it: `jobId` is `job_id`."""
    return _CAMEL.sub("_", name).lower()


def near(name: str, known: Iterable[str], limit: int = 3) -> tuple[str, ...]:
    """The known names that look most like `name`, best first.

    >>> near("atempts", ["attempts", "delay"]), near("jobId", ["job_id", "jobs"])
    (('attempts',), ('job_id',))
    >>> near("mial", ["mails", "audit"]), near("app", ["App", "module"])
    (('mails',), ('App',))
    """
    by_plain = {other.strip("'"): other for other in known}
    plain = name.strip("'")
    if (as_here := snake(plain)) in by_plain:
        return (by_plain[as_here],)
    likeness = {other: _likeness(plain, other) for other in by_plain}
    best = sorted((other for other in by_plain if likeness[other] >= _ENOUGH), key=likeness.__getitem__, reverse=True)
    return tuple(by_plain[each] for each in best[:limit])


def _likeness(name: str, other: str) -> float:
    """From 0 to 1. Two letters that have changed places count as one small mistake: in a short name, they are half of it."""
    if name.lower() == other.lower():
        return 1
    swapped = [f"{name[:at]}{name[at + 1]}{name[at]}{name[at + 2 :]}" for at in range(len(name) - 1)] if len(name) <= _SHORT else []
    return max(_ratio(name, other), *(_ratio(one, other) - 0.1 for one in swapped), 0)


def _ratio(name: str, other: str) -> float:
    return difflib.SequenceMatcher(None, name, other).ratio()
