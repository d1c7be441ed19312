"""Somebody damages a queue while its workers run: none dies, none spins, nothing is lost, and what is left goes on after the repair."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import pytest

from tests.bench import Bench
from tests.proxy import Proxy
from toril import Job, Queue, ScheduleRule, Worker, WorkerOptions
from toril.testing import eventually
from toril.wire.connection import Server
from toril.wire.keys import QUEUE_KINDS

OPTIONS: Final = WorkerOptions(concurrency=2, drain_delay="50ms", stalled_interval="1s")
"""A worker that finds nothing to do looks twenty times a second: two commands each time."""

COUNTED: Final = 20
AT_ONCE: Final = 60
"""What its parts and the test may send in a moment that is too short for a rate."""

MOST_PER_SECOND: Final = 200
"""Of all commands of a worker: one that spins sends thousands."""


def _is(holds: bool) -> None:
    assert holds


class Handler:
    """Notes the jobs that it runs; those named `held` run until they may end."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.holds, self.may_end = asyncio.Event(), asyncio.Event()

    async def __call__(self, job: Job) -> None:
        self.ran.append(job.id)
        if job.name == "held":
            self.holds.set()
            await self.may_end.wait()


@pytest.fixture
def bench(server: Server, prefix: str) -> Bench:
    return Bench(server, prefix)


