"""`make chaos`: jobs of every kind through a storm, and the books afterwards. Exits with 1 if anything was lost, doubled or unexplained.

python -m tests.chaos --minutes 10 --seed 7
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, Final

from tests.chaos import jobs as kinds
from tests.chaos.jobs import LETTERS, WORK, Added
from tests.chaos.ledger import all_jobs, judge, read_runs
from tests.chaos.storm import WORKERS, Storm
from tests.chaos.worker import CONCURRENCY, LOCK_MS, STALLED_MS
from tests.invariants import check_invariants
from tests.proxy import Proxy
from tests.servers import one_server
from toril.clock import real_sleep
from toril.errors import AddOutcomeUnknownError, JobNotFoundError, JobStateError, ServerError
from toril.queues.flows import FlowProducer, flow_job
from toril.queues.job_schedulers import ScheduleRule
from toril.queues.queue import Queue
from toril.testing import eventually
from toril.wire.connection import CONNECT_TIMEOUT_MS, LONGEST_PAUSE_MS, REPLY_TIMEOUT_MS, Server

JOBS_PER_MINUTE: Final = 2_000
PREFIX: Final = "storm"
BATCH: Final = 20
CANCELLED: Final = 0.5
"""Which share of the long jobs somebody wants to be cancelled."""

RECOVERY_S: Final = (max(LOCK_MS, STALLED_MS) + STALLED_MS) / 1_000
"""Within which a job runs again whose worker died."""
LOST_REPLY_S: Final = (REPLY_TIMEOUT_MS + CONNECT_TIMEOUT_MS + LONGEST_PAUSE_MS) / 1_000
"""How long an outcome, or a claim, may hang on a connection that died without a word, until it has been sent on another one."""
WORK_S: Final = 8
"""How long one job may take from its first claim to its end: four attempts of up to 1 s, with 200 ms and a poll between them."""
BOUND_S: Final = RECOVERY_S + LOST_REPLY_S + WORK_S
"""Within which all end after the storm that nothing else has to wait for."""
MEAN_S: Final = 0.9
"""For how long a job takes a slot, all its attempts together, on average over the kinds."""


def bound_s(backlog: int) -> float:
    """How long all may take to end where so many jobs still wait for a slot: on a busy machine killed workers take seconds to start
    again, and the others don't keep up with what is added. Half as much again, since not all have their slots from the beginning."""
    return BOUND_S + 1.5 * backlog * MEAN_S / (WORKERS * CONCURRENCY)


SETTLE_S: Final = 120
LOOK_S: Final = 10


class Producer:
    """Adds jobs of all kinds, evenly over the time, and cancels some."""

    def __init__(self, queue: Queue, flows: FlowProducer, source: Random) -> None:
        self.added: dict[str, Added] = {}
        self.maybe_added = 0
        self._queue = queue
        self._flows = flows
        self._source = source
        self._n = 0

    async def run(self, count: int, seconds: float) -> None:
        started = time.monotonic()
        async with asyncio.TaskGroup() as cancels:
            while self._n < count:
                due_s = self._n / count * seconds - (time.monotonic() - started)
                if due_s > 0:
                    await real_sleep(round(due_s * 1_000))
                try:
                    for one in await self._add():
                        self.added[one.job_id] = one
                        if one.kind == "long" and self._source.random() < CANCELLED:
                            cancels.create_task(self._cancel(one, self._source.randrange(0, 4_000)))
                except (ServerError, AddOutcomeUnknownError):
                    self.maybe_added += BATCH

    async def _add(self) -> list[Added]:
        [kind] = self._source.choices(list(kinds.KINDS), list(kinds.KINDS.values()))
        first = self._n
        self._n += BATCH
        if kind == "flow":
            return await self._add_flows(first)
        ones = [(n, kinds.payload(kind, n, self._source)) for n in range(first, first + BATCH)]
        drafts = [self._queue.job(kind, data, **kinds.OPTIONS[kind]) for _, data in ones]
        added = await self._queue.add_many(drafts, idempotent=True)
        return [Added(n, kind, job.id, fails=data["fails"]) for (n, data), job in zip(ones, added, strict=True)]

    async def _add_flows(self, first: int) -> list[Added]:
        found: list[Added] = []
        for n in range(first, first + BATCH, kinds.CHILDREN + 1):
            numbers = range(n + 1, n + 1 + kinds.CHILDREN)
            children = [flow_job("child", kinds.payload("plain", number, self._source), queue=WORK) for number in numbers]
            parent = flow_job("parent", kinds.payload("plain", n, self._source), queue=WORK, children=children)
            node = await self._flows.add(parent, idempotent=True)
            ids = [child.job.id for child in node.children]
            found += [Added(number, "child", job_id) for number, job_id in zip(numbers, ids, strict=True)]
            found.append(Added(n, "parent", node.job.id, children=ids))
        return found

    async def _cancel(self, one: Added, after_ms: int) -> None:
        await real_sleep(after_ms)
        one.asked_to_cancel = True
        with contextlib.suppress(ServerError, JobStateError, JobNotFoundError):  # it may have ended; the books look at what it became
            await self._queue.cancel(one.job_id, reason="the storm wants it")


