"""`toril worker` as a process: what it prints, and with which code it ends."""

from __future__ import annotations

import os
import platform
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Final

import pytest

pytestmark = pytest.mark.blocks_the_loop

TORIL: Final = str(Path(sys.executable).with_name("toril"))
PATIENCE_S: Final = 30

MODULE: Final = """
from pathlib import Path
from typing import Annotated
from toril import InjectQueue, Job, Queue, QueueModule, module, process, processor

def note(text):
    with Path("notes").open("a") as file:
        file.write(text + "\\n")

@processor("images", concurrency=2)
class Images:
    @process("resize")
    async def resize(self, job: Job) -> None:
        note(f"resize {job.data}")

@processor("mails", concurrency=3)
class Mails:
    @process()
    async def send(self, job: Job) -> None:
        note(f"send {job.data}")

class Adds:
    def __init__(self, images: Annotated[Queue, InjectQueue("images")], mails: Annotated[Queue, InjectQueue("mails")]) -> None:
        self.images, self.mails = images, mails

    async def on_application_bootstrap(self) -> None:
        if Path("add").exists():
            await self.images.add("resize", 1)
            await self.images.add("resize", 2, delay="1h")
            await self.mails.add("send", 3)

    def before_application_shutdown(self, signal: str | None) -> None:
        note(f"stopped by {signal}")

@module(imports=[QueueModule.register_queue("images", "mails", "unserved")], providers=[Images, Mails, Adds])
class AppModule: ...

class NoModule: ...
"""

BROKEN: Final = """
from typing import Annotated
from toril import InjectQueue, Job, Queue, QueueModule, module, process, processor

@processor("imgaes")
class Images:
    @process("a")
    async def a(self, job: Job) -> None: ...
    @process("a")
    async def b(self, job: Job) -> None: ...

class Service:
    def __init__(self, q: Queue) -> None: ...

@module(imports=[QueueModule.register_queue("images")], providers=[Images, Service])
class AppModule: ...
"""


CRONS: Final = """
import os, signal
from pathlib import Path
from toril import ScheduleModule, interval, module

class Beats:
    @interval("500ms")
    async def beat(self) -> None:
        if not Path("notes").exists():
            Path("notes").write_text("killed\\n")
            os.kill(os.getpid(), signal.SIGKILL)
        print("the next run", flush=True)

@module(imports=[ScheduleModule.for_root()], providers=[Beats])
class AppModule: ...
"""


class Command:
    """Runs `toril` in a folder of its own, and hears what it says."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.lines: list[str] = []
        self._heard: SimpleQueue[str | None] = SimpleQueue()
        self._process: subprocess.Popen[str] | None = None

    def start(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [TORIL, *arguments], cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as output:
            for line in output:
                self._heard.put(line)
        self._heard.put(None)

    def wait_for(self, text: str) -> None:
        """Read lines until one holds this text."""
        until = monotonic() + PATIENCE_S
        while monotonic() < until:
            try:
                line = self._heard.get(timeout=max(until - monotonic(), 0.001))
            except Empty:
                break
            assert line is not None, f"it ended without {text!r}:\n{self.output}"
            self.lines.append(line)
            if text in line:
                return
        raise AssertionError(f"no {text!r} in:\n{self.output}")

    def signal(self, sent: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(sent)

    def end(self) -> int:
        """Wait for its end; the exit code."""
        assert self._process is not None
        code = self._process.wait(PATIENCE_S)
        while (line := self._heard.get(timeout=PATIENCE_S)) is not None:
            self.lines.append(line)
        self._process = None
        return code

    def run(self, *arguments: str) -> tuple[int, str]:
        """Start, wait for the end: exit code and output, which never holds a traceback or a password."""
        self.start(*arguments)
        code = self.end()
        assert "Traceback" not in self.output
        assert "s3cret" not in self.output
        return code, self.output

    @property
    def output(self) -> str:
        return "".join(self.lines)

    @property
    def notes(self) -> list[str]:
        file = self.folder / "notes"
        return file.read_text().splitlines() if file.exists() else []

    def kill(self) -> None:
        """Don't let a process outlive a test that failed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_S)


