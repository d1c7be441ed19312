"""Locks that are renewed, and jobs whose lock was not."""

from __future__ import annotations

import pytest

from tests.bench import T0, Bench
from toril.wire import replies, scripts


async def test_renewing_extends_what_is_ours_and_names_what_is_not(bench: Bench) -> None:
    await bench.add(4)
    await bench.claim(4)
    await bench.raw("SADD", bench.key("stalled"), "1", "2", "3", "4")
    await bench.raw("DEL", bench.keys.lock("3"))
    pairs = ["1", "t", "2", "wrong", "3", "t:3", "4", "t:4"]
    lost = await bench.server.commands.run(scripts.load("renew_locks"), [bench.keys.base, bench.keys.own], 50_000, *pairs)
    assert lost == [b"2", replies.LOCK_MISMATCH, b"3", replies.MISSING_LOCK]
    assert 40_000 < await bench.raw("PTTL", bench.keys.lock("1")) <= 50_000
    assert await bench.raw("PTTL", bench.keys.lock("2")) <= 30_000
    assert not await bench.raw("EXISTS", bench.keys.lock("3"))
    assert sorted(await bench.raw("SMEMBERS", bench.key("stalled"))) == [b"2", b"3"]


async def test_a_job_is_taken_for_stalled_only_at_the_second_sweep(bench: Bench) -> None:
    await bench.add(3, priority=4)
    await bench.claim(3)
    await bench.raw("DEL", bench.keys.lock("1"))
    assert await bench.sweep() == []
    await bench.raw("DEL", bench.keys.lock("2"))
    await bench.new_events()
    assert sorted(await bench.sweep()) == ["1", "2"]
    assert await bench.members("active") == ["3"]
    assert sorted(await bench.members("wait")) == ["1", "2"]  # whatever their priority
    assert sorted(await bench.new_events()) == ["stalled 1", "stalled 2", "waiting 1 prev=active", "waiting 2 prev=active"]
    assert await bench.sweep() == []


async def test_a_sweep_tells_how_long_another_one_is_away(bench: Bench) -> None:
    assert (await bench.commands.sweep_stalled(T0, 30_000, 1)).wait_ms == 0
    assert 29_000 < (await bench.commands.sweep_stalled(T0, 30_000, 1)).wait_ms <= 30_000
    await bench.raw("PERSIST", bench.keys.stalled_check)
    assert (await bench.commands.sweep_stalled(T0, 30_000, 1)).wait_ms == 30_000


async def test_a_sweep_forgets_ids_without_a_job(bench: Bench) -> None:
    await bench.raw("RPUSH", bench.key("active"), "ghost", "0:1")
    await bench.raw("SADD", bench.key("stalled"), "ghost", "0:1")
    reply = await bench.commands.sweep_stalled(bench.now, 30_000, 1)
    assert (reply.recovered, reply.dropped) == ([], ["ghost"])
    assert await bench.commands.count(["active", "wait"]) == [0, 0]
    assert not await bench.raw("EXISTS", bench.key("ghost"))


@pytest.mark.parametrize("alive", ["hash", "score"])
async def test_an_iteration_of_a_living_schedule_stalls_as_often_as_it_likes(bench: Bench, alive: str) -> None:
    for job_id in ("iteration", "orphan"):
        await bench.add(job_id=job_id)
        await bench.raw("HSET", bench.key(job_id), "rjk", f"of-{job_id}", "stc", 5)
    if alive == "hash":
        await bench.raw("HSET", bench.key("repeat:of-iteration"), "ic", 1)
    else:
        await bench.raw("ZADD", bench.key("repeat"), 1, "of-iteration")
    await bench.claim(2)
    await bench.raw("DEL", bench.keys.lock("iteration"), bench.keys.lock("orphan"))
    await bench.sweep()
    assert sorted(await bench.sweep()) == ["iteration", "orphan"]
    assert "defa" not in await bench.hash("iteration")
    assert (await bench.hash("orphan"))["defa"] == "job stalled more than allowable limit"


async def test_a_sweep_of_many_active_jobs_marks_them_all(bench: Bench) -> None:
    await bench.raw("RPUSH", bench.key("active"), *[f"job-{number}" for number in range(2_500)])
    await bench.sweep()
    assert await bench.raw("SCARD", bench.key("stalled")) == 2_500
