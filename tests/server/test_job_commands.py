"""Operations on one job, and lists of jobs."""

from __future__ import annotations

import pytest

from tests.bench import STACK, T0, Bench, error_of
from toril.errors import JobNotFoundError, JobStateError
from toril.wire import endings
from toril.wire.scripts import load


@pytest.mark.parametrize("state", ["wait", "delayed", "prioritized", "completed", "failed", "active", "paused", "waiting-children"])
async def test_a_job_is_removed_from_whatever_holds_it(bench: Bench, state: str) -> None:
    await bench.add(job_id="j")
    await bench.commands.add_log("j", "row", 0)
    await bench.raw("DEL", bench.key("wait"))
    if state in {"wait", "active", "paused"}:
        await bench.raw("LPUSH", bench.key(state), "j")
    else:
        await bench.raw("ZADD", bench.key(state), 1, "j")
    assert await bench.commands.get_state("j") == state
    assert await bench.commands.remove("j")
    assert (await bench.events())[-1] == f"removed j prev={state}"
    assert set(await bench.everything()) == {"bull:q:id", "bull:q:meta", "bull:q:marker"}


async def test_removing_an_unknown_job_counts_as_done_and_tells_nobody(bench: Bench) -> None:
    assert await bench.commands.remove("nobody")
    await bench.raw("LPUSH", bench.key("wait"), "ghost")
    assert await bench.commands.remove("ghost")
    assert await bench.everything() == {}
    assert await bench.events() == []


async def test_removing_forgets_what_we_keep_about_a_job(bench: Bench) -> None:
    await bench.add()
    await bench.claim()
    await bench.turn(endings.unknown_name("1", "t", "no handler", STACK, "", 0, 10))
    await bench.commands.remove("1")
    # That there were notes lately, of no job in particular.
    assert [key for key in await bench.everything() if key.startswith("toril:")] == ["toril:bull:q:noted"]


async def test_a_job_whose_pending_child_is_at_work_is_not_removed(bench: Bench) -> None:
    await bench.add_parent("P", "q")
    await bench.add_parent("child", "q")
    await bench.raw("SADD", bench.key("P:dependencies"), bench.key("child"))
    await bench.add(job_id="grandchild")
    await bench.raw("SADD", bench.key("child:dependencies"), bench.key("grandchild"))
    await bench.claim()
    before = await bench.everything()
    assert not await bench.commands.remove("P")
    assert (await bench.everything()).keys() == before.keys()
    await bench.raw("DEL", bench.keys.lock("grandchild"))
    assert await bench.commands.remove("P")
    removed = [event for event in await bench.events() if event.startswith("removed")]
    assert removed == ["removed grandchild prev=active", "removed child prev=waiting-children", "removed P prev=waiting-children"]


async def test_finished_children_go_with_their_parent_also_those_with_colons_in_their_ids(bench: Bench) -> None:
    await bench.add_parent("P")
    for child, kind in (("a:b:c", "processed"), ("ignored", "failed"), ("fatal", "unsuccessful"), ("left", "dependencies")):
        await bench.add(job_id=child)
        command = {"dependencies": "SADD", "unsuccessful": "ZADD"}.get(kind, "HSET")
        value: list[str | int] = {"SADD": [], "ZADD": [1], "HSET": []}[command] + [bench.key(child)] + (["1"] if command == "HSET" else [])
        await bench.raw(command, f"{bench.prefix}:pq:P:{kind}", *value)
    assert await Bench(bench.server, bench.prefix, "pq").commands.remove("P")
    assert {key for key in await bench.everything() if key.startswith("bull:q:")} == {"bull:q:id", "bull:q:meta", "bull:q:marker"}
    removed = [event for event in await bench.events() if event.startswith("removed")]
    assert removed == [f"removed {child} prev=wait" for child in ("a:b:c", "ignored", "fatal", "left")]


async def test_children_that_name_each_other_do_not_hang_the_server(bench: Bench) -> None:
    for one, other in (("x", "y"), ("y", "x")):
        await bench.add(job_id=one)
        await bench.raw("SADD", bench.key(f"{one}:dependencies"), bench.key(other))
    assert await bench.commands.remove("x")
    assert await bench.commands.count(["wait"]) == [0]


async def test_removing_a_job_frees_its_deduplication_id_only_if_it_holds_it(bench: Bench) -> None:
    await bench.add(2)
    for job_id in "12":
        await bench.raw("HSET", bench.key(job_id), "deid", "once")
    await bench.raw("SET", bench.key("de:once"), "2")
    await bench.raw("HSET", bench.key("dn:once"), "name", "next")
    await bench.commands.remove("1")
    assert await bench.raw("EXISTS", bench.key("de:once"), bench.key("dn:once")) == 2
    await bench.commands.remove("2")
    assert await bench.raw("EXISTS", bench.key("de:once"), bench.key("dn:once")) == 0


async def test_the_pending_iteration_of_a_schedule_cannot_be_removed(bench: Bench) -> None:
    job_id = f"repeat:nightly:{T0}"
    await bench.add(job_id=job_id)
    await bench.raw("HSET", bench.key(job_id), "rjk", "nightly")
    await bench.raw("ZADD", bench.key("repeat"), T0, "nightly")
    with pytest.raises(JobStateError, match="pending iteration of a job scheduler"):
        await bench.commands.remove(job_id)
    await bench.raw("ZADD", bench.key("repeat"), T0 + 1, "nightly")
    assert await bench.commands.remove(job_id)


