"""What workers tell of themselves in the server: written at start, again and again while they live, gone when they stop."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import pytest

from tests.bench import Bench
from toril import Job, Queue, QueueModule, Worker, WorkerFactory, WorkerOptions, handler, module, process, processor
from toril.testing import FakeClock, eventually
from toril.wire import presence
from toril.worker import presence as workers_presence


async def nothing(job: Job) -> None: ...


async def noted(bench: Bench) -> dict[str, Any]:
    """What stands in the server."""
    connection = bench.server.commands_of(bench.keys)
    return {worker_id: json.loads(text) for worker_id, text in (await presence.noted_workers(connection, bench.keys)).items()}


async def test_a_worker_tells_of_itself_from_its_start_to_its_stop(queue: Queue, bench: Bench) -> None:
    handlers = [handler(nothing, "welcome"), handler(nothing, "bye", concurrency=2)]
    async with Worker(queue, handlers, WorkerOptions(name="the one", concurrency=7)) as worker:
        fields = (await noted(bench))[worker.id]
        now_ms = await presence.server_ms(bench.server.commands)
        assert now_ms - 10_000 < fields.pop("startedAt") <= fields.pop("seenAt") <= now_ms
        assert abs(fields.pop("clockOff") - (queue.clock.now_ms() - now_ms)) < 10_000  # the clock of this test stands still
        assert fields.pop("version")
        assert fields == {
            "name": "the one",
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "handlers": ["bye", "welcome"],
            "handlesAll": False,
            "concurrency": 7,
            "roles": [],
            "blockedFor": 0,
        }
        (manifest,) = await queue.get_worker_manifests()
        assert (manifest.id, manifest.handles("bye"), manifest.handles("other")) == (worker.id, True, False)
    assert await noted(bench) == {}
    assert await bench.server.commands.call("EXISTS", bench.keys.workers) == 0


@processor("emails")
class Emails:
    @process("welcome")
    async def welcome(self, job: Job) -> None: ...


async def test_a_worker_of_an_application_tells_what_its_process_does(toril_server_url: str, prefix: str) -> None:
    @module(imports=[QueueModule.for_root(url=toril_server_url, prefix=prefix), QueueModule.register_queue("emails")], providers=[Emails])
    class Root: ...

    async with WorkerFactory.create(Root, roles=["worker", "producer"]) as app:
        (manifest,) = await app.queue("emails").get_worker_manifests()
        assert manifest.roles == ["producer", "worker"]


async def test_a_worker_says_again_that_it_is_there(queue: Queue, bench: Bench, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_presence, "REFRESH_S", 0)
    async with Worker(queue, nothing) as worker:
        first = (await noted(bench))[worker.id]
        assert (first["handlers"], first["handlesAll"]) == ([], True)
        await bench.server.commands.call("DEL", bench.keys.workers)  # as an obliterated queue loses all

        async def is_back() -> None:
            clock.advance("1s")
            found = (await noted(bench)).get(worker.id)
            assert found is not None
            assert found["startedAt"] == first["startedAt"]
            assert found["seenAt"] >= first["seenAt"]

        await eventually(is_back)


async def test_those_that_are_gone_without_a_word_are_forgotten_by_the_next(queue: Queue, bench: Bench) -> None:
    now_ms = await presence.server_ms(bench.server.commands)
    old = {"name": "old", "seenAt": now_ms - 60_000}
    young = {"name": "young", "seenAt": now_ms - 20_000, "handlers": "all", "pid": "?"}
    for worker_id, text in (("old", json.dumps(old)), ("young", json.dumps(young)), ("odd", "?")):
        await presence.note_worker(bench.server.commands, bench.keys, worker_id, text.encode())
    (manifest,) = await queue.get_worker_manifests()
    assert (manifest.name, manifest.handlers, manifest.pid) == ("young", [], 0)
    async with Worker(queue, nothing) as worker:
        assert set(await noted(bench)) == {"young", worker.id}


async def test_a_worker_that_may_not_tell_works_all_the_same(queue: Queue, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.server.commands.call("SET", bench.keys.workers, "somebody's")
    job = await queue.add("a", 1)
    async with Worker(queue, nothing):
        await job.result(timeout="10s")
    assert caplog.text.count("this worker can't be noted in the server") == 1
