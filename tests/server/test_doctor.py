"""Each check of the doctor: finds what is wrong, and nothing where all is well."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cli.command import Cli
from tests.servers import OwnServer, documented_rules, free_ports, one_server
from tests.support import ask, eventually_now
from toril import Job, JobOptions, Queue, QueueEvents, ScheduleRule, Worker, WorkerOptions
from toril.clock import SystemClock
from toril.doctor import clocks, jobs, key_space, schedules, server, standstill, workers
from toril.doctor.examination import examine
from toril.doctor.findings import Finding, Severity
from toril.doctor.workforce import Workforce, read_workforce
from toril.queues.manifests import WorkerManifest, read_manifest
from toril.testing import eventually
from toril.wire.connection import Server
from toril.wire.keys import QueueKeys
from toril.wire.scheduler_commands import SchedulerCommands

MINUTE_MS: Final = 60_000
OK, INFO, WARNING, ERROR = Severity
NOBODY: Final = Workforce((), ())
NOBODY_TOLD: Final = Workforce([], [])
HOST_1: Final = WorkerManifest(
    id="w", name="host-1", host="host", pid=1, version="", handlers=[], handles_all=True, concurrency=5,
    started_at_ms=0, seen_at_ms=0, clock_off_ms=0, blocked_ms=0,
)  # fmt: skip


class OffClock(SystemClock):
    """A clock that is wrong."""

    def __init__(self, ahead_ms: int) -> None:
        super().__init__()
        self.ahead_ms = ahead_ms

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


@pytest.fixture
async def queue(server: Server, prefix: str) -> AsyncIterator[Queue]:
    async with Queue("emails", prefix=prefix, server=server) as queue:
        yield queue


@pytest.fixture
def later(server: Server, prefix: str) -> Queue:
    """The same queue, seen an hour later."""
    return Queue("emails", prefix=prefix, server=server, clock=OffClock(60 * MINUTE_MS))


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[OwnServer]:
    [port] = free_ports(1)
    async with one_server(tmp_path / "s", port=port) as own:
        yield own


def only(findings: Sequence[Finding], severity: Severity, *words: str) -> Finding:
    [found] = findings
    assert found.severity is severity, found
    for word in words:
        assert word in found.text, found
    assert (found.fix is not None) or severity <= INFO
    return found


async def facts_of(own: OwnServer, clock: SystemClock | None = None) -> server.ServerFacts:
    async with Server(own.url) as at:
        return await server.read_facts(at.commands, clock or SystemClock())


async def raw(queue: Queue, *command: str | int) -> Any:  # noqa: ANN401 -- a reply can be anything
    return await queue.server.commands_of(queue.keys).call(*command)


async def nothing(job: Job[Any, Any]) -> None: ...


# ── the server ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_sound_server_is_in_order(own: OwnServer) -> None:
    facts = await facts_of(own)
    for check in (server.check_persistence, server.check_eviction, server.check_memory, server.check_clock, server.check_latency):
        only(check(facts), OK)
    assert only(server.check_version(facts), OK).facts["redis_version"][0].isdigit()


async def test_a_server_that_keeps_nothing_is_told(own: OwnServer) -> None:
    await own.ask("CONFIG", "SET", "appendonly", "no")
    only(server.check_persistence(await facts_of(own)), WARNING, "loses all jobs")
    await own.ask("CONFIG", "SET", "save", "3600 1")
    await own.ask("SET", "a", "1")
    only(server.check_persistence(await facts_of(own)), WARNING, "since the last snapshot")


async def test_a_user_who_may_not_ask_for_the_configuration_is_no_reason_to_fail(own: OwnServer) -> None:
    await own.ask("CONFIG", "SET", "appendonly", "no")
    await own.ask("ACL", "SETUSER", "some", "on", ">s3cret", "~*", "&*", "+@all", "-config")
    own.url = own.url.replace("//", "//some:s3cret@")
    only(server.check_persistence(await facts_of(own)), WARNING, "may not CONFIG GET")


async def test_an_evicting_server_is_told_before_and_after_it_has_evicted(own: OwnServer) -> None:
    await own.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    only(server.check_eviction(await facts_of(own)), WARNING, "if it had a limit")
    await own.ask("CONFIG", "SET", "maxmemory", "4mb")
    only(server.check_eviction(await facts_of(own)), ERROR, "once its 4.19 MB are full")
    for number in range(80):
        await own.ask("SET", f"k{number}", "x" * 100_000)
    found = only(server.check_eviction(await facts_of(own)), ERROR, "has thrown away")
    assert found.facts["evicted_keys"] > 0
    await own.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    only(server.check_eviction(await facts_of(own)), WARNING, "doesn't any more")


async def test_a_server_without_head_room_is_told(own: OwnServer) -> None:
    used = (await facts_of(own)).number("used_memory")
    for share, severity in ((0.95, ERROR), (0.8, WARNING), (0.5, OK)):
        await own.ask("CONFIG", "SET", "maxmemory", int(used / share))
        only(server.check_memory(await facts_of(own)), severity, "of its limit")


@pytest.mark.parametrize(("ahead_ms", "severity", "word"), [(-65_000, ERROR, "ahead of"), (5_000, WARNING, "behind"), (300, OK, "agrees")])
async def test_a_wrong_clock_here_is_told(own: OwnServer, ahead_ms: int, severity: Severity, word: str) -> None:
    only(server.check_clock(await facts_of(own, OffClock(ahead_ms))), severity, word)


def test_a_slow_server_is_told() -> None:
    def after(round_trip_ms: float) -> list[Finding]:
        return server.check_latency(server.ServerFacts({}, None, 0, round_trip_ms))

    only(after(0.4), OK, "0.4 ms")
    only(after(50), WARNING, "50 ms")
    only(after(800), ERROR)


async def test_what_a_user_may_not_do_is_told(own: OwnServer) -> None:
    keys = QueueKeys("bull", "any")
    await own.ask("ACL", "SETUSER", "some", "on", ">s3cret", "~bull:*", "~toril:bull:*", "&*", "+@all", "-xadd", "-zadd")
    async with Server(own.url.replace("//", "//some:s3cret@")) as at:
        found = only(await server.check_permissions(at, keys), ERROR, "xadd", "zadd")
    assert sorted(found.facts["denied"]) == ["xadd", "zadd"]
    assert "~bull:*" in (found.fix or "")
    async with Server(own.url) as at:
        only(await server.check_permissions(at, keys), OK)
    assert await own.ask("DBSIZE") == 0


# ── what holds jobs back ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_forgotten_pause_is_told_with_its_age(queue: Queue, later: Queue) -> None:
    only(await standstill.check_pause(queue, await standstill.read_waiting(queue)), OK)
    await queue.pause()
    only(await standstill.check_pause(queue, await standstill.read_waiting(queue)), WARNING, "0 jobs wait")
    await queue.add("welcome")
    found = only(
        await standstill.check_pause(later, await standstill.read_waiting(later)), ERROR, "for 1h", "1 job waits, the oldest for 1h"
    )
    assert "toril queue resume emails" in (found.fix or "")
    assert found.facts["waiting"] == 1


async def test_a_rate_limit_that_outlives_its_reason_is_told(queue: Queue, later: Queue) -> None:
    await queue.set_global_rate_limit(1, "1h")
    await queue.add_many([queue.job("welcome") for _ in range(3)])
    only(await standstill.check_rate_limit(queue, await standstill.read_waiting(queue)), INFO, "1 job may start in 1h")
    found = only(await standstill.check_rate_limit(later, await standstill.read_waiting(later)), ERROR, "need 3h")
    assert "--rate none" in (found.fix or "")


async def test_claiming_that_was_stopped_by_hand_is_told(queue: Queue) -> None:
    await queue.add("welcome")
    only(await standstill.check_rate_limit(queue, await standstill.read_waiting(queue)), OK)
    await queue.rate_limit("2h")
    found = only(await standstill.check_rate_limit(queue, await standstill.read_waiting(queue)), ERROR, "by hand")
    assert 7_190_000 < found.facts["limited_for_ms"] <= 7_200_000


async def test_a_global_concurrency_that_holds_jobs_back_is_told(queue: Queue, later: Queue) -> None:
    await queue.set_global_concurrency(1)
    await queue.add_many([queue.job("welcome") for _ in range(3)])
    only(await standstill.check_concurrency(queue, await standstill.read_waiting(queue)), INFO, "1 job may run")
    await raw(queue, "RPOPLPUSH", queue.keys.state("wait"), queue.keys.state("active"))
    only(await standstill.check_concurrency(later, await standstill.read_waiting(later)), WARNING, "and so many do; 2 jobs wait")


async def test_jobs_without_a_worker_are_told(queue: Queue, later: Queue) -> None:
    await queue.add("reminder", delay="30m")
    only(await workers.check_workers(queue, await standstill.read_waiting(queue), NOBODY), OK, "nothing to do")
    waiting = await standstill.read_waiting(later)
    only(await workers.check_workers(later, waiting, NOBODY), ERROR, "no worker", "the time of delayed jobs has come")
    await queue.add("welcome")
    waiting = await standstill.read_waiting(later)
    only(await workers.check_workers(later, waiting, NOBODY), ERROR, "no worker", "1 job waits, the oldest for 1h")
    async with QueueEvents("emails", prefix=queue.prefix, server=queue.server):  # reads, and works on nothing
        assert not await queue.get_workers()


async def test_workers_that_do_not_claim_are_told(queue: Queue, later: Queue) -> None:
    worker = Worker(Queue("emails", prefix=queue.prefix, server=queue.server), {"other": nothing}, WorkerOptions(name="w-1"))
    async with worker:
        await queue.pause()  # nothing is claimed, and the job is there as it would be for a worker that hangs
        await queue.add("welcome")
        there = await read_workforce(queue)
        waiting = await standstill.read_waiting(later)
        only(await workers.check_claiming(later, waiting, there), OK)  # the pause tells enough
        await raw(queue, "HDEL", queue.keys.meta, "paused")  # without ringing
        found = only(await workers.check_claiming(later, waiting, there), WARNING, "w-1", "1 job waits")
        assert "if a rate limit was lifted just now, nothing" in (found.fix or "")  # such workers sleep, and are well


async def test_names_that_no_running_worker_handles_are_told(queue: Queue, server: Server) -> None:
    only(await workers.check_handlers(queue, NOBODY), OK)  # that nobody is there is told elsewhere
    worker = Worker(Queue("emails", prefix=queue.prefix, server=server), {"welcome": nothing, "digest": nothing})
    async with worker:
        only(await workers.check_handlers(queue, await read_workforce(queue)), OK)
        await queue.pause()
        await queue.add_many(
            [queue.job("invoice"), queue.job("welcome"), queue.job("invoice", delay="1h"), queue.job("refund", priority=1)]
        )
        found = only(
            await workers.check_handlers(queue, await read_workforce(queue)),
            ERROR,
            "'invoice' (2 jobs)",
            "they handle 'digest', 'welcome'",
        )
        assert found.facts["unhandled"] == {"invoice": 2, "refund": 1}
    async with Worker(Queue("emails", prefix=queue.prefix, server=server), nothing):  # handles every name
        only(await workers.check_handlers(queue, await read_workforce(queue)), OK)


async def test_what_a_killed_worker_has_told_counts_no_more(queue: Queue) -> None:
    there = replace(HOST_1, name="host 1", seen_at_ms=SystemClock().now_ms(), blocked_ms=9_000)
    await raw(queue, "HSET", queue.keys.workers, "w", there.text().decode())
    assert await read_workforce(queue) == NOBODY_TOLD
    connection = queue.server.connection(queue.keys, queue.keys.client_name("host 1"))
    await connection.connect()
    assert (await read_workforce(queue)).manifests == [there]
    await connection.aclose()


@pytest.mark.blocks_the_loop
async def test_a_handler_that_blocks_the_event_loop_is_told(queue: Queue, toril_server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop is blocked until the server knows of it, as somebody else's program sees."""
    monkeypatch.setattr("toril.worker.presence.REFRESH_S", 0)

    async def blocks(job: Job[Any, Any]) -> None:
        eventually_now(is_noted)

    def is_noted() -> None:
        [text] = ask(toril_server_url, "HVALS", queue.keys.workers)
        assert json.loads(text)["blockedFor"] > 0
        seen.append(text)

    seen: list[bytes] = []
    options = WorkerOptions(loop_block_warning="100ms", name="w-1")
    async with Worker(Queue("emails", prefix=queue.prefix, server=queue.server), {"render": blocks}, options) as worker:
        await (await queue.add("render")).result(timeout="20s")
        manifest = read_manifest(worker.id, seen[-1])
        assert manifest is not None
        found = only(await workers.check_blocked(queue, Workforce((), [manifest])), ERROR, f"process {os.getpid()} on")
        assert found.facts["jobs"] == []  # it has ended by now
        assert f"kill {os.getpid()}" in (found.fix or "")
        only(await workers.check_blocked(queue, NOBODY), OK)


