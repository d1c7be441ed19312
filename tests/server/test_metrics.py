"""What the metrics say of workers: each number against what has really happened."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

import toril
from tests.bench import Bench
from tests.support import seeded_random
from toril import DelayedError, Job, Queue, Worker, WorkerOptions, fixed, measure_jobs
from toril.errors import MissingExtraError
from toril.telemetry import metrics
from toril.telemetry.hooks import HOOKS
from toril.telemetry.metrics import JOB_BOUNDS_S, Histogram, Metrics
from toril.testing import FakeClock, eventually
from toril.wire.connection import Server


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    """Where the numbers of this test's workers are shown."""
    registry = CollectorRegistry()
    measure_jobs(registry)
    yield registry
    HOOKS.meter = None


async def drain(queue: Queue, handlers: Any, **options: Any) -> None:  # noqa: ANN401 -- whatever a worker takes
    async with Worker(queue, handlers, WorkerOptions(**options)) as worker:
        await worker.wait_until_idle()


def value(registry: CollectorRegistry, metric: str, /, **labels: str) -> float:
    """The number, or 0 if there is none."""
    return registry.get_sample_value(metric, labels) or 0.0


async def ok(job: Job) -> None: ...


async def bad(job: Job) -> None:
    raise ValueError("no")


async def later(job: Job) -> None:
    raise DelayedError("1h")


# ── jobs ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_each_attempt_is_counted_once_by_how_it_ended(queue: Queue, registry: CollectorRegistry, clock: FakeClock) -> None:
    await queue.add_many([queue.job("ok") for _ in range(120)])
    await queue.add("bad", attempts=2, backoff=fixed("0s"))
    await queue.add("later")
    await queue.add("made-up-by-somebody")
    await drain(queue, {"ok": ok, "bad": bad, "later": later}, unknown_names="fail")
    assert value(registry, "toril_jobs_total", queue="q", name="ok", outcome="completed") == 120
    assert value(registry, "toril_jobs_total", queue="q", name="bad", outcome="failed") == 1
    assert value(registry, "toril_retries_total", queue="q", name="bad") == 1
    assert value(registry, "toril_put_back_total", queue="q", name="later", reason="delayed") == 1
    assert value(registry, "toril_jobs_total", queue="q", name="other", outcome="failed") == 1
    assert "made-up-by-somebody" not in generate_latest(registry).decode()


async def test_a_cancelled_job_and_one_that_is_put_back_at_stop(queue: Queue, registry: CollectorRegistry) -> None:
    begun = asyncio.Queue[str]()

    async def hang(job: Job) -> None:
        begun.put_nowait(job.id)
        await asyncio.Event().wait()

    job = await queue.add("hang")
    worker = Worker(queue, {"hang": hang}, WorkerOptions(shutdown_timeout="0s"))
    async with worker:
        await begun.get()
        await queue.cancel(job.id, reason="enough")
        await eventually(lambda: _equal(value(registry, "toril_jobs_total", queue="q", name="hang", outcome="cancelled"), 1))
        await queue.add("hang")
        await begun.get()
    assert value(registry, "toril_put_back_total", queue="q", name="hang", reason="put_back") == 1


def _equal(found: object, wanted: object) -> None:
    assert found == wanted


async def test_waiting_running_and_both_together_are_timed(server: Server, prefix: str, registry: CollectorRegistry) -> None:
    async with Queue("q", prefix=prefix, server=server) as queue:  # on the real clock
        await queue.add("slow", delay="300ms")
        began = time.perf_counter()

        async def slow(job: Job) -> None:
            await asyncio.sleep(0.1)  # what is measured is real time

        async with Worker(queue, {"slow": slow}, WorkerOptions()):
            await eventually(lambda: _equal(value(registry, "toril_job_run_seconds_count", queue="q", name="slow"), 1))
        took = time.perf_counter() - began
    ran = value(registry, "toril_job_run_seconds_sum", queue="q", name="slow")
    waited = value(registry, "toril_job_wait_seconds_sum", queue="q", name="slow")
    assert 0.1 <= ran <= took
    assert 0 <= waited <= took - ran  # the delay itself is no waiting
    assert value(registry, "toril_job_end_to_end_seconds_sum", queue="q", name="slow") == pytest.approx(ran + waited)
    assert value(registry, "toril_job_run_seconds_bucket", queue="q", name="slow", le="0.05") == 0
    assert value(registry, "toril_job_run_seconds_bucket", queue="q", name="slow", le="+Inf") == 1


