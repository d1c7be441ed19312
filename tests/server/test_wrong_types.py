"""Every public call with each of the queue's keys of a type that it can't be: it works, or raises an error of ours that names the key.
Whatever happens, no job falls out of all states on the way."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias

import pytest

from tests.bench import Bench, done, gone_wrong
from toril import Deduplication, FlowProducer, Job, JobOptions, Queue, ScheduleRule, flow_job
from toril.errors import CommandFailedError, DamagedKeyError, TorilError
from toril.queues.dead_letters import DeadLetters
from toril.queues.job_schedulers import JobSchedulers
from toril.queues.states import STATES, JobState
from toril.wire.connection import Server
from toril.wire.keys import JOB_KINDS, QUEUE_KINDS

JOBS: Final = ("waiting-job", "active-job", "delayed-job", "prioritized-job", "completed-job", "failed-job", "parent")
"""A job is called after the state in which it is; the parent waits for its `child`."""

RULE: Final = ScheduleRule(every="1h")
LETTER: Final[dict[str, object]] = {
    "originalJob": {"id": "7", "name": "n", "data": {}, "opts": {}, "attempts": 1, "queue": "origin"},
    "error": {},
}


@dataclass
class Stage:
    """A queue with a job in every state, a dead letter, a scheduler, and a deduplication; one of its keys is damaged."""

    queue: Queue
    flows: FlowProducer
    jobs: dict[str, Job]

    def job(self, state: str) -> Job:
        return self.jobs[state]


Way: TypeAlias = Callable[[Stage], Awaitable[object]]


def of_each(call: Callable[[Job], Awaitable[object]]) -> list[Way]:
    """The call on the job of every state."""

    async def of(state: str, stage: Stage) -> None:
        await call(stage.job(state))

    return [partial(of, state) for state in JOBS]


async def clean(state: JobState, stage: Stage) -> None:
    await stage.queue.clean("0s", state=state)


CALLS: Final[dict[tuple[type, str], list[Way]]] = {
    (Queue, "add"): [
        lambda stage: stage.queue.add("n"),
        lambda stage: stage.queue.add("n", idempotent=True),
        lambda stage: stage.queue.add("n", job_id="new", lifo=True),
        lambda stage: stage.queue.add("n", job_id="waiting-job"),
        lambda stage: stage.queue.add("n", delay="1h"),
        lambda stage: stage.queue.add("n", priority=3),
        lambda stage: stage.queue.add("n", parent=stage.job("parent")),
        lambda stage: stage.queue.add("n", deduplication=Deduplication("d")),
        lambda stage: stage.queue.add("n", deduplication=Deduplication("active-job", keep_last_if_active=True)),
    ],
    (Queue, "add_many"): [lambda stage: stage.queue.add_many([stage.queue.job("n"), stage.queue.job("n", delay="1h")])],
    (Queue, "cancel"): of_each(lambda job: job.queue.cancel(job.id)),
    (Queue, "clean"): [partial(clean, state) for state in STATES],
    (Queue, "drain"): [lambda stage: stage.queue.drain(delayed=True)],
    (Queue, "find_deduplicated"): [lambda stage: stage.queue.find_deduplicated("d")],
    (Queue, "find_job"): [lambda stage: stage.queue.find_job("waiting-job")],
    (Queue, "find_state"): [lambda stage: stage.queue.find_state("parent")],
    (Queue, "find_orphaned_jobs"): [lambda stage: stage.queue.find_orphaned_jobs()],
    (Queue, "get_counts_per_priority"): [lambda stage: stage.queue.get_counts_per_priority([0, 1])],
    (Queue, "get_job"): [lambda stage: stage.queue.get_job("waiting-job")],
    (Queue, "get_job_logs"): [lambda stage: stage.queue.get_job_logs("waiting-job")],
    (Queue, "get_metrics"): [lambda stage: stage.queue.get_metrics("completed"), lambda stage: stage.queue.get_metrics("failed")],
    (Queue, "obliterate"): [lambda stage: stage.queue.obliterate(force=True)],
    (Queue, "publish_event"): [lambda stage: stage.queue.publish_event("mine", {"a": 1})],
    (Queue, "rate_limit"): [lambda stage: stage.queue.rate_limit("1s")],
    (Queue, "remove"): of_each(lambda job: job.queue.remove(job.id)),
    (Queue, "remove_deduplication_key"): [lambda stage: stage.queue.remove_deduplication_key("d")],
    (Queue, "retry_jobs"): [lambda stage: stage.queue.retry_jobs("failed"), lambda stage: stage.queue.retry_jobs("completed")],
    (Queue, "set_global_concurrency"): [lambda stage: stage.queue.set_global_concurrency(2)],
    (Queue, "set_global_rate_limit"): [lambda stage: stage.queue.set_global_rate_limit(2, "1s")],
    (Queue, "trim_events"): [lambda stage: stage.queue.trim_events(1)],
    (Job, "cancel"): of_each(lambda job: job.cancel()),
    (Job, "change_delay"): of_each(lambda job: job.change_delay("2h")),
    (Job, "change_priority"): of_each(lambda job: job.change_priority(5)),
    (Job, "clear_logs"): [lambda stage: stage.job("waiting-job").clear_logs(), lambda stage: stage.job("waiting-job").clear_logs(keep=1)],
    (Job, "extend_lock"): [lambda stage: stage.job("active-job").extend_lock("1m")],
    (Job, "get_dependencies"): [
        lambda stage: stage.job("parent").get_dependencies("processed"),
        lambda stage: stage.job("parent").get_dependencies("unprocessed"),
        lambda stage: stage.job("parent").get_dependencies("ignored"),
        lambda stage: stage.job("parent").get_dependencies("failed"),
    ],
    (Job, "log"): of_each(lambda job: job.log("row")),
    (Job, "remove"): of_each(lambda job: job.remove()),
    (Job, "remove_child_dependency"): [lambda stage: stage.job("child").remove_child_dependency()],
    (Job, "remove_deduplication_key"): [lambda stage: stage.job("delayed-job").remove_deduplication_key()],
    (Job, "result"): [
        lambda stage: stage.job("completed-job").result(timeout="50ms"),
        lambda stage: stage.job("waiting-job").result(timeout="50ms"),
    ],
    (Job, "retry"): [
        lambda stage: stage.job("failed-job").retry(),
        lambda stage: stage.job("completed-job").retry("completed", reset_attempts=True),
    ],
    (Job, "update_data"): of_each(lambda job: job.update_data({"a": 1})),
    (Job, "update_progress"): of_each(lambda job: job.update_progress(1)),
    (FlowProducer, "add"): [
        lambda stage: stage.flows.add(flow_job("n", queue="q", children=[flow_job("n", queue="q"), flow_job("n", queue="q", delay="1h")]))
    ],
    (FlowProducer, "add_many"): [lambda stage: stage.flows.add_many([flow_job("n", queue="q", children=[flow_job("n", queue="origin")])])],
    (FlowProducer, "get_flow"): [lambda stage: stage.flows.get_flow("parent", queue="q")],
    (DeadLetters, "get"): [lambda stage: stage.queue.dead_letters.get("letter")],
    (DeadLetters, "purge"): [lambda stage: stage.queue.dead_letters.purge("letter")],
    (DeadLetters, "replay"): [
        lambda stage: stage.queue.dead_letters.replay("letter"),
        lambda stage: stage.queue.dead_letters.replay("gone"),
    ],
    (JobSchedulers, "find"): [lambda stage: stage.queue.job_schedulers.find("tick")],
    (JobSchedulers, "follow"): [lambda stage: stage.queue.job_schedulers.follow(stage.job("tick"))],
    (JobSchedulers, "get"): [lambda stage: stage.queue.job_schedulers.get("tick")],
    (JobSchedulers, "is_paused"): [lambda stage: stage.queue.job_schedulers.is_paused("tick")],
    (JobSchedulers, "pause"): [lambda stage: stage.queue.job_schedulers.pause("tick")],
    (JobSchedulers, "resume"): [lambda stage: stage.queue.job_schedulers.resume("tick")],
    (JobSchedulers, "remove"): [lambda stage: stage.queue.job_schedulers.remove("tick")],
    (JobSchedulers, "upsert"): [
        lambda stage: stage.queue.job_schedulers.upsert("tick", ScheduleRule(every="2h")),
        lambda stage: stage.queue.job_schedulers.upsert("tock", ScheduleRule(pattern="0 0 * * *"), options=JobOptions(priority=2)),
    ],
}
"""How each method is called that needs more than its object."""

NOT_CALLED: Final = {(Queue, "open"), (Queue, "close"), (FlowProducer, "close")}

ON: Final[dict[type, Callable[[Stage], object]]] = {
    Queue: lambda stage: stage.queue,
    Job: lambda stage: stage.job("parent"),
    FlowProducer: lambda stage: stage.flows,
    DeadLetters: lambda stage: stage.queue.dead_letters,
    JobSchedulers: lambda stage: stage.queue.job_schedulers,
}


def call_without_arguments(target: Callable[[Stage], object], name: str, stage: Stage) -> Awaitable[object]:
    call: Callable[[], Awaitable[object]] = getattr(target(stage), name)
    return call()


def calls() -> list[tuple[str, Way]]:
    """All public coroutines of these classes, each called in all its ways."""
    found: list[tuple[str, Way]] = []
    for cls, target in ON.items():
        for name, _ in inspect.getmembers(cls, inspect.iscoroutinefunction):
            if name.startswith("_") or (cls, name) in NOT_CALLED:
                continue
            ways = CALLS.get((cls, name)) or [partial(call_without_arguments, target, name)]
            found += [(f"{cls.__name__}.{name}", way) for way in ways]
    return found


KEYS: Final[dict[str, str]] = {
    **QUEUE_KINDS,
    **{job + suffix: kind for job in ("active-job", "parent") for suffix, kind in JOB_KINDS.items()},
    "waiting-job": "hash",
    "completed-job": "hash",
    "failed-job": "hash",
    "letter": "hash",
    "child": "hash",
    "repeat:tick": "hash",
    "de:d": "string",
    "de:active-job": "string",
    "dn:active-job": "hash",
}
"""What follows the queue's base, and of what type it is."""