async def test_workers_that_are_all_busy_are_told(queue: Queue, later: Queue, server: Server) -> None:
    hold = asyncio.Event()

    async def holds(job: Job[Any, Any]) -> None:
        await hold.wait()

    async with Worker(Queue("emails", prefix=queue.prefix, server=server), {"render": holds}, WorkerOptions(concurrency=1)):
        await queue.add_many([queue.job("render") for _ in range(3)])
        await eventually(lambda: assert_active(queue, 1))
        found = await workers.check_claiming(later, await standstill.read_waiting(later), await read_workforce(queue))
        assert only(found, WARNING, "all 1 slots", "2 jobs wait").facts["slots"] == 1
        hold.set()
        await eventually(lambda: assert_active(queue, 0))


async def assert_active(queue: Queue, count: int) -> None:
    assert await queue.get_active_count() == count


# ── jobs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def claimed(queue: Queue, *, locked: bool = True) -> Job:
    """A job that a worker has taken, and what is left of it when that worker has died."""
    job = await queue.add("render", {"n": 1})
    await raw(queue, "LREM", queue.keys.state("wait"), 1, job.id)
    await raw(queue, "LPUSH", queue.keys.state("active"), job.id)
    await raw(queue, "HSET", queue.keys.job(job.id), "processedOn", SystemClock().now_ms(), "pb", "host-1", "ats", 1)
    if locked:
        await raw(queue, "SET", queue.keys.lock(job.id), "token")
    return job


