"""The worker and the demo as a person runs them: processes, signals, exit codes."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.app.processes import Runner, server_processes
from tests.support import eventually_now


def _none(found: list[str]) -> None:
    assert found == []


# ── the worker ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("one", [signal.SIGINT, signal.SIGTERM])
def test_the_worker_runs_until_a_signal_and_leaves_no_server(run: Runner, tmp_path: Path, one: signal.Signals) -> None:
    worker = run.worker()
    worker.read_until("ready")
    assert worker.end(one) == 0
    assert "stopped" in worker.output
    eventually_now(lambda: _none(server_processes(tmp_path / "valkey")))


SLOW_MODULE: Final = """
import asyncio
from toril import Job, QueueModule, module, process, processor

@processor("slow", concurrency=200)
class Slow:
    @process()
    async def run(self, job: Job) -> None:
        if job.data["n"] == 199:
            print("all started", flush=True)
        await asyncio.sleep(0.2 if job.data["n"] % 2 else 600)

@module(imports=[QueueModule.register_queue("slow")], providers=[Slow])
class SlowModule: ...
"""

FILL: Final = """
import asyncio, sys
from toril import Queue

async def main():
    async with Queue("slow") as queue:
        if sys.argv[1] == "add":
            await queue.add_many([queue.job("a", {"n": n}) for n in range(200)])
        else:
            waiting = await queue.get_waiting()
            print(await queue.get_completed_count(), len(waiting), {job.attempts_made for job in waiting}, await queue.get_active_count())

asyncio.run(main())
"""


def test_a_stop_under_load_lets_some_end_and_puts_the_others_back(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_MODULE)
    (tmp_path / "fill.py").write_text(FILL)
    worker = run.worker("--shutdown-timeout", "2s", module="slow:SlowModule", folder=tmp_path)
    worker.read_until("ready")
    assert run(sys.executable, "fill.py", "add", folder=tmp_path).end() == 0
    worker.read_until("all started")
    assert worker.end(signal.SIGTERM) == 0
    look = run(sys.executable, "fill.py", "look", folder=tmp_path)
    assert look.end() == 0
    assert look.output == "100 100 {0} 0\n"


def test_a_second_signal_does_not_wait(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_MODULE)
    (tmp_path / "fill.py").write_text(FILL)
    worker = run.worker("--shutdown-timeout", "10m", module="slow:SlowModule", folder=tmp_path)
    worker.read_until("ready")
    assert run(sys.executable, "fill.py", "add", folder=tmp_path).end() == 0
    worker.read_until("all started")
    worker.process.send_signal(signal.SIGINT)
    worker.read_until("stopping")
    assert worker.end(signal.SIGINT) == 0


def test_a_burst_runs_what_is_there_and_ends(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_MODULE.replace("600", "0"))
    (tmp_path / "fill.py").write_text(FILL)
    keeper = run.worker(module="app.main:AppModule")  # keeps the server alive between the others
    keeper.read_until("ready")
    assert run(sys.executable, "fill.py", "add", folder=tmp_path).end() == 0
    assert run.worker("--burst", "--concurrency", "50", module="slow:SlowModule", folder=tmp_path).end() == 0
    look = run(sys.executable, "fill.py", "look", folder=tmp_path)
    assert look.end() == 0
    assert look.output == "200 0 set() 0\n"
    assert keeper.end(signal.SIGTERM) == 0


# ── the demo ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_demo_needs_a_worker_and_says_how_to_start_one(run: Runner) -> None:
    demo = run(sys.executable, "-m", "app.demo")
    assert demo.end() == 3
    assert "make run-worker" in re.sub(r"\s+", " ", demo.output)


def test_the_demo_shows_what_became_of_its_jobs(run: Runner, tmp_path: Path) -> None:
    worker = run.worker()
    worker.read_until("ready")
    demo = run(sys.executable, "-m", "app.demo")
    assert demo.end() == 0, demo.output
    for text in ("welcome", "bulk (50)", "normal (20)", "high-priority (20)", "delayed by 3 s", "refused twice", "refused for good"):
        assert text in demo.output
    for text in ("refused until mended", "replayed from dead-letter", "daily report", "cancelled while it runs", "overruns its timeout"):
        assert text in demo.output
    assert "neither kind of notice waited for the other" in demo.output
    assert worker.end(signal.SIGTERM) == 0
    assert len(list((tmp_path / "mailbox").glob("*.eml"))) == 1 + 50 + 20 + 20 + 1 + 1 + len(
        ["daily report", "replayed", "added while paused"]
    )


def test_the_demo_ends_on_ctrl_c(run: Runner) -> None:
    worker = run.worker()
    worker.read_until("ready")
    worker.process.send_signal(signal.SIGSTOP)  # so that the demo has to wait for it
    demo = run(sys.executable, "-u", "-m", "app.demo")
    demo.read_until("following their events")
    code = demo.end(signal.SIGINT)
    worker.process.send_signal(signal.SIGCONT)
    assert code == 130, demo.output
    assert "Traceback" not in demo.output
