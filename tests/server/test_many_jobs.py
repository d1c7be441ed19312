"""What is done to many jobs goes on to the last of them, past all that stay and past those that something damaged refuses."""

from __future__ import annotations

import pickle
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, TypeAlias

import pytest

from tests.bench import T0, Bench, done
from tests.proxy import Cut, Proxy, is_script, nth
from toril import JobOptions, Queue, ScheduleRule
from toril.errors import DamagedJobsError
from toril.queues.states import JobState
from toril.wire.bulk_commands import PAGE

OLD: Final = datetime.fromtimestamp(T0 / 1_000 - 7_200, UTC)

Call: TypeAlias = Callable[[Queue], Awaitable[object]]

# ── to the end ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("state", "first", "old", "last"),
    [
        ("delayed", JobOptions(delay="1m"), JobOptions(delay="9h", timestamp=OLD), JobOptions(delay="99h")),
        ("prioritized", JobOptions(priority=1), JobOptions(priority=2, timestamp=OLD), JobOptions(priority=3)),
        ("waiting", JobOptions(), JobOptions(timestamp=OLD), JobOptions()),
    ],
)
async def test_cleaning_goes_on_behind_pages_of_jobs_that_are_too_young(
    queue: Queue, state: JobState, first: JobOptions, old: JobOptions, last: JobOptions
) -> None:
    drafts = [queue.job("young", options=first) for _ in range(PAGE + 100)]
    for place in range(PAGE + 200):
        drafts.append(queue.job("old", options=old))
        if place == PAGE:
            drafts.append(queue.job("young", options=last))
    jobs = await queue.add_many(drafts)
    wanted = [job.id for job in jobs if job.name == "old"]
    assert sorted(await queue.clean("1h", state=state, limit=5)) == sorted(wanted[:5])
    assert sorted(await queue.clean("1h", state=state)) == sorted(wanted[5:])
    assert [job.id for job in await queue.get_jobs(state, ascending=True)] == [job.id for job in jobs if job.name == "young"]
    assert await queue.clean("1h", state=state) == []


async def test_draining_and_cleaning_leave_the_next_run_of_a_schedule_wherever_it_stands(queue: Queue) -> None:
    for name in ("a", "b"):
        await queue.job_schedulers.upsert(name, ScheduleRule(every="1h"))
    await queue.add_many([queue.job("n") for _ in range(PAGE + 10)])
    assert len(await queue.clean("0s", state="waiting")) == PAGE + 10
    await queue.add_many([queue.job("n") for _ in range(PAGE + 10)])
    assert await queue.drain() == PAGE + 10
    assert [job.id for job in await queue.get_waiting()] == [f"repeat:{name}:{T0}" for name in ("a", "b")]


async def test_a_queue_is_obliterated_although_the_last_reply_is_lost(queue: Queue, bench: Bench, proxy: Proxy) -> None:
    await queue.add_many([queue.job("n") for _ in range(3)])
    await bench.raw("SET", bench.keys.own + "noted", 1)
    proxy.decide = nth(1, is_script("obliterate"), Cut.AFTER)
    async with Queue("q", prefix=bench.prefix, url=proxy.url) as behind:
        await behind.obliterate()
    assert proxy.cuts == 1
    assert await bench.everything() == {}


# ── past damage ───────────────────────────────────────────────────────────────────────────────────────────────────


async def _damage(bench: Bench) -> None:
    key = f"{bench.prefix}:pq:damaged:dependencies"
    await bench.raw("DEL", key)
    await bench.raw("SET", key, "?")


async def _add_middle(bench: Bench) -> None:
    """A job that waits for children, and is one of `damaged` itself."""
    await bench.add_child("middle", "damaged")
    await bench.raw("LREM", bench.key("wait"), 1, "middle")
    await bench.raw("ZADD", bench.key("waiting-children"), T0, "middle")


async def _set_up(bench: Bench, state: str) -> None:
    """Jobs of one state, of which `of-damaged` has a parent whose key is damaged, and `below` a parent (of this queue) that has one."""
    await bench.add_parent("damaged", "pq")
    await bench.add_parent("sound", "pq")
    await bench.add(job_id="first")
    await bench.add_child("of-damaged", "damaged")
    await bench.add_child("of-sound", "sound")
    await _add_middle(bench)
    await bench.add_child("below", "middle", "q")
    await bench.add(job_id="last")
    if state == "orphan":
        await bench.raw("DEL", bench.key("wait"))
    elif state != "wait":
        for score, job_id in enumerate(await bench.members("wait")):
            await bench.raw("ZADD", bench.key(state), T0 - score, job_id)
        await bench.raw("DEL", bench.key("wait"))
    await _damage(bench)


@pytest.mark.parametrize(("state", "key"), [("waiting", "wait"), ("failed", "failed")])
async def test_a_limit_counts_no_job_that_is_left_and_passes_by_none_that_can_go(
    queue: Queue, bench: Bench, state: JobState, key: str
) -> None:
    await _set_up(bench, key)
    with pytest.raises(DamagedJobsError) as caught:
        await queue.clean("0s", state=state, limit=2)
    assert ([*caught.value.jobs], caught.value.done) == (["of-damaged"], 2)
    assert [job.id for job in await queue.get_jobs(state, ascending=True)] == ["of-damaged", "below", "last"]


