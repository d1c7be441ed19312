"""The checker of the invariants: it is content with what the library and Node leave, and finds each kind of damage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import pytest

from tests.bench import T0, Bench, done, gone_wrong
from tests.golden_replay import scenario, scenarios
from tests.invariants import CHECKS, Broken, broken_in, check_invariants
from tests.key_space import KeySpace, read_key_space
from tests.snapshot import Events
from toril.queues.flows import FlowProducer, flow_job
from toril.queues.job_schedulers import ScheduleRule
from toril.queues.option_parts import Deduplication
from toril.queues.queue import Queue
from toril.testing.clock import FakeClock
from toril.wire.connection import Server

Commands: TypeAlias = Sequence[str]
"""What damages the key space: commands whose words are parted by blanks; `~` stands for the base of the queue's keys."""

LATER_SCORE: Final = (T0 + 60_000) * 4096

DAMAGES: Final[Sequence[tuple[int, str, Commands]]] = [
    (1, "waiting", ["RPUSH ~active waiting"]),
    (1, "waiting", ["LPUSH ~wait waiting"]),
    (1, "done", ["LPUSH ~paused done"]),
    (2, "ghost", ["LPUSH ~wait ghost"]),
    (2, "waiting", ["HDEL ~waiting opts"]),
    (2, "waiting", ["LREM ~wait 1 waiting"]),
    (2, "ghost", ["HSET ~ghost delay 0"]),
    (2, "ghost", ["RPUSH ~ghost:logs row"]),
    (2, "ghost", ["HSET ~ghost:processed ~waiting 1"]),
    (3, "waiting", ["SET ~waiting:lock t"]),
    (3, "ghost", ["SET ~ghost:lock t"]),
    (4, "done", ["SADD ~stalled done"]),
    (5, "waiting", ["HSET ~waiting finishedOn 1700000000000"]),
    (5, "done", ["HDEL ~done finishedOn"]),
    (5, "done", ["HDEL ~done returnvalue"]),
    (5, "waiting", ["HSET ~waiting returnvalue 1"]),
    (5, "bad", ["HDEL ~bad failedReason"]),
    (5, "bad", ["HSET ~bad defa why"]),
    (6, "done", ["ZADD ~completed 1700000000001 done"]),
    (6, "later", [f"ZADD ~delayed {LATER_SCORE + 4096} later"]),
    (6, "urgent", ["HSET ~urgent priority 8"]),
    (7, "later", ["HSET ~later delay 0"]),
    (7, "promoted", ["HSET ~promoted delay 5"]),
    (8, "running", ["HSET ~running atm 2"]),
    (8, "running", ["HSET ~running stc 2"]),
    (8, "waiting", ["HSET ~waiting atm -1"]),
    (9, "child", ["HSET ~parent:processed ~child 1"]),
    (9, "parent", ["SADD ~parent:dependencies ~gone"]),
    (10, "parent", ["SREM ~parent:dependencies ~child"]),
    (11, "waiting", ["ZREM ~marker 0"]),
    (12, "later", ["DEL ~marker", "HSET ~meta concurrency 1"]),
    (12, "later", ["DEL ~marker", "HSET ~meta concurrency 1", f"ZADD ~marker {T0 + 60_001} 1"]),
    (13, "8", ["SET ~id 7"]),
    (14, "owner", ["HSET ~owner deid other"]),
    (14, "owner", ["HSET ~dn:d name n", "PEXPIRE ~de:d 60000"]),
    (14, "?", ["HSET ~dn:x name n"]),
    (15, "s", ["DEL ~repeat:s"]),
    (15, f"repeat:s:{T0 + 60_000}", [f"ZADD ~repeat {T0 + 60_000} s"]),
    (16, "running", ["HSET ~running ats 2"]),
    (16, "bad", ["XADD ~events * event failed jobId bad"]),
    (16, "done", ["XADD ~events * event active jobId done prev waiting"]),
    (16, "running", ["XADD ~events * event completed jobId running"]),
    (17, "running", ["HSET ~meta concurrency 0"]),
]


