"""`executor="process"`: handlers that run in child processes, and what becomes of these."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.server import process_functions as functions
from tests.server.process_application import Counter, ReportsModule, Title, hang
from toril import Handler, Job, Queue, QueueModule, Worker, WorkerOptions, handler, module, process, processor
from toril.di import GraphErrors
from toril.errors import ChildHandlerError, ChildProcessDiedError, InvalidOptionError, JobFailedError, JobTimeoutError, LockLostError
from toril.modules.errors import NotInChildError
from toril.queues.listeners import LocalEvent
from toril.testing import FakeClock, Test, eventually
from toril.testing.builder import TestingModuleBuilder
from toril.wire.connection import Server
from toril.worker.worker import WorkerState

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")

PROCESS: Final = "process"


@pytest.fixture(autouse=True)
def _no_process_stays() -> Iterator[None]:
    yield
    assert children_of(os.getpid()) == []


@pytest.fixture
def queue(server: Server, prefix: str) -> Queue:
    return Queue("work", prefix=prefix, server=server)


def children_of(pid: int) -> list[int]:
    """The child processes of toril that a process has."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            if parent == pid and b"toril child of queue" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it ended meanwhile
            continue
    return found


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def pid_in(path: Path) -> int:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    assert text
    return int(text)


def heard_by(worker: Worker, event: LocalEvent) -> list[Any]:
    """What a listener of this event hears besides the job: the result, the error, the progress."""
    heard: list[Any] = []

    def listen(*arguments: Any) -> None:  # noqa: ANN401 -- each event has arguments of its own
        heard.append(arguments[1])

    worker.on(event, listen)
    return heard


async def results(queue: Queue, handle: Handler, names: list[str], concurrency: int) -> list[Any]:
    """Run jobs of these names in one worker after the other; what they returned."""
    jobs = [await queue.add(name, {"width_px": 3, "height_px": 4}) for name in names]
    async with Worker(queue, [handle], WorkerOptions(concurrency=concurrency)) as worker:
        await worker.wait_until_idle()
    return [(await queue.get_job(job.id)).return_value for job in jobs]


# ── results ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "handle",
    [
        handler(functions.measure, "measure", executor=PROCESS),
        handler(functions.measure_async, "measure", executor=PROCESS),
        handler(functions.measure_defined, functions.MEASURE, executor=PROCESS),
    ],
    ids=lambda handle: handle.program.target,
)
async def test_a_child_reads_and_returns_what_the_types_say(queue: Queue, handle: Handler) -> None:
    await queue.add("measure", {"width_px": 3, "height_px": 4})
    worker = Worker(queue, [handle])
    heard = heard_by(worker, "completed")
    async with worker:
        await worker.wait_until_idle()
        await worker.listeners.wait_until_quiet()
    [area] = heard
    assert isinstance(area, functions.Area)
    assert area.pixels == 12
    assert area.pid != os.getpid()


async def test_a_result_that_does_not_fit_fails_the_job_for_good(queue: Queue) -> None:
    job = await queue.add("measure", attempts=3)
    async with Worker(queue, [handler(functions.wrong_result, "measure", executor=PROCESS)]) as worker:
        await worker.wait_until_idle()
    found = await queue.get_job(job.id)
    assert (await found.get_state(), found.attempts_made) == ("failed", 1)
    assert "Area" in (found.failed_reason or "")


async def test_a_plain_function_reports_from_the_child_too(queue: Queue) -> None:
    job = await queue.add("report", {"n": 1})
    worker = Worker(queue, [handler(functions.report_sync, "report", executor=PROCESS)])
    heard = heard_by(worker, "progress")
    async with worker:
        await worker.wait_until_idle()
        await worker.listeners.wait_until_quiet()
    found = await queue.get_job(job.id)
    assert heard == [{"done": 50}]
    assert (found.progress, found.data, found.return_value) == ({"done": 50}, {"n": 2}, 1)
    assert (await found.get_logs()).rows == ["half of it"]


async def test_a_coroutine_in_a_child_is_told_to_await(queue: Queue) -> None:
    job = await queue.add("report")
    async with Worker(queue, [handler(functions.report_sync_on_the_loop, "report", executor=PROCESS)]) as worker:
        await worker.wait_until_idle()
    assert "write `await job.log(…)` there" in str((await queue.get_job(job.id)).failed_reason)


