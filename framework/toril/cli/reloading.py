"""`--reload`: tells when the application's files change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from pathlib import Path

from watchfiles import PythonFilter, awatch  # pyright: ignore[reportUnknownVariableType]  # one of its parameters is of trio's type


async def changes(folder: Path, stopping: asyncio.Event) -> AsyncGenerator[list[str]]:
    """The names of Python and TOML files in this folder that have changed, again and again, until the event is set.

    Environments, caches and the like in it don't count.
    """
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it tells of each change, and we do
    async for found in awatch(folder, watch_filter=PythonFilter(extra_extensions=[".toml"]), stop_event=stopping):
        yield sorted({str(Path(path).relative_to(folder)) for _, path in found})
