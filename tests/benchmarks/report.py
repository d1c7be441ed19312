"""What the figures of a run say: medians, and medians of the rounds' ratios."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from tests.benchmarks.workloads import WORKLOADS

Values = Mapping[tuple[str, str], Mapping[int, float]]
"""By peer and figure, the rounds' values."""


def values(results: Mapping[str, Any], workload: str) -> Values:
    """The figures of one workload."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for row in results["rounds"]:
        if row["workload"] == workload:
            for figure, value in row["figures"].items():
                found.setdefault((row["peer"], figure), {})[row["round"]] = value
    return found


def ratio(found: Values, figure: str, one: str, other: str) -> float | None:
    """The median of the ratios of those rounds in which both were measured; None if there is none."""
    ours, theirs = found.get((one, figure), {}), found.get((other, figure), {})
    ratios = [ours[number] / theirs[number] for number in ours if number in theirs]
    return statistics.median(ratios) if ratios else None


def table(results: Mapping[str, Any]) -> str:
    """For the terminal: the median of each figure, and how Toril's stands to it."""
    lines: list[str] = []
    for key, workload in WORKLOADS.items():
        found = values(results, key)
        for figure in dict.fromkeys(figure for _, figure in found):
            lines.append(f"\n{workload.title}: {figure}")
            for peer in (peer for peer, name in found if name == figure):
                ours = ratio(found, figure, "toril", peer)
                compared = "" if ours is None or peer == "toril" else f"   Toril's is {ours:6.2f} x"
                lines.append(f"  {peer:14}{statistics.median(found[peer, figure].values()):14,.2f}{compared}")
    return "\n".join(lines)
