"""What all commands share: how they connect, answer, ask, complain and end."""

from __future__ import annotations

import asyncio
import importlib
import os
import pkgutil
import pty
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.cli.command import TORIL, Cli, ForkedCli
from tests.cli.forked import NEEDS_MORE, PATIENCE
from tests.fake_server import FakeServer
from tests.servers import cluster
from toril import Queue

APPLICATION: Final = """
from pathlib import Path
from typing import Annotated
from toril import (
    ConfigModule, InjectQueue, Job, Queue, QueueModule, QueueOptions, ScheduleModule, TorilSettings, cron, module, process, processor,
)

class Expensive:
    def __init__(self) -> None:
        Path("made").touch()

@processor("emails")
class Emails:
    def __init__(self, expensive: Expensive) -> None: ...
    @process("welcome")
    async def welcome(self, job: Job[dict[str, int], None]) -> None: ...

class Crons:
    @cron("0 3 * * *")
    async def nightly(self) -> None: ...

@module(
    imports=[
        ConfigModule.for_root(TorilSettings),
        ScheduleModule.for_root(),
        QueueModule.register_queue(QueueOptions("emails", dead_letter="letters"), "letters"),
        QueueModule.register_queue(QueueOptions("elsewhere", prefix="other-PREFIX")),
    ],
    providers=[Expensive, Emails, Crons],
)
class AppModule: ...

@module()
class EmptyModule: ...
"""


@pytest.fixture
def application(cli: Cli, prefix: str) -> str:
    """The module of an application on the test's prefix."""
    (cli.folder / "things.py").write_text(APPLICATION.replace("PREFIX", prefix))
    return "things:AppModule"


def test_help_imports_nothing_of_the_framework(cli: Cli) -> None:
    looks = "import sys, toril.cli.main; print(*sorted(m for m in sys.modules if m.startswith(('toril.', 'redis', 'pydantic', 'rich'))))"
    done = subprocess.run([sys.executable, "-c", looks], capture_output=True, text=True, cwd=cli.folder, timeout=30, check=True)
    assert [name for name in done.stdout.split() if not name.startswith(("toril.cli.groups", "toril.cli.common"))] == [
        "toril.cli",
        "toril.cli.main",
    ]


def test_modules_and_injection_are_imported_only_for_an_application(cli: Cli) -> None:
    looks = "import sys, toril.cli.doctor, toril.cli.schedules; print(*(name for name in sys.modules if name in sys.argv))"
    heavy = ("toril.di", "toril.modules", "dependency_injector", "toril.worker.worker", "toril.cli.connecting")
    done = subprocess.run([sys.executable, "-c", looks, *heavy], capture_output=True, text=True, cwd=cli.folder, timeout=30, check=True)
    assert done.stdout.split() == ["toril.cli.connecting"]


IMPORTING: Final = """
import importlib, os, sys
import pydantic, redis.asyncio, rich.progress, structlog, typer, typer.main  # others' modules: to import them each time takes long
assert not [name for name in sys.modules if name.startswith("toril")]
failed = []
for name in sys.argv[1:]:
    if (child := os.fork()) == 0:
        importlib.import_module(name)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
print(*failed)
"""


