"""In each situation the command line alone shows the cause, and what it says to do is the cure."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cli.command import Cli
from tests.scenarios.situations import SITUATIONS
from tests.scenarios.stage import APPLICATION, PREFIX, PROJECT, Stage, stage
from toril.clock import SystemClock
from toril.doctor.examination import examine
from toril.doctor.findings import Severity
from toril.testing import eventually
from toril.wire.discovery import queue_names

pytestmark = [pytest.mark.timeout(180), pytest.mark.blocks_the_loop]

MENDED: Final = {"MENDED": "1"}
"""The deploy that mends the application."""


@pytest.fixture
async def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """The stage on which the situation plays that the test is called after."""
    monkeypatch.setenv("SHORT_LIMIT_PAUSE", "1")
    name = request.function.__name__.removeprefix("test_").replace("_", "-")
    async with stage(tmp_path, **SITUATIONS[name].server) as made:
        await SITUATIONS[name].set_up(made)
        yield made


@pytest.fixture
def cli(place: Stage) -> Cli:
    return Cli(PROJECT, place.environment)


async def causes(cli: Cli) -> dict[str, Any]:
    """What the doctor finds that is an error or a warning, by the names of the checks."""
    document = (await cli("doctor", "--json", "--fail-on", "warning", code=1)).document
    return {one["check"]: one for one in document["findings"] if one["severity"] in ("error", "warning")}


async def is_cured(place: Stage, cli: Cli) -> None:
    """The doctor finds nothing that is an error or a warning: first its checks, as often as it takes, and then the command."""

    async def finds_nothing() -> None:
        queues = [place.queue(name) for name in await queue_names(place.server, PREFIX)]
        found = [one async for one in examine(place.server, PREFIX, queues, SystemClock(), are_all=True)]
        assert [one for one in found if one.severity >= Severity.WARNING] == []

    await eventually(finds_nothing, timeout="60s")
    assert (await cli("doctor", "--json", "--fail-on", "warning")).document["worst"] in ("ok", "info")


async def has_counts(place: Stage, queue: str, **counts: int) -> None:
    async def are_there() -> None:
        found = await place.queue(queue).get_job_counts()
        assert {state: count for state, count in found.items() if state in counts} == counts

    await eventually(are_there, timeout="60s")


async def end_workers(place: Stage) -> None:
    for worker in place.workers:
        if worker.returncode is None:
            worker.terminate()
            await worker.wait()


async def test_stuck_queue(place: Stage, cli: Cli) -> None:
    found = await causes(cli)
    assert found.keys() == {"workers", "locks"}
    assert (found["workers"]["queue"], found["workers"]["facts"]["waiting"]) == ("emails", 12)
    assert "--queues emails" in found["workers"]["fix"]
    await place.start_worker("--queues", "emails")
    await has_counts(place, "emails", waiting=0, active=0, completed=13)
    await is_cured(place, cli)


async def test_no_handler(place: Stage, cli: Cli) -> None:
    found = await causes(cli)
    assert found.keys() == {"handlers"}
    assert found["handlers"]["facts"] == {"unhandled": {"invoice": 5}, "handled": ["welcome"]}
    assert "no running worker handles 'invoice' (" in (await cli("check", "--handled", code=1)).out
    await end_workers(place)  # of the old release: they would go on to put the jobs back
    await place.start_worker("--roles", "worker")  # the release that has it
    await is_cured(place, cli)
    await cli("job", "promote", "emails", "--all", "--name", "invoice", "--yes")
    await has_counts(place, "emails", delayed=0, completed=6)


async def test_poison_job(place: Stage, cli: Cli) -> None:
    found = await causes(cli)
    assert found["poison"]["facts"] == {"names": {"render": 1}, "stalled": [], "given_up": ["broken-tiff"]}
    shown = (await cli("job", "show", "images", "broken-tiff")).out
    assert "broken.tiff" in shown
    assert "stalled more than allowable limit" in shown
    await end_workers(place)
    await place.start_worker("--queues", "images", environment=MENDED)
    await cli("job", "retry", "images", "broken-tiff", "--yes")
    await has_counts(place, "images", failed=0, completed=1)
    await is_cured(place, cli)


async def test_clock_off(place: Stage, cli: Cli) -> None:
    found = await causes(cli)
    assert found.keys() == {"clocks"}
    [worker] = place.workers
    assert f"process {worker.pid} on" in found["clocks"]["facts"]["who"]
    assert -62_000 < found["clocks"]["facts"]["ahead_ms"] < -58_000
    os.kill(worker.pid, signal.SIGTERM)  # and let that machine's clock be set, before it works again
    await worker.wait()
    await place.start_worker("--roles", "worker")
    await is_cured(place, cli)


async def test_evicting_server(place: Stage, cli: Cli) -> None:
    found = await causes(cli)
    assert found["eviction"]["severity"] == "error"
    assert found["eviction"]["facts"]["evicted_keys"] > 0
    assert "maxmemory-policy noeviction" in found["eviction"]["fix"]
    assert found["memory"]["severity"] == "error"
    await place.own.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await place.own.ask("CONFIG", "SET", "maxmemory", "100mb")
    found = await causes(cli)
    assert found["eviction"]["severity"] == "warning"  # it doesn't any more; what is gone is gone
    assert "memory" not in found
    assert "keys" in found  # maybe the queue's settings are among what is gone: then the next job makes them anew, as the doctor says
    await cli("job", "add", "emails", "welcome", '{"to": "z@example.com"}', "--new-queue")
    fix = (await causes(cli))["keys"]["fix"]
    assert fix == "toril queue orphans emails shows them, and with --remove it removes them"
    lost = (await cli("queue", "orphans", "emails", "--json")).document["found"]
    assert (await cli("queue", "orphans", "emails", "--remove", "--yes", "--json")).document["removed"] == lost > 0
    assert "keys" not in await causes(cli)
    await place.start_worker("--queues", "emails", "--roles", "worker")
    await place.own.ask("CONFIG", "RESETSTAT")  # the doctor counts since the server's start, or this
    await is_cured(place, cli)


async def test_forgotten_rate_limit(place: Stage, cli: Cli) -> None:
    found = await causes(cli)
    assert found.keys() == {"rate-limit"}
    assert found["rate-limit"]["facts"]["max"] == 1
    assert "toril queue limits emails --rate none" in found["rate-limit"]["fix"]
    await cli("queue", "limits", "emails", "--rate", "none", "--reset")
    await has_counts(place, "emails", waiting=0, completed=30)
    await is_cured(place, cli)


async def test_vanished_schedule(place: Stage, cli: Cli) -> None:
    found = await causes(cli)
    assert found.keys() == {"schedules"}
    assert found["schedules"]["facts"] == {"vanished": ["nightly-report"], "owner": APPLICATION}
    assert "nightly-report" in (await cli("schedule", "diff", "--app", APPLICATION, code=1)).out
    await place.start_worker("--roles", "scheduler")
    await is_cured(place, cli)
    assert "nightly-report" in (await cli("schedule", "ls")).out


async def test_blocked_worker(place: Stage, cli: Cli) -> None:
    found = await causes(cli)
    assert found.keys() == {"blocked"}
    [worker] = place.workers
    assert found["blocked"]["facts"]["pid"] == worker.pid
    assert found["blocked"]["facts"]["jobs"] == ["holiday"]
    os.kill(worker.pid, signal.SIGKILL)
    await worker.wait()
    await place.start_worker("--queues", "images", environment=MENDED)
    await has_counts(place, "images", waiting=0, active=0, completed=9)
    await is_cured(place, cli)


async def test_full_dead_letters(place: Stage, cli: Cli) -> None:
    found = await causes(cli)
    assert found.keys() == {"dead-letters"}
    [cause] = found["dead-letters"]["facts"]["causes"]
    assert (cause["queue"], cause["name"], cause["message"]) == ("emails", "welcome", "no mail server at mx1")
    assert "no mail server at mx1" in (await cli("dlq", "ls", "letters")).out
    for worker in place.workers:
        worker.terminate()
        await worker.wait()
    await place.start_worker("--roles", "worker", environment=MENDED)
    await cli("dlq", "replay", "letters", "--all", "--yes")
    await has_counts(place, "letters", waiting=0)
    await has_counts(place, "emails", waiting=0, active=0)
    await is_cured(place, cli)


async def test_paused_and_forgotten(place: Stage, cli: Cli) -> None:
    found = await causes(cli)
    assert found.keys() == {"pause"}
    assert "has been paused for 3d" in found["pause"]["text"]
    assert "toril queue resume emails" in found["pause"]["fix"]
    await cli("queue", "resume", "emails")
    await has_counts(place, "emails", waiting=0, completed=40)
    await is_cured(place, cli)


@pytest.mark.parametrize(("set_by_us", "pause_ms"), [({}, 30_000), ({"SHORT_LIMIT_PAUSE": "1"}, 2_000)])
def test_only_in_the_tests_a_worker_looks_sooner_whether_its_limit_was_lifted(set_by_us: dict[str, str], pause_ms: int) -> None:
    code = "import tests.scenarios.application; from toril.worker import turn; print(turn.LONGEST_LIMIT_PAUSE_MS)"
    told = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, env=os.environ | set_by_us, check=True, capture_output=True)
    assert int(told.stdout) == pause_ms


async def test_the_program_says_where_a_situation_is_and_keeps_it(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.scenarios", "paused-and-forgotten"), cwd=PROJECT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            words = (await process.stdout.readline()).decode().split()
        assert words[0] == "export"
        cli = Cli(tmp_path, dict(word.split("=", 1) for word in words[1:]))
        assert "paused" in (await cli("queue", "ls")).out
    finally:
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
