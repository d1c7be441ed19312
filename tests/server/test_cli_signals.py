"""Ctrl-C before anything has begun, and the command without uvloop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.blocks_the_loop

SLOW_IMPORT: Final = """
import threading
print("importing", flush=True)
threading.Event().wait()
"""

SMALL: Final = """
import asyncio
from toril import Job, QueueModule, module, process, processor

@processor("images")
class Images:
    async def process(self, job: Job) -> None: ...

    async def on_application_bootstrap(self) -> None:
        print(type(asyncio.get_running_loop()).__module__, flush=True)

@module(imports=[QueueModule.register_queue("images")], providers=[Images])
class AppModule: ...

@module()
class EmptyModule: ...
"""


def start(folder: Path, url: str, program: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TORIL_", "PYTEST_"))} | {
        "REDIS_URL": url,
        "COLUMNS": "200",  # so that no message is broken into lines
    }
    command = [sys.executable, "-c", f"{program}; from toril.cli.main import main; main()", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_ctrl_c_while_modules_are_imported_ends_it_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_IMPORT)
    with start(tmp_path, "redis://127.0.0.1:1", "pass", "worker", "slow:AppModule") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
    assert (process.returncode, rest) == (130, "")


@pytest.mark.parametrize(("program", "loop"), [("pass", "uvloop"), ("import sys; sys.modules['uvloop'] = None", "asyncio.unix_events")])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_it_runs_and_stops_with_uvloop_and_without(
    tmp_path: Path, toril_server_url: str, program: str, loop: str, sent: signal.Signals
) -> None:
    (tmp_path / "small.py").write_text(SMALL)
    with start(tmp_path, toril_server_url, program, "worker", "small:AppModule") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{loop}\n"
        assert " ready " in process.stdout.readline()
        process.send_signal(sent)
        rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "stopped" in rest
    assert "Traceback" not in rest


def test_an_application_without_processors_says_that_there_is_nothing_to_run(tmp_path: Path, toril_server_url: str) -> None:
    (tmp_path / "small.py").write_text(SMALL)
    with start(tmp_path, toril_server_url, "pass", "worker", "small:EmptyModule", "--burst") as process:
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "this application has no processors: there is nothing to run" in output


def test_an_empty_list_of_queues_is_a_usage_error(tmp_path: Path) -> None:
    with start(tmp_path, "redis://127.0.0.1:1", "pass", "worker", "small:AppModule", "--queues", " , ") as process:
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "name at least one queue, or leave it out for all" in output