UNTOUCHED_BY_PLAIN_ADDS: Final = ("delayed", "prioritized", "pc", "completed", "failed", "waiting-children", "stalled", "paused")
"""By jobs that only go to the end of the queue."""

UNTOUCHED: Final = frozenset(suffix for suffix in QUEUE_KINDS if suffix.startswith("metrics")) | {"limiter", "repeat", "stalled-check"}
"""What no add looks at."""

OWN_KEYS: Final = ("cancel:active-job", "unknown:waiting-job", "replayed:letter", "replayed:gone")
"""The same of our own keys, all of them strings."""


@pytest.fixture
async def queue(server: Server, prefix: str) -> AsyncIterator[Queue]:
    async with Queue("q", prefix=prefix, server=server) as queue:
        yield queue


@pytest.fixture
async def flows(server: Server, prefix: str, queue: Queue) -> AsyncIterator[FlowProducer]:
    async with FlowProducer(prefix=prefix, server=server, queues=[queue]) as flows:
        yield flows


async def set_up(bench: Bench, queue: Queue, flows: FlowProducer) -> Stage:
    bench.now = queue.clock.now_ms()
    again = Deduplication("active-job", keep_last_if_active=True)
    jobs: dict[str, Job] = {}
    for state in ("completed-job", "failed-job", "active-job"):
        job = await queue.add("n", job_id=state, deduplication=again if state == "active-job" else None)
        await bench.claim(token="t")
        job.token = "t"
        jobs[state] = job
        if state != "active-job":
            await bench.turn(done(state) if state == "completed-job" else gone_wrong(state))
    await queue.add("n", deduplication=again)
    jobs["delayed-job"] = await queue.add("n", job_id="delayed-job", delay="1h", deduplication=Deduplication("d"))
    jobs["prioritized-job"] = await queue.add("n", job_id="prioritized-job", priority=1)
    jobs["waiting-job"] = await queue.add("n", job_id="waiting-job")
    await jobs["waiting-job"].log("row")
    node = await flows.add(flow_job("n", queue="q", job_id="parent", children=[flow_job("n", queue="q", job_id="child")]))
    jobs["parent"], jobs["child"] = node.job, node.children[0].job
    await Queue("origin", prefix=bench.prefix, server=queue.server).add("n")
    await queue.add("failed-job", LETTER, job_id="letter")
    jobs["tick"] = await queue.job_schedulers.upsert("tick", RULE)
    await queue.set_global_rate_limit(1_000, "1h")
    return Stage(queue, flows, jobs)


