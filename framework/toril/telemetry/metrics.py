"""Counts what workers do, in plain numbers, so that they cost a job less than a microsecond. `exposition.py` shows them to Prometheus.

prometheus-client's own objects take a lock for each number, and a histogram of theirs several. All that is noted here of a job costs it
9,000 instructions, 5 % of a job without work, some 0.8 us of 18 (`make bench-telemetry`; docs/observability.md has the figures).

What is to be counted comes in the event loop's thread alone. Any thread may read, and thereby sorts what has come into its ranges.
"""

from __future__ import annotations

import importlib.util
import threading
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping
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
    """How often a value fell into which range.

    A value that comes is only kept, which takes one call in C; `fold` sorts many at once, in a tenth of the time that they would take
    one by one. One thread adds, any may fold or read.
    """

    __slots__ = ("_counts", "_folding", "_pending", "_total", "add", "bounds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        """Upper bounds of the ranges, but for the last one, which has none."""
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0
        self._pending: list[float] = []
        self._folding = threading.Lock()
        self.add: Callable[[float], None] = self._pending.append
        """Count a value; one below 0 counts as 0, since machines' clocks differ."""

    @property
    def pending(self) -> int:
        """How many values have come since the last fold."""
        return len(self._pending)

    def fold(self) -> None:
        """Put what has come into its ranges. To be called now and then, or what has come grows without end."""
        if self._pending:
            with self._folding:
                self._fold()

    def read(self) -> tuple[list[int], float]:
        """How many values fell into each range, and the sum of all."""
        with self._folding:
            self._fold()
            return self._counts.copy(), self._total

    def _fold(self) -> None:
        count = len(self._pending)  # more may come meanwhile, at the end
        values = sorted(self._pending[:count])
        del self._pending[:count]
        below = 0
        for place, bound in enumerate(self.bounds):
            up_to = bisect_right(values, bound)
            self._counts[place] += up_to - below
            below = up_to
        self._counts[-1] += count - below
        self._total += sum(values[bisect_left(values, 0.0) :])


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

    def fold(self) -> None:
        """See `Histogram.fold`."""
        self.turns.fold()
        for job in self.jobs.values():
            job.run.fold()
            job.wait.fold()
            job.end_to_end.fold()


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

    __slots__ = ("_loop_lag", "_numbers", "_worker")

    def __init__(self, worker: MeasuredWorker, numbers: QueueNumbers, loop_lag: Histogram) -> None:
        self._worker, self._numbers, self._loop_lag = worker, numbers, loop_lag

    def ended(self, name: str | None, outcome: JobOutcome, ran_s: float, waited_s: float, *, is_first: bool) -> None:
        numbers = self._numbers.jobs.get(name or OTHER) or self._numbers.of(name)
        numbers.outcomes[outcome] += 1
        numbers.run.add(ran_s)
        if is_first:
            numbers.wait.add(waited_s)
        if outcome in FINAL_OUTCOMES:
            numbers.end_to_end.add(waited_s + ran_s)

    def turn(self, round_trip_s: float, /) -> None:
        self._numbers.turns.add(round_trip_s)

    def loop_late(self, late_s: float, /) -> None:
        self._loop_lag.add(late_s)
        self._loop_lag.fold()
        self._numbers.fold()  # it is called several times a second

    def stalled(self) -> None:
        self._numbers.stalled += 1

    def lock_lost(self) -> None:
        self._numbers.locks_lost += 1

    def close(self) -> None:
        self._numbers.loop_blocks += self._worker.loop_blocks
        self._numbers.workers.remove(self._worker)
