"""A server whose memory is full takes no new jobs, says so, and loses none of those that it has."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.servers import one_server
from toril import Job, Queue, Worker
from toril.errors import ServerFullError
from toril.testing import eventually
from toril.wire.connection import Server


async def test_adds_fail_by_name_while_jobs_are_claimed_run_and_written(tmp_path: Path) -> None:
    async with one_server(tmp_path / "s", maxmemory_policy="noeviction") as own, Server(own.url) as server:
        queue = await Queue("q", server=server).open()
        may_end, ran = asyncio.Event(), list[str]()

        async def handler(job: Job) -> str:
            ran.append(job.id)
            await may_end.wait()
            return "done"

        jobs = [await queue.add("n") for _ in range(30)]  # more than run at once: some are claimed when the memory is full
        async with Worker(queue, handler) as worker:
            await eventually(lambda: _is(len(ran) == 10))
            await own.ask("CONFIG", "SET", "maxmemory", "1")
            for idempotent in (False, True):
                with pytest.raises(ServerFullError, match="Raise maxmemory"):
                    await queue.add("n", {"x": 1}, idempotent=idempotent)
            may_end.set()
            await worker.wait_until_idle()
            assert not worker.problems
        assert sorted(ran) == sorted(job.id for job in jobs)
        assert await queue.get_job_counts("completed", "active", "waiting") == {"completed": 30, "active": 0, "waiting": 0}
        await own.ask("CONFIG", "SET", "maxmemory", "0")
        await queue.add("n")
        assert await queue.count() == 1


def _is(holds: bool) -> None:
    assert holds


async def test_a_worker_that_starts_on_a_full_server_drains_it(tmp_path: Path) -> None:
    async with one_server(tmp_path / "s", maxmemory_policy="noeviction") as own:
        async with Server(own.url) as server:
            await (await Queue("q", server=server).open()).add("n")
        await own.ask("CONFIG", "SET", "maxmemory", "1")

        async def handler(job: Job) -> None: ...

        async with Server(own.url) as server:
            queue = Queue("q", server=server)
            async with Worker(queue, handler) as worker:
                await worker.wait_until_idle()
            assert await queue.get_job_counts("completed", "waiting") == {"completed": 1, "waiting": 0}