async def watch_invariants(server: Server, found: list[str]) -> None:
    """Look at the whole key space every few seconds, until cancelled."""
    while True:
        await real_sleep(5_000)
        with contextlib.suppress(ServerError, TimeoutError):
            found += [f"during the storm: {broken}" for broken in await check_invariants(server, PREFIX)]


async def nothing_left(queue: Queue) -> None:
    counts = await queue.get_job_counts("waiting", "active", "prioritized", "waiting-children")
    delayed = [job.name for job in await queue.get_delayed() if job.name != "tick"]
    assert not any(counts.values()), counts
    assert not delayed, delayed


async def main(minutes: float, seed: int, pause_s: float) -> int:
    print(f"seed {seed}: make chaos ARGS='--minutes {minutes:g} --seed {seed}' repeats this run", flush=True)
    source = Random(seed)
    with tempfile.TemporaryDirectory(prefix="storm") as folder:
        log = Path(folder) / "runs"
        async with one_server(Path(folder) / "kv") as own, Proxy(own.url) as proxy, Server(own.url) as server:
            storm = Storm(own, proxy, PREFIX, log, source)
            try:
                return await _run(storm, server, proxy, log, source, minutes=minutes, pause_s=pause_s)
            finally:
                own.send_signal(signal.SIGCONT)
                await storm.calm()
                await storm.end()


async def _run(storm: Storm, server: Server, proxy: Proxy, log: Path, source: Random, *, minutes: float, pause_s: float) -> int:
    found: list[str] = []
    async with (
        Queue(WORK, prefix=PREFIX, url=proxy.url, dead_letter=LETTERS) as queue,
        Queue(LETTERS, prefix=PREFIX, server=server) as letters,
        FlowProducer(prefix=PREFIX, url=proxy.url) as flows,
    ):
        await storm.start()
        await queue.job_schedulers.upsert("tick", ScheduleRule(every="1s"), name="tick")
        producer = Producer(queue, flows, source)
        raging = asyncio.create_task(storm.rage(pause_s, long_freeze=minutes >= 5))
        watching = asyncio.create_task(watch_invariants(server, found))
        await producer.run(round(minutes * JOBS_PER_MINUTE), minutes * 60)
        storm.ends.set()  # not cancelled: a fault that is under way is mended by what caused it
        watching.cancel()
        await asyncio.wait({raging, watching})
        found += [f"{task.get_name()}: {task.exception()!r}" for task in (raging, watching) if not task.cancelled() and task.exception()]
        await storm.calm()
        over = time.monotonic()
        backlog = sum((await queue.get_job_counts("waiting", "prioritized", "delayed", "waiting-children")).values())
        allowed_s = bound_s(backlog)
        for _ in range(SETTLE_S // LOOK_S):
            try:
                await eventually(lambda: nothing_left(queue), timeout=f"{LOOK_S}s")
                break
            except AssertionError as left:
                print(f"  left {time.monotonic() - over:.0f} s after the storm: {left.args[0] if left.args else ''}", flush=True)
        settled_s = time.monotonic() - over
        if settled_s > allowed_s:
            found.append(f"it took {settled_s:.1f} s after the storm until all had ended, and may take {allowed_s:.0f} s")
        pending = [job.name for job in await queue.get_delayed()]
        if "tick" not in pending and not await _is_waiting(queue, "tick"):
            found.append("the schedule has no next run")
        await queue.job_schedulers.remove("tick")
        await storm.end()
        found += [str(broken) for broken in await check_invariants(server, PREFIX)]
        told = Counter([letter.job_id for letter in await letters.dead_letters.list()])
        ended = await all_jobs(queue)
        runs = await asyncio.to_thread(read_runs, log)
        ledger = judge(producer.added, producer.maybe_added, ended, runs, told, storm.disturbed, server_was_away=storm.server_was_away)
    ledger.wrong += found
    print(ledger)
    print(f"  all ended after the storm in                   {settled_s:.1f} s, of at most {allowed_s:.0f} ({backlog} were still waiting)")
    faults = [f"{count} x {fault}" for fault, count in storm.happened.most_common()]
    print("  faults: " + ", ".join([*faults, f"{proxy.cuts} x a command or its reply cut"]))
    for line in ledger.wrong[:50]:
        print("WRONG", line)
    print("lost = 0, and all is accounted for" if not ledger.wrong else f"{len(ledger.wrong)} things are wrong", flush=True)
    return 1 if ledger.wrong else 0


async def _is_waiting(queue: Queue, name: str) -> bool:
    jobs: list[Any] = [*await queue.get_waiting(), *await queue.get_active()]
    return any(job.name == name for job in jobs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long the storm rages (default: 10)")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1, 10**9), help="of all that is random")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two faults, on average (default: 1)")
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.minutes, given.seed, given.pause)))
