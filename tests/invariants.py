"""The invariants I1 to I17 of the wire specification (§9.2): what holds between any two atomic steps, whoever takes them.

    assert await check_invariants(server, prefix) == []

One script reads the prefix's whole key space, so it may be asked at any moment, also while workers run. Each broken invariant
comes back with its number, the ids it concerns and the offending values.

- I11 and I12 (somebody is told of what may run) are weak: a worker may be between taking the marker and its claim. They are
  judged only with `weak=True`, when nobody is on the way.
- I4, I13 and I17 say more between two snapshots: pass the earlier one as `before`.
- Events tell what the keys alone can't (when a delayed job is due, whether counters were reset), as far as the stream goes back.
- I7 can't tell a bulk `promote_jobs` from any other promotion: pass `promoted_in_bulk=True` where there was one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from tests.key_space import COLLECTIONS, KeySpace, QueueSpace, is_second_life, read_key_space
from toril.wire.connection import Server

FIELDS: Final = ("name", "data", "opts", "timestamp", "delay", "priority")
FINISHED: Final = ("completed", "failed")
WEAK: Final = frozenset({11, 12})

_AFTER_JOB: Final = (":lock", ":logs", ":dependencies", ":processed", ":failed", ":unsuccessful")


@dataclass(frozen=True, order=True)
class Broken:
    """One invariant that doesn't hold."""

    number: int
    queue: str
    ids: tuple[str, ...]
    detail: str

    def __str__(self) -> str:
        return f"I{self.number} {self.queue} {', '.join(self.ids)}: {self.detail}"

    __repr__ = __str__


@dataclass(frozen=True)
class Scene:
    """What the invariants are judged by, besides the queue."""

    space: KeySpace
    now_ms: int
    before: KeySpace | None
    promoted_in_bulk: bool

    def earlier(self, queue: QueueSpace) -> QueueSpace | None:
        return None if self.before is None else self.before.queues.get(queue.name)


async def check_invariants(
    server: Server,
    prefix: str,
    *,
    now_ms: int | None = None,
    weak: bool = False,
    before: KeySpace | None = None,
    promoted_in_bulk: bool = False,
) -> list[Broken]:
    """What doesn't hold under this prefix now; see the module.

    Args:
        server: where to look.
        prefix: of all queues that are looked at, those of flows and dead letters among them.
        now_ms: what the clients' clocks say; not given: the real time.
        weak: also judge I11 and I12.
        before: an earlier snapshot.
        promoted_in_bulk: whether delayed jobs were moved by `promote_jobs`.
    """
    space = await read_key_space(server, prefix)
    return broken_in(space, now_ms=now_ms, weak=weak, before=before, promoted_in_bulk=promoted_in_bulk)


