"""A process with one worker of ours, to be killed or frozen: `python -m tests.interop.toril_worker URL PREFIX`."""

from __future__ import annotations

import asyncio
import sys

from tests.interop.handling import handle
from toril import Queue, Worker, WorkerOptions


async def main(url: str, prefix: str) -> None:
    options = WorkerOptions(lock_duration="1s", stalled_interval="300ms", drain_delay="1s")
    async with Queue("q", prefix=prefix, url=url) as queue:
        await Worker(queue, handle, options).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
