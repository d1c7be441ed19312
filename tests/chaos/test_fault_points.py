"""A worker stopped dead at each point between two of its commands: another one brings every job to the end that it should have.

No chance is involved: a proxy counts the commands of the worker's process, and at the n-th either lets it not get through, or lets
it be run and drops the reply; nothing gets through any more, and the process is killed. That is done for n = 1, 2, 3… until the
process ends all of its work before the n-th command. `make test` looks at every fourth point, `TORIL_FAULT_POINTS=all` at all.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from tests.chaos.faulty_worker import LETTERS, LOCK_MS, OPTIONS, WORK, handle
from tests.invariants import check_invariants
from tests.key_space import KeySpace, read_key_space
from tests.proxy import Command, Cut, Proxy
from toril.queues.flows import FlowProducer, flow_job
from toril.queues.job import Job
from toril.queues.job_schedulers import ScheduleRule
from toril.queues.option_parts import fixed
from toril.queues.queue import Queue
from toril.testing.eventually import eventually
from toril.wire.commands import shift_ttls
from toril.wire.connection import Server
from toril.worker.worker import Worker

ROOT: Final = Path(__file__).parents[2]
STEP: Final = 1 if os.environ.get("TORIL_FAULT_POINTS") == "all" else 4
MOST: Final = 500

GREETINGS: Final = frozenset({b"HELLO", b"CLIENT", b"INFO", b"AUTH", b"SELECT", b"PING", b"SCRIPT"})
"""What redis-py and the connection say before anything is asked."""

ENDS: Final = {
    "retry": ("completed", 2),
    "left": ("completed", 1),
    "right": ("completed", 1),
    "parent": ("completed", 1),
    "dead": ("failed", 1),
    "cancelled": ("failed", 1),
    "limited": ("completed", 1),
    "tick": ("completed", 1),
}
"""How each job ends, and after how many attempts; one whose worker died before it could end as cancelled made none."""

RUNS: Final = Counter(retry=2, left=1, right=1, parent=1, dead=1, cancelled=1, limited=2, tick=1)


class Fault:
    """What a proxy does with the n-th command of the worker, and with all that come after it."""

    def __init__(self, number: int, cut: Cut) -> None:
        self.left = number
        self._cut = cut

    def __call__(self, command: Command) -> Cut | None:
        if command[0].upper() in GREETINGS:
            return Cut.BEFORE if self.left <= 0 else None
        self.left -= 1
        if self.left == 0:
            return self._cut
        return Cut.BEFORE if self.left < 0 else None


async def _add_work(queue: Queue, server: Server) -> dict[str, Job[Any, Any]]:
    """One job of each kind, by name."""
    drafts = [queue.job(name, {}) for name in ("dead", "cancelled", "limited")]
    jobs = await queue.add_many([queue.job("retry", {}, attempts=2, backoff=fixed("20ms")), *drafts])
    async with FlowProducer(prefix=queue.prefix, server=server) as flows:
        children = [flow_job(name, {}, queue=WORK) for name in ("left", "right")]
        node = await flows.add(flow_job("parent", {}, queue=WORK, children=children))
    jobs += [one.job for one in node]
    jobs.append(await queue.job_schedulers.upsert("hourly", ScheduleRule(every="1h"), name="tick"))
    return {job.name: job for job in jobs}


async def _all_ended(queue: Queue) -> None:
    counts = await queue.get_job_counts()
    assert (counts["completed"], counts["failed"]) == (6, 2), counts


async def _worked_until(fault: Fault, queue: Queue, proxy: Proxy, process: Process) -> bool:
    """Wait until the fault has happened, and kill; False if all work ended before."""
    happened = asyncio.create_task(proxy.happened.wait())
    ended = asyncio.create_task(eventually(lambda: _all_ended(queue), timeout="50s"))
    await asyncio.wait({happened, ended}, return_when=asyncio.FIRST_COMPLETED)
    for task in (happened, ended):
        task.cancel()
    await asyncio.wait({happened, ended})
    process.kill()
    return fault.left <= 0


async def _check(queue: Queue, jobs: dict[str, Job[Any, Any]], runs: Counter[str], at_crash: KeySpace, now: KeySpace) -> None:
    """Every job ended as it should, once; only what was active may have run once more."""
    ids = {job.id: name for name, job in jobs.items()}
    active = {ids[job_id] for job_id in at_crash.queue(WORK).members["active"] if job_id in ids}
    for name, job in jobs.items():
        await job.refresh()
        state, made = ENDS[name]
        was_ended_by_sweep = name == "cancelled" and job.attempts_made == 0 and name in active
        assert (await job.get_state(), job.attempts_made) == (state, 0 if was_ended_by_sweep else made), name
        # A run that was claimed and didn't begin is the one of which "limited" made its first.
        fewest = RUNS[name] - (name == "limited" and name in active)
        assert fewest <= runs[name] <= RUNS[name] + (name in active), (name, runs, active)
        assert job.stalled_count == (name in active), name
    assert (jobs["parent"].return_value, jobs["dead"].failed_reason) == (["left", "right"], "fails for good")
    assert jobs["cancelled"].failed_reason == "cancelled: no longer wanted"
    work, letters = now.queue(WORK), now.queue(LETTERS)
    [letter] = letters.jobs.values()
    assert '"name":"dead"' in letter["data"]
    [next_id] = work.members["delayed"]
    assert next_id == f"repeat:hourly:{work.schedulers['hourly']}" != jobs["tick"].id
    assert len(work.jobs) == len(ENDS) + 1


@pytest.mark.timeout(0)  # each point has its own bounds
@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER], ids=["before_the_server_runs_it", "after_the_server_ran_it"])
async def test_a_worker_stopped_dead_at_a_command_loses_and_doubles_nothing(
    server: Server, toril_server_url: str, prefix: str, cut: Cut
) -> None:
    reached = 0
    for number in range(1 if cut is Cut.BEFORE else min(3, STEP), MOST, STEP):
        if not await _one_point(server, toril_server_url, f"{prefix}-{number}", number, cut):
            break
        reached = number
    assert 15 < reached < MOST - STEP  # it needs some two dozen commands, and came to its end


async def _one_point(server: Server, url: str, prefix: str, number: int, cut: Cut) -> bool:
    async with Proxy(url) as proxy, Queue(WORK, prefix=prefix, server=server) as queue:
        jobs = await _add_work(queue, server)
        fault = Fault(number, cut)
        proxy.decide = fault
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.chaos.faulty_worker", proxy.url, prefix, stdout=PIPE, cwd=ROOT
        )
        try:
            is_fault = await _worked_until(fault, queue, proxy, process)
        finally:
            if process.returncode is None:
                process.kill()
            output, _ = await process.communicate()
        runs = Counter(output.decode().split())
        at_crash = await read_key_space(server, prefix)
        assert await check_invariants(server, prefix) == []
        await _recover(queue, prefix, runs)
        assert await check_invariants(server, prefix) == []
        await _check(queue, jobs, runs, at_crash, await read_key_space(server, prefix))
        return is_fault


async def _recover(queue: Queue, prefix: str, runs: Counter[str]) -> None:
    """Another worker takes over, once the locks of the dead one have run out."""

    async def run(job: Job[Any, Any]) -> Any:  # noqa: ANN401 -- each kind has its own
        return await handle(job, lambda name: runs.update([name]))

    await shift_ttls(queue.server, prefix, LOCK_MS)
    async with Queue(WORK, prefix=prefix, server=queue.server, dead_letter=LETTERS) as again, Worker(again, run, OPTIONS) as worker:
        await eventually(lambda: _all_ended(queue), timeout="30s")
        await worker.wait_until_idle()
