"""One worker process of a storm: `python -m tests.chaos.worker URL PREFIX LOG`. SIGTERM stops it in the orderly way."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any, Final

from tests.chaos.jobs import LETTERS, WORK, RunLog, handle
from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.worker.options import WorkerOptions
from toril.worker.worker import Worker

LOCK_MS: Final = 3_000
STALLED_MS: Final = 1_000

CONCURRENCY: Final = 10

OPTIONS: Final = WorkerOptions(
    concurrency=CONCURRENCY,
    lock_duration=f"{LOCK_MS}ms",
    stalled_interval=f"{STALLED_MS}ms",
    max_stalled_count=1_000,  # in a storm a job may lose its worker again and again
    drain_delay="1s",
    shutdown_timeout="500ms",
)


async def main(url: str, prefix: str, log_path: Path) -> None:
    log = RunLog(log_path)

    async def run(job: Job[Any, Any]) -> Any:  # noqa: ANN401 -- each kind has its own
        return await handle(job, log)

    async with Queue(WORK, prefix=prefix, url=url, dead_letter=LETTERS) as queue:
        worker = Worker(queue, run, OPTIONS)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.ask_to_stop)
        await worker.run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
