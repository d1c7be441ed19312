"""The application of the probes' tests, which they copy into a folder of their own."""

# ruff: noqa: T201, ASYNC251 -- what it prints is what the tests wait for, and some of it is bad on purpose

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from toril import ConfigModule, Job, QueueModule, TorilSettings, module, process, processor


@processor("work", concurrency=4, lock_duration="2s", drain_delay="500ms", loop_block_warning="300ms", max_loop_block="1500ms")
class Work:
    @process("quick")
    async def quick(self, job: Job[Any, int]) -> int:
        return os.getpid()

    @process("hang")
    async def hang(self, job: Job[float, None]) -> None:
        """Sleeps for so many seconds."""
        print("hanging", flush=True)
        await asyncio.sleep(job.data)

    @process("block")
    async def block(self, job: Job[float, None]) -> None:
        """Blocks the loop for so many seconds."""
        print(f"blocking pid={os.getpid()}", flush=True)
        time.sleep(job.data)


@module(imports=[ConfigModule.for_root(TorilSettings), QueueModule.register_queue("work")], providers=[Work])
class AppModule: ...
