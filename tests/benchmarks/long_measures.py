"""Measurements of what grows: backlogs, slots, memory; and of how long a start takes."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.peers import ROOT, all_peers
from tests.benchmarks.stand import SLOTS, SLOW_US, Figures, Stand, WrongRunError

MANY_SLOTS: Final = (1, 10, 50, 100, 200, 500)
BACKLOGS: Final = (5, 15, 50)
"""Times the jobs that run."""


async def slots(here: Stand, jobs: int) -> Figures:
    """Drain with few and with many slots."""
    figures: Figures = {}
    for count in MANY_SLOTS:
        await here.fill(jobs)
        outcome = await here.work(jobs, slots=count)
        figures[f"slots_{count}_per_s"] = jobs / outcome["seconds"]
    return figures


async def backlog(here: Stand, jobs: int) -> Figures:
    """What a job costs with few others waiting, and with many: the same number of jobs run, out of more and more.

    Toril adds them, for Node, too: it is faster, and the jobs are the same.
    """
    figures: Figures = {}
    for waiting in (jobs, *(times * jobs for times in BACKLOGS)):
        await here.fill(waiting, by=all_peers()["toril"])
        outcome = await here.work(waiting, jobs)
        figures[f"of_{waiting}_us"] = outcome["seconds"] / jobs * 1e6
        await here.server.ask("FLUSHALL")
    costs = list(figures.values())
    return figures | {"cost_of_backlog": costs[-1] / costs[0]}


async def kinds(here: Stand, jobs: int) -> Figures:
    """What a job costs with ten times as many prioritized ones waiting, or delayed ones."""
    await here.fill(jobs)
    plain = await here.work(jobs)
    await here.fill(jobs, kind="prioritized")
    few = await here.work(jobs)
    await here.fill(10 * jobs, kind="prioritized")
    many = await here.work(10 * jobs, jobs)
    await here.server.ask("FLUSHALL")
    await here.fill(10 * jobs, kind="delayed")
    await here.fill(jobs)
    beside_delayed = await here.work(jobs)
    return {
        "prioritized_us": few["seconds"] / jobs * 1e6,
        "of_many_prioritized_us": many["seconds"] / jobs * 1e6,
        "beside_delayed_us": beside_delayed["seconds"] / jobs * 1e6,
        "cost_of_prioritized": many["seconds"] / few["seconds"],
        "cost_of_delayed": beside_delayed["seconds"] / plain["seconds"],
    }


async def names(here: Stand, jobs: int) -> Figures:
    """Two names on one queue: one is full (5 of its jobs may run, each for 50 ms) and has twice as many jobs ahead of the other's."""
    await here.fill(jobs)
    alone = await here.work(jobs)
    await here.server.ask("FLUSHALL")
    await here.fill(2 * jobs, name="full")
    await here.fill(jobs)
    await here.server.ask("SLOWLOG", "RESET")
    beside = await here.work(jobs)
    slow: list[Any] = await here.server.ask("SLOWLOG", "GET", 100)
    scripts_us = [microseconds for _, _, microseconds, words, *_ in slow if words[0].upper() == b"EVALSHA"]
    return {
        "first_start_ms": beside["first_start_seconds"] * 1e3,
        "of_alone": alone["seconds"] / beside["seconds"],
        "slowest_script_ms": max([SLOW_US, *scripts_us]) / 1e3,
    }


async def memory(here: Stand, jobs: int) -> Figures:
    """The memory of a worker's process after half of the jobs, and after all."""
    producer, worker = await here.programs(2)
    sizes: list[float] = []
    for _ in range(2):
        await worker.ask("listen", jobs=jobs // 2, slots=SLOTS)
        await producer.ask("fill", jobs=jobs // 2)
        here.check(await worker.ask("heard"))
        sizes.append((await worker.ask("memory"))["rss_bytes"])
    return {"rss_mb": sizes[1] / 1e6, "growth": sizes[1] / sizes[0]}


LIST_THIRD_PARTY: Final = """
import sys, toril.names
ours = {*sys.stdlib_module_names, "toril", "__main__"}
files = [name for name, module in sys.modules.items() if getattr(module, "__file__", None) and name.partition(".")[0] not in ours]
print("import " + ", ".join(name for name in files if "-" not in name))
"""
"""Prints the statement that imports what Toril imports of others; what extensions put into `sys.modules` besides has no file."""


async def start(here: Stand, jobs: int) -> Figures:
    """How long the import of all public names takes, `toril --help`, and the start of the example application's worker."""
    python = here.peer.command[0]
    imports = (await _run(python, "-c", LIST_THIRD_PARTY))[1]
    nothing, _ = await _run(python, "-c", "pass")
    third_party, _ = await _run(python, "-c", imports)
    ours, _ = await _run(python, "-c", "import toril.names")
    toril = str(Path(python).with_name("toril"))
    usage, _ = await _run(toril, "--help")
    return {
        "import_ms": (ours - nothing) * 1e3,
        "import_to_third_party": (ours - nothing) / (third_party - nothing),
        "help_ms": usage * 1e3,
        "ready_ms": await _time_to_ready(toril, here.server.url) * 1e3,
    }


async def _run(*command: str) -> tuple[float, str]:
    """Seconds that a program takes, and what it prints."""
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    took = time.perf_counter() - started
    if process.returncode:
        raise WrongRunError(f"{command[0]} ended with {process.returncode}")
    return took, printed.decode()


async def _time_to_ready(toril: str, url: str) -> float:
    """Seconds from the start of the example application's worker until it says that it is ready."""
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        toril, "worker", "app.main:AppModule", cwd=ROOT, env={**os.environ, "REDIS_URL": url}, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        async for line in process.stderr:
            if b" ready " in line:
                return time.perf_counter() - started
        raise WrongRunError("the worker ended before it was ready")
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()
