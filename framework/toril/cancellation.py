"""Bringing work to its end even while we are being cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")


async def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, which must bound its own time, to the end even if cancelled; then let the cancellation out.

    `asyncio.shield` alone would let the caller go on while the work still runs.
    """
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from task.exception()
    return task.result()


async def run_unless(event: asyncio.Event, work: Coroutine[Any, Any, object]) -> bool:
    """Await `work`, or cancel it as soon as the event is set, and wait for its end even so.

    Returns:
        Whether it came to its end by itself. What it raises comes out.

    Raises:
        RuntimeError: it let a CancelledError out, although nobody cancelled it.
    """
    if event.is_set():
        work.close()
        return False
    told = asyncio.create_task(event.wait())
    working = asyncio.create_task(work)
    try:
        await asyncio.wait({told, working}, return_when=asyncio.FIRST_COMPLETED)
        has_ended = working.done()
    finally:
        for task in (told, working):
            task.cancel()
        await run_to_end(finished(told, working))
    if not working.cancelled():
        working.result()
    elif has_ended:
        raise RuntimeError(f"{getattr(work, '__qualname__', 'the work')} let a CancelledError out, although nobody cancelled it")
    return has_ended


async def run_beside(watch: Coroutine[Any, Any, NoReturn], work: Coroutine[Any, Any, T]) -> T:
    """Await `work` and return what it returns, unless `watch` raises before: then cancel the work, wait for its end, and raise that."""
    watching = asyncio.create_task(watch)
    working = asyncio.create_task(work)
    try:
        await asyncio.wait({watching, working}, return_when=asyncio.FIRST_COMPLETED)
        first: asyncio.Task[T] = working if working.done() else watching
    finally:
        for task in (watching, working):
            task.cancel()
        await run_to_end(finished(watching, working))
    return first.result()


async def finished(*tasks: asyncio.Task[Any]) -> None:
    """Wait until these tasks have ended, in whatever way; raises nothing of theirs."""
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # marks it as seen
