"""What every benchmark program in Python shares: it does what it is told by lines of JSON, and watches the handlers run.

Only the standard library is used: the programs run in environments of their own. `tests/line_process.py` is the other side.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

Operation = Callable[..., Awaitable[Any]]

SETTINGS: Final[dict[str, Any]] = json.loads(os.environ.get("PEER", "{}"))
"""What the benchmark gives to its programs: `host`, `port`, and what else this one knows."""


def run(operations: Mapping[str, Operation], *, start: Callable[[], Awaitable[object]]) -> None:
    """Serve the operations until the input ends, on uvloop where the settings ask for it.

    Args:
        operations: by their names.
        start: what must be done on the loop before the first one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all of a terminal: the benchmark ends us
    # Lines of the protocol only: whatever else is printed goes to the standard error.
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(message: Mapping[str, object]) -> None:
        lines.write(json.dumps(message) + "\n")

    async def answer(line: bytes) -> None:
        message = json.loads(line)
        try:
            result = await operations[message["op"]](**message["args"])
        except Exception as error:  # noqa: BLE001 -- whatever it is, the benchmark is told
            say({"call": message["call"], "error": f"{type(error).__name__}: {error}"})
        else:
            say({"call": message["call"], "result": result})

    async def main() -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await start()
        say({"event": "ready"})
        async with asyncio.TaskGroup() as calls:
            while line := await reader.readline():
                calls.create_task(answer(line))
            os._exit(0)  # whatever still runs: nobody wants its outcome any more

    if SETTINGS.get("uvloop"):
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())


class Seen:
    """What the handlers of some jobs saw. Handlers may be threads; the jobs' data are numbered from 0.

    The time of a workload runs from the start of the first handler to the return of the last one that is waited for.
    """

    def __init__(self, jobs: int, awaited: int | None = None) -> None:
        self.counts = bytearray(jobs)
        self.starts: list[int] = []
        """Of jobs that ask for it: nanoseconds of the wall clock."""
        self.delays: list[int] = []
        """Of jobs that ask for it: nanoseconds from the call that added them to the start of their handler."""
        self._awaited = awaited or jobs
        self._numbers = itertools.count(1)  # `next` of it is atomic
        self._made = time.perf_counter()
        self._began = self._ended = (0.0, 0.0)
        self._has_ended = threading.Event()

    def begin(self, n: int) -> None:
        """The handler of job `n` has started."""
        if not self._began[0]:
            self._began = _marks()
        self.counts[n] += 1

    def end(self) -> None:
        """A handler returns."""
        if next(self._numbers) == self._awaited:
            self._ended = _marks()
            self._has_ended.set()

    def note(self, at_ns: int) -> None:
        """The handler of a job that was added at this time of the monotonic clock has started."""
        self.starts.append(time.time_ns())
        self.delays.append(time.monotonic_ns() - at_ns)

    async def wait(self) -> None:
        """Wait until so many handlers have returned."""
        await asyncio.to_thread(self._has_ended.wait)

    def figures(self) -> dict[str, float]:
        """Seconds of the clock and of this process's CPU; from the start of the worker to that of the first handler; how many jobs ran
        more than once, and how many did not."""
        return {
            "seconds": self._ended[0] - self._began[0],
            "first_start_seconds": self._began[0] - self._made,
            "cpu_seconds": self._ended[1] - self._began[1],
            "doubled": sum(count > 1 for count in self.counts),
            "missing": sum(count == 0 for count in self.counts),
        }


def _marks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


async def memory() -> dict[str, float]:
    """The bytes of memory that this process has now, and had at most."""
    with open("/proc/self/statm") as file:  # noqa: ASYNC230, PTH123 -- no disk is waited for
        pages = int(file.read().split()[1])
    return {
        "rss_bytes": pages * resource.getpagesize(),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


async def every(count: int, interval_ms: int, act: Callable[[int, int], Awaitable[object]]) -> None:
    """Call `act(n, now)` so many times at this pace; `now` in nanoseconds of the monotonic clock, which all processes share."""
    begun = time.monotonic()
    for n in range(count):
        await asyncio.sleep(max(begun + n * interval_ms / 1000 - time.monotonic(), 0))
        await act(n, time.monotonic_ns())
