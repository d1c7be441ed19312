"""What operators are given (the page, the dashboard, the alert rules) names the metrics that there are, with the labels that they have."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import promql_parser
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from toril.telemetry.exposition import MetricsCollector
from toril.telemetry.hooks import JobOutcome, MeasuredWorker
from toril.telemetry.metrics import Depth, Metrics

ROOT: Final = Path(__file__).parents[2]
RULES: Final = ROOT / "config/prometheus/alerts.yml"
DASHBOARD: Final = ROOT / "config/grafana/toril.json"
OF_THE_SCRAPE: Final = {"instance", "process", "job"}
"""Labels that come on top: from Prometheus, and from a supervisor."""

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


# ── expressions ───────────────────────────────────────────────────────────────────────────────────────────────


def rules() -> list[dict[str, Any]]:
    yaml: Any = importlib.import_module("yaml")  # it has no types of its own
    return [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(DASHBOARD.read_text(encoding="utf-8")))


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> dict[str, str]:
    """By what they are for; Grafana's variables replaced as it does."""
    found = {f"alert {rule['alert']}": rule["expr"] for rule in rules()}
    for panel in panels():
        for target in panel["targets"]:
            found[f"panel {panel['title']}, {panel['id']}{target['refId']}"] = target["expr"]
    return {name: text.replace("$__rate_interval", "5m").replace("$queue", ".*") for name, text in found.items()}


@pytest.mark.parametrize("name", expressions())
def test_an_expression_is_one_and_asks_for_what_there_is(name: str) -> None:
    text, known = expressions()[name], labels_by_name()
    selected: list[promql_parser.VectorSelector] = []

    def visit(expression: promql_parser.Expr) -> None:
        if isinstance(expression, promql_parser.MatrixSelector):
            selected.append(expression.vector_selector)
        elif isinstance(expression, promql_parser.VectorSelector):
            selected.append(expression)

    promql_parser.walk(promql_parser.parse(text), visit)
    assert selected
    labels: set[str] = set()
    for selector in selected:
        assert selector.name in known
        matched = {matcher.name for matcher in selector.matchers.matchers}
        assert matched <= known[selector.name]
        labels |= known[selector.name]
    grouped = {label for group in re.findall(r"(?:by|on) \(([^)]*)\)", text) for label in re.findall(r"\w+", group)}
    assert grouped <= labels | OF_THE_SCRAPE


@pytest.mark.parametrize(("label", "values"), [("outcome", {"completed", "failed", "cancelled"}), ("state", {"waiting", "prioritized"})])
def test_values_that_are_asked_for_exist(label: str, values: set[str]) -> None:
    asked = {value for text in expressions().values() for found in re.findall(rf'{label}=~?"([^"]*)"', text) for value in found.split("|")}
    assert asked
    assert asked <= values


def test_what_a_text_names_is_a_label_that_its_expression_leaves() -> None:
    for rule in rules():
        named = {name for text in rule["annotations"].values() for name in re.findall(r"\$labels\.(\w+)", text)}
        assert rule["labels"]["severity"] in {"page", "ticket"}
        aggregated = re.findall(r"by \(([^)]*)\)", rule["expr"])
        left = set(re.findall(r"\w+", aggregated[0])) if aggregated else labels_by_name()["toril_slots"] | OF_THE_SCRAPE
        assert named <= left, rule["alert"]
    for panel in panels():
        for target in panel["targets"]:
            grouped = re.findall(r"by \(([^)]*)\)", target["expr"])
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= set(re.findall(r"\w+", grouped[0] if grouped else ""))


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    found = dashboard()["panels"]
    assert len({panel["id"] for panel in found}) == len(found)
    places = [
        (panel["gridPos"]["x"] + column, panel["gridPos"]["y"] + row)
        for panel in found
        for column in range(panel["gridPos"]["w"])
        for row in range(panel["gridPos"]["h"])
    ]
    assert len(set(places)) == len(places)
    assert max(column for column, _ in places) == 23


def test_the_page_names_each_alert() -> None:
    page = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    assert set(re.findall(r"Toril[A-Z]\w+", page)) == {rule["alert"] for rule in rules()}


@pytest.mark.parametrize("arguments", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")])
def test_prometheus_own_tool_agrees(arguments: tuple[str, ...]) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool (Debian: the package prometheus)")
    done = subprocess.run(["promtool", *arguments], cwd=RULES.parent, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
