"""Wire §9.4: a batch leaves the same keys and the same events as its steps done one after the other. So do adds with one call.

Hypothesis makes up a queue (all kinds of jobs, parents in their own or another queue, deduplication, limits, pauses), and one
turn on it. The queue is built twice; one copy gets the turn, the other one the same steps as turns with a single step each.
`drained` is the exception that the rule makes: a batch tells it once, at its end.

Examples are the same in every run. `TORIL_EXAMPLES=2000` looks at other and more ones; a failure prints how to repeat it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Awaitable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.bench import T0, Bench, ids, tokens
from tests.snapshot import Events, Keys, delete_all, read_all, show
from toril.errors import ParentError
from toril.wire import endings as wire_endings
from toril.wire import replies
from toril.wire.connection import Server
from toril.wire.endings import Ending
from toril.wire.jobs import NewJob
from toril.wire.turns import ClaimState, TurnReply

_EXAMPLES: Final = os.environ.get("TORIL_EXAMPLES")
_TTL_TOLERANCE_MS: Final = 5_000
_STACK: Final = b'["stack"]'

_count = itertools.count()

T = TypeVar("T")


def _examples(usual: int) -> settings:
    return settings(
        max_examples=int(_EXAMPLES or usual),
        derandomize=_EXAMPLES is None,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@dataclass(frozen=True)
class Parent:
    """A job that waits for children, in the queue itself or in another one."""

    queue: str
    delay: int
    priority: int


@dataclass(frozen=True)
class Planned:
    """A job, and how it got to where it is."""

    name: str
    delay: int
    priority: int
    lifo: bool
    parent: int | None
    flag: str | None
    deduplication: str | None
    is_unknown_for: int
    """How often nobody had a handler for it."""
    state: str
    """`queued` as it was added, `active`, `unlocked` (active without a lock), `missing` (an id without a job)."""


@dataclass(frozen=True)
class Step:
    """How an active job ends. `token` is the right one, or not."""

    which: int | None
    """The n-th of them, which may have ended already or not be there; None is the next one."""
    kind: str
    delay: int
    keep: str
    token: str


@dataclass(frozen=True)
class Plan:
    """A queue, and one turn on it."""

    parents: Sequence[Parent]
    jobs: Sequence[Planned]
    next_payload: bool
    """Whether a payload waits for the job that holds the deduplication id `d0` to end."""
    restriction: tuple[str, int]
    """What keeps jobs from being claimed: nothing (""), `paused`, `concurrency`, `max` (of the queue) or `limit` (of the worker)."""
    steps: Sequence[Step]
    claims: int
    free: Sequence[tuple[str, int]]
    passed_ms: int


def _mostly(usual: T, *others: T) -> st.SearchStrategy[T]:
    """The usual value about half of the time. Hypothesis likes both ends of a range, so that is where it stands."""
    return st.sampled_from([usual] * (len(others) + 1) + list(others) + [usual] * (len(others) + 1))


_NAMES = st.sampled_from(["a", "b", "c"])
_KEEPS = st.sampled_from([wire_endings.keep_rule(*rule) for rule in ((None, None), (0, None), (1, None), (None, 5), (2, 1))])
_PARENTS = st.builds(Parent, st.sampled_from(["q", "pq"]), st.sampled_from([0, 0, 7]), st.sampled_from([0, 0, 3]))
_JOBS = st.builds(
    Planned,
    name=_NAMES,
    delay=_mostly(0, 1, 1_000, 50_000),
    priority=st.sampled_from([0, 0, 1, 5]),
    lifo=st.booleans(),
    parent=st.sampled_from([None, None, 0, 1]),
    flag=st.sampled_from([None, "fpof", "cpof", "idof", "rdof"]),
    deduplication=st.sampled_from([None, None, "d0", "d1"]),
    is_unknown_for=st.sampled_from([0, 0, 1, 5]),
    state=st.sampled_from(["queued", "queued", "queued", "missing", "unlocked", "active", "active", "active", "active"]),
)
_STEPS = st.builds(
    Step,
    which=_mostly(None, 0, 3, 99),
    kind=st.sampled_from("ccffrdowu"),
    delay=st.sampled_from([0, 1, 1_000]),
    keep=_KEEPS,
    token=_mostly("right", "wrong"),
)
_PLANS = st.builds(
    Plan,
    parents=st.lists(_PARENTS, min_size=2, max_size=2),
    jobs=st.lists(_JOBS, min_size=4, max_size=14),
    next_payload=st.booleans(),
    restriction=st.sampled_from(
        [
            ("", 0),
            ("limit", 1),
            ("paused", 1),
            ("", 0),
            ("max", 2),
            ("concurrency", 1),
            ("max", 1),
            ("", 0),
            ("limit", 3),
            ("concurrency", 4),
        ]
    ),
    steps=st.lists(_STEPS, max_size=6),
    claims=st.sampled_from([5, 0, 1, 2, 3, 6]),
    free=st.one_of(st.just([]), st.lists(st.tuples(_NAMES, st.integers(0, 2)), min_size=1, max_size=3, unique_by=lambda pair: pair[0])),
    passed_ms=st.sampled_from([0, 1, 1_000]),
)

# Every kind of ending at once, with and without a parent, and more claims than there are jobs.
_ALL_KINDS = Plan(
    [Parent("q", 7, 0), Parent("pq", 0, 3)],
    [
        Planned("abc"[n % 3], 0, n % 2, False, n % 2, "fpof" if n % 4 else None, "d0" if n == 1 else None, 5 * (n == 8), "active")
        for n in range(9)
    ]
    + [Planned("a", 1, 1, False, None, None, None, 0, "queued"), Planned("b", 0, 0, True, None, None, None, 0, "missing")],
    True, ("", 0),
    [Step(n, kind, 1, "", "right") for n, kind in enumerate("cfrdowcfu")],
    5, [("a", 1), ("c", 0)], 1_000,
)  # fmt: skip


async def _build(bench: Bench, plan: Plan) -> list[str]:
    """Make the queue; the ids that are active."""
    for number, parent in enumerate(plan.parents):
        await bench.add_parent(f"P{number}", parent.queue, parent.delay, parent.priority)
    added = await bench.commands.add(
        [NewJob(job.name, b"{}", b'{"attempts":0}', T0, job.delay, job.priority, job.lifo) for job in plan.jobs]
    )
    active: list[str] = []
    for (job_id, _), job in zip(added, plan.jobs, strict=True):
        await _tie(bench, job_id, job, plan)
        if job.state == "queued":
            continue
        await bench.raw("LREM", bench.key("wait"), 1, job_id)
        await bench.raw("ZREM", bench.key("prioritized"), job_id)
        await bench.raw("ZREM", bench.key("delayed"), job_id)
        if job.state == "missing":
            await bench.raw("DEL", bench.key(job_id))
            await bench.raw("LPUSH", bench.key("wait"), job_id)
            continue
        await bench.raw("LPUSH", bench.key("active"), job_id)
        await bench.raw("HSET", bench.key(job_id), "ats", job.is_unknown_for + 1, "processedOn", T0)
        await bench.raw("SADD", bench.key("stalled"), job_id)
        if job.state == "active":
            await bench.raw("SET", bench.keys.lock(job_id), f"lock-{job_id}", "PX", 600_000)
        if job.is_unknown_for:
            await bench.raw("SET", f"{bench.keys.own}unknown:{job_id}", job.is_unknown_for, "PX", 600_000)
        active.append(job_id)
    if plan.next_payload:
        await bench.raw("HSET", bench.key("dn:d0"), "name", "next", "data", "[1]", "opts", '{"attempts":0,"priority":2}', "jid", "next-1")
    name, value = plan.restriction
    if name in {"paused", "concurrency", "max"}:
        await bench.raw("HSET", bench.key("meta"), name, value, "duration", 600_000)
    await bench.raw("DEL", bench.key("marker"), bench.key("events"))
    bench.now = T0 + plan.passed_ms
    return active


async def _tie(bench: Bench, job_id: str, job: Planned, plan: Plan) -> None:
    key = bench.key(job_id)
    if job.deduplication is not None:
        await bench.raw("HSET", key, "deid", job.deduplication)
        await bench.raw("SET", bench.key(f"de:{job.deduplication}"), job_id)
    elif job.parent is not None:
        parent_id, queue_key = f"P{job.parent}", f"{bench.prefix}:{plan.parents[job.parent].queue}"
        parent = {"id": parent_id, "queueKey": queue_key} | ({job.flag: True} if job.flag else {})
        await bench.raw("HSET", key, "parentKey", f"{queue_key}:{parent_id}", "parent", json.dumps(parent))
        await bench.raw("SADD", f"{queue_key}:{parent_id}:dependencies", key)


def _endings(plan: Plan, active: Sequence[str]) -> list[Ending]:
    endings: list[Ending] = []
    following = iter(active)
    for step in plan.steps:
        if step.which is None:
            job_id = next(following, None)
        else:
            job_id = active[step.which] if step.which < len(active) else "nobody"
        if job_id is None:
            break
        token = f"lock-{job_id}" if step.token == "right" else "wrong"
        made: dict[str, Ending] = {
            "c": wire_endings.completed(job_id, token, b'{"ok":1}', step.keep),
            "f": wire_endings.failed(job_id, token, "boom", _STACK, step.keep, 2),
            "r": wire_endings.retried(job_id, token, "boom", _STACK, 0, lifo=bool(step.delay)),
            "d": wire_endings.retried(job_id, token, "boom", _STACK, step.delay + 1, lifo=False),
            "o": wire_endings.put_off(job_id, token, step.delay),
            "w": wire_endings.put_back(job_id, token),
            "u": wire_endings.unknown_name(job_id, token, "no handler", _STACK, step.keep, 0, 1_000),
        }
        endings.append(made[step.kind])
    return endings


def _worker_limit(plan: Plan) -> tuple[int, int]:
    return (plan.restriction[1], 600_000) if plan.restriction[0] == "limit" else (0, 0)


async def _one_by_one(bench: Bench, plan: Plan, endings: Sequence[Ending]) -> tuple[list[int], list[TurnReply]]:
    limit = _worker_limit(plan)
    codes = [(await bench.turn(ending)).codes[0] for ending in endings]
    free = dict(plan.free)
    claims: list[TurnReply] = []
    for number in range(1, plan.claims + 1):
        token = "T" if number == 1 else f"T:{number}"
        reply = await bench.turn(claims=1, token=token, free=list(free.items()), limit=limit)
        claims.append(reply)
        if not reply.claimed:
            break
        name = reply.claimed[0][1].name
        if name in free:
            free[name] -= 1
    return codes, claims


@_examples(250)
@example(plan=_ALL_KINDS)
@given(plan=_PLANS)
@pytest.mark.timeout(0)
async def test_a_batch_is_its_steps(server: Server, prefix: str, plan: Plan) -> None:
    number = next(_count)
    batch, single = (Bench(server, f"{prefix}:{number}{kind}") for kind in "bs")
    try:
        active = await _build(batch, plan)
        assert await _build(single, plan) == active
        endings = _endings(plan, active)

        reply = await batch.turn(*endings, claims=plan.claims, token="T", free=plan.free, limit=_worker_limit(plan))
        codes, claims = await _one_by_one(single, plan, endings)

        assert list(reply.codes) == codes
        assert ids(reply) == [job_id for claim in claims for job_id in ids(claim)]
        assert tokens(reply) == [token for claim in claims for token in tokens(claim)]
        if claims and not claims[-1].claimed:
            assert reply.state is claims[-1].state
            assert reply.state is ClaimState.LIMITED or reply.value == claims[-1].value
        else:
            assert reply.state is ClaimState.SATISFIED
        await _compare(batch, single)
        await _check_drained(batch, plan, reply)
    finally:
        for bench in (batch, single):
            await delete_all(server, bench.prefix)


_ADDED: Final = st.builds(
    NewJob,
    name=st.sampled_from("ab"),
    data=st.sampled_from([b"{}", b'{"n":1}', b'{"n":2}']),
    opts=st.sampled_from([b"{}", b'{"attempts":3}']),
    timestamp_ms=st.sampled_from([T0, T0 + 1]),
    delay_ms=st.sampled_from([0, 0, 0, 5]),
    priority=st.sampled_from([0, 0, 0, 2]),
    lifo=st.sampled_from([False, False, True]),
    job_id=st.sampled_from(["", "", "", "x", "y"]),
    deduplication=st.sampled_from([b"", b"", b"", b'{"id":"d"}']),
)


@_examples(100)
@example(jobs=[(NewJob("a", b"{}", b"{}", T0), "", 5)], taken=[2], alone=False)
@given(
    jobs=st.lists(st.tuples(_ADDED, st.sampled_from(["", "", "p1", "p2"]), st.sampled_from([1, 1, 3])), min_size=1, max_size=6),
    taken=st.sets(st.integers(1, 9)),
    alone=st.booleans(),
)
@pytest.mark.timeout(0)
async def test_jobs_of_one_call_are_added_as_one_after_the_other(
    server: Server, prefix: str, jobs: list[tuple[NewJob, str, int]], taken: Collection[int], alone: bool
) -> None:
    """Each job with its parent, and how often it is added. `taken`: ids that somebody has already, as where the counter was evicted.
    `alone`: by callers who know nothing of each other."""
    number = next(_count)
    together, single = (Bench(server, f"{prefix}:{number}{kind}") for kind in "ts")
    try:
        for bench in (together, single):
            for job_id in taken:
                await bench.raw("HSET", bench.key(str(job_id)), "name", "old")
            for parent in ("p1", "p2"):
                await bench.add_parent(parent)
        wanted = [await _outcome(single.commands.add_one(job)) for job in _under_parents(single, jobs)]
        flat = _under_parents(together, jobs)
        if alone:
            assert await asyncio.gather(*(_outcome(together.commands.add_one(job)) for job in flat)) == wanted
        else:  # the first refusal stands for all, and the others are added
            refused = ParentError if ParentError in wanted else None
            assert await _outcome(together.commands.add(flat)) == (refused or wanted)
        await _compare(together, single)
    finally:
        for bench in (together, single):
            await delete_all(server, bench.prefix)


def _under_parents(bench: Bench, jobs: Sequence[tuple[NewJob, str, int]]) -> list[NewJob]:
    flat: list[NewJob] = []
    for job, parent, times in jobs:
        link = json.dumps({"id": parent, "queueKey": f"{bench.prefix}:pq"}).encode()
        child = replace(job, deduplication=b"", parent_key=f"{bench.prefix}:pq:{parent}", parent=link) if parent else job
        flat += [child] * times
    return flat


async def _outcome(adding: Awaitable[object]) -> object:
    try:
        return await adding
    except ParentError:
        return ParentError


async def _compare(batch: Bench, single: Bench) -> None:
    keys, events = await read_all(batch.server, batch.prefix)
    wanted, wanted_events = await read_all(single.server, single.prefix)
    assert _without_ttl(keys) == _without_ttl(wanted)
    for key, value in keys.items():
        ttl, wanted_ttl = value.get("ttl"), wanted[key].get("ttl")
        assert (ttl is None) == (wanted_ttl is None), key
        assert ttl is None or wanted_ttl is None or abs(ttl - wanted_ttl) < _TTL_TOLERANCE_MS, key
    assert _without_drained(events) == _without_drained(wanted_events)


async def _check_drained(batch: Bench, plan: Plan, reply: TurnReply) -> None:
    """Told once, last of all, if something ended and nothing is left; not while a job was claimed, is due later, or may not be claimed."""
    events = await batch.events()
    ended = any(
        code == replies.UNKNOWN_NAME_FAILED or (code == 0 and step.kind in "cf")
        for code, step in zip(reply.codes, plan.steps, strict=False)
    )
    asked_in_vain = plan.claims == 0 or (reply.state is ClaimState.EMPTY and reply.value == 0 and not reply.claimed)
    nothing_left = await batch.commands.count(["wait", "active", "prioritized"]) == [0, 0, 0]
    assert events.count("drained") == (1 if ended and asked_in_vain and nothing_left else 0)
    assert "drained" not in events[:-1]


def _without_ttl(keys: Keys) -> dict[str, object]:
    return {key: value["value"] for key, value in keys.items()}


def _without_drained(events: Events) -> dict[str, list[str]]:
    shown = {key: [text for entry in entries if (text := show(entry)) != "drained"] for key, entries in events.items()}
    return {key: texts for key, texts in shown.items() if texts}
