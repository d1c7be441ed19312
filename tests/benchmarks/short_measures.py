"""Measurements that take seconds: coroutines that give one peer's figures of one round.

A figure's unit is the end of its name: `…_per_s`, `…_ms`, `…_us`, `…_bytes`; others are shares of one.
"""

from __future__ import annotations

import statistics
import time
from typing import Any, Final

from tests.benchmarks.stand import SLOTS, Figures, Stand, WrongRunError, check_results

WARM_UP: Final = 1_000
"""Jobs that are added and thrown away before."""


async def drain(here: Stand, jobs: int, slots: int = SLOTS) -> Figures:
    """Add no-op jobs in bulk, then run them all in one process."""
    producer, worker = await here.programs(2)
    if not here.peer.is_python:  # what a server holds once, such as scripts and the buffers of a connection, is no job's
        await producer.ask("fill", jobs=WARM_UP)
        await here.server.ask("FLUSHALL", "SYNC")
    empty = await here.server_at_rest()
    added = await producer.ask("fill", jobs=jobs)
    full = await here.server_at_rest()
    outcome = await worker.ask("work", jobs=jobs, slots=slots)
    done = await here.server_use()
    here.check(outcome)
    await check_results(worker, jobs)
    figures = {
        "drained_per_s": jobs / outcome["seconds"],
        "added_per_s": jobs / added["seconds"],
        "worker_cpu_us": outcome["cpu_seconds"] / jobs * 1e6,
        "waiting_job_bytes": (full.memory_bytes - empty.memory_bytes) / jobs,
    }
    if not here.peer.is_python:  # their programs ask the server again and again whether all results are there
        figures["server_cpu_us"] = (done.cpu_seconds - full.cpu_seconds) / jobs * 1e6
        figures["server_cpu_add_us"] = (full.cpu_seconds - empty.cpu_seconds) / jobs * 1e6
    return figures


async def adds(here: Stand, jobs: int) -> Figures:
    """Add jobs one after the other, then all at once."""
    [producer] = await here.programs(1)
    one_by_one = await producer.ask("add_one_by_one", jobs=jobs)
    at_once = await producer.ask("add_at_once", jobs=jobs)
    figures: Figures = {}
    if here.peer.key == "toril":
        raw = await producer.ask("raw_round_trips", count=jobs)
        figures["to_raw_round_trip"] = one_by_one["seconds"] / raw["seconds"]
    return figures | {
        "one_by_one_us": one_by_one["seconds"] / jobs * 1e6,
        "one_by_one_per_s": jobs / one_by_one["seconds"],
        "at_once_per_s": jobs / at_once["seconds"],
        "speedup": one_by_one["seconds"] / at_once["seconds"],
    }


async def sleepers(here: Stand, jobs: int) -> Figures:
    """Jobs of 50 ms; how near they come to the time that they must take."""
    producer, worker = await here.programs(2)
    await producer.ask("fill", jobs=jobs, name="sleep")
    outcome = await worker.ask("work", jobs=jobs, slots=SLOTS)
    here.check(outcome)
    return {"of_ideal": jobs / SLOTS * 0.05 / outcome["seconds"]}


async def latency(here: Stand, jobs: int) -> Figures:
    """An idle worker, and another process that adds a job every 20 ms: from the call of the add to the start of the handler."""
    producer, worker = await here.programs(2)
    await worker.ask("listen", jobs=jobs, slots=SLOTS)
    await producer.ask("tick", jobs=jobs, interval_ms=20)
    outcome = await worker.ask("heard")
    here.check(outcome)
    delays_ms = [delay / 1e6 for delay in outcome["delays"]]
    percentiles = statistics.quantiles(delays_ms, n=100)
    return {"p50_ms": percentiles[49], "p99_ms": percentiles[98]}


async def due(here: Stand, jobs: int) -> Figures:
    """Jobs that are due at one instant, with an idle worker there: when the first and the last one start."""
    producer, worker = await here.programs(2)
    await worker.ask("listen", jobs=jobs, slots=SLOTS)
    due_ms = await producer.ask("add_due", jobs=jobs, in_ms=1_000)
    outcome = await worker.ask("heard")
    here.check(outcome)
    first_ms, last_ms = (act(outcome["starts"]) / 1e6 - due_ms for act in (min, max))
    if first_ms < 0:
        raise WrongRunError(f"a job started {-first_ms:.1f} ms before it was due")
    return {"first_ms": first_ms, "last_ms": last_ms}


async def flow(here: Stand, jobs: int) -> Figures:
    """A parent with so many children, added and done: from the call of the add to the return of the parent's handler."""
    producer, worker = await here.programs(2)
    await worker.ask("listen", jobs=jobs + 1, slots=SLOTS)
    started = time.perf_counter()
    await producer.ask("add_flow", children=jobs)
    added = time.perf_counter()
    outcome = await worker.ask("reached")
    ended = time.perf_counter()
    here.check(await worker.ask("heard"))
    here.check(outcome)
    return {"flow_ms": (ended - started) * 1e3, "flow_added_ms": (added - started) * 1e3}


async def bare(here: Stand, jobs: int) -> Figures:
    """The drain beside a bare loop that calls the same script (`make bench`), both in one process without the container."""
    [program] = await here.programs(1)
    taken: dict[str, Any] = await program.ask("bare_loop", jobs=jobs)
    return {"of_bare_loop": taken["bare_seconds"] / taken["seconds"]}
