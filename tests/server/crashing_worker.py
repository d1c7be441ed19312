"""A process with one worker, to be killed: `python -m tests.server.crashing_worker URL PREFIX`.

Each job's handler writes a line with the job's id once it has begun. Jobs named `kill` then kill the process; all others wait
until the process is killed by somebody else.
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
    sys.stdout.write(f"{job.id}\n")
    sys.stdout.flush()
    if job.name == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.Event().wait()


async def main(url: str, prefix: str) -> None:
    options = WorkerOptions(lock_duration="1s", stalled_interval="100ms", drain_delay="50ms", max_stalled_count=1)
    async with Queue("q", prefix=prefix, url=url) as queue:
        await Worker(queue, handle, options).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