async def _add_family(bench: Bench) -> None:
    """A job with two children, `a` and `b`, all of this queue, and with a parent in another one."""
    await bench.add_parent("damaged", "pq")
    await _add_middle(bench)
    for job_id in ("a", "b"):
        await bench.add_child(job_id, "middle", "q")


async def test_a_child_that_has_ended_goes_whatever_is_damaged_above_the_parent_that_waits_for_another(queue: Queue, bench: Bench) -> None:
    await _add_family(bench)
    assert await bench.claim() == ["a"]
    await bench.turn(done("a"))
    await _damage(bench)
    assert await queue.clean("0s") == ["a"]
    assert await bench.raw("SMEMBERS", bench.key("middle:dependencies")) == [bench.key("b").encode()]
    assert await queue.find_state("middle") == "waiting-children"


async def test_an_orphan_goes_whatever_is_damaged_above_the_parent_that_waits_for_another(queue: Queue, bench: Bench) -> None:
    await _add_family(bench)
    await bench.raw("LREM", bench.key("wait"), 1, "a")
    await _damage(bench)
    assert await queue.remove_orphaned_jobs() == 1
    assert await queue.find_job("a") is None
    assert await bench.raw("SMEMBERS", bench.key("middle:dependencies")) == [bench.key("b").encode()]
    assert await queue.find_state("middle") == "waiting-children"


async def test_a_child_goes_whatever_is_damaged_above_a_parent_that_runs(queue: Queue, bench: Bench) -> None:
    """It has added this child while it ran, and goes on."""
    await _add_family(bench)
    await bench.raw("ZREM", bench.key("waiting-children"), "middle")
    await bench.raw("LPUSH", bench.key("active"), "middle")
    await bench.raw("LREM", bench.key("wait"), 1, "a")
    await bench.raw("SREM", bench.key("middle:dependencies"), bench.key("a"))
    await _damage(bench)
    assert await queue.clean("0s", state="waiting") == ["b"]
    assert await queue.find_state("middle") == "active"


OPERATIONS: Final[dict[str, tuple[str, Call]]] = {
    "clean": ("wait", lambda queue: queue.clean("0s", state="waiting")),
    "drain": ("wait", lambda queue: queue.drain()),
    "retry_jobs": ("failed", lambda queue: queue.retry_jobs()),
    "obliterate": ("wait", lambda queue: queue.obliterate()),
    "remove_orphaned_jobs": ("orphan", lambda queue: queue.remove_orphaned_jobs()),
}


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_jobs_with_a_damaged_parent_are_left_and_named_and_all_others_are_done(queue: Queue, bench: Bench, operation: str) -> None:
    state, call = OPERATIONS[operation]
    await _set_up(bench, state)
    before = await bench.everything()
    with pytest.raises(DamagedJobsError) as caught:
        await call(queue)
    error = caught.value
    # A retry has to do with the parent only, and an orphan goes without its parent; what else is removed may take parents along.
    refused = {"retry_jobs": ["of-damaged"], "remove_orphaned_jobs": ["of-damaged"]}.get(operation, ["of-damaged", "below"])
    if operation == "obliterate":
        refused.append("middle")
    key = f"{bench.prefix}:pq:damaged:dependencies"
    assert error.jobs == dict.fromkeys(refused, f"{key} holds a string instead of a set")
    assert (error.count, error.command, error.target) == (len(refused), operation, "q")
    assert error.problems == (f"{key} holds a string instead of a set",)
    after = await bench.everything()
    places = {"wait": "waiting", "failed": "failed", "orphan": None}
    for job_id in refused:
        assert after[f"bull:q:{job_id}"] == before[f"bull:q:{job_id}"]
        assert await queue.find_state(job_id) == ("waiting-children" if job_id == "middle" else places[state])
    moved = [job_id for job_id in ("first", "of-sound", "last", "below") if job_id not in refused]
    assert error.done == len(moved)
    for job_id in moved:
        assert await queue.find_state(job_id) == ("waiting" if operation == "retry_jobs" else None)

    copy: object = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)

    # And once it is mended:
    await bench.raw("DEL", key)
    await bench.raw("SADD", key, bench.key("of-damaged"), bench.key("middle"))
    await call(queue)
    for job_id in refused:
        assert await queue.find_state(job_id) == ("waiting" if operation == "retry_jobs" else None)
    assert operation != "obliterate" or not [key for key in await bench.everything() if key.startswith(("bull:q:", "toril:bull:q:"))]


@pytest.mark.parametrize("is_listed", [False, True])
async def test_a_parent_whose_key_is_none_of_a_job_holds_only_a_child_that_it_lists(queue: Queue, bench: Bench, is_listed: bool) -> None:
    job = await queue.add("n")
    parent = f"{bench.prefix}-nowhere"  # nobody can tell its queue
    await bench.raw("HSET", queue.keys.job(job.id), "parentKey", parent, "parent", "{")
    await bench.raw("HSET", parent, "name", "n")
    try:
        if not is_listed:
            assert await queue.drain() == 1
            return
        await bench.raw("SADD", f"{parent}:dependencies", queue.keys.job(job.id))
        with pytest.raises(DamagedJobsError, match="nowhere is no key of a job"):
            await queue.drain()
        assert await queue.get_waiting_count() == 1
        await bench.raw("DEL", f"{parent}:dependencies")
        assert await queue.drain() == 1
    finally:
        await bench.raw("DEL", parent, f"{parent}:dependencies")
