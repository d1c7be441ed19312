"""Keeping a queue in order: orphans, the stream's length, deduplication ids, logs; and events of one's own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench import Bench
from tests.fake_server import FakeServer, bulk, greets
from tests.proxy import Command, is_command
from toril import Deduplication, Job, Queue, QueueEvents, Worker
from toril.errors import InvalidOptionError, LockLostError, NotJsonError
from toril.queues.events import UnknownEvent
from toril.queues.job_schedulers import ScheduleRule
from toril.queues.states import STATES
from toril.wire.connection import Server
from toril.wire.scripts import load

# ── orphans ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_jobs_in_no_state_are_removed_with_all_that_belongs_to_them(queue: Queue, bench: Bench) -> None:
    for job_id in ("lost", "a:b:c"):
        job = await queue.add("n", {}, job_id=job_id, deduplication=Deduplication(job_id))
        await job.log("a row")
    await bench.raw("DEL", bench.key("wait"))
    assert sorted(await queue.find_orphaned_jobs()) == ["a:b:c", "lost"]
    assert await queue.remove_orphaned_jobs() == 2
    left = set(await bench.everything())
    assert not {key for key in left if "lost" in key or "a:b:c" in key}
    assert await queue.remove_orphaned_jobs() == 0


async def test_a_lost_job_is_found_once_however_often_the_server_tells_its_key() -> None:
    async def repeats_itself(command: Command) -> bytes | None:
        match command[0]:
            case b"SCAN":
                return b"*2\r\n" + bulk("7" if command[1] == b"0" else "0") + b"*1\r\n" + bulk("bull:q:lost")
            case b"EVALSHA":
                return b"*1\r\n" + bulk("lost")
            case b"LRANGE":
                return b"*0\r\n"
            case _:
                return await greets(command)

    async with FakeServer(repeats_itself) as fake, Queue("q", url=fake.url) as queue:
        assert await queue.find_orphaned_jobs() == ["lost"]
        assert sum(map(is_command("SCAN"), fake.commands)) == 2


async def test_no_job_in_any_state_counts_as_an_orphan_nor_does_any_other_key(queue: Queue, bench: Bench) -> None:
    await queue.add_many([queue.job("n", job_id=job_id) for job_id in ("w", "x:y:z")])
    await queue.add_many([queue.job("n", delay="1h"), queue.job("n", priority=1)])
    await bench.add_parent("parent", "q")
    await bench.add_child("child", "parent", "q")
    await queue.job_schedulers.upsert("tick", ScheduleRule(every="1h"), data={"a": 1})
    await bench.claim(1)
    await bench.raw("PERSIST", bench.keys.lock("w"))  # its time to live would be another one afterwards
    await bench.raw("SET", bench.keys.own + "unknown:w", 1)
    await bench.raw("HSET", bench.key("parent:processed"), f"{bench.keys.base}gone", "1")
    before = await bench.everything()
    assert {await queue.find_state(job_id) for job_id in ("w", "x:y:z", "parent", "child")} <= set(STATES)
    assert await queue.find_orphaned_jobs() == []
    assert await queue.remove_orphaned_jobs() == 0
    assert await bench.everything() == before


async def test_jobs_of_a_queue_whose_prefix_is_this_whole_queue_are_left_alone(queue: Queue, bench: Bench, server: Server) -> None:
    nested = Queue("inner", prefix=f"{bench.prefix}:q", server=server)
    deeper = Queue("deep", prefix=f"{bench.prefix}:q:inner", server=server)
    for other in (nested, deeper):
        await other.add("n", job_id="kept")
        await server.commands.call("DEL", other.keys.state("wait"))  # an orphan, but not ours
    assert await queue.remove_orphaned_jobs() == 0
    assert await nested.find_job("kept") is not None
    assert await deeper.find_job("kept") is not None


async def test_a_parent_no_longer_waits_for_an_orphan_that_was_removed(queue: Queue, bench: Bench) -> None:
    await bench.add_parent("parent", "q")
    await bench.add_child("child", "parent", "q")
    await bench.raw("DEL", bench.key("wait"))
    assert await queue.remove_orphaned_jobs() == 1
    assert await queue.find_state("parent") == "waiting"


async def test_orphans_are_found_among_thousands_of_jobs(queue: Queue, bench: Bench) -> None:
    await queue.add_many([queue.job("n") for _ in range(3_000)])
    for job_id in range(1, 3_001, 10):
        await bench.raw("LREM", bench.key("wait"), 1, job_id)
    assert set(await queue.find_orphaned_jobs()) == {str(job_id) for job_id in range(1, 3_001, 10)}
    assert await queue.remove_orphaned_jobs() == 300
    assert await queue.get_waiting_count() == 2_700


# ── the stream ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_event_of_ones_own_is_read_with_its_fields(queue: Queue) -> None:
    async with QueueEvents(queue) as events:
        stream_id = await queue.publish_event("order-paid", {"order": 7, "by": "ann", "lines": [{"sku": "x"}]})
        event = await anext(events)
    assert event == UnknownEvent(stream_id=stream_id, name="order-paid", fields={"order": "7", "by": "ann", "lines": '[{"sku":"x"}]'})


async def test_publishing_keeps_the_stream_as_short_as_it_is_told(queue: Queue, bench: Bench) -> None:
    for number in range(400):
        await queue.publish_event("tick", {"number": number}, max_events=100)
    assert 100 <= await bench.raw("XLEN", bench.key("events")) < 300


@pytest.mark.parametrize(
    ("name", "fields", "option"),
    [
        ("", {}, "name"),
        (7, {}, "name"),
        ("completed", {}, "name"),
        ("a\ud800", {}, "name"),
        ("mine", {"event": "completed"}, "fields"),
        ("mine", {"text": "\ud800"}, "fields['text']"),
    ],
)
async def test_an_event_that_could_be_mistaken_is_refused(
    queue: Queue,
    bench: Bench,
    name: Any,  # noqa: ANN401 -- wrong on purpose
    fields: dict[str, object],
    option: str,
) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        await queue.publish_event(name, fields)
    assert caught.value.option == option
    assert await bench.events() == []


async def test_an_event_must_be_json(queue: Queue) -> None:
    with pytest.raises(NotJsonError, match="field at of event mine"):
        await queue.publish_event("mine", {"at": object()})


async def test_the_stream_is_trimmed_on_request(queue: Queue, bench: Bench) -> None:
    await queue.add_many([queue.job("n") for _ in range(500)])
    removed = await queue.trim_events(100)
    assert removed > 0
    assert await bench.raw("XLEN", bench.key("events")) == 1_000 - removed
    with pytest.raises(InvalidOptionError, match="0 or more"):
        await queue.trim_events(-1)


# ── one job ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_deduplication_id_is_set_free_by_hand(queue: Queue) -> None:
    first = await queue.add("n", deduplication=Deduplication("order-7"))
    assert await queue.find_deduplicated("order-7") == first.id
    assert await queue.remove_deduplication_key("order-7") is True
    assert await queue.remove_deduplication_key("order-7") is False
    second = await queue.add("n", deduplication=Deduplication("order-7"))
    assert second.id != first.id


async def test_a_job_sets_only_its_own_deduplication_id_free(queue: Queue) -> None:
    first = await queue.get_job((await queue.add("n", deduplication=Deduplication("order-7"))).id)
    assert first.deduplication_id == "order-7"
    assert await first.remove_deduplication_key() is True
    second = await queue.add("n", deduplication=Deduplication("order-7"))
    assert await first.remove_deduplication_key() is False
    assert await queue.find_deduplicated("order-7") == second.id
    assert await (await queue.add("plain")).remove_deduplication_key() is False


async def test_a_log_is_read_by_id_page_by_page_and_cleared(queue: Queue) -> None:
    job = await queue.add("n")
    for row in "abcde":
        await job.log(row)
    assert await queue.get_job_logs(job.id, 1, 2) == (["b", "c"], 5)
    assert await queue.get_job_logs(job.id, 0, 1, ascending=False) == (["e", "d"], 5)
    assert await queue.get_job_logs("none") == ([], 0)
    await job.clear_logs(keep=2)
    assert await job.get_logs() == (["d", "e"], 2)
    await job.clear_logs()
    assert await job.get_logs() == ([], 0)
    with pytest.raises(InvalidOptionError):
        await job.clear_logs(keep=-1)


async def test_a_running_job_makes_its_lock_last_longer_and_renewals_dont_shorten_it(queue: Queue, bench: Bench) -> None:
    times: list[int] = []

    async def handler(job: Job) -> None:
        await job.extend_lock("10m")
        renewal = load("renew_locks")  # what the worker's thread does when its time has come
        await queue.server.commands.run(renewal, (bench.keys.base, bench.keys.own), 30_000, job.id, job.token or "")
        times.append(await bench.raw("PTTL", bench.keys.lock(job.id)))

    await queue.add("n")
    async with Worker(queue, handler) as worker:
        await worker.wait_until_idle()
    assert 590_000 < times[0] <= 600_000


async def test_only_who_holds_the_lock_extends_it(queue: Queue, bench: Bench) -> None:
    job = await queue.add("n")
    with pytest.raises(LockLostError, match="only a handler's job holds a lock"):
        await job.extend_lock("1m")
    job.token = "t"
    with pytest.raises(LockLostError, match="it expired"):
        await job.extend_lock("1m")
    await bench.claim(token="other")
    with pytest.raises(LockLostError, match="another worker holds it"):
        await job.extend_lock("1m")
    with pytest.raises(InvalidOptionError, match="a span of time"):
        await job.extend_lock("0s")
