"""Sentinels and a Cluster, for real: where a connection goes, and what a failover under load does to jobs."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench import error_of
from tests.servers import ClusterGroup, OwnServer, SentinelGroup, cluster, free_ports, one_server, sentinels
from toril import FlowProducer, Job, Queue, QueueEvents, ScheduleRule, Worker, WorkerOptions, flow_job
from toril.errors import AddOutcomeUnknownError, InvalidOptionError, ReadOnlyServerError, ServerKindError, ServerUnreachableError
from toril.queues.events import CompletedEvent
from toril.testing import eventually
from toril.wire.connection import Server
from toril.wire.keys import QueueKeys

pytestmark = pytest.mark.timeout(120)

LOAD = 1_500


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kv")


@pytest.fixture
async def watched(folder: Path) -> AsyncIterator[SentinelGroup]:
    async with sentinels(folder) as group:
        yield group


@pytest.fixture
async def spread(folder: Path) -> AsyncIterator[ClusterGroup]:
    async with cluster(folder) as group:
        yield group


class Counting:
    """A handler that counts how often each job ran."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()

    async def __call__(self, job: Job[dict[str, int]]) -> int:
        self.runs[job.id] += 1
        await asyncio.sleep(0.002)  # the job's work
        return job.data["n"]


async def all_completed(queue: Queue, count: int) -> None:
    try:
        counts = await queue.get_job_counts("waiting", "active", "completed", "failed", "delayed")
    except ServerUnreachableError as error:  # no new primary yet
        raise AssertionError from error
    assert counts == {"waiting": 0, "active": 0, "completed": count, "failed": 0, "delayed": 0}


def options() -> WorkerOptions:
    return WorkerOptions(concurrency=20, lock_duration="2s", stalled_interval="500ms", max_stalled_count=10, drain_delay="1s")


async def replicated(server: OwnServer) -> None:
    """All that was written so far is on the replica, too."""
    assert await server.ask("WAIT", 1, 5_000) == 1


