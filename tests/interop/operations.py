"""What can be done to two queues, as a Hypothesis state machine: each rule is one step on both sides (`World.step`)."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.interop.differential import T0, World
from tests.interop.made_up import (
    ANONYMOUS_OPTIONS,
    CHILD_OPTIONS,
    DATA,
    DEDUPLICATIONS,
    DELAYS,
    FLAG,
    FLOWS,
    JOBS,
    NAMES,
    OPTIONS,
    PRIORITIES,
    QUEUES,
    REPEATS,
    STRAY,
    TEMPLATES,
    TOKENS,
    VALUES,
    WORKER,
    N,
)
from tests.interop.spelling import HOUR_MS, Json

STATES: Final = ("wait", "active", "delayed", "prioritized", "waiting-children", "completed", "failed")
MOST_HELD: Final = 12

T = TypeVar("T")


class Run(Protocol):
    """Runs a coroutine to its end, always in the same loop."""

    def __call__(self, work: Coroutine[Any, Any, T], /) -> T: ...


@dataclass(frozen=True)
class Hold:
    """A job that was claimed, as whoever claimed it knows it."""

    name: str
    queue: str
    job: str
    token: str
    worker: str


class Operations(RuleBasedStateMachine):
    """What can be done to two queues."""

    def __init__(self, world: World, run: Run) -> None:
        super().__init__()
        self.world = world
        self.run = run
        self.now = T0
        self.holds: list[Hold] = []
        self.count = 0
        run(world.reset())

    # ── adding ────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(queue=QUEUES, name=NAMES, data=DATA, opts=OPTIONS)
    def add(self, queue: str, name: str, data: Json, opts: dict[str, Any]) -> None:
        self.step("add", queue=queue, name=name, data=data, opts=opts)

    @rule(queue=QUEUES, data=DATA, opts=ANONYMOUS_OPTIONS, deduplication=DEDUPLICATIONS)
    def add_deduplicated(self, queue: str, data: Json, opts: dict[str, Any], deduplication: dict[str, Any]) -> None:
        self.step("add", queue=queue, name="n", data=data, opts={**opts, "deduplication": deduplication})

    @rule(queue=QUEUES, jobs=JOBS)
    def add_many(self, queue: str, jobs: list[dict[str, Any]]) -> None:
        self.step("add_many", queue=queue, jobs=jobs)

    @rule(flow=FLOWS)
    def add_flow(self, flow: dict[str, Any]) -> None:
        self.count += 1
        self.step("add_flow", flow=_named(flow, f"f{self.count}"))

    @rule(
        queue=QUEUES,
        opts=CHILD_OPTIONS,
        flag=FLAG,
        above=QUEUES,
        n=N,
        stray=STRAY,
    )
    def add_child(self, queue: str, opts: dict[str, Any], flag: dict[str, Any], above: str, n: int, stray: str) -> None:
        parent = self.job_in(above, ("active", "waiting-children"), n, stray)
        if parent is not None and parent != opts.get("jobId"):
            self.step("add", queue=queue, name="n", data={}, opts=opts | flag, parent={"queue": above, "id": parent})

    # ── the worker ────────────────────────────────────────────────────────────────────────────────────────────

    @rule(queue=QUEUES, worker=WORKER)
    def claim(self, queue: str, worker: str) -> None:
        self.turn(queue, worker, [], 1)

    @rule(queue=QUEUES, worker=WORKER, claims=st.integers(2, 4))
    def claim_several(self, queue: str, worker: str, claims: int) -> None:
        self.turn(queue, worker, [], claims)

    @precondition(lambda self: self.holds)
    @rule(n=N, value=VALUES, token=TOKENS)
    def complete(self, n: int, value: Json, token: str) -> None:
        self.end(n, token, how="complete", value=value)

    @precondition(lambda self: self.holds)
    @rule(n=N, how=st.sampled_from(["fail", "fail", "give up"]), token=TOKENS)
    def fail(self, n: int, how: str, token: str) -> None:
        self.end(n, token, how=how, reason="boom é")

    @precondition(lambda self: self.holds)
    @rule(n=N, ms=DELAYS, token=TOKENS)
    def put_off(self, n: int, ms: int, token: str) -> None:
        self.end(n, token, how="put off", ms=ms)

    @precondition(lambda self: self.holds)
    @rule(n=N, token=TOKENS)
    def put_back(self, n: int, token: str) -> None:
        self.end(n, token, how="put back")

    @precondition(lambda self: self.holds)
    @rule(n=N)
    def meet_a_rate_limit(self, n: int) -> None:
        if self.holds_lock(self.holds[n % len(self.holds)]):  # Node sets the limit first, and then finds out that the lock is gone
            self.end(n, "", how="rate limit", ms=2 * HOUR_MS)

    @precondition(lambda self: self.holds)
    @rule(n=N, token=TOKENS)
    def wait_for_children(self, n: int, token: str) -> None:
        self.end(n, token, how="wait for children")

    @precondition(lambda self: self.holds)
    @rule(
        n=N,
        worker=WORKER,
        others=st.lists(st.sampled_from(["fail", "give up", "put off", "put back"]), max_size=2),
        completes=st.integers(1, 3),
        claims=st.integers(0, 3),
    )
    def batch(self, n: int, worker: str, others: list[str], completes: int, claims: int) -> None:
        queue = self.holds[n % len(self.holds)].queue
        active = self.ids(queue, ("active",))
        holds = [hold for hold in self.holds if hold.queue == queue and hold.job in active and self.holds_lock(hold)]
        holds = [hold for hold in holds if hold.worker == worker]
        hows = [*others, *["complete"] * completes]
        endings = [
            {"hold": hold.name, "token": hold.token, "how": how, "value": 1, "reason": "boom", "ms": 1_000}
            for hold, how in zip(holds, hows[-len(holds) :] if holds else [], strict=False)
        ]
        if endings:
            self.turn(queue, worker, endings, claims)

    @precondition(lambda self: self.holds)
    @rule(n=N, token=TOKENS)
    def renew(self, n: int, token: str) -> None:
        hold = self.holds[n % len(self.holds)]
        self.step("renew", hold=hold.name, token=token or hold.token)

    @precondition(lambda self: self.holds)
    @rule(n=N)
    def lose_lock(self, n: int) -> None:
        hold = self.holds[n % len(self.holds)]
        self.run(self.world.raw("DEL", key=f"{hold.queue}:{hold.job}:lock"))

    @rule(queue=QUEUES, in_time=st.sampled_from([True, True, False]))
    def sweep(self, queue: str, in_time: bool) -> None:
        if in_time:
            self.run(self.world.raw("DEL", key=f"{queue}:stalled-check"))
        self.step("sweep", queue=queue)

    # ── one job ───────────────────────────────────────────────────────────────────────────────────────────────

    @rule(queue=QUEUES, n=N, stray=STRAY, what=st.sampled_from(["progress", "log", "update_data"]), value=VALUES)
    def report(self, queue: str, n: int, stray: str, what: str, value: Json) -> None:
        job = self.job_in(queue, ("active",), n, stray)
        if job is not None:
            args = {"progress": {"value": value}, "log": {"row": f"row {value}"}, "update_data": {"data": value}}[what]
            self.step(what, queue=queue, job=job, **args)

    @rule(queue=QUEUES, n=N, stray=STRAY)
    def promote(self, queue: str, n: int, stray: str) -> None:
        self.on_job("promote", queue, ("delayed",), n, stray)

    @rule(queue=QUEUES, n=N, stray=STRAY, ms=DELAYS)
    def change_delay(self, queue: str, n: int, stray: str, ms: int) -> None:
        self.on_job("change_delay", queue, ("delayed",), n, stray, ms=ms)

    @rule(queue=QUEUES, n=N, stray=STRAY, priority=PRIORITIES, lifo=st.booleans())
    def change_priority(self, queue: str, n: int, stray: str, priority: int, lifo: bool) -> None:
        self.on_job("change_priority", queue, ("wait", "prioritized"), n, stray, priority=priority, lifo=lifo)

    @rule(queue=QUEUES, n=N, stray=STRAY, state=st.sampled_from(["failed", "completed"]), reset=st.booleans())
    def retry(self, queue: str, n: int, stray: str, state: str, reset: bool) -> None:
        self.on_job("retry", queue, (state,), n, stray, state=state, reset=reset)

    @rule(queue=QUEUES, n=N, stray=STRAY)
    def remove(self, queue: str, n: int, stray: str) -> None:
        self.on_job("remove", queue, STATES, n, stray)

    @rule(queue=QUEUES, n=N, stray=STRAY)
    def drop_child_link(self, queue: str, n: int, stray: str) -> None:
        self.on_job("drop_child_link", queue, STATES, n, stray)

    # ── the queue ─────────────────────────────────────────────────────────────────────────────────────────────

    @rule(queue=QUEUES)
    def pause(self, queue: str) -> None:
        self.step("pause", queue=queue)

    @rule(queue=QUEUES)
    def resume(self, queue: str) -> None:
        self.step("resume", queue=queue)

    @rule(queue=QUEUES, state=st.sampled_from(["failed", "completed"]), until=st.sampled_from([None, None, -1_000]))
    def retry_jobs(self, queue: str, state: str, until: int | None) -> None:
        self.step("retry_jobs", queue=queue, state=state, until=None if until is None else self.now + until)

    @rule(queue=QUEUES)
    def promote_jobs(self, queue: str) -> None:
        self.step("promote_jobs", queue=queue)

    @rule(queue=QUEUES, delayed=st.booleans())
    def drain(self, queue: str, delayed: bool) -> None:
        if self.waiting_iterations(queue):
            return  # NOT_TRIED
        self.step("drain", queue=queue, delayed=delayed)

    @rule(queue=QUEUES, grace=st.sampled_from([0, 1_000, 60_000]), limit=st.sampled_from([0, 0, 1, 2]), state=st.sampled_from(STATES))
    def clean(self, queue: str, grace: int, limit: int, state: str) -> None:
        self.step("clean", queue=queue, grace=grace, limit=limit, state=state)

    @rule(queue=QUEUES, force=st.booleans())
    def obliterate(self, queue: str, force: bool) -> None:
        if self.ids(queue, ("waiting-children",)):  # which Node would leave behind
            self.step("clean", queue=queue, grace=0, limit=0, state="waiting-children")
        self.step("obliterate", queue=queue, force=force)

    @rule(queue=QUEUES, key=st.sampled_from(["d0", "d1"]), by=st.sampled_from(["hand", "time"]))
    def release_deduplication(self, queue: str, key: str, by: str) -> None:
        if by == "hand":
            self.step("drop_deduplication", queue=queue, key=key)
        elif "ttl" in self.world.keys.get(f"bull:{queue}:de:{key}", {}):
            self.run(self.world.raw("DEL", key=f"{queue}:de:{key}"))

    @rule(queue=QUEUES, count=st.integers(0, 3))
    def bound_concurrency(self, queue: str, count: int) -> None:
        if count:
            self.step("set_concurrency", queue=queue, count=count)
        else:
            self.step("drop_concurrency", queue=queue)

    @rule(queue=QUEUES, most=st.integers(0, 2))
    def bound_rate(self, queue: str, most: int) -> None:
        if most:
            self.step("set_rate", queue=queue, max=most, ms=3 * HOUR_MS)
        else:
            self.step("drop_rate", queue=queue)

    @rule(queue=QUEUES, what=st.sampled_from(["limit_rate", "drop_limit", "drop_limit"]))
    def limit(self, queue: str, what: str) -> None:
        self.step(what, queue=queue, **({"ms": 4 * HOUR_MS} if what == "limit_rate" else {}))

    # ── schedulers ────────────────────────────────────────────────────────────────────────────────────────────

    @rule(queue=QUEUES, scheduler=st.sampled_from(["s1", "s2"]), repeat=REPEATS, template=TEMPLATES)
    def upsert_scheduler(self, queue: str, scheduler: str, repeat: dict[str, Any], template: dict[str, Any]) -> None:
        if self.is_paused(queue) and self.waiting_iterations(queue):
            return  # NOT_TRIED
        dated = {name: self.now + value if name in {"startDate", "endDate"} else value for name, value in repeat.items()}
        self.step("upsert_scheduler", queue=queue, scheduler=scheduler, repeat=dated, template=template)

    @rule(queue=QUEUES, scheduler=st.sampled_from(["s1", "s2"]))
    def remove_scheduler(self, queue: str, scheduler: str) -> None:
        self.step("remove_scheduler", queue=queue, scheduler=scheduler)

    # ── time passes, and somebody looks ───────────────────────────────────────────────────────────────────────

    @rule(ms=st.sampled_from([1, 1_000, 1_000, 5_000, 60_000, HOUR_MS]))
    def pass_time(self, ms: int) -> None:
        self.now += ms

    @rule(queue=QUEUES)
    def read(self, queue: str) -> None:
        self.step("read", queue=queue, jobs=["nobody", *self.ids(queue, STATES)], priorities=[0, 1, 2])

    # ── inside ────────────────────────────────────────────────────────────────────────────────────────────────

    def step(self, operation: str, **args: Json) -> dict[str, Any]:
        return self.run(self.world.step(operation, self.now, **args))

    def on_job(self, operation: str, queue: str, states: Sequence[str], n: int, stray: str, **args: Json) -> None:
        job = self.job_in(queue, states, n, stray)
        if job is not None:
            self.step(operation, queue=queue, job=job, **args)

    def ids(self, queue: str, states: Sequence[str]) -> list[str]:
        found: list[str] = []
        for state in states:
            content = self.world.keys.get(f"bull:{queue}:{state}", {"type": "list", "value": []})
            found += content["value"] if content["type"] == "list" else [member for member, _ in content["value"]]
        return found

    def is_paused(self, queue: str) -> bool:
        return "paused" in self.world.keys.get(f"bull:{queue}:meta", {"value": {}})["value"]

    def waiting_iterations(self, queue: str) -> list[str]:
        return [job for job in self.ids(queue, ("wait", "prioritized")) if job.startswith("repeat:")]

    def job_in(self, queue: str, states: Sequence[str], n: int, stray: str) -> str | None:
        if stray == "nobody":
            return "nobody"
        found = self.ids(queue, STATES if stray == "other" else states)
        return found[n % len(found)] if found else None

    def holds_lock(self, hold: Hold) -> bool:
        return bool(self.world.keys.get(f"bull:{hold.queue}:{hold.job}:lock", {}).get("value") == hold.token)

    def end(self, n: int, token: str, **ending: Json) -> None:
        hold = self.holds[n % len(self.holds)]
        told = self.step("end", hold=hold.name, token=token or hold.token, **ending)
        if token == "" and told.get("value") != {"waits": False} and not _is_refused(told, -4, -9):
            self.drop(hold)

    def drop(self, hold: Hold) -> None:
        self.holds.remove(hold)
        self.run(self.world.both("drop", self.now, hold=hold.name))

    def turn(self, queue: str, worker: str, endings: list[dict[str, Any]], count: int) -> None:
        if any(job.startswith("repeat:") for job in self.ids(queue, ("wait", "prioritized", "delayed"))):
            # Each claimed iteration adds the next one: that comes after all claims of a turn, but between single claims.
            count = min(count, 0 if endings else 1)
        self.count += 1
        first = endings[-1]["token"] if endings else f"t{self.count}"
        claims = [{"hold": f"h{self.count}-{place}", "token": first if place == 1 else f"{first}:{place}"} for place in range(1, count + 1)]
        told = self.step("turn", queue=queue, worker=worker, endings=endings, claims=claims)["value"]
        ended = {ending["hold"] for ending, code in zip(endings, told["codes"], strict=True) if code == 0}
        for hold in [hold for hold in self.holds if hold.name in ended]:
            self.drop(hold)
        for claim, job in zip(claims, told["jobs"], strict=False):
            self.holds.append(Hold(claim["hold"], queue, job["id"], claim["token"], worker))
        while len(self.holds) > MOST_HELD:
            self.drop(self.holds[0])


def _is_refused(told: dict[str, Any], *codes: int) -> bool:
    return isinstance(told.get("value"), dict) and told["value"].get("refused") in codes


def _named(node: dict[str, Any], name: str) -> dict[str, Any]:
    """A node of a flow with an id that tells its place, since a random one would differ."""
    children = [_named(child, f"{name}-{place}") for place, child in enumerate(node.get("children", ()))]
    named = {"name": node["name"], "data": node["data"], "queue": node["queue"], "opts": {**node["opts"], **node["flag"], "jobId": name}}
    return {**named, "children": children} if children else named
