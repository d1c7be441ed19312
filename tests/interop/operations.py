"""What can be done to two queues, as a Hypothesis state machine: each rule is one step on both sides (`World.step`)."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.interop.machine import Machine
from tests.interop.made_up import (
    ANONYMOUS_OPTIONS,
    BAD_OPTIONS,
    CHILD_OPTIONS,
    DATA,
    DEDUPLICATIONS,
    DELAYS,
    FLAG,
    FLOWS,
    FOREIGN_OPTIONS,
    JOBS,
    NAMES,
    OPTIONS,
    QUEUES,
    STRAY,
    TOKENS,
    VALUES,
    WORKER,
    N,
)
from tests.interop.spelling import HOUR_MS, Json
from tests.interop.upkeep_operations import JobRules, QueueRules


class Adding(Machine):
    """Jobs come."""

    @rule(queue=QUEUES, name=NAMES, data=DATA, opts=OPTIONS)
    def add(self, queue: str, name: str, data: Json, opts: dict[str, Any]) -> None:
        self.step("add", queue=queue, name=name, data=data, opts=opts)

    @rule(queue=QUEUES, data=DATA, opts=ANONYMOUS_OPTIONS, deduplication=DEDUPLICATIONS)
    def add_deduplicated(self, queue: str, data: Json, opts: dict[str, Any], deduplication: dict[str, Any]) -> None:
        self.step("add", queue=queue, name="n", data=data, opts={**opts, "deduplication": deduplication})

    @rule(queue=QUEUES, opts=FOREIGN_OPTIONS)
    def add_foreign(self, queue: str, opts: dict[str, Any]) -> None:
        self.step("add", queue=queue, name="n", data={}, opts=opts, by_node=True)

    @rule(queue=QUEUES, opts=ANONYMOUS_OPTIONS, bad=BAD_OPTIONS, several=st.booleans())
    def add_badly(self, queue: str, opts: dict[str, Any], bad: dict[str, Any], several: bool) -> None:
        job = {"name": "n", "data": {}, "opts": {**opts, **bad}}
        if several:
            self.step("add_many", queue=queue, jobs=[{"name": "m", "data": {}, "opts": {}}, job])
        else:
            self.step("add", queue=queue, **job)

    @rule(queue=QUEUES, deduplication=DEDUPLICATIONS, on=st.sampled_from(["child", "parent"]))
    def add_flow_badly(self, queue: str, deduplication: dict[str, Any], on: str) -> None:
        self.count += 1
        node: dict[str, Any] = {"name": "n", "data": {}, "queue": queue, "flag": {}}
        refused = {"opts": {"deduplication": deduplication}}
        child = {**node, "opts": {}, **(refused if on == "child" else {})}
        parent = {**node, "opts": {}, **(refused if on == "parent" else {}), "children": [child]}
        self.step("add_flow", flow=_named(parent, f"f{self.count}"))

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
        if parent is not None and parent != opts.get("jobId") and ":" not in parent:  # NOT_TRIED
            self.step("add", queue=queue, name="n", data={}, opts=opts | flag, parent={"queue": above, "id": parent})


class Working(Machine):
    """Workers claim them, and say how they ended."""

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


class Operations(Adding, Working, JobRules, QueueRules):
    """All of it."""


def _named(node: dict[str, Any], name: str) -> dict[str, Any]:
    """A node of a flow with an id that tells its place, since a random one would differ."""
    children = [_named(child, f"{name}-{place}") for place, child in enumerate(node.get("children", ()))]
    named = {"name": node["name"], "data": node["data"], "queue": node["queue"], "opts": {**node["opts"], **node["flag"], "jobId": name}}
    return {**named, "children": children} if children else named
