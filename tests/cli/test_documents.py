"""Each JSON document of docs/cli.md beside what the command really answers: the same keys, all the way down, and values of the same types.

On the page `…` as a key stands for keys that are not repeated there, and null for what may be missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cli.command import ForkedCli
from tests.cli.tree import LEAVES
from toril import FlowProducer, Job, Queue, ScheduleRule, UnrecoverableError, Worker, WorkerOptions, flow_job, handler
from toril.wire.connection import Server

pytestmark = pytest.mark.blocks_the_loop

PAGE: Final = Path(__file__).parents[2] / "docs/cli.md"
MORE: Final = "…"

FREE: Final = {"data", "options", "facts", "result"}
"""What holds whatever somebody has put there."""

APPLICATION: Final = """
from toril import Job, QueueModule, QueueOptions, ScheduleModule, cron, module, process, processor

@processor("emails")
class Emails:
    @process("welcome")
    async def welcome(self, job: Job) -> None:
        raise ValueError("no such user")

class Crons:
    @cron("0 3 * * *", name="nightly")
    async def nightly(self) -> None: ...

@module(
    imports=[ScheduleModule.for_root(), QueueModule.register_queue(QueueOptions("emails", dead_letter="letters"), "letters")],
    providers=[Emails, Crons],
)
class AppModule: ...
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A command, and what it is to answer."""

    words: str
    like: str | None = None
    """The page says that its document is that of this command."""
    code: int = 0


CASES: Final = {
    "queue ls": Case(""),
    "queue show": Case("emails --app things:AppModule"),
    "queue limits": Case("emails"),
    "queue pause": Case("images"),
    "queue resume": Case("images", like="queue pause"),
    "queue orphans": Case("orphans"),
    "job ls": Case("emails --state failed"),
    "job show": Case("emails {failed}"),
    "job explain": Case("emails {waiting}"),
    "job logs": Case("emails {failed}"),
    "job debug": Case("emails {failed} --app things:AppModule", code=1),
    "schedule ls": Case("schedules"),
    "schedule run": Case("schedules nightly", like="job show"),
    "schedule diff": Case("--app things:AppModule", code=1),
    "schedule pause": Case("schedules nightly", like="schedule ls"),
    "schedule resume": Case("schedules nightly", like="schedule ls"),
    "schedule rm": Case("schedules nightly --yes"),
    "flow show": Case("emails {root}"),
    "dlq ls": Case("letters"),
    "workers": Case(""),
    "stats": Case("emails"),
    "check": Case("--max-waiting 0", code=1),
    "doctor": Case("", code=1),
    "dlq replay": Case("letters {letter} 404", like="job retry", code=1),
    "dlq purge": Case("letters 404 --yes", like="job retry", code=1),
    "job add": Case("emails welcome", like="job show"),
    "job promote": Case("emails {delayed} 404", like="job retry", code=1),
    "job retry": Case("emails {failed} 404", code=1),
    "job cancel": Case("emails {waiting} 404 --yes", like="job retry", code=1),
    "job rm": Case("emails {delayed} 404 --yes", like="job retry", code=1),
    "queue drain": Case("emails --yes"),
    "queue clean": Case("emails --older-than 0s --yes", like="queue drain"),
    "queue obliterate": Case("images --yes"),
    "graph": Case("things:AppModule"),
}


def documents_of_the_page() -> dict[str, Any]:
    """Its documents, each by the first command in the heading above it."""
    found: dict[str, Any] = {}
    for heading, below in re.findall(r"^##+ ([^\n]*)\n(.*?)(?=^##|\Z)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        blocks = re.findall(r"^```json\n(.*?)^```", below, re.MULTILINE | re.DOTALL)
        if blocks:
            named = {" ".join(words): re.search(rf"`(toril )?{' '.join(words)}[` ]", heading) for words in LEAVES}
            first = min((place.start(), name) for name, place in named.items() if place is not None)[1]
            (found[first],) = map(json.loads, blocks)
    return found


def differences(told: Any, real: Any, path: str, *, may_miss: bool) -> Iterator[str]:  # noqa: ANN401 -- this is where JSON comes in
    """What is not as the page tells."""
    if told is None:
        return
    if real is None or type(told) is not type(real):
        if not (real is None and may_miss):
            yield f"{path}: {real!r}, and on the page {told!r}"
        return
    if isinstance(told, dict) and path.rpartition(".")[2] not in FREE:
        yield from (f"{path}.{key}: missing" for key in told.keys() - real.keys() - {MORE})
        yield from (f"{path}.{key}: not on the page" for key in real.keys() - told.keys() if MORE not in told)
        for key in told.keys() & real.keys():
            yield from differences(told[key], real[key], f"{path}.{key}", may_miss=may_miss)
    elif isinstance(told, list) and told:
        found = [list(differences(told[0], one, f"{path}[]", may_miss=may_miss)) for one in real]
        if not may_miss:  # one item that has all is enough
            yield from min(found, key=len, default=[f"{path}: empty"])
        for one in real:
            yield from differences(told[0], one, f"{path}[]", may_miss=True)


async def welcome(job: Job) -> None:
    await job.log("a row")
    if job.data["fails"]:
        raise ValueError("no such user")


async def fetch(job: Job) -> None: ...


async def resize(job: Job) -> None:
    raise UnrecoverableError("no picture")


async def seeded(stack: AsyncExitStack, queue_of: Callable[[str], Queue], server: Server, prefix: str) -> dict[str, str]:
    """Queues in which there is something of everything; ids by what they are in `CASES`. The worker runs until the stack ends."""
    letters, images, schedules, orphans = map(queue_of, ("letters", "images", "schedules", "orphans"))
    emails = Queue("emails", prefix=prefix, server=server, dead_letter=letters)
    handlers = [handler(welcome, "welcome"), handler(fetch, "fetch"), handler(resize, "resize")]
    worker = Worker(emails, handlers, WorkerOptions(name="host-1-4711", concurrency=20))
    worker.roles = ["producer", "worker"]
    failed = await emails.add("welcome", {"fails": True}, attempts=1)
    await emails.add("welcome", {"fails": False})
    async with FlowProducer(prefix=prefix, server=server) as flows:
        children = [flow_job("fetch", {}, queue="emails"), flow_job("resize", {}, queue="emails")]
        root = (await flows.add(flow_job("render", {}, queue="emails", children=children))).job
    await stack.enter_async_context(worker)
    await worker.wait_until_idle()
    await emails.pause()
    await emails.set_global_concurrency(5)
    await emails.set_global_rate_limit(10, "1s")
    waiting = await emails.add("welcome", {"fails": False})
    delayed = await emails.add("welcome", {"fails": False}, delay="1h")
    await images.add("resize", {})
    await schedules.job_schedulers.upsert("nightly", ScheduleRule(pattern="0 4 * * *", tz="Europe/Berlin"), name="nightly")
    orphan = await orphans.add("lost", {})
    await server.commands_of(orphans.keys).call("LREM", orphans.keys.state("wait"), 1, orphan.id)
    letter, *_ = await letters.get_jobs("waiting")
    jobs = {"failed": failed, "root": root, "waiting": waiting, "delayed": delayed, "letter": letter}
    return {name: job.id for name, job in jobs.items()}


def test_each_command_with_json_has_a_case_and_each_document_is_compared() -> None:
    with_json = {" ".join(words) for words, command in LEAVES.items() if any("--json" in one.opts for one in command.params)}
    assert CASES.keys() == with_json
    assert documents_of_the_page().keys() == {name for name, case in CASES.items() if case.like is None}


async def test_documents_are_as_the_page_tells(cli: ForkedCli, queue_of: Callable[[str], Queue], server: Server, prefix: str) -> None:
    (cli.folder / "things.py").write_text(APPLICATION)
    page, wrong = documents_of_the_page(), list[str]()
    async with AsyncExitStack() as stack:
        ids = await seeded(stack, queue_of, server, prefix)
        for name, case in CASES.items():
            real = await cli.json(*name.split(), *case.words.format_map(ids).split(), code=case.code)
            told = page[case.like or name]
            if case.like == "job show":  # the page: without its stack traces
                told = {key: value for key, value in told.items() if key != "stack_trace"}
            if case.like == "schedule ls":
                (told,) = told["schedules"]
            wrong += differences(told, real, name, may_miss=case.like is not None)
    assert wrong == []


@pytest.mark.parametrize(
    ("told", "real", "found"),
    [
        ({"a": 1, "b": None}, {"a": 2, "b": "x"}, []),
        ({"a": 1}, {"a": 1.5}, [".a: 1.5, and on the page 1"]),
        ({"a": 1}, {"a": None}, [".a: None, and on the page 1"]),
        ({"a": True}, {"a": 1}, [".a: 1, and on the page True"]),
        ({"a": {"b": 1}}, {"a": {"c": 1}}, [".a.b: missing", ".a.c: not on the page"]),
        ({"a": {"b": 1, "…": 0}}, {"a": {"b": 1, "c": 1}}, []),
        ({"a": [{"b": 1}]}, {"a": []}, [".a: empty"]),
        ({"a": [{"b": 1}]}, {"a": [{"b": None}, {"b": 2}]}, []),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}, {"b": "x"}]}, [".a[].b: 'x', and on the page 1"]),
        ({"facts": {"b": 1}}, {"facts": {"c": 2}}, []),
    ],
)
def test_differences_are_found(told: object, real: object, found: list[str]) -> None:
    assert list(differences(told, real, "", may_miss=False)) == found
