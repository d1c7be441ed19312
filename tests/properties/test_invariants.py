"""Whatever producers, operators and dying workers do, in whatever order: all invariants hold, and no job is lost or doubled.

Hypothesis orders the steps: adds of every kind, flows, deduplication, schedulers, turns of three workers (heard, with a lost
reply, late, sent again), workers that are dropped between two commands, sweeps, renewals, and all that an operator can do.
After each step the whole key space is read: the invariants I1 to I17 hold, and the jobs are those from before and those that the
step may have added or taken away. At the end of each run healthy workers bring every job to its end.

`TORIL_EXAMPLES=5000` looks at other and more runs; a failure is shrunk, and prints the steps and how to repeat them.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, ClassVar, Final, Literal, TypeVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.invariants import broken_in
from tests.key_space import KeySpace, read_key_space
from tests.properties.fleet import Change, Fleet, JobKey, Lane
from tests.properties.plans import (
    DEDUPLICATED,
    FATES,
    FLAGS,
    JOB_OPERATIONS,
    JOBS,
    NUMBERS,
    QUEUE_OPERATIONS,
    QUEUES,
    RULES,
    TREES,
    WAYS,
    Tree,
)  # fmt: skip
from tests.snapshot import delete_all
from toril.errors import ParentError, SchedulerBusyError, TorilError
from toril.queues.flows import FlowJob, flow_job
from toril.queues.job_schedulers import ScheduleRule
from toril.queues.options import NO_OPTIONS, JobOptions
from toril.queues.queue import Queue
from toril.queues.states import JobState
from toril.wire.connection import Server
from toril.wire.turns import TurnRequest

T = TypeVar("T")

_EXAMPLES: Final = os.environ.get("TORIL_EXAMPLES")


class Steps(RuleBasedStateMachine):
    """One run. `runner`, `server` and `prefix` are the test's."""

    runner: ClassVar[asyncio.Runner]
    server: ClassVar[Server]
    prefix: ClassVar[str]
    count: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.own_prefix = f"{self.prefix}-{next(self.count)}"
        self.fleet = Fleet(self.server, self.own_prefix)
        self.promoted_in_bulk = False
        self.is_marker_taken = False
        """Somebody took a marker, and waits for something else than another one: a limit, a slot, a due time."""

    @initialize(jobs=st.lists(JOBS, min_size=2, max_size=4))
    def begin(self, jobs: Sequence[JobOptions]) -> None:
        self.step(self._add("q", jobs))

    # ── what adds ─────────────────────────────────────────────────────────────────────────────────────────────

    @rule(queue=QUEUES, jobs=st.lists(JOBS, min_size=1, max_size=4))
    def add(self, queue: str, jobs: Sequence[JobOptions]) -> None:
        self.step(self._add(queue, jobs))

    async def _add(self, name: str, jobs: Sequence[JobOptions]) -> Change:
        queue = self.fleet.queues[name]
        added = await queue.add_many([queue.job("n", options=options) for options in jobs])
        ids = [job.id for job in added]
        assert all(options.job_id in {None, job_id} for options, job_id in zip(jobs, ids, strict=True))
        fresh = [job_id for job_id, options in zip(ids, jobs, strict=True) if options.job_id is None]
        assert len(set(fresh)) == len(fresh)
        return Change(come={(name, job_id) for job_id in ids} - self.all_jobs())

    @rule(what=DEDUPLICATED | TREES)
    def add_one_or_a_flow(self, what: JobOptions | Tree) -> None:
        self.step(self._add_flow(what) if isinstance(what, Tree) else self._add_deduplicated(what))

    async def _add_deduplicated(self, options: JobOptions) -> Change:
        assert options.deduplication is not None
        owner = self.fleet.space.queue("q").owners.get(options.deduplication.id)
        job = await self.fleet.queues["q"].add("n", options=options)
        is_new = ("q", job.id) not in self.all_jobs() and job.id != owner
        replaced = {("q", owner)} if is_new and owner is not None and options.deduplication.replace else set[JobKey]()
        return Change(come={("q", job.id)} if is_new else set(), may_go=replaced)

    @rule(number=NUMBERS, options=JOBS, flags=FLAGS)
    def add_child(self, number: int, options: JobOptions, flags: JobOptions) -> None:
        """Of a parent in `p`, whatever that does meanwhile; the child may exist already."""
        parents = [key for key in self.fleet.jobs() if key[0] == "p" and not key[1].startswith("repeat:")]
        if parents:
            self.step(self._add_child(parents[number % len(parents)], flags.merged_over(options)))

    async def _add_child(self, parent: JobKey, options: JobOptions) -> Change:
        queue = self.fleet.queues["q"]
        try:
            job = await queue.add("n", options=options, parent=await self.fleet.queues["p"].get_job(parent[1]))
        except ParentError:
            return Change()
        return Change(come={("q", job.id)} - self.all_jobs())

    async def _add_flow(self, tree: Tree) -> Change:
        node = await self.fleet.flows.add(self._flow(tree, NO_OPTIONS))
        return Change(come={(one.job.queue_name, one.job.id) for one in node})

    def _flow(self, tree: Tree, flags: JobOptions) -> FlowJob:
        options = JobOptions(job_id=f"f{next(self.fleet.numbers)}").merged_over(flags.merged_over(tree.options))
        children = [self._flow(child, child.flags) for child in tree.children]
        return flow_job("n", queue=tree.queue, children=children, options=options)

    @rule(
        scheduler=st.sampled_from(["s", "t"]),
        when=RULES,
        priority=st.sampled_from([None, 2]),
        is_removed=st.sampled_from([False, False, False, True]),
    )
    def schedule(self, scheduler: str, when: ScheduleRule, priority: int | None, is_removed: bool) -> None:
        self.step(self._remove_scheduler(scheduler) if is_removed else self._upsert(scheduler, when, priority))

    async def _upsert(self, scheduler: str, when: ScheduleRule, priority: int | None) -> Change:
        pending = self.pending_iteration(scheduler)
        options = NO_OPTIONS if priority is None else JobOptions(priority=priority)
        try:
            job = await self.fleet.queues["q"].job_schedulers.upsert(scheduler, when, options=options)
        except SchedulerBusyError:
            return Change(is_nothing=True)
        come = {("q", job.id)} - self.all_jobs()
        return Change(come=come, may_go=pending - {("q", job.id)})

    async def _remove_scheduler(self, scheduler: str) -> Change:
        may_go = self.pending_iteration(scheduler)
        await self.fleet.queues["q"].job_schedulers.remove(scheduler)
        return Change(may_go=may_go)

    def pending_iteration(self, scheduler: str) -> set[JobKey]:
        due = self.fleet.space.queue("q").schedulers.get(scheduler)
        return set() if due is None else {("q", f"repeat:{scheduler}:{due}")}

    # ── workers ───────────────────────────────────────────────────────────────────────────────────────────────

    @rule(lane=NUMBERS, claims=st.integers(1, 5), fate=FATES)
    def claim(self, lane: int, claims: int, fate: str) -> None:
        """The reply may be lost, or the turn itself, which may still arrive later."""
        waiting = {name for name, _ in self.fleet.jobs("wait", "prioritized")} or {"p", "q"}
        self._turn([one for one in self.fleet.lanes if one.sent is None and one.queue.name in waiting], lane, (), claims, fate)

    @precondition(lambda self: any(lane.running for lane in self.fleet.lanes))
    @rule(lane=NUMBERS, ways=st.lists(WAYS, min_size=1, max_size=4), claims=st.integers(0, 3), fate=FATES)
    def finish_and_claim(self, lane: int, ways: Sequence[tuple[str, str]], claims: int, fate: str) -> None:
        self._turn([one for one in self.fleet.lanes if one.sent is None and one.running], lane, ways, claims, fate)

    @precondition(lambda self: any(lane.running for lane in self.fleet.lanes))
    @rule(lane=NUMBERS, way=WAYS)
    def finish(self, lane: int, way: tuple[str, str]) -> None:
        self._turn([one for one in self.fleet.lanes if one.sent is None and one.running], lane, [way], 0, "heard")

    def _turn(self, lanes: Sequence[Lane], number: int, ways: Sequence[tuple[str, str]], claims: int, fate: str) -> None:
        if lanes:
            lane = lanes[number % len(lanes)]
            self._send(lane, self.fleet.plan_turn(lane, ways, claims), fate)

    @precondition(lambda self: any(lane.sent is not None for lane in self.fleet.lanes))
    @rule(fate=st.sampled_from(["heard", "heard", "unheard", "late"]))
    def send_turn_again(self, fate: str) -> None:
        for lane in self.fleet.lanes:
            if lane.sent is not None:
                self._send(lane, lane.sent, fate)

    def _send(self, lane: Lane, request: TurnRequest, fate: str) -> None:
        if fate == "late":
            lane.sent = request
            lane.late.append(request)
        else:
            self.step(self.fleet.send(lane, request, is_heard=fate == "heard"))

    @precondition(lambda self: any(lane.late for lane in (*self.fleet.lanes, *self.fleet.lost)))
    @rule()
    def late_turn_arrives(self) -> None:
        lane = next(lane for lane in (*self.fleet.lanes, *self.fleet.lost) if lane.late)
        self.step(self.fleet.send_late(lane))

    @precondition(lambda self: any(lane.to_follow for lane in self.fleet.lanes))
    @rule()
    def follow(self) -> None:
        lane = next(lane for lane in self.fleet.lanes if lane.to_follow)
        self.step(self.fleet.follow(lane))

    @rule(lane=st.integers(0, 2), what=st.sampled_from(["renew", "sweep", "sweep", "die", "wake", "wake and die"]))
    def keep_house(self, lane: int, what: str) -> None:
        """What a worker does besides its turns; and its death, also between taking the marker and claiming."""
        one = self.fleet.lanes[lane]
        match what:
            case "renew":
                self.step(self.fleet.renew(one))
            case "sweep":
                self.step(self.fleet.sweep(one.queue.name))
            case "die":
                self.fleet.drop(one)
            case _ if one.sent is None:
                self.is_marker_taken = True
                self.run(self.fleet.wake(one))
                if what == "wake":
                    self.step(self.fleet.send(one, self.fleet.plan_turn(one, (), 1)))
                else:
                    self.fleet.drop(one)
            case _:
                pass  # it waits for a reply, and doesn't sleep

    @rule(ms=st.sampled_from([1, 1_000, 2_001, 5_001, 5_001, 31_000, 61_000, 600_000]))
    def pass_time(self, ms: int) -> None:
        self.step(self.fleet.pass_time(ms))

    # ── what operators do ─────────────────────────────────────────────────────────────────────────────────────

    @rule(number=NUMBERS, what=st.sampled_from(JOB_OPERATIONS))
    def treat_a_job(self, number: int, what: str) -> None:
        jobs = self.fleet.jobs()
        if jobs:
            self.step(self._treat(jobs[number % len(jobs)], what))

    async def _treat(self, key: JobKey, what: str) -> Change:
        queue = self.fleet.queues[key[0]]
        job = await queue.get_job(key[1])
        try:
            match what:
                case "cancel":
                    await job.cancel()
                case "promote":
                    await job.promote()
                case "delay" | "to now":
                    await job.change_delay("20s" if what == "delay" else "0s")
                case "priority" | "to front":
                    await job.change_priority(6, lifo=what == "to front")
                case "no priority":
                    await job.change_priority(0)
                case "remove":
                    if await queue.remove(key[1]):
                        return Change(go={key}, may_go=self.fleet.descendants(key))
                case _:
                    await queue.commands.drop_child_link(job.id)
        except TorilError:  # it isn't in the state for that
            return Change(is_nothing=True)
        return Change(may_come=self.fleet.kept_payloads() if what == "cancel" else set())

    @precondition(lambda self: self.fleet.jobs("completed", "failed"))
    @rule(number=NUMBERS, reset=st.booleans())
    def retry(self, number: int, reset: bool) -> None:
        jobs = self.fleet.jobs("failed") or self.fleet.jobs("completed")
        self.step(self._retry(jobs[number % len(jobs)], "failed" if self.fleet.jobs("failed") else "completed", reset))

    async def _retry(self, key: JobKey, state: Literal["failed", "completed"], reset: bool) -> Change:
        job = await self.fleet.queues[key[0]].get_job(key[1])
        await job.retry(state, reset_attempts=reset)
        return Change()

    @rule(queue=QUEUES, what=st.sampled_from(QUEUE_OPERATIONS))
    def treat_a_queue(self, queue: str, what: str) -> None:
        self.step(self._treat_queue(self.fleet.queues[queue], what))

    async def _treat_queue(self, queue: Queue[Any, Any], what: str) -> Change:
        word, _, state = what.partition(" ")
        match word:
            case "pause":
                await queue.pause()
            case "resume":
                await queue.resume()
            case "concurrency":
                await (queue.set_global_concurrency(2) if state else queue.remove_global_concurrency())
            case "rate":
                await (queue.set_global_rate_limit(2, "10s") if state else queue.remove_global_rate_limit())
            case "limited":
                await (queue.rate_limit("10s") if state else queue.remove_rate_limit_key())
            case "drain":
                return await self._drain(queue, delayed=bool(state))
            case "clean":
                return await self._clean(queue, cast("JobState", state))
            case "retry":
                await queue.retry_jobs(state="failed" if state == "failed" else "completed")
            case _:
                self.promoted_in_bulk = True
                await queue.promote_jobs()
        return Change()

    async def _drain(self, queue: Queue[Any, Any], *, delayed: bool) -> Change:
        states = ("wait", "prioritized", *(("delayed",) if delayed else ()))
        pending = self.fleet.pending_iterations(queue.name)
        go = {key for key in self.fleet.jobs(*states) if key[0] == queue.name and key[1] not in pending}
        assert await queue.drain(delayed=delayed) == len(go)
        return Change(go=go, may_go=self.fleet.ancestors(go))

    async def _clean(self, queue: Queue[Any, Any], state: JobState) -> Change:
        go = {(queue.name, job_id) for job_id in await queue.clean("0s", state=state)}
        assert go <= self.all_jobs()
        return Change(go=go, may_go=self.fleet.ancestors(go))

    @precondition(lambda self: self.fleet.space.queue("dead").jobs)
    @rule()
    def replay_a_letter(self) -> None:
        self.step(self._replay(min(self.fleet.space.queue("dead").jobs)))

    async def _replay(self, letter_id: str) -> Change:
        letters = self.fleet.queues["dead"].dead_letters
        letter = await letters.get(letter_id)
        new_id = await letters.replay(letter_id)
        assert await letters.replay(letter_id) == new_id
        return Change(come={(letter.queue, new_id)}, go={("dead", letter_id)})

    # ── what holds ────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def all_jobs(self) -> set[JobKey]:
        return {(name, job_id) for name, queue in self.fleet.space.queues.items() for job_id in queue.jobs}

    def step(self, work: Coroutine[Any, Any, Change]) -> None:
        """Take a step, and look at what became of the key space."""
        before, jobs_before = self.fleet.space, self.all_jobs()
        change = self.run(work)
        self.fleet.space = after = self.run(read_key_space(self.server, self.own_prefix))
        self.check_jobs(change, jobs_before)
        if change.is_nothing:
            assert after.events == before.events
            assert _places(after) == _places(before)
        assert self.fleet.stray_locks() == []
        is_blocked = any("concurrency" in queue.meta for queue in after.queues.values())
        self.is_marker_taken = self.is_marker_taken or is_blocked
        weak = not self.is_marker_taken
        assert broken_in(after, now_ms=self.fleet.now_ms, weak=weak, before=before, promoted_in_bulk=self.promoted_in_bulk) == []

    def check_jobs(self, change: Change, before: set[JobKey]) -> None:
        """No job is lost, none is there that nobody added."""
        after = self.all_jobs()
        letters = {key for key in after - before if key[0] == "dead"}
        came, gone = after - before - letters, before - after
        assert change.come <= came <= change.come | change.may_come, (change, came)
        assert change.go - change.come <= gone <= change.go | change.may_go, (change, gone)
        assert len(letters) == change.letters

    def teardown(self) -> None:
        try:
            self.run(self._check_end())
        finally:
            self.run(delete_all(self.server, self.own_prefix))

    async def _check_end(self) -> None:
        """Once somebody works who doesn't die, every job ends; or it waits for a child that failed."""
        fleet = self.fleet
        for name in ("q", "p"):
            queue = fleet.queues[name]
            await queue.resume()
            await queue.remove_global_concurrency()
            await queue.remove_global_rate_limit()
            for scheduler in await queue.job_schedulers.list():
                await queue.job_schedulers.remove(scheduler.id)
        healthy = [fleet.new_lane("q"), fleet.new_lane("p")]
        for _ in range(40):
            if not await self._unended():
                break
            await fleet.pass_time(3_600_000)
            for lane in healthy:
                await fleet.sweep(lane.queue.name)
                fleet.space = await read_key_space(self.server, self.own_prefix)
                await fleet.send(lane, fleet.plan_turn(lane, [], 50))
                while lane.to_follow:
                    await fleet.follow(lane)
                while lane.held:
                    await fleet.send(lane, fleet.plan_turn(lane, [("complete", "")] * 50, 0))
        assert await self._unended() == []
        space = await read_key_space(self.server, self.own_prefix)
        assert broken_in(space, now_ms=fleet.now_ms, promoted_in_bulk=self.promoted_in_bulk) == []
        for name in ("q", "p"):
            for job_id in space.queue(name).members["waiting-children"]:
                pending = space.children(f"bull:{name}:{job_id}")["dependencies"]
                states = {_state(space, key) for key in pending}
                assert states <= {"failed", "waiting-children"}, (job_id, states)

    async def _unended(self) -> list[tuple[str, str, str]]:
        space = await read_key_space(self.server, self.own_prefix)
        return [
            (name, state, job_id)
            for name in ("q", "p")
            for state in ("wait", "active", "prioritized", "delayed")
            for job_id in space.queue(name).members[state]
        ]


def _places(space: KeySpace) -> dict[str, dict[str, list[str]]]:
    return {name: {state: list(members) for state, members in queue.members.items() if members} for name, queue in space.queues.items()}


def _state(space: KeySpace, key: str) -> str:
    _, name, job_id = key.split(":", 2)
    return next(state for state, members in space.queue(name).members.items() if job_id in members)


@pytest.mark.timeout(0)
@pytest.mark.blocks_the_loop  # the loop is the test's own, and looking for that in each of asyncio's debug stacks takes most of the time
def test_all_invariants_hold_and_no_job_is_lost_or_doubled_at_any_step(toril_server_url: str, prefix: str) -> None:
    with asyncio.Runner() as runner:
        server = Server(toril_server_url)
        Steps.runner, Steps.server, Steps.prefix = runner, server, prefix
        try:
            run_state_machine_as_test(
                Steps,
                settings=settings(
                    max_examples=int(_EXAMPLES or 100),
                    stateful_step_count=80,
                    derandomize=_EXAMPLES is None,
                    deadline=None,
                    print_blob=True,
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
                ),
            )
        finally:
            runner.run(server.aclose())
