"""What the figures of a run say: medians, and medians of the rounds' ratios."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from tests.benchmarks.workloads import WORKLOADS

Values = Mapping[tuple[str, str], list[float]]
"""By peer and figure, a value a round."""


def values(results: Mapping[str, Any], workload: str) -> dict[tuple[str, str], list[float]]:
    """The figures of one workload."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in results["rounds"]:
        if row["workload"] == workload:
            for figure, value in row["figures"].items():
                found.setdefault((row["peer"], figure), []).append(value)
    return found


def ratio(found: Values, figure: str, one: str, other: str) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(found[one, figure], found[other, figure], strict=True))


def table(results: Mapping[str, Any]) -> str:
    """For the terminal: the median of each figure, and how Toril's stands to it."""
    lines: list[str] = []
    for key, workload in WORKLOADS.items():
        found = values(results, key)
        for figure in dict.fromkeys(figure for _, figure in found):
            lines.append(f"\n{workload.title}: {figure}")
            for peer in (peer for peer, name in found if name == figure):
                ours = "" if ("toril", figure) not in found else f"   Toril's is {ratio(found, figure, 'toril', peer):6.2f} x"
                lines.append(f"  {peer:14}{statistics.median(found[peer, figure]):14,.2f}{ours}")
    return "\n".join(lines)
