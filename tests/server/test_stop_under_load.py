"""`toril worker` told to stop while 200 handlers run: a real process, real signals, and a server that may be gone by then."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.proxy import Cut, Proxy
from toril import Job, Queue, Worker, WorkerOptions
from toril.testing import eventually
from toril.worker.worker import CANCEL_TIMEOUT_MS, WRITE_TIMEOUT_MS

pytestmark = pytest.mark.blocks_the_loop

TORIL: Final = str(Path(sys.executable).with_name("toril"))
RUNNING: Final = 200

SLACK_S: Final = 10.0
"""For the machine: the end of the interpreter, and other tests on the same processors."""

MODULE: Final = """
import asyncio, os, threading
from pathlib import Path
from toril import Job, QueueModule, QueueOptions, module, process, processor

running = 0

@processor("load", concurrency=200, lock_duration="2s", stalled_interval="200ms", drain_delay="100ms")
class Load:
    @process("quick")
    async def quick(self, job: Job) -> str:
        self.begin()
        while not Path("go").exists():
            await asyncio.sleep(0.02)
        return "done"

    @process("endless")
    async def endless(self, job: Job) -> None:
        self.begin()
        await asyncio.Event().wait()

    @process("thread")
    def thread(self, job: Job) -> None:
        self.begin()
        threading.Event().wait()

    def begin(self) -> None:
        global running
        running += 1
        print("running", running, flush=True)