@pytest.fixture
async def bench(server: Server, prefix: str) -> Bench:
    """A queue that has one of everything, at the same moment."""
    bench = Bench(server, prefix)
    clock = FakeClock(T0)
    queue = Queue("q", prefix=prefix, server=server, clock=clock)
    for job_id in ("done", "bad", "running"):
        await bench.add(job_id=job_id)
    assert await bench.claim(3) == ["done", "bad", "running"]
    await bench.turn(done("done"), gone_wrong("bad", "t:2"))
    await bench.add(job_id="waiting")
    await bench.add(job_id="urgent", priority=7)
    await bench.add(job_id="later", delay=60_000)
    await bench.add(job_id="promoted", delay=60_000)
    await bench.commands.promote("promoted")
    assert await bench.add() == ["8"]
    async with FlowProducer(prefix=prefix, server=server, clock=clock) as flows:
        await flows.add(flow_job("n", queue="q", job_id="parent", children=[flow_job("n", queue="q", job_id="child")]))
    await queue.add("n", job_id="owner", deduplication=Deduplication("d"))
    await queue.job_schedulers.upsert("s", ScheduleRule(every="1m"))
    return bench


async def _broken(bench: Bench, before: KeySpace | None = None) -> list[Broken]:
    return await check_invariants(bench.server, bench.prefix, now_ms=bench.now, weak=True, before=before)


# ── what is right ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_nothing_is_broken_in_a_queue_that_has_one_of_everything(bench: Bench) -> None:
    assert await _broken(bench) == []


@pytest.mark.parametrize("name", scenarios())
def test_all_invariants_hold_on_every_golden_step(name: str) -> None:
    """The weak ones, too. A child that was refused leaves its parent waiting in vain (wire §3.13), and a bulk promotion the delay."""
    events: Events = {}
    before: KeySpace | None = None
    broken: list[tuple[int, int]] = []
    for step in scenario(name):
        for key, new in step.events.items():
            events.setdefault(key, []).extend(new)
        keys = {key: content for key, content in step.keys.items() if content["type"] != "stream"}
        space = KeySpace(keys, {key: list(entries) for key, entries in events.items()})
        in_bulk = name == "13-active-moves"
        found = broken_in(space, now_ms=step.clock, weak=True, before=before, promoted_in_bulk=in_bulk)
        broken += [(step.number, one.number) for one in found]
        before = space
    assert broken == ([(3, 10)] if name == "07j-flow-parent-delay-priority" else [])


# ── what is damaged ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("number", "job_id", "commands"), DAMAGES, ids=[f"I{number} {commands[-1]}" for number, _, commands in DAMAGES])
async def test_a_damage_breaks_exactly_its_invariant(bench: Bench, number: int, job_id: str, commands: Commands) -> None:
    for command in commands:
        await bench.raw(*command.replace("~", bench.keys.base).split(" "))
    found = await _broken(bench)
    assert [one.number for one in found] == [number]
    assert job_id in found[0].ids


def test_every_invariant_has_a_damage() -> None:
    assert {number for number, _, _ in DAMAGES} == CHECKS.keys() == set(range(1, 18))


async def test_a_suspect_whose_lock_was_extended_breaks_the_fourth(bench: Bench) -> None:
    await bench.raw("PEXPIRE", bench.keys.lock("running"), 10_000)
    await bench.raw("SADD", bench.key("stalled"), "running")
    before = await read_key_space(bench.server, bench.prefix)
    assert await _broken(bench, before) == []
    await bench.raw("PEXPIRE", bench.keys.lock("running"), 20_000)
    assert [(one.number, one.ids) for one in await _broken(bench, before)] == [(4, ("running",))]


async def test_a_new_suspect_that_is_not_active_breaks_the_fourth(bench: Bench) -> None:
    before = await read_key_space(bench.server, bench.prefix)
    await bench.raw("SADD", bench.key("stalled"), "waiting")
    assert [(one.number, one.ids) for one in await _broken(bench, before)] == [(4, ("waiting",))]


async def test_a_counter_that_goes_back_breaks_the_thirteenth(bench: Bench) -> None:
    before = await read_key_space(bench.server, bench.prefix)
    await bench.raw("DECR", bench.key("id"))
    assert [one.number for one in await _broken(bench, before)] == [13]


async def test_a_limit_that_is_lowered_below_what_runs_breaks_nothing(bench: Bench) -> None:
    before = await read_key_space(bench.server, bench.prefix)
    await bench.raw("HSET", bench.keys.meta, "concurrency", 0)
    assert await _broken(bench, before) == []


async def test_the_weak_ones_are_judged_only_if_asked_for(bench: Bench) -> None:
    await bench.raw("DEL", bench.keys.marker)
    assert {one.number for one in await _broken(bench)} == {11, 12}
    assert await check_invariants(bench.server, bench.prefix, now_ms=bench.now) == []


async def test_another_prefix_with_the_same_beginning_is_not_looked_at(bench: Bench) -> None:
    await bench.raw("LPUSH", f"{bench.prefix}-2:q:wait", "ghost")
    assert await _broken(bench) == []
    assert [one.number for one in await check_invariants(bench.server, f"{bench.prefix}-2")] == [2]