async def test_progress_rows_of_the_log_and_new_data_come_from_the_child(queue: Queue, capfd: pytest.CaptureFixture[str]) -> None:
    job = await queue.add("report", {"n": 1})
    worker = Worker(queue, [handler(functions.report, "report", executor=PROCESS)])
    heard = heard_by(worker, "progress")
    async with worker:
        await worker.wait_until_idle()
        await worker.listeners.wait_until_quiet()
    found = await queue.get_job(job.id)
    assert heard == [{"done": 50}]
    assert (found.progress, found.data) == ({"done": 50}, {"n": 2})
    assert (await found.get_logs()).rows == ["half of it"]
    output = capfd.readouterr()
    assert "written to standard output" in output.err  # the real one is the pipe
    assert output.out == ""


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_error_keeps_its_text_and_its_traceback(queue: Queue) -> None:
    job = await queue.add("render", attempts=2)
    worker = Worker(queue, [handler(functions.fail, "render", executor=PROCESS)])
    failures = heard_by(worker, "failed")
    async with worker:
        await worker.wait_until_idle()
        await worker.listeners.wait_until_quiet()
    found = await queue.get_job(job.id)
    assert (found.attempts_made, found.failed_reason) == (2, "no template")
    assert 'raise NoTemplateError("no template")' in found.stack_trace[0]
    assert "process_functions.py" in found.stack_trace[0]
    assert "executors.py" not in found.stack_trace[0]
    assert isinstance(failures[0], ChildHandlerError)
    assert failures[0].class_name == "tests.server.process_functions.NoTemplateError"


async def test_what_a_handler_says_about_its_job_arrives(queue: Queue) -> None:
    jobs = [await queue.add(name, attempts=3) for name in ("unrecoverable", "delayed", "waiting")]
    async with Worker(queue, [handler(functions.fail, executor=PROCESS)]) as worker:
        await worker.wait_until_idle()
    found = [await queue.get_job(job.id) for job in jobs]
    assert [await each.get_state() for each in found] == ["failed", "delayed", "completed"]
    assert [each.attempts_made for each in found] == [1, 0, 1]
    assert found[0].failed_reason == "never"
    assert 'raise UnrecoverableError("never")' in found[0].stack_trace[0]


@pytest.mark.parametrize(("name", "exit_code", "words"), [("exit", 7, "exited with code 7"), ("kill", -9, "killed by SIGKILL")])
async def test_a_child_that_dies_fails_the_attempt_and_not_the_worker(queue: Queue, name: str, exit_code: int, words: str) -> None:
    job = await queue.add(name, attempts=2)
    worker = Worker(queue, [handler(functions.die, executor=PROCESS)])
    failures = heard_by(worker, "failed")
    async with worker:
        await worker.wait_until_idle()
        await worker.listeners.wait_until_quiet()
    found = await queue.get_job(job.id)
    assert await found.get_state() == "completed"
    [error] = failures
    assert isinstance(error, ChildProcessDiedError)
    assert error.exit_code == exit_code
    assert words in str(error)


async def test_a_file_that_the_child_cannot_import_fails_the_attempt_with_its_error(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    file = tmp_path / "gone_tomorrow.py"
    file.write_text("def run(job): ...\n", encoding="utf-8")
    import gone_tomorrow  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]

    handle = handler(gone_tomorrow.run, "run", executor=PROCESS)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    file.unlink()
    job = await queue.add("run")
    async with Worker(queue, [handle]) as worker:
        await worker.wait_until_idle()
    assert "No module named 'gone_tomorrow'" in ((await queue.get_job(job.id)).failed_reason or "")


# ── processes come and go ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_child_is_reused_until_it_has_run_its_jobs(queue: Queue) -> None:
    handle = handler(functions.pid, "pid", executor=PROCESS, max_jobs_per_child=2)
    pids = await results(queue, handle, ["pid"] * 5, concurrency=1)
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    assert len(set(pids)) == 3


async def test_children_that_leak_are_replaced_before_they_hold_much(queue: Queue) -> None:
    handle = handler(functions.leak, "leak", executor=PROCESS, max_jobs_per_child=3)
    kept = await results(queue, handle, ["leak"] * 9, concurrency=1)
    assert [megabytes for _, megabytes in kept] == [8, 16, 24] * 3
    assert len({pid for pid, _ in kept}) == 3


