"""What the container costs: a job's wiring, beside other containers, and starting an application of 1,000 providers.

    make bench-container          # which installs dishka and wireup into .bench/, and measures them in the same run

The bars: `build(job)` with three dependencies below 2 us and 1.3 times what is written by hand, a scope with a teardown below 5 us, 1,000
providers below 250 ms, growing linearly to 10,000, each below 3 kB. Numbers, not a test: they depend on the machine.
"""

from __future__ import annotations

import asyncio
import timeit
import tracemalloc
from collections.abc import AsyncGenerator
from typing import Any

from tests.benchmarks.container_peers import measure_peers
from toril.di import ApplicationContext, DynamicModule, JobPlan, JobRef, Lazy, Scope, build_graph, module, provide

ROUNDS = 100_000


class Config: ...


class Log:
    def __init__(self, job: JobRef) -> None:
        self.job = job


class Repo:
    def __init__(self, log: Log, config: Config) -> None:
        self.log, self.config = log, config


class Handler:
    def __init__(self, log: Log, repo: Repo, config: Config) -> None:
        self.log, self.repo, self.config = log, repo, config


class Monitor:
    """Makes plans tracked."""

    def __init__(self, log: Lazy[Log]) -> None:
        self.log = log


class Session: ...


async def session(log: Log) -> AsyncGenerator[Session]:
    yield Session()


class WithSession:
    def __init__(self, session: Session, log: Log, config: Config) -> None:
        self.session = session


def by_hand(job: object, config: Config) -> Handler:
    log = Log(job)
    return Handler(log, Repo(log, config), config)


def ns(run: Any) -> float:  # noqa: ANN401  # any callable
    return min(timeit.repeat(run, number=ROUNDS, repeat=5)) / ROUNDS * 1e9


def plan_of(ctx: ApplicationContext, cls: type) -> JobPlan:
    binding = ctx.graph.find(ctx.graph.root, cls)
    if binding is None:
        raise LookupError(cls)
    return ctx.plan_for(binding)


async def measure_jobs() -> None:
    providers: list[type] = [Config, Log, Repo, Handler]
    plain = ApplicationContext(build_graph(module(providers=providers)(type("Plain", (), {}))))
    tracked = ApplicationContext(build_graph(module(providers=[*providers, Monitor])(type("Tracked", (), {}))))
    closes = [provide(Session, use_factory=session, scope=Scope.JOB), WithSession]
    teardown = ApplicationContext(build_graph(module(providers=[Config, Log, *closes])(type("Teardown", (), {}))))
    async with plain, tracked, teardown:
        config, constant, handler = plain.get(Config), plan_of(plain, Config), plan_of(plain, Handler)
        print(f"written by hand                     {ns(lambda: by_hand('job', config)):8.0f} ns")
        print(f"build(job), constant                {ns(lambda: constant.build('job')):8.0f} ns")
        print(f"build(job), 3 dependencies          {ns(lambda: handler.build('job')):8.0f} ns")
        for name, ctx, entry in (("plain", plain, Handler), ("tracked", tracked, Handler), ("teardown", teardown, WithSession)):
            plan = plan_of(ctx, entry)
            best = float("inf")
            for _ in range(5):
                started = timeit.default_timer()
                for _ in range(ROUNDS // 5):
                    async with ctx.job_scope("job") as scope:
                        await scope.build(plan)
                best = min(best, timeit.default_timer() - started)
            print(f"scope entered, built, left, {name:8}{best / (ROUNDS // 5) * 1e9:8.0f} ns")
    await measure_peers(ROUNDS // 5)


def chain_of_modules(modules: int, providers: int) -> type:
    """Modules that import each other in a row, each with providers that depend on their neighbours."""
    last: type | None = None
    before: type | None = None
    for number in range(modules):
        classes: list[type] = []
        for index in range(providers):

            def init(self: object, before: object = None) -> None: ...

            if before is not None:
                init.__defaults__ = None
                init.__annotations__ = {"before": before}
            before = type(f"P{number}_{index}", (), {"__init__": init})
            classes.append(before)
        imports = [] if last is None else [last]
        last = module(imports=imports, providers=classes, exports=[classes[-1]])(type(f"M{number}", (), {}))
    if last is None:
        raise ValueError(modules)
    return last


async def measure_start(modules: int, providers: int) -> None:
    root = chain_of_modules(modules, providers)
    started = timeit.default_timer()
    graph = build_graph(DynamicModule(root))
    built = timeit.default_timer()
    async with ApplicationContext(graph):
        running = timeit.default_timer()
        text = f"graph {(built - started) * 1e3:.0f} ms + start {(running - built) * 1e3:.0f} ms"
        print(f"{modules * providers} providers in {modules} modules: {text} = {(running - started) * 1e3:.0f} ms")


async def measure_memory(modules: int, providers: int) -> None:
    """What graph, containers and instances hold; not what modules and classes do."""
    root = chain_of_modules(modules, providers)
    tracemalloc.start()
    ctx = ApplicationContext(build_graph(DynamicModule(root)))
    async with ctx:
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        print(f"{modules * providers} providers hold {held / modules / providers:.0f} bytes each")


async def main() -> None:
    await measure_jobs()
    for modules in (2, 20, 100, 200):
        await measure_start(modules, 50)
    await measure_memory(20, 50)


if __name__ == "__main__":
    asyncio.run(main())
