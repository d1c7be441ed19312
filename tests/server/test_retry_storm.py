"""A dependency fails for everybody at once: its retries must not come back in waves that keep it down."""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Final

import pytest

from toril import Job, Queue, Worker, WorkerOptions, exponential
from toril.testing import FakeClock
from toril.wire.connection import Server

JOBS: Final = int(os.environ.get("TORIL_RETRY_JOBS", "1000"))
"""With 10,000 it takes a minute, and the shares are the same: the docs have that run's histogram, which is printed (`pytest -s`)."""

SEED: Final = 20_261_128
STEP_MS: Final = 100


@pytest.fixture
def _seeded() -> Iterator[None]:
    state = random.getstate()
    random.seed(SEED)
    sys.stdout.write(f"seed {SEED}\n")
    yield
    random.setstate(state)


async def arrivals(server: Server, prefix: str, jobs: int, jitter: float) -> dict[int, Counter[int]]:
    """How many calls the failing dependency gets in each 100 ms, by which try they are (0: the first, all at once)."""
    clock = FakeClock(1_700_000_000_000)
    queue = Queue("work", prefix=prefix, server=server, clock=clock)
    began_ms, seen = clock.now_ms(), dict[int, Counter[int]]()

    async def handle(job: Job) -> None:
        seen.setdefault(job.attempts_made, Counter())[(clock.now_ms() - began_ms) // STEP_MS] += 1
        raise ConnectionError("the dependency is down")

    await queue.add_many([queue.job("a", attempts=4, backoff=exponential("1s", jitter=jitter)) for _ in range(jobs)])
    async with Worker(queue, handle, WorkerOptions(concurrency=200)) as worker:
        await worker.wait_until_idle()
        while await queue.get_failed_count() < jobs:
            clock.advance("100ms")
            worker.look_again()
            await worker.wait_until_idle()
    return seen


@pytest.mark.usefixtures("_seeded")
async def test_retries_with_jitter_are_spread_wider_with_each_try(server: Server, prefix: str) -> None:
    seen = await arrivals(server, prefix, JOBS, jitter=0.5)
    for attempt, counts in sorted(seen.items()):
        histogram = " ".join(f"{step / 10:.1f}s:{counts[step]}" for step in range(min(counts), max(counts) + 1))
        sys.stdout.write(f"try {attempt + 1}: {histogram}\n")
    assert {attempt: counts.total() for attempt, counts in seen.items()} == dict.fromkeys(range(4), JOBS)
    peaks = [max(seen[attempt].values()) for attempt in range(4)]
    # Expected in the busiest 100 ms: a fifth of all, since 1 s is shortened by up to 0.5 s; then a tenth; then a twentieth.
    assert peaks[0] == JOBS
    assert [peak <= share * JOBS for peak, share in zip(peaks[1:], (0.26, 0.15, 0.09), strict=True)] == [True] * 3, peaks


async def test_without_jitter_they_come_back_all_at_once(server: Server, prefix: str) -> None:
    seen = await arrivals(server, prefix, 100, jitter=0)
    assert [dict(seen[attempt]) for attempt in range(4)] == [{0: 100}, {10: 100}, {30: 100}, {70: 100}]
