"""Toril workers that run while a person looks at the board, and a queue with jobs in every state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.browser.board import BoardQueues
from toril import FlowProducer, Job, Worker, WorkerOptions, flow_job
from toril.queues.flows import JobNode
from toril.queues.states import JobState
from toril.testing import eventually

VIDEO_SLOTS = 2


@dataclass
class Studio:
    """Works on both queues. A job named `broken` fails until `repaired` is set, one named `slow` runs until `finish` is set."""

    queues: BoardQueues
    videos: Worker = field(init=False)
    repaired: bool = False
    finish: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.videos = Worker(self.queues.videos, self.handle, WorkerOptions(name="studio-1", concurrency=VIDEO_SLOTS))

    async def handle(self, job: Job) -> Any:  # noqa: ANN401 -- JSON
        await job.log(f"began {job.name}")
        if job.name == "broken" and not self.repaired:
            raise ValueError(f"no <video> & no sound in attempt {job.attempts_made + 1}")
        if job.name == "slow":
            await job.update_progress(40)
            await self.finish.wait()
        await job.log("wrote é.mp4")
        return {"file": "é.mp4", "seconds": 2.5}

    async def is_well(self) -> None:
        """The worker has survived what happened, and runs what comes."""
        assert self.videos.is_ready
        assert self.videos.problems == ()
        job = await self.queues.videos.add("encode", {"from": "is_well"})
        assert (await job.result(timeout="10s"))["seconds"] == 2.5


@asynccontextmanager
async def studio_at_work(queues: BoardQueues) -> AsyncGenerator[Studio]:
    """Runs as long as the block; what is slow may finish then."""
    studio = Studio(queues)
    async with studio.videos, Worker(queues.thumbnails, studio.handle, WorkerOptions(name="studio-2")):
        try:
            yield studio
        finally:
            studio.finish.set()


async def add_one_of_each_state(studio: Studio) -> dict[JobState, list[Job]]:
    """Jobs in all states: two of those that can't help it, one each of the others; the lists are as the board counts."""
    videos = studio.queues.videos
    completed = await videos.add("encode", {"title": "Ferdinand <1938>", "tags": ["bull", "ß"]}, priority=7, job_id="ferdinand")
    failed = await videos.add("broken", {"title": "Toro"}, attempts=2)
    await completed.result(timeout="10s")
    await comes_to(failed, "failed")
    family = await add_family(studio.queues)
    active = [await videos.add("slow", {"n": n}) for n in range(VIDEO_SLOTS)]
    for job in active:
        await begins(job)
    waiting = [await videos.add("encode", {"n": n}) for n in range(3)]
    return {
        "completed": [completed],
        "failed": [failed],
        "active": active,
        "waiting": waiting,
        "prioritized": [await videos.add("encode", {"urgent": True}, priority=5)],
        "delayed": [await videos.add("encode", {"later": True}, delay="3h")],
        "waiting-children": [family.job],
    }


async def add_family(queues: BoardQueues) -> JobNode:
    """A parent that waits for a child which is delayed; the others have completed and failed."""
    async with FlowProducer(prefix=queues.videos.prefix, server=queues.videos.server) as flows:
        family = await flows.add(
            flow_job("assemble", {"title": "Ole"}, queue="videos", children=[
                flow_job("thumbnail", {"at": 1}, queue="thumbnails"),
                flow_job("broken", {"at": 2}, queue="thumbnails"),
                flow_job("poster", {"at": 3}, queue="thumbnails", delay="2h"),
            ])
        )  # fmt: skip
    await comes_to(family.children[0].job, "completed")
    await comes_to(family.children[1].job, "failed")
    return family


async def comes_to(job: Job, state: JobState | None) -> None:
    """Wait until the job is in this state; None: gone."""

    async def is_there() -> None:
        assert await job.get_state() == state

    await eventually(is_there)


async def begins(slow: Job) -> None:
    async def has_begun() -> None:
        await slow.refresh()
        assert slow.progress == 40

    await eventually(has_begun)
