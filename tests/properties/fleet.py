"""A queue's producers, operators and workers in one hand, so that a test can order what they do step by step.

Time is the test's: `pass_time` moves the clock and everything in the server that has a time to live. A worker is one lane that
sends the same turns as a real one, but nothing of it happens by itself: its reply may get lost, the turn may be sent again or
arrive late, and the worker may be dropped between any two commands.

Each operation returns the `Change` that it may make to the set of jobs; the test compares that with what became of the server.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from tests.bench import STACK, T0
from tests.key_space import KeySpace
from toril.queues.dead_letters import letter_about
from toril.queues.flows import FlowProducer
from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.testing.clock import FakeClock
from toril.wire import endings, replies, scripts
from toril.wire.codec import JobRecord
from toril.wire.connection import Server
from toril.wire.endings import Ending
from toril.wire.turns import TurnReply, TurnRequest

LOCK_MS: Final = 30_000
SWEEP_MS: Final = 30_000

JobKey: TypeAlias = tuple[str, str]
"""A queue and an id."""

_PASS_TIME: Final = """#!lua
local by = tonumber(ARGV[1])
for i = 2, #ARGV do
  for _, key in ipairs(redis.call('KEYS', ARGV[i])) do
    local left = redis.call('PTTL', key)
    if left > by then redis.call('PEXPIRE', key, left - by) elseif left > 0 then redis.call('DEL', key) end
  end
end
"""


@dataclass
class Change:
    """What an operation does to the jobs: it adds exactly `come` and so many `letters`, and removes exactly `go`, give or take."""

    come: set[JobKey] = field(default_factory=set[JobKey])
    go: set[JobKey] = field(default_factory=set[JobKey])
    may_come: set[JobKey] = field(default_factory=set[JobKey])
    may_go: set[JobKey] = field(default_factory=set[JobKey])
    letters: int = 0
    is_nothing: bool = False
    """Whether not even an event may have been written."""


@dataclass
class Lane:
    """One lane of a worker on one queue, as the worker sees it."""

    queue: Queue[Any, Any]
    name: str
    sequence: int = 0
    held: dict[str, JobRecord] = field(default_factory=dict[str, JobRecord])
    """The jobs that it runs, by token."""
    must_fail: dict[str, str] = field(default_factory=dict[str, str])
    """Of those the ones that can only fail now, and why."""
    to_follow: list[str] = field(default_factory=list[str])
    """Tokens of iterations whose next one isn't there yet; their handlers have not begun."""
    sent: TurnRequest | None = None
    """The turn whose reply has not come."""
    late: list[TurnRequest] = field(default_factory=list[TurnRequest])
    """Turns that are still on their way, on connections that were given up."""

    @property
    def running(self) -> list[str]:
        """The tokens of the jobs whose handlers could end now."""
        return [token for token in self.held if token not in self.to_follow]


