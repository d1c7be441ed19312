"""Whatever a Node program puts into a queue by hand, our worker goes on: with the other jobs, or as soon as the damage is repaired."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import pytest

from tests.compared import Compared
from tests.interop.handling import handle
from tests.interop.peer import NodePeer
from toril import Queue, Worker, WorkerOptions
from toril.testing import eventually

Part: TypeAlias = str | bytes
Command: TypeAlias = Sequence[Part]
"""`{q}` stands for the queue's keys."""

JOB: Final = ("name", "a", "opts", '{"attempts":0}', "timestamp", "1700000000000", "delay", "0", "priority", "0")
NO_TEXT: Final = b"\xff\xfe\x00id"


def _stored(job_id: Part, *fields: Part) -> list[Command]:
    """A job with these fields besides the usual ones, that waits."""
    key = b"{q}:" + job_id if isinstance(job_id, bytes) else f"{{q}}:{job_id}"
    return [("HSET", key, *JOB, *fields), ("LPUSH", "{q}:wait", job_id)]


DAMAGED_JOBS: Final[Mapping[str, list[Command]]] = {
    "an id that is no text": _stored(NO_TEXT, "data", "{}"),
    "an id that is no text, without a hash": [("LPUSH", "{q}:wait", b"\xfe\xff")],
    "an id without a hash": [("LPUSH", "{q}:wait", "ghost")],
    "a prioritized id without a hash": [("ZADD", "{q}:prioritized", "4294967297", "ghost-2")],
    "a delayed id without a hash": [("ZADD", "{q}:delayed", "4096", "ghost-3")],
    "an empty id": [("LPUSH", "{q}:wait", "")],
    "a marker of old versions": [("LPUSH", "{q}:wait", "0:1700000000000")],
    "an id that is a key of the queue": [("LPUSH", "{q}:wait", "meta")],
    "a hash without a name": [("HSET", "{q}:nameless", "data", "{}"), ("LPUSH", "{q}:wait", "nameless")],
    "data that is no JSON": _stored("d1", "data", "{broken"),
    "data that is no text": _stored("d2", "data", b"\xff\xfe"),
    "no data": _stored("d3"),
    "options that are no JSON": _stored("o1", "data", "{}", "opts", "[["),
    "options that are no object": _stored("o2", "data", "{}", "opts", "7"),
    "options without sense": _stored(
        "o3", "data", "{}", "opts", '{"attempts":"many","backoff":[],"removeOnComplete":{"count":"x"},"de":3}'
    ),
    "numbers that are none": _stored("n1", "data", "{}", "timestamp", "now", "delay", "long", "priority", "high", "atm", "one"),
    "a parent that is no JSON": _stored("p1", "data", "{}", "parentKey", "nowhere", "parent", "{"),
    "stack traces that are no JSON": _stored("s1", "data", '{"giveUp": true}', "stacktrace", "["),
    "progress that is no JSON": _stored("g1", "data", "{}", "progress", "half"),
    "a job that is no hash": [("SET", "{q}:t1", "text"), ("LPUSH", "{q}:wait", "t1")],
    "a lock that is no text": [("HSET", "{q}:l1:lock", "a", "b"), *_stored("l1", "data", "{}")],
    "logs that are no list": [("SET", "{q}:r1:logs", "text"), *_stored("r1", "data", '{"log": "row"}')],
    "dependencies that are no set": [("SET", "{q}:c1:dependencies", "text"), *_stored("c1", "data", "{}")],
}

DAMAGED_QUEUES: Final[Mapping[str, list[Command]]] = {
    "wait": [("SET", "{q}:wait", "text")],
    "prioritized": [("SET", "{q}:prioritized", "text")],
    "delayed": [("RPUSH", "{q}:delayed", "x")],
    "active": [("SET", "{q}:active", "text")],
    "marker": [("SET", "{q}:marker", "text")],
    "meta": [("SET", "{q}:meta", "text")],
    "events": [("SET", "{q}:events", "text")],
    "limiter": [("RPUSH", "{q}:limiter", "x"), ("HSET", "{q}:meta", "max", "5", "duration", "1000")],
}


async def _put(node: NodePeer, commands: Sequence[Command]) -> None:
    for command in commands:
        base = f"{node.prefix}:q"
        parts = [
            {"base64": base64.b64encode(part.replace(b"{q}", base.encode())).decode()}
            if isinstance(part, bytes)
            else part.replace("{q}", base)
            for part in command
        ]
        await node.ask("raw", command=parts)


async def test_jobs_that_node_has_damaged_never_stop_our_worker(node: NodePeer, queue: Queue, compared: Compared) -> None:
    options = WorkerOptions(concurrency=3, stalled_interval="100ms", lock_duration="1s")
    async with Worker(queue, handle, options) as worker:
        for damage, commands in DAMAGED_JOBS.items():
            await _put(node, commands)
            added = await node.ask("add", queue="q", name="a", data={"returns": damage}, opts={})
            assert await node.ask("waitUntilFinished", queue="q", id=added["id"], ttl=10_000) == damage
            compared.jobs += 1
        await eventually(lambda: _nothing_is_left(queue))
        assert worker.is_ready, worker.problems
    ran = await queue.find_job(NO_TEXT.decode(errors="surrogateescape"))
    assert ran is not None
    assert await ran.get_state() == "completed"


async def _nothing_is_left(queue: Queue) -> None:
    counts = await queue.get_job_counts("waiting", "prioritized", "delayed", "active")
    assert counts == {"waiting": 0, "prioritized": 0, "delayed": 0, "active": 0}


@pytest.mark.parametrize("key", DAMAGED_QUEUES)
async def test_a_queue_that_node_has_damaged_runs_on_once_it_is_repaired(
    node: NodePeer, queue: Queue, key: str, compared: Compared
) -> None:
    async with Worker(queue, handle, WorkerOptions(drain_delay="100ms", stalled_interval="100ms")) as worker:
        await (await queue.add("a", {})).result(timeout="10s")
        await _put(node, [("DEL", f"{{q}}:{key}"), *DAMAGED_QUEUES[key]])
        await eventually(lambda: _has_problem(worker))
        await _put(node, [("DEL", f"{{q}}:{key}"), ("HDEL", "{q}:meta", "max", "duration")])
        added = await node.ask("add", queue="q", name="a", data={"returns": key}, opts={})
        assert await (await queue.get_job(added["id"])).result(timeout="10s") == key
        await eventually(lambda: _is_ready(worker))
    compared.jobs += 2


def _has_problem(worker: Worker) -> None:
    assert worker.problems


def _is_ready(worker: Worker) -> None:
    assert worker.is_ready, worker.problems