async def test_a_lost_lock_kills_the_child_and_nothing_of_it_is_written(queue: Queue, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    job = await queue.add("hang", str(path), attempts=3)
    errors: list[Exception] = []
    options = WorkerOptions(lock_duration="1s", stalled_interval="1h")
    async with Worker(queue, [handler(hang, "hang", executor=PROCESS)], options) as worker:
        worker.on("error", errors.append)
        pid = await eventually(lambda: asyncio.to_thread(pid_in, path))
        await server.commands.call("DEL", queue.keys.lock(job.id))
        await eventually(lambda: asyncio.to_thread(gone, pid))
        await worker.wait_until_idle()
    assert [type(error) for error in errors] == [LockLostError]
    await job.refresh()
    assert (await job.get_state(), job.attempts_made, job.failed_reason) == ("active", 0, None)


async def test_a_child_that_outlives_the_shutdown_timeout_is_killed_and_its_job_put_back(
    server: Server, prefix: str, tmp_path: Path
) -> None:
    path, clock = tmp_path / "pid", FakeClock()
    queue = Queue[Any, Any]("work", prefix=prefix, server=server, clock=clock)
    job = await queue.add("hang", str(path), attempts=1)
    async with Worker(queue, [handler(hang, "hang", executor=PROCESS)], WorkerOptions(shutdown_timeout="10s")) as worker:
        pid = await eventually(lambda: asyncio.to_thread(pid_in, path))
        worker.ask_to_stop()
        await eventually(lambda: _is_stopping(worker))
        clock.advance("9999ms")
        assert await queue.get_active_count() == 1  # a round trip in which nothing is killed
        assert exists(pid)
        clock.advance("1ms")
    assert not exists(pid)
    await job.refresh()
    assert (await job.get_state(), job.attempts_made, worker.left_behind) == ("waiting", 0, 0)


async def _is_stopping(worker: Worker) -> None:
    assert worker.state is WorkerState.STOPPING


async def test_a_timeout_kills_the_child(server: Server, prefix: str, tmp_path: Path) -> None:
    path, clock = tmp_path / "pid", FakeClock()
    queue = Queue[Any, Any]("work", prefix=prefix, server=server, clock=clock)
    await queue.add("hang", str(path))
    worker = Worker(queue, [handler(hang, "hang", executor=PROCESS, timeout="5s")])
    failures = heard_by(worker, "failed")
    async with worker:
        pid = await eventually(lambda: asyncio.to_thread(pid_in, path))
        clock.advance("5s")
        await worker.wait_until_idle()
        assert not exists(pid)
        await worker.listeners.wait_until_quiet()
    assert [type(each) for each in failures] == [JobTimeoutError]


async def test_a_cancelled_job_loses_its_child(queue: Queue, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    job = await queue.add("hang", str(path), attempts=3)
    async with Worker(queue, [handler(hang, "hang", executor=PROCESS)]):
        pid = await eventually(lambda: asyncio.to_thread(pid_in, path))
        await queue.cancel(job.id, reason="enough")
        with pytest.raises(JobFailedError, match="enough"):
            await job.result(timeout="20s")
        assert not exists(pid)


async def test_a_forced_stop_kills_the_child_and_puts_the_job_back(queue: Queue, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    job = await queue.add("hang", str(path))
    async with Worker(queue, [handler(hang, "hang", executor=PROCESS)]) as worker:
        pid = await eventually(lambda: asyncio.to_thread(pid_in, path))
        await worker.stop(force=True)
        assert not exists(pid)
        assert worker.left_behind == 0
    assert await (await queue.get_job(job.id)).get_state() == "waiting"


async def test_pure_python_in_a_child_starves_nobody_and_ends_before_the_stop(queue: Queue) -> None:
    burning = await queue.add("burn")
    began, ended = asyncio.Event(), asyncio.Event()

    async def quick(job: Job[Any, Any]) -> None:
        if job.data == "last":
            ended.set()

    async def note_beginning(job: Job[Any, Any], value: object) -> None:
        began.set()

    worker = Worker(queue, [handler(functions.burn, "burn", executor=PROCESS), handler(quick, "quick")])
    worker.on("progress", note_beginning)  # by then the child ignores signals, as it doesn't in its first moments
    async with worker:
        await began.wait()
        await queue.add_many([queue.job("quick", n) for n in range(50)])
        await queue.add("quick", "last")
        await ended.wait()
        assert [job.name for job in worker.running_jobs if job.name == "burn"] == ["burn"]
        for pid in await eventually(lambda: asyncio.to_thread(one_child_of, os.getpid())):
            os.killpg(pid, signal.SIGINT)  # as from a terminal: whether the child ends is the worker's to say
    assert ((await queue.get_job(burning.id)).return_value or 0) > 1_000


def one_child_of(pid: int) -> list[int]:
    found = children_of(pid)
    assert len(found) == 1
    return found


async def test_a_child_dies_with_its_worker_process(toril_server_url: str, prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    arguments = ("-m", "tests.server.process_application", toril_server_url, prefix, str(path))
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=Path(__file__).parents[2])
    try:
        pid = await eventually(lambda: asyncio.to_thread(pid_in, path), timeout="20s")
    finally:
        process.kill()
        await process.wait()
    await eventually(lambda: asyncio.to_thread(gone, pid))


def gone(pid: int) -> None:
    assert not exists(pid)


# ── an application ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("is_root", [True, False])
async def test_a_child_has_a_container_of_its_own(
    is_root: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    destroyed = tmp_path / "destroyed"
    monkeypatch.setenv("TORIL_TEST_DESTROYED", str(destroyed))
    builder = TestingModuleBuilder(ReportsModule, None) if is_root else Test.create_testing_module(imports=[ReportsModule])
    async with await builder.compile() as t:
        jobs = [await t.queue("reports").add(name) for name in ("render", "render", "here")]
        await t.drain("reports")
        returned: list[Any] = [(await t.queue("reports").get_job(job.id)).return_value for job in jobs]
        first, second, here = returned
        assert t.get(Counter).count == 0
        assert here == {"pid": os.getpid(), "count": 0}
        assert first["pid"] != os.getpid()
        assert first["initialised"]
        assert first["job"] == jobs[0].id
        assert (await jobs[0].get_logs()).rows == ["rendered"]
        if first["pid"] == second["pid"]:
            assert {first["count"], second["count"]} == {1, 2}
        assert destroyed.read_text(encoding="utf-8").split()[0] in (str(first["pid"]), str(second["pid"]))
        monkeypatch.delenv("TORIL_TEST_DESTROYED")
    assert f"rendered queue=reports job_id={jobs[0].id}" in capfd.readouterr().err


async def test_a_handler_in_a_child_takes_data_and_what_is_injected() -> None:
    async with await Test.create_testing_module(imports=[ReportsModule]).compile() as t:
        job = await t.queue("reports").add("title", {"text": "A report"})
        await t.drain("reports")
        assert (await t.queue("reports").get_job(job.id)).return_value == Title(text="A report True")


# ── what can be known at start ────────────────────────────────────────────────────────────────────────────────


async def test_a_module_inside_of_a_function_is_a_graph_error_that_names_the_fix() -> None:
    @processor("q")
    class Local:
        @process("render", executor="process")
        def render(self, job: Job[Any, Any]) -> None: ...

    @module(imports=[QueueModule.register_queue("q")], providers=[Local])
    class LocalModule: ...

    with pytest.raises(GraphErrors) as caught:
        await Test.create_testing_module(imports=[LocalModule]).compile()
    [error] = caught.value.errors
    assert isinstance(error, NotInChildError)
    assert error.processor == "Local.render"
    assert "at the top level of a file" in str(error)


async def asynchronous(job: Job[Any, Any]) -> None: ...


def test_an_executor_that_cannot_be_is_refused() -> None:
    def inner(job: Job[Any, Any]) -> None: ...

    with pytest.raises(InvalidOptionError, match="inside of a function"):
        handler(inner, executor=PROCESS)
    with pytest.raises(InvalidOptionError, match="is async"):
        handler(asynchronous, executor="thread")
    with pytest.raises(InvalidOptionError, match="is async"):
        process(executor="thread")(asynchronous)
    with pytest.raises(InvalidOptionError, match="only executor"):
        process(max_jobs_per_child=1)(functions.pid)
    with pytest.raises(InvalidOptionError, match='write "thread" or "process"'):
        handler(functions.pid, executor="fork")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
