"""`toril job debug`: the data of a stored job through the handler that is here, and nothing of it in the server that it came from."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from tests.cli.command import Cli
from toril import Queue
from toril.wire.connection import Server

pytestmark = pytest.mark.blocks_the_loop

APPLICATION: Final = """
import os
import signal
from typing import Annotated
from pydantic import BaseModel
from toril import InjectQueue, Job, Queue, QueueModule, QueueOptions, module, process, processor

class Mail(BaseModel):
    to: str
    password: str = ""

@processor("emails")
class Emails:
    def __init__(self, emails: Annotated[Queue, InjectQueue("emails")]) -> None:
        self.emails = emails

    @process("welcome")
    async def welcome(self, job: Job[Mail, dict]) -> dict:
        await self.emails.add("welcome", {"to": "further@example.com"}, delay="1h")
        if "@" not in job.data.to:
            domain = "none"
            raise ValueError(f"no domain in {job.data.to}, password={job.data.password}")
        return {"sent": job.data.to}

    @process("crash")
    async def crash(self, job: Job) -> None:
        if job.data == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        os._exit(77)

@module(imports=[QueueModule.register_queue(QueueOptions("emails", prefix="PREFIX"))], providers=[Emails])
class AppModule: ...
"""
APP: Final = ("--app", "mails:AppModule")


@pytest.fixture
async def emails(server: Server, prefix: str, cli: Cli) -> AsyncIterator[Queue]:
    (cli.folder / "mails.py").write_text(APPLICATION.replace("PREFIX", prefix))
    async with Queue("emails", prefix=prefix, server=server) as queue:
        yield queue


async def everything(queue: Queue) -> dict[bytes, Any]:
    call = queue.server.commands_of(queue.keys).call
    names = [name for name in await call("KEYS", f"*{queue.prefix}*") if not name.endswith(b":meta")]  # opening a queue may write that
    return {name: await call("DUMP", name) for name in sorted(names)}


async def test_a_job_that_works_here_shows_its_result(cli: Cli, emails: Queue) -> None:
    job = await emails.add("welcome", {"to": "ann@example.com"}, delay="2h", attempts=7)
    before = await everything(emails)
    told = (await cli("job", "debug", "emails", job.id, *APP)).out
    assert told.startswith("completed after ")
    assert told.endswith('and returned: {"sent":"ann@example.com"}\n')
    assert await everything(emails) == before
    document = await cli.json("job", "debug", "emails", job.id, *APP)
    assert document.pop("took_ms") >= 0
    assert document == {
        "queue": "emails", "id": job.id, "name": "welcome", "outcome": "completed", "result": {"sent": "ann@example.com"}, "error": None,
    }  # fmt: skip


async def test_a_job_that_fails_here_too_shows_the_traceback_without_secrets_and_touches_nothing(cli: Cli, emails: Queue) -> None:
    job = await emails.add("welcome", {"to": "ann", "password": "s3cret-word"})
    before = await everything(emails)
    done = await cli("job", "debug", "emails", job.id, *APP, code=1)
    assert len(done.err.splitlines()) == 1  # that it runs here; how it ended stands in the answer alone
    told = done.out
    assert "failed after " in told
    assert "mails.py" in told
    assert "in welcome" in told
    assert "ValueError: no domain in ann, password=***" in told
    assert "toril/worker" not in told  # it begins in the user's code
    document = await cli.json("job", "debug", "emails", job.id, *APP, code=1)
    assert (document["outcome"], document["result"], document["error"]["type"]) == ("failed", None, "ValueError")
    assert await everything(emails) == before


async def test_the_debugger_stands_where_the_handler_failed(cli: Cli, emails: Queue) -> None:
    job = await emails.add("welcome", {"to": "ann"})
    done = await cli("job", "debug", "emails", job.id, *APP, "--pdb", "--debug", code=1, stdin="p 'it is', domain\nq\n")
    assert "('it is', 'none')" in done.out


async def test_data_that_no_longer_fit_are_told_as_such(cli: Cli, emails: Queue) -> None:
    job = await emails.add("welcome", {"to": "ann@example.com"})
    await job.update_data({"address": "ann@example.com"})
    done = await cli("job", "debug", "emails", job.id, *APP, code=1)
    assert done.out == ""
    told, line = done.err.splitlines()
    assert told.startswith(f"running job {job.id} (welcome) of queue emails here")
    assert line.startswith("error: ")
    assert "doesn't fit Mail: to" in line


async def test_what_can_not_be_debugged_is_told(cli: Cli, emails: Queue) -> None:
    job = await emails.add("invoice", {})
    assert "no processor handles jobs of this name" in (await cli("job", "debug", "emails", job.id, *APP, code=2)).err
    assert "name the application, as in --app" in await cli.error("job", "debug", "emails", job.id, code=2)
    assert "4711" in await cli.error("job", "debug", "emails", "4711", *APP, code=1)
    assert "mials" in await cli.error("job", "debug", "emails", job.id, "--app", "mials:AppModule", code=2)


async def test_a_job_that_kills_its_process_kills_this_one_and_leaves_no_server_behind(cli: Cli, emails: Queue) -> None:
    job = await emails.add("crash")
    assert "running job" in (await cli("job", "debug", "emails", job.id, *APP, code=77)).err
    assert await emails.find_state(job.id) == "waiting"


async def test_a_crash_in_c_tells_its_signal_and_the_line_of_the_handler(cli: Cli, emails: Queue) -> None:
    job = await emails.add("crash", "segfault")
    err = (await cli("job", "debug", "emails", job.id, *APP, code=-signal.SIGSEGV)).err
    assert "Fatal Python error: Segmentation fault" in err
    assert re.search(r'mails\.py", line \d+ in crash', err)
