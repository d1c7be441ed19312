"""What a failover with Sentinels costs: `python -m tests.chaos.failover`. Replication is asynchronous, so the way of the failover decides.

A producer adds one job after the other while a worker runs them, and the primary is killed, or told to give its place away: plainly
(it takes writes until the Sentinels demote it), or coordinated (it first lets its replica have all). Counted is what was
acknowledged and is not there afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from tests.servers import SERVICE, SentinelGroup, sentinels
from toril.errors import AddOutcomeUnknownError, ServerError
from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.testing import eventually
from toril.worker.options import WorkerOptions
from toril.worker.worker import Worker

WAYS: Final = ("killed", "plain", "coordinated")
AFTERWARDS: Final = 200
"""How many adds follow once the new primary is known."""


async def measure(way: str, folder: Path) -> None:
    runs: Counter[str] = Counter()

    async def handle(job: Job[Any, Any]) -> None:
        runs[job.id] += 1

    options = WorkerOptions(lock_duration="5s", stalled_interval="1s", max_stalled_count=10)
    async with sentinels(folder) as group, Queue("q", url=group.url) as queue, Worker(queue, handle, options) as worker:
        switching = asyncio.create_task(_switch(group, way))
        sure: list[str] = []
        unknown, number, left, longest = 0, 0, AFTERWARDS, 0.0
        while left:
            number += 1
            began = time.monotonic()
            try:
                sure.append((await queue.add("x", {}, job_id=f"n-{number}")).id)
            except (AddOutcomeUnknownError, ServerError):
                unknown += 1
            longest = max(longest, time.monotonic() - began)
            left -= switching.done()
        await switching
        await eventually(lambda: _is(worker.is_idle and worker.is_ready), timeout="60s")
        jobs = [await queue.find_job(job_id) for job_id in sure]
        lost = sum(job is None for job in jobs)
        unended = sum(job is not None and job.record.return_value is None for job in jobs)
        again = sum(count - 1 for count in runs.values())
    print(
        f"  {way:<12} {len(sure):6,} adds acknowledged, of which {lost:5,} are lost; {unknown} unknown; "
        f"{again:4,} runs again; {unended} not ended; the longest add took {longest:.1f} s",
        flush=True,
    )


async def _switch(group: SentinelGroup, way: str) -> None:
    assert await group.primary.ask("WAIT", 1, 5_000) == 1
    if way == "killed":
        await group.primary.end(signal.SIGKILL)
    else:
        await group.watchers[0].ask("SENTINEL", "FAILOVER", SERVICE, *(["COORDINATED"] if way == "coordinated" else []))

    async def is_switched() -> None:
        assert await group.known_port() == group.replica.port
        if way != "killed":
            assert (await group.primary.ask("INFO", "replication"))["role"] == "slave"

    await eventually(is_switched, timeout="60s")


def _is(fact: object) -> None:
    assert fact


async def main(ways: list[str]) -> None:
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="failover") as folder:
        for way in ways:
            await measure(way, Path(folder) / way)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.failover", description=__doc__)
    parser.add_argument("ways", nargs="*", help=f"which failovers, of {', '.join(WAYS)} (default: all)")
    asyncio.run(main(parser.parse_args().ways or list(WAYS)))
