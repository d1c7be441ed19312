"""What speed is promised, and whether the figures of a run keep it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.benchmarks.peers import all_peers
from tests.benchmarks.report import values


@dataclass(frozen=True)
class Target:
    """A bound on a figure of ours, or on its ratio to another one's.

    Args:
        what: for the table.
        workload, figure: what is bound.
        bound: the worst that is allowed.
        at_least: whether more is better.
        ours: whose figure.
        than: to whom it is compared: a peer's key, "python" for the best of the other task queues of Python, None for nobody.
    """

    what: str
    workload: str
    figure: str
    bound: float
    at_least: bool = False
    ours: str = "toril"
    than: str | None = None

    def found(self, results: Mapping[str, Any]) -> float | None:
        """The median of the rounds' values; None if it was not measured."""
        figures = values(results, self.workload)
        others = [peer.key for peer in all_peers().values() if self.than in (peer.key, "python" if peer.is_python else None)]
        found: list[float] = []
        for number, value in figures.get((self.ours, self.figure), {}).items():
            if self.than is None:
                found.append(value)
                continue
            theirs = [figures[other, self.figure][number] for other in others if number in figures.get((other, self.figure), {})]
            if theirs:
                found.append(value / (max if self.at_least else min)(theirs))
        return statistics.median(found) if found else None

    def is_met(self, found: float) -> bool:
        return found >= self.bound if self.at_least else found <= self.bound


TARGETS: Final = (
    Target("drain, with uvloop, to Node", "drain", "drained_per_s", 1.8, at_least=True, ours="toril-uvloop", than="node"),
    Target("drain, without uvloop, to Node", "drain", "drained_per_s", 1.5, at_least=True, than="node"),
    Target("drain, to the fastest other one of Python", "drain", "drained_per_s", 12, at_least=True, than="python"),
    Target("drain, to a bare loop that calls the same script", "bare", "of_bare_loop", 0.75, at_least=True),
    Target("adds in bulk, to Node", "drain", "added_per_s", 3, at_least=True, than="node"),
    Target("one add, to one round trip of redis-py", "adds", "to_raw_round_trip", 1.3),
    Target("concurrent adds, to the rate one by one", "adds", "speedup", 5, at_least=True),
    Target("jobs of 50 ms, to the ideal", "sleep", "of_ideal", 0.97, at_least=True),
    Target("from add to start, median, to Node", "latency", "p50_ms", 0.65, than="node"),
    Target("from add to start, 99th percentile, to Node", "latency", "p99_ms", 0.65, than="node"),
    Target("last of 5,000 jobs due at one instant, to Node", "due", "last_ms", 0.7, than="node"),
    Target("a job with 1,000,000 waiting, to 20,000", "backlog", "cost_of_backlog", 1.1),
    Target("a job with 200,000 prioritized, to 20,000", "kinds", "cost_of_prioritized", 1.1),
    Target("a job beside 200,000 delayed, to none", "kinds", "cost_of_delayed", 1.1),
    Target("first start behind 10,000 jobs of a full name, ms", "names", "first_start_ms", 200),
    Target("drain beside a full name, to alone", "names", "of_alone", 0.8, at_least=True),
    Target("slowest script beside a full name, ms", "names", "slowest_script_ms", 5),
    Target("server CPU a job, to Node", "drain", "server_cpu_us", 0.65, than="node"),
    Target("memory of a waiting job, to Node", "drain", "waiting_job_bytes", 1.0, than="node"),
    Target("worker CPU a job, to Node", "drain", "worker_cpu_us", 0.65, than="node"),
    Target("memory of a worker after 200,000 jobs, MB", "memory", "rss_mb", 70),
    Target("the same, to after 100,000", "memory", "growth", 1.05),
    Target("import of all names, to what it imports of others", "start", "import_to_third_party", 1.2),
    Target("`toril --help`, ms", "start", "help_ms", 250),
    Target("example application ready, ms", "start", "ready_ms", 900),
    Target("flow of 1,000 children, to Node", "flow", "flow_ms", round(1 / 3, 3), than="node"),
)


def is_better_if_more(figure: str) -> bool:
    """Which way a figure is better."""
    return figure.endswith("_per_s") or figure.startswith("of_ideal")