@module(imports=[QueueModule.register_queue(QueueOptions("load", prefix=os.environ["PREFIX"]))], providers=[Load])
class AppModule: ...
"""


@pytest.fixture
async def queue(toril_server_url: str, prefix: str) -> AsyncIterator[Queue]:
    async with Queue("load", prefix=prefix, url=toril_server_url) as queue:
        yield queue


class Program:
    """`toril worker` in a folder of its own."""

    def __init__(self, folder: Path, url: str, prefix: str, shutdown_timeout: str) -> None:
        self._folder, self._url, self._prefix = folder, url, prefix
        self._timeout = shutdown_timeout
        self._process: Process
        self._told_at = 0.0
        self.output = ""

    async def __aenter__(self) -> Program:
        (self._folder / "load.py").write_text(MODULE)
        own = {key: value for key, value in os.environ.items() if not key.startswith(("TORIL_", "REDIS_", "COV_", "PYTEST_"))}
        environment = own | {"REDIS_URL": self._url, "PREFIX": self._prefix, "COLUMNS": "200", "NO_COLOR": "1"}
        arguments = "worker", "load:AppModule", "--shutdown-timeout", self._timeout
        self._process = await asyncio.create_subprocess_exec(
            TORIL, *arguments, cwd=self._folder, env=environment, stdout=PIPE, stderr=STDOUT, limit=1 << 20
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def says(self, text: str) -> None:
        assert self._process.stdout is not None
        async with asyncio.timeout(30):
            while text not in (line := (await self._process.stdout.readline()).decode()):
                assert line, f"it ended without {text!r}:\n{self.output}"
                self.output += line
        self.output += line

    async def tell(self, sent: signal.Signals) -> None:
        """Send a signal; from the first one on its time is counted."""
        self._told_at = self._told_at or time.monotonic()
        self._process.send_signal(sent)

    def let_quick_ones_end(self) -> None:
        (self._folder / "go").touch()

    async def end(self) -> tuple[int, float]:
        """Its exit code, and how many seconds after the first signal it was gone."""
        async with asyncio.timeout(60):
            output, _ = await self._process.communicate()
        took = time.monotonic() - self._told_at
        self.output += output.decode()
        assert self._process.returncode is not None
        return self._process.returncode, took


async def fill(queue: Queue, program: Program, *names: str) -> dict[str, Job[Any, Any]]:
    """Add 200 jobs of these names, one attempt each, and wait until all run."""
    drafts = [queue.job(names[number % len(names)], attempts=1) for number in range(RUNNING)]
    jobs = await queue.add_many(drafts)
    await program.says(f"running {RUNNING}")
    return {job.id: job for job in jobs}


async def finish_the_rest(queue: Queue) -> Counter[str]:
    """Run all that is left on another worker, until nothing is; how often each job ran."""
    runs: Counter[str] = Counter()

    async def handle(job: Job[Any, Any]) -> None:
        runs[job.id] += 1

    async def all_have_ended() -> None:
        assert await queue.get_completed_count() == RUNNING

    async with Worker(queue, handle, WorkerOptions(stalled_interval="100ms", drain_delay="50ms")):
        await eventually(all_have_ended, timeout="30s")
    return runs


async def test_some_jobs_end_in_time_and_the_others_are_put_back_without_spending_an_attempt(
    tmp_path: Path, toril_server_url: str, prefix: str, queue: Queue
) -> None:
    async with Program(tmp_path, toril_server_url, prefix, "1s") as program:
        await fill(queue, program, "quick", "endless")
        await program.tell(signal.SIGTERM)
        await program.says("stopping")
        program.let_quick_ones_end()
        code, took = await program.end()
    assert code == 0, program.output
    assert 1 <= took <= 1 + CANCEL_TIMEOUT_MS / 1_000 + SLACK_S
    counts = await queue.get_job_counts()
    assert (counts["completed"], counts["waiting"], counts["active"], counts["failed"]) == (100, 100, 0, 0)
    put_back = await queue.get_waiting()
    assert {(job.name, job.attempts_made, job.stalled_count) for job in put_back} == {("endless", 0, 0)}
    assert await finish_the_rest(queue) == Counter(job.id for job in put_back)


async def test_a_second_signal_puts_all_back_at_once(tmp_path: Path, toril_server_url: str, prefix: str, queue: Queue) -> None:
    async with Program(tmp_path, toril_server_url, prefix, "1h") as program:
        jobs = await fill(queue, program, "endless")
        await program.tell(signal.SIGTERM)
        await program.says("stopping")
        await program.tell(signal.SIGTERM)
        code, took = await program.end()
    assert code == 0, program.output
    assert took <= CANCEL_TIMEOUT_MS / 1_000 + SLACK_S
    assert {job.id for job in await queue.get_waiting()} == jobs.keys()
    assert await finish_the_rest(queue) == Counter(jobs.keys())


@pytest.mark.parametrize("how", ["refuses", "is silent"])
async def test_a_server_that_is_gone_during_the_stop_does_not_hold_it_up(
    tmp_path: Path, toril_server_url: str, prefix: str, queue: Queue, how: str
) -> None:
    async with Proxy(toril_server_url) as proxy, Program(tmp_path, proxy.url, prefix, "1s") as program:
        jobs = await fill(queue, program, "quick", "endless")
        await program.tell(signal.SIGTERM)
        await program.says("stopping")
        if how == "refuses":
            proxy.down()
        else:
            proxy.decide = lambda command: Cut.HOLD
        program.let_quick_ones_end()
        code, took = await program.end()
    assert "outcomes could not be written at stop" in program.output
    assert code == 0, program.output
    assert took <= 1 + (CANCEL_TIMEOUT_MS + WRITE_TIMEOUT_MS) / 1_000 + SLACK_S
    runs = await finish_the_rest(queue)
    assert set(runs) <= jobs.keys()
    assert set(runs.values()) == {1}


async def test_a_process_that_is_killed_while_it_stops_loses_nothing(
    tmp_path: Path, toril_server_url: str, prefix: str, queue: Queue
) -> None:
    """As a platform does it: SIGTERM, some time, SIGKILL."""

    async def quick_ones_are_done() -> None:
        assert await queue.get_completed_count() == 100

    async with Program(tmp_path, toril_server_url, prefix, "1h") as program:
        jobs = await fill(queue, program, "quick", "endless")
        await program.tell(signal.SIGTERM)
        await program.says("stopping")
        program.let_quick_ones_end()
        await eventually(quick_ones_are_done, timeout="20s")
        await program.tell(signal.SIGKILL)
        code, _ = await program.end()
    assert code == -signal.SIGKILL
    endless = {job_id for job_id, job in jobs.items() if job.name == "endless"}
    assert await finish_the_rest(queue) == Counter(endless)
    assert {job.stalled_count for job in await queue.get_completed() if job.id in endless} == {1}


async def test_threads_that_do_not_end_are_left_behind_in_time(tmp_path: Path, toril_server_url: str, prefix: str, queue: Queue) -> None:
    async with Program(tmp_path, toril_server_url, prefix, "500ms") as program:
        jobs = await fill(queue, program, "thread")
        await program.tell(signal.SIGTERM)
        code, took = await program.end()
    assert code == 4, program.output
    assert "handlers did not end at stop" in program.output
    assert took <= 0.5 + CANCEL_TIMEOUT_MS / 1_000 + SLACK_S
    assert await finish_the_rest(queue) == Counter(jobs.keys())
