"""The page of the benchmarks says what the figures say."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.bench_docs import figures, shown, wins
from tests.benchmarks.peers import all_peers
from tests.benchmarks.targets import Target


def results(**rates: list[float]) -> dict[str, Any]:
    """Figures of drains, by peer and round."""
    return {
        "date": "2026-01-01",
        "machine": {"cores": 2, "processor": "a processor", "python": "3.11", "system": "Linux"},
        "versions": {peer.replace("_", "-"): "1.0" for peer in rates},
        "rounds": [
            {"round": number, "workload": "drain", "peer": peer.replace("_", "-"), "load": 1.0, "figures": {"drained_per_s": rate}}
            for peer, several in rates.items()
            for number, rate in enumerate(several)
        ],
    }


def test_a_target_is_the_median_of_the_rounds_ratios_not_the_ratio_of_medians() -> None:
    target = Target("drain", "drain", "drained_per_s", 1.8, at_least=True, than="node")
    found = target.found(results(toril=[10, 40, 20], node=[5, 10, 20]))
    assert found is not None
    assert found == 2.0
    assert target.is_met(found)
    assert not target.is_met(1.79)


def test_a_target_against_the_others_of_python_takes_the_fastest_of_each_round() -> None:
    target = Target("drain", "drain", "drained_per_s", 12, at_least=True, than="python")
    assert target.found(results(toril=[100, 100, 100], arq=[1, 5, 10], bullmq_python=[10, 2, 1], node=[99, 99, 99])) == 10.0
    assert target.found(results(toril=[100], node=[99])) is None


def test_the_page_tells_where_a_peer_wins_and_which_targets_are_missed() -> None:
    measured = results(toril=[10, 10], node=[20, 20], arq=[1, 1])
    peers = [all_peers()[key] for key in ("toril", "node", "arq")]
    assert wins(measured, peers) == ["- **BullMQ on Node**, drained, jobs/s: 20.0; Toril's is 0.50 times that."]
    page = figures(measured)
    assert "| drain, without uvloop, to Node | ≥ 1.5 | 0.50 | **no** |" in page
    assert "| `toril --help`, ms | ≤ 250 | – | not measured |" in page


def test_numbers_are_shown_with_three_digits_that_count() -> None:
    assert [shown(value) for value in (12_345.6, 123.4, 12.34, 1.234, None)] == ["12,346", "123", "12.3", "1.23", "–"]