async def test_no_operation_mistakes_a_key_of_the_queue_for_a_job(bench: Bench) -> None:
    await bench.add()
    before = await bench.everything()
    for name in ("meta", "wait", "id"):
        for call in (
            bench.commands.remove(name),
            bench.commands.update_data(name, b"1"),
            bench.commands.update_progress(name, b"1"),
            bench.commands.add_log(name, "row", 0),
        ):
            assert isinstance(await error_of(call), JobNotFoundError)
        assert await bench.commands.find_job(name) is None
    assert await bench.everything() == before


async def test_what_needs_a_job_says_that_there_is_none_and_makes_none(bench: Bench) -> None:
    for call in (
        bench.commands.update_data("7", b"1"),
        bench.commands.update_progress("7", b"1"),
        bench.commands.add_log("7", "row", 0),
    ):
        error = await error_of(call)
        assert isinstance(error, JobNotFoundError)
        assert (error.job_id, error.queue) == ("7", "q")
    assert await bench.everything() == {}


async def test_the_state_is_looked_for_in_nodes_order(bench: Bench) -> None:
    order = ["completed", "failed", "delayed", "prioritized", "active", "wait", "paused", "waiting-children"]
    for state in order:
        if state in {"active", "wait", "paused"}:
            await bench.raw("LPUSH", bench.key(state), "j")
        else:
            await bench.raw("ZADD", bench.key(state), 1, "j")
    for state in order:
        assert await bench.commands.get_state("j") == state
        await bench.raw("DEL", bench.key(state))
    assert await bench.commands.get_state("j") == "unknown"


async def test_counts_of_all_states_come_together(bench: Bench) -> None:
    await bench.add(3)
    await bench.add(2, delay=5)
    await bench.add(priority=1)
    await bench.claim()
    states = ["wait", "paused", "active", "prioritized", "delayed", "waiting-children", "completed", "failed"]
    assert await bench.commands.count(states) == [2, 0, 1, 1, 2, 0, 0, 0]


async def test_a_log_keeps_its_newest_rows_and_is_read_from_either_end(bench: Bench) -> None:
    await bench.add()
    for number in range(5):
        assert await bench.commands.add_log("1", f"row {number}", 0) == number + 1
    logs = bench.commands.get_logs
    assert await logs("1") == ([f"row {number}" for number in range(5)], 5)
    assert await logs("1", 1, 2) == (["row 1", "row 2"], 5)
    assert await logs("1", ascending=False) == ([f"row {number}" for number in (4, 3, 2, 1, 0)], 5)
    assert await logs("1", 0, 1, ascending=False) == (["row 4", "row 3"], 5)
    assert await bench.commands.add_log("1", "row 5", 2) == 2
    assert await logs("1") == (["row 4", "row 5"], 2)
    assert await logs("nobody") == ([], 0)


async def test_ids_of_a_state_are_listed_from_either_end(bench: Bench) -> None:
    await bench.add(5)
    listed = bench.commands.list_ids
    assert await listed("wait", 0, -1, ascending=True) == ["1", "2", "3", "4", "5"]
    assert await listed("wait", 1, 2, ascending=True) == ["2", "3"]
    assert await listed("wait", -2, -1, ascending=True) == ["4", "5"]
    assert await listed("wait", 0, 1, ascending=False) == ["5", "4"]
    await bench.add(3, delay=5)
    assert await listed("delayed", 0, 1, ascending=True) == ["6", "7"]
    assert await listed("delayed", 0, 1, ascending=False) == ["8", "7"]
    assert await listed("failed", 0, -1, ascending=True) == []


async def test_jobs_are_found_in_the_order_of_their_ids_and_none_where_there_is_none(bench: Bench) -> None:
    await bench.add(1_200)
    await bench.raw("SET", bench.key("text"), "not a hash")
    await bench.raw("HSET", bench.key("nameless"), "data", "{}")
    wanted = ["text", "5", "nobody", "nameless", *map(str, range(1_200, 0, -1))]
    found = await bench.commands.find_jobs(wanted)
    assert [record and record.job_id for record in found] == [None, "5", None, None, *wanted[4:]]
    assert await bench.commands.find_jobs([]) == []


async def test_a_finished_job_is_read_whole(bench: Bench) -> None:
    await bench.add(name="é")
    await bench.turn(claims=1, worker_name="alpha")
    await bench.commands.update_progress("1", b'{"p":1}')
    bench.now += 5
    await bench.turn(endings.failed("1", "t", "böse", STACK, "", 0))
    record = await bench.commands.find_job("1")
    assert record is not None
    assert (record.name, record.progress, record.failed_reason, record.stack_trace) == ("é", b'{"p":1}', "böse", STACK)
    assert (record.processed_by, record.processed_at_ms, record.finished_at_ms) == ("alpha", T0, T0 + 5)
    assert (record.attempts_made, record.attempts_started, record.return_value) == (1, 1, None)


async def test_a_lock_of_a_wrong_type_does_not_cost_the_others_theirs(bench: Bench) -> None:
    await bench.add(2)
    reply = await bench.turn(claims=2, lock_ms=5_000)
    (first_token, first), (second_token, second) = reply.claimed
    await bench.raw("DEL", bench.keys.lock(first.job_id))
    await bench.raw("RPUSH", bench.keys.lock(first.job_id), "no lock")
    lost = await bench.server.commands.run(
        load("renew_locks"), [bench.keys.base, bench.keys.own], 60_000, first.job_id, first_token, second.job_id, second_token
    )
    assert lost == [first.job_id.encode(), -6]
    assert await bench.raw("PTTL", bench.keys.lock(second.job_id)) > 50_000
