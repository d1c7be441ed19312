"""The worker and the demo as a person runs them: processes, signals, exit codes, messages."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.support import eventually_now

ROOT: Final = Path(__file__).parents[2]
TORIL: Final = str(Path(sys.executable).with_name("toril"))
PATIENCE_S: Final = 40


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Everything in folders of the test: server, mailbox."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("TORIL_", "PYTEST_")) and key not in ("REDIS_URL", "SMTP_URL")
    }
    return kept | {"TORIL_EMBEDDED_DIR": str(tmp_path / "valkey"), "TORIL_MAILBOX__FOLDER": str(tmp_path / "mailbox"), "COLUMNS": "200"}


class Running:
    """A process whose output can be waited for, line by line."""

    def __init__(self, command: list[str], environment: Mapping[str, str], folder: Path) -> None:
        self.process = subprocess.Popen(
            command, env=dict(environment), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self.output = ""

    def read_until(self, text: str) -> None:
        """Read lines until one holds the text."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if text in line:
                return
        raise AssertionError(f"the process ended before it said {text!r}:\n{self.output}")

    def end(self, *signals: signal.Signals) -> int:
        """Send signals, read what is left, and give the exit code."""
        for one in signals:
            self.process.send_signal(one)
        rest, _ = self.process.communicate(timeout=PATIENCE_S)
        self.output += rest
        return self.process.returncode


@pytest.fixture
def run(environment: dict[str, str]) -> Iterator[Runner]:
    runner = Runner(environment)
    yield runner
    runner.close()


class Runner:
    """Starts processes, and leaves none behind."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self._started: list[Running] = []

    def __call__(self, *command: str, folder: Path = ROOT) -> Running:
        running = Running(list(command), self.environment, folder)
        self._started.append(running)
        return running

    def worker(self, *arguments: str, module: str = "app.main:AppModule", folder: Path = ROOT) -> Running:
        return self(TORIL, "worker", module, *arguments, folder=folder)

    def close(self) -> None:
        for running in self._started:
            if running.process.poll() is None:
                running.process.kill()
            running.process.communicate()


def server_processes(folder: Path) -> list[str]:
    """Processes that still work in the server's folder."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder.resolve():
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


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


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "told"),
    [
        (
            ["--connect-timeout", "1s"],
            {"REDIS_URL": "redis://app:s3cret@127.0.0.1:1/0"},
            3,
            "no server answers at redis://app:***@127.0.0.1:1",
        ),
        ([], {"REDIS_URL": "http://127.0.0.1"}, 2, "unknown scheme 'http'"),
        ([], {"SMTP_URL": "http://user:s3cret@mail"}, 2, "SMTP_URL"),
        ([], {"TORIL_PREFX": "x"}, 2, "TORIL_PREFX"),
        ([], {"TORIL_ENV": "moon"}, 2, "moon"),
        (["--shutdown-timeout", "25"], {}, 2, 'write "25s" or "25ms"'),
        (["--queues", "emials"], {}, 2, "emails"),
    ],
)
def test_what_is_wrong_at_start_is_said_in_one_line(
    run: Runner, arguments: list[str], variables: dict[str, str], code: int, told: str
) -> None:
    run.environment |= variables
    worker = run.worker(*arguments)
    assert worker.end() == code
    assert told in re.sub(r"\s+", " ", worker.output)
    assert "Traceback" not in worker.output
    assert "s3cret" not in worker.output


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("app.main", "app.main:AppModule"),
        ("app.mian:AppModule", "there is no module 'app.mian'"),
        ("app.main:AppModul", "did you mean AppModule"),
        ("app.settings:AppSettings", "not decorated with @module"),
    ],
)
def test_a_wrong_name_for_the_module_is_explained(run: Runner, module: str, told: str) -> None:
    worker = run.worker(module=module)
    assert worker.end() == 2
    assert told in re.sub(r"\s+", " ", worker.output)


def test_what_is_wrong_in_the_modules_is_said_all_at_once(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "from toril import Job, QueueModule, module, process, processor\n"
        "class Missing: ...\n"
        '@processor("slwo")\nclass P:\n    def __init__(self, missing: Missing) -> None: ...\n'
        "    @process()\n    async def run(self, job: Job) -> None: ...\n"
        '@module(imports=[QueueModule.register_queue("slow")], providers=[P])\nclass M: ...\n'
    )
    worker = run.worker(module="broken:M", folder=tmp_path)
    assert worker.end() == 2
    assert "2 problems in the module graph" in worker.output
    assert "did you mean 'slow'" in worker.output
    assert "Missing" in worker.output


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
    assert "neither kind of notice waited for the other" in demo.output
    assert worker.end(signal.SIGTERM) == 0
    assert len(list((tmp_path / "mailbox").glob("*.eml"))) == 1 + 50 + 20 + 20 + 1 + 1


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
