"""Jobs that are kept out while another one stands for them, and whole queues that are emptied or removed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from toril import Deduplication, Job, JobOptions, Queue, QueueEvents, ScheduleRule, Worker, WorkerOptions
from toril.errors import InvalidOptionError, QueueBusyError
from toril.queues.events import DeduplicatedEvent
from toril.testing import FakeClock
from toril.wire.commands import shift_ttls
from toril.wire.connection import Server


async def run(queue: Queue) -> list[object]:
    """Run what may run; the data of the jobs that ran."""
    ran: list[object] = []

    async def handle(job: Job) -> None:
        ran.append(job.data)

    async with Worker(queue, handle, WorkerOptions(concurrency=1)) as worker:
        await worker.wait_until_idle()
    return ran


async def test_a_job_is_kept_out_until_the_one_that_stands_for_it_has_ended(queue: Queue) -> None:
    once = Deduplication("order-7")
    async with QueueEvents(queue) as events:
        first = await queue.add("a", {"n": 1}, deduplication=once)
        second = await queue.add("a", {"n": 2}, deduplication=once)
        async for event in events:
            if isinstance(event, DeduplicatedEvent):
                assert (event.job_id, event.deduplication_id, event.deduplicated_job_id) == (first.id, "order-7", "2")
                break
    assert (second.id, await queue.find_deduplicated("order-7")) == (first.id, first.id)
    assert await run(queue) == [{"n": 1}]
    assert await queue.find_deduplicated("order-7") is None
    await queue.add("a", {"n": 3}, deduplication=once)
    assert await run(queue) == [{"n": 3}]


async def test_a_throttled_job_is_kept_out_for_so_long_whatever_becomes_of_the_first(queue: Queue, clock: FakeClock) -> None:
    throttle = Deduplication("beat", ttl="10s")
    await queue.add("a", {"n": 1}, deduplication=throttle)
    assert await run(queue) == [{"n": 1}]
    await queue.add("a", {"n": 2}, deduplication=throttle)
    assert await run(queue) == []
    clock.advance("10s")
    await shift_ttls(queue.server, queue.prefix, 10_000)
    await queue.add("a", {"n": 3}, deduplication=throttle)
    assert await run(queue) == [{"n": 3}]


async def test_each_try_starts_the_time_anew_if_it_is_extended(queue: Queue) -> None:
    extended = Deduplication("typing", ttl="10s", extend=True)
    await queue.add("a", deduplication=extended)
    await shift_ttls(queue.server, queue.prefix, 8_000)
    await queue.add("a", deduplication=extended)
    assert await queue.server.commands.call("PTTL", queue.keys.deduplication("typing")) > 9_000


async def test_of_debounced_jobs_the_last_one_runs(queue: Queue, clock: FakeClock) -> None:
    debounce = Deduplication("search", ttl="5s", extend=True, replace=True)
    first = await queue.add("a", {"n": 1}, delay="5s", deduplication=debounce)
    clock.advance("1s")
    second = await queue.add("a", {"n": 2}, delay="5s", deduplication=debounce)
    assert await queue.find_job(first.id) is None
    assert await second.get_state() == "delayed"
    clock.advance("5s")
    assert await run(queue) == [{"n": 2}]


async def test_while_one_runs_the_newest_of_the_others_is_kept_for_afterwards(queue: Queue) -> None:
    last = Deduplication("sync", keep_last_if_active=True)
    ran: list[int] = []

    async def handle(job: Job) -> None:
        ran.append(job.data["n"])
        if job.data["n"] == 1:
            for n in (2, 3):
                await queue.add("a", {"n": n}, deduplication=last)

    await queue.add("a", {"n": 1}, deduplication=last)
    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
    assert ran == [1, 3]


async def test_what_was_kept_for_afterwards_runs_even_if_another_job_has_the_id_by_then(queue: Queue) -> None:
    last = Deduplication("sync", keep_last_if_active=True)
    ran: list[int] = []

    async def handle(job: Job) -> None:
        ran.append(job.data["n"])
        if job.data["n"] == 1:
            await queue.add("a", {"n": 2}, deduplication=last)
            await queue.remove_deduplication_key("sync")
            await queue.add("a", {"n": 3}, delay="1h", deduplication=Deduplication("sync"))

    await queue.add("a", {"n": 1}, deduplication=last)
    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
    assert ran == [1, 2]
    assert await queue.find_deduplicated("sync") is None


async def test_what_node_kept_with_a_negative_delay_runs_at_once_too(queue: Queue, server: Server) -> None:
    last = Deduplication("sync", keep_last_if_active=True)
    ran: list[int] = []

    async def handle(job: Job) -> None:
        ran.append(job.data["n"])
        if job.data["n"] == 1:
            await queue.add("a", {"n": 2}, deduplication=last)
            options = b'{"delay":-5,"attempts":0,"de":{"id":"sync","keepLastIfActive":true}}'  # ours refuse it
            await server.commands.call("HSET", f"{queue.keys.base}dn:sync", "opts", options)

    await queue.add("a", {"n": 1}, deduplication=last)
    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()
    assert ran == [1, 2]
    told = await server.commands.call("XRANGE", queue.keys.events, "-", "+")
    assert any(fields[:4] == [b"event", b"delayed", b"jobId", b"2"] for _, fields in told)  # among the delayed, as Node puts it


async def test_a_job_that_is_kept_out_may_move_the_one_that_stands_for_it(queue: Queue, clock: FakeClock) -> None:
    moved = Deduplication("reminder", reschedule=True)
    job = await queue.add("a", delay="1m", deduplication=moved)
    await queue.add("a", delay="1h", deduplication=moved)
    await job.refresh()
    assert job.delay_ms == 3_600_000
    await queue.add("a", delay="1h", deduplication=moved)
    score = await queue.server.commands.call("ZSCORE", queue.keys.state("delayed"), job.id)
    assert int(score) == (clock.now_ms() + 3_600_000) * 4_096 + 1  # behind all that are due then, its own old place included
    clock.advance("2m")
    assert await run(queue) == []


async def test_an_id_whose_job_was_lost_keeps_nobody_out(queue: Queue) -> None:
    once = Deduplication("order-7")
    job = await queue.add("a", deduplication=once)
    await queue.server.commands.call("DEL", queue.keys.job(job.id))
    again = await queue.add("a", deduplication=once)
    assert again.id != job.id


async def test_deduplications_that_make_no_sense_are_refused(queue: Queue) -> None:
    mistakes: list[tuple[Callable[[], object], str]] = [
        (lambda: Deduplication(""), "id"),
        (lambda: Deduplication("x", extend=True), "ttl"),
        (lambda: Deduplication("x", ttl="0s"), "ttl"),
        (lambda: Deduplication("x", replace=True, reschedule=True), "reschedule"),
    ]
    for make, word in mistakes:
        with pytest.raises(InvalidOptionError, match=word):
            make()
    with pytest.raises(InvalidOptionError, match="deduplication"):
        await queue.job_schedulers.upsert("s", ScheduleRule(every="1h"), options=JobOptions(deduplication=Deduplication("x")))


# ── whole queues ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_draining_removes_what_waits_and_leaves_schedulers_and_ended_jobs(queue: Queue) -> None:
    done = await queue.add("done")
    assert await run(queue) == [{}]
    await queue.job_schedulers.upsert("tick", ScheduleRule(every="1h"))  # its first job may run at once
    await queue.add_many([queue.job("a"), queue.job("b", priority=2), queue.job("c", delay="1h")] * 700)
    assert await queue.drain() == 1_400
    assert await queue.get_job_counts("waiting", "prioritized", "delayed") == {"waiting": 1, "prioritized": 0, "delayed": 700}
    assert await queue.drain(delayed=True) == 700
    assert await done.get_state() == "completed"
    assert (await queue.get_waiting())[0].record.scheduler_id == "tick"


async def test_an_obliterated_queue_leaves_nothing_behind(queue: Queue, server: Server, prefix: str) -> None:
    await queue.add_many([queue.job("a"), queue.job("b", priority=2), queue.job("c", delay="1h", deduplication=Deduplication("x"))] * 400)
    await queue.job_schedulers.upsert("tick", ScheduleRule(every="1h"))
    await run(queue)
    await queue.obliterate()
    assert await server.commands.call("KEYS", f"*{prefix}*") == []


async def test_a_queue_with_running_jobs_is_only_obliterated_by_force(queue: Queue, server: Server, prefix: str) -> None:
    job = await queue.add("a")
    await queue.commands.count(["wait"])
    await server.commands.call("LMOVE", queue.keys.state("wait"), queue.keys.state("active"), "RIGHT", "LEFT")
    await server.commands.call("SET", queue.keys.lock(job.id), "somebody", "PX", 30_000)
    with pytest.raises(QueueBusyError, match="jobs are running"):
        await queue.obliterate()
    assert await queue.is_paused()
    await queue.obliterate(force=True)
    assert await server.commands.call("KEYS", f"*{prefix}*") == []


async def test_priorities_are_counted_one_by_one(queue: Queue) -> None:
    await queue.add_many([queue.job("a", priority=priority) for priority in (0, 2, 2, 5)])
    assert await queue.get_counts_per_priority([0, 1, 2, 5]) == {0: 1, 1: 0, 2: 2, 5: 1}


async def test_workers_that_are_connected_are_listed_with_their_names(queue: Queue) -> None:
    async def handle(job: Job) -> None: ...

    assert await queue.get_workers() == []
    async with Worker(queue, handle, WorkerOptions(name="alpha")), Worker(queue, handle):
        workers = await queue.get_workers()
        assert sorted(str(worker.name) for worker in workers) == ["None", "alpha"]
        assert all(worker.age_s >= 0 and worker.address for worker in workers)
