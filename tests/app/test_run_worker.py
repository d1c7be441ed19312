"""`toril worker` with the application: the circumstances in which it must start, and those in which it can't."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from pathlib import Path
from typing import Final

from tests.app.processes import Runner, Running, server_processes
from tests.fake_server import FakeServer, bulk, greets
from tests.proxy import Command
from tests.support import ask, eventually_now

SECRET: Final = "s3cret"


def told(process: Running) -> str:
    """All it said, on one line."""
    return re.sub(r"\s+", " ", process.output)


def fails(process: Running, code: int, *texts: str) -> None:
    assert process.end() == code, process.output
    for text in texts:
        assert text in told(process)
    assert "Traceback" not in process.output
    assert SECRET not in process.output


def server_has_ended(folder: Path) -> None:
    def gone() -> None:
        assert server_processes(folder / "valkey") == []

    eventually_now(gone)


# ── what it can't start with ──────────────────────────────────────────────────────────────────────────────────


async def test_a_server_that_is_too_old_is_told_at_once(run: Runner) -> None:
    async def is_old(command: Command) -> bytes | None:
        return bulk("# Server\r\nredis_version:6.2.14\r\n") if command[0] == b"INFO" else await greets(command)

    async with FakeServer(is_old) as server:
        run.environment["REDIS_URL"] = server.url
        worker = run.worker("--connect-timeout", "10m")
        await asyncio.to_thread(fails, worker, 3, f"server at {server.url}: it has version 6.2, and Toril needs 7.0 or newer")


def test_several_mistakes_in_the_settings_are_told_together(run: Runner) -> None:
    run.environment |= {"SMTP_URL": f"smtp://me:{SECRET}@mail:many", "TORIL_MAIL__SENDR": "x@y.z", "TORIL_CONNECT_TIMEOUT": "30"}
    fails(run.worker(), 2, "SMTP_URL: 'smtp://me:***@mail:many'", "TORIL_MAIL__SENDR", "did you mean", 'write "30s" or "30ms"')


def test_with_debug_the_traceback_is_there_and_still_no_password(run: Runner) -> None:
    run.environment["REDIS_URL"] = f"redis://app:{SECRET}@127.0.0.1:1/0"
    worker = run.worker("--connect-timeout", "100ms", "--debug")
    assert worker.end() == 3
    assert "Traceback" in worker.output
    assert SECRET not in worker.output


# ── how it runs ───────────────────────────────────────────────────────────────────────────────────────────────


def test_with_a_server_of_its_own_no_embedded_one_is_started(run: Runner, toril_server_url: str, toril_prefix: str, tmp_path: Path) -> None:
    run.environment |= {"REDIS_URL": toril_server_url, "TORIL_PREFIX": toril_prefix}
    worker = run.worker()
    worker.read_until("ready")
    assert not (tmp_path / "valkey").exists()
    clients = ask(toril_server_url, "CLIENT", "LIST", "TYPE", "normal")
    assert toril_prefix in str(clients)  # it can be seen by its name
    assert worker.end(signal.SIGTERM) == 0
    assert "emails" in worker.output


def test_two_workers_share_a_server_and_the_last_one_stops_it(run: Runner, tmp_path: Path) -> None:
    first, second = run.worker(), run.worker()
    first.read_until("ready")
    second.read_until("ready")
    assert first.end(signal.SIGTERM) == 0
    assert server_processes(tmp_path / "valkey") != []
    demo = run(sys.executable, "-m", "app.demo")
    assert demo.end() == 0, demo.output
    assert second.end(signal.SIGTERM) == 0
    server_has_ended(tmp_path)


def test_a_worker_that_is_killed_leaves_no_server(run: Runner, tmp_path: Path) -> None:
    worker = run.worker()
    worker.read_until("ready")
    assert worker.end(signal.SIGKILL) == -signal.SIGKILL
    server_has_ended(tmp_path)


STUBBORN: Final = """
import threading
from typing import Annotated
from toril import InjectQueue, Job, Queue, QueueModule, module, process, processor

@processor("stubborn")
class Stubborn:
    @process()
    def run(self, job: Job) -> None:
        print("begun", flush=True)
        threading.Event().wait()

class Adds:
    def __init__(self, queue: Annotated[Queue, InjectQueue("stubborn")]) -> None:
        self.queue = queue

    async def on_application_bootstrap(self) -> None:
        await self.queue.add("a", {})

@module(imports=[QueueModule.register_queue("stubborn")], providers=[Stubborn, Adds])
class StubbornModule: ...
"""


def test_a_thread_that_would_not_end_is_left_behind_and_told_in_the_exit_code(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    worker = run.worker("--shutdown-timeout", "100ms", module="stubborn:StubbornModule", folder=tmp_path)
    worker.read_until("begun")
    assert worker.end(signal.SIGTERM) == 4, worker.output
    server_has_ended(tmp_path)
