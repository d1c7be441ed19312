"""A signal at each instant of a worker's life, as the process itself sends it there."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.app.processes import Runner, runner_of
from toril import Queue
from toril.wire.connection import Server

pytestmark = pytest.mark.blocks_the_loop

APPLICATION: Final = "application:AppModule"

THRICE: Final = "SIGTERM,SIGINT,SIGINT"

WAITING: Final = ("waiting", 0)
COMPLETED: Final = ("completed", 1)


@pytest.fixture
def run(tmp_path: Path, toril_server_url: str, prefix: str) -> Iterator[Runner]:
    with runner_of(Path(__file__).with_name("signalled_application.py"), tmp_path, toril_server_url, prefix) as runner:
        yield runner


@pytest.fixture
async def queue(server: Server, prefix: str) -> AsyncIterator[Queue[Any, Any]]:
    async with Queue[Any, Any]("work", prefix=prefix, server=server) as queue:
        yield queue


@pytest.mark.parametrize(
    ("instants", "sent", "job_is"),
    [
        ("constructor", THRICE, WAITING),
        ("created", "SIGINT", WAITING),
        ("created", THRICE, WAITING),
        ("module_init", THRICE, WAITING),
        ("bootstrap", "SIGINT", WAITING),
        ("handler", "SIGINT", WAITING),
        ("handler", THRICE, WAITING),
        ("cleanup", THRICE, WAITING),
        ("module_destroy,before_shutdown,shutdown", "SIGINT,SIGTERM", COMPLETED),
        ("loop_closes", "SIGINT", COMPLETED),
        ("threads_join", "SIGTERM", COMPLETED),
        ("atexit", "SIGINT", COMPLETED),
        ("finalization", "SIGTERM,SIGINT", COMPLETED),
    ],
)
async def test_a_signal_at_any_instant_stops_in_order_and_fails_no_job(
    run: Runner, tmp_path: Path, queue: Queue, instants: str, sent: str, job_is: tuple[str, int]
) -> None:
    job = await queue.add("job")
    run.environment["SIGNALLED"] = f"{instants}:{sent}"
    worker = run.worker("--burst", "--shutdown-timeout", "100ms", module=APPLICATION, folder=tmp_path)
    assert worker.end() == 0, worker.output
    for instant in instants.split(","):
        assert f"at {instant}\n" in worker.output
    assert "Traceback" not in worker.output
    assert "Exception ignored" not in worker.output
    await job.refresh()
    assert (await job.get_state(), job.attempts_made) == job_is


@pytest.mark.parametrize(
    ("instant", "sent", "code"),
    [
        ("import", "SIGINT", 130),
        ("import", "SIGTERM", 143),
        ("import", "SIGINT,SIGTERM", 130),
        ("guarded_import", "SIGINT", 130),
        ("guarded_import", "SIGTERM", 143),
    ],
)
def test_a_signal_while_modules_are_imported_ends_the_worker_without_a_word(
    run: Runner, tmp_path: Path, instant: str, sent: str, code: int
) -> None:
    run.environment["SIGNALLED"] = f"{instant}:{sent}"
    worker = run.worker("--burst", module=APPLICATION, folder=tmp_path)
    assert (worker.end(), worker.output) == (code, f"at {instant}\n")


PROGRAM: Final = """
import asyncio, os, signal
from toril import Queue, QueueModule, WorkerFactory, module

@module(imports=[QueueModule.register_queue("work")])
class AppModule:
    async def on_application_bootstrap(self):
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)

async def main():
    heard = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, heard.set)
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    for _ in range(2):
        app = await WorkerFactory.create(AppModule)
        await app.run()
    assert before == [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    os.kill(os.getpid(), signal.SIGUSR1)
    await heard.wait()
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.Event().wait()

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_application_in_a_program_of_somebody_gives_the_signals_back_when_it_has_stopped(run: Runner, tmp_path: Path) -> None:
    program = run(sys.executable, "-c", PROGRAM, folder=tmp_path)
    assert program.end() == 0, program.output
    assert program.output.splitlines() == ["interrupted"]


FORKING: Final = """
import os, signal
from toril.stop_signals import STOP_SIGNALS
STOP_SIGNALS.own()
STOP_SIGNALS.hold()
codes = []
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
for one in (signal.SIGTERM, signal.SIGINT):
    its, ours = os.pipe()
    if (child := os.fork()) == 0:
        os.read(its, 1)  # until the signal has been sent
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (one,))
        os._exit(0)
    os.kill(child, one)
    os.write(ours, b".")
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(codes)
"""


def test_a_process_that_a_job_has_forked_ends_by_signals_as_any_other(run: Runner, tmp_path: Path) -> None:
    program = run(sys.executable, "-c", FORKING, folder=tmp_path)
    assert program.end() == 0, program.output
    assert program.output.endswith(f"{[-signal.SIGTERM, -signal.SIGINT]}\n")