async def test_active_jobs_without_a_lock_are_told(queue: Queue) -> None:
    await claimed(queue)
    only(await jobs.check_locks(queue, NOBODY), OK)
    lost = await claimed(queue, locked=False)
    found = only(await jobs.check_locks(queue, NOBODY), ERROR, "1 job active without a lock")
    assert found.facts["jobs"] == [lost.id]


async def test_jobs_that_run_for_long_are_told(queue: Queue, later: Queue) -> None:
    job = await claimed(queue)
    only(await jobs.check_running(queue, NOBODY), OK)
    found = only(await jobs.check_running(later, NOBODY), INFO, "1 job running for more than 10m", "'render' for 1h on host-1")
    assert found.facts["jobs"][0]["id"] == job.id
    blocked = Workforce((), [replace(HOST_1, blocked_ms=9_000)])
    only(await jobs.check_running(later, blocked), OK)  # it would hear no cancelling, and is told as blocked
    assert f"toril job rm emails {job.id}, or" in (only(await workers.check_blocked(later, blocked), ERROR).fix or "")
    await raw(queue, "DEL", queue.keys.lock(job.id))
    only(await jobs.check_running(later, NOBODY), OK)  # nobody runs it


async def test_a_job_that_kills_its_workers_is_told(queue: Queue, server: Server) -> None:
    only(await jobs.check_poison(queue), OK)
    job = await claimed(queue, locked=False)
    now_ms = SystemClock().now_ms()
    for _ in range(2):  # what a worker's sweep does; the first one only notes what is active
        await raw(queue, "DEL", queue.keys.stalled_check)
        await queue.commands.sweep_stalled(now_ms, 1, 0)
    only(await jobs.check_poison(queue), INFO, "1 job lost the worker", "'render'")
    async with Worker(Queue("emails", prefix=queue.prefix, server=server), {"render": nothing}):
        await eventually(lambda: assert_failed(queue, job))
    found = only(await jobs.check_poison(queue), ERROR, "1 job given up", f"ids {job.id}")
    assert found.facts["given_up"] == [job.id]


