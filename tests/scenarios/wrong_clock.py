"""A worker on a machine whose clock is a minute behind: `python -m tests.scenarios.wrong_clock URL PREFIX QUEUE`."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from typing import Any, Final

from toril import Job, Queue, Worker, WorkerOptions
from toril.clock import SystemClock

MINUTE_MS: Final = 60_000


class LateClock(SystemClock):
    """Such a machine's."""

    def now_ms(self) -> int:
        return super().now_ms() - MINUTE_MS


async def send(job: Job[Any, Any]) -> None: ...


async def main(url: str, prefix: str, name: str) -> None:
    async with Queue(name, prefix=prefix, url=url, clock=LateClock()) as queue:
        worker = Worker(queue, {"welcome": send}, WorkerOptions(name=f"{socket.gethostname()}-{os.getpid()}"))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.ask_to_stop)
        running = asyncio.create_task(worker.run())
        await worker.wait_until_started()
        sys.stderr.write("ready\n")
        await running


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
