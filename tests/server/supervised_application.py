"""The application of the supervisor's tests, which they copy into a folder of their own: handlers that show which process they run in."""

# ruff: noqa: T201, ASYNC220, ASYNC251 -- what it prints is what the tests wait for, and some of it is bad on purpose

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from toril import ConfigModule, Job, JobLogger, QueueModule, ScheduleModule, TorilSettings, cron, module, process, processor


@processor("work", concurrency=4, lock_duration="2s", stalled_interval="500ms")
class Work:
    @process("hang")
    async def hang(self, job: Job[Any, str]) -> str:
        """Hangs when it runs for the first time, with a program that keeps the process's output open."""
        if job.stalled_count:
            return "done by another process"
        sleeping = subprocess.Popen(["sleep", "60"])
        print(f"hanging pid={os.getpid()} sleeper={sleeping.pid}", flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            sleeping.kill()
            sleeping.wait()
            print("slept", flush=True)  # its supervisor, who reads that, may be gone
        return "never"

    @process("until-told")
    async def until_told(self, job: Job[str, None]) -> None:
        print("waiting for the file", flush=True)
        while not Path(job.data).exists():  # noqa: ASYNC110 -- the test is another process
            await asyncio.sleep(0.01)

    @process("block")
    async def block(self, job: Job[Any, None]) -> None:
        """Blocks the loop, so that no signal is heard."""
        print("blocking", flush=True)
        while True:
            time.sleep(1)

    @process("in-a-thread")
    def in_a_thread(self, job: Job[Any, None]) -> None:
        print("in a thread", flush=True)
        time.sleep(600)

    @process("quick")
    async def quick(self, job: Job[int, int]) -> int:
        return job.data

    @process("talk")
    async def talk(self, job: Job[int, None]) -> None:
        for _ in range(20):
            print(json.dumps({"event": "long", "n": job.data, "text": "x" * 100_000}), flush=True)


@processor("children")
class Children:
    def __init__(self, log: JobLogger) -> None:
        self._log = log

    @process("log", executor="process")
    def in_a_child(self, job: Job[Any, None]) -> None:
        self._log.warning("from a child process")

    @process("print", executor="process")
    def prints(self, job: Job[Any, None]) -> None:
        print("printing", flush=True)
        while True:
            print("still printing", flush=True)
            time.sleep(0.001)


class Ticks:
    @cron("* * * * * *")
    async def tick(self) -> None:
        print("tick", flush=True)


class Says:
    def before_application_shutdown(self, signal: str | None) -> None:
        if signal is not None:  # as it is where the application runs in a child process
            print(f"told by {signal}", flush=True)


CONFIG = ConfigModule.for_root(TorilSettings)


@module(imports=[CONFIG, QueueModule.register_queue("work", "children")], providers=[Work, Children, Says])
class AppModule: ...


@module(imports=[CONFIG, ScheduleModule.for_root()], providers=[Ticks])
class ScheduleAppModule: ...


class Dies:
    async def on_application_bootstrap(self) -> None:
        asyncio.get_running_loop().call_later(0.05, os._exit, 7)


@module(imports=[CONFIG, QueueModule.register_queue("work")], providers=[Work, Dies])
class DyingModule: ...
