"""The only reader of time: everything that asks what time it is, or waits for time to pass, goes through a `Clock`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self


class Timer(Protocol):
    """What `Clock.call_later` returns."""

    def cancel(self) -> None:
        """Make sure that the callback doesn't run any more. Harmless after it ran."""
        ...


class Timeout(Protocol):
    """What `Clock.timeout` returns, to be entered with `async with`."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...

    def expired(self) -> bool:
        """Whether the time was up: a `TimeoutError` without this is somebody else's."""
        ...


class Clock(Protocol):
    """Time as the library sees it. `SystemClock` is the real one; tests use `toril.testing.FakeClock`."""

    def now_ms(self) -> int:
        """Wall-clock time, in ms since 1970-01-01T00:00Z. May jump when the machine's clock is set."""
        ...

    def call_later(self, delay_ms: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` in the running event loop after `delay_ms`, which the wall clock's jumps don't change."""
        ...

    async def sleep(self, delay_ms: float) -> None:
        """Wait for `delay_ms`."""
        ...

    def timeout(self, delay_ms: float) -> Timeout:
        """A block that is cancelled after `delay_ms` and then raises `TimeoutError`; ask it with `expired()`."""
        ...

    def wait(self, event: threading.Event, delay_ms: float) -> bool:
        """Block this **thread** until `event` is set (True) or `delay_ms` have passed (False)."""
        ...


async def real_sleep(delay_ms: float) -> None:
    """Wait in real time, whatever a test's clock says. For pauses between tries to reach a server, and for nothing else."""
    await asyncio.sleep(delay_ms / 1_000)


class SystemClock:
    """The machine's clock. Waiting uses the event loop's monotonic time."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def call_later(self, delay_ms: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(delay_ms / 1_000, callback)

    async def sleep(self, delay_ms: float) -> None:
        await asyncio.sleep(delay_ms / 1_000)

    def timeout(self, delay_ms: float) -> Timeout:
        return asyncio.timeout(delay_ms / 1_000)

    def wait(self, event: threading.Event, delay_ms: float) -> bool:
        return event.wait(delay_ms / 1_000)
