"""Scripts that add, scripts that read, and how all of them are called. What Node does with the same input is in `test_golden.py`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from tests.bench import T0, Bench
from tests.proxy import Proxy, is_command
from tests.snapshot import read_all
from toril.errors import ParentError
from toril.wire import scripts
from toril.wire.commands import QueueCommands
from toril.wire.connection import Connection, Server
from toril.wire.jobs import NewJob
from toril.wire.keys import QueueKeys


@pytest.fixture
async def own_connection(server: Server) -> AsyncIterator[Connection]:
    connection = server.connection(QueueKeys("bull", "q"))
    yield connection
    await connection.aclose()


# ── the calls themselves ──────────────────────────────────────────────────────────────────────────────────────────


async def test_every_script_is_called_with_as_many_keys_as_its_header_declares(toril_server_url: str, prefix: str) -> None:
    async with Proxy(toril_server_url) as proxy, Server(proxy.url) as server:
        bench = Bench(server, prefix)
        queue: QueueCommands = bench.commands
        await bench.add()
        await bench.turn(claims=1, free=[("n", 1)])
        await queue.find_job("1")
        await queue.get_state("1")
        await queue.count(["wait"])
        await queue.update_data("1", b"1")
        await queue.update_progress("1", b"1")
        await queue.add_log("1", "row", 0)
        await queue.sweep_stalled(T0, 1_000, 1)
        await queue.remove("1")
    called = {command[1]: int(command[2]) for command in proxy.commands if is_command("EVALSHA")(command)}
    names = ["add", "turn", "get_jobs", "get_state", "counts", "update_data", "update_progress", "add_log", "sweep_stalled", "remove"]
    assert called == {scripts.load(name).sha1.encode(): scripts.load(name).key_count for name in names}


async def test_a_full_server_still_lets_workers_finish_and_refuses_only_what_adds(server: Server, bench: Bench) -> None:
    """By the scripts' flags, which the server enforces; filling a server that other tests share is out of the question."""
    for name in ("turn", "renew_locks", "sweep_stalled", "remove"):
        assert scripts.load(name).text.startswith("#!lua flags=allow-oom\n")
    for name in ("counts", "get_jobs", "get_state"):
        assert scripts.load(name).text.startswith("#!lua flags=no-writes\n")
    for name in ("add", "update_data", "update_progress", "add_log"):
        assert scripts.load(name).text.startswith("#!lua\n")


async def test_opts_are_stored_as_they_are_written(bench: Bench) -> None:
    opts = json.dumps({"attempts": 0, "tags": [], "big": 12345678901234567}).encode()
    await bench.commands.add([NewJob("n", b"[]", opts, T0)])
    record = await bench.commands.find_job("1")
    assert record is not None
    assert (record.opts, record.data) == (opts, b"[]")


# ── add ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_five_thousand_jobs_are_added_in_order(bench: Bench) -> None:
    assert await bench.add(5_000) == [str(number) for number in range(1, 5_001)]
    assert await bench.commands.count(["wait"]) == [5_000]
    assert await bench.claim(3) == ["1", "2", "3"]


async def test_a_mixed_batch_goes_where_each_job_belongs_and_rings_both_bells(bench: Bench) -> None:
    def job(name: str, delay: int = 0, priority: int = 0, lifo: bool = False, job_id: str = "") -> NewJob:
        return NewJob(name, b"{}", b"{}", T0, delay, priority, lifo, job_id)

    jobs = [
        job("a"),
        job("b", delay=900),
        job("c", priority=2),
        job("d", lifo=True),
        job("e", job_id="own"),
        job("f", delay=100, priority=1),
    ]
    added = await bench.commands.add([*jobs, job("g", job_id="own")])
    assert [one.job_id for one in added] == ["1", "2", "3", "4", "own", "6", "own"]
    assert [one.is_new for one in added] == [True] * 6 + [False]
    assert await bench.members("wait") == ["own", "1", "4"]
    assert await bench.members("prioritized") == ["3"]
    assert await bench.members("delayed") == ["6", "2"]
    assert await bench.raw("ZRANGE", bench.key("marker"), 0, -1, "WITHSCORES") == [b"0", b"0", b"1", b"%d" % (T0 + 100)]
    assert (await bench.hash("own"))["name"] == "e"
    assert (await bench.events())[-1] == "duplicated own"


