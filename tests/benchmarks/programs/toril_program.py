"""Toril as a benchmark program: an application with a module, a processor, typed payloads, job scopes and a timeout, as users write it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel
from redis.asyncio import Redis

from tests.benchmarks.bench_drain import drain_bare, drain_with_toril
from tests.benchmarks.programs.lines import SETTINGS, Operation, Seen, every, memory, run
from toril import (
    Application,
    FlowProducer,
    Job,
    JobDef,
    JobLogger,
    Queue,
    QueueModule,
    QueueOptions,
    WorkerFactory,
    flow_job,
    module,
    process,
    processor,
)
from toril.cli.worker import spare_the_collector
from toril.wire.connection import Server

URL: Final = f"redis://{SETTINGS['host']}:{SETTINGS['port']}"
TEXT: Final = "some text"
CHUNK: Final = 20_000
"""So many jobs are added by one call, at most."""


class Payload(BaseModel):
    """What each job carries."""

    n: int
    text: str = TEXT
    at: int = 0


class Result(BaseModel):
    """What each job returns."""

    n: int


NO_OP = JobDef[Payload, Result]("no-op")
SLEEP = JobDef[Payload, Result]("sleep")
TIMED = JobDef[Payload, Result]("timed")
PARENT = JobDef[Payload, Result]("parent")
FULL = JobDef[Payload, Result]("full")

seen = Seen(1)
"""Of the jobs that run now."""


@processor("bench")
class Bench:
    """Lives as long as a job, since it asks for that job's logger."""

    def __init__(self, log: JobLogger) -> None:
        self.log = log

    @process(NO_OP, timeout="30s")
    async def no_op(self, job: Job[Payload, Result]) -> Result:
        seen.begin(job.data.n)
        seen.end()
        return Result(n=job.data.n)

    @process(SLEEP, timeout="30s")
    async def sleep(self, job: Job[Payload, Result]) -> Result:
        seen.begin(job.data.n)
        await asyncio.sleep(0.05)
        seen.end()
        return Result(n=job.data.n)

    @process(TIMED, timeout="30s")
    async def timed(self, job: Job[Payload, Result]) -> Result:
        seen.note(job.data.at)
        seen.begin(job.data.n)
        seen.end()
        return Result(n=job.data.n)

    @process(PARENT, timeout="30s")
    async def parent(self, job: Job[Payload, Result]) -> Result:
        seen.begin(job.data.n)
        seen.end()
        return Result(n=job.data.n)

    @process(FULL, concurrency=5, timeout="30s")
    async def full(self, job: Job[Payload, Result]) -> Result:
        await asyncio.sleep(0.05)
        return Result(n=job.data.n)


@module(
    imports=[
        QueueModule.for_root(url=URL),
        QueueModule.register_queue(QueueOptions("bench", keep_completed=None)),
    ],
    providers=[Bench],
)
class BenchModule: ...


queue = Queue[Any, Any]("bench", url=URL)
"""The side that adds."""

listening: list[Application] = []


async def fill(jobs: int, kind: str = "waiting", name: str = "no-op") -> dict[str, float]:
    """Add jobs in bulk: waiting ones, prioritized ones, or such as are due in a day."""
    definition = {"no-op": NO_OP, "sleep": SLEEP, "full": FULL}[name]
    started = time.perf_counter()
    for first in range(0, jobs, CHUNK):
        numbers = range(first, min(first + CHUNK, jobs))
        if kind == "prioritized":
            await queue.add_many([queue.job(definition, Payload(n=n), priority=1 + n % 10) for n in numbers])
        elif kind == "delayed":
            await queue.add_many([queue.job(definition, Payload(n=n), delay="1d") for n in numbers])
        else:
            await queue.add_many([queue.job(definition, Payload(n=n)) for n in numbers])
    return {"seconds": time.perf_counter() - started}


async def add_one_by_one(jobs: int) -> dict[str, float]:
    started = time.perf_counter()
    for n in range(jobs):
        await queue.add(NO_OP, Payload(n=n))
    return {"seconds": time.perf_counter() - started}


async def add_at_once(jobs: int) -> dict[str, float]:
    started = time.perf_counter()
    async with asyncio.TaskGroup() as adds:
        for n in range(jobs):
            adds.create_task(queue.add(NO_OP, Payload(n=n)))
    return {"seconds": time.perf_counter() - started}


async def listen(jobs: int, slots: int, awaited: int | None = None) -> None:
    """Start a worker that expects so many jobs."""
    global seen  # noqa: PLW0603 -- the handlers' view of one run
    seen = Seen(jobs, awaited)
    spare_the_collector()  # as `toril worker` does
    app = await WorkerFactory.create(BenchModule, worker_options={"concurrency": slots})
    listening.append(await app.start())


async def reached() -> dict[str, Any]:
    """Wait until the jobs have run, and say what was seen."""
    await seen.wait()
    return seen.figures()


async def heard() -> dict[str, Any]:
    """Wait until the jobs have run, stop the worker, and say all that was seen."""
    figures = await reached()
    await listening.pop().stop()
    return {**figures, "starts": seen.starts, "delays": seen.delays}


async def work(jobs: int, slots: int, awaited: int | None = None) -> dict[str, Any]:
    """Run the jobs that are there."""
    await listen(jobs, slots, awaited)
    return await heard()


async def results() -> int:
    """How many jobs have completed, with their results kept."""
    return await queue.get_completed_count()


async def tick(jobs: int, interval_ms: int) -> None:
    async def add(n: int, now: int) -> None:
        await queue.add(TIMED, Payload(n=n, at=now))

    await every(jobs, interval_ms, add)


async def add_due(jobs: int, in_ms: int) -> int:
    """Add jobs that are due at one instant; which, in ms of the wall clock."""
    now_ms = time.time_ns() // 1_000_000
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    delay = timedelta(milliseconds=in_ms)
    await queue.add_many([queue.job(TIMED, Payload(n=n), delay=delay, timestamp=now) for n in range(jobs)])
    return now_ms + in_ms


async def add_flow(children: int) -> None:
    """Add a parent, which is number 0, and its children."""
    async with FlowProducer(url=URL) as flows:
        below = [flow_job(NO_OP, Payload(n=n), queue="bench") for n in range(1, children + 1)]
        await flows.add(flow_job(PARENT, Payload(n=0), queue="bench", children=below))


async def bare_loop(jobs: int) -> dict[str, float]:
    """Seconds of the drain of `make bench`, and of its bare loop."""
    async with Server(URL) as server:
        return {
            "bare_seconds": await drain_bare(server, "bare", jobs),
            "seconds": await drain_with_toril(server, "beside", jobs),
        }


async def raw_round_trips(count: int) -> dict[str, float]:
    """Seconds of so many commands that redis-py sends one after the other, each with the data of a job."""
    data = Payload(n=1).model_dump_json()
    async with Redis(host=SETTINGS["host"], port=SETTINGS["port"]) as client:
        await client.set("raw", data)
        started = time.perf_counter()
        for _ in range(count):
            await client.set("raw", data)
        return {"seconds": time.perf_counter() - started}


OPERATIONS: Final[dict[str, Operation]] = {
    operation.__name__: operation
    for operation in (
        fill,
        add_one_by_one,
        add_at_once,
        listen,
        reached,
        heard,
        work,
        results,
        tick,
        add_due,
        add_flow,
        memory,
        bare_loop,
        raw_round_trips,
    )
}

if __name__ == "__main__":
    run(OPERATIONS, start=queue.open)
