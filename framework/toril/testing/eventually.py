"""Waiting for what will be so, without sleeping for a guess."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast, overload

from toril.clock import real_sleep
from toril.durations import Duration, to_ms
from toril.errors import InvalidOptionError
from toril.units import format_duration

T = TypeVar("T")

_PAUSE_MS = 5


@overload
async def eventually(probe: Callable[[], Awaitable[T]], *, timeout: Duration = "10s") -> T: ...
@overload
async def eventually(probe: Callable[[], T], *, timeout: Duration = "10s") -> T: ...
async def eventually(probe: Callable[[], T | Awaitable[T]], *, timeout: Duration = "10s") -> T:
    """Run a probe until its assertions hold, and return what it returns.

    The probe is a plain or coroutine function that raises AssertionError as long as it isn't so; everything else it raises
    comes out at once. It should only look, since it is run many times.

    Raises:
        AssertionError: the last one, once `timeout` (real time) is over.
        InvalidOptionError: the probe is no function, but what one has returned.
    """
    given: object = probe
    if not callable(given):
        if inspect.iscoroutine(given):
            given.close()
        raise InvalidOptionError("probe", given, "it is run again and again, so pass the function itself: eventually(probe)")
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + to_ms(timeout, "timeout") / 1_000
    while True:
        try:
            found = probe()
            return await cast("Awaitable[T]", found) if isinstance(found, Awaitable) else found
        except AssertionError as error:
            if loop.time() > give_up_at:
                error.add_note(f"still so after {format_duration(timeout)}")
                raise
        await real_sleep(_PAUSE_MS)  # nothing could wake us: the probe may look anywhere
