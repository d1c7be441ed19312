"""How fast one worker process drains a queue of no-op jobs, beside a bare loop that calls the same script.

    python -m tests.benchmarks.bench_drain [--short] [--jobs N] [--rounds N] [--uvloop]

The bare loop is the limit that figures refer to: the turn script in two lanes of at most 50, each job a task with a validated
payload and a timeout, and nothing else (no slots by name, no locks renewed, no events to listeners, no options read). Both
sides run in turn, round after round, on one server, and what counts is the median of the rounds' ratios: these machines are
shared, so absolute numbers of different runs can't be compared.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, TypeAdapter

from toril import Job, Queue, Worker, WorkerOptions
from toril.embedded import ensure_server
from toril.wire import scripts
from toril.wire.connection import Connection, Server
from toril.wire.keys import QueueKeys

SLOTS = 100
BATCH = 50
LANES = 2
TIMEOUT_S = 30


class Payload(BaseModel):
    """What each job carries."""

    n: int
    text: str


async def handle(job: Job[Payload, dict[str, int]]) -> dict[str, int]:
    """The no-op job."""
    return {"n": job.data.n}


async def fill(queue: Queue, jobs: int) -> None:
    """Add the jobs, in few calls."""
    await queue.add_many([queue.job("no-op", {"n": n, "text": "some text"}, timeout=f"{TIMEOUT_S}s") for n in range(jobs)])


async def drain_with_toril(server: Server, prefix: str, jobs: int, *, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds, by this clock, from the start of a worker until the last job's completion is written."""
    async with Queue("bench", prefix=prefix, server=server) as queue:
        await fill(queue, jobs)
        worker = Worker(queue, {"no-op": handle}, WorkerOptions(concurrency=SLOTS))
        started = clock()
        async with worker:
            await worker.wait_until_idle()
            took = clock() - started
        assert await queue.get_completed_count() == jobs
        return took


class BareLoop:
    """The limit: the same script, and the least that a job needs around it."""

    def __init__(self, keys: QueueKeys, lanes: list[Connection]) -> None:
        self._keys = (keys.base, keys.own)
        self._lanes = lanes
        self._script = scripts.load("turn")
        self._adapter = TypeAdapter(Payload)
        self._endings: deque[tuple[str | bytes, ...]] = deque()
        self._ended = asyncio.Event()
        self._open = SLOTS
        self._done = 0

    async def run(self, jobs: int) -> None:
        async with asyncio.TaskGroup() as group:
            for number, connection in enumerate(self._lanes):
                group.create_task(self._lane(group, number, connection, jobs))

    async def _lane(self, group: asyncio.TaskGroup, number: int, connection: Connection, jobs: int) -> None:
        sequence = 0
        while self._done < jobs:
            batch = [self._endings.popleft() for _ in range(min(len(self._endings), BATCH))]
            claims = min(self._open, BATCH)
            if not batch and not claims:
                self._ended.clear()
                await self._ended.wait()
                continue
            sequence += 1
            self._open -= claims
            args: list[str | bytes | int] = [time.time_ns() // 1_000_000, f"bare:{number}:{sequence}", 30_000, f"bare:{number}", sequence]
            args += (claims, "", 0, 0, 0, 0, 0, 0)
            for ending in batch:
                args += ending
            reply = await connection.run(self._script, self._keys, *args)
            self._done += len(batch)
            self._open += claims - len(reply[5])
            for row in reply[5]:
                group.create_task(self._job(row))
            if not reply[5] and not batch:
                await asyncio.sleep(0)
        self._ended.set()

    async def _job(self, row: list[bytes]) -> None:
        job_id, token, _, data = row[:4]
        payload = self._adapter.validate_json(data)
        async with asyncio.timeout(TIMEOUT_S):
            result = await self._no_op(payload)
        self._endings.append(("c", job_id, token, b'{"n":%d}' % result["n"], "", "", ""))
        self._open += 1
        self._ended.set()

    async def _no_op(self, payload: Payload) -> dict[str, int]:
        return {"n": payload.n}


async def drain_bare(server: Server, prefix: str, jobs: int) -> float:
    """Seconds that the bare loop takes for the same jobs."""
    async with Queue("bench", prefix=prefix, server=server) as queue:
        await fill(queue, jobs)
        lanes = [server.connection(queue.keys) for _ in range(LANES)]
        try:
            for lane in lanes:
                await lane.connect()
            started = time.perf_counter()
            await BareLoop(QueueKeys(prefix, "bench"), lanes).run(jobs)
            took = time.perf_counter() - started
        finally:
            for lane in lanes:
                await lane.aclose()
        assert await queue.get_completed_count() == jobs
        return took


async def measure(url: str, jobs: int, rounds: int) -> None:
    """Interleave both sides and print each round and the median ratio."""
    ratios: list[float] = []
    async with Server(url) as server:
        for number in range(1, rounds + 1):
            bare = await drain_bare(server, f"bench-{secrets.token_hex(4)}", jobs)
            ours = await drain_with_toril(server, f"bench-{secrets.token_hex(4)}", jobs)
            await server.commands.call("FLUSHDB")
            ratios.append(bare / ours)
            print(f"round {number}: bare loop {jobs / bare:8,.0f} jobs/s   toril {jobs / ours:8,.0f} jobs/s   ratio {bare / ours:.2f}")
    print(f"median ratio to the bare loop: {statistics.median(ratios):.2f}  ({jobs:,} no-op jobs, {SLOTS} slots, one process)")


def main() -> None:
    """Read the arguments, and measure on a server of our own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="5,000 jobs, 3 rounds")
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    jobs, rounds = (5_000, 3) if options.short else (options.jobs, options.rounds)
    with tempfile.TemporaryDirectory() as folder, ensure_server(Path(folder)) as server:
        if options.uvloop:
            import uvloop

            uvloop.run(measure(server.url, jobs, rounds))
        else:
            asyncio.run(measure(server.url, jobs, rounds))


if __name__ == "__main__":
    main()