@pytest.fixture
def toril(tmp_path: Path) -> Iterator[Command]:
    (tmp_path / "things.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text(BROKEN)
    own = {key: value for key, value in os.environ.items() if not key.startswith(("TORIL_", "REDIS_", "SMTP_", "COV_", "PYTEST_"))}
    command = Command(tmp_path, own | {"TORIL_EMBEDDED_DIR": str(tmp_path / "valkey"), "COLUMNS": "200", "NO_COLOR": "1"})
    yield command
    command.kill()


# ── help and usage ────────────────────────────────────────────────────────────────────────────────────────────


def test_help_names_the_command_and_its_options(toril: Command) -> None:
    code, output = toril.run("--help")
    assert (code, "worker" in output) == (0, True)
    code, output = toril.run("worker", "--help")
    assert code == 0
    for option in ("--concurrency", "--queues", "--shutdown-timeout", "--connect-timeout", "--burst"):
        assert option in output


def test_version_names_what_is_installed(toril: Command) -> None:
    code, output = toril.run("--version")
    assert code == 0
    own, below = output.splitlines()
    assert own == f"toril {version('toril')}"
    assert below.startswith(f"{platform.python_implementation()} {platform.python_version()} on ")
    assert f", redis {version('redis')}, " in below


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("things", "write it as package.file:ClassName, for example app.main:AppModule"),
        (":AppModule", "write it as package.file:ClassName"),
        ("things:", "write it as package.file:ClassName"),
        ("thinsg:AppModule", "there is no module 'thinsg' here"),
        ("things.deeper:AppModule", "things"),
        ("things:AppModul", "things has no 'AppModul'; did you mean AppModule?"),
        ("things:NoModule", "'NoModule' is not decorated with @module (modules there: AppModule"),
        ("things:note", "'note' is not decorated with @module"),
    ],
)
def test_a_target_that_is_no_module_is_explained(toril: Command, target: str, told: str) -> None:
    code, output = toril.run("worker", target)
    assert code == 2
    assert told in output


def test_a_module_that_imports_something_missing_is_told_from_a_missing_module(toril: Command) -> None:
    (toril.folder / "imports.py").write_text("import json\nimport not_there\n")
    code, output = toril.run("worker", "imports:AppModule")
    assert code == 2
    assert "imports.py:2 imports 'not_there', which is not installed" in output


