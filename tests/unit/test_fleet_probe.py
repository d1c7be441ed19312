"""What the probes say of several processes, by what those answer. Real ones are in `server/test_probes.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from toril.cli.fleet_probe import FleetProbe
from toril.cli.probes import listen
from toril.cli.worker_process import WorkerProcess


@dataclass
class Process:
    """One that answers so, or not at all."""

    number: int
    answer: Any = field(default_factory=list[str])
    silent_ms: int = 0

    async def ask(self, question: str, timeout_s: float) -> Any:  # noqa: ANN401 -- whatever the test says
        if self.answer is None:
            raise TimeoutError
        return self.answer


@dataclass
class Fleet:
    told: Sequence[Process]
    missing: Sequence[int] = ()
    is_stopping: bool = False

    @property
    def processes(self) -> list[WorkerProcess]:
        return cast("list[WorkerProcess]", list(self.told))


async def say(question: str, *processes: Process, missing: Sequence[int] = (), is_stopping: bool = False) -> Sequence[str]:
    probe = FleetProbe(Fleet(processes, missing, is_stopping), asyncio.get_running_loop())
    return await asyncio.to_thread(probe.livez if question == "livez" else probe.readyz)


async def test_all_is_well_where_each_process_says_so() -> None:
    for question in ("livez", "readyz"):
        assert await say(question, Process(1), Process(2)) == []


async def test_each_problem_names_its_process() -> None:
    assert await say("readyz", Process(1), Process(2, ["queue q: gone", "queue r: gone"])) == [
        "process 2: queue q: gone",
        "process 2: queue r: gone",
    ]


async def test_a_missing_and_a_silent_process_are_no_reason_to_restart_the_others() -> None:
    silent = Process(2, None, silent_ms=200_000)
    assert await say("livez", Process(1), silent, missing=[3]) == []
    assert await say("readyz", Process(1), silent, missing=[3]) == ["process 3: it is not running", "process 2: no answer within 3s"]


async def test_a_process_that_stays_silent_as_long_as_a_loop_may_be_blocked_is_dead() -> None:
    assert await say("livez", Process(1), Process(2, None, silent_ms=301_000)) == ["process 2: no answer for 5m1s"]


async def test_while_it_stops_nobody_is_asked() -> None:
    assert await say("readyz", Process(1, None), is_stopping=True) == ["the worker is stopping"]


async def test_metrics_of_all_kinds_keep_their_kind_and_get_their_process() -> None:
    def text(value: float) -> str:
        registry = CollectorRegistry()
        Counter("jobs", "Jobs.", ["queue"], registry=registry).labels('odd "name"\n').inc(value)
        Gauge("slots", "Slots.", registry=registry).set(value)
        Histogram("wait_seconds", "Wait.", buckets=(1, 10), registry=registry).observe(value)
        return generate_latest(registry).decode()

    probe = FleetProbe(Fleet([Process(1, text(2)), Process(2, text(20)), Process(3, None)]), asyncio.get_running_loop())
    merged = (await asyncio.to_thread(probe.metrics)).decode()
    for line in (
        "# TYPE jobs_total counter",
        r'jobs_total{process="1",queue="odd \"name\"\n"} 2.0',
        r'jobs_total{process="2",queue="odd \"name\"\n"} 20.0',
        'slots{process="2"} 20.0',
        "# TYPE wait_seconds histogram",
        'wait_seconds_bucket{le="10.0",process="1"} 1.0',
        'wait_seconds_bucket{le="10.0",process="2"} 0.0',
        'wait_seconds_sum{process="2"} 20.0',
    ):
        assert merged.splitlines().count(line) == 1, merged


@pytest.mark.parametrize(("error", "is_told"), [(BrokenPipeError(), False), (ConnectionResetError(), False), (ValueError("odd"), True)])
def test_a_client_that_leaves_is_no_error_of_ours(caplog: pytest.LogCaptureFixture, error: Exception, is_told: bool) -> None:
    with listen("0") as listener:
        try:
            raise error
        except Exception:  # noqa: BLE001 -- as http.server calls it
            listener.handle_error(None, None)
    assert ("a probe can't be answered" in caplog.text) is is_told
