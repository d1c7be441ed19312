"""What is near to a misspelt name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def snake(name: str) -> str:
    """A name as Python writes it: `jobId` is `job_id`."""
    return _CAMEL.sub("_", name).lower()


def near(name: str, known: Iterable[str], limit: int = 3) -> tuple[str, ...]:
    """The known names that look most like `name`, best first.

    >>> near("atempts", ["attempts", "delay"]), near("jobId", ["job_id", "jobs"])
    (('attempts',), ('job_id',))
    """
    by_plain = {other.strip("'"): other for other in known}
    plain = name.strip("'")
    if (as_here := snake(plain)) in by_plain:
        return (by_plain[as_here],)
    found = difflib.get_close_matches(plain, by_plain, n=limit, cutoff=0.7)
    return tuple(by_plain[each] for each in found)
