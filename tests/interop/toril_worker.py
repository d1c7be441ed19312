"""A process with one worker of ours, to be killed or frozen: `python -m tests.interop.toril_worker URL PREFIX`. It says `ready`."""

from __future__ import annotations

import asyncio
import os
import sys

from tests.interop.handling import handle
from toril import Queue, Worker, WorkerOptions


async def main(url: str, prefix: str) -> None:
    options = WorkerOptions(lock_duration="1s", stalled_interval="300ms", drain_delay="1s")
    async with Queue("q", prefix=prefix, url=url) as queue, Worker(queue, handle, options):
        os.write(1, b"ready\n")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
