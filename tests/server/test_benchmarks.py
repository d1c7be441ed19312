"""The comparing benchmark measures what it says, on few jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks import bench_telemetry
from tests.benchmarks.bench_peers import plan
from tests.benchmarks.peers import all_peers, toril_here
from tests.benchmarks.report import ratio, values
from tests.benchmarks.stand import WrongRunError, stand
from tests.benchmarks.workloads import WORKLOADS
from toril.embedded import ensure_server
from toril.telemetry.hooks import HOOKS


@pytest.mark.parametrize(
    "name", ["drain", "bare", "adds", "latency", "due", "flow", "names"]
)  # the others are made of the same parts, and take long
async def test_a_workload_runs_and_all_its_figures_are_positive(name: str) -> None:
    figures = await WORKLOADS[name].measure(toril_here(), share=0.02)
    assert figures
    assert all(value > 0 for value in figures.values()), figures


@pytest.mark.blocks_the_loop  # the server starts in it
async def test_the_cost_of_telemetry_is_measured_in_all_ways_in_each_round(tmp_path: Path) -> None:
    with ensure_server(tmp_path) as server:  # of its own: it is emptied
        figures = await bench_telemetry.measure(server.url, jobs=60, rounds=2)
    assert (HOOKS.meter, HOOKS.tracer) == (None, None)
    assert {name: len(seconds) for name, seconds in figures.items()} == dict.fromkeys(bench_telemetry.WAYS, 2)
    assert all(seconds > 0 for each in figures.values() for seconds in each)


def test_a_cost_beyond_what_is_promised_is_told() -> None:
    figures = {name: [1.0, 2.0, 4.0] for name in bench_telemetry.WAYS} | {"metrics": [1.04, 2.2, 4.4]}
    ratio, spread = bench_telemetry.ratio_to_off(figures, "metrics")
    assert (ratio, *spread) == pytest.approx((1.1, 1.04, 1.1))
    assert bench_telemetry.table(figures, 1).endswith("NOT met")
    assert bench_telemetry.table(figures | {"metrics": figures["off"]}, 1).endswith("promised: met")


@pytest.mark.parametrize("outcome", [{"doubled": 1, "missing": 0}, {"doubled": 0, "missing": 2}])
async def test_a_run_in_which_a_job_ran_twice_or_never_gives_no_figures(outcome: dict[str, int]) -> None:
    async with stand(toril_here()) as here:
        here.check({"doubled": 0, "missing": 1}, left_out=1)
        with pytest.raises(WrongRunError):
            here.check(outcome, left_out=1)


def test_every_peer_takes_part_in_each_round_and_the_order_turns_around() -> None:
    peers = [all_peers()[key] for key in ("toril", "node")]
    assert [(number, peer.key) for number, _, peer in plan(["drain"], peers, 2)] == [(1, "toril"), (1, "node"), (2, "node"), (2, "toril")]


def test_a_ratio_is_the_median_of_the_rounds_in_which_both_were_measured() -> None:
    pairs = [(10.0, 5.0), (30.0, 10.0), (4.0, 4.0), (1.0, None)]
    rows = [
        {"round": number, "workload": "drain", "peer": peer, "figures": {} if value is None else {"per_s": value}}
        for number, pair in enumerate(pairs)
        for peer, value in zip(("toril", "node"), pair, strict=True)
    ]
    assert ratio(values({"rounds": rows}, "drain"), "per_s", "toril", "node") == 2.0
    assert ratio(values({"rounds": rows}, "drain"), "per_s", "toril", "saq") is None
