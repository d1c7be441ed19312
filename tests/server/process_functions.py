"""What child processes import in tests: plain functions."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from pydantic import BaseModel

from toril import DelayedError, Job, JobDef, UnrecoverableError, WaitingError


class Size(BaseModel):
    width_px: int
    height_px: int


class Area(BaseModel):
    pixels: int
    pid: int


MEASURE = JobDef[Size, Area]("measure")


class NoTemplateError(Exception):
    """An error of a user's own."""


def measure(job: Job[Size, Area]) -> Area:
    return Area(pixels=job.data.width_px * job.data.height_px, pid=os.getpid())


def measure_defined(job: Job[Any, Any]) -> Area:
    return Area(pixels=job.data.width_px * job.data.height_px, pid=os.getpid())


async def measure_async(job: Job[Size, Area]) -> Area:
    return measure(job)


def wrong_result(job: Job[Any, Area]) -> Any:  # noqa: ANN401 -- a mistake
    return {"pixels": "many"}


def pid(job: Job[Any, Any]) -> int:
    return os.getpid()


LEAKED: list[bytearray] = []


def leak(job: Job[Any, Any]) -> list[int]:
    """Keep 8 MB for good; the process's id, and how much it keeps by now."""
    LEAKED.append(bytearray(8 << 20))
    return [os.getpid(), sum(map(len, LEAKED)) >> 20]


def fail(job: Job[Any, Any]) -> None:
    match job.name:
        case "unrecoverable":
            raise UnrecoverableError("never")
        case "delayed":
            raise DelayedError("1h", "later")
        case "waiting" if job.attempts_started < 3:
            raise WaitingError
        case "waiting":
            return
        case _:
            raise NoTemplateError("no template")


def die(job: Job[Any, Any]) -> int:
    """Die at the first attempt."""
    if job.attempts_made == 0:
        if job.name == "exit":
            os._exit(7)
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


async def report(job: Job[Any, Any]) -> None:
    os.write(1, b"written to standard output\n")
    await job.update_progress({"done": 50})
    await job.log("half of it")
    await job.update_data({"n": 2})


def report_sync(job: Job[Any, Any]) -> int:
    job.sync.update_progress({"done": 50})
    job.sync.update_data({"n": 2})
    return job.sync.log("half of it")


async def report_sync_on_the_loop(job: Job[Any, Any]) -> None:
    job.sync.log("never")


def burn(job: Job[Any, Any]) -> int:
    """Two seconds of pure Python, once it has told that it begins."""
    job.sync.update_progress("begins")
    ends_at = time.process_time() + 2
    count = 0
    while time.process_time() < ends_at:
        count += 1
    return count


def count_up(job: Job[Any, Any]) -> int:
    """As many steps of work as the job says."""
    return sum(1 for _ in range(job.data))