def test_each_module_of_the_commands_can_be_imported_first() -> None:
    found = pkgutil.walk_packages(importlib.import_module("toril.cli").__path__, "toril.cli.")
    names = [one.name for one in found if one.name.rpartition(".")[2] not in NEEDS_MORE]
    assert {"toril.cli.flows", "toril.cli.explain", "toril.cli.groups.queues"} <= set(names)
    done = subprocess.run([sys.executable, "-c", IMPORTING, *names], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "\n", done.stderr


async def test_queues_are_found_with_nothing_but_an_address(
    cli: Cli, installed_cli: Cli, emails: Queue, queue_of: Callable[[str], Queue], prefix: str
) -> None:
    await emails.add("welcome", {"to": 1})
    await emails.add("welcome", {"to": 2}, delay="1h")
    await emails.add("welcome", {"to": 3}, job_id="a:b:meta")  # its hash looks like the settings of a queue
    await queue_of("images").add("resize", 1, priority=2)
    await queue_of("images").pause()
    document = await installed_cli.json("queue", "ls")
    assert document["prefix"] == prefix
    by_name = {each["queue"]: each for each in document["queues"]}
    assert list(by_name) == ["emails", "images"]
    assert by_name["emails"] == {
        "queue": "emails",
        "prefix": prefix,
        "is_paused": False,
        "counts": {"waiting": 2, "active": 0, "delayed": 1, "prioritized": 0, "waiting-children": 0, "completed": 0, "failed": 0},
    }
    assert by_name["images"]["is_paused"] is True
    done = await cli("queue", "ls", "--prefix", prefix)
    assert done.rows[0] == ["queue", "waiting", "active", "delayed", "prioritized", "waiting-children", "completed", "failed"]
    assert done.rows[1:] == [["emails", "2", "0", "1", "0", "0", "0", "0"], ["images", "paused", "0", "0", "0", "1", "0", "0", "0"]]
    nothing = await cli("queue", "ls", "--prefix", f"{prefix}-nobody")
    assert "no queue at unix://" in nothing.err or "no queue at redis://" in nothing.err


async def test_one_queue_is_shown_whole(cli: Cli, emails: Queue) -> None:
    job = await emails.add("welcome", {"to": 1})
    await emails.set_global_concurrency(3)
    await emails.set_global_rate_limit(10, "1m")
    await emails.rate_limit("1h")
    document = await cli.json("queue", "show", "emails")
    limited_ms = document["limits"].pop("limited_for_ms")
    assert 3_500_000 < limited_ms <= 3_600_000
    assert document["limits"] == {"concurrency": 3, "rate": {"max": 10, "duration_ms": 60_000}}
    assert (document["workers"], document["schedules"], document["dead_letter"]) == (0, 0, None)
    assert document["oldest_waiting_at_ms"] == job.timestamp_ms
    assert document["oldest_waiting_at"].endswith("Z")
    out = (await cli("queue", "show", "emails")).out
    for line in ("paused  no", "waiting  1", "concurrency  3 at once, over all workers", "rate limit  10 in 1m, over all workers"):
        assert line.replace("  ", " ") in " ".join(out.split()), out


async def test_an_application_tells_queues_prefixes_and_dead_letters_and_nothing_else_of_it_is_made(
    cli: Cli, application: str, emails: Queue, prefix: str
) -> None:
    await emails.add("welcome", {"to": 1})
    document = await cli.json("queue", "ls", "--app", application)
    assert [(each["queue"], each["prefix"]) for each in document["queues"]] == [
        ("elsewhere", f"other-{prefix}"),
        ("emails", prefix),
        ("letters", prefix),
        ("schedules", prefix),
    ]
    assert document["queues"][1]["counts"]["waiting"] == 1
    cli.environment["TORIL_APP"] = application
    assert (await cli.json("queue", "show", "emails"))["dead_letter"] == "letters"
    assert not (cli.folder / "made").exists()
    # What is written out comes before the variable.
    assert [each["queue"] for each in (await cli.json("queue", "ls", "--prefix", prefix))["queues"]] == ["emails"]
    wrong = await cli.error("queue", "ls", "--app", application, "--prefix", "x", code=2)
    assert wrong == "error: give either --app, whose settings tell server and prefix, or --redis-url and --prefix"
    assert "registers no queue" in await cli.error("queue", "ls", "--app", "things:EmptyModule", code=2)
    assert "did you mean things?" in await cli.error("queue", "ls", "--app", "thinsg:AppModule", code=2)


async def test_what_is_wrong_is_told_in_one_line_with_a_code(cli: Cli, emails: Queue) -> None:
    await emails.add("welcome", {"to": 1})
    line = await cli.error("queue", "show", "emials", code=1)
    assert line.startswith("error: there is no queue 'emials' at ")
    assert line.endswith("; did you mean emails?")
    line = await cli.error("queue", "ls", "--redis-url", "redis://:s3cret@127.0.0.1:1/0", code=3)
    assert line.startswith("error: no server answers at redis://:***@127.0.0.1:1/0: ")
    assert "can't be read" in await cli.error("queue", "ls", "--redis-url", "redis://:s3cret@ret@:x", code=2)
    debugged = await cli("queue", "ls", "--redis-url", "redis://:s3cret@127.0.0.1:1/0", "--debug", code=3)
    assert "Traceback (most recent call last)" in debugged.err
    wrong = await cli("queue", "lsx", code=2)
    assert "lsx" in wrong.err
    assert "--nonsense" in (await cli("queue", "ls", "--nonsense", code=2)).err
    assert "Missing argument" in (await cli("queue", "show", code=2)).err


async def test_what_others_have_written_does_not_reach_the_terminal_as_it_is(cli: Cli, queue_of: Callable[[str], Queue]) -> None:
    await queue_of("e\x1b[31mvil").add("a", 1)
    assert (await cli("queue", "ls")).rows[1][0] == r"e\x1b[31mvil"
    assert (await cli.json("queue", "ls"))["queues"][0]["queue"] == "e\x1b[31mvil"
    assert (await cli.error("queue", "show", "e\x1b[31mvi", code=1)).endswith(r"; did you mean e\x1b[31mvil?")
    debugged = await cli("queue", "show", "e\x1b[31mvi", "--debug", code=1)
    assert debugged.err.count("did you mean e\\x1b[31mvil?\n") == 2  # in one line, and in the last one of the traceback


ASKING: Final = """
import asyncio, io, os, signal, sys
from toril.cli.confirming import confirm
from toril.cli.output import Output

class Terminal(io.StringIO):
    def flush(self):
        if self.getvalue().endswith("Go on? [y/N]: "):
            os.kill(os.getpid(), signal.SIGINT)

async def main():
    confirm(Output(as_json=False), "remove all", yes=False)
    print("removed")

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.stderr = Terminal()
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_counts_from_the_moment_in_which_the_question_is_shown() -> None:
    ours, its = pty.openpty()
    os.write(ours, b"y\n")
    done = subprocess.run([sys.executable, "-c", ASKING], stdin=its, capture_output=True, text=True, timeout=30, check=True)
    os.close(ours)
    os.close(its)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


async def test_a_terminal_gets_colours_and_a_pipe_whole_lines(cli: Cli, queue_of: Callable[[str], Queue]) -> None:
    name = "q" * 120
    await queue_of(name).add("a", 1)
    assert (await cli("queue", "ls")).rows[1][0] == name
    code, shown = await cli.in_terminal("queue", "ls")
    assert (code, "\x1b[1m" in shown, name in shown) == (0, True, False)


async def test_a_reader_that_has_seen_enough_is_no_failure(cli: Cli, queue_of: Callable[[str], Queue]) -> None:
    queue = queue_of("many")
    await queue.add_many([queue.job("a", "x" * 40) for _ in range(2_000)])
    for words in ("", "--json"):
        line = f"{TORIL} job ls many --limit 2000 {words} | head -c 10; exit ${{PIPESTATUS[0]}}"
        process = await asyncio.create_subprocess_exec("bash", "-c", line, env=cli.environment, stdout=PIPE, stderr=PIPE)
        out, err = await process.communicate()
        assert (len(out), err, process.returncode) == (10, b"", 0)


async def test_queues_of_a_cluster_are_found(cli: Cli, tmp_path: Path) -> None:
    async with cluster(tmp_path / "cluster", replicas=0) as group, Queue("emails", url=group.url) as emails:
        await emails.add("a", 1)
        cli.environment |= {"REDIS_URL": group.url, "TORIL_PREFIX": ""}
        document = await cli.json("queue", "ls")
        assert (document["prefix"], [one["queue"] for one in document["queues"]]) == ("{bull}", ["emails"])
        assert (await cli.json("queue", "show", "emails"))["counts"]["waiting"] == 1


def test_a_shell_completes_commands(cli: Cli) -> None:
    asked = {"_TORIL_COMPLETE": "complete_bash", "COMP_WORDS": "toril queue s", "COMP_CWORD": "2"}
    completed = subprocess.run([TORIL], capture_output=True, text=True, env=cli.environment | asked, timeout=30, check=False)
    assert completed.stdout.split() == ["show"]


async def completed(cli: ForkedCli, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    typed = {"_TORIL_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(("toril", *words)), "COMP_CWORD": str(len(words))}
    done = await ForkedCli(cli.folder, cli.environment | typed, cli.forks)()
    assert done.err == ""
    return done.out.split()


async def test_a_shell_completes_names_of_queues(
    cli: ForkedCli, application: str, emails: Queue, queue_of: Callable[[str], Queue], prefix: str
) -> None:
    cli.environment[PATIENCE] = "60"
    for name in ("emails", "events", "images", "e$(reboot)", "e vil", "größe"):
        await queue_of(name).add("a", 1)
    assert await completed(cli, "queue", "show", "e") == ["emails", "events"]
    assert await completed(cli, "queue", "ls", "emails", "i") == ["images"]
    for command in (("job", "retry"), ("dlq", "ls"), ("schedule", "ls"), ("workers",), ("doctor",)):
        assert await completed(cli, *command, "") == ["emails", "events", "größe", "images"]
    assert await completed(cli, "dlq", "ls", "letters", "--from", "im") == ["images"]
    assert await completed(cli, "queue", "show", "--prefix", f"{prefix}-other", "e") == []
    # An application's are known without its server.
    assert await completed(cli, "queue", "show", "--redis-url", "redis://127.0.0.1:1", "e") == []
    cli.environment |= {"TORIL_APP": application, "REDIS_URL": "redis://127.0.0.1:1"}
    assert await completed(cli, "queue", "show", "") == ["elsewhere", "emails", "letters", "schedules"]
    assert not (cli.folder / "made").exists()
    cli.environment["TORIL_APP"] = "nowhere:AppModule"
    assert await completed(cli, "queue", "show", "") == []
    del cli.environment["TORIL_APP"], cli.environment["REDIS_URL"]  # there is the embedded server, which doesn't run
    assert await completed(cli, "queue", "show", "") == []
    assert not (cli.folder / "valkey").exists()


async def test_a_shell_does_not_wait_for_a_server_that_is_silent(cli: ForkedCli) -> None:
    async with FakeServer() as silent:
        silent.may_read.clear()
        cli.environment["REDIS_URL"] = silent.url
        assert await completed(cli, "queue", "show", "") == []
        assert silent.connections == 1