async def test_a_job_whose_delay_is_changed_goes_behind_those_due_then_its_old_self_included(bench: Bench) -> None:
    await bench.add(2, delay=1_000)
    await bench.commands.change_delay("2", T0, 1_000)
    scores = await bench.raw("ZRANGE", bench.key("delayed"), 0, -1, "WITHSCORES")
    assert [int(score) - (T0 + 1_000) * 4096 for score in scores[1::2]] == [0, 2]  # as BullMQ has it


async def test_an_add_that_is_refused_writes_nothing(bench: Bench) -> None:
    with pytest.raises(ParentError):
        await bench.commands.add([NewJob("n", b"{}", b"{}", T0, parent_key=bench.key("nobody"), parent=b"{}")])
    assert await read_all(bench.server, bench.prefix) == ({}, {})


async def test_waiting_jobs_are_cleaned_in_the_order_of_the_list_the_oldest_ones_of_it(bench: Bench) -> None:
    await bench.add(4)
    assert await bench.commands.clean("wait", T0, 3) == ["3", "2", "1"]  # as BullMQ has it


async def test_delays_count_from_the_timestamp_as_they_do_in_bullmq(bench: Bench) -> None:
    await bench.commands.add([NewJob("n", b"{}", b"{}", T0 - 60_000, delay_ms=500)])
    assert (await bench.events())[-1] == f"delayed 1 delay={T0 - 59_500}"
    assert (await bench.hash("1"))["timestamp"] == str(T0 - 60_000)


async def test_jobs_that_are_due_in_the_same_millisecond_keep_their_order_until_the_numbers_run_out(bench: Bench) -> None:
    due = T0 + 10
    await bench.raw("ZADD", bench.key("delayed"), due * 4096 + 4094, "other")
    await bench.add(3, delay=10)
    scores = [await bench.raw("ZSCORE", bench.key("delayed"), job_id) for job_id in "123"]
    assert [int(score) - due * 4096 for score in scores] == [4095, 4095, 4095]


async def test_adding_to_a_paused_queue_rings_only_for_delayed_jobs(bench: Bench) -> None:
    await bench.raw("HSET", bench.key("meta"), "paused", 0)  # it is the field that counts, not its value
    await bench.add()
    await bench.add(priority=1)
    assert await bench.marker() == []
    await bench.add(delay=10)
    assert await bench.marker() == ["1"]


async def test_the_events_stream_stays_short(bench: Bench) -> None:
    await bench.commands.set_max_events(20)
    for _ in range(6):
        await bench.add(100)
    assert await bench.raw("XLEN", bench.key("events")) < 420  # whole nodes of 100 go, once a script


async def test_the_length_of_the_stream_is_only_set_where_it_is_missing(bench: Bench) -> None:
    await bench.commands.set_max_events(None)
    assert await bench.raw("HGET", bench.key("meta"), "opts.maxLenEvents") == b"10000"
    await bench.commands.set_max_events(5)
    await bench.commands.set_max_events(None)
    assert await bench.raw("HGET", bench.key("meta"), "opts.maxLenEvents") == b"5"


# ── the events stream and the marker ──────────────────────────────────────────────────────────────────────────────


async def test_events_are_read_from_where_the_reader_stopped(bench: Bench, own_connection: Connection) -> None:
    assert await bench.commands.last_event_id() == "0-0"
    await bench.add()
    start = await bench.commands.last_event_id()
    assert await bench.commands.read_events(own_connection, start, 1) == []
    reading = asyncio.create_task(bench.commands.read_events(own_connection, start, 10_000))
    await bench.add(name="later")
    events = await reading
    events += await bench.commands.read_events(own_connection, events[-1][0], 1)
    assert [event for _, event in events] == [{"event": "added", "jobId": "2", "name": "later"}, {"event": "waiting", "jobId": "2"}]
    everything = await bench.commands.range_events("-", "+", 10)
    assert len(everything) == 4
    assert await bench.commands.range_events(f"({everything[0][0]}", "+", 1) == everything[1:2]


async def test_waiting_for_the_marker_tells_what_it_says(bench: Bench, own_connection: Connection) -> None:
    assert await bench.commands.wait_for_marker(own_connection, 1) is None
    await bench.add(delay=70)
    await bench.add()
    assert await bench.commands.wait_for_marker(own_connection, 1) == 0
    assert await bench.commands.wait_for_marker(own_connection, 1) == T0 + 70
    waiting = asyncio.create_task(bench.commands.wait_for_marker(own_connection, 10_000))
    await bench.add()
    assert await waiting == 0
