"""What metrics and traces cost a job that does nothing, beside a worker that nobody watches.

    python -m tests.benchmarks.bench_telemetry [--short] [--jobs N] [--rounds N]     CPU time of the worker's process
    python -m tests.benchmarks.bench_telemetry --instructions                        instructions, counted by valgrind: some minutes

For the CPU time all ways are run in each round, in another order each time, on one server, and what counts is the median of the
rounds' ratios. Other work on the machine disturbs it. The instructions are nearly the same whatever else runs: a process drains a few
jobs, another one more of them, and what the second has spent more is what they cost.

`off` is a worker that nobody watches: OpenTelemetry is imported, and nobody has called `measure_jobs` or `trace_jobs`. What that itself
costs, asking whether somebody does, shows beside `cut out`: a worker out of whose code the questions were cut.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import gc
import inspect
import os
import re
import secrets
import shutil
import statistics
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FunctionType
from typing import Final

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from prometheus_client import CollectorRegistry

from tests.benchmarks.bench_drain import SLOTS, drain_with_toril, fill, handle
from tests.benchmarks.stand import WrongRunError
from toril import Queue, Worker, WorkerOptions, measure_jobs, trace_jobs
from toril.embedded import ensure_server
from toril.telemetry.hooks import HOOKS
from toril.wire.connection import Server
from toril.worker.attempts import Attempts
from toril.worker.turn import Lanes

METRICS_AT_MOST: Final = 1.05
"""What is promised of metrics, as a ratio to `off`."""


@contextmanager
def unwatched(jobs: int) -> Generator[None]:
    """Nobody measures or traces."""
    yield


_ANSWERS: Final = {"self.observer is not None": False, "self.on_round_trip is not None": False, "self.on_round_trip is None": True}
"""What a worker asks with each job and turn, and the answer while nobody watches."""

ASKING: Final = ((Attempts, "_run_job"), (Attempts, "_gather"), (Attempts, "_over"), (Lanes, "_send"))
"""Where it does."""


class _CutOut(ast.NodeTransformer):
    """Leaves of a question only what is done after its answer."""

    def __init__(self) -> None:
        self.cuts = 0

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        answer = self._answer(node.test)
        return node if answer is None else node.body if answer else node.orelse

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        answer = self._answer(node.test)
        return node if answer is None else node.body if answer else node.orelse

    def _answer(self, test: ast.expr) -> bool | None:
        answer = _ANSWERS.get(ast.unparse(test))
        self.cuts += answer is not None
        return answer


@contextmanager
def cut_out(jobs: int) -> Generator[None]:
    """As if there were nothing that could measure or trace. Raises WrongRunError if a method asks nothing (any more)."""
    asking = {(owner, name): vars(owner)[name] for owner, name in ASKING}
    try:
        for (owner, name), method in asking.items():
            setattr(owner, name, without_questions(method))
        yield
    finally:
        for (owner, name), method in asking.items():
            setattr(owner, name, method)


def without_questions(method: FunctionType) -> FunctionType:
    """The same method, compiled anew without them."""
    cutting = _CutOut()
    tree = cutting.visit(ast.parse(textwrap.dedent(inspect.getsource(method))))
    if not cutting.cuts:
        raise WrongRunError(f"{method.__qualname__} doesn't ask whether somebody watches")
    made: dict[str, FunctionType] = {}
    exec(compile(tree, method.__code__.co_filename, "exec"), method.__globals__, made)
    return made[method.__name__]


@contextmanager
def measured(jobs: int) -> Generator[None]:
    """As `toril worker --probe-address` does. Raises WrongRunError unless all jobs were counted; 0: none are to run."""
    registry = CollectorRegistry()
    measure_jobs(registry)
    try:
        yield
    finally:
        HOOKS.meter = None
    counted = registry.get_sample_value("toril_jobs_total", {"queue": "bench", "name": "no-op", "outcome": "completed"})
    if jobs and counted != jobs:
        raise WrongRunError(f"{counted} jobs were counted instead of {jobs}")


def traced(sampler: Sampler) -> Callable[[int], AbstractContextManager[None]]:
    """With the SDK, whose spans go to memory in batches, as they would to an exporter."""

    @contextmanager
    def way(jobs: int) -> Generator[None]:
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
        trace_jobs(provider)
        try:
            yield
        finally:
            HOOKS.tracer = None
            provider.shutdown()

    return way


WAYS: Final[Mapping[str, Callable[[int], AbstractContextManager[None]]]] = {
    "off": unwatched,
    "cut out": cut_out,
    "metrics": measured,
    "traces, none sampled": traced(ALWAYS_OFF),
    "traces, all sampled": traced(ALWAYS_ON),
}

Figures = dict[str, list[float]]
"""For each way, what was spent in each round."""


async def measure(url: str, jobs: int, rounds: int) -> Figures:
    """Drain so many jobs in each way, round after round. Raises WrongRunError."""
    figures: Figures = {way: [] for way in WAYS}
    names = list(WAYS)
    async with Server(url) as server:
        await drain_with_toril(server, f"bench-{secrets.token_hex(4)}", jobs)  # what is loaded once is nobody's cost
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                prefix = f"bench-{secrets.token_hex(4)}"
                with WAYS[name](jobs):
                    gc.collect()
                    figures[name].append(await drain_with_toril(server, prefix, jobs, clock=time.process_time))
                await server.commands.call("FLUSHDB")
    return figures


# ── instructions ──────────────────────────────────────────────────────────────────────────────────────────────

FEW: Final = 500
MORE: Final = 2_500


async def count(url: str) -> None:
    """Print for each way the instructions of a job."""
    figures: Figures = {}
    async with Server(url) as server:
        for way in WAYS:
            spent = [await _instructions(server, url, way, jobs) for jobs in (FEW, MORE)]
            figures[way] = [(spent[1] - spent[0]) / (MORE - FEW)]
            print(f"{way:22}{figures[way][0]:11,.0f} instructions a job   {ratio_to_off(figures, way)[0]:.3f} x off", flush=True)


async def _instructions(server: Server, url: str, way: str, jobs: int) -> int:
    """Those of a process that drains so many jobs, from its start to its end."""
    prefix = f"bench-{secrets.token_hex(4)}"
    with WAYS[way](0):  # the jobs carry a trace, if that is the way
        async with Queue("bench", prefix=prefix, server=server) as queue:
            await fill(queue, jobs)
    process = await asyncio.create_subprocess_exec(
        *("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null", sys.executable, "-m", __spec__.name),
        *("--drain", way, prefix, str(jobs)),
        env=os.environ | {"PYTHONHASHSEED": "0", "REDIS_URL": url},  # not among the arguments: anybody may read those
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()
    found = re.search(rb"I\s+refs:\s+([\d,]+)", told)
    if process.returncode != 0 or found is None:
        raise WrongRunError(f"the process ended with {process.returncode}:\n{told.decode(errors='replace')}")
    await server.commands.call("FLUSHDB")
    return int(found[1].replace(b",", b""))


async def drain(way: str, prefix: str, jobs: int) -> None:
    """What such a process does, on the server that the environment names."""
    with WAYS[way](jobs):
        async with (
            Queue("bench", prefix=prefix) as queue,
            Worker(queue, {"no-op": handle}, WorkerOptions(concurrency=SLOTS)) as worker,
        ):
            await worker.wait_until_idle()


# ── what it says ──────────────────────────────────────────────────────────────────────────────────────────────


def table(figures: Figures, jobs: int) -> str:
    """A line for each way: CPU time of a job, and the ratio to `off`."""
    lines: list[str] = []
    for name, seconds in figures.items():
        ratio, spread = ratio_to_off(figures, name)
        compared = "" if name == "off" else f"   {ratio:.3f} x off   (half of the rounds within {spread[0]:.3f} and {spread[1]:.3f})"
        lines.append(f"{name:22}{statistics.median(seconds) / jobs * 1e6:7.1f} us a job{compared}")
    return "\n".join([*lines, verdict(figures)])


def verdict(figures: Figures) -> str:
    """Whether what is promised of metrics is met, with the rounds' ratios from which that comes."""
    ratio, _ = ratio_to_off(figures, "metrics")
    each = " ".join(f"{one:.3f}" for one in sorted(ratios_to_off(figures, "metrics")))
    promise = f"at most {METRICS_AT_MOST} is promised: {'met' if ratio <= METRICS_AT_MOST else 'not met'}"
    return f"metrics: {ratio:.3f} x off is the median of {each}\n{promise}"


