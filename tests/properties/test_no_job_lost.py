"""Two workers on bad connections: whatever is added, however it fails, every job ends exactly once, and ran as often as it should.

Hypothesis makes up waves of jobs (priorities, delays, failures, retries, a name with a limit), pauses between them, and how often
the workers' connections are cut. The counts of all states, taken at any moment, add up to what was added.

Examples are the same in every run, but where a cut falls depends on the machine, too. `TORIL_EXAMPLES=500` looks at other and
more ones; a failure prints how to repeat its example.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from tests.proxy import Command, Proxy, at_random, is_command, is_script
from tests.snapshot import delete_all
from toril.queues.job import Job
from toril.queues.option_parts import fixed
from toril.queues.queue import Queue
from toril.testing.eventually import eventually
from toril.wire.connection import Server
from toril.worker.options import WorkerOptions
from toril.worker.processor import handler
from toril.worker.worker import Worker

_EXAMPLES: Final = os.environ.get("TORIL_EXAMPLES")

_count = itertools.count()


@dataclass(frozen=True)
class Planned:
    """A job, and how often it fails before it would succeed."""

    name: str
    priority: int
    delay_ms: int
    lifo: bool
    fails: int
    attempts: int
    backoff_ms: int

    @property
    def runs(self) -> int:
        return min(self.fails + 1, self.attempts)

    @property
    def end(self) -> str:
        return "completed" if self.fails < self.attempts else "failed"


@dataclass(frozen=True)
class Wave:
    """Jobs that are added together."""

    jobs: Sequence[Planned]
    while_paused: bool


@dataclass(frozen=True)
class Plan:
    """What happens."""

    waves: Sequence[Wave]
    concurrency: tuple[int, int]
    share_cut: float
    seed: int


_JOBS = st.builds(
    Planned,
    name=st.sampled_from(["capped", "free"]),
    priority=st.sampled_from([0, 0, 1, 5]),
    delay_ms=st.sampled_from([0, 0, 1, 20]),
    lifo=st.booleans(),
    fails=st.integers(0, 3),
    attempts=st.integers(1, 3),
    backoff_ms=st.sampled_from([0, 10]),
)
_PLANS = st.builds(
    Plan,
    waves=st.lists(st.builds(Wave, jobs=st.lists(_JOBS, min_size=1, max_size=25), while_paused=st.booleans()), min_size=1, max_size=4),
    concurrency=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    share_cut=st.sampled_from([0.0, 0.05, 0.15]),
    seed=st.integers(0, 2**32 - 1),
)


class Failing:
    """Handlers that fail as often as the job's data says."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.active: Counter[str] = Counter()

    async def __call__(self, job: Job[Any, Any]) -> str:
        self.runs[job.id] += 1
        self.active[job.id] += 1
        assert self.active[job.id] == 1, "the job runs twice at the same time"
        await asyncio.sleep(0)
        self.active[job.id] -= 1
        if self.runs[job.id] <= job.data["fails"]:
            raise ValueError("as planned")
        return job.id


@settings(
    max_examples=int(_EXAMPLES or 25),
    derandomize=_EXAMPLES is None,
    deadline=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a shrunk example is another race; explaining traces every line
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(plan=_PLANS)
@pytest.mark.timeout(0)
@pytest.mark.blocks_the_loop  # it doesn't, but looking for that in each of asyncio's debug stacks takes ten times as long as the test
async def test_every_job_ends_exactly_once(server: Server, toril_server_url: str, prefix: str, plan: Plan) -> None:
    own_prefix = f"{prefix}:{next(_count)}"
    failing, planned = Failing(), dict[str, Planned]()
    source = random.Random(plan.seed)
    try:
        async with Queue("q", prefix=own_prefix, server=server) as queue:
            async with AsyncExitStack() as stack:
                proxies = [await _enter_worker(stack, toril_server_url, own_prefix, failing, size) for size in plan.concurrency]
                for proxy in proxies:
                    proxy.decide = at_random(source, plan.share_cut, _may_be_cut)
                for wave in plan.waves:
                    await _add(queue, wave, planned)
                    await _check_counts(queue, len(planned))
                await eventually(lambda: _all_have_ended(queue, len(planned)))
                note(f"{sum(proxy.cuts for proxy in proxies)} cuts")
            await _check_ends(queue, failing, planned)
    finally:
        await delete_all(server, own_prefix)


_turn, _sweep, _sleep = is_script("turn"), is_script("sweep_stalled"), is_command("BZPOPMIN")


def _may_be_cut(command: Command) -> bool:
    return _turn(command) or _sweep(command) or _sleep(command)


async def _enter_worker(stack: AsyncExitStack, url: str, prefix: str, failing: Failing, concurrency: int) -> Proxy:
    proxy = await stack.enter_async_context(Proxy(url))
    queue = await stack.enter_async_context(Queue("q", prefix=prefix, url=proxy.url))
    options = WorkerOptions(concurrency=concurrency, drain_delay="50ms", stalled_interval="100ms")
    handlers = [handler(failing, "capped", concurrency=1), handler(failing, "free")]
    await stack.enter_async_context(Worker(queue, handlers, options))
    return proxy


async def _add(queue: Queue, wave: Wave, planned: dict[str, Planned]) -> None:
    if wave.while_paused:
        await queue.pause()
    drafts = [
        queue.job(
            job.name,
            {"fails": job.fails},
            priority=job.priority,
            delay=f"{job.delay_ms}ms",
            lifo=job.lifo and not job.priority and not job.delay_ms,
            attempts=job.attempts,
            backoff=fixed(f"{job.backoff_ms}ms"),
        )
        for job in wave.jobs
    ]
    for job, plan in zip(await queue.add_many(drafts), wave.jobs, strict=True):
        planned[job.id] = plan
    if wave.while_paused:
        await _check_counts(queue, len(planned))
        await queue.resume()


async def _check_counts(queue: Queue, added: int) -> None:
    counts = await queue.get_job_counts()
    assert sum(counts.values()) == added, counts


async def _all_have_ended(queue: Queue, added: int) -> None:
    counts = await queue.get_job_counts()
    if sum(counts.values()) != added:
        raise ValueError(f"the counts don't add up to {added}: {counts}")  # no AssertionError: that would be tried again
    assert counts["completed"] + counts["failed"] == added, counts


async def _check_ends(queue: Queue, failing: Failing, planned: dict[str, Planned]) -> None:
    assert failing.runs == {job_id: job.runs for job_id, job in planned.items()}
    ends = [
        (fields["jobId"], fields["event"])
        for _, fields in await queue.commands.range_events("-", "+", 100_000)
        if fields["event"] in {"completed", "failed"}
    ]
    assert Counter(ends) == Counter((job_id, job.end) for job_id, job in planned.items())
    for job_id, plan in planned.items():
        job = await queue.get_job(job_id)
        assert (await job.get_state(), job.attempts_made, job.stalled_count) == (plan.end, plan.runs, 0)
