"""What a turn claims: broken data, limits, names without a free slot."""

from __future__ import annotations

import pytest

from tests.bench import T0, Bench, done, ids, tokens
from toril.errors import DamagedKeyError
from toril.wire.turns import ClaimState

# ── claim ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_claimed_jobs_have_tokens_of_their_own_and_a_worker(bench: Bench) -> None:
    await bench.add(3)
    reply = await bench.turn(claims=5, token="w:0:1", worker_name="alpha", lock_ms=7_000)
    assert (ids(reply), tokens(reply)) == (["1", "2", "3"], ["w:0:1", "w:0:1:2", "w:0:1:3"])
    assert (reply.state, reply.value) == (ClaimState.EMPTY, 0)
    for job_id, token in zip(ids(reply), tokens(reply), strict=True):
        assert (await bench.raw("GET", bench.keys.lock(job_id))).decode() == token
        assert 6_000 < await bench.raw("PTTL", bench.keys.lock(job_id)) <= 7_000
        assert (await bench.hash(job_id))["pb"] == "alpha"
    record = reply.claimed[0][1]
    assert (record.attempts_started, record.processed_at_ms, record.name, record.data) == (1, T0, "n", b"{}")


async def test_ids_without_a_job_behind_them_are_dropped(bench: Bench) -> None:
    await bench.add(2)
    await bench.add(priority=1)
    await bench.raw("RPUSH", bench.key("wait"), "ghost-1", "0:1700000000000", "list")
    await bench.raw("ZADD", bench.key("prioritized"), 1, "ghost-2", 2, "string")
    await bench.raw("RPUSH", bench.key("list"), "not a hash")
    await bench.raw("SET", bench.key("string"), "not a hash")
    await bench.raw("HSET", bench.key("0:1700000000000"), "name", "a marker of old versions")
    before = set(await bench.everything())
    reply = await bench.turn(claims=10)
    assert ids(reply) == ["1", "2", "3"]
    assert (reply.dropped, reply.dropped_ids) == (4, ["list", "ghost-1", "ghost-2", "string"])
    assert await bench.members("active") == ["3", "2", "1"]
    locks = {f"bull:q:{job_id}:lock" for job_id in "123"}
    assert set(await bench.everything()) == before - {"bull:q:wait", "bull:q:prioritized", "bull:q:pc"} | locks | {"bull:q:active"}
    assert [event for event in await bench.events() if event.startswith("active")] == [f"active {n} prev=waiting" for n in (1, 2, 3)]


async def test_a_turn_drops_a_thousand_ids_at_most_and_names_the_first_ones(bench: Bench) -> None:
    await bench.add()
    ghosts = [f"ghost-{number}" for number in range(1_500)]
    await bench.raw("RPUSH", bench.key("wait"), *reversed(ghosts))
    reply = await bench.turn(claims=1)
    assert (ids(reply), reply.state, reply.dropped, reply.dropped_ids) == ([], ClaimState.SATISFIED, 1_000, ghosts[:10])
    reply = await bench.turn(claims=1)
    assert (ids(reply), reply.dropped, reply.dropped_ids) == (["1"], 500, ghosts[1_000:1_010])


@pytest.mark.parametrize(("key", "wanted"), [("active", "list"), ("events", "stream"), ("marker", "zset")])
async def test_a_key_of_a_wrong_type_keeps_all_jobs_where_they_are(bench: Bench, key: str, wanted: str) -> None:
    await bench.add(2)
    await bench.raw("DEL", bench.key(key))
    await bench.raw("SET", bench.key(key), "something else")
    with pytest.raises(DamagedKeyError) as caught:
        await bench.turn(claims=2)
    assert (caught.value.problems, caught.value.stopped_script) == ((f"{bench.key(key)} holds a string instead of a {wanted}",), False)
    assert await bench.members("wait") == ["2", "1"]
    await bench.raw("DEL", bench.key(key))
    assert await bench.claim(2) == ["1", "2"]


