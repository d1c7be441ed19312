"""A handler that does what the job's data asks for, the same as the peers' (`peer.mjs`)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from toril import Job, Queue, UnrecoverableError, WaitingChildrenError


async def handle(job: Job) -> Any:  # noqa: ANN401 -- what the job asks for
    started = _now_ms()
    data = job.data
    if "spawn" in data:
        await Queue(data["spawn"], prefix=job.queue.prefix, server=job.queue.server).add("child", {"returns": 7}, parent=job)
        await job.update_data({"sum": data["sum"]})
        raise WaitingChildrenError
    if "progress" in data:
        await job.update_progress(data["progress"])
    if "log" in data:
        await job.log(data["log"])
    if data.get("giveUp"):
        raise UnrecoverableError("gives up")
    if data.get("fail") and job.attempts_made < data["fail"]:
        raise ValueError(f"asked to fail: {job.attempts_made + 1}")
    if data.get("sleepFor"):
        await asyncio.sleep(data["sleepFor"] / 1_000)  # what a handler does here doesn't matter, only for how long
    if data.get("sum"):
        return sum((await job.get_children_values()).values())
    return data.get("returns", {"by": "toril", "attempts": job.attempts_made, "started": started, "ended": _now_ms()})


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def is_state(job: Job, state: str) -> None:
    """A probe for `eventually`."""
    found = await job.get_state()
    assert found == state, f"{job} is {found}"
