"""What operators are given (the page, later dashboards and rules) names the metrics that there are, and no others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Final, cast

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from toril.telemetry.exposition import MetricsCollector
from toril.telemetry.hooks import JobOutcome, MeasuredWorker
from toril.telemetry.metrics import Depth, Metrics

ROOT: Final = Path(__file__).parents[2]
OUTCOMES: Final[tuple[JobOutcome, ...]] = ("completed", "retried", "put_back")


def everything() -> Iterator[Metric]:
    """All metrics of a process that has done something of everything."""
    metrics = Metrics()
    worker = SimpleNamespace(queue_name="q", slots_busy=1, slots_total=2, loop_blocks=0)
    meter = metrics.follow(cast("MeasuredWorker", worker))
    for outcome in OUTCOMES:
        meter.ended("n", outcome, 0.1, 0.1, is_first=True)
    metrics.of("q").depth = Depth({"waiting": 1}, 1.0)
    registry = CollectorRegistry()
    registry.register(MetricsCollector(metrics))
    return iter(registry.collect())


def labels_by_name() -> dict[str, set[str]]:
    """The names under which Prometheus stores what we show, each with its labels."""
    return {sample.name: set(sample.labels) for metric in everything() for sample in metric.samples}


def test_the_page_lists_each_metric_with_its_labels() -> None:
    page = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    listed: dict[str, set[str]] = {}
    for names, labels in re.findall(r"^\| ((?:`toril_\w+`(?:, )?)+) \|([^|]*)\|", page, re.MULTILINE):
        listed |= {name: set(re.findall(r"\w+", labels)) for name in re.findall(r"toril_\w+", names)}
    shown = {_base_name(metric): {label for sample in metric.samples for label in sample.labels} - {"le"} for metric in everything()}
    assert listed == shown


def _base_name(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name
