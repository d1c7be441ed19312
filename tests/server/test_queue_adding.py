"""Adding jobs: what reaches the server, what is refused before it does, and what happens when a reply is lost."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from tests.bench import T0, Bench
from tests.proxy import Cut, Proxy, at_random, is_command, is_script, nth
from tests.support import seeded_random
from toril.errors import (
    AddOutcomeUnknownError,
    InvalidCallError,
    InvalidDurationError,
    InvalidOptionError,
    InvalidPayloadError,
    NotJsonError,
    ParentError,
    PayloadTooLargeError,
    ServerUnreachableError,
)
from toril.queues.flows import FlowProducer, flow_job
from toril.queues.job import Job
from toril.queues.job_def import JobDef
from toril.queues.option_parts import exponential, fixed
from toril.queues.options import JobOptions
from toril.queues.payloads import PayloadType
from toril.queues.queue import Queue
from toril.testing.clock import FakeClock
from toril.wire.connection import Server


class Mail(BaseModel):
    to: str
    tries: int = 1


WELCOME = JobDef[Mail, str]("welcome", attempts=5, remove_on_complete=True)
TICK = JobDef[None, None]("tick")


@pytest.fixture
def queue(server: Server, prefix: str) -> Queue:
    return Queue("q", prefix=prefix, server=server, clock=FakeClock(T0), default_job_options=JobOptions(attempts=3, backoff=fixed("1s")))


async def test_a_job_is_stored_as_node_stores_it(queue: Queue, bench: Bench) -> None:
    job = await queue.add("welcome-email", {"to": "ann@example.com"}, priority=2, remove_on_fail=False)
    stored = await bench.hash(job.id)
    assert json.loads(stored.pop("opts")) == {
        "attempts": 3,
        "backoff": {"type": "fixed", "delay": 1_000},
        "priority": 2,
        "removeOnFail": False,
    }
    assert stored == {"name": "welcome-email", "data": '{"to":"ann@example.com"}', "timestamp": str(T0), "delay": "0", "priority": "2"}
    assert (job.id, job.name, job.data, job.priority) == ("1", "welcome-email", {"to": "ann@example.com"}, 2)
    assert await bench.new_events() == ["added 1 name=welcome-email", "waiting 1"]


async def test_a_definition_and_its_mere_name_add_the_same_job_where_a_handler_is_known(queue: Queue, bench: Bench) -> None:
    queue.register_payload("welcome", WELCOME.payload, result=WELCOME.result, options=WELCOME.options)
    by_definition: Job[Mail, str] = await queue.add(WELCOME, Mail(to="a@b.c"))
    by_name = await queue.add("welcome", {"to": "a@b.c"})
    assert await bench.hash(by_definition.id) == await bench.hash(by_name.id)
    assert by_definition.data == by_name.data == Mail(to="a@b.c")
    with pytest.raises(InvalidPayloadError, match="the data of job 'welcome' doesn't fit Mail: to: Field required"):
        await queue.add("welcome", {})


async def test_a_mapping_is_taken_where_a_model_is_expected(queue: Queue) -> None:
    job = await queue.add(WELCOME, {"to": "a@b.c"})
    assert job.data == Mail(to="a@b.c", tries=1)
    with pytest.raises(InvalidPayloadError):
        await queue.add(WELCOME, {"from": "a@b.c"})
    assert await queue.get_waiting_count() == 1


async def test_later_words_lie_over_earlier_ones(queue: Queue) -> None:
    mail = Mail(to="a@b.c")
    queue.register_payload("welcome", options=JobOptions(timeout="30s", attempts=6))
    plain = await queue.add(WELCOME, mail)
    assert plain.options == JobOptions(attempts=6, backoff=fixed("1s"), remove_on_complete=True, timeout="30s")
    by_options = await queue.add(WELCOME, mail, options=JobOptions(attempts=7, lifo=True), attempts=8)
    assert by_options.options == JobOptions(attempts=8, backoff=fixed("1s"), remove_on_complete=True, timeout="30s", lifo=True)
    by_none = await queue.add(WELCOME, mail, attempts=None)
    assert by_none.options.attempts == 6


async def test_two_definitions_of_one_name_keep_their_own_options(queue: Queue) -> None:
    first = await queue.add(JobDef[Mail, str]("welcome", attempts=1), Mail(to="a"))
    second = await queue.add(JobDef[Mail, str]("welcome", attempts=2), Mail(to="a"))
    assert (first.options.attempts, second.options.attempts) == (1, 2)


async def test_a_job_needs_no_name_and_no_data(queue: Queue) -> None:
    unnamed = await queue.add({"to": "a@b.c"})
    assert (unnamed.name, unnamed.data) == ("__default__", {"to": "a@b.c"})
    bare = await queue.add("tidy")
    assert (bare.name, bare.data, bare.record.data) == ("tidy", {}, b"{}")
    tick = await queue.add(TICK)
    assert (tick.data, tick.record.data) == (None, b"{}")
    null = await queue.add("tidy", None)
    assert (null.data, null.record.data) == (None, b"null")
    keyword = await queue.add("tidy", data=[1])
    assert keyword.data == [1]


async def test_a_queue_with_types_gives_jobs_with_types(server: Server, prefix: str) -> None:
    mails = Queue[Mail, str]("mails", prefix=prefix, server=server)
    job: Job[Mail, str] = await mails.add(Mail(to="a@b.c"))
    read: Job[Mail, str] = await mails.get_job(job.id)
    assert read.data == job.data == Mail(to="a@b.c")
    with pytest.raises(InvalidPayloadError):
        await mails.add({"to": 5})


@pytest.mark.parametrize(
    ("fields", "state", "key"),
    [
        ({}, "waiting", "wait"),
        ({"delay": "5m"}, "delayed", "delayed"),
        ({"delay": "5m", "priority": 1}, "delayed", "delayed"),
        ({"delay": "0s"}, "waiting", "wait"),
        ({"priority": 1}, "prioritized", "prioritized"),
        ({"priority": 0}, "waiting", "wait"),
    ],
)
async def test_a_job_goes_where_its_options_send_it(queue: Queue, bench: Bench, fields: dict[str, Any], state: str, key: str) -> None:
    job = await queue.add("n", **fields)
    assert await job.get_state() == state
    assert await bench.members(key) == [job.id]


async def test_a_delayed_job_is_due_when_the_clock_says(queue: Queue, bench: Bench) -> None:
    job = await queue.add("n", delay=timedelta(minutes=5))
    assert await bench.raw("ZSCORE", bench.key("delayed"), job.id) == str((T0 + 300_000) * 4096).encode()
    assert job.delay_ms == 300_000


async def test_lifo_runs_first(queue: Queue, bench: Bench) -> None:
    await queue.add("first")
    await queue.add("second")
    await queue.add("third", lifo=True)
    assert [(await queue.get_job(job_id)).name for job_id in await bench.claim(3)] == ["third", "first", "second"]


async def test_a_timestamp_may_be_given(queue: Queue) -> None:
    then = datetime(2020, 5, 17, 12, tzinfo=UTC)
    job = await queue.add("n", timestamp=then)
    await job.refresh()
    assert job.timestamp == then
    assert (await queue.add("n")).timestamp_ms == T0


async def test_an_id_that_exists_adds_nothing(queue: Queue, bench: Bench) -> None:
    first = await queue.add("n", {"round": 1}, job_id="order-1")
    again = await queue.add("n", {"round": 2}, job_id="order-1")
    assert first.id == again.id == "order-1"
    assert await bench.members("wait") == ["order-1"]
    await again.refresh()
    assert again.data == {"round": 1}
    assert (await bench.events())[-1] == "duplicated order-1"


@pytest.mark.parametrize(
    ("name", "data", "fields", "error", "says"),
    [
        ("n", {"x": object()}, {}, NotJsonError, r"\$\.x is of type object"),
        ("n", {"x": float("nan")}, {}, NotJsonError, r"\$\.x is nan"),
        ("n", {"x": "\ud800"}, {}, NotJsonError, r"\$\.x"),
        ("n", "x" * 99, {"size_limit": 100}, PayloadTooLargeError, "has 101 bytes, and its size_limit is 100"),
        ("n", {}, {"delay": 5}, InvalidDurationError, '"5s" or "5ms"'),
        ("n", {}, {"attempts": -1}, InvalidOptionError, "attempts"),
        ("n", {}, {"job_id": "7"}, InvalidOptionError, "job_id"),
        ("n", {}, {"delay": "99999d"}, InvalidOptionError, "2039"),
        ("", {}, {}, InvalidOptionError, "not empty"),
        (7, {}, {}, InvalidOptionError, "the name of a job is text"),
        ("n\ud800", {}, {}, InvalidOptionError, "half a character"),
    ],
)
async def test_what_makes_no_sense_is_refused_before_anything_is_sent(
    queue: Queue,
    bench: Bench,
    name: Any,  # noqa: ANN401 -- wrong on purpose
    data: object,
    fields: dict[str, Any],
    error: type[Exception],
    says: str,
) -> None:
    with pytest.raises(error, match=says):
        await queue.add(name, data, **fields)
    assert await bench.everything() == {}


async def test_an_option_that_does_not_exist_is_refused(queue: Queue) -> None:
    with pytest.raises(TypeError, match="retries"):
        await queue.add("n", {}, retries=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]  # wrong on purpose


def test_a_default_id_for_all_jobs_is_refused() -> None:
    with pytest.raises(InvalidOptionError, match=r"default_job_options\.job_id"):
        Queue("q", default_job_options=JobOptions(job_id="x"))


# ── many at once ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_many_jobs_are_added_in_order_in_one_round_trip(toril_server_url: str, prefix: str) -> None:
    async with Proxy(toril_server_url) as proxy, Queue("q", prefix=prefix, url=proxy.url) as queue:
        await queue.add("warm up")
        before = len(proxy.commands)
        jobs = await queue.add_many([queue.job("n", {"i": i}, priority=i % 3, job_id=f"j{i}") for i in range(1_000)])
        assert len(proxy.commands) == before + 1
        assert [(job.id, job.data["i"], job.priority) for job in jobs] == [(f"j{i}", i, i % 3) for i in range(1_000)]
        counts = await queue.get_job_counts("waiting", "prioritized")
        assert counts == {"waiting": 335, "prioritized": 666}


async def test_more_than_one_batch_keeps_the_order(queue: Queue) -> None:
    jobs = await queue.add_many(queue.job("n", i) for i in range(2_500))
    assert [job.id for job in jobs] == [str(i + 1) for i in range(2_500)]
    assert [job.data for job in await queue.get_waiting(2_498)] == [2_498, 2_499]


async def test_many_may_be_of_different_kinds(queue: Queue) -> None:
    typed: list[Job[Mail, str]] = await queue.add_many([queue.job(WELCOME, Mail(to="a"), lifo=True), queue.job(WELCOME, {"to": "b"})])
    assert [job.data.to for job in typed] == ["a", "b"]
    assert typed[0].options.lifo
    mixed = await queue.add_many([queue.job("x", 1), queue.job([2]), queue.job(WELCOME, Mail(to="c"))])
    assert [(job.name, job.data) for job in mixed] == [("x", 1), ("__default__", [2]), ("welcome", Mail(to="c"))]
    assert await queue.add_many([]) == []


@pytest.mark.parametrize(("data", "fields"), [({"x": object()}, {}), ({}, {"size_limit": 1})])
async def test_one_bad_entry_keeps_all_of_them_out(queue: Queue, bench: Bench, data: object, fields: dict[str, Any]) -> None:
    drafts = [queue.job("good", {"i": i}) for i in range(3)] + [queue.job("bad", data, **fields)]
    with pytest.raises((NotJsonError, PayloadTooLargeError)) as caught:
        await queue.add_many(drafts)
    assert caught.value.__notes__ == ["in entry 3 of add_many, a job named 'bad'; none of the 4 jobs was added"]
    assert await bench.everything() == {}


async def test_a_thousand_adds_at_once_all_arrive(queue: Queue, bench: Bench) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(queue.add("n", {"i": i})) for i in range(1_000)]
    jobs = [task.result() for task in tasks]
    assert len({job.id for job in jobs}) == 1_000
    stored = await queue.get_jobs("waiting", ascending=True)
    assert {job.id: job.data for job in stored} == {job.id: job.data for job in jobs}
    assert len(await bench.members("wait")) == 1_000


# ── the server ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_add_whose_reply_is_lost_is_not_repeated(toril_server_url: str, prefix: str) -> None:
    async with Proxy(toril_server_url) as proxy, Queue("q", prefix=prefix, url=proxy.url) as queue:
        proxy.decide = nth(1, is_script("add"), Cut.AFTER)
        with pytest.raises(AddOutcomeUnknownError) as caught:
            await queue.add("n", {"i": 1})
        assert (caught.value.queue, caught.value.count) == ("q", 1)
        assert await queue.get_waiting_count() == 1  # it did arrive, once


async def test_an_add_with_an_id_may_be_repeated_after_a_lost_reply(toril_server_url: str, prefix: str) -> None:
    async with Proxy(toril_server_url) as proxy, Queue("q", prefix=prefix, url=proxy.url) as queue:
        proxy.decide = nth(1, is_script("add"), Cut.AFTER)
        with pytest.raises(AddOutcomeUnknownError):
            await queue.add("n", job_id="once")
        await queue.add("n", job_id="once")
        assert await queue.get_job_counts() == dict.fromkeys(await queue.get_job_counts(), 0) | {"waiting": 1}


@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER, Cut.LATE])
async def test_an_idempotent_add_is_repeated_and_adds_once(toril_server_url: str, prefix: str, cut: Cut) -> None:
    """Also if the first one was only late, and comes after the second."""
    async with Proxy(toril_server_url) as proxy, Queue("q", prefix=prefix, url=proxy.url) as queue:
        proxy.decide = nth(1, is_script("add"), cut)
        job = await queue.add("n", {"i": 1}, idempotent=True)
        await proxy.deliver_late()
        assert sum(map(is_script("add"), proxy.commands)) == 2
        assert [(one.id, one.data) for one in await queue.get_waiting()] == [(job.id, {"i": 1})]
        later = await queue.add("n", {"i": 1}, idempotent=True)  # another call is another add
        assert later.id != job.id


async def test_thousands_of_idempotent_adds_under_random_cuts_add_each_job_once(toril_server_url: str, prefix: str) -> None:
    async with Proxy(toril_server_url) as proxy, Queue("q", prefix=prefix, url=proxy.url) as queue:
        proxy.decide = at_random(seeded_random(), 0.1, is_script("add"))
        bulk = await queue.add_many([queue.job("n", {"i": i}) for i in range(3_500)], idempotent=True)
        single = [await queue.add("n", {"i": i}, idempotent=True) for i in range(3_500, 3_600)]
        assert proxy.cuts > 0
        waiting = await queue.get_waiting()
        assert [job.data["i"] for job in waiting] == list(range(3_600))
        assert [job.id for job in waiting] == [job.id for job in (*bulk, *single)]


async def test_an_idempotent_add_that_is_refused_is_refused_again(toril_server_url: str, prefix: str) -> None:
    """A child whose id has another parent: the answer is the same, not a second try."""
    async with Proxy(toril_server_url) as proxy, Queue("q", prefix=prefix, url=proxy.url) as queue:
        parents = [await queue.add("parent", delay="1h") for _ in range(2)]
        await queue.add("child", job_id="once", parent=parents[0])
        proxy.decide = nth(1, is_script("add"), Cut.AFTER)
        with pytest.raises(ParentError, match="another parent"):
            await queue.add("child", job_id="once", parent=parents[1], idempotent=True)
        assert proxy.cuts == 1


async def test_ids_beyond_a_hundred_trillion_stay_apart(queue: Queue, bench: Bench) -> None:
    """Lua would write such a number with 14 digits."""
    await bench.raw("SET", bench.key("id"), 10**15)
    jobs = await queue.add_many([queue.job("n", {"i": i}) for i in range(3)])
    assert [job.id for job in jobs] == [str(10**15 + n) for n in (1, 2, 3)]
    assert [job.data["i"] for job in await queue.get_waiting()] == [0, 1, 2]


async def test_where_the_counter_of_ids_is_gone_no_new_job_takes_the_place_of_an_old_one(queue: Queue, bench: Bench) -> None:
    """An evicting server throws it away like any other key."""
    old = await queue.add_many([queue.job("n", {"n": n}) for n in range(100)])
    await bench.raw("DEL", bench.key("id"))
    new = await queue.add_many([queue.job("n", {"n": n}) for n in range(100, 110)])
    assert len({job.id for job in (*old, *new)}) == 110
    assert sorted([job.data["n"] for job in await queue.get_waiting(0, -1)]) == list(range(110))
    assert int(await bench.raw("GET", bench.key("id"))) < 300  # the gap is skipped in steps that grow


async def test_without_a_server_an_add_says_so(prefix: str) -> None:
    async with Server("redis://127.0.0.1:1", patience_ms=0) as nowhere, Queue("q", prefix=prefix, server=nowhere) as queue:
        with pytest.raises(ServerUnreachableError, match=r"127\.0\.0\.1:1"):
            await queue.add("n")


@pytest.mark.parametrize(("given", "written"), [(None, "10000"), (50, "50")])
async def test_the_length_of_the_stream_is_written_with_the_first_use_only(
    toril_server_url: str, prefix: str, given: int | None, written: str
) -> None:
    async with Proxy(toril_server_url) as proxy, Queue("q", prefix=prefix, url=proxy.url, max_events=given) as queue:
        assert proxy.commands == []
        for _ in range(3):
            await queue.add("n")
        assert sum(map(is_command("HSET"), proxy.commands)) == (given is not None)
        meta = await queue.server.commands.call("HGETALL", queue.keys.meta)
        assert meta == [b"opts.maxLenEvents", written.encode()]


async def test_a_stream_length_that_stands_in_the_server_stays(queue: Queue, bench: Bench) -> None:
    await bench.raw("HSET", bench.key("meta"), "opts.maxLenEvents", 77)
    await queue.add("n")
    assert await bench.raw("HGET", bench.key("meta"), "opts.maxLenEvents") == b"77"


async def test_payloads_of_unknown_names_are_whatever_json_holds(queue: Queue) -> None:
    queue.register_payload("known", PayloadType[int](int))
    job = await queue.add("unknown", ["anything", 1, None])
    assert (await queue.get_job(job.id)).data == ["anything", 1, None]
    known = await queue.add("known", 5, backoff=exponential("1s"))
    assert (await queue.get_job(known.id)).data == 5


async def test_a_name_that_no_handler_of_the_application_takes_is_warned_of_once(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    await queue.add("anything")  # nothing is known about this queue: others serve it
    queue.register_payload("resize")
    with caplog.at_level(logging.WARNING, "toril"):
        await queue.add("resize")
        await queue.add(JobDef("resizze"))
        await queue.add_many([queue.job("resizze"), queue.job("resize")])
    [record] = caplog.records
    assert "no handler of this application takes jobs of this name" in record.getMessage()
    assert "job_name=resizze" in record.getMessage()
    assert "['resize']" in record.getMessage()
    queue.register_payload(None)  # a handler for every other name
    caplog.clear()
    await queue.add("other")
    assert not caplog.records


async def test_what_no_draft_stands_for_is_refused_before_anything_is_sent(queue: Queue) -> None:
    bulk: Any = [queue.job("a"), {"name": "a", "data": {}}]
    with pytest.raises(InvalidCallError, match=r"write queue\.job\(name, data"):
        await queue.add_many(bulk)
    children: Any = [{"name": "b", "data": {}}]
    async with FlowProducer(server=queue.server, prefix=queue.prefix) as flows:
        with pytest.raises(InvalidCallError, match=r"write flow_job\("):
            await flows.add(flow_job("a", queue=queue.name, children=children))
    assert sum((await queue.get_job_counts()).values()) == 0
