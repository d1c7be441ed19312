"""Finds what a testing module, or a whole test, has left behind: tasks, connections, jobs, threads.

It looks at what belongs to the module only, so that whatever else runs in the same loop or process (the test runner's own tasks,
another testing module, another process of pytest-xdist) is no alarm.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from toril.clock import real_sleep
from toril.errors import TorilError
from toril.queues.queue import Queue
from toril.wire.connection import Server

if TYPE_CHECKING:
    from toril.testing.crew import Crew

_GRACE_MS: Final = 1_000
_LOOK_MS: Final = 10

_OF_CONNECTIONS: Final = ("replies from ", "results of ")
"""Tasks that live as long as a connection, which a testing module that is open may keep."""


class LeakCheck:
    """What one testing module has begun."""

    open: Final[WeakSet[LeakCheck]] = WeakSet()
    """Those of the modules that are open now."""

    def __init__(self) -> None:
        self._tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self.open.add(self)

    @contextmanager
    def starting(self) -> Generator[None]:
        """Take note of the tasks that factories and hooks start in this block, which must have ended when the module is closed."""
        before = asyncio.all_tasks()
        yield
        for task in asyncio.all_tasks() - before:
            self._tasks.add(task)

    async def before_closing(self, crew: Crew, queues: Collection[Queue[Any, Any]]) -> list[str]:
        """What goes on although no worker should run, while the server can still be asked."""
        self.open.discard(self)
        found = [f"the worker of queue {worker.queue.name!r} still runs: leave the `run_workers` block first" for worker in crew.workers]
        found += [f"the handler of {line} did not end when its worker stopped" for line in crew.left_behind]
        if not crew.workers:
            for queue in queues:
                found += await _kept_jobs(queue, crew.all_ids)
        return found

    async def after_closing(self, server: Server | None) -> list[str]:
        """What goes on although all is closed."""
        left = await _pending(lambda: [task for task in self._tasks if not task.done()])
        connections = [] if server is None else server.open_connections
        return [_told(task) for task in left] + [f"{connection!r} is open" for connection in connections]


@contextmanager
def threads_end() -> Generator[list[str]]:
    """Fill the list, at the end of the block, with the threads of the library that it has begun and that go on.

    A testing module that a fixture keeps open may keep threads, too: then nothing is said.
    """
    before, found = set(threading.enumerate()), list[str]()
    yield found
    if LeakCheck.open:
        return
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("toril"):
            thread.join(_GRACE_MS / 1_000)
            if thread.is_alive():
                found.append(f"the thread {thread.name!r}")


async def leaked_tasks(before: Collection[asyncio.Task[Any]]) -> list[str]:
    """Which tasks go on that were not there before, without the caller's own and those of modules that a fixture keeps open."""

    def left() -> set[asyncio.Task[Any]]:
        return {task for task in asyncio.all_tasks() if task not in before and not (LeakCheck.open and _serves_connection(task))}

    mine = asyncio.current_task()
    return [_told(task) for task in await _pending(lambda: left() - {mine})]


async def _pending(find: Callable[[], Collection[asyncio.Task[Any]]]) -> Collection[asyncio.Task[Any]]:
    """Those that go on, once they have had a moment to end: a task that was cancelled needs a few turns of the loop."""
    for _ in range(_GRACE_MS // _LOOK_MS):
        if not find():
            return []
        await real_sleep(_LOOK_MS)
    return find()


async def _kept_jobs(queue: Queue[Any, Any], worker_ids: Collection[str]) -> list[str]:
    try:
        held = await queue.commands.locked_jobs()
    except TorilError:  # closed by the test, or the server is gone: then nothing can be said
        return []
    return [
        f"job {job_id} of queue {queue.name!r} is still active, and its lock held"
        for job_id, token in held.items()
        if token.partition(":")[0] in worker_ids
    ]


def _serves_connection(task: asyncio.Task[Any]) -> bool:
    return task.get_name().startswith(_OF_CONNECTIONS)


def _told(task: asyncio.Task[Any]) -> str:
    coroutine: Any = task.get_coro()
    code = getattr(coroutine, "cr_code", None)
    name = getattr(coroutine, "__qualname__", repr(coroutine))
    place = "" if code is None else f" ({code.co_filename}:{code.co_firstlineno})"
    return f"the task {task.get_name()!r}, which runs {name}{place}"