async def assert_failed(queue: Queue, job: Job) -> None:
    assert await queue.find_state(job.id) == "failed"


async def test_dead_letters_are_told_by_their_causes(server: Server, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(job: Job[Any, Any]) -> None:
        raise ConnectionError(f"no mail server at {job.data}")

    options = JobOptions(attempts=1)
    async with Queue("emails", prefix=prefix, server=server, dead_letter="letters", default_job_options=options) as emails:
        letters = emails.letters
        assert letters is not None
        await letters.open()
        assert await jobs.check_dead_letters(letters) == []
        async with Worker(emails, {"welcome": fails}):
            await emails.add_many([emails.job("welcome", "mx1") for _ in range(3)])
            await eventually(lambda: assert_count(letters, 3))
        only(await workers.check_workers(letters, await standstill.read_waiting(letters), NOBODY), OK, "dead letters")
        found = only(await jobs.check_dead_letters(letters), INFO, "3 dead letters", "3 × 'welcome' of emails: no mail server at mx1")
        assert found.facts["causes"] == [{"queue": "emails", "name": "welcome", "message": "no mail server at mx1", "count": 3}]
        monkeypatch.setattr(jobs, "MANY_LETTERS", 3)
        only(await jobs.check_dead_letters(letters), WARNING, "3 dead letters")


async def assert_count(queue: Queue, count: int) -> None:
    assert await queue.get_waiting_count() == count


# ── schedules ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_schedule_without_a_next_run_is_told(queue: Queue, later: Queue) -> None:
    assert await schedules.check_schedules(queue) == []
    await queue.job_schedulers.upsert("nightly", ScheduleRule(pattern="0 3 * * *"), name="report")
    await queue.job_schedulers.upsert("often", ScheduleRule(every="1m"), name="report")
    only(await schedules.check_schedules(queue), OK, "2 with a next run")
    only(await schedules.check_schedules(later), WARNING, "overdue: often by 1h")
    nightly = await queue.job_schedulers.get("nightly")
    await raw(queue, "ZREM", queue.keys.state("delayed"), f"repeat:nightly:{nightly.next_ms}")
    await raw(queue, "DEL", queue.keys.job(f"repeat:nightly:{nightly.next_ms}"))
    found = only(await schedules.check_schedules(queue), ERROR, "nightly")
    assert found.facts["without_next_run"] == ["nightly"]


async def test_a_schedule_that_has_come_to_its_end_is_no_trouble(queue: Queue) -> None:
    await queue.job_schedulers.upsert("once", ScheduleRule(every="1m", limit=1), name="report")
    once = await queue.job_schedulers.get("once")
    await raw(queue, "DEL", queue.keys.job(f"repeat:once:{once.next_ms}"))
    await raw(queue, "LREM", queue.keys.state("wait"), 0, f"repeat:once:{once.next_ms}")
    only(await schedules.check_schedules(queue), OK)


async def test_a_schedule_that_an_application_declares_and_the_server_lacks_is_told(queue: Queue, server: Server) -> None:
    commands = SchedulerCommands(server, queue.keys)
    await commands.note_added("app.main:AppModule", "nightly", b"{}")
    owners = await key_space.schedule_owners(server, queue.prefix)
    assert owners == {"emails": ["app.main:AppModule"]}
    found = only(await schedules.check_schedules(queue, owners["emails"]), ERROR, "declared by app.main:AppModule", "nightly")
    assert found.facts["vanished"] == ["nightly"]
    await queue.job_schedulers.upsert("nightly", ScheduleRule(pattern="0 3 * * *"), name="report")
    only(await schedules.check_schedules(queue, owners["emails"]), OK)
    await queue.job_schedulers.pause("nightly")
    found = only(await schedules.check_schedules(queue, owners["emails"]), INFO, "paused by somebody: nightly")
    assert "toril schedule resume emails" in (found.fix or "")


# ── clocks ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_worker_with_a_wrong_clock_is_told_while_it_is_there(server: Server, prefix: str) -> None:
    def seen_by(ahead_ms: int) -> Queue:
        return Queue("emails", prefix=prefix, server=server, clock=OffClock(ahead_ms))

    queue = seen_by(0)
    assert await clocks.check_clocks_of_work(queue, await read_workforce(queue)) == []
    async with Worker(seen_by(0), {"welcome": nothing}, WorkerOptions(name="right-1")):
        only(await clocks.check_clocks_of_work(queue, await read_workforce(queue)), OK)
        async with Worker(seen_by(-MINUTE_MS), {"welcome": nothing}, WorkerOptions(name="wrong-1")):
            found = only(
                await clocks.check_clocks_of_work(queue, await read_workforce(queue)),
                ERROR,
                "worker wrong-1 (process",
                "behind",
                "too late",
            )
            assert abs(found.facts["ahead_ms"] + MINUTE_MS) < 2_000
        only(await clocks.check_clocks_of_work(queue, await read_workforce(queue)), OK)


async def test_a_producer_and_a_worker_that_tells_nothing_are_known_by_what_they_have_done(server: Server, prefix: str) -> None:
    def seen_by(ahead_ms: int) -> Queue:
        return Queue("emails", prefix=prefix, server=server, clock=OffClock(ahead_ms))

    queue = seen_by(0)
    async with Worker(seen_by(MINUTE_MS), {"welcome": nothing}, WorkerOptions(name="node-1")):
        await (await seen_by(5_000).add("welcome")).result(timeout="5s")
        silent = Workforce(await queue.get_workers(), ())  # as one of Node's would be
    producers, worker = await clocks.check_clocks_of_work(queue, silent)
    assert (worker.severity, worker.facts["who"]) == (ERROR, "worker node-1")
    assert "ahead of" in worker.text
    assert "too early" in worker.text
    assert (producers.severity, producers.facts["who"]) == (WARNING, "producers")
    assert [one.facts["who"] for one in await clocks.check_clocks_of_work(queue, NOBODY)] == ["producers"]  # that worker is gone


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_keys_without_an_owner_are_told(queue: Queue, server: Server, prefix: str) -> None:
    kept = [await queue.add("welcome"), await queue.add("welcome", delay="1h"), await claimed(queue)]
    await queue.job_schedulers.upsert("nightly", ScheduleRule(pattern="0 3 * * *"), name="report")
    await kept[0].log("a row")
    only(await key_space.check_keys(server, prefix, [queue], are_all=True), OK)
    orphan = await queue.add("welcome")
    await raw(queue, "LREM", queue.keys.state("wait"), 1, orphan.id)
    await raw(queue, "SET", queue.keys.lock(kept[0].id), "token")
    await raw(queue, "RPUSH", queue.keys.logs("gone"), "a row")
    orphans, locks, leftovers = await key_space.check_keys(server, prefix, [queue], are_all=True)
    assert (orphans.severity, orphans.facts["orphans"]) == (WARNING, [orphan.id])
    assert (locks.severity, locks.facts["locks"]) == (INFO, [kept[0].id])
    assert (leftovers.severity, leftovers.facts["leftovers"]) == (INFO, ["gone"])
    assert await queue.remove_orphaned_jobs() == 1


async def test_a_queue_whose_settings_are_gone_is_told(queue: Queue, server: Server, prefix: str) -> None:
    await queue.add("welcome")
    found = only(await key_space.check_keys(server, prefix, [], are_all=True), WARNING, "emails")
    assert found.facts["queues"] == ["emails"]
    assert await key_space.check_keys(server, prefix, [], are_all=False) == []


# ── all of them ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_examination_changes_nothing_but_its_own_probe(server: Server, prefix: str, queue: Queue) -> None:
    await queue.add("welcome")
    await claimed(queue, locked=False)
    before = await everything(queue)
    found = [one async for one in examine(server, prefix, [queue], SystemClock(), are_all=True)]
    assert await everything(queue) == before
    assert {one.check for one in found} >= {"version", "permissions", "pause", "workers", "locks", "poison", "keys", "clocks"}
    assert [one.check for one in found if one.severity is ERROR] == ["workers", "locks"]


async def everything(queue: Queue) -> dict[str, Any]:
    names = [key async for key in keys_of(queue)]
    return {name: await raw(queue, "DUMP", name) for name in sorted(names)}


async def keys_of(queue: Queue) -> AsyncIterator[str]:
    for name in await raw(queue, "KEYS", f"*{queue.prefix}*"):
        yield name.decode()


async def test_a_damaged_queue_is_a_finding_and_keeps_no_other_from_being_looked_at(server: Server, prefix: str, queue: Queue) -> None:
    async with Queue("other", prefix=prefix, server=server) as other:
        await raw(queue, "SET", queue.keys.state("wait"), "text")
        await other.add("welcome")
        found = [one async for one in examine(server, prefix, [queue, other], SystemClock(), are_all=True)]
    assert "holds a string instead of a list" in next(one for one in found if one.queue == "emails" and one.check == "damage").text
    assert [one.check for one in found if one.queue == "other" and one.severity is ERROR] == ["workers"]


async def test_a_database_with_too_many_keys_is_gone_through_only_if_asked(
    server: Server, prefix: str, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toril.doctor.examination.MOST_KEYS", 0)
    await queue.add("welcome")
    by_check = {one.check: one async for one in examine(server, prefix, [queue], SystemClock(), are_all=True)}
    assert "were not gone through" in by_check["keys"].text
    by_check = {one.check: one async for one in examine(server, prefix, [queue], SystemClock(), are_all=True, all_keys=True)}
    assert by_check["keys"].severity is OK


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_command_tells_what_and_how_to_mend_it_the_worst_first(own: OwnServer, tmp_path: Path) -> None:
    cli = Cli(tmp_path, {"REDIS_URL": own.url})
    done = await cli("doctor")
    assert done.out == "7 ok (--all shows what is ok)\n"
    assert len((await cli("doctor", "--all")).out.splitlines()) == 8
    async with Server(own.url) as at, Queue("emails", server=at) as queue:
        await queue.add("welcome")
        await queue.set_global_rate_limit(10, "1s")
    told = (await cli("doctor", code=1)).out.splitlines()
    assert told[0].startswith("error    emails: workers: no worker is connected; 1 job waits")
    assert told[1].startswith("         fix: start one: toril worker")
    assert told[2].startswith("info     emails: rate-limit: at most 10 jobs")
    document = await cli.json("doctor", "emails", code=1)
    assert (document["worst"], document["prefix"], document["queues"]) == ("error", "bull", ["emails"])
    [error] = [one for one in document["findings"] if one["severity"] == "error"]
    assert set(error) == {"check", "severity", "queue", "text", "fix", "facts"}
    assert (error["check"], error["queue"], error["facts"]["waiting"]) == ("workers", "emails", 1)


async def test_the_exit_code_follows_the_severity_that_was_asked_for(own: OwnServer, tmp_path: Path) -> None:
    cli = Cli(tmp_path, {"REDIS_URL": own.url})
    await own.ask("CONFIG", "SET", "appendonly", "no")
    await cli("doctor")
    await cli("doctor", "--fail-on", "warning", code=1)
    await cli("doctor", "--fail-on", "never", code=2)
    assert "no queue 'nowhere'" in await cli.error("doctor", "nowhere", code=1)


async def test_a_dead_server_is_told_in_one_line(own: OwnServer, tmp_path: Path) -> None:
    await own.end(signal.SIGKILL)
    line = await Cli(tmp_path, {"REDIS_URL": own.url}).error("doctor", code=3)
    assert "no server answers" in line


async def test_the_documented_permissions_are_enough_for_the_command(own: OwnServer, tmp_path: Path) -> None:
    async with Server(own.url) as at, Queue("emails", server=at) as queue:
        await queue.add("welcome")
        await queue.job_schedulers.upsert("nightly", ScheduleRule(pattern="0 3 * * *"), name="report")
    await own.ask("ACL", "SETUSER", "limited", "reset", "on", ">s3cret", *documented_rules())
    cli = Cli(tmp_path, {"REDIS_URL": own.url.replace("//", "//limited:s3cret@")})
    document = await cli.json("doctor", code=1)
    assert [one["check"] for one in document["findings"] if one["severity"] in ("error", "warning")] == ["workers"]
    assert document["server"] == own.url.replace("//", "//limited:***@")


async def test_jobs_of_a_queue_without_settings_are_told_where_no_queue_is_seen_at_all(queue: Queue, server: Server, prefix: str) -> None:
    await queue.add("a")
    for name in ("meta", "id", "events", "wait", "marker"):  # an evicting server takes what it likes
        await raw(queue, "DEL", f"{queue.keys.base}{name}")
    found = [one async for one in examine(server, prefix, [], SystemClock(), are_all=True) if one.check == "keys"]
    only(found, WARNING, "(`meta`) are gone", "emails")
