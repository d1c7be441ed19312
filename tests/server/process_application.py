"""What child processes import in tests: an application, whose root module is `ReportsModule`.

Run as a program, `python -m tests.server.process_application URL PREFIX PATH`, it is a worker to be killed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from toril import Job, JobLogger, Queue, QueueModule, Worker, handler, module, process, processor
from toril.telemetry.context import current_log_fields


class Title(BaseModel):
    text: str


class Counter:
    """Counts the jobs of its container."""

    def __init__(self) -> None:
        self.count = 0
        self.was_initialised = False

    async def on_module_init(self) -> None:
        self.was_initialised = True

    async def on_module_destroy(self) -> None:
        path = os.environ.get("TORIL_TEST_DESTROYED")
        if path is not None:
            await asyncio.to_thread(Path(path).write_text, f"{os.getpid()} {self.count}", encoding="utf-8")


@processor("reports", concurrency=2)
class ReportProcessor:
    """Lives as long as a job, since it wants a logger of its own."""

    def __init__(self, counter: Counter, log: JobLogger) -> None:
        self._counter = counter
        self._log = log

    @process("render", executor="process", max_jobs_per_child=3)
    def render(self, job: Job[Any, dict[str, Any]]) -> dict[str, Any]:
        self._counter.count += 1
        self._log.warning("rendered")
        job.sync.log("rendered")
        fields = current_log_fields()
        return {"pid": os.getpid(), "count": self._counter.count, "initialised": self._counter.was_initialised, "job": fields["job_id"]}

    @process("title", executor="process")
    async def title(self, data: Title, counter: Counter) -> Title:
        return Title(text=f"{data.text} {counter.was_initialised}")

    @process("here")
    def here(self, job: Job[Any, Any]) -> dict[str, Any]:
        return {"pid": os.getpid(), "count": self._counter.count}


@module(imports=[QueueModule.register_queue("reports")], providers=[Counter, ReportProcessor])
class ReportsModule: ...


def hang(job: Job[Any, Any]) -> None:
    """Tell its process's id, and go on for as long as it may."""
    Path(job.data).write_text(str(os.getpid()), encoding="utf-8")
    while True:
        time.sleep(1)


async def main(url: str, prefix: str, path: str) -> None:
    from tests.server.process_application import hang as importable  # not that of `__main__`

    async with Queue("work", prefix=prefix, url=url) as queue:
        await queue.add("hang", path)
        await Worker(queue, [handler(importable, "hang", executor="process")]).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3]))
