"""What `toril worker` runs in bench_scaling.py: queues on the prefixes that it is told, jobs that do nothing or compute."""

from __future__ import annotations

import json
import os
import time

from pydantic import BaseModel

from toril import Job, JobDef, QueueModule, QueueOptions, module, process, processor

PREFIXES: list[str] = json.loads(os.environ["SCALING_PREFIXES"])
CPU_S = 0.001


class Payload(BaseModel):
    """What each job carries."""

    n: int
    text: str


NO_OP = JobDef[Payload, int]("no-op")
COMPUTE = JobDef[Payload, int]("compute")


def processor_of(queue: str) -> type:
    """A processor class of its own for each queue."""

    @processor(queue, concurrency=100)
    class Scaling:
        @process(NO_OP, timeout="30s")
        async def no_op(self, job: Job[Payload, int]) -> int:
            return job.data.n

        @process(COMPUTE, timeout="30s")
        async def compute(self, job: Job[Payload, int]) -> int:
            """1 ms on a core, as parsing or rendering would take."""
            end = time.thread_time() + CPU_S
            while time.thread_time() < end:
                pass
            return job.data.n

    return Scaling


NAMES = [f"scaling-{number}" for number in range(len(PREFIXES))]


@module(
    imports=[
        QueueModule.register_queue(
            *(QueueOptions(name, prefix=prefix, keep_completed=None) for name, prefix in zip(NAMES, PREFIXES, strict=True))
        )
    ],
    providers=[processor_of(name) for name in NAMES],
)
class ScalingModule: ...