async def test_only_the_first_attempt_counts_for_the_wait_and_only_the_last_for_the_whole(
    queue: Queue, registry: CollectorRegistry, clock: FakeClock
) -> None:
    await queue.add("bad", attempts=3, backoff=fixed("0s"))
    await drain(queue, {"bad": bad})
    counts = {part: value(registry, f"toril_job_{part}_seconds_count", queue="q", name="bad") for part in ("wait", "run", "end_to_end")}
    assert counts == {"wait": 1, "run": 3, "end_to_end": 1}


async def test_a_name_has_all_its_counters_from_its_first_job_on(queue: Queue, registry: CollectorRegistry) -> None:
    await queue.add("ok")
    await drain(queue, {"ok": ok})
    assert registry.get_sample_value("toril_jobs_total", {"queue": "q", "name": "ok", "outcome": "failed"}) == 0
    assert registry.get_sample_value("toril_retries_total", {"queue": "q", "name": "ok"}) == 0


async def test_names_that_come_from_outside_are_bounded(queue: Queue, registry: CollectorRegistry) -> None:
    await queue.add_many([queue.job(f"name-{n}") for n in range(metrics.MOST_NAMES + 50)])
    await drain(queue, ok)
    names = {sample.labels["name"] for family in registry.collect() for sample in family.samples if "name" in sample.labels}
    assert len(names) == metrics.MOST_NAMES + 1
    assert value(registry, "toril_jobs_total", queue="q", name="other", outcome="completed") == 50


# ── workers ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_slots_turns_and_the_loop(queue: Queue, registry: CollectorRegistry) -> None:
    begun = asyncio.Event()
    end = asyncio.Event()

    async def handle(job: Job) -> None:
        begun.set()
        await end.wait()

    await queue.add("a")
    async with Worker(queue, {"a": handle}, WorkerOptions(concurrency=7)) as worker:
        await begun.wait()
        assert value(registry, "toril_slots", queue="q") == 7
        assert value(registry, "toril_slots_busy", queue="q") == 1
        assert value(registry, "toril_turn_seconds_count", queue="q") >= 1
        await eventually(lambda: _at_least(value(registry, "toril_loop_lag_seconds_count"), 1))
        end.set()
        await worker.wait_until_idle()
        assert value(registry, "toril_slots_busy", queue="q") == 0
    assert value(registry, "toril_slots", queue="q") == 0
    assert value(registry, "toril_jobs_total", queue="q", name="a", outcome="completed") == 1  # what was counted stays


def _at_least(found: float, least: float) -> None:
    assert found >= least


@pytest.mark.blocks_the_loop
async def test_a_blocked_loop_is_counted_and_its_length_seen(server: Server, prefix: str, registry: CollectorRegistry) -> None:
    async def block(job: Job) -> None:
        time.sleep(1.5)  # noqa: ASYNC251 -- bad on purpose

    async with Queue("q", prefix=prefix, server=server) as queue:  # on the real clock, by which the loop is watched
        await queue.add("block")
        async with Worker(queue, {"block": block}, WorkerOptions(loop_block_warning="100ms")):
            await eventually(lambda: _at_least(value(registry, "toril_loop_blocks_total", queue="q"), 1))
            await eventually(lambda: _at_least(value(registry, "toril_loop_lag_seconds_sum"), 1))
    assert value(registry, "toril_loop_blocks_total", queue="q") >= 1


async def test_a_job_of_a_dead_worker_that_is_put_back(queue: Queue, bench: Bench, registry: CollectorRegistry) -> None:
    job = await queue.add("a")
    assert await bench.claim() == [job.id]
    await bench.raw("DEL", bench.key(f"{job.id}:lock"))
    await bench.sweep()  # a first one marks it
    await bench.raw("DEL", bench.keys.stalled_check)
    async with Worker(queue, {"a": ok}, WorkerOptions()):
        await eventually(lambda: _equal(value(registry, "toril_stalled_jobs_total", queue="q"), 1))


async def test_a_lock_that_is_lost(server: Server, bench: Bench, registry: CollectorRegistry) -> None:
    async with Queue("q", prefix=bench.prefix, server=server) as queue:  # on the real clock, by which locks are renewed
        begun = asyncio.Event()

        async def hang(job: Job) -> None:
            begun.set()
            await asyncio.Event().wait()

        job = await queue.add("hang")
        async with Worker(queue, {"hang": hang}, WorkerOptions(lock_duration="1s")):
            await begun.wait()
            await bench.raw("DEL", bench.key(f"{job.id}:lock"))
            await eventually(lambda: _equal(value(registry, "toril_locks_lost_total", queue="q"), 1))
            await eventually(lambda: _equal(value(registry, "toril_put_back_total", queue="q", name="hang", reason="lost"), 1))


