"""How a turn ends jobs: what it refuses, where they go, what is kept of them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.bench import STACK, T0, Bench, done, gone_wrong, ids
from toril.errors import DamagedKeyError
from toril.wire import endings, replies
from toril.wire.endings import Ending
from toril.wire.turns import ClaimState

# ── endings ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_refused_ending_changes_nothing_and_does_not_stop_the_others(bench: Bench) -> None:
    await bench.add(5)
    await bench.add_parent("P", "q")
    await bench.add_parent("F", "q")
    await bench.raw("ZREM", bench.key("waiting-children"), "P", "F")
    await bench.raw("RPUSH", bench.key("wait"), "P", "F")
    assert await bench.claim(7) == ["F", "P", "1", "2", "3", "4", "5"]
    await bench.raw("SADD", bench.key("P:dependencies"), "child")
    await bench.raw("ZADD", bench.key("F:unsuccessful"), 1, "child")
    await bench.raw("DEL", bench.keys.lock("2"))
    await bench.raw("LREM", bench.key("active"), 1, "3")
    before = await bench.everything()
    refused = [done("P", "t:2"), done("F", "t"), done("nobody"), done("2", "t:4"), done("4", "wrong")]
    reply = await bench.turn(*refused, done("1", "t:3"), claims=0)
    assert list(reply.codes) == [
        replies.PENDING_CHILDREN,
        replies.FAILED_CHILD,
        replies.MISSING_JOB,
        replies.MISSING_LOCK,
        replies.LOCK_MISMATCH,
        0,
    ]
    after = await bench.everything()
    touched = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert {key for key in touched if "ttl" not in before.get(key, {}) or key not in after} == {
        "bull:q:1", "bull:q:1:lock", "bull:q:active", "bull:q:completed",
    }  # fmt: skip
    assert list((await bench.turn(done("3", "t:5"))).codes) == [replies.WRONG_STATE]
    failing = [gone_wrong("P", "t:2"), gone_wrong("F", "t")]  # what the worker does with them next
    assert list((await bench.turn(*failing)).codes) == [0, 0]


async def test_an_ending_that_stops_the_script_leaves_those_before_it_done(bench: Bench) -> None:
    await bench.add(4)
    await bench.claim(4)
    await bench.raw("DEL", bench.keys.lock("3"))
    await bench.raw("RPUSH", bench.keys.lock("3"), "no text")
    with pytest.raises(DamagedKeyError) as caught:
        await bench.turn(done("1"), done("2", "t:2"), done("3", "t:3"), done("4", "t:4"))
    assert caught.value.stopped_script
    assert await bench.members("completed") == ["1", "2"]
    assert await bench.members("active") == ["4", "3"]


@pytest.mark.parametrize("key", ["P", "P:dependencies", "P:processed", "P:failed", "P:unsuccessful", "wait", "events"])
@pytest.mark.parametrize("end", [done, gone_wrong])
async def test_a_job_whose_parent_is_damaged_stays_active_and_the_others_end(bench: Bench, key: str, end: Callable[..., Ending]) -> None:
    await bench.add_parent("P")
    await bench.add_child("c", "P", fpof=True)
    await bench.add()
    assert await bench.claim(2) == ["c", "2"]
    damaged = f"{bench.prefix}:pq:{key}"
    await bench.raw("DEL", damaged)
    await bench.raw("SET", damaged, "damaged")
    reply = await bench.turn(end("c"), end("2", "t:2"))
    assert list(reply.codes) == [replies.OUTCOME_REFUSED, 0]
    assert damaged in str(reply.details[0])
    assert await bench.members("active") == ["c"]
    assert await bench.raw("GET", bench.keys.lock("c")) == b"t"


@pytest.mark.parametrize("keep", ["", "5,,", "0,,"])
async def test_jobs_stay_active_while_they_can_not_be_put_among_the_finished(bench: Bench, keep: str) -> None:
    await bench.add(2)
    await bench.claim(2)
    await bench.raw("SET", bench.key("completed"), "no sorted set")
    with pytest.raises(DamagedKeyError, match="completed holds a string instead of a zset"):
        await bench.turn(done("1", "t", keep), done("2", "t:2", keep))
    assert await bench.members("active") == ["2", "1"]
    await bench.raw("DEL", bench.key("completed"))
    assert list((await bench.turn(done("1", "t", keep), done("2", "t:2", keep))).codes) == [0, 0]


async def test_what_ends_in_one_turn_is_trimmed_together_by_each_rule(bench: Bench) -> None:
    await bench.add(6)
    await bench.claim(6)
    rules = ["2,,", "2,,", "2,,", "", "", "4,,"]
    reply = await bench.turn(*(done(str(n), "t" if n == 1 else f"t:{n}", keep) for n, keep in enumerate(rules, 1)))
    assert list(reply.codes) == [0] * 6
    assert await bench.members("completed") == ["3", "4", "5", "6"]
    assert not await bench.hash("1")
    assert not await bench.hash("2")


@pytest.mark.parametrize(
    "ending",
    [
        endings.retried("1", "wrong", "boom", STACK, 0, lifo=False),
        endings.retried("1", "wrong", "boom", STACK, 5, lifo=False),
        endings.put_off("1", "wrong", 5),
        endings.put_back("1", "wrong"),
        endings.unknown_name("1", "wrong", "nobody", STACK, "", 0, 5),
        gone_wrong("1", "wrong"),
    ],
    ids=lambda ending: ending[0],
)
async def test_every_ending_checks_the_lock_first(bench: Bench, ending: Ending) -> None:
    await bench.add()
    await bench.claim()
    before = await bench.hash("1")
    assert list((await bench.turn(ending)).codes) == [replies.LOCK_MISMATCH]
    assert (await bench.hash("1"), await bench.members("active")) == (before, ["1"])
    await bench.raw("DEL", bench.keys.lock("1"))
    assert list((await bench.turn(ending)).codes) == [replies.MISSING_LOCK]
    await bench.raw("DEL", bench.key("1"))
    assert list((await bench.turn(ending)).codes) == [replies.MISSING_JOB]
    assert not await bench.raw("EXISTS", bench.key("1"))
    assert await bench.commands.count(["wait", "delayed", "failed", "completed"]) == [0, 0, 0, 0]


async def test_a_retried_job_goes_behind_the_others_of_its_kind(bench: Bench) -> None:
    await bench.add(2)
    await bench.add(2, priority=3)
    reply = await bench.turn(claims=4)
    assert ids(reply) == ["1", "2", "3", "4"]
    await bench.add(2)
    await bench.add(priority=3)
    await bench.turn(
        endings.retried("1", "t", "one", STACK, 0, lifo=False),
        endings.retried("2", "t:2", "two", STACK, 0, lifo=True),
        endings.retried("3", "t:3", "three", STACK, 0, lifo=False),
        endings.put_back("4", "t:4"),
    )
    assert await bench.claim(9) == ["2", "5", "6", "1", "4", "7", "3"]
    assert (await bench.hash("1"))["atm"] == "1"
    assert "atm" not in await bench.hash("4")


async def test_putting_a_prioritized_job_back_rings_for_another_worker(bench: Bench) -> None:
    await bench.add(priority=5)
    await bench.claim()
    await bench.raw("DEL", bench.key("marker"))
    await bench.turn(endings.put_back("1", "t"))
    assert (await bench.members("prioritized"), await bench.marker()) == (["1"], ["0"])


async def test_putting_a_job_back_into_a_paused_queue_rings_nothing(bench: Bench) -> None:
    await bench.add(priority=5)
    await bench.claim()
    await bench.raw("DEL", bench.key("marker"))
    await bench.raw("HSET", bench.key("meta"), "paused", 1)
    await bench.turn(endings.put_back("1", "t"))
    assert (await bench.members("prioritized"), await bench.marker()) == (["1"], [])


async def test_putting_back_what_is_not_active_any_more_leaves_it_where_it_is(bench: Bench) -> None:
    await bench.add()
    await bench.claim()
    await bench.raw("LREM", bench.key("active"), 1, "1")
    assert list((await bench.turn(endings.put_back("1", "t"))).codes) == [0]
    assert await bench.commands.get_state("1") == "unknown"


async def test_a_job_put_off_has_no_attempt_less(bench: Bench) -> None:
    await bench.add(priority=2)
    await bench.claim()
    await bench.turn(endings.put_off("1", "t", 50))
    assert (await bench.events())[-1] == f"delayed 1 delay={T0 + 50}"
    assert "atm" not in await bench.hash("1")
    bench.now += 50
    assert await bench.claim(token="u") == ["1"]


async def test_a_name_that_nobody_handles_is_put_off_five_times_for_twice_as_long_and_then_fails(bench: Bench) -> None:
    await bench.add(name="odd")
    counter = bench.keys.own + "unknown:1"
    for attempt in range(5):
        await bench.claim(token="t")
        await bench.new_events()
        reply = await bench.turn(endings.unknown_name("1", "t", "no handler", STACK, "", 0, 1_000))
        delay = 1_000 * 2**attempt
        assert (list(reply.codes), await bench.new_events()) == ([0], [f"delayed 1 delay={bench.now + delay}"])
        assert await bench.raw("GET", counter) == b"%d" % (attempt + 1)
        assert await bench.raw("PTTL", counter) > 86_000_000
        bench.now += delay
    await bench.claim(token="t")
    await bench.new_events()
    await bench.turn(endings.unknown_name("1", "t", "no handler", STACK, "", 0, 1_000))
    assert await bench.new_events() == ["failed 1 failedReason=no handler prev=active", "retries-exhausted 1 attemptsMade=1", "drained"]
    values = await bench.hash("1")
    assert (values["ats"], values["atm"], values["failedReason"]) == ("6", "1", "no handler")
    assert not await bench.raw("EXISTS", counter)


@pytest.mark.parametrize(("attempts", "is_told"), [(1, True), (3, False)])
async def test_a_name_that_nobody_handles_has_used_up_its_attempts_only_if_it_had_one(bench: Bench, attempts: int, is_told: bool) -> None:
    await bench.add(name="odd")
    await bench.raw("SET", bench.keys.own + "unknown:1", 5)
    await bench.claim()
    reply = await bench.turn(endings.unknown_name("1", "t", "no handler", STACK, "", attempts, 10))
    assert reply.codes == [replies.UNKNOWN_NAME_FAILED]
    assert ("retries-exhausted 1 attemptsMade=1" in await bench.events()) == is_told


@pytest.mark.parametrize(
    "ending",
    [
        endings.retried("1", "t", "boom", STACK, 0, False, "0,,"),
        endings.retried("1", "t", "boom", STACK, 5, False, "0,,"),
        endings.put_off("1", "t", 5, "0,,"),
        endings.put_back("1", "t", None, "0,,"),
        endings.put_back("1", "t", 5_000, "0,,"),
        endings.waiting_for_children("1", "t", "0,,"),
        endings.unknown_name("1", "t", "nobody", STACK, "0,,", 0, 5),
    ],
    ids=["retry", "delay", "put-off", "put-back", "limit", "children", "unknown"],
)
async def test_an_ending_that_finds_its_job_cancelled_says_so_and_obeys_the_keep_rule(bench: Bench, ending: Ending) -> None:
    await bench.add()
    await bench.raw("SADD", bench.key("1:dependencies"), "child")
    await bench.claim()
    await bench.raw("SET", bench.keys.cancellation("1"), "enough")
    await bench.new_events()
    reply = await bench.turn(ending)
    assert (list(reply.codes), dict(reply.details)) == ([replies.ENDED_CANCELLED], {0: b"enough"})
    assert await bench.new_events() == ["failed 1 failedReason=cancelled: enough prev=active", "drained"]
    kept = [key for key in await bench.everything() if ":1" in key or key.startswith("toril:")]
    assert kept == []


async def test_a_job_that_finds_its_handler_after_all_is_forgotten_as_unknown(bench: Bench) -> None:
    await bench.add(name="odd")
    await bench.claim()
    await bench.turn(endings.unknown_name("1", "t", "no handler", STACK, "", 0, 10))
    bench.now += 10
    await bench.claim()
    await bench.turn(done("1"))
    assert [key for key in await bench.everything() if key.startswith("toril:")] == ["toril:bull:q:noted"]


async def test_text_with_lone_surrogates_does_not_stop_a_job_from_ending(bench: Bench) -> None:
    await bench.add(2)
    await bench.claim(2)
    await bench.commands.add_log("1", "no such file: \udcff", 0)
    await bench.turn(
        endings.failed("1", "t", "no such file: \udcff", STACK, "", 0),
        endings.retried("2", "t:2", "\ud800", STACK, 5, lifo=False),
    )
    assert (await bench.hash("1"))["failedReason"] == "no such file: \\udcff"
    assert (await bench.commands.get_logs("1"))[0] == ["no such file: \\udcff"]


async def test_due_jobs_are_promoted_and_rung_for_even_if_none_may_be_claimed(bench: Bench) -> None:
    await bench.add(delay=10)
    await bench.raw("DEL", bench.key("marker"))
    await bench.raw("HSET", bench.key("meta"), "max", 1, "duration", 1_000)
    await bench.raw("SET", bench.key("limiter"), 1, "PX", 60_000)
    bench.now += 10
    assert (await bench.turn(claims=1)).state is ClaimState.LIMITED
    assert (await bench.members("wait"), await bench.marker()) == (["1"], ["0"])


@pytest.mark.parametrize("parent_id", ["P", "a:b:c", "repeat:nightly:1700000000000"])
@pytest.mark.parametrize("queue", ["pq", "q"])
async def test_the_last_child_releases_its_parent_whatever_the_parent_s_id_looks_like(bench: Bench, parent_id: str, queue: str) -> None:
    await bench.add_parent(parent_id, queue)
    await bench.add_child("c1", parent_id, queue)
    await bench.add_child("c2", parent_id, queue, idof=True)
    assert await bench.claim(2) == ["c1", "c2"]
    parents = Bench(bench.server, bench.prefix, queue)
    await bench.turn(done("c1"))
    assert await parents.commands.get_state(parent_id) == "waiting-children"
    await bench.turn(gone_wrong("c2", "t:2"))
    assert await parents.commands.get_state(parent_id) == "wait"
    assert await parents.claim() == [parent_id]
    assert list(await bench.everything()).count(f"bull:{queue}:{parent_id}:failed") == 1


async def test_a_parent_under_another_prefix_is_found_by_what_the_child_says_of_it(bench: Bench) -> None:
    other = Bench(bench.server, f"{bench.prefix}:deep", "pq")
    await other.add_parent("a:b:c")
    await bench.add(job_id="child")
    parent = {"id": "a:b:c", "queueKey": f"{other.prefix}:pq"}
    await bench.raw("HSET", bench.key("child"), "parentKey", other.key("a:b:c"), "parent", json.dumps(parent))
    await bench.raw("SADD", other.key("a:b:c:dependencies"), bench.key("child"))
    await bench.claim()
    await bench.turn(done("child"))
    assert await other.members("wait") == ["a:b:c"]


async def test_a_failed_child_that_is_not_kept_holds_its_parent_up_no_longer(bench: Bench) -> None:
    parents = Bench(bench.server, bench.prefix, "pq")
    await bench.add_parent("P")
    await bench.add_child("C", "P")
    assert await bench.claim() == ["C"]
    reply = await bench.turn(gone_wrong("C", keep=endings.keep_rule(0, None)))
    assert list(reply.codes) == [0]
    assert await parents.members("wait") == ["P"]
    assert await parents.events() == ["waiting P prev=waiting-children"]


async def test_an_ended_job_is_not_suspected_of_having_stalled_any_more(bench: Bench) -> None:
    await bench.add(3)
    await bench.claim(3)
    await bench.sweep()
    assert await bench.raw("SCARD", bench.key("stalled")) == 3
    await bench.turn(done("1"), endings.put_back("2", "t:2"), endings.put_off("3", "t:3", 5))
    assert not await bench.raw("EXISTS", bench.key("stalled"))


@pytest.mark.parametrize("how", ["ending", "sweep"])
async def test_endings_and_sweeps_keep_the_events_stream_short(bench: Bench, how: str) -> None:
    await bench.commands.set_max_events(20)
    await bench.add()
    await bench.claim()
    for _ in range(400):
        await bench.raw("XADD", bench.key("events"), "*", "event", "other")
    await (bench.turn(done("1")) if how == "ending" else bench.sweep())
    assert await bench.raw("XLEN", bench.key("events")) < 200


async def test_nobody_is_told_drained_while_something_is_claimed_due_or_forbidden(bench: Bench) -> None:
    async def drains(*endings: Ending, claims: int) -> bool:
        await bench.new_events()
        await bench.turn(*endings, claims=claims, token="u")
        return "drained" in await bench.new_events()

    await bench.add(2)
    assert await bench.claim(2) == ["1", "2"]
    assert not await drains(done("1"), claims=0)  # the other one is active
    assert await drains(done("2", "t:2"), claims=1)
    assert not await drains(claims=1)  # nothing ended
    await bench.add(delay=10)
    await bench.add()
    await bench.claim()
    assert not await drains(done("4"), claims=1)  # due later
    await bench.add()
    await bench.claim()
    assert await drains(done("5"), claims=0)  # as with Node: delayed jobs do not count where no claim asked
    await bench.add()
    await bench.claim()
    await bench.raw("HSET", bench.key("meta"), "paused", 1)
    assert not await drains(done("6"), claims=1)
    assert not await drains(done("6"), claims=0)  # refused


# ── keep rules ────────────────────────────────────────────────────────────────────────────────────────────────────


async def _finish_each(bench: Bench, count: int, keep: str) -> None:
    for job_id in await bench.add(count):
        await bench.claim()
        await bench.turn(done(job_id, keep=keep))
        bench.now += 1_000


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (endings.keep_rule(None, None), ["1", "2", "3", "4", "5", "6"]),
        (endings.keep_rule(2, None), ["5", "6"]),
        (endings.keep_rule(0, None), []),
        (endings.keep_rule(None, 2_000), ["5", "6"]),  # the fourth is exactly two seconds old
        (endings.keep_rule(3, 60_000), ["4", "5", "6"]),
        (endings.keep_rule(1, 1_500), ["6"]),
    ],
)
async def test_a_keep_rule_decides_which_finished_jobs_stay(bench: Bench, keep: str, kept: list[str]) -> None:
    await _finish_each(bench, 6, keep)
    assert await bench.members("completed") == kept
    assert {key for key in await bench.everything() if key.removeprefix("bull:q:").isdigit()} == {f"bull:q:{job_id}" for job_id in kept}
    assert not any(event.startswith("removed") for event in await bench.events())


async def test_a_keep_rule_by_age_removes_no_more_than_its_limit_at_a_time(bench: Bench) -> None:
    await _finish_each(bench, 5, "")
    bench.now += 60_000
    await _finish_each(bench, 1, endings.keep_rule(None, 10_000, 2))
    assert await bench.members("completed") == ["1", "2", "3", "6"]  # the newest of the old go first


async def test_what_belongs_to_a_finished_job_goes_with_it(bench: Bench) -> None:
    await bench.add(2)
    await bench.claim(2)
    await bench.commands.add_log("1", "row", 0)
    for key in ("dependencies", "processed", "failed", "unsuccessful"):
        command = {"dependencies": ("SADD", "c"), "unsuccessful": ("ZADD", 1, "c")}.get(key, ("HSET", "c", "1"))
        await bench.raw(command[0], bench.key(f"2:{key}"), *command[1:])
    await bench.turn(done("1", keep=endings.keep_rule(0, None)), gone_wrong("2", "t:2", endings.keep_rule(0, None)))
    assert set(await bench.everything()) == {"bull:q:id", "bull:q:meta", "bull:q:marker"}


async def test_a_child_that_a_keep_rule_removes_is_not_waited_for_any_more(bench: Bench) -> None:
    await bench.add_parent("P")
    await bench.add_child("old", "P")
    await bench.claim()
    await bench.turn(gone_wrong("old"))  # without a flag: its parent still waits
    bench.now += 1
    await bench.add(job_id="new")
    await bench.claim()
    await bench.turn(gone_wrong("new", keep=endings.keep_rule(1, None)))
    assert await bench.members("failed") == ["new"]
    parents = Bench(bench.server, bench.prefix, "pq")
    assert await parents.members("wait") == ["P"]
    assert await parents.events() == ["waiting P prev=waiting-children"]