def broken_in(
    space: KeySpace, *, now_ms: int | None = None, weak: bool = False, before: KeySpace | None = None, promoted_in_bulk: bool = False
) -> list[Broken]:
    """What doesn't hold in a key space that was read already."""
    scene = Scene(space, time.time_ns() // 1_000_000 if now_ms is None else now_ms, before, promoted_in_bulk)
    return sorted(
        Broken(number, queue.name, tuple(ids), detail)
        for queue in space.queues.values()
        for number, check in CHECKS.items()
        if weak or number not in WEAK
        for ids, detail in check(queue, scene)
    )


Found: TypeAlias = Iterator[tuple[Iterable[str], str]]
Check: TypeAlias = Callable[[QueueSpace, Scene], Found]

CHECKS: Final[dict[int, Check]] = {}


def invariant(number: int) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        CHECKS[number] = check
        return check

    return register


def _number(fields: dict[str, str], name: str) -> int:
    return int(float(fields.get(name, "0")))


# ── where jobs are ────────────────────────────────────────────────────────────────────────────────────────────


@invariant(1)
def _each_id_is_in_one_collection(queue: QueueSpace, scene: Scene) -> Found:
    places = Counter(job_id for name in COLLECTIONS for job_id in queue.members[name])
    for job_id, count in places.items():
        if count > 1:
            yield [job_id], f"in {[name for name in COLLECTIONS for member in queue.members[name] if member == job_id]}"


@invariant(2)
def _ids_and_hashes_go_together(queue: QueueSpace, scene: Scene) -> Found:
    placed = {job_id: name for name in COLLECTIONS for job_id in queue.members[name]}
    for job_id, name in placed.items():
        missing = [field for field in FIELDS if field not in queue.jobs.get(job_id, {})]
        if missing:
            yield [job_id], f"in {name}, and its hash has no {missing}" if job_id in queue.jobs else f"in {name} without a hash"
    for job_id in queue.jobs.keys() - placed.keys():
        yield [job_id], f"in no collection: {queue.jobs[job_id]}"
    for suffix, content in queue.keys.items():
        job_id, colon, kind = suffix.rpartition(":")
        if colon and f":{kind}" in _AFTER_JOB[1:] and suffix not in queue.jobs and job_id not in queue.jobs and job_id != "metrics":
            yield [job_id], f"gone, and its {kind} are left: {content['value']}"


@invariant(3)
def _who_is_locked_is_active(queue: QueueSpace, scene: Scene) -> Found:
    active = set(queue.members["active"])
    for job_id, token in queue.locks.items():
        if job_id not in active:
            yield [job_id], f"locked by {token!r}, and not active"


@invariant(4)
def _suspects_were_active_at_the_last_sweep(queue: QueueSpace, scene: Scene) -> Found:
    active = set(queue.members["active"])
    earlier = scene.earlier(queue)
    for job_id in queue.stalled:
        # Whatever moves an active job strikes it from the suspects; only a removal leaves it there.
        if job_id not in active and "processedOn" in queue.jobs.get(job_id, {}):
            yield [job_id], "suspected of stalling, and it left the active list since"
        elif earlier is not None and job_id not in earlier.stalled:
            if job_id not in active:
                yield [job_id], "newly suspected of stalling, and not active"
        elif earlier is not None and job_id in queue.locks and earlier.locks.get(job_id) == queue.locks[job_id]:
            was, now = earlier.ttl(f"{job_id}:lock"), queue.ttl(f"{job_id}:lock")
            if was is not None and now is not None and now > was:
                yield [job_id], f"suspected of stalling, and its lock was extended from {was} to {now} ms"


# ── what a job's hash says ────────────────────────────────────────────────────────────────────────────────────


@invariant(5)
def _a_job_tells_of_its_end_exactly_if_it_has_ended(queue: QueueSpace, scene: Scene) -> Found:
    states = {job_id: name for name in FINISHED for job_id in queue.members[name]}
    for job_id, fields in queue.jobs.items():
        state = states.get(job_id)
        if ("finishedOn" in fields) != (state is not None):
            yield [job_id], f"finishedOn {fields.get('finishedOn')}, and it is {state or 'not finished'}"
        if ("returnvalue" in fields) != (state == "completed"):
            yield [job_id], f"returnvalue {fields.get('returnvalue')}, and it is {state or 'not finished'}"
        if state == "failed" and ("failedReason" not in fields or "defa" in fields):
            yield [job_id], f"failed, with failedReason {fields.get('failedReason')!r} and defa {fields.get('defa')!r}"


@invariant(6)
def _scores_say_what_the_hash_says(queue: QueueSpace, scene: Scene) -> Found:
    for name in FINISHED:
        for job_id, score in queue.scores[name].items():
            if job_id in queue.jobs and "finishedOn" in queue.jobs[job_id] and score != _number(queue.jobs[job_id], "finishedOn"):
                yield [job_id], f"{name} at {score}, and finishedOn is {queue.jobs[job_id]['finishedOn']}"
    for job_id, score in queue.scores["delayed"].items():
        told = [event["delay"] for event in queue.history.get(job_id, ()) if event["event"] == "delayed" and "delay" in event]
        if told and int(float(told[-1])) != score // 4096:
            yield [job_id], f"due at {score // 4096}, and its last event said {told[-1]}"
    for job_id, score in queue.scores["prioritized"].items():
        if job_id in queue.jobs and score // 2**32 != _number(queue.jobs[job_id], "priority"):
            yield [job_id], f"ordered by priority {score // 2**32}, and its priority is {queue.jobs[job_id].get('priority')}"


@invariant(7)
def _delay_is_set_while_delayed_and_reset_by_promotion(queue: QueueSpace, scene: Scene) -> Found:
    for job_id, score in queue.scores["delayed"].items():
        # One that was moved into the past, or to now, has no delay; but then it is due.
        if job_id in queue.jobs and _number(queue.jobs[job_id], "delay") <= 0 and score // 4096 > scene.now_ms:
            yield [job_id], f"due at {score // 4096}, which is to come, with delay {queue.jobs[job_id].get('delay')}"
    if scene.promoted_in_bulk:
        return
    for job_id in (*queue.members["wait"], *queue.members["prioritized"]):
        moves = [event for event in queue.history.get(job_id, ()) if event["event"] in {"waiting", "delayed", "active"}]
        was_promoted = bool(moves) and moves[-1]["event"] == "waiting" and moves[-1].get("prev") == "delayed"
        if was_promoted and _number(queue.jobs.get(job_id, {}), "delay") != 0:
            yield [job_id], f"was promoted, and still has delay {queue.jobs[job_id]['delay']}"


@invariant(8)
def _no_attempt_ends_that_was_not_started(queue: QueueSpace, scene: Scene) -> Found:
    for job_id, fields in queue.jobs.items():
        made, started, stalled = (_number(fields, name) for name in ("atm", "ats", "stc"))
        if made < 0 or ((made > started or stalled > started) and not queue.was_retried_by_hand(job_id)):
            yield [job_id], f"atm {made}, ats {started}, stc {stalled}"


# ── families ──────────────────────────────────────────────────────────────────────────────────────────────────


@invariant(9)
def _a_parent_knows_each_child_once(queue: QueueSpace, scene: Scene) -> Found:
    for job_id, fields in queue.jobs.items():
        key = f"bull:{queue.name}:{job_id}"
        parent_key = fields.get("parentKey")
        if parent_key is not None and scene.space.find(parent_key) is not None:
            places = [name for name, keys in scene.space.children(parent_key).items() if key in keys]
            if len(places) > 1:
                yield [job_id], f"its parent {parent_key} has it among its {places}"
        for child in scene.space.children(key)["dependencies"]:
            if child.startswith("bull:") and scene.space.find(child) is None:
                yield [job_id], f"depends on {child}, which doesn't exist"


@invariant(10)
def _who_waits_for_children_has_some(queue: QueueSpace, scene: Scene) -> Found:
    for job_id in queue.members["waiting-children"]:
        if not scene.space.children(f"bull:{queue.name}:{job_id}")["dependencies"]:
            yield [job_id], "waits for children, and none is pending"


# ── waking ────────────────────────────────────────────────────────────────────────────────────────────────────


@invariant(11)
def _somebody_is_told_of_what_may_run(queue: QueueSpace, scene: Scene) -> Found:
    waiting = queue.members["wait"] + queue.members["prioritized"]
    if waiting and not queue.is_blocked and "0" not in queue.marker:
        yield waiting, f"may run, and the marker is {queue.marker}"


@invariant(12)
def _somebody_is_told_of_what_is_delayed(queue: QueueSpace, scene: Scene) -> Found:
    scores = queue.scores["delayed"]
    if not scores or "paused" in queue.meta or "0" in queue.marker:
        return
    first_due = min(scores.values()) // 4096
    if "1" not in queue.marker or int(queue.marker["1"]) > first_due:
        yield list(scores), f"the first is due at {first_due}, and the marker is {queue.marker}"


# ── the queue as a whole ──────────────────────────────────────────────────────────────────────────────────────


@invariant(13)
def _ids_are_counted(queue: QueueSpace, scene: Scene) -> Found:
    for job_id in queue.jobs:
        if job_id.isascii() and job_id.isdigit() and not job_id.startswith("0") and int(job_id) > queue.counter:
            yield [job_id], f"the id counter is at {queue.counter}"
    earlier = scene.earlier(queue)
    if earlier is not None and queue.counter < earlier.counter and "id" in queue.keys:
        yield [], f"the id counter went back from {earlier.counter} to {queue.counter}"


@invariant(14)
def _a_deduplication_id_belongs_to_its_job(queue: QueueSpace, scene: Scene) -> Found:
    for deduplication, owner in queue.owners.items():
        fields = queue.jobs.get(owner)
        if queue.ttl(f"de:{deduplication}") is None and fields is not None and fields.get("deid") != deduplication:
            yield [owner], f"de:{deduplication} is its own, and its deid is {fields.get('deid')}"
    for deduplication in queue.payloads:
        if deduplication not in queue.owners or queue.ttl(f"de:{deduplication}") is not None:
            yield [queue.owners.get(deduplication, "?")], f"dn:{deduplication} is kept, and de:{deduplication} is not there for good"


@invariant(15)
def _a_schedule_goes_on(queue: QueueSpace, scene: Scene) -> Found:
    for scheduler, score in queue.schedulers.items():
        record = queue.records.get(scheduler)
        job_id = f"repeat:{scheduler}:{score}"
        if record is None:
            yield [scheduler], "has no record"
        elif job_id not in queue.jobs and not _is_over(record, score, scene.now_ms):
            yield [job_id], f"is the current iteration, and doesn't exist; the record is {record}"


def _is_over(record: dict[str, str], score: int, now_ms: int) -> bool:
    if "limit" in record and _number(record, "ic") >= _number(record, "limit"):
        return True
    end = _number(record, "endDate")
    return end > 0 and (end <= now_ms or "pattern" in record or score + _number(record, "every") > end)


@invariant(16)
def _events_count_what_happened(queue: QueueSpace, scene: Scene) -> Found:
    states = {job_id: name for name in FINISHED for job_id in queue.members[name]}
    for job_id, events in queue.history.items():
        ended: str | None = None
        for event in events:
            if event["event"] in FINISHED:
                if ended is not None:
                    yield [job_id], f"{ended}, and then {event['event']} without having run again"
                ended = event["event"]
            elif is_second_life(event):
                ended = None
        if job_id not in queue.jobs:
            continue
        if ended != states.get(job_id) and (ended is not None or queue.has_whole_history(job_id)):
            yield [job_id], f"it is {states.get(job_id) or 'not finished'}, and its events say {ended}"
        claims, started = sum(event["event"] == "active" for event in events), _number(queue.jobs[job_id], "ats")
        if queue.has_whole_history(job_id) and (started > claims or (started < claims and not queue.was_retried_by_hand(job_id))):
            yield [job_id], f"ats {started}, and {claims} events say that it became active"


@invariant(17)
def _no_more_jobs_are_active_than_allowed(queue: QueueSpace, scene: Scene) -> Found:
    active, limit, earlier = queue.members["active"], queue.concurrency, scene.earlier(queue)
    was_lowered = earlier is not None and len(active) <= len(earlier.members["active"])
    if limit is not None and len(active) > limit and not was_lowered:
        yield active, f"{len(active)} are active, and the queue's concurrency is {limit}"
