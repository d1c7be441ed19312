"""Which server a queue uses when it isn't told: `REDIS_URL` if set, else the embedded one."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from toril.wire.connection import Server


@asynccontextmanager
async def open_server(url: str | None = None) -> AsyncGenerator[Server]:
    """The server at `url`, at `REDIS_URL`, or the embedded one, which is started if it doesn't run. What was opened is closed at the end.

    Nothing connects before the first command.

    Raises:
        InvalidRedisUrlError: the address can't be read.
        EmbeddedServerError: there is no address, and the embedded server can't be used.
    """
    url = url or os.environ.get("REDIS_URL")
    if url:
        async with Server(url) as server:
            yield server
        return
    from toril.embedded import EmbeddedServer

    async with EmbeddedServer() as embedded, Server(embedded.url) as server:
        yield server