def test_everything_wrong_in_the_graph_is_printed_whole(toril: Command) -> None:
    code, output = toril.run("worker", "broken:AppModule")
    assert code == 2
    assert "3 problems in the module graph (nothing was instantiated)" in output
    assert "processes queue 'imgaes': queue 'imgaes' is not registered; did you mean 'images'?" in output
    assert "queue 'imgaes' has two handlers for jobs named 'a'" in output
    assert 'queues are injected by name: Annotated[Queue, InjectQueue("images")].' in output
    assert "broken.py:5" in output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--shutdown-timeout", "25"], "shutdown_timeout"),
        (["--connect-timeout", "-1s"], "connect_timeout"),
        (["--connect-timeout", "soon"], "connect_timeout"),
        (["--queues", "imgaes"], "did you mean 'images'"),
        (["--queues", "unserved"], "served are: "),
        (["--queues", ","], "--queues"),
        (["--roles", "worker,boss"], "roles='boss': there is no such role; there are producer, worker, scheduler"),
        (["--roles", ","], "name at least one of producer, worker, scheduler"),
        (["--concurrency", "0"], "--concurrency"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_wrong_options_are_usage_errors(toril: Command, arguments: list[str], told: str) -> None:
    code, output = toril.run("worker", "things:AppModule", *arguments)
    assert code == 2, output
    assert told in output


def test_debug_shows_the_traceback(toril: Command) -> None:
    toril.start("worker", "broken:AppModule", "--debug")
    assert toril.end() == 2
    assert "Traceback" in toril.output


# ── running ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_burst_runs_what_can_run_now_and_ends(toril: Command) -> None:
    (toril.folder / "add").touch()
    code, output = toril.run("worker", "things:AppModule", "--burst", "--concurrency", "5")
    assert code == 0, output
    assert sorted(toril.notes) == ["resize 1", "send 3", "stopped by None"]
    (ready,) = [line for line in output.splitlines() if "ready" in line]
    assert re.search(r" prefix=bull queues={'images': 5, 'mails': 5} server=unix://\S+/valkey.sock$", ready)


def test_queues_limits_it_to_those(toril: Command) -> None:
    (toril.folder / "add").touch()
    code, output = toril.run("worker", "things:AppModule", "--burst", "--queues", "mails, ")
    assert code == 0, output
    assert toril.notes == ["send 3", "stopped by None"]


def test_roles_decide_what_a_process_does(toril: Command) -> None:
    (toril.folder / "add").touch()
    code, output = toril.run("worker", "things:AppModule", "--burst", "--roles", "producer, scheduler")
    assert (code, toril.notes) == (0, ["stopped by None"]), output
    code, output = toril.run("worker", "things:AppModule", "--burst", "--roles", "worker")
    assert (code, sorted(toril.notes)[:2]) == (0, ["resize 1", "resize 1"]), output


def test_a_schedule_goes_on_after_the_process_that_ran_it_was_killed(toril: Command) -> None:
    (toril.folder / "crons.py").write_text(CRONS)
    toril.start("worker", "crons:AppModule")
    assert toril.end() == -signal.SIGKILL
    assert toril.notes == ["killed"]
    toril.start("worker", "crons:AppModule", "--roles", "scheduler")
    toril.wait_for("the next run")
    toril.signal(signal.SIGTERM)
    assert toril.end() == 0, toril.output


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(toril: Command, sent: signal.Signals) -> None:
    toril.start("worker", "things:AppModule")
    toril.wait_for("ready")
    toril.signal(sent)
    assert toril.end() == 0, toril.output
    assert toril.notes == [f"stopped by {sent.name}"]
    assert "Traceback" not in toril.output


def test_an_error_of_a_hook_at_stop_ends_it_with_1(toril: Command) -> None:
    (toril.folder / "failing.py").write_text(
        "from toril import module\n"
        "class Fails:\n"
        "    def on_module_destroy(self): raise LookupError('at stop')\n"
        "@module(providers=[Fails])\n"
        "class AppModule: ...\n"
    )
    toril.start("worker", "failing:AppModule", "--burst")
    assert toril.end() == 1
    assert "at stop" in toril.output


# ── the server ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, and nobody will: it is bound."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_without_a_server_it_says_once_that_it_waits_and_gives_up_in_one_line(toril: Command, closed_port: int) -> None:
    toril.environment["REDIS_URL"] = f"redis://user:s3cret@127.0.0.1:{closed_port}"
    code, output = toril.run("worker", "things:AppModule", "--connect-timeout", "1s")
    assert code == 3, output
    assert output.count("waiting for the server") == 1
    (error,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert f"127.0.0.1:{closed_port}" in error
    assert "REDIS_URL" in error


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_while_it_waits_for_the_server(toril: Command, closed_port: int, sent: signal.Signals) -> None:
    toril.environment["REDIS_URL"] = f"redis://127.0.0.1:{closed_port}"
    toril.start("worker", "things:AppModule", "--connect-timeout", "1h")
    toril.wait_for("waiting for the server")
    toril.signal(sent)
    assert toril.end() == 0, toril.output
    assert "Traceback" not in toril.output


@pytest.mark.parametrize("url", ["http://:s3cret@127.0.0.1", "redis://:s3cret@127.0.0.1:port"])
def test_an_address_that_can_not_be_read_is_a_usage_error(toril: Command, url: str) -> None:
    toril.environment["REDIS_URL"] = url
    code, output = toril.run("worker", "things:AppModule")
    assert code == 2, output
    assert "REDIS_URL" in output
    assert "while creating" not in output
