"""Shows the numbers of this process to Prometheus: the one place that knows what each metric is called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from toril.telemetry.hooks import FINAL_OUTCOMES
from toril.telemetry.metrics import Histogram, Metrics, QueueNumbers

QUEUE: Final = ("queue",)
JOB: Final = ("queue", "name")


class MetricsCollector(Collector):
    """Reads the numbers when somebody asks, in whatever thread."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        queues = sorted(self._metrics.queues.copy().items())
        yield from _of_jobs(queues)
        yield from _of_workers(queues)
        yield from _of_queues(queues)
        lag = HistogramMetricFamily("toril_loop_lag_seconds", "How late the event loop came to what was due, seen 4 times a second.")
        lag.add_metric([], *_shown(self._metrics.loop_lag))
        yield lag

    def describe(self) -> Iterator[Metric]:
        """Their names, of which a registry sees to it that no other collector has them."""
        return self.collect()


def _of_jobs(queues: list[tuple[str, QueueNumbers]]) -> Iterator[Metric]:
    jobs = CounterMetricFamily(
        "toril_jobs", "Jobs that have ended, by outcome: completed, failed (for good), cancelled.", labels=(*JOB, "outcome")
    )
    retries = CounterMetricFamily("toril_retries", "Attempts that failed, after which the job runs again.", labels=JOB)
    put_back = CounterMetricFamily(
        "toril_put_back",
        "Attempts that neither ended their job nor failed, by reason: delayed, put_back (on request, or the worker stopped), rate_limited, "
        "waiting_children, unknown_name, lost (it ran on elsewhere, or its end could not be written).",
        labels=(*JOB, "reason"),
    )
    wait = HistogramMetricFamily(
        "toril_job_wait_seconds", "From when a job could run (added, or its delay over) until its first attempt began.", labels=JOB
    )
    run = HistogramMetricFamily("toril_job_run_seconds", "How long a handler ran, in one attempt.", labels=JOB)
    end_to_end = HistogramMetricFamily(
        "toril_job_end_to_end_seconds", "From when a job could run until it had ended, all its attempts and pauses included.", labels=JOB
    )
    for queue, numbers in queues:
        for name, job in sorted(numbers.jobs.copy().items()):
            labels = [queue, name]
            for outcome, count in job.outcomes.copy().items():
                if outcome in FINAL_OUTCOMES:
                    jobs.add_metric([*labels, outcome], count)
                elif outcome == "retried":
                    retries.add_metric(labels, count)
                else:
                    put_back.add_metric([*labels, outcome], count)
            for family, histogram in ((wait, job.wait), (run, job.run), (end_to_end, job.end_to_end)):
                family.add_metric(labels, *_shown(histogram))
    yield from (jobs, retries, put_back, wait, run, end_to_end)


def _of_workers(queues: list[tuple[str, QueueNumbers]]) -> Iterator[Metric]:
    stalled = CounterMetricFamily("toril_stalled_jobs", "Jobs of dead workers that a worker of this process has put back.", labels=QUEUE)
    locks_lost = CounterMetricFamily("toril_locks_lost", "Locks that were lost while a handler ran, and was cancelled.", labels=QUEUE)
    blocks = CounterMetricFamily(
        "toril_loop_blocks", "Times that the event loop was blocked for more than loop_block_warning.", labels=QUEUE
    )
    busy = GaugeMetricFamily("toril_slots_busy", "Jobs that run now.", labels=QUEUE)
    total = GaugeMetricFamily("toril_slots", "Jobs that may run at the same time.", labels=QUEUE)
    turns = HistogramMetricFamily("toril_turn_seconds", "How long the server took for a turn, which ends and claims jobs.", labels=QUEUE)
    for queue, numbers in queues:
        workers = numbers.workers.copy()
        stalled.add_metric([queue], numbers.stalled)
        locks_lost.add_metric([queue], numbers.locks_lost)
        blocks.add_metric([queue], numbers.loop_blocks + sum(worker.loop_blocks for worker in workers))
        busy.add_metric([queue], sum(worker.slots_busy for worker in workers))
        total.add_metric([queue], sum(worker.slots_total for worker in workers))
        turns.add_metric([queue], *_shown(numbers.turns))
    yield from (stalled, locks_lost, blocks, busy, total, turns)


def _of_queues(queues: list[tuple[str, QueueNumbers]]) -> Iterator[Metric]:
    jobs = GaugeMetricFamily(
        "toril_queue_jobs", "Jobs of the queue by state, the same for all who ask: take the maximum, not the sum.", labels=(*QUEUE, "state")
    )
    oldest = GaugeMetricFamily(
        "toril_queue_oldest_waiting_seconds",
        "How long the job that is next in line has been waiting since it was added or its delay was over; 0 if none waits.",
        labels=QUEUE,
    )
    for queue, numbers in queues:
        depth = numbers.depth
        if depth is not None:
            for state, count in depth.counts.items():
                jobs.add_metric([queue, state], count)
            oldest.add_metric([queue], depth.oldest_waiting_s)
    yield from (jobs, oldest)


def _shown(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """As Prometheus wants it: each range with all below it, and the sum of all values."""
    shown: list[tuple[str, float]] = []
    so_far = 0
    counts, total = histogram.read()
    for bound, count in zip((*map(float, histogram.bounds), "+Inf"), counts, strict=True):
        so_far += count
        shown.append((str(bound), so_far))
    return shown, total
