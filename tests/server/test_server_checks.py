"""What is found out about a server before a worker begins: a user's permissions, an evicting policy. With the documented permissions
everything works; without any single one of them the worker says so at its start."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.bench import error_of
from tests.servers import OwnServer, documented_rules, free_ports, one_server
from toril import FlowProducer, Job, JobOptions, Queue, QueueEvents, ScheduleRule, Worker, WorkerOptions, flow_job
from toril.errors import JobFailedError, ServerRefusedError
from toril.testing import eventually
from toril.wire.connection import Server
from toril.wire.keys import QueueKeys
from toril.wire.server_checks import check_server

ROOT: Final = Path(__file__).parents[2]
PASSWORD: Final = "hunter2"
KEYS: Final = QueueKeys("bull", "q")


@pytest.fixture
async def own(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OwnServer]:
    [port] = free_ports(1)
    async with one_server(tmp_path_factory.mktemp("kv"), port=port) as server:
        yield server


async def as_user(own: OwnServer, *rules: str) -> str:
    """The server's address for a user with these rules and no others."""
    await own.ask("ACL", "SETUSER", "limited", "reset", "on", f">{PASSWORD}", *rules)
    return own.url.replace("redis://", f"redis://limited:{PASSWORD}@")


async def handle(job: Job[Any, Any]) -> Any:  # noqa: ANN401 -- each name has its own
    if job.name == "broken":
        raise ValueError("broken")
    if job.name == "parent":
        return list((await job.get_children_values()).values())
    await job.log("a row")
    await job.update_progress(50)
    return job.data


async def test_the_documented_permissions_are_enough_for_everything(own: OwnServer) -> None:
    url = await as_user(own, *documented_rules())
    options = WorkerOptions(lock_duration="1s", stalled_interval="100ms", drain_delay="50ms", metrics="1h")
    async with (
        Queue("letters", url=url) as letters,
        Queue("q", url=url, dead_letter=letters) as queue,
        FlowProducer(url=url) as flows,
        QueueEvents(queue) as events,
        Worker(queue, handle, options) as worker,
    ):
        assert await (await queue.add("x", {"n": 1}, idempotent=True)).result(timeout="10s") == {"n": 1}
        node = await flows.add(flow_job("parent", queue="q", children=[flow_job("x", {"n": 2}, queue="q")]))
        assert await node.job.result(timeout="10s") == [{"n": 2}]
        broken = await queue.add("broken", attempts=2)
        with pytest.raises(JobFailedError):
            await broken.result(timeout="10s")
        [letter] = await letters.dead_letters.list()
        await letters.dead_letters.replay(letter.id)
        await queue.job_schedulers.upsert("beat", ScheduleRule(every="1h"), name="x", data={})
        await queue.pause()
        for options_ in (JobOptions(delay="1h"), JobOptions(priority=2), JobOptions()):
            job = await queue.add("x", {}, options=options_)
            await queue.cancel(job.id, reason="enough")
        await queue.resume()
        await worker.wait_until_idle()
        assert len(await queue.get_workers()) == 1
        assert (await anext(events)).event_name == "added"
        assert worker.is_ready
        await queue.job_schedulers.remove("beat")
        await queue.pause()
        await queue.obliterate(force=True)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("-xadd", "xadd"),
        ("-zpopmin", "zpopmin"),
        ("-bzpopmin", "bzpopmin"),
        ("-publish", "publish"),
        ("-evalsha", "evalsha"),
        ("resetkeys ~bull:*", "key"),
        ("resetkeys ~toril:*", "key"),
        ("resetchannels", "channel"),
    ],
)
async def test_a_missing_permission_is_told_when_the_worker_starts(own: OwnServer, missing: str, words: str) -> None:
    url = await as_user(own, *documented_rules(), *missing.split())
    async with Queue("q", url=url) as queue:
        with pytest.raises(ServerRefusedError) as caught:
            await Worker(queue, handle).run()
    assert words in caught.value.reason
    assert "docs/reliability.md" in str(caught.value)
    assert PASSWORD not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"


async def test_the_probe_tries_every_command_that_the_scripts_call(own: OwnServer) -> None:
    folder = ROOT / "framework/toril/wire/lua"
    tried = set(re.findall(r'"([A-Z]+)"', (folder / "probe.lua").read_text()))
    for path in folder.rglob("*.lua"):
        code = re.sub(r"--.*", "", path.read_text())
        if path.name in ("probe.lua", "shift_ttls.lua"):  # that one is for tests
            continue
        called = set(re.findall(r'call\(\s*"([A-Z]+)"', code)) | set(re.findall(r'(?:and|or) "([A-Z]{3,})"', code))
        assert called <= tried, path.name
    async with Server(own.url) as server:
        await check_server(server, KEYS)
        assert await server.commands.call("DBSIZE") == 0  # nothing is left


def test_the_probe_tries_nothing_that_nobody_calls() -> None:
    """A user without it would be refused for nothing."""
    folder = ROOT / "framework/toril"
    tried = set(re.findall(r'[{(] ?"([A-Z]+)"', (folder / "wire/lua/probe.lua").read_text()))
    sources = [path for path in (*folder.rglob("*.lua"), *folder.rglob("*.py")) if path.name not in ("probe.lua", "shift_ttls.lua")]
    named = {word for path in sources for word in re.findall(r'"([A-Z]+)"', path.read_text())}
    assert tried
    assert tried <= named
    assert {command.lower() for command in tried} <= {rule.removeprefix("+") for rule in documented_rules()}


def test_no_right_is_documented_that_nobody_needs() -> None:
    sources = [path for path in (ROOT / "framework/toril").rglob("*") if path.suffix in (".lua", ".py") and path.name != "shift_ttls.lua"]
    named = {word.lower() for path in sources for word in re.findall(r'"([A-Z]+)"', path.read_text())}
    named |= {"select", "setname"}  # redis-py sends them as it connects
    rights = [rule.removeprefix("+") for rule in documented_rules() if rule.startswith("+")]
    assert len(rights) > 50
    assert [right for right in rights if not set(right.split("|")) <= named] == []


async def test_an_evicting_server_is_warned_of(tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path_factory.mktemp("kv")
    async with one_server(folder, maxmemory="100mb", maxmemory_policy="allkeys-lru") as own, Server(own.url) as server:
        await check_server(server, KEYS)
        assert "set maxmemory-policy noeviction" in caplog.text
        caplog.clear()
        await own.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await check_server(server, KEYS)
        assert not caplog.records


async def test_a_worker_starts_without_a_server_and_runs_once_it_is_there(own: OwnServer) -> None:
    await own.end()
    async with Queue("q", url=own.url) as queue, Worker(queue, handle, WorkerOptions(drain_delay="50ms")) as worker:
        assert isinstance(await error_of(queue.server.commands.call("PING")), Exception)
        await own.start()
        job = await queue.add("x", {"n": 1})
        assert await job.result(timeout="10s") == {"n": 1}
        await eventually(lambda: _is(worker.is_ready))


def _is(fact: object) -> None:
    assert fact
