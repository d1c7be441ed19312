"""A server with an evicting policy that has thrown keys away: jobs are lost, as nobody can help, but told; the workers go on."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from tests.servers import OwnServer, one_server
from toril import Job, Queue, Worker, WorkerOptions
from toril.errors import ServerFullError
from toril.testing import eventually
from toril.wire.connection import Server
from toril.wire.keys import QueueKeys

KEYS: Final = QueueKeys("bull", "q")
LITTLE: Final = "6mb"
BATCH: Final = 50
ENOUGH: Final = 30


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[OwnServer]:
    async with one_server(tmp_path / "s", maxmemory=LITTLE, maxmemory_policy="allkeys-lru") as server:
        yield server


@pytest.fixture
async def queue(own: OwnServer) -> AsyncIterator[Queue]:
    async with Server(own.url) as server:
        yield await Queue("q", server=server).open()


async def add(queue: Queue, first: int) -> None:
    numbers = range(first, first + BATCH)
    await queue.add_many([queue.job("n", {"n": n, "text": "x" * 10_000}, job_id=f"job-{n}") for n in numbers])


WHICH_ARE_THERE: Final = """
local there, gone = {}, {}
for _, id in ipairs(redis.call("LRANGE", KEYS[1] .. "wait", 0, -1)) do
  local list = redis.call("EXISTS", KEYS[1] .. id) == 1 and there or gone
  list[#list + 1] = id
end
return {there, gone}
"""


async def waiting(queue: Queue) -> tuple[set[str], set[str]]:
    """The ids that wait: those with a job behind them, and those without."""
    there, gone = await queue.server.commands.call("EVAL", WHICH_ARE_THERE, 1, KEYS.base)
    return {job_id.decode() for job_id in there}, {job_id.decode() for job_id in gone}


async def calls(own: OwnServer, command: str) -> int:
    stats = await own.ask("INFO", "commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


async def test_the_jobs_that_are_left_run_and_those_that_are_gone_are_told(
    own: OwnServer, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = count(0, BATCH)

    async def has_lost_some() -> tuple[set[str], set[str]]:
        await own.ask("CONFIG", "SET", "maxmemory", LITTLE)
        await add(queue, next(numbers))
        await own.ask("CONFIG", "SET", "maxmemory", "100mb")  # each command throws away some more, even one that only looks
        there, gone = await waiting(queue)
        assert len(gone) > ENOUGH < len(there)
        return there, gone

    there, gone = await eventually(has_lost_some)  # which ones is the server's choice; the whole list of them, at times
    assert (await own.ask("INFO", "stats"))["evicted_keys"] >= len(gone)
    ran: list[str] = []

    async def handler(job: Job) -> None:
        ran.append(job.id)

    before = await calls(own, "evalsha")
    async with Worker(queue, handler) as worker:
        await worker.wait_until_idle()
        assert not worker.problems
        assert await calls(own, "evalsha") - before < 2 * len(ran) + 20
    told = [record.getMessage() for record in caplog.records if "jobs are gone" in record.getMessage()]
    assert "set maxmemory-policy noeviction" in caplog.text  # at the start
    assert sorted(ran) == sorted(there)  # each once
    assert sum(int(re.findall(r"count=(\d+)", line)[0]) for line in told) == len(gone)
    assert all("maxmemory-policy noeviction" in line and re.search(r"job-\d+", line) for line in told)
    assert len(told) <= 2  # the first ones at once, all others together
    assert await queue.get_job_counts("waiting", "active") == {"waiting": 0, "active": 0}


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-ttl"])
async def test_a_worker_neither_ends_nor_spins_while_the_server_goes_on_throwing_keys_away(
    own: OwnServer, queue: Queue, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The volatile one throws away locks, until there are none any more and adds are refused."""
    await own.ask("CONFIG", "SET", "maxmemory-policy", policy)

    async def handler(job: Job) -> None: ...

    options = WorkerOptions(drain_delay="50ms", lock_duration="1s", stalled_interval="100ms")
    async with Worker(queue, handler, options) as worker:
        assert f"maxmemory_policy={policy}" in caplog.text
        for first in range(0, 60 * BATCH, BATCH):
            with contextlib.suppress(ServerFullError):
                await add(queue, first)
        await worker.wait_until_idle()
        assert (await own.ask("INFO", "stats"))["evicted_keys"] > 50
        naps, turns = await calls(own, "bzpopmin"), await calls(own, "evalsha")

        async def has_slept() -> None:
            assert await calls(own, "bzpopmin") >= naps + 10

        await eventually(has_slept)
        slept = await calls(own, "bzpopmin") - naps
        assert await calls(own, "evalsha") - turns < 6 * slept + 20  # a look after each nap, renewals and sweeps
        assert not worker.problems
        await own.ask("CONFIG", "SET", "maxmemory", "0")
        last = await queue.add("n", {}, job_id="last")
        assert await last.result(timeout="10s") is None
