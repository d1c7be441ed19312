"""A process with one worker, to be killed: `python -m tests.server.crashing_worker URL PREFIX MAX_STALLED_COUNT`.

A job's handler writes a line with the job's id as it begins. Then a job named `kill` kills the process, one named `quick` ends, one
named `hold` keeps the interpreter's lock for three seconds, and any other one goes on until somebody kills the process. What the
worker's `error` listeners hear is written, too.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from typing import Any

from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.worker.options import WorkerOptions
from toril.worker.worker import Worker


def report(error: Exception) -> None:
    os.write(1, f"{type(error).__name__}: {error}\n".encode())


async def handle(job: Job[Any, Any]) -> str | None:
    os.write(1, f"{job.id}\n".encode())
    if job.name == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.name == "hold":
        ctypes.PyDLL(None).usleep(3_000_000)  # PyDLL, unlike CDLL, doesn't release the lock: no thread of this process runs meanwhile
        return "held"
    if job.name != "quick":
        await asyncio.Event().wait()
    return None


async def main(url: str, prefix: str, max_stalled_count: int) -> None:
    options = WorkerOptions(lock_duration="1s", stalled_interval="100ms", drain_delay="50ms", max_stalled_count=max_stalled_count)
    async with Queue("q", prefix=prefix, url=url) as queue:
        worker = Worker(queue, handle, options)
        worker.on("error", report)
        await worker.run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