@pytest.fixture
async def proxy(toril_server_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(toril_server_url) as proxy:
        yield proxy


@pytest.fixture
async def queue(proxy: Proxy, prefix: str) -> AsyncIterator[Queue]:
    """The worker's, by way of the proxy."""
    async with Queue("q", prefix=prefix, url=proxy.url) as queue:
        yield queue


@pytest.fixture
async def outside(server: Server, prefix: str) -> Queue:
    return Queue("q", prefix=prefix, server=server)


class Rate:
    """How many commands a worker sends from now on."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy, self._loop = proxy, asyncio.get_running_loop()
        self._before, self._began = len(proxy.commands), self._loop.time()

    async def wait(self, count: int) -> None:
        """Until it has sent so many."""
        await self._proxy.seen(lambda command: True, self._before + count)

    def check(self) -> None:
        sent = len(self._proxy.commands) - self._before
        assert sent < AT_ONCE + MOST_PER_SECOND * (self._loop.time() - self._began)


async def damage(bench: Bench, key: str, kind: str) -> None:
    await bench.raw("DEL", key)
    await bench.raw(*(("RPUSH", key, "damaged") if kind == "string" else ("SET", key, "damaged")))


@pytest.mark.parametrize(("suffix", "kind"), QUEUE_KINDS.items())
async def test_a_key_of_a_wrong_type_stops_no_worker_and_nothing_is_lost(
    queue: Queue, outside: Queue, bench: Bench, proxy: Proxy, suffix: str, kind: str
) -> None:
    handler = Handler()
    async with Worker(queue, handler, OPTIONS) as worker:
        held = await outside.add("held", job_id="held")
        await handler.holds.wait()
        await damage(bench, bench.key(suffix), kind)
        rate = Rate(proxy)
        handler.may_end.set()
        await rate.wait(6)
        assert worker.state.value == "running"
        await bench.raw("DEL", bench.key(suffix))
        job = await outside.add("n")
        await eventually(lambda: _is(job.id in handler.ran))
        await eventually(lambda: _is(worker.is_ready))
        await eventually(lambda: _is(worker.is_idle))
        rate.check()
    assert handler.ran == ["held", job.id]
    if suffix not in {"active", "completed"}:  # where it stood, when that was deleted
        assert await held.get_state() == "completed"
    elif suffix == "completed":
        assert await held.get_state() in {"completed", None}


SCORES: Final = ("inf", "-inf", "-5", "1e300", "0.5", "9007199254740993")
MEMBERS: Final = ("", "meta", "events", "sound:lock", "0:1", "no\nid", "\0", "x" * 1_000_000, b"\xff\xfe", "repeat:gone:1", "nan")


@pytest.mark.parametrize("key", ["wait", "active", "paused"])
async def test_members_of_lists_that_are_no_ids_are_passed_over(queue: Queue, outside: Queue, bench: Bench, proxy: Proxy, key: str) -> None:
    await bench.raw("RPUSH", bench.key(key), *MEMBERS)
    await check_goes_on(queue, outside, proxy)


@pytest.mark.parametrize("key", ["delayed", "prioritized", "completed", "failed", "waiting-children", "marker", "repeat"])
async def test_members_and_scores_of_sorted_sets_that_make_no_sense_are_passed_over(
    queue: Queue, outside: Queue, bench: Bench, proxy: Proxy, key: str
) -> None:
    for score in SCORES:
        for member in (*MEMBERS, f"of {score}"):
            await bench.raw("ZADD", bench.key(key), "NX", score, member)
    await check_goes_on(queue, outside, proxy)


async def test_members_of_the_set_of_suspects_that_are_no_ids_are_passed_over(
    queue: Queue, outside: Queue, bench: Bench, proxy: Proxy
) -> None:
    await bench.raw("SADD", bench.key("stalled"), *MEMBERS)
    await check_goes_on(queue, outside, proxy)


async def test_entries_of_the_stream_that_are_no_events_are_passed_over(queue: Queue, outside: Queue, bench: Bench, proxy: Proxy) -> None:
    for fields in (
        ("event", ""),
        ("event", "completed"),
        ("event", "completed", "jobId", b"\xff"),
        (b"\xff", b"\xfe"),
        ("event", "x" * 100_000),
    ):
        await bench.raw("XADD", bench.key("events"), "*", *fields)
    await check_goes_on(queue, outside, proxy)


@pytest.mark.parametrize("value", [b"", b"nope", b"nan", b"inf", b"-1", b"\xff\xfe", b"{}", b"9" * 400])
@pytest.mark.parametrize("field", ["name", "every", "ic", "offset", "opts", "data", "limit", "endDate", "startDate", "pattern", "tz"])
async def test_a_field_of_a_scheduler_that_makes_no_sense_harms_nobody_else(
    queue: Queue, outside: Queue, bench: Bench, proxy: Proxy, field: str, value: bytes
) -> None:
    job = await outside.job_schedulers.upsert("tick", ScheduleRule(every="1h"))
    await outside.job_schedulers.upsert("tock", ScheduleRule(every="1h"))
    await bench.raw("HSET", bench.keys.scheduler("tick"), field, value)
    handler = Handler()
    async with Worker(queue, handler, OPTIONS) as worker:
        await eventually(lambda: _is(job.id in handler.ran))
        await eventually(lambda: _is(worker.is_idle))
        assert worker.is_ready
    assert {one.id for one in await outside.job_schedulers.list()} == {"tick", "tock"}
    assert len(await outside.get_delayed()) == 2
    await outside.job_schedulers.upsert("tick", ScheduleRule(every="2h"))
    assert (await outside.job_schedulers.get("tick")).every_ms == 7_200_000


async def check_goes_on(queue: Queue, outside: Queue, proxy: Proxy) -> None:
    """A worker runs the sound job and doesn't spin afterwards; what is there can be looked at."""
    job = await outside.add("n", job_id="sound")
    later = await outside.add("n", delay="100ms")
    handler = Handler()
    async with Worker(queue, handler, OPTIONS) as worker:
        await eventually(lambda: _is({job.id, later.id} <= set(handler.ran)))
        await eventually(lambda: _is(worker.is_ready))
        rate = Rate(proxy)
        await rate.wait(COUNTED)
        rate.check()
        assert worker.state.value == "running"
    assert (await outside.get_job_counts())["waiting"] == 0
    await outside.get_jobs()
    await outside.job_schedulers.list()
    for state in (job, later):
        assert await state.get_state() == "completed"
