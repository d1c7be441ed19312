"""`toril worker --processes N`: real processes, which are killed, interrupted and orphaned."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.app.processes import Runner, Running, runner_of, server_processes
from tests.support import eventually_now
from toril import Job, Queue
from toril.wire.connection import Server

pytestmark = pytest.mark.blocks_the_loop

APPLICATION: Final = "application:AppModule"


@pytest.fixture
def run(tmp_path: Path, toril_server_url: str, prefix: str) -> Iterator[Runner]:
    with runner_of(Path(__file__).with_name("supervised_application.py"), tmp_path, toril_server_url, prefix) as runner:
        yield runner


@pytest.fixture
async def queue(server: Server, prefix: str) -> AsyncIterator[Queue[Any, Any]]:
    async with Queue[Any, Any]("work", prefix=prefix, server=server) as queue:
        yield queue


def start(run: Runner, folder: Path, *arguments: str, processes: int = 2, module: str = APPLICATION) -> Running:
    return run.worker("--processes", str(processes), *arguments, module=module, folder=folder)


def pids(worker: Running) -> list[int]:
    """Of the processes that have started so far, in order."""
    return [int(pid) for pid in re.findall(r"started .* pid=(\d+)", worker.output)]


def is_gone(pid: int) -> None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert state == "Z", f"process {pid} is still there"  # a dead one, whom nobody reaps in a container without an init


def all_gone(found: list[int]) -> None:
    for pid in found:
        eventually_now(partial(is_gone, pid))


def hanging(worker: Running) -> int:
    worker.read_until("hanging")
    (pid,) = re.findall(r"hanging pid=(\d+)", worker.output)
    return int(pid)


# ── starting ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_all_processes_work_under_names_of_their_own_and_are_ready_together(run: Runner, tmp_path: Path, queue: Queue) -> None:
    worker = start(run, tmp_path, processes=3)
    worker.read_until(" ready ")
    assert len(set(pids(worker))) == 3
    assert "processes=3 queues={'work': 4" in worker.output
    assert {(one.name or "").rpartition("-")[2] for one in await queue.get_workers()} == {str(pid) for pid in pids(worker)}
    assert worker.end(signal.SIGTERM) == 0
    assert worker.output.count(" ready ") == 1
    all_gone(pids(worker))


async def test_one_process_has_no_supervisor(run: Runner, tmp_path: Path, queue: Queue) -> None:
    worker = start(run, tmp_path, processes=1)
    worker.read_until(" ready ")
    assert {(one.name or "").rpartition("-")[2] for one in await queue.get_workers()} == {str(worker.process.pid)}
    assert worker.end(signal.SIGTERM) == 0
    assert "process=" not in worker.output


def test_they_share_one_embedded_server_and_leave_none(run: Runner, tmp_path: Path) -> None:
    del run.environment["REDIS_URL"]
    run.environment["TORIL_EMBEDDED_DIR"] = str(tmp_path / "valkey")
    worker = start(run, tmp_path)
    worker.read_until(" ready ")
    assert len([line for line in server_processes(tmp_path / "valkey") if "keeper.py" not in line]) == 1
    assert worker.end(signal.SIGINT) == 0
    eventually_now(lambda: _nothing(server_processes(tmp_path / "valkey")))


def _nothing(found: list[str]) -> None:
    assert found == []


@pytest.mark.parametrize(
    ("module", "code", "told"),
    [
        ("application:AppModul", 2, "did you mean AppModule?"),
        ("broken:AppModule", 2, "broken.py:1"),
        ("application:AppModule", 3, "REDIS_URL"),
    ],
)
def test_what_is_wrong_at_start_is_told_once(run: Runner, tmp_path: Path, module: str, code: int, told: str) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    if code == 3:
        run.environment["REDIS_URL"] = "redis://127.0.0.1:1"
    worker = start(run, tmp_path, "--connect-timeout", "100ms", processes=4, module=module)
    assert worker.end() == code
    assert worker.output.count("error:") == 1
    assert told in worker.output
    assert "Traceback" not in worker.output


def test_an_application_that_dies_again_and_again_is_given_up(run: Runner, tmp_path: Path) -> None:
    worker = start(run, tmp_path, module="application:DyingModule")
    assert worker.end() == 7, worker.output
    assert "giving up" in worker.output
    assert "exit_code=7" in worker.output
    assert re.findall(r"replaced .* pause_ms=(\d+) process=1", worker.output)[:2] == ["250", "500"]
    all_gone(pids(worker))


# ── running ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_process_that_is_killed_is_replaced_and_its_job_runs_again(run: Runner, tmp_path: Path, queue: Queue) -> None:
    worker = start(run, tmp_path)
    worker.read_until(" ready ")
    job = await queue.add("hang")
    killed = hanging(worker)
    os.kill(killed, signal.SIGKILL)
    worker.read_until("is replaced")
    worker.read_until("started")
    assert await job.result(timeout="20s") == "done by another process"
    assert killed in pids(worker)[:2]
    assert killed not in pids(worker)[2:]
    assert "signal=SIGKILL" in worker.output
    assert worker.end(signal.SIGTERM) == 0
    (sleeper,) = re.findall(r"sleeper=(\d+)", worker.output)
    os.kill(int(sleeper), signal.SIGKILL)
    all_gone(pids(worker))


async def test_a_process_that_is_told_to_stop_from_outside_is_replaced(run: Runner, tmp_path: Path) -> None:
    worker = start(run, tmp_path)
    worker.read_until(" ready ")
    os.kill(pids(worker)[0], signal.SIGTERM)
    worker.read_until("is replaced")
    worker.read_until("started")
    assert worker.end(signal.SIGTERM) == 0


async def test_schedules_run_once(run: Runner, tmp_path: Path, server: Server, prefix: str) -> None:
    worker = start(run, tmp_path, processes=3, module="application:ScheduleAppModule")
    for _ in range(3):
        worker.read_until("tick")
    assert worker.end(signal.SIGTERM) == 0
    async with Queue("schedules", prefix=prefix, server=server) as schedules:
        ended = await schedules.get_completed()
    # One job for each second; each ran once if there are no more lines than jobs.
    assert worker.output.count("tick\n") == len(ended)


async def test_a_burst_ends_when_the_queues_are_empty(run: Runner, tmp_path: Path, queue: Queue) -> None:
    await queue.add_many([queue.job("quick", n) for n in range(500)])
    worker = start(run, tmp_path, "--burst")
    assert worker.end() == 0, worker.output
    assert await queue.get_completed_count() == 500
    assert worker.output.count(" ready ") == 1
    assert "is replaced" not in worker.output


async def test_each_line_is_whole_and_names_its_process(run: Runner, tmp_path: Path, queue: Queue, server: Server, prefix: str) -> None:
    run.environment["TORIL_LOG__FORMAT"] = "json"
    worker = start(run, tmp_path, "--concurrency", "1")
    worker.read_until('"ready"')
    jobs: list[Job[Any, Any]] = [*await queue.add_many([queue.job("talk", n) for n in range(4)])]
    async with Queue("children", prefix=prefix, server=server) as children:
        jobs.append(await children.add("log"))
        for job in jobs:
            await job.result(timeout="30s")
    assert worker.end(signal.SIGTERM) == 0
    lines: list[dict[str, Any]] = [json.loads(line) for line in worker.output.splitlines() if line.startswith("{")]
    assert {line for line in worker.output.splitlines() if not line.startswith("{")} == {"told by SIGTERM"}
    assert [line["n"] for line in lines if line["event"] == "long"].count(3) == 20
    assert {line["process"] for line in lines if line["event"] == "started"} == {1, 2}
    (child,) = [line for line in lines if line["event"] == "from a child process"]
    assert child["process"] in (1, 2)
    assert child["pid"] not in pids_in(lines)
    assert {line["process"] for line in lines if line["event"] == "stopped" and "process" in line} == {1, 2}
    (ready,) = [line for line in lines if line["event"] == "ready"]
    assert (ready["processes"], "process" in ready) == (2, False)
    assert ready.keys() >= {"server", "prefix", "queues"}


def pids_in(lines: list[dict[str, Any]]) -> set[int]:
    return {line["pid"] for line in lines if line["event"] == "started"}


# ── stopping ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_to_the_whole_group_lets_running_jobs_end(run: Runner, tmp_path: Path, queue: Queue, sent: signal.Signals) -> None:
    worker = start(run, tmp_path)
    worker.read_until(" ready ")
    job = await queue.add("until-told", str(tmp_path / "go"))
    worker.read_until("waiting for the file")
    os.killpg(worker.process.pid, sent)  # as a terminal does
    for _ in range(3):
        worker.read_until("stopping")
    (tmp_path / "go").touch()
    assert worker.end() == 0
    assert await job.get_state() == "completed"
    assert worker.output.count(f"told by {sent.name}") == 2
    assert worker.output.count("stopping at once") == 0
    all_gone(pids(worker))


async def test_a_second_ctrl_c_puts_running_jobs_back_at_once(run: Runner, tmp_path: Path, queue: Queue) -> None:
    worker = start(run, tmp_path, "--shutdown-timeout", "10m")
    worker.read_until(" ready ")
    job = await queue.add("hang")
    hanging(worker)
    os.killpg(worker.process.pid, signal.SIGINT)
    for _ in range(3):
        worker.read_until("stopping")
    os.killpg(worker.process.pid, signal.SIGINT)
    assert worker.end() == 0, worker.output
    again = await queue.get_job(job.id)
    assert (await again.get_state(), again.attempts_made) == ("waiting", 0)
    all_gone(pids(worker))


async def test_a_process_that_hears_nothing_is_killed_some_time_after_a_second_signal(run: Runner, tmp_path: Path, queue: Queue) -> None:
    program = "import toril.cli.supervisor as s; s.FORCED_LIMIT_MS = 300; from toril.cli.main import main; main()"
    worker = run(sys.executable, "-c", program, "worker", APPLICATION, "--processes", "2", folder=tmp_path)
    worker.read_until(" ready ")
    job = await queue.add("block")
    worker.read_until("blocking")
    worker.process.send_signal(signal.SIGTERM)
    worker.read_until("stopping")
    assert worker.end(signal.SIGTERM) == 4, worker.output
    assert "did not stop in time, and is killed" in worker.output
    assert await job.get_state() == "active"
    all_gone(pids(worker))


def test_ctrl_c_while_the_processes_start_ends_it_without_a_word(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import threading\nprint('importing', flush=True)\nthreading.Event().wait()\n")
    worker = start(run, tmp_path, module="slow:AppModule")
    worker.read_until("importing")
    assert worker.end(signal.SIGINT) == 0, worker.output
    assert "Traceback" not in worker.output


async def test_a_handler_that_is_left_behind_is_told_in_the_exit_code_for_all(run: Runner, tmp_path: Path, queue: Queue) -> None:
    worker = start(run, tmp_path, "--shutdown-timeout", "100ms")
    worker.read_until(" ready ")
    await queue.add("in-a-thread")
    worker.read_until("in a thread")
    assert worker.end(signal.SIGTERM) == 4, worker.output


async def test_a_supervisor_that_is_killed_leaves_no_process_and_no_job_behind(run: Runner, tmp_path: Path, queue: Queue) -> None:
    worker = start(run, tmp_path)
    worker.read_until(" ready ")
    job = await queue.add("hang")
    hanging(worker)
    worker.process.kill()
    all_gone(pids(worker))
    assert await job.get_state() == "waiting"  # put back, not left to the sweep, nor failed by what it printed then


async def test_what_a_child_process_prints_when_the_supervisor_was_killed_fails_no_job(
    run: Runner, tmp_path: Path, server: Server, prefix: str
) -> None:
    worker = start(run, tmp_path)
    worker.read_until(" ready ")
    async with Queue[Any, Any]("children", prefix=prefix, server=server) as children:
        job = await children.add("print")
        worker.read_until("still printing")
        worker.process.kill()
        all_gone(pids(worker))
        assert await job.get_state() == "waiting"


async def test_a_process_that_hears_nothing_does_not_outlive_its_supervisor(run: Runner, tmp_path: Path, queue: Queue) -> None:
    of_each = "import toril.cli.supervised as s; s.ORPHAN_LIMIT_MS = 500; s.main()"
    program = f"import toril.cli.worker_process as w; w._PROGRAM = {of_each!r}; from toril.cli.main import main; main()"
    worker = run(sys.executable, "-c", program, "worker", APPLICATION, "--processes", "2", folder=tmp_path)
    worker.read_until(" ready ")
    await queue.add("block")
    worker.read_until("blocking")
    worker.process.kill()
    all_gone(pids(worker))