# ── who wants to know ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_histogram_puts_each_value_into_its_range_whenever_it_folds() -> None:
    random, histogram = seeded_random(), Histogram(JOB_BOUNDS_S)
    values = [random.choice((0.0, -0.5, *JOB_BOUNDS_S, random.uniform(0, 9_000))) for _ in range(500)]
    for value in values:
        histogram.add(value)
        if random.random() < 0.1:
            random.choice((histogram.fold, histogram.read))()
    counts, total = histogram.read()
    limits = (-1.0, *JOB_BOUNDS_S, 9_000.0)
    assert counts == [sum(low < value <= high for value in values) for low, high in itertools.pairwise(limits)]
    assert total == pytest.approx(sum(value for value in values if value > 0))


@pytest.fixture
def often_switched() -> Iterator[None]:
    """Threads take turns after 10 us, not after 5 ms."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("often_switched")
def test_no_value_is_lost_or_doubled_where_one_thread_adds_and_others_read() -> None:
    histogram, all_read, all_are_added = Histogram(JOB_BOUNDS_S), threading.Barrier(3), threading.Event()

    def read() -> list[int]:
        seen: list[int] = []
        all_read.wait(timeout=20)
        while not all_are_added.is_set():
            seen.append(sum(histogram.read()[0]))
        return [*seen, sum(histogram.read()[0])]

    with ThreadPoolExecutor(2) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        try:
            all_read.wait(timeout=20)
            for number in range(300_000):
                histogram.add(number / 1_000)
        finally:
            all_are_added.set()  # whatever is wrong, the threads end
    for reader in readers:
        seen = reader.result()
        assert seen == sorted(seen)
        assert seen[-1] == 300_000


def test_what_comes_while_others_are_sorted_is_counted_the_next_time() -> None:
    histogram, came = Histogram(JOB_BOUNDS_S), list[float]()

    class Interrupting(float):
        """Compared, it lets another value come, as another thread may at any time."""

        def __lt__(self, other: float, /) -> bool:
            came.append(0.5)
            histogram.add(0.5)
            return super().__lt__(other)

    for number in (3, 2, 1):
        histogram.add(Interrupting(number))
    assert sum(histogram.read()[0]) == 3
    assert came
    assert sum(histogram.read()[0]) == 3 + len(came)


async def test_what_is_counted_is_folded_while_nobody_asks(queue: Queue, registry: CollectorRegistry) -> None:
    """Or it would fill the memory of a process that nobody scrapes."""
    numbers = cast("Metrics", HOOKS.meter).of("q")

    async def handle(job: Job) -> None: ...

    async with Worker(queue, {"n": handle}, WorkerOptions()) as worker:
        await queue.add_many([queue.job("n") for _ in range(100)])
        await worker.wait_until_idle()
        await eventually(lambda: _is_folded(numbers))


def _is_folded(numbers: metrics.QueueNumbers) -> None:
    job = numbers.of("n")
    assert job.outcomes["completed"] == 100
    assert [one.pending for one in (job.run, job.wait, job.end_to_end)] == [0, 0, 0]


async def test_without_anybody_who_measures_nothing_is_noted(queue: Queue) -> None:
    assert HOOKS.meter is None
    seen: list[float] = []

    async def handle(job: Job) -> None:
        seen.extend(running.begun_s for running in worker.attempts)

    await queue.add("a")
    worker = Worker(queue, handle, WorkerOptions())
    async with worker:
        await worker.wait_until_idle()
    assert seen == [0.0]


async def test_a_job_that_nobody_watches_runs_no_code_of_metrics_and_traces(queue: Queue) -> None:
    """None that is called: what is left is to ask whether somebody watches, which is an attribute."""
    package = Path(toril.__file__).parent
    watching = {str(package / name) for name in ("telemetry/hooks.py", "telemetry/metrics.py", "telemetry/spans.py", "telemetry/tracing.py",
                                                 "telemetry/exposition.py", "worker/observer.py")}  # fmt: skip
    called: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            name = frame.f_code.co_filename
            called[Path(name).name if name in watching else "other"] += 1

    sys.setprofile(note)
    try:
        await queue.add_many([queue.job("n") for _ in range(100)])
        await drain(queue, ok)
    finally:
        sys.setprofile(None)
    assert called.pop("other") > 1_000
    assert called == {"observer.py": 1}  # `Observer.of`, once a worker
    assert await queue.get_completed_count() == 100


def test_a_second_call_shows_the_same_numbers(registry: CollectorRegistry) -> None:
    other = CollectorRegistry()
    first = measure_jobs(registry)
    assert measure_jobs(other) is first
    assert generate_latest(other) == generate_latest(registry)


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtraError, match=r"needs prometheus-client, which isn't installed: pip install 'toril\[metrics\]'"):
        measure_jobs()
