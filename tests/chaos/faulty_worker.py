"""A worker process that is to be stopped dead at some point: `python -m tests.chaos.faulty_worker URL PREFIX`.

Its jobs are of every kind that a crash could spoil. Handlers keep nothing: what a run does follows from the job alone, so a run after
a crash does the same. Each run is told by a line with the job's name.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from toril.errors import RateLimitError
from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.worker.options import WorkerOptions
from toril.worker.worker import Worker

WORK: Final = "work"
LETTERS: Final = "letters"
LOCK_MS: Final = 3_000
OPTIONS: Final = WorkerOptions(
    concurrency=1, lock_duration=f"{LOCK_MS}ms", stalled_interval="100ms", drain_delay="50ms", max_stalled_count=3
)


async def handle(job: Job[Any, Any], note: Callable[[str], object]) -> Any:  # noqa: ANN401 -- each kind has its own
    """Run a job of any kind."""
    note(job.name)
    match job.name:
        case "retry" if job.attempts_made == 0:
            raise ValueError("fails once")
        case "dead":
            raise ValueError("fails for good")
        case "limited" if job.attempts_started == 1:
            raise RateLimitError("50ms")
        case "cancelled":
            await job.cancel("no longer wanted")
            await asyncio.Event().wait()  # until the worker hears of it
        case "parent":
            return sorted((await job.get_children_values()).values())
        case _:
            pass
    return job.name


async def main(url: str, prefix: str) -> None:
    async def run(job: Job[Any, Any]) -> Any:  # noqa: ANN401 -- each kind has its own
        return await handle(job, lambda name: os.write(1, f"{name}\n".encode()))

    async with Queue(WORK, prefix=prefix, url=url, dead_letter=LETTERS) as queue:
        await Worker(queue, run, OPTIONS).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
