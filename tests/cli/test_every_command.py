"""What holds for each command that there is: a server that is away, one that falls silent, Ctrl-C, wrong arguments.

A new command fails here until it has its row.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from tests.cli.command import ForkedCli
from tests.cli.tree import COMMANDS, LEAVES
from tests.fake_server import FakeServer, bulk, greets
from tests.proxy import Command
from toril.testing import eventually

pytestmark = pytest.mark.blocks_the_loop

APPLICATION: Final = """
import os
from toril import Job, QueueModule, QueueOptions, ScheduleModule, cron, module, process, processor

if "SLOW" in os.environ:
    open("importing", "w").close()
    open(os.environ["SLOW"]).read()

@processor("emails")
class Emails:
    @process("welcome")
    async def welcome(self, job: Job) -> None: ...

class Crons:
    @cron("0 3 * * *")
    async def nightly(self) -> None: ...

@module(imports=[ScheduleModule.for_root(), QueueModule.register_queue("emails")], providers=[Emails, Crons])
class AppModule: ...
"""
APP: Final = "things:AppModule"


@dataclass(frozen=True, slots=True)
class Row:
    """A command with arguments that are right."""

    words: str
    wrong: str | None = None
    """Further arguments that the command itself finds wrong, before it does anything."""
    needs_server: bool = True


ROWS: Final = {
    "check": Row("--max-waiting 5", "--max-age 5"),
    "dlq ls": Row("emails", "--older-than 5"),
    "dlq purge": Row("emails 1 --yes", "--all"),
    "dlq replay": Row("emails 1", "--limit 3"),
    "doctor": Row("", "--fail-on ok"),
    "flow show": Row("emails 1", "--depth 0"),
    "graph": Row(APP, "--json --mermaid -", needs_server=False),
    "job add": Row("emails welcome {}", "--wait 5"),
    "job cancel": Row("emails 1 --yes", "--all"),
    "job debug": Row(f"emails 1 --app {APP}"),
    "job explain": Row("emails 1"),
    "job logs": Row("emails 1", "--tail 0"),
    "job ls": Row("emails", "--state complete"),
    "job promote": Row("emails 1", "--name x"),
    "job retry": Row("emails 1", "--where x"),
    "job rm": Row("emails 1 --yes", "--newer-than 5"),
    "job show": Row("emails 1"),
    "new": Row("mails", needs_server=False),
    "queue clean": Row("emails --older-than 1h --yes", "--state active"),
    "queue drain": Row("emails --yes"),
    "queue limits": Row("emails", "--rate 5"),
    "queue ls": Row(""),
    "queue obliterate": Row("emails --yes"),
    "queue orphans": Row("emails --remove --yes"),
    "queue pause": Row("emails", "--all"),
    "queue resume": Row("emails", "--all"),
    "queue show": Row("emails"),
    "schedule diff": Row(f"--app {APP}", "--prefix x"),
    "schedule ls": Row(""),
    "schedule pause": Row("emails nightly"),
    "schedule resume": Row("emails nightly"),
    "schedule rm": Row("emails nightly --yes"),
    "schedule run": Row("emails nightly"),
    "stats": Row("--watch 1", "--json"),
    "worker": Row(f"{APP} --connect-timeout 0s", "--roles boss"),
    "workers": Row(""),
}
ON_SERVERS: Final = [name for name, row in ROWS.items() if row.needs_server]


def words_of(name: str) -> tuple[str, ...]:
    return (*name.split(), *ROWS[name].words.split())


@pytest.fixture
def cli(cli: ForkedCli) -> ForkedCli:
    (cli.folder / "things.py").write_text(APPLICATION)
    return cli


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, and nobody will: it is bound."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_each_command_has_a_row() -> None:
    assert list(ROWS) == [" ".join(command) for command in COMMANDS]


@pytest.mark.parametrize("name", ON_SERVERS)
async def test_without_a_server_it_says_in_one_line_where_it_looked_and_what_to_do(cli: ForkedCli, name: str, closed_port: int) -> None:
    cli.environment["REDIS_URL"] = f"redis://user:s3cret@127.0.0.1:{closed_port}"
    done = await cli(*words_of(name), code=3)
    told = [line for line in done.err.splitlines() if name != "worker" or line.startswith("error:")]  # it logs, too
    assert (done.out, len(told)) == ("", 1), done.err
    assert told[0].startswith(f"error: no server answers at redis://user:***@127.0.0.1:{closed_port}: ")
    assert "Is it running, and is REDIS_URL right?" in told[0]
    debugged = await cli(*words_of(name), "--debug", code=3)
    assert debugged.err.count("Traceback (most recent call last)") == 1


async def test_what_needs_no_server_does_without(cli: ForkedCli, closed_port: int) -> None:
    cli.environment["REDIS_URL"] = f"redis://127.0.0.1:{closed_port}"
    for name in sorted(ROWS.keys() - set(ON_SERVERS)):
        await cli(*words_of(name))


async def test_a_server_that_never_answers_is_given_up(cli: ForkedCli) -> None:
    async with FakeServer() as silent:
        silent.may_read.clear()
        line = await cli.error("queue", "ls", "--redis-url", silent.url, code=3)
        assert line.startswith(f"error: no server answers at {silent.url}: ")


async def falls_silent(command: Command) -> bytes | None:
    """A server with one queue, which says no more than that."""
    if command[0] == b"SCAN":
        return b"*2\r\n" + bulk("0") + b"*1\r\n" + bulk("bull:emails:meta")
    return await greets(command) if command[0] in CONNECTING else None


CONNECTING: Final = (b"INFO", b"HELLO", b"AUTH", b"CLIENT", b"SELECT")


@pytest.mark.parametrize("name", [name for name in ON_SERVERS if name != "worker"])  # tests/server/test_cli.py stops that one
async def test_ctrl_c_ends_it_while_it_waits_for_an_answer(cli: ForkedCli, name: str) -> None:
    async with FakeServer(falls_silent) as server:
        cli.environment |= {"REDIS_URL": server.url, "TORIL_PREFIX": "bull"}
        async with cli.started(*words_of(name)) as started:

            async def waits() -> None:
                assert not started.code.done()
                assert [command for command in server.commands if command[0] not in (*CONNECTING, b"SCAN")]

            await eventually(waits, timeout="20s")
            started.send_signal(signal.SIGINT)
            done = await started.end()
    assert (done.code, done.out, done.err) == (130, "", "interrupted\n")


@pytest.mark.parametrize("words", ["graph", "queue ls --app", "worker"])
async def test_ctrl_c_ends_it_while_it_imports_the_application(cli: ForkedCli, words: str) -> None:
    os.mkfifo(cli.folder / "slow")
    cli.environment["SLOW"] = "slow"
    async with cli.started(*words.split(), APP) as started:

        async def imports() -> None:
            assert not started.code.done()
            assert (cli.folder / "importing").exists()

        await eventually(imports, timeout="20s")
        started.send_signal(signal.SIGINT)
        done = await started.end()
    assert (done.code, done.out) == (130, "")
    assert done.err in ("", "interrupted\n")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_wrong_arguments_are_told_with_code_2(cli: ForkedCli, command: tuple[str, ...]) -> None:
    name = " ".join(command)
    parameters = {one.name: one for one in LEAVES[command].params}
    assert "--nonsense" in (await cli(*words_of(name), "--nonsense", code=2)).err
    if any(one.required for one in parameters.values()):
        assert "Missing " in (await cli(*command, code=2)).err
    if not any(one.nargs == -1 for one in parameters.values()):
        assert "unexpected extra argument" in (await cli(*words_of(name), *"a b c d".split(), code=2)).err
    if "redis_url" in parameters and "--app" not in words_of(name):
        assert "'nowhere'" in await cli.error(*words_of(name), "--app", "nowhere:AppModule", code=2)
        line = await cli.error(*words_of(name), "--redis-url", "http://:s3cret@127.0.0.1", code=2)
        assert "http://:***@127.0.0.1" in line
    if (wrong := ROWS[name].wrong) is not None:
        done = await cli(*words_of(name), *wrong.split(), code=2)
        assert (done.out, done.err.count("rror: ")) == ("", 1), done.err


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_help_tells_what_it_does_and_each_of_its_options(cli: ForkedCli, command: tuple[str, ...]) -> None:
    done = await cli(*command, "--help")
    assert done.err == ""
    assert done.out.startswith(f"Usage: toril {' '.join(command)} ")
    for one in LEAVES[command].params:
        assert one.help, one.name
        if one.param_type_name == "option":
            assert one.opts[0] in done.out
