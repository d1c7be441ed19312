"""The same job's wiring in other containers, for `bench_container.py`: a scope entered, a handler with three dependencies built, left."""

from __future__ import annotations

import importlib.util
import timeit
from collections.abc import Awaitable, Callable
from typing import Any


class Config: ...


class Job: ...


class Log:
    def __init__(self, job: Job) -> None:
        self.job = job


class Repo:
    def __init__(self, log: Log, config: Config) -> None:
        self.log, self.config = log, config


class Handler:
    def __init__(self, log: Log, repo: Repo, config: Config) -> None:
        self.log, self.repo, self.config = log, repo, config


async def measure_peers(rounds: int) -> None:
    """Print a line for each peer; one that isn't installed is named as such."""
    for name, make in (("dishka", _dishka), ("wireup", _wireup)):
        if importlib.util.find_spec(name) is None:
            print(f"{name}: not installed (pip install {name})")
            continue
        run = make()
        await run()
        best = float("inf")
        for _ in range(5):
            started = timeit.default_timer()
            for _ in range(rounds):
                await run()
            best = min(best, timeit.default_timer() - started)
        print(f"{name}: scope entered, built, left   {best / rounds * 1e9:8.0f} ns")


def _dishka() -> Callable[[], Awaitable[Any]]:
    dishka: Any = importlib.import_module("dishka")
    provider = dishka.Provider()
    provider.provide(Config, scope=dishka.Scope.APP)
    for cls in (Log, Repo, Handler):
        provider.provide(cls, scope=dishka.Scope.REQUEST)
    provider.from_context(provides=Job, scope=dishka.Scope.REQUEST)
    container = dishka.make_async_container(provider)
    job = Job()

    async def run() -> object:
        async with container({Job: job}) as scope:
            return await scope.get(Handler)

    return run


def _wireup() -> Callable[[], Awaitable[Any]]:
    wireup: Any = importlib.import_module("wireup")
    scoped = [wireup.injectable(lifetime="scoped")(cls) for cls in (Job, Log, Repo, Handler)]
    container = wireup.create_async_container(injectables=[wireup.injectable(Config), *scoped])

    async def run() -> object:
        async with container.enter_scope() as scope:
            return await scope.get(Handler)

    return run
