"""The application of the signals' tests, which they copy into a folder of their own: it sends itself signals at the instants that
`SIGNALLED` names, as in `module_destroy,shutdown:SIGTERM,SIGINT`."""

# ruff: noqa: T201 -- what it prints is what the tests look at

from __future__ import annotations

import asyncio
import atexit
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, cast

from toril import ConfigModule, Job, QueueModule, TorilSettings, module, process, processor

_WANTED, _, _NAMES = os.environ["SIGNALLED"].partition(":")
instants = set(_WANTED.split(","))
"""Those that are still to come."""


def now(instant: str) -> None:
    """Send the signals if this is an instant for it; each comes once."""
    if instant in instants:
        instants.remove(instant)
        print(f"at {instant}", flush=True)
        for name in _NAMES.split(","):
            os.kill(os.getpid(), signal.Signals[name])


def between_creation_and_start(phase: str, info: dict[str, int]) -> None:
    """When the worker collects garbage, for the last time before the application runs."""
    if traceback.extract_stack(limit=2)[0].name == "spare_the_collector":
        now("created")


class AtTheVeryEnd:
    """Goes with the last of the interpreter's modules."""

    def __del__(self, now: Any = now) -> None:  # noqa: ANN401 -- `now` itself will be gone by then
        now("finalization")


async def left_open() -> AsyncGenerator[None]:
    """The loop closes it."""
    try:
        yield
    finally:
        now("loop_closes")


def outlives_the_loop() -> None:
    """In a thread that the interpreter waits for."""
    threading.main_thread().join()
    now("threads_join")


@processor("work", lock_duration="2s")
class Work:
    def __init__(self) -> None:
        now("constructor")

    async def on_module_init(self) -> None:
        now("module_init")

    async def on_application_bootstrap(self) -> None:
        self.open = left_open()
        await anext(self.open)
        now("bootstrap")

    @process("job")
    async def job(self, job: Job[Any, None]) -> None:
        never_ends = instants & {"handler", "cleanup"}
        if "cleanup" in never_ends:
            os.kill(os.getpid(), signal.SIGTERM)
        now("handler")
        try:
            if never_ends:
                await asyncio.Event().wait()
        finally:
            now("cleanup")

    async def on_module_destroy(self) -> None:
        now("module_destroy")

    def before_application_shutdown(self) -> None:
        now("before_shutdown")

    async def on_application_shutdown(self) -> None:
        now("shutdown")


@module(imports=[ConfigModule.for_root(TorilSettings), QueueModule.register_queue("work")], providers=[Work])
class AppModule: ...


with suppress(BaseException):  # as a bare `except:` in somebody's library
    now("guarded_import")
now("import")
gc.callbacks.append(between_creation_and_start)
atexit.register(gc.callbacks.remove, between_creation_and_start)
atexit.register(now, "atexit")
threading.Thread(target=outlives_the_loop).start()
cast("dict[str, Any]", sys.modules)["at_the_very_end"] = AtTheVeryEnd()
