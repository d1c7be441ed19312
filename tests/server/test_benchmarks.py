"""The comparing benchmark measures what it says, on few jobs."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from types import FunctionType
from typing import Final

import pytest

from tests.benchmarks import bench_telemetry
from tests.benchmarks.bench_drain import fill
from tests.benchmarks.bench_peers import plan
from tests.benchmarks.peers import all_peers, toril_here
from tests.benchmarks.report import ratio, values
from tests.benchmarks.stand import WrongRunError, stand
from tests.benchmarks.workloads import WORKLOADS
from toril import Queue
from toril.embedded import ensure_server
from toril.telemetry.hooks import HOOKS
from toril.wire.connection import Server
from toril.worker.attempts import Attempts

ROOT: Final = Path(__file__).parents[2]


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
    told = bench_telemetry.table(figures, 1)
    assert told.endswith("metrics: 1.100 x off is the median of 1.040 1.100 1.100\nat most 1.05 is promised: not met")
    assert bench_telemetry.table(figures | {"metrics": figures["off"]}, 1).endswith("promised: met")


def test_what_is_cut_out_asks_nobody_and_comes_back() -> None:
    def methods() -> list[FunctionType]:
        return [vars(owner)[name] for owner, name in bench_telemetry.ASKING]

    def asks(method: FunctionType) -> bool:
        return not {"observer", "on_round_trip"}.isdisjoint(method.__code__.co_names)

    before = methods()
    with bench_telemetry.cut_out(0):
        assert [asks(method) for method in before] == [True] * 4
        assert [asks(method) for method in methods()] == [False] * 4
    assert methods() == before
    with pytest.raises(WrongRunError, match="start doesn't ask"):
        bench_telemetry.without_questions(vars(Attempts)["start"])


async def test_the_process_that_is_counted_learns_the_address_from_its_environment(
    server: Server, toril_server_url: str, prefix: str
) -> None:
    async def run(url: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.benchmarks.bench_telemetry", "--drain", "off", prefix, "3"),
            cwd=ROOT, env=os.environ | {"REDIS_URL": url}, stdout=PIPE, stderr=STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(60):
            told, _ = await process.communicate()
        return process.returncode or 0, told.decode()

    async with Queue("bench", prefix=prefix, server=server) as queue:
        await fill(queue, 3)
        assert await run(toril_server_url) == (0, "")
        assert await queue.get_completed_count() == 3
    code, told = await run("redis://:s3cret-word@127.0.0.1:no-port")
    assert code == 1
    assert "Error: " in told
    assert "s3cret-word" not in told


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