async def test_many_are_claimed_at_once_from_the_waiting_and_then_from_the_prioritized(bench: Bench) -> None:
    for priority in (0, 2, 1):
        await bench.add(2, priority=priority)
    assert await bench.claim(5) == ["1", "2", "5", "6", "3"]
    assert await bench.members("active") == ["3", "6", "5", "2", "1"]
    assert await bench.claim(5, token="u") == ["4"]


async def test_a_fractional_concurrency_lets_in_what_one_by_one_would(bench: Bench) -> None:
    await bench.add(5)
    await bench.raw("HSET", bench.key("meta"), "concurrency", "2.5")
    assert await bench.claim(5) == ["1", "2", "3"]


async def test_a_job_that_is_not_there_does_not_use_up_the_rate_limit(bench: Bench) -> None:
    await bench.add(2)
    await bench.raw("RPUSH", bench.key("wait"), "ghost")
    reply = await bench.turn(claims=3, limit=(2, 5_000))
    assert ids(reply) == ["1", "2"]
    assert reply.state is ClaimState.LIMITED
    assert 4_000 < reply.value <= 5_000


async def test_a_job_that_must_fail_does_not_count_in_the_rate_limit(bench: Bench) -> None:
    await bench.add(3)
    await bench.raw("HSET", bench.key("1"), "defa", "a child failed")
    reply = await bench.turn(claims=3, limit=(1, 5_000))
    assert ids(reply) == ["1", "2"]
    assert reply.claimed[0][1].deferred_failure == "a child failed"
    assert await bench.raw("GET", bench.key("limiter")) == b"1"


async def test_the_limit_of_the_queue_wins_over_the_worker_s(bench: Bench) -> None:
    await bench.add(4)
    await bench.raw("HSET", bench.key("meta"), "max", 3, "duration", 9_000)
    assert ids(await bench.turn(claims=4, limit=(1, 2_000))) == ["1", "2", "3"]
    assert 1_000 < await bench.raw("PTTL", bench.key("limiter")) <= 2_000  # but the worker's own duration counts


async def test_global_concurrency_is_kept_within_a_turn(bench: Bench) -> None:
    await bench.raw("HSET", bench.key("meta"), "concurrency", 2)
    await bench.add(4)
    reply = await bench.turn(claims=4)
    assert (ids(reply), reply.state) == (["1", "2"], ClaimState.BLOCKED)
    reply = await bench.turn(done("1"), claims=4, token="u")
    assert (ids(reply), reply.state) == (["3"], ClaimState.BLOCKED)


async def test_more_than_a_thousand_due_jobs_are_promoted_in_several_turns(bench: Bench) -> None:
    await bench.add(1_500, delay=10)
    bench.now += 10
    assert await bench.claim() == ["1"]
    assert await bench.commands.count(["wait", "delayed"]) == [999, 500]
    assert await bench.claim() == ["2"]
    assert await bench.commands.count(["wait", "delayed"]) == [1_498, 0]


@pytest.mark.parametrize("concurrency", [1, 9])
async def test_every_claim_wakes_the_next_sleeper_even_if_no_more_may_be_claimed(bench: Bench, concurrency: int) -> None:
    await bench.add(2)
    await bench.raw("HSET", bench.key("meta"), "concurrency", concurrency)
    await bench.raw("DEL", bench.key("marker"))
    await bench.claim()
    assert await bench.marker() == ["0"]
    await bench.raw("DEL", bench.key("marker"))
    await bench.turn(done("1"))  # an ending alone rings nothing
    assert await bench.marker() == []


async def test_waking_names_the_next_due_time_without_its_fraction(bench: Bench) -> None:
    await bench.raw("ZADD", bench.key("delayed"), (T0 + 70) * 4096 + 4095, "later")
    reply = await bench.turn(claims=1)
    assert (reply.state, reply.value) == (ClaimState.EMPTY, T0 + 70)


# ── claim, with limits by name ────────────────────────────────────────────────────────────────────────────────────


