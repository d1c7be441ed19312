"""`toril worker --reload`: a real process, whose files change under it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.app.processes import Runner, Running

pytestmark = pytest.mark.blocks_the_loop

APPLICATION: Final = """
import asyncio
from typing import Annotated
from toril import InjectQueue, Job, Queue, QueueModule, module, process, processor

@processor("reloaded")
class Reloaded:
    @process()
    async def run(self, job: Job) -> None:
        print("version {version} runs", job.attempt, flush=True)
        await asyncio.sleep({sleep})

class Adds:
    def __init__(self, queue: Annotated[Queue, InjectQueue("reloaded")]) -> None:
        self.queue = queue

    async def on_application_bootstrap(self) -> None:
        await self.queue.add("a", job_id="the-only-one")

@module(imports=[QueueModule.register_queue("reloaded")], providers=[Reloaded, Adds])
class AppModule: ...
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Runner]:
    own = {key: value for key, value in os.environ.items() if not key.startswith(("TORIL_", "PYTEST_", "REDIS_"))}
    # Without byte code of its own, which Python takes for that of a file of the same length that is saved within the same second.
    own |= {"TORIL_EMBEDDED_DIR": str(tmp_path / "valkey"), "PYTHONDONTWRITEBYTECODE": "1"}
    runner = Runner(own | {"COLUMNS": "200", "NO_COLOR": "1"})
    yield runner
    runner.close()


def save(folder: Path, version: int, sleep: float) -> None:
    (folder / "application.py").write_text(APPLICATION.replace("{version}", str(version)).replace("{sleep}", str(sleep)))


def start(run: Runner, folder: Path, *arguments: str) -> Running:
    return run.worker("--reload", *arguments, module="application:AppModule", folder=folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    return made


def test_a_change_puts_the_running_job_back_and_runs_it_with_the_new_code(run: Runner, folder: Path) -> None:
    save(folder, version=1, sleep=600)
    worker = start(run, folder, "--shutdown-timeout", "10m")
    worker.read_until(" ready ")
    worker.read_until("version 1 runs 1")
    save(folder, version=2, sleep=0)
    worker.read_until("reloading")
    assert "changed=['application.py']" in worker.output
    worker.read_until("version 2 runs 1")  # no attempt was spent
    assert worker.end(signal.SIGINT) == 0
    assert worker.output.count(" ready ") == 2
    assert "Traceback" not in worker.output


def test_a_mistake_is_told_and_its_correction_waited_for(run: Runner, folder: Path) -> None:
    (folder / "application.py").write_text("class AppModule: .. .\n")
    worker = start(run, folder, "--processes", "2")
    worker.read_until("application.py:1: SyntaxError")
    worker.read_until("it starts again when a file changes")
    save(folder, version=1, sleep=0)
    worker.read_until(" ready ")
    assert "processes=2" in worker.output
    assert worker.end(signal.SIGTERM) == 0


def test_what_is_no_code_and_no_settings_changes_nothing(run: Runner, folder: Path) -> None:
    save(folder, version=1, sleep=0)
    worker = start(run, folder)
    worker.read_until(" ready ")
    (folder / "notes.txt").write_text("nothing")
    (folder / "settings.toml").write_text("")
    worker.read_until("reloading")
    assert "changed=['settings.toml']" in worker.output
    worker.read_until(" ready ")
    assert worker.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("program", "arguments", "told"),
    [
        ("pass", ["--burst"], "a burst ends by itself"),
        ("import sys; sys.modules['watchfiles'] = None", [], "pip install 'toril[reload]'"),
    ],
)
def test_what_it_can_not_do_is_a_usage_error(run: Runner, folder: Path, program: str, arguments: list[str], told: str) -> None:
    command = (sys.executable, "-c", f"{program}; from toril.cli.main import main; main()", "worker", "x:Y", "--reload", *arguments)
    failed = run(*command, folder=folder)
    assert failed.end() == 2
    assert told in failed.output
