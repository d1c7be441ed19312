"""A process with one worker, to be killed: `python -m tests.server.crashing_worker URL PREFIX MAX_STALLED_COUNT`.

A job's handler writes a line with the job's id as it begins. Then a job named `kill` kills the process, one named `quick` ends,
and any other one goes on until somebody kills the process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.worker.options import WorkerOptions
from toril.worker.worker import Worker


async def handle(job: Job[Any, Any]) -> None:
    os.write(1, f"{job.id}\n".encode())
    if job.name == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.name != "quick":
        await asyncio.Event().wait()


async def main(url: str, prefix: str, max_stalled_count: int) -> None:
    options = WorkerOptions(lock_duration="1s", stalled_interval="100ms", drain_delay="50ms", max_stalled_count=max_stalled_count)
    async with Queue("q", prefix=prefix, url=url) as queue:
        await Worker(queue, handle, options).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