async def test_jobs_whose_name_has_no_slot_are_passed_over_and_stay_where_they_are(bench: Bench) -> None:
    for name in ("a", "b", "a", "c", "a", "b"):
        await bench.add(name=name)
    await bench.add(name="a", priority=1)
    await bench.add(name="b", priority=2)
    reply = await bench.turn(claims=9, free=[("a", 1), ("b", 2)])
    assert ids(reply) == ["1", "2", "4", "6"]
    assert reply.state is ClaimState.ONLY_FULL_NAMES
    assert await bench.members("wait") == ["5", "3"]
    assert await bench.members("prioritized") == ["7", "8"]
    assert await bench.marker() == ["0"]
    assert ids(await bench.turn(claims=9, token="u", free=[("a", 0), ("b", 1)])) == ["8"]
    assert ids(await bench.turn(claims=9, token="v", free=[("a", 5), ("b", 0)])) == ["3", "5", "7"]


@pytest.mark.parametrize("priority", [0, 3])
async def test_all_that_one_turn_takes_from_between_full_names_is_removed_and_nothing_else(bench: Bench, priority: int) -> None:
    names = [("full", "b", "full", "limited")[number % 4] for number in range(200)]
    for name in names:
        await bench.add(name=name, priority=priority)
    reply = await bench.turn(claims=70, free=[("full", 0), ("limited", 30)])
    expected = [str(number) for number, name in enumerate(names, 1) if name == "b" or (name == "limited" and number <= 4 * 30)][:70]
    assert ids(reply) == expected
    assert await bench.members("active") == expected[::-1]
    left = [str(number) for number in range(1, 201) if str(number) not in expected]
    assert await bench.members("prioritized" if priority else "wait") == (left if priority else left[::-1])


async def test_only_full_names_put_the_bell_back_for_other_workers(bench: Bench) -> None:
    await bench.add(name="a")
    await bench.raw("DEL", bench.key("marker"))
    reply = await bench.turn(claims=1, free=[("a", 0)])
    assert (reply.state, await bench.marker()) == (ClaimState.ONLY_FULL_NAMES, ["0"])


async def test_full_names_in_a_paused_queue_ring_nothing(bench: Bench) -> None:
    await bench.add(name="a")
    await bench.raw("DEL", bench.key("marker"))
    await bench.raw("HSET", bench.key("meta"), "paused", 1)
    assert (await bench.turn(claims=1, free=[("a", 0)])).state is ClaimState.BLOCKED
    assert await bench.marker() == []


async def test_a_turn_looks_at_five_hundred_entries_and_the_next_one_goes_on_from_there(bench: Bench) -> None:
    await bench.add(700, name="a")
    await bench.add(2, name="b")
    await bench.add(400, name="a", priority=1)
    await bench.add(name="b", priority=1)
    full = [("a", 0)]
    reply = await bench.turn(claims=5, free=full)
    assert (ids(reply), reply.state, reply.positions) == ([], ClaimState.LOOK_FURTHER, (500, 0))
    reply = await bench.turn(claims=5, free=full, positions=reply.positions)
    assert (ids(reply), reply.state, reply.positions) == (["701", "702"], ClaimState.LOOK_FURTHER, (700, 298))
    reply = await bench.turn(claims=5, token="u", free=full, positions=reply.positions)
    assert (ids(reply), reply.state, reply.positions) == (["1103"], ClaimState.ONLY_FULL_NAMES, (700, 400))
    assert await bench.commands.count(["wait", "prioritized"]) == [700, 400]


async def test_a_window_full_of_missing_jobs_is_no_empty_queue(bench: Bench) -> None:
    await bench.add(name="b")
    ghosts = [f"ghost-{number}" for number in range(600)]
    await bench.raw("RPUSH", bench.key("wait"), *ghosts)
    assert (await bench.turn(claims=1, free=[("a", 0)])).state is ClaimState.LOOK_FURTHER
    assert await bench.commands.count(["wait", "active"]) == [101, 0]
    assert ids(await bench.turn(claims=1, free=[("a", 0)])) == ["1"]


async def test_names_with_free_slots_everywhere_are_claimed_as_by_any_worker(bench: Bench) -> None:
    await bench.add(3, name="a")
    reply = await bench.turn(claims=5, free=[("a", 3)])
    assert (ids(reply), reply.state) == (["1", "2", "3"], ClaimState.EMPTY)
    assert (await bench.turn(claims=5, free=[("a", 0)])).state is ClaimState.EMPTY