class Fleet:
    """See the module. `space` is the latest snapshot, set by the test."""

    def __init__(self, server: Server, prefix: str) -> None:
        self.server, self.prefix = server, prefix
        self.clock = FakeClock(T0)
        self.queues = {name: Queue[Any, Any](name, prefix=prefix, server=server, clock=self.clock) for name in ("q", "p", "dead")}
        self.flows = FlowProducer(prefix=prefix, server=server, clock=self.clock)
        self.space = KeySpace({}, {})
        self.numbers = itertools.count()
        self.lanes = [self.new_lane("q"), self.new_lane("q"), self.new_lane("p")]
        self.lost: list[Lane] = []
        """Lanes of dropped workers."""
        self.strays: set[str] = set()
        """Tokens of jobs that a turn claimed for nobody: it arrived when its receipt was gone already."""

    @property
    def now_ms(self) -> int:
        return self.clock.now_ms()

    def new_lane(self, queue: str) -> Lane:
        return Lane(self.queues[queue], f"w{next(self.numbers)}:0")

    # ── time ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def pass_time(self, ms: int) -> Change:
        self.clock.advance(f"{ms}ms")
        await self.server.commands.call("EVAL", _PASS_TIME, 0, ms, f"{self.prefix}:*", f"toril:{self.prefix}:*")
        return Change()

    async def sweep(self, queue: str) -> Change:
        await self.queues[queue].commands.sweep_stalled(self.now_ms, SWEEP_MS, 1)
        return Change(may_come=self.kept_payloads())  # a cancelled job ends here

    # ── workers ───────────────────────────────────────────────────────────────────────────────────────────────

    def plan_turn(self, lane: Lane, ways: Sequence[tuple[str, str]], claims: int) -> TurnRequest:
        """The lane's next turn: the first of its running jobs end in these ways (kind, keep rule), in order."""
        lane.sequence += 1
        batch: list[Ending] = []
        for token, (way, keep) in zip(lane.running, ways, strict=False):
            batch.append(self.ending(lane, token, way, keep))
        return TurnRequest(
            self.now_ms, f"{lane.name}:{lane.sequence}", LOCK_MS, lane.name, lane.sequence, batch, claims, free_by_name=()
        )  # fmt: skip

    def ending(self, lane: Lane, token: str, way: str, keep: str) -> Ending:
        record = lane.held[token]
        job_id = record.job_id
        if token in lane.must_fail:
            return self.failure(lane, token, lane.must_fail[token], keep, with_letter=way == "letter")
        match way:
            case "complete":
                return endings.completed(job_id, token, b"1", keep)
            case "fail" | "letter":
                return self.failure(lane, token, "boom", keep, with_letter=way == "letter")
            case "retry" | "delay":
                return endings.retried(job_id, token, "boom", STACK, 5_000 if way == "delay" else 0, lifo=False)
            case "put off":
                return endings.put_off(job_id, token, 2_000)
            case "put back":
                return endings.put_back(job_id, token)
            case "rate limited":
                return endings.put_back(job_id, token, 3_000)
            case "children":
                return endings.waiting_for_children(job_id, token)
            case "unknown":
                return endings.unknown_name(job_id, token, "nobody", STACK, keep, 0, 1_000)
            case _:
                raise ValueError(way)

    def failure(self, lane: Lane, token: str, reason: str, keep: str, *, with_letter: bool) -> Ending:
        record = lane.held[token]
        letter: Ending = ()
        if with_letter:
            job = Job[Any, Any](lane.queue, record, token=token)
            dead = self.queues["dead"]
            letter = endings.dead_letter(dead.keys.base, letter_about(job, reason, STACK, dead))
        return endings.failed(record.job_id, token, reason, STACK, keep, 0, letter)

    async def send(self, lane: Lane, request: TurnRequest, *, is_heard: bool = True) -> Change:
        """Let the server run a turn; then the lane hears of it, or has to send it again."""
        is_repeated = self.was_answered(lane, request)
        lane.sent = request
        reply = await lane.queue.commands.turn(self.server.commands, request)
        if is_heard:
            lane.sent = None
            self.learn(lane, request, reply)
        return Change(is_nothing=True) if is_repeated else self.change_by(lane, request, reply)

    async def send_late(self, lane: Lane) -> Change:
        """An old turn arrives after all, and nobody waits for its answer."""
        request = lane.late.pop(0)
        is_repeated = self.was_answered(lane, request)
        try:
            reply = await lane.queue.commands.turn(self.server.commands, request)
        except replies.StaleTurnError:
            return Change(is_nothing=True)
        if is_repeated:
            return Change(is_nothing=True)
        self.strays.update(token for token, _ in reply.claimed)
        return self.change_by(lane, request, reply)

    def was_answered(self, lane: Lane, request: TurnRequest) -> bool:
        receipt = self.space.keys.get(f"toril:bull:{lane.queue.name}:receipt:{lane.name}")
        return receipt is not None and int(receipt["value"]["seq"]) >= request.sequence

    def learn(self, lane: Lane, request: TurnRequest, reply: TurnReply) -> None:
        """What the lane makes of a reply."""
        for ending, code in zip((ending[-7:] for ending in request.endings), reply.codes, strict=True):
            token = str(ending[2])
            if code in {replies.PENDING_CHILDREN, replies.FAILED_CHILD}:
                lane.must_fail[token] = f"code {code}"
            elif not (ending[0] == "m" and code == replies.NO_CHILD_PENDING):
                lane.held.pop(token, None)
                lane.must_fail.pop(token, None)
        for token, record in reply.claimed:
            lane.held[token] = record
            if record.deferred_failure is not None:
                lane.must_fail[token] = record.deferred_failure
            elif record.scheduler_id is not None:
                lane.to_follow.append(token)

    def change_by(self, lane: Lane, request: TurnRequest, reply: TurnReply) -> Change:
        """What a turn that was not run before does to the jobs."""
        name, queue = lane.queue.name, self.space.queue(lane.queue.name)
        change = Change(may_come=self.kept_payloads())
        for ending, code in zip(request.endings, reply.codes, strict=True):
            kind, job_id = ending[-7], str(ending[-6])
            keep = str(ending[-2] if kind in {"c", "f", "u"} else ending[-1])
            is_cancelled = code == replies.ENDED_CANCELLED
            has_ended = is_cancelled or (kind in {"c", "f"} and code == 0) or code == replies.UNKNOWN_NAME_FAILED
            if has_ended and keep == "0,,":
                change.go.add((name, job_id))
            elif has_ended and keep:
                ended = {str(other[-6]) for other in request.endings}
                change.may_go |= {(name, one) for one in (*queue.members["completed"], *queue.members["failed"], *ended)}
            if len(ending) > 7 and has_ended and not is_cancelled:
                change.letters += 1
        return change

    async def follow(self, lane: Lane) -> Change:
        """Add the iteration after one that the lane has claimed, as it does before the handler begins."""
        token = lane.to_follow.pop(0)
        if token not in lane.held:
            return Change()
        before = set(self.jobs())
        made = await lane.queue.job_schedulers.follow(Job[Any, Any](lane.queue, lane.held[token], token=token))
        return Change(come=set() if made is None else {(lane.queue.name, made)} - before)

    async def renew(self, lane: Lane) -> Change:
        """Extend the lane's locks; it hears which jobs it has lost, and which are to be cancelled."""
        keys = lane.queue.keys
        for token, record in list(lane.held.items()):
            told = await self.server.commands.run(scripts.load("renew_locks"), [keys.base, keys.own], LOCK_MS, record.job_id, token)
            if told and told[1] == 1:
                lane.must_fail[token] = "cancelled"
            elif told:
                lane.held.pop(token)
                lane.must_fail.pop(token, None)
        return Change()

    def drop(self, lane: Lane) -> None:
        """The worker dies; another one takes its place."""
        self.lost.append(lane)
        self.lanes[self.lanes.index(lane)] = self.new_lane(lane.queue.name)

    async def wake(self, lane: Lane) -> bool:
        """Take the marker as a sleeping worker does; whether there was one."""
        return bool(await self.server.commands.call("ZPOPMIN", lane.queue.keys.marker))

    # ── what there is ─────────────────────────────────────────────────────────────────────────────────────────

    def jobs(self, *states: str) -> list[JobKey]:
        """All jobs of the two queues, or those in some collections, in a fixed order."""
        queues = [self.space.queue(name) for name in ("p", "q")]
        if not states:
            return sorted((queue.name, job_id) for queue in queues for job_id in queue.jobs)
        return sorted((queue.name, job_id) for queue in queues for state in states for job_id in queue.members[state])

    def kept_payloads(self) -> set[JobKey]:
        """The jobs that follow when the owner of their deduplication id has ended."""
        return {
            (name, queue.keys[f"dn:{deduplication}"]["value"]["jid"])
            for name, queue in self.space.queues.items()
            for deduplication in queue.payloads
        }

    def ancestors(self, keys: Iterable[JobKey]) -> set[JobKey]:
        """Those that wait for these, and so on upwards."""
        found = set[JobKey]()
        for name, job_id in keys:
            parent_key = self.space.queue(name).jobs.get(job_id, {}).get("parentKey")
            while parent_key is not None and (parent := self.space.find(parent_key)) is not None:
                found.add(_job_key(parent_key))
                parent_key = parent.get("parentKey")
        return found

    def descendants(self, key: JobKey) -> set[JobKey]:
        """Those that this one waits or waited for, and so on downwards."""
        return set(self._below(f"bull:{key[0]}:{key[1]}"))

    def _below(self, key: str) -> Iterator[JobKey]:
        for child in frozenset[str]().union(*self.space.children(key).values()):
            yield _job_key(child)
            yield from self._below(child)

    def pending_iterations(self, name: str) -> set[str]:
        return {f"repeat:{scheduler}:{score}" for scheduler, score in self.space.queue(name).schedulers.items()}

    def stray_locks(self) -> list[str]:
        """Locks that belong to a lane that lives, and doesn't know of them."""
        known = self.strays.union(*(lane.held for lane in self.lanes))
        excused = [lane.name + ":" for lane in (*self.lost, *(lane for lane in self.lanes if lane.sent is not None))]
        return [
            f"{name}:{job_id} {token}"
            for name, queue in self.space.queues.items()
            for job_id, token in queue.locks.items()
            if token not in known and not token.startswith(tuple(excused))
        ]


def _job_key(key: str) -> JobKey:
    _, name, job_id = key.split(":", 2)
    return name, job_id
