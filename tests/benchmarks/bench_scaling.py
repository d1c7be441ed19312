"""How the rate grows with processes, and with the primaries of a Cluster; what one server spends on a job.

    python -m tests.benchmarks.bench_scaling [processes | cluster] [--rounds N] [--seconds N] [--share 0.1]

Real `toril worker` processes take from queues that are full all the time, and what completes in a window is counted. Rounds are
interleaved, and what counts are the ratios inside of a round: these machines are shared, and have few cores. So the processes that are
to be the bottleneck (the workers', or the Cluster's servers) are each held to a share of a core (`throttle.py`), as if each had a slow
core of its own; `--share 0` leaves them alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.crc import key_slot

from tests.app.processes import ROOT, TORIL, Running
from tests.benchmarks.throttle import Throttle
from tests.servers import OwnServer, cluster, free_ports, one_server
from toril import Queue
from toril.wire.connection import Server
from toril.wire.keys import QueueKeys

WARM_UP_S = 1.5
CHUNK = 20_000
QUIET = {"appendfsync": "everysec", "auto_aof_rewrite_percentage": "0"}


@dataclass(frozen=True)
class Figures:
    """Of one window."""

    rate: float
    """Completed jobs a second."""
    server_us: list[float]
    """Of each server: time on a core for a job that completed anywhere."""


class Fleet:
    """Queues on servers, which workers take from."""

    def __init__(self, url: str, servers: Sequence[OwnServer], prefixes: Sequence[str]) -> None:
        self.url, self.servers, self.prefixes = url, servers, prefixes
        self.queues: list[Queue[Any, Any]] = []

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(Server(self.url))
            for number, prefix in enumerate(self.prefixes):
                self.queues.append(await stack.enter_async_context(Queue(f"scaling-{number}", prefix=prefix, server=server)))
            yield

    async def fill(self, name: str, jobs: int) -> None:
        """Add so many jobs to each queue, paused."""
        for queue in self.queues:
            await queue.pause()
            for begin in range(0, jobs, CHUNK):
                rows = range(begin, min(begin + CHUNK, jobs))
                await queue.add_many([queue.job(name, {"n": n, "text": "some text"}, timeout="30s") for n in rows])

    async def measure(self, processes: int, seconds: float, *, servers_share: float = 0, workers_share: float = 0) -> Figures:
        """Run workers for a window, in which no queue may become empty. Shares are of a core, for each process; 0: no bound."""
        environment = os.environ | {"REDIS_URL": self.url, "SCALING_PREFIXES": json.dumps(self.prefixes)}
        command = [TORIL, "worker", "tests.benchmarks.programs.scaling_application:ScalingModule", "--processes", str(processes)]
        worker = await asyncio.to_thread(Running, command, environment, ROOT)
        try:
            await asyncio.to_thread(worker.read_until, " ready ")
            for queue in self.queues:
                await queue.resume()
            with ExitStack() as bounds:
                if servers_share:
                    bounds.enter_context(Throttle([one.pid for one in self.servers], servers_share))
                if workers_share:
                    bounds.enter_context(Throttle(processes_of(worker), workers_share))
                await asyncio.sleep(WARM_UP_S)
                done, used, began = await self._completed(), await self._used(), time.perf_counter()
                await asyncio.sleep(seconds)
                now_done, now_used, ended = await self._completed(), await self._used(), time.perf_counter()
                left = [await queue.get_waiting_count() for queue in self.queues]
        finally:
            worker.process.terminate()
            await asyncio.to_thread(worker.process.wait)
        if not all(left):
            raise RuntimeError("a queue became empty: fill in more")
        jobs = now_done - done
        return Figures(jobs / (ended - began), [(now - before) / jobs * 1e6 for before, now in zip(used, now_used, strict=True)])

    async def _completed(self) -> int:
        return sum([await queue.get_completed_count() for queue in self.queues])

    async def _used(self) -> list[float]:
        return [await cpu_seconds(server) for server in self.servers]


def processes_of(worker: Running) -> list[int]:
    """Those that run jobs: the children of a supervisor, or the only one."""
    pid = worker.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] or [pid]


async def cpu_seconds(server: OwnServer) -> float:
    """What the server has used so far."""
    used: dict[str, float] = await server.ask("INFO", "cpu")
    return used["used_cpu_user"] + used["used_cpu_sys"]


async def on_one_server(kind: str, jobs: int, processes: int, seconds: float, share: float) -> tuple[Figures, str]:
    """A fresh server, one queue; also what a job costs there that is added."""
    with tempfile.TemporaryDirectory() as folder:
        [port] = await asyncio.to_thread(free_ports, 1)
        async with one_server(Path(folder), port=port, **QUIET) as server:
            fleet = Fleet(server.url, [server], ["bull"])
            async with fleet.open():
                before, used = await _taken(server), await cpu_seconds(server)
                await fleet.fill(kind, jobs)
                after = await _taken(server)
                added_us = (await cpu_seconds(server) - used) / jobs * 1e6
                figures = await fleet.measure(processes, seconds, workers_share=share)
    memory, file = (after[0] - before[0]) / jobs, (after[1] - before[1]) / jobs
    return figures, f"adding: {added_us:.1f} us of the server, {memory:.0f} B of memory and {file:.0f} B of file a job"


async def _taken(server: OwnServer) -> tuple[int, int]:
    memory, file = await server.ask("INFO", "memory"), await server.ask("INFO", "persistence")
    return memory["used_memory"], file["aof_current_size"]


async def compare_processes(rounds: int, seconds: float, share: float) -> None:
    """One, two and four processes, on jobs that do nothing and on jobs that compute."""
    counts = (1, 2, 4)
    for kind, fastest in (("no-op", 60_000), ("compute", 1_500)):
        rates: dict[int, list[float]] = {count: [] for count in counts}
        for number in range(1, rounds + 1):
            for count in counts:
                jobs = int(fastest * (share * count or 2) * (seconds + WARM_UP_S + 2)) + 2_000
                figures, adding = await on_one_server(kind, jobs, count, seconds, share)
                rates[count].append(figures.rate)
                print(
                    f"{kind} round {number}: {count} processes {figures.rate:8,.0f} jobs/s   server {figures.server_us[0]:.1f} us a job"
                    f"   {adding}   load {os.getloadavg()[0]:.1f}"
                )
        print_ratios(f"{kind}, processes:", rates)


def print_ratios(what: str, rates: dict[int, list[float]]) -> None:
    """The median rate of each count, and the median of its rounds' ratios to that of one."""
    for count, found in rates.items():
        ratios = [other / one for one, other in zip(rates[1], found, strict=True)]
        print(f"{what} {count}: median {statistics.median(found):8,.0f} jobs/s, {statistics.median(ratios):.2f} x one")


