"""Calls a handler for one job, in this process: its scope opened, the call in a thread if it must be, the result serialised."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from toril.queues.job import Job
from toril.worker.outcome import Completed
from toril.worker.processor import Handler, HandlerCall, Surrounded


class HandlerCaller:
    """Keeps nothing of what it calls.

    Args:
        threads: where plain functions run.
    """

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads

    async def run(self, handler: Handler, job: Job[Any, Any]) -> Completed:
        """Run the handler. Raises what it raises, and PayloadError for a result that doesn't fit or can't travel."""
        if handler.scope is None:
            assert handler.call is not None
            return _completed(handler, job, await self._called(handler, handler.call, job))
        raised: BaseException | None = None
        async with handler.scope(job) as call:
            try:
                return _completed(handler, job, await self._called(handler, call, job))
            except BaseException as error:
                raised = error
                raise
        raise raised  # the scope swallowed it; the attempt has failed all the same

    def _called(self, handler: Handler, call: Any, job: Job[Any, Any]) -> Awaitable[object]:  # noqa: ANN401 -- what `Handler.is_async` says
        return cast("Awaitable[object]", call(job)) if handler.is_async else self._off_loop(call, job)

    async def _off_loop(self, call: HandlerCall | Surrounded, job: Job[Any, Any]) -> object:
        if isinstance(call, Surrounded):
            return await call.around(job, functools.partial(self._in_thread, call.call, job))
        return await self._in_thread(call, job)

    async def _in_thread(self, call: HandlerCall, job: Job[Any, Any]) -> object:
        """Run a plain function in a thread. It can't be stopped: when cancelled, it is told so, and waited for all the same."""
        context = contextvars.copy_context()
        work = asyncio.get_running_loop().run_in_executor(self._threads, lambda: context.run(_result_or_error, call, job))
        cancelled: asyncio.CancelledError | None = None
        while not work.done():
            try:
                await asyncio.wait({work})
            except asyncio.CancelledError as error:
                cancelled = error
                job.cancelled.set()
        if cancelled is not None:
            raise cancelled  # what the function did no longer counts
        result, raised = work.result()
        if raised is not None:
            raise raised
        return result


def _completed(handler: Handler, job: Job[Any, Any], result: object) -> Completed:
    return Completed(b"null" if result is None else handler.result.encode(result, job.name), result)


def _result_or_error(call: HandlerCall, job: Job[Any, Any]) -> tuple[object, BaseException | None]:
    """What the call returned, or what it raised: a future takes no StopIteration, and would then never be done."""
    try:
        return call(job), None
    except BaseException as error:  # noqa: BLE001 -- raised again in the loop
        return None, error
