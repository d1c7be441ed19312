"""What the programs of the other task queues for Python have in common: each adds one class, its `Adapter`.

Only the standard library is used: they run in environments of their own.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from tests.benchmarks.programs.lines import SETTINGS, Operation, Seen, every, memory, run

URL: Final = f"redis://{SETTINGS.get('host')}:{SETTINGS.get('port')}"
TEXT: Final = "some text"
IN_FLIGHT: Final = 100
"""So many adds are under way at the same time, where there is no way to add in bulk."""

Data = dict[str, Any]


class Watch:
    """What the handlers see of the jobs that run now."""

    seen = Seen(1)


def no_op_in_thread(n: int, text: str, at: int) -> Data:
    """The job that does nothing."""
    Watch.seen.begin(n)
    Watch.seen.end()
    return {"n": n}


def sleep_in_thread(n: int, text: str, at: int) -> Data:
    """The job of 50 ms."""
    Watch.seen.begin(n)
    time.sleep(0.05)
    Watch.seen.end()
    return {"n": n}


def timed_in_thread(n: int, text: str, at: int) -> Data:
    """The job that notes when it started."""
    Watch.seen.note(at)
    return no_op_in_thread(n, text, at)


async def no_op(n: int, text: str, at: int) -> Data:
    """The same for those who run coroutines, here and below."""
    return no_op_in_thread(n, text, at)


async def sleep(n: int, text: str, at: int) -> Data:
    Watch.seen.begin(n)
    await asyncio.sleep(0.05)
    Watch.seen.end()
    return {"n": n}


async def timed(n: int, text: str, at: int) -> Data:
    return timed_in_thread(n, text, at)


HANDLERS: Final = {"no_op": no_op, "sleep": sleep, "timed": timed}
THREAD_HANDLERS: Final = {"no_op": no_op_in_thread, "sleep": sleep_in_thread, "timed": timed_in_thread}


class Adapter(ABC):
    """One task queue, whose tasks are those of `HANDLERS` or `THREAD_HANDLERS`."""

    @abstractmethod
    async def open(self) -> None:
        """Get ready to add."""

    @abstractmethod
    async def add(self, name: str, data: Data) -> None:
        """Add one job; it may block the loop, where the task queue does: there is nobody else on it."""

    @abstractmethod
    async def start(self, slots: int) -> None:
        """Start a worker in the background."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop it; it runs nothing now."""

    @abstractmethod
    async def results(self) -> int:
        """How many results are kept."""

    async def add_many(self, name: str, data: Sequence[Data]) -> None:
        """Add many jobs; for those who can do better than many single adds, there is a better one."""
        left = iter(data)

        async def add_some() -> None:
            for one in left:
                await self.add(name, one)

        await together(add_some() for _ in range(IN_FLIGHT))


async def together(work: Any) -> None:  # noqa: ANN401 -- any iterable of coroutines
    """Await them all at the same time."""
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(one)


def data_of(n: int, at: int = 0) -> Data:
    """What job `n` carries."""
    return {"n": n, "text": TEXT, "at": at}


async def count_keys(client: Any, pattern: str) -> int:  # noqa: ANN401 -- a client of redis-py
    """How many keys have such a name."""
    return len([key async for key in client.scan_iter(pattern, count=1_000)])


async def settle(adapter: Adapter, results: int) -> None:
    """Wait until so many results are kept, or for 10 s: not every worker that is stopped still writes them."""
    for _ in range(1_000):
        if await adapter.results() >= results:
            return
        await asyncio.sleep(0.01)


def serve(adapter: Adapter) -> None:
    """Do with this task queue what the benchmark asks for; the operations are those of toril_program.py."""

    async def fill(jobs: int, kind: str = "waiting", name: str = "no-op") -> dict[str, float]:
        assert kind == "waiting"
        started = time.perf_counter()
        await adapter.add_many(name.replace("-", "_"), [data_of(n) for n in range(jobs)])
        return {"seconds": time.perf_counter() - started}

    async def add_one_by_one(jobs: int) -> dict[str, float]:
        started = time.perf_counter()
        for n in range(jobs):
            await adapter.add("no_op", data_of(n))
        return {"seconds": time.perf_counter() - started}

    async def add_at_once(jobs: int) -> dict[str, float]:
        started = time.perf_counter()
        await together(adapter.add("no_op", data_of(n)) for n in range(jobs))
        return {"seconds": time.perf_counter() - started}

    async def listen(jobs: int, slots: int, awaited: int | None = None) -> None:
        Watch.seen = Seen(jobs, awaited)
        await adapter.start(slots)

    async def heard() -> Data:
        await Watch.seen.wait()
        await settle(adapter, sum(map(bool, Watch.seen.counts)))
        await adapter.stop()
        return {**Watch.seen.figures(), "starts": Watch.seen.starts, "delays": Watch.seen.delays}

    async def work(jobs: int, slots: int, awaited: int | None = None) -> Data:
        await listen(jobs, slots, awaited)
        return await heard()

    async def tick(jobs: int, interval_ms: int) -> None:
        await every(jobs, interval_ms, lambda n, now: adapter.add("timed", data_of(n, now)))

    async def results() -> int:
        return await adapter.results()

    operations: dict[str, Operation] = {
        operation.__name__: operation for operation in (fill, add_one_by_one, add_at_once, listen, heard, work, tick, results, memory)
    }
    run(operations, start=adapter.open)


class Background:
    """A coroutine that runs until it is cancelled, or ends by itself when told to."""

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self._task = asyncio.create_task(work)

    async def cancel(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def wait(self) -> None:
        await self._task
