"""The comparing benchmark drives BullMQ on Node, on few jobs."""

from __future__ import annotations

import pytest

from tests.benchmarks import long_measures
from tests.benchmarks.peers import all_peers, toril_here
from tests.benchmarks.workloads import WORKLOADS


@pytest.mark.parametrize("name", [name for name, workload in WORKLOADS.items() if workload.is_for(all_peers()["node"])])
async def test_a_workload_runs_on_node(node_is_there: None, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_measures, "all_peers", lambda: {"toril": toril_here()})  # it fills the queue of a backlog
    figures = await WORKLOADS[name].measure(all_peers()["node"], share=0.02)
    assert all(value > 0 for value in figures.values()), figures