KEEP: Final = """#!lua flags=no-writes
local kept = {}
for _, base in ipairs(ARGV) do
  for _, key in ipairs(redis.call("KEYS", base .. "*")) do
    kept[#kept + 1] = key
    kept[#kept + 1] = redis.call("DUMP", key)
  end
end
return kept
"""

PUT_BACK: Final = """#!lua
for _, base in ipairs(KEYS) do
  local keys = redis.call("KEYS", base .. "*")
  if #keys > 0 then redis.call("DEL", unpack(keys)) end
end
for i = 3, #ARGV, 2 do redis.call("RESTORE", ARGV[i], 0, ARGV[i + 1]) end
redis.call("DEL", ARGV[1])
if ARGV[2] == "string" then redis.call("RPUSH", ARGV[1], "damaged") else redis.call("SET", ARGV[1], "damaged") end
"""
"""The whole key space as it was, but for one key (the locks lose their TTL)."""


PLACED: Final = """#!lua flags=no-writes
local found = {}
for _, id in ipairs(ARGV) do
  if redis.call("TYPE", KEYS[1] .. id).ok == "hash" then
    local places = 0
    for _, state in ipairs({ "completed", "failed", "delayed", "prioritized", "waiting-children" }) do
      if type(redis.pcall("ZSCORE", KEYS[1] .. state, id)) == "string" then places = places + 1 end
    end
    for _, state in ipairs({ "active", "wait" }) do
      if type(redis.pcall("LPOS", KEYS[1] .. state, id)) == "number" then places = places + 1 end
    end
    found[#found + 1] = id
    found[#found + 1] = places
  end
end
return found
"""


