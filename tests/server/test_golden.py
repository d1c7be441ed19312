"""What the released Node library did, done by us: the same keys and the same events, step by step.

`STEPS` has one entry for every step of every golden file: the coroutine that does it. A step starts from the dump of the one before
it; some whole files run through from an empty server too.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import pytest

from tests.compared import Compared
from tests.golden_replay import T0, GoldenStep, Replay, new_job, scenario, scenarios
from toril.errors import ParentError
from toril.queues.cron import Cron
from toril.wire import endings, replies
from toril.wire.connection import Server
from toril.wire.jobs import NewJob
from toril.wire.scheduler_commands import Iteration, SchedulerCommands, SchedulerUpsert
from toril.wire.turns import ClaimState

Act: TypeAlias = Callable[[Replay], Awaitable[None]]

STEPS: dict[tuple[str, int], Act] = {}

METRICS_POINTS: Final = 5
"""For how many minutes the worker of the dumps 12 counts."""

STACKS: Final = (b'["one"]', b'["one","two"]', b'["one","two","three"]')


def step(name: str, *numbers: int) -> Callable[[Act], Act]:
    def register(act: Act) -> Act:
        for number in numbers:
            STEPS[name, number] = act
        return act

    return register


# ── 01 standard ───────────────────────────────────────────────────────────────────────────────────────────────


@step("01-standard", 0)
async def _(golden: Replay) -> None:
    await golden.queue().set_max_events(None)


@step("01-standard", 1)
async def _(golden: Replay) -> None:
    await golden.add("1")


@step("01-standard", 2)
async def _(golden: Replay) -> None:
    await golden.add("2")


@step("01-standard", 3, 4)
async def _(golden: Replay) -> None:
    await golden.add("custom-a")


@step("01-standard", 5)
async def _(golden: Replay) -> None:
    await golden.claim("custom-a", "tok-a", worker="worker-1")


@step("01-standard", 6)
async def _(golden: Replay) -> None:
    await golden.end(endings.completed("custom-a", "tok-a", b"null", ""))


@step("01-standard", 7)
async def _(golden: Replay) -> None:
    await golden.claim("1", "tok-1", worker="worker-1")


@step("01-standard", 8)
async def _(golden: Replay) -> None:
    queue = golden.queue()
    await queue.update_progress("1", b"42")
    await queue.update_progress("1", b'{"pct":50}')
    await queue.update_data("1", b'{"to":"changed"}')
    assert await queue.add_log("1", "line 1", 0) == 1
    await golden.renew("1", "tok-1")


@step("01-standard", 9)
async def _(golden: Replay) -> None:
    done = endings.completed("1", "tok-1", b'{"ok":true}', "")
    reply = await golden.turn(endings=[done], token="tok-1", claims=1, worker_name="worker-1")
    assert (reply.codes, [record.job_id for _, record in reply.claimed]) == ([0], ["2"])


@step("01-standard", 10)
async def _(golden: Replay) -> None:
    for row, rows in (("a", 1), ("b", 2), ("c", 2)):
        assert await golden.queue().add_log("2", row, 2) == rows
    done = endings.completed("2", "tok-1", b"7", endings.keep_rule(10, None))
    reply = await golden.turn(endings=[done], claims=1)
    assert (reply.codes, reply.state, reply.value) == ([0], ClaimState.EMPTY, 0)


# ── 02 delayed ────────────────────────────────────────────────────────────────────────────────────────────────


@step("02-delayed", 0)
async def _(golden: Replay) -> None:
    await golden.add("1")


@step("02-delayed", 1)
async def _(golden: Replay) -> None:
    await golden.add("2", "3", "4")


@step("02-delayed", 2)
async def _(golden: Replay) -> None:
    reply = await golden.claim_nothing()
    assert (reply.state, reply.value) == (ClaimState.EMPTY, T0 + 3_000)


@step("02-delayed", 3)
async def _(golden: Replay) -> None:
    await golden.claim("1", "tok-1")


@step("02-delayed", 4)
async def _(golden: Replay) -> None:
    await golden.end(endings.completed("1", "tok-1", b'"r"', ""))
    await golden.queue().change_delay("3", T0 + 5_000, 60_000)


@step("02-delayed", 5)
async def _(golden: Replay) -> None:
    await golden.queue().promote("3")


# ── 03 priority ───────────────────────────────────────────────────────────────────────────────────────────────


@step("03-priority", 0)
async def _(golden: Replay) -> None:
    await golden.add("1")


@step("03-priority", 1)
async def _(golden: Replay) -> None:
    await golden.add("2", "3", "4", "5")


@step("03-priority", 2)
async def _(golden: Replay) -> None:
    await golden.queue().change_priority("3", 20, lifo=False)


@step("03-priority", 3)
async def _(golden: Replay) -> None:
    await golden.queue().change_priority("3", 5, lifo=True)


def _claims(job_id: str, token: str) -> Act:
    async def act(golden: Replay) -> None:
        await golden.claim(job_id, token)

    return act


for number, job_id, token in (
    (4, "5", "tok-1"),
    (5, "2", "tok-2"),
    (7, "2", "tok-3"),
    (8, "3", "tok-4"),
    (9, "4", "tok-5"),
    (10, "1", "tok-6"),
):
    step("03-priority", number)(_claims(job_id, token))


@step("03-priority", 6)
async def _(golden: Replay) -> None:
    await golden.end(endings.put_back("2", "tok-2"))


@step("03-priority", 11)
async def _(golden: Replay) -> None:
    assert (await golden.claim_nothing()).state is ClaimState.EMPTY


# ── 04 retries with backoff ───────────────────────────────────────────────────────────────────────────────────


@step("04-retry-exponential", 0)
async def _(golden: Replay) -> None:
    await golden.add("1")
    await golden.claim("1", "tok-1")


@step("04-retry-exponential", 1)
async def _(golden: Replay) -> None:
    await golden.end(endings.retried("1", "tok-1", "boom 1", STACKS[0], 1_000, lifo=False))


@step("04-retry-exponential", 2)
async def _(golden: Replay) -> None:
    await golden.claim("1", "tok-2")


@step("04-retry-exponential", 3)
async def _(golden: Replay) -> None:
    again = endings.retried("1", "tok-2", "boom 2", STACKS[1], 2_000, lifo=False)
    reply = await golden.turn(endings=[again], claims=1)
    assert (reply.codes, reply.state, reply.value) == ([0], ClaimState.EMPTY, T0 + 3_200)


@step("04-retry-exponential", 4)
async def _(golden: Replay) -> None:
    await golden.claim("1", "tok-3")


@step("04-retry-exponential", 5)
async def _(golden: Replay) -> None:
    await golden.end(endings.completed("1", "tok-3", b'{"done":1}', ""))


# ── 05 final failure ──────────────────────────────────────────────────────────────────────────────────────────


@step("05-fail-final", 0)
async def _(golden: Replay) -> None:
    await golden.add_new("1", "f", '{"n":1}', '{"attempts":2}', T0)
    await golden.claim("1", "tok", now=T0)
    await golden.end(endings.retried("1", "tok", "first", STACKS[0], 0, lifo=False))


@step("05-fail-final", 1)
async def _(golden: Replay) -> None:
    await golden.claim("1", "tok", now=T0 + 10)
    await golden.end(endings.failed("1", "tok", "second", STACKS[1], "", 2))


@step("05-fail-final", 2)
async def _(golden: Replay) -> None:
    await golden.queue().retry_job("1", "failed", lifo=False, reset_made=False, reset_started=False)


@step("05-fail-final", 3)
async def _(golden: Replay) -> None:
    await golden.claim("1", "tok", now=T0 + 20)
    await golden.end(endings.failed("1", "tok", "third", STACKS[2], "", 2))


@step("05-fail-final", 4)
async def _(golden: Replay) -> None:
    await golden.queue().retry_job("1", "failed", lifo=False, reset_made=True, reset_started=True)


@step("05-fail-final", 5)
async def _(golden: Replay) -> None:
    await golden.claim("1", "tok")
    await golden.end(endings.completed("1", "tok", b"null", ""))


@step("05-fail-final", 6)
async def _(golden: Replay) -> None:
    await golden.queue().retry_job("1", "completed", lifo=False, reset_made=False, reset_started=False)


# ── 06 stalled ────────────────────────────────────────────────────────────────────────────────────────────────


async def _sweep(golden: Replay, *recovered: str) -> None:
    reply = await golden.queue().sweep_stalled(golden.step.clock, 30_000, 1)
    assert (list(reply.recovered), reply.wait_ms) == (list(recovered), 0)


async def _expire(golden: Replay, *keys: str) -> None:
    await golden.raw("DEL", *(f"{golden.prefix}:q:{key}" for key in keys))


@step("06-stalled", 0)
async def _(golden: Replay) -> None:
    await golden.add("1", "2")
    await golden.claim("1", "tok-1")
    await golden.claim("2", "tok-2")


@step("06-stalled", 1)
async def _(golden: Replay) -> None:
    await _sweep(golden)


@step("06-stalled", 2)
async def _(golden: Replay) -> None:
    reply = await golden.queue().sweep_stalled(golden.step.clock, 30_000, 1)
    assert list(reply.recovered) == []
    assert 28_000 < reply.wait_ms <= 30_000


@step("06-stalled", 3)
async def _(golden: Replay) -> None:
    await golden.renew("2", "tok-2")
    await _expire(golden, "1:lock", "stalled-check")


@step("06-stalled", 4)
async def _(golden: Replay) -> None:
    await _sweep(golden, "1")


@step("06-stalled", 5)
async def _(golden: Replay) -> None:
    await golden.claim("1", "tok-3")
    await _expire(golden, "1:lock", "stalled-check")
    await _sweep(golden)


@step("06-stalled", 6)
async def _(golden: Replay) -> None:
    await _expire(golden, "stalled-check")
    await _sweep(golden, "1")


@step("06-stalled", 7)
async def _(golden: Replay) -> None:
    reply = await golden.turn(token="tok-4", claims=1)
    assert [record.deferred_failure for _, record in reply.claimed] == ["job stalled more than allowable limit"]


@step("06-stalled", 8)
async def _(golden: Replay) -> None:
    await golden.end(endings.failed("1", "tok-4", "job stalled more than allowable limit", STACKS[0], "", 0))


@step("06-stalled", 9)
async def _(golden: Replay) -> None:
    await golden.end(endings.completed("2", "wrong", b"1", ""), code=replies.LOCK_MISMATCH)


@step("06-stalled", 10)
async def _(golden: Replay) -> None:
    await _expire(golden, "2:lock")
    await golden.end(endings.completed("2", "tok-2", b"1", ""), code=replies.MISSING_LOCK)


# ── 07 flows: what a child's end does to its parent ───────────────────────────────────────────────────────────


@step("07-flow", 0)
@step("07b-flow-fail-parent", 0)
@step("07c-flow-ignore-dependency", 0)
@step("07d-flow-continue-parent", 0)
@step("07e-flow-remove-dependency", 0)
@step("07f-flow-no-option", 0)
async def _(golden: Replay) -> None:
    assert await golden.add_flow(golden.job("P", "pq"), golden.job("C1", "cq"), golden.job("C2", "cq")) == ["P", "C1", "C2"]


def _flow_job(golden: Replay, name: str, job_id: str, data: str, *, parent: str = "", flags: str = "", **opts: object) -> NewJob:
    """A job of a flow as it is given, where the dump has it changed or no more."""
    if not parent:
        return new_job(name, data, json.dumps({"attempts": 0, "jobId": job_id, **opts}), golden.step.clock, job_id)
    queue = f"{golden.prefix}:pq"
    said = {flags: True} if flags else {}
    options = {**said, **opts, "parent": {"id": parent, "queue": queue}, "jobId": job_id, "attempts": 0}
    link = json.dumps({"id": parent, "queueKey": queue, **said})
    return new_job(name, data, json.dumps(options), golden.step.clock, job_id, f"{queue}:{parent}", link)


def _family(golden: Replay, flags: str = "") -> tuple[NewJob, NewJob, NewJob]:
    """The parent and the two children of most of these scenarios."""
    children = [_flow_job(golden, "c", f"C{n}", f'{{"c":{n}}}', parent="P", flags=flags) for n in (1, 2)]
    return _flow_job(golden, "parent", "P", '{"p":1}'), children[0], children[1]


async def _child_completes(golden: Replay, job_id: str, value: bytes, *, claimed_at: int | None = None, keep: str = "") -> None:
    await golden.claim(job_id, "tok", queue="cq", now=claimed_at)
    await golden.end(endings.completed(job_id, "tok", value, keep), queue="cq")


async def _parent_completes(golden: Replay) -> None:
    await golden.claim("P", "tok", queue="pq")
    await golden.end(endings.completed("P", "tok", b'"parent-done"', ""), queue="pq")


@step("07b-flow-fail-parent", 1)
@step("07c-flow-ignore-dependency", 1)
@step("07d-flow-continue-parent", 1)
@step("07e-flow-remove-dependency", 1)
@step("07f-flow-no-option", 1)
async def _(golden: Replay) -> None:
    await golden.claim("C1", "tok", queue="cq", now=T0)
    await golden.end(endings.failed("C1", "tok", "child broke", STACKS[0], "", 0), queue="cq")


@step("07b-flow-fail-parent", 4)
@step("07c-flow-ignore-dependency", 2)
@step("07d-flow-continue-parent", 5)
@step("07e-flow-remove-dependency", 2)
@step("07f-flow-no-option", 2)
async def _(golden: Replay) -> None:
    await _child_completes(golden, "C2", b'{"v":2}')


@step("07c-flow-ignore-dependency", 3)
@step("07d-flow-continue-parent", 6)
@step("07e-flow-remove-dependency", 3)
async def _(golden: Replay) -> None:
    await _parent_completes(golden)


@step("07b-flow-fail-parent", 5)
@step("07f-flow-no-option", 3)
async def _(golden: Replay) -> None:
    assert (await golden.claim_nothing("pq")).state is ClaimState.EMPTY


@step("07-flow", 1)
async def _(golden: Replay) -> None:
    await _child_completes(golden, "C1", b'{"v":1}')


@step("07-flow", 2)
async def _(golden: Replay) -> None:
    await _child_completes(golden, "C2", b'{"v":2}', claimed_at=T0)


@step("07-flow", 3)
async def _(golden: Replay) -> None:
    await golden.claim("P", "tok-p", queue="pq")


@step("07-flow", 4)
async def _(golden: Replay) -> None:
    await golden.end(endings.completed("P", "tok-p", b'"parent-done"', ""), queue="pq")


@step("07b-flow-fail-parent", 2)
async def _(golden: Replay) -> None:
    reply = await golden.turn("pq", token="tok-p0", claims=1)
    assert [record.deferred_failure for _, record in reply.claimed] == [f"child {golden.prefix}:cq:C1 failed"]


@step("07b-flow-fail-parent", 3)
async def _(golden: Replay) -> None:
    await golden.end(endings.failed("P", "tok-p0", f"child {golden.prefix}:cq:C1 failed", STACKS[0], "", 0), queue="pq")


@step("07d-flow-continue-parent", 2)
async def _(golden: Replay) -> None:
    await golden.claim("P", "tok-p0", queue="pq")


@step("07d-flow-continue-parent", 3)
async def _(golden: Replay) -> None:
    await golden.end(endings.completed("P", "tok-p0", b"1", ""), queue="pq", code=replies.PENDING_CHILDREN)


@step("07d-flow-continue-parent", 4)
async def _(golden: Replay) -> None:
    await golden.end(endings.waiting_for_children("P", "tok-p0"), queue="pq")


@step("07g-flow-dynamic", 0)
async def _(golden: Replay) -> None:
    parent = _flow_job(golden, "parent", "P", '{"step":1}')
    assert await golden.queue("pq").add([parent]) == [("P", True)]
    await golden.claim("P", "tok-p", queue="pq")
    child = _flow_job(golden, "c", "C1", '{"c":1}', parent="P", flags="fpof")
    assert await golden.queue("cq").add([child]) == [("C1", True)]


@step("07g-flow-dynamic", 1)
async def _(golden: Replay) -> None:
    await golden.end(endings.waiting_for_children("P", "tok-p"), queue="pq")


@step("07g-flow-dynamic", 2)
async def _(golden: Replay) -> None:
    await _child_completes(golden, "C1", b"1")


@step("07g-flow-dynamic", 3)
async def _(golden: Replay) -> None:
    await golden.claim("P", "tok-p2", queue="pq")
    await golden.end(endings.waiting_for_children("P", "tok-p2"), queue="pq", code=1)


@step("07g-flow-dynamic", 4)
async def _(golden: Replay) -> None:
    await golden.end(endings.completed("P", "tok-p2", b'"done"', ""), queue="pq")


@step("07g-flow-dynamic", 5)
async def _(golden: Replay) -> None:
    with pytest.raises(ParentError, match="pq:nope"):
        await golden.queue("cq").add([_flow_job(golden, "c", "orphan", "{}", parent="nope")])


@step("07h-flow-retry-child", 0)
async def _(golden: Replay) -> None:
    await golden.add_flow(*_family(golden, "fpof"))
    await golden.claim("C1", "tok", queue="cq")
    await golden.end(endings.failed("C1", "tok", "child broke", STACKS[0], "", 0), queue="cq")


@step("07h-flow-retry-child", 1)
async def _(golden: Replay) -> None:
    await golden.queue("cq").retry_job("C1", "failed", lifo=False, reset_made=False, reset_started=False)


@step("07i-flow-removal", 1)
async def _(golden: Replay) -> None:
    assert await golden.queue("cq").remove("C2")


@step("07i-flow-removal", 0)
async def _(golden: Replay) -> None:
    await golden.add_flow(*_family(golden))
    assert await golden.queue("cq").remove("C1")


@step("07i-flow-removal", 2)
async def _(golden: Replay) -> None:
    assert await golden.queue("pq").remove("P")
    await golden.add_flow(*_family(golden))


@step("07i-flow-removal", 3)
async def _(golden: Replay) -> None:
    assert await golden.queue("pq").remove("P")


@step("07j-flow-parent-delay-priority", 1)
async def _(golden: Replay) -> None:
    await _child_completes(golden, "K1", b"1")


@step("07j-flow-parent-delay-priority", 2)
async def _(golden: Replay) -> None:
    await _child_completes(golden, "K2", b"2", keep=endings.keep_rule(0, None))


@step("07j-flow-parent-delay-priority", 0)
async def _(golden: Replay) -> None:
    late = _flow_job(golden, "p", "PD", "{}", delay=4_000), _flow_job(golden, "c", "K1", "{}", parent="PD")
    urgent = _flow_job(golden, "p", "PP", "{}", priority=3), _flow_job(golden, "c", "K2", "{}", parent="PP", removeOnComplete=True)
    assert await golden.add_flow(*late) == ["PD", "K1"]
    assert await golden.add_flow(*urgent) == ["PP", "K2"]


@step("07j-flow-parent-delay-priority", 3)
async def _(golden: Replay) -> None:
    assert await golden.add_flow(_flow_job(golden, "p", "PX", "{}"), _flow_job(golden, "c", "K1", "{}", parent="PX")) == ["PX", None]


# ── 08 job schedulers ─────────────────────────────────────────────────────────────────────────────────────────

NIGHTLY: Final = Iteration("nightly", {}, {"pattern": "0 0 3 * * *", "tz": "UTC", "limit": 2})


def _schedulers(golden: Replay) -> SchedulerCommands:
    return SchedulerCommands(golden.server, golden.queue().keys)


async def _follow(golden: Replay, job_id: str, token: str, iteration: Iteration, count: int, following: str, next_ms: int = 0) -> None:
    """What a worker does with an iteration: claim it, and add the one that follows. A second time nothing is added."""
    await golden.claim(job_id, token)
    at = (golden.step.clock, iteration.scheduler_id, job_id, next_ms, count, iteration)
    assert await _schedulers(golden).next_iteration(*at) == following
    assert await _schedulers(golden).next_iteration(*at) == ""


@step("08-scheduler-every", 0)
async def _(golden: Replay) -> None:
    template = {"attempts": 2, "removeOnComplete": 5}
    upsert = SchedulerUpsert(
        "sch", "tick", b'{"a":1}', Iteration("sch", template, {"every": 60_000}),
        {"name": "tick", "every": 60_000, "opts": json.dumps(template), "data": '{"a":1}'}, every_ms=60_000,
    )  # fmt: skip
    assert await _schedulers(golden).upsert_scheduler(T0, upsert) == (f"repeat:sch:{T0}", 0)


@step("08-scheduler-every", 1)
async def _(golden: Replay) -> None:
    iteration = Iteration("sch", {"attempts": 2, "removeOnComplete": 5}, {"every": 60_000})
    await _follow(golden, f"repeat:sch:{T0}", "tok-1", iteration, 2, f"repeat:sch:{T0 + 60_000}")


@step("08-scheduler-every", 3)
async def _(golden: Replay) -> None:
    iteration = Iteration("sch", {"attempts": 2, "removeOnComplete": 5}, {"every": 60_000})
    await _follow(golden, f"repeat:sch:{T0 + 60_000}", "tok-2", iteration, 3, f"repeat:sch:{T0 + 120_000}")


@step("08-scheduler-every", 4)
async def _(golden: Replay) -> None:
    await golden.end(endings.completed(f"repeat:sch:{T0 + 60_000}", "tok-2", b'"ok"', endings.keep_rule(5, None)))
    upsert = SchedulerUpsert(
        "sch", "tick", b'{"a":2}', Iteration("sch", {}, {"every": 120_000}),
        {"name": "tick", "every": 120_000, "data": '{"a":2}'}, every_ms=120_000,
    )  # fmt: skip
    assert await _schedulers(golden).upsert_scheduler(golden.step.clock, upsert) == (f"repeat:sch:{T0 + 180_000}", 120_000)


@step("08-scheduler-every", 5)
async def _(golden: Replay) -> None:
    assert await _schedulers(golden).remove_scheduler("sch")
    assert not await _schedulers(golden).remove_scheduler("sch")


@step("08b-scheduler-cron", 0)
async def _(golden: Replay) -> None:
    due = Cron("0 0 3 * * *", "UTC").next_ms(T0)
    record: dict[str, str | int] = {"name": "report", "pattern": "0 0 3 * * *", "tz": "UTC", "limit": 2, "data": '{"r":1}'}
    upsert = SchedulerUpsert("nightly", "report", b'{"r":1}', NIGHTLY, record, next_ms=due)
    assert await _schedulers(golden).upsert_scheduler(T0, upsert) == ("repeat:nightly:1700017200000", 17_200_000)


@step("08b-scheduler-cron", 1)
async def _(golden: Replay) -> None:
    due = Cron("0 0 3 * * *", "UTC").next_ms(golden.step.clock)
    iteration = Iteration("nightly", {"attempts": 0}, NIGHTLY.repeat)
    await _follow(golden, "repeat:nightly:1700017200000", "tok-1", iteration, 2, "repeat:nightly:1700103600000", due)


@step("08c-scheduler-every-options", 0)
async def _(golden: Replay) -> None:
    upsert = SchedulerUpsert(
        "off", "o", b"{}", Iteration("off", {}, {"offset": 15_000, "every": 60_000}),
        {"name": "o", "every": 60_000}, every_ms=60_000, offset_ms=15_000,
    )  # fmt: skip
    assert await _schedulers(golden).upsert_scheduler(T0, upsert) == (f"repeat:off:{T0 + 55_000}", 55_000)


@step("08c-scheduler-every-options", 1)
async def _(golden: Replay) -> None:
    start = T0 + 90_000
    upsert = SchedulerUpsert(
        "start", "st", b'{"s":1}', Iteration("start", {"priority": 3}, {"startDate": start, "every": 60_000}),
        {"name": "st", "every": 60_000, "opts": '{"priority":3}', "data": '{"s":1}', "startDate": start}, every_ms=60_000, start_ms=start,
    )  # fmt: skip
    assert await _schedulers(golden).upsert_scheduler(T0, upsert) == (f"repeat:start:{start}", 90_000)


OFFSET: Final = Iteration("off", {"attempts": 0}, {"offset": 15_000, "every": 60_000})


@step("08c-scheduler-every-options", 2)
async def _(golden: Replay) -> None:
    await _follow(golden, f"repeat:off:{T0 + 55_000}", "tok-1", OFFSET, 2, f"repeat:off:{T0 + 115_000}")


@step("08c-scheduler-every-options", 3)
async def _(golden: Replay) -> None:
    await _follow(golden, f"repeat:off:{T0 + 115_000}", "tok-2", OFFSET, 3, f"repeat:off:{T0 + 295_000}")


@step("08-scheduler-every", 2)
async def _(golden: Replay) -> None:
    await golden.end(endings.completed("repeat:sch:1700000000000", "tok-1", b'"ok"', endings.keep_rule(5, None)))


@step("08b-scheduler-cron", 2)
async def _(golden: Replay) -> None:
    first, last = "repeat:nightly:1700017200000", "repeat:nightly:1700103600000"
    await golden.end(endings.completed(first, "tok-1", b'"ok"', ""), now=T0 + 17_200_007)
    await golden.claim(last, "tok-2")  # the limit ends the schedule: no next iteration


@step("08b-scheduler-cron", 3)
async def _(golden: Replay) -> None:
    job_id = "repeat:nightly:1700103600000"
    await golden.end(endings.completed(job_id, "tok-2", b'"ok"', ""))


# ── 09 pause ──────────────────────────────────────────────────────────────────────────────────────────────────


@step("09-pause-resume", 0)
async def _(golden: Replay) -> None:
    await golden.queue().set_max_events(None)
    await golden.add("1", "2")
    await golden.queue().pause()


@step("09-pause-resume", 3)
@step("09b-resume-legacy-paused-list", 1)
async def _(golden: Replay) -> None:
    await golden.queue().resume()


@step("09b-resume-legacy-paused-list", 0)
async def _(golden: Replay) -> None:
    await golden.queue().set_max_events(None)
    await golden.queue().pause()
    await golden.add("1", "2")
    for job_id in ("old-1", "old-2"):  # what an old version left behind
        await golden.raw(
            "HSET",
            f"{golden.prefix}:q:{job_id}",
            *(part for pair in golden.step.keys[f"bull:q:{job_id}"]["value"].items() for part in pair),
        )
        await golden.raw("LPUSH", f"{golden.prefix}:q:paused", job_id)


@step("09-pause-resume", 1)
async def _(golden: Replay) -> None:
    await golden.add("3", "4")


@step("09-pause-resume", 2)
async def _(golden: Replay) -> None:
    assert (await golden.claim_nothing()).state is ClaimState.BLOCKED


@step("09-pause-resume", 4)
async def _(golden: Replay) -> None:
    await golden.claim("1", "tok-2")


# ── 10 deduplication ──────────────────────────────────────────────────────────────────────────────────────────


async def _add_with(golden: Replay, n: int, deduplication: str, stands: str, *, delay: int | None = None) -> None:
    """Add a job with these options; `stands` is the id of the job that stands for it, its own if it was added."""
    opts = {"attempts": 0, "de": json.loads(deduplication)} | ({} if delay is None else {"delay": delay})
    await golden.add_new(stands, "d", f'{{"n":{n}}}', json.dumps(opts))


@step("10-dedup", 0)
async def _(golden: Replay) -> None:
    await _add_with(golden, 1, '{"id":"simple"}', "1")
    await _add_with(golden, 2, '{"id":"simple"}', "1")


@step("10-dedup", 2)
async def _(golden: Replay) -> None:
    await _add_with(golden, 3, '{"id":"thr","ttl":5000}', "3")
    await _add_with(golden, 4, '{"id":"thr","ttl":5000}', "3")


DEBOUNCE = '{"id":"deb","replace":true,"extend":true,"ttl":3000}'


@step("10-dedup", 4)
async def _(golden: Replay) -> None:
    await _add_with(golden, 5, DEBOUNCE, "5", delay=3_000)


@step("10-dedup", 5)
async def _(golden: Replay) -> None:
    await _add_with(golden, 6, DEBOUNCE, "6", delay=3_000)


@step("10-dedup", 7)
async def _(golden: Replay) -> None:
    last = '{"id":"last","keepLastIfActive":true}'
    await golden.end(endings.completed("6", "tok-3", b"1", ""))
    await _add_with(golden, 7, last, "7")
    await golden.claim("7", "tok-4")
    await _add_with(golden, 8, last, "7")
    await _add_with(golden, 9, last, "7")


@step("10-dedup", 10)
async def _(golden: Replay) -> None:
    rs = '{"id":"rs","reschedule":true}'
    await _add_with(golden, 10, rs, "11", delay=1_000)
    await _add_with(golden, 11, rs, "11", delay=8_000)


@step("10-dedup", 11)
async def _(golden: Replay) -> None:
    await golden.raw("SET", f"{golden.prefix}:q:de:stale", "no such job")
    await _add_with(golden, 12, '{"id":"stale"}', "13")


def _runs(job_id: str) -> Act:
    async def act(golden: Replay) -> None:
        await golden.claim(job_id, "tok")
        await golden.end(endings.completed(job_id, "tok", b"1", ""))

    return act


step("10-dedup", 1)(_runs("1"))
step("10-dedup", 3)(_runs("3"))


@step("10-dedup", 6)
async def _(golden: Replay) -> None:
    await golden.claim("6", "tok-3")


@step("10-dedup", 8)
async def _(golden: Replay) -> None:
    await golden.end(endings.completed("7", "tok-4", b"1", ""))


@step("10-dedup", 9)
async def _(golden: Replay) -> None:
    assert await golden.queue().remove("9")


# ── 11 limits ──────────────────────────────────────────────────────────────────────────────────────────────────


@step("11-limits", 0)
async def _(golden: Replay) -> None:
    await golden.queue().set_meta({"concurrency": 1})
    await golden.add("1", "2", "3", "4")


@step("11-limits", 1)
async def _(golden: Replay) -> None:
    await golden.claim("1", "tok-1")
    assert (await golden.claim_nothing()).state is ClaimState.BLOCKED


@step("11-limits", 2)
async def _(golden: Replay) -> None:
    await golden.add("5")


@step("11-limits", 3)
async def _(golden: Replay) -> None:
    await golden.end(endings.completed("1", "tok-1", b"1", ""))


@step("11-limits", 4)
async def _(golden: Replay) -> None:
    await golden.queue().drop_meta("concurrency")
    await golden.queue().set_meta({"max": 1, "duration": 10_000})
    await golden.claim("2", "tok-3")


@step("11-limits", 5)
async def _(golden: Replay) -> None:
    reply = await golden.claim_nothing()
    assert reply.state is ClaimState.LIMITED
    assert 8_000 < reply.value <= 10_000


@step("11-limits", 6)
async def _(golden: Replay) -> None:
    reply = await golden.turn(endings=[endings.completed("2", "tok-3", b"1", "")], claims=1)
    assert (reply.codes, reply.state) == ([0], ClaimState.LIMITED)


@step("11-limits", 7)
async def _(golden: Replay) -> None:
    await golden.queue().drop_meta("max", "duration")
    await golden.queue().drop_rate_limit()
    reply = await golden.turn(token="tok-5", claims=1, limit=(2, 5_000))
    assert [record.job_id for _, record in reply.claimed] == ["3"]


@step("11-limits", 8)
async def _(golden: Replay) -> None:
    await golden.queue().limit_rate(7_000)
    reply = await golden.turn(endings=[endings.put_back("3", "tok-5", 0)])
    left_ms = int(reply.details[0])
    assert reply.codes == [0]
    assert 5_000 < left_ms <= 7_000


# ── 12 keep rules and removal ─────────────────────────────────────────────────────────────────────────────────


async def _complete_with_rule(golden: Replay, job_id: str, opts: str, keep: str, added_at: int, ended_at: int) -> None:
    await golden.add_new(job_id, "x", f'{{"n":{job_id}}}', opts, added_at)
    await golden.claim(job_id, "tok", now=added_at)
    value = b'"gone"' if job_id == "1" else job_id.encode()
    await golden.end(endings.completed(job_id, "tok", value, keep), now=ended_at, metrics_points=METRICS_POINTS)


@step("12-removal", 0)
async def _(golden: Replay) -> None:
    await _complete_with_rule(golden, "1", '{"attempts":0,"removeOnComplete":true}', endings.keep_rule(0, None), T0, T0)


@step("12-removal", 1)
async def _(golden: Replay) -> None:
    for minute, job_id in enumerate("2345"):
        added_at = T0 + minute * 60_000
        opts = '{"attempts":0,"removeOnComplete":{"count":2}}'
        await _complete_with_rule(golden, job_id, opts, endings.keep_rule(2, None), added_at, added_at + 60_000)


@step("12-removal", 2)
async def _(golden: Replay) -> None:
    opts = '{"attempts":0,"removeOnComplete":{"age":30}}'
    await _complete_with_rule(golden, "6", opts, endings.keep_rule(None, 30_000), T0 + 240_000, T0 + 420_000)


@step("12-removal", 3)
async def _(golden: Replay) -> None:
    await golden.add("7")
    await golden.claim("7", "tok")
    await golden.end(endings.failed("7", "tok", "bad", STACKS[0], endings.keep_rule(1, None), 0), metrics_points=METRICS_POINTS)


@step("12-removal", 4)
async def _(golden: Replay) -> None:
    await golden.add_new("8", "x", '{"n":8}', '{"attempts":0}')
    await golden.add("9", "10")
    assert await golden.queue().remove("8")


@step("12-removal", 5)
async def _(golden: Replay) -> None:
    await golden.claim("10", "tok-10")
    assert not await golden.queue().remove("10")


@step("12-removal", 6)
async def _(golden: Replay) -> None:
    await golden.end(endings.completed("10", "tok-10", b"1", ""), metrics_points=METRICS_POINTS)
    assert await golden.queue().drain(delayed=False) == 0
    assert await golden.queue().clean("completed", golden.step.clock, 100) == ["10", "6"]


@step("12-removal", 7)
async def _(golden: Replay) -> None:
    assert await golden.queue().drain(delayed=True) == 1


@step("12-removal", 8)
async def _(golden: Replay) -> None:
    await golden.queue().pause()
    await golden.queue().obliterate(force=False)


# ── 13 moves asked for by a handler ───────────────────────────────────────────────────────────────────────────


@step("13-active-moves", 0)
async def _(golden: Replay) -> None:
    await golden.add_new("1", "m", '{"n":1}', '{"attempts":0}')
    await golden.claim("1", "tok")
    await golden.end(endings.put_off("1", "tok", 2_000))


@step("13-active-moves", 1)
async def _(golden: Replay) -> None:
    assert await golden.queue().move_all("delayed", None, None) == 1


@step("13-active-moves", 2)
async def _(golden: Replay) -> None:
    await golden.claim("1", "tok")
    await golden.end(endings.failed("1", "tok", "x", STACKS[0], "", 0))
    assert await golden.queue().move_all("failed", None, T0) == 1


@step("13-active-moves", 3)
async def _(golden: Replay) -> None:
    await golden.claim("1", "tok")
    await golden.end(endings.put_back("1", "tok"))


# ── the tests ─────────────────────────────────────────────────────────────────────────────────────────────────

ALL: Final = [found for name in scenarios() for found in scenario(name)]


def _act(golden_step: GoldenStep) -> Act:
    return STEPS[golden_step.scenario, golden_step.number]


def _id(golden_step: GoldenStep) -> str:
    return f"{golden_step.scenario.partition('-')[0]}.{golden_step.number}"


def test_every_golden_step_is_replayed() -> None:
    assert {(found.scenario, found.number) for found in ALL} == STEPS.keys()


@pytest.mark.parametrize("golden_step", ALL, ids=_id)
async def test_a_step_leaves_what_node_leaves(server: Server, prefix: str, golden_step: GoldenStep, compared: Compared) -> None:
    golden = Replay(server, prefix, golden_step)
    await golden.load()
    await _act(golden_step)(golden)
    assert await golden.differences() == []
    compared.steps += 1


@pytest.mark.parametrize("name", ["01-standard", "04-retry-exponential", "06-stalled"])
async def test_a_whole_scenario_from_an_empty_server_goes_as_with_node(server: Server, prefix: str, name: str, compared: Compared) -> None:
    golden = Replay(server, prefix, scenario(name)[0])
    for golden_step in scenario(name):
        golden.step = golden_step
        await _act(golden_step)(golden)
        assert await golden.differences() == [], golden_step.title
        compared.steps += 1
