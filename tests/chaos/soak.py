"""`make soak`: what could leak, over and over, with an eye on memory, files, threads and tasks. Exits with 1 if anything grows.

    python -m tests.chaos.soak --jobs 1000000

Each part warms up with a fifth of its work; from then on this process' resident memory, and the server's, may grow by 5 % at most, or by
a megabyte, which buffers come and go by.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from tests.servers import OwnServer, one_server
from toril.queues.job import Job
from toril.queues.option_parts import KeepJobs
from toril.queues.queue import Queue
from toril.wire.connection import Server
from toril.worker.options import WorkerOptions
from toril.worker.worker import Worker

BATCH: Final = 1_000
MEASUREMENTS: Final = 20
WARM_UP: Final = MEASUREMENTS // 5
GROWTH: Final = 1.05
NOISE: Final = 1_000_000
"""Bytes by which buffers make a small server differ from one moment to the next."""
PAGE: Final = os.sysconf("SC_PAGE_SIZE")

Step = Callable[[int], Awaitable[None]]


class Soak:
    """The parts, and what they found."""

    def __init__(self, own: OwnServer, server: Server) -> None:
        self.wrong: list[str] = []
        self._own = own
        self._server = server

    async def jobs(self, count: int) -> None:
        """Jobs that complete, with the retention of queues that modules register."""

        async def handle(job: Job[Any, Any]) -> dict[str, int]:
            return {"n": job.data["n"]}

        await self._through_a_worker(f"{count:,} jobs complete", "done", handle, count)

    async def failures(self, count: int) -> None:
        """Jobs that fail with long stacks and messages."""

        def dig(depth: int, text: str) -> None:
            if depth:
                dig(depth - 1, text)
            raise ValueError(text)

        async def handle(job: Job[Any, Any]) -> None:
            dig(60, f"job {job.data['n']}: {'x' * 2_000}")

        await self._through_a_worker(f"{count:,} jobs fail with long stacks", "failing", handle, count)

    async def listeners(self, count: int) -> None:
        """Listeners that raise after each job."""

        async def handle(job: Job[Any, Any]) -> None: ...

        async def bad(job: Job[Any, Any], result: object) -> None:
            raise ValueError(f"of job {job.id}")

        await self._through_a_worker(f"{count:,} times a listener raises", "heard", handle, count, listener=bad)

    async def queues(self, count: int) -> None:
        """Queues with workers that are opened and closed, each with a connection of its own."""

        async def handle(job: Job[Any, Any]) -> None: ...

        async def step(first: int) -> None:
            for n in range(first, first + count // MEASUREMENTS):
                async with Queue(f"q{n}", url=self._own.url) as queue:
                    await queue.add("x")
                    async with Worker(queue, handle) as worker:
                        await worker.wait_until_idle()
                    await queue.pause()
                    await queue.obliterate(force=True)

        before = _held()
        await self._measure(f"{count:,} queues and workers opened and closed", count, step)
        gc.collect()
        if (after := _held()) != before:
            self.wrong.append(f"queues: before {before}, after {after}")

    async def _through_a_worker(
        self,
        title: str,
        name: str,
        handle: Callable[[Job[Any, Any]], Awaitable[object]],
        count: int,
        listener: Callable[..., Awaitable[None]] | None = None,
    ) -> None:
        keep_completed, keep_failed = KeepJobs(count=500, age="24h"), KeepJobs(count=500, age="30d")
        async with Queue(name, server=self._server, keep_completed=keep_completed, keep_failed=keep_failed, max_events=1_000) as queue:
            worker = Worker(queue, handle, WorkerOptions(concurrency=100))
            if listener is not None:
                worker.on("completed", listener)

            async def step(first: int) -> None:
                after = first + count // MEASUREMENTS
                for start in range(first, after, BATCH):
                    await queue.add_many([queue.job("x", {"n": n}) for n in range(start, min(start + BATCH, after))])
                    await worker.wait_until_idle()

            async with worker:
                await self._measure(title, count, step)
            if worker.attempts_begun != count:
                self.wrong.append(f"{title}: {worker.attempts_begun:,} jobs ran")

    async def _measure(self, title: str, count: int, step: Step) -> None:
        ours, servers = list[int](), list[int]()
        for number in range(MEASUREMENTS):
            await step(number * count // MEASUREMENTS)
            gc.collect()
            ours.append(_resident())
            servers.append(int((await self._own.ask("INFO", "memory"))["used_memory"]))
        for what, sizes in (("this process", ours), ("the server", servers)):
            before, after = sizes[WARM_UP - 1], max(sizes[WARM_UP:])
            growth = after / before
            print(f"  {title:<45} {what:<13} {before / 1e6:8.1f} MB, then at most {after / 1e6:8.1f} MB ({growth - 1:+.1%})", flush=True)
            if growth > GROWTH and after - before > NOISE:
                self.wrong.append(f"{title}: {what} grew by {growth - 1:.1%}")


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def _held() -> dict[str, int]:
    return {"files": len(list(Path("/proc/self/fd").iterdir())), "threads": threading.active_count(), "tasks": len(asyncio.all_tasks())}


async def main(jobs: int) -> int:
    logging.disable(logging.CRITICAL)  # a line for each failure would be all there is to see
    with tempfile.TemporaryDirectory(prefix="soak") as folder:
        async with one_server(Path(folder) / "kv", appendonly="no") as own, Server(own.url) as server:
            soak = Soak(own, server)
            await soak.jobs(jobs)
            await soak.failures(jobs // 10)
            await soak.listeners(jobs // 10)
            await soak.queues(jobs // 500)
    for line in soak.wrong:
        print("WRONG", line)
    print("all of it flat" if not soak.wrong else f"{len(soak.wrong)} things grow")
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000, help="how many; the other parts take a tenth of it, and less")
    sys.exit(asyncio.run(main(parser.parse_args().jobs)))