async def places_of(bench: Bench, stage: Stage) -> dict[str, int]:
    """In how many collections each job is that exists; those of a wrong type don't count."""
    flat = await bench.raw("EVAL", PLACED, 1, bench.keys.base, *(job.id for job in stage.jobs.values()), "letter")
    return dict(zip(map(bytes.decode, flat[::2]), flat[1::2], strict=True))


def as_before(stage: Stage) -> Stage:
    """The stage with jobs that no call has changed."""
    jobs = {name: Job(stage.queue, replace(job.record), token=job.token) for name, job in stage.jobs.items()}
    return Stage(stage.queue, stage.flows, jobs)


@pytest.mark.parametrize("suffix", [*KEYS, *OWN_KEYS])
async def test_a_key_of_a_wrong_type_raises_nothing_but_errors_of_ours_and_they_name_it(
    bench: Bench, queue: Queue, flows: FlowProducer, suffix: str
) -> None:
    key = (bench.keys.own if suffix in OWN_KEYS else bench.keys.base) + suffix
    kind = KEYS.get(suffix, "string")
    unnamed, foreign, lost = list[str](), list[str](), list[str]()
    stage = await set_up(bench, queue, flows)
    kept = await bench.raw("EVAL", KEEP, 0, f"{bench.prefix}:", f"toril:{bench.prefix}:")
    put_back = ("EVAL", PUT_BACK, 2, f"{bench.prefix}:", f"toril:{bench.prefix}:", key, kind, *kept)
    await bench.raw(*put_back)
    before = await places_of(bench, stage)
    for name, call in calls():
        await bench.raw(*put_back)
        try:
            await call(as_before(stage))
        except DamagedKeyError as error:
            if not any(problem.startswith(f"{key} holds a ") for problem in error.problems):
                unnamed.append(f"{name}: {error}")
        except CommandFailedError as error:
            unnamed.append(f"{name}: {error}")
        except TorilError:
            pass
        except Exception as error:  # noqa: BLE001 -- that there is none is what the test shows
            foreign.append(f"{name}: {error!r}")
        after = await places_of(bench, stage)
        lost += [f"{name}: job {job_id} is in {after[job_id]} states" for job_id in before if after.get(job_id, 1) != 1 == before[job_id]]
    assert foreign == []
    assert not lost, "\n".join(lost)
    assert not unnamed, "\n".join(unnamed)


@pytest.mark.parametrize("suffix", [suffix for suffix in QUEUE_KINDS if suffix not in UNTOUCHED])
async def test_an_add_that_is_refused_has_changed_nothing(bench: Bench, queue: Queue, flows: FlowProducer, suffix: str) -> None:
    stage = await set_up(bench, queue, flows)
    await bench.raw("PERSIST", bench.keys.lock("active-job"))  # its time would go on
    await bench.raw("DEL", bench.key(suffix))
    await bench.raw(*(("RPUSH", bench.key(suffix), "x") if QUEUE_KINDS[suffix] == "string" else ("SET", bench.key(suffix), "x")))
    ways = (*CALLS[Queue, "add"], *CALLS[Queue, "add_many"], *CALLS[FlowProducer, "add"])
    refusals: list[str] = []
    for way in ways:
        before = await _but_answers(bench)
        try:
            await way(stage)
        except DamagedKeyError as error:
            refusals.append(error.problems[0])
            after = await _but_answers(bench)
            assert after == before
    assert all(one.startswith(f"{bench.key(suffix)} holds a ") for one in refusals)
    assert len(refusals) == len(ways) or (suffix in UNTOUCHED_BY_PLAIN_ADDS and len(refusals) > 3)


async def _but_answers(bench: Bench) -> dict[str, object]:
    """All keys but the kept answers, whose time goes on."""
    return {key: value for key, value in (await bench.everything()).items() if ":added:" not in key}


@pytest.mark.parametrize("suffix", UNTOUCHED_BY_PLAIN_ADDS)
async def test_a_damaged_key_keeps_no_job_out_that_does_not_touch_it(bench: Bench, queue: Queue, suffix: str) -> None:
    await bench.raw(*(("RPUSH", bench.key(suffix), "x") if QUEUE_KINDS[suffix] == "string" else ("SET", bench.key(suffix), "x")))
    await queue.add("plain", {})
    await queue.add_many([queue.job("plain", {}), queue.job("plain", {}, lifo=True)])
    for touching in (queue.job("late", {}, delay="1h"), queue.job("first", {}, priority=1)):
        with pytest.raises(DamagedKeyError):
            await queue.add_many([queue.job("plain", {}), touching])
    assert await queue.get_waiting_count() == 3