# ── Sentinels ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_jobs_survive_a_primary_that_is_killed_while_they_run(watched: SentinelGroup) -> None:
    handler = Counting()
    async with Queue("q", url=watched.url) as queue:
        jobs = await queue.add_many([queue.job("x", {"n": n}) for n in range(LOAD)])
        await replicated(watched.primary)
        async with Worker(queue, handler, options()) as worker:
            await eventually(lambda: _at_least(handler.runs, LOAD // 4))
            await watched.primary.end(signal.SIGKILL)
            await eventually(lambda: _is(not worker.is_ready))
            await eventually(lambda: all_completed(queue, LOAD), timeout="60s")
            assert await watched.known_port() == watched.replica.port
            late = await queue.add("x", {"n": 1})
            assert await late.result(timeout="10s") == 1
            await eventually(lambda: _is(worker.is_ready))
    assert set(handler.runs) == {job.id for job in jobs} | {late.id}


async def test_a_planned_failover_loses_no_job_and_no_add(watched: SentinelGroup) -> None:
    """Coordinated: the old primary lets nobody write until its replica has all, and then follows it."""
    handler = Counting()
    async with Queue("q", url=watched.url) as queue, Worker(queue, handler, options()) as worker:
        sure: list[str] = []
        unknown = 0
        switched = asyncio.create_task(_switch(watched))
        number = 0
        while not switched.done() or number < 200:
            try:
                sure.append((await queue.add("x", {"n": number}, job_id=f"n-{number}")).id)
            except (AddOutcomeUnknownError, ServerUnreachableError):
                unknown += 1
            number += 1
        await switched
        await eventually(lambda: _is(worker.is_ready), timeout="20s")
        await eventually(lambda: _is(worker.is_idle), timeout="30s")
        lost = [job_id for job_id in sure if await queue.find_job(job_id) is None]
        states = Counter([await (await queue.get_job(job_id)).get_state() for job_id in sure if job_id not in lost])
    assert (lost, states) == ([], {"completed": len(sure)})
    assert number >= 200


async def _switch(group: SentinelGroup) -> None:
    await replicated(group.primary)
    await group.watchers[0].ask("SENTINEL", "FAILOVER", "mymaster", "COORDINATED")

    async def is_switched() -> None:
        assert await group.known_port() == group.replica.port
        assert (await group.primary.ask("INFO", "replication"))["role"] == "slave"

    await eventually(is_switched, timeout="60s")


async def test_an_old_primary_is_left_as_soon_as_the_sentinels_name_another(watched: SentinelGroup) -> None:
    """It would take writes for some ten seconds more, until it is demoted, and lose them all."""
    async with Server(watched.url) as server:
        assert await server.commands.call("SET", "key", "old") == b"OK"
        await watched.watchers[0].ask("SENTINEL", "FAILOVER", "mymaster")
        await eventually(lambda: _has_port(server, watched.replica.port), timeout="30s")
        role = (await watched.primary.ask("INFO", "replication"))["role"]
    assert role == "master"  # by itself it would not have let us go yet


async def test_sentinels_that_do_not_know_the_name_are_told_apart_from_those_that_do_not_answer(watched: SentinelGroup) -> None:
    url = watched.url.replace("mymaster", "nobody")
    async with Server(url, patience_ms=0) as server:
        error = await error_of(server.commands.call("PING"))
    assert isinstance(error, ServerUnreachableError)
    assert "it knows no primary called 'nobody'" in error.reason
    async with Server(f"redis://127.0.0.1:{watched.watchers[0].port}", patience_ms=0) as server:
        error = await error_of(server.commands.call("PING"))
    assert isinstance(error, ServerKindError)
    assert "it is a Sentinel: write redis+sentinel://" in str(error)
    async with Server(watched.replica.url, patience_ms=0) as server:
        error = await error_of(server.commands.call("PING"))
    assert isinstance(error, ReadOnlyServerError)
    assert (error.primary, "read-only replica" in str(error)) == (f"127.0.0.1:{watched.primary.port}", True)


# ── a Cluster ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_queue_lives_on_a_cluster_with_all_that_belongs_to_it(spread: ClusterGroup) -> None:
    async def handle(job: Job) -> Any:  # noqa: ANN401 -- each name has its own
        match job.name:
            case "parent":
                return sorted((await job.get_children_values()).values())
            case "endless":
                return await asyncio.Event().wait()
            case "broken":
                raise ValueError("broken")
            case _:
                return job.data["n"]

    async with (
        Queue("letters", url=spread.url) as letters,
        Queue("q", url=spread.url, dead_letter=letters) as queue,
        Worker(queue, handle, options()) as worker,
        FlowProducer(url=spread.url) as flows,
        QueueEvents("q", url=spread.url) as events,
    ):
        assert (queue.prefix, flows.prefix) == ("{bull}", "{bull}")
        node = await flows.add(flow_job("parent", queue="q", children=[flow_job("x", {"n": n}, queue="q") for n in (1, 2)]))
        heard = asyncio.create_task(_first_completed(events))
        assert await node.job.result(timeout="20s") == [1, 2]
        assert await heard in (1, 2)
        endless = await queue.add("endless")
        await eventually(lambda: _is(bool(worker.running_jobs)))
        assert await queue.cancel(endless.id, reason="enough") == "active"
        with pytest.raises(Exception, match="enough"):
            await endless.result(timeout="10s")
        broken = await queue.add("broken")
        with pytest.raises(Exception, match="broken"):
            await broken.result(timeout="10s")
        assert [letter.job_id for letter in await letters.dead_letters.list()] == [broken.id]
        await queue.job_schedulers.upsert("tick", ScheduleRule(every="1m"), name="x", data={"n": 3})
        await queue.pause()
        await queue.obliterate(force=True)
        assert await queue.find_job(broken.id) is None


async def test_a_node_that_is_killed_stops_only_its_own_queues_until_its_replica_takes_over(spread: ClusterGroup) -> None:
    handlers = Counting(), Counting()
    names = await _on_two_nodes(spread)
    async with (
        Queue("q", prefix=names[0], url=spread.url) as hit,
        Queue("q", prefix=names[1], url=spread.url) as spared,
        Worker(hit, handlers[0], options()) as worker,
        Worker(spared, handlers[1], options()),
    ):
        await hit.add_many([hit.job("x", {"n": n}) for n in range(LOAD)])
        node = await spread.primary_of(hit.keys)
        await replicated(node)
        await eventually(lambda: _at_least(handlers[0].runs, LOAD // 4))
        await node.end(signal.SIGKILL)
        for n in range(50):
            assert await (await spared.add("x", {"n": n})).result(timeout="5s") == n
        await eventually(lambda: all_completed(hit, LOAD), timeout="60s")
        assert await spread.primary_of(hit.keys) is not node
        assert await (await hit.add("x", {"n": 7})).result(timeout="10s") == 7
        await eventually(lambda: _is(worker.is_ready))


async def test_a_slot_that_moves_to_another_node_takes_its_queue_along(spread: ClusterGroup) -> None:
    """A planned failover: the old node lives on, and answers that it is not the one to ask."""
    handler = Counting()
    async with Queue("q", url=spread.url) as queue, Worker(queue, handler, options()) as worker:
        jobs = await queue.add_many([queue.job("x", {"n": n}) for n in range(LOAD)])
        old = await spread.primary_of(queue.keys)
        new = spread.nodes[spread.nodes.index(old) + 3]
        await eventually(lambda: _at_least(handler.runs, LOAD // 4))
        await new.ask("CLUSTER", "FAILOVER")
        await eventually(lambda: all_completed(queue, LOAD), timeout="60s")
        assert await spread.primary_of(queue.keys) is new
        await eventually(lambda: _is(worker.is_ready))
    assert handler.runs == Counter(job.id for job in jobs)


async def test_an_address_of_the_wrong_kind_is_told_with_the_right_one(spread: ClusterGroup, folder: Path) -> None:
    async with Server(spread.nodes[0].url, patience_ms=0) as server:
        error = await error_of(server.commands.call("PING"))
    assert isinstance(error, ServerKindError)
    assert (error.mode, "write redis+cluster://" in str(error)) == ("cluster", True)
    with pytest.raises(InvalidOptionError) as caught:
        async with Queue("q", prefix="jobs", url=spread.url):
            pass
    assert caught.value.option == "prefix"
    assert "must hold a hash tag" in str(caught.value)
    assert "write {jobs}" in str(caught.value)
    [port] = free_ports(1)
    async with one_server(folder / "single", port=port):
        for wrong in (f"redis+cluster://127.0.0.1:{port}", f"redis+sentinel://127.0.0.1:{port}/mymaster"):
            async with Server(wrong, patience_ms=0) as server:
                error = await error_of(server.commands.call("PING"))
            assert isinstance(error, ServerKindError)
            assert (error.mode, "write redis://host:port" in str(error)) == ("standalone", True)


# ── what they have in common ──────────────────────────────────────────────────────────────────────────────────


async def _on_two_nodes(group: ClusterGroup) -> list[str]:
    """Two prefixes that lie on different nodes."""
    first = await group.primary_of(QueueKeys("{a}", "q"))
    for letter in "bcdefgh":
        prefix = f"{{{letter}}}"
        if await group.primary_of(QueueKeys(prefix, "q")) is not first:
            return ["{a}", prefix]
    raise AssertionError("all on one node")


async def _has_port(server: Server, port: int) -> None:
    _, found = await server.commands.call("CONFIG", "GET", "port", repeatable=True)
    assert int(found) == port


async def _first_completed(events: QueueEvents) -> object:
    async for event in events:
        if isinstance(event, CompletedEvent):
            return event.return_value
    raise AssertionError("the stream ended")


async def _at_least(runs: Counter[str], count: int) -> None:
    assert sum(runs.values()) >= count


async def _is(fact: object) -> None:
    assert fact