async def compare_queues(rounds: int, seconds: float, share: float) -> None:
    """One, two, three and four queues on a Cluster of three primaries, with two worker processes."""
    counts = (1, 2, 3, 4)
    rates: dict[int, list[float]] = {count: [] for count in counts}
    for number in range(1, rounds + 1):
        for count in counts:
            with tempfile.TemporaryDirectory() as folder:
                async with cluster(Path(folder), replicas=0, cluster_node_timeout="15000", **QUIET) as group:
                    fleet = Fleet(group.url, group.nodes, spread_prefixes(count))
                    async with fleet.open():
                        await fleet.fill("no-op", int(60_000 * (share or 1) * (seconds + WARM_UP_S + 2)))
                        figures = await fleet.measure(2, seconds, servers_share=share)
            rates[count].append(figures.rate)
            used = ", ".join(f"{us:5.1f}" for us in figures.server_us)
            print(f"round {number}: {count} queues {figures.rate:8,.0f} jobs/s   servers {used} us a job   load {os.getloadavg()[0]:.1f}")
    print_ratios("queues:", rates)


def spread_prefixes(count: int) -> list[str]:
    """Prefixes whose tags lie on the three primaries in turn."""
    found: list[str] = []
    letter = 0
    while len(found) < count:
        prefix = f"{{p{letter}}}"
        letter += 1
        if key_slot(QueueKeys(prefix, "any").base.encode()) * 3 // 16_384 == len(found) % 3:
            found.append(prefix)
    return found


def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["processes", "cluster"], nargs="?", default="processes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--share", type=float, default=0.1, help="of a core, for each process that is to be the bottleneck")
    options = parser.parse_args()
    if options.what == "processes":
        asyncio.run(compare_processes(options.rounds, options.seconds, options.share))
    else:
        asyncio.run(compare_queues(options.rounds, options.seconds, options.share))


if __name__ == "__main__":
    main()