def ratio_to_off(figures: Figures, name: str) -> tuple[float, tuple[float, float]]:
    """The median of the rounds' ratios, and between what the middle half of them lies."""
    ratios = ratios_to_off(figures, name)
    quarters = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return statistics.median(ratios), (quarters[0], quarters[2])


def ratios_to_off(figures: Figures, name: str) -> list[float]:
    """Of each round."""
    return [one / off for one, off in zip(figures[name], figures["off"], strict=True)]


def main() -> None:
    """Read the arguments, and measure on a server of our own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--short", action="store_true", help="5,000 jobs, 5 rounds")
    parser.add_argument("--instructions", action="store_true", help="count instructions (needs valgrind)")
    parser.add_argument("--drain", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drain:
        way, prefix, count_of_jobs = options.drain
        asyncio.run(drain(way, prefix, int(count_of_jobs)))
        return
    if options.instructions and shutil.which("valgrind") is None:
        parser.exit(2, "--instructions needs valgrind (Debian: apt-get install valgrind)\n")
    jobs, rounds = (5_000, 5) if options.short else (options.jobs, options.rounds)
    with tempfile.TemporaryDirectory() as folder, ensure_server(Path(folder)) as server:
        if options.instructions:
            asyncio.run(count(server.url))  # no verdict: what is promised is time
            return
        print(table(asyncio.run(measure(server.url, jobs, rounds)), jobs))


if __name__ == "__main__":
    main()
