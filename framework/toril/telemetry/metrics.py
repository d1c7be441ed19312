"""Counts what workers do, in plain numbers, so that a job costs about a microsecond. `exposition.py` shows them to Prometheus.

prometheus-client's own objects take a lock for each number, and a histogram of theirs several: for the three histograms and the counter
of a job they need 1.9 us, these 0.5 us (measured; a job without work takes 35 us in all).

Numbers are changed by the event loop's thread alone, and may be read by any.
"""

from __future__ import annotations

import importlib.util
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from toril.errors import MissingExtraError
from toril.telemetry.hooks import FINAL_OUTCOMES, HOOKS, JobOutcome, MeasuredWorker

if TYPE_CHECKING:
    from prometheus_client.registry import CollectorRegistry

JOB_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800, 7_200)
TURN_BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
LOOP_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 10, 60)

MOST_NAMES: Final = 100
"""So many job names of a queue have numbers of their own. A handler of every name could meet any number of them."""

OTHER: Final = "other"
"""All further names, and those that nobody here handles: they come from outside, and may be made up."""


class Histogram:
    """How often a value fell into which range."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        """Upper bounds of the ranges, but for the last one, which has none."""
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value; one below 0 counts as 0, since machines' clocks differ."""
        if value > 0:
            self.counts[bisect_left(self.bounds, value)] += 1
            self.total += value
        else:
            self.counts[0] += 1


def _job_histogram() -> Histogram:
    return Histogram(JOB_BOUNDS_S)


_SHOWN_FROM_THE_START: Final[dict[JobOutcome, int]] = {"completed": 0, "failed": 0, "retried": 0}
"""Prometheus sees a counter rise only if it has seen it before: the first failure of a name would be missed."""


@dataclass(slots=True)
class JobNumbers:
    """The numbers of one job name of one queue."""

    outcomes: defaultdict[JobOutcome, int] = field(default_factory=lambda: defaultdict(int, _SHOWN_FROM_THE_START))
    wait: Histogram = field(default_factory=_job_histogram)
    run: Histogram = field(default_factory=_job_histogram)
    end_to_end: Histogram = field(default_factory=_job_histogram)


@dataclass(frozen=True, slots=True)
class Depth:
    """What waited in a queue when somebody looked."""

    counts: Mapping[str, int]
    """Jobs by state."""
    oldest_waiting_s: float
    """How long the job that is next in line has been waiting; 0: none is."""


@dataclass(slots=True)
class QueueNumbers:
    """The numbers of one queue, over all workers of it that this process has had: what a `WorkerMeter` counts up."""

    jobs: dict[str, JobNumbers] = field(default_factory=dict[str, JobNumbers])
    turns: Histogram = field(default_factory=lambda: Histogram(TURN_BOUNDS_S))
    stalled: int = 0
    locks_lost: int = 0
    loop_blocks: int = 0
    """Of workers that have stopped."""
    workers: list[MeasuredWorker] = field(default_factory=list[MeasuredWorker])
    depth: Depth | None = None
    """As it was last looked at; None if that failed."""

    def of(self, name: str | None) -> JobNumbers:
        """The numbers of this job name."""
        key = OTHER if name is None else name
        numbers = self.jobs.get(key)
        if numbers is None:
            if len(self.jobs) >= MOST_NAMES and key != OTHER:
                return self.of(None)
            numbers = self.jobs[key] = JobNumbers()
        return numbers


class Metrics:
    """The numbers of this process. A `Meter`; `measure_jobs` installs one."""

    def __init__(self) -> None:
        self.queues: dict[str, QueueNumbers] = {}
        self.loop_lag = Histogram(LOOP_BOUNDS_S)
        self.shown_in: list[CollectorRegistry] = []

    def of(self, queue: str) -> QueueNumbers:
        """The numbers of this queue."""
        return self.queues.setdefault(queue, QueueNumbers())

    def follow(self, worker: MeasuredWorker) -> QueueMeter:
        """Count what this worker does, from now on."""
        numbers = self.of(worker.queue_name)
        numbers.workers.append(worker)
        return QueueMeter(worker, numbers, self.loop_lag)


def measure_jobs(registry: CollectorRegistry | None = None) -> Metrics:
    """Count what workers of this process do that begin to run from now on, and show it among the metrics of prometheus-client.

    `toril worker --probe-address` calls this. Call it where workers run in a process that shows its metrics itself. A second call
    shows the same numbers in another registry, too.

    Args:
        registry: where; not given: prometheus-client's own.

    Raises:
        MissingExtraError: prometheus-client isn't installed.
    """
    if importlib.util.find_spec("prometheus_client") is None:
        raise MissingExtraError("measuring jobs", "metrics", "prometheus-client")
    from prometheus_client import REGISTRY

    from toril.telemetry.exposition import MetricsCollector

    metrics = HOOKS.meter if isinstance(HOOKS.meter, Metrics) else Metrics()
    HOOKS.meter = metrics
    shown_in = REGISTRY if registry is None else registry
    if shown_in not in metrics.shown_in:
        metrics.shown_in.append(shown_in)
        shown_in.register(MetricsCollector(metrics))
    return metrics


class QueueMeter:
    """A `WorkerMeter`: counts what one worker does among the numbers of its queue."""

    __slots__ = ("_numbers", "_worker", "loop_late", "turn")

    def __init__(self, worker: MeasuredWorker, numbers: QueueNumbers, loop_lag: Histogram) -> None:
        self._worker, self._numbers = worker, numbers
        self.turn = numbers.turns.add
        self.loop_late = loop_lag.add

    def ended(self, name: str | None, outcome: JobOutcome, ran_s: float, waited_s: float, *, is_first: bool) -> None:
        numbers = self._numbers.jobs.get(name or OTHER) or self._numbers.of(name)
        numbers.outcomes[outcome] += 1
        numbers.run.add(ran_s)
        if is_first:
            numbers.wait.add(waited_s)
        if outcome in FINAL_OUTCOMES:
            numbers.end_to_end.add(waited_s + ran_s)

    def stalled(self) -> None:
        self._numbers.stalled += 1

    def lock_lost(self) -> None:
        self._numbers.locks_lost += 1

    def close(self) -> None:
        self._numbers.loop_blocks += self._worker.loop_blocks
        self._numbers.workers.remove(self._worker)
