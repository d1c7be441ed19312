"""Where a queue is when it isn't told: server `REDIS_URL`, else the embedded one; keys that begin with `TORIL_PREFIX`, else `bull`."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from toril.wire.address import ServerAddress
from toril.wire.connection import Server
from toril.wire.keys import DEFAULT_PREFIX

ADDRESS: Final[Mapping[str, str]] = dict.fromkeys(
    ("redis", "connection", "redis_url", "host", "port"), 'the address is url="redis://host:6379"'
)
"""What to say to those who give it under another name."""


def prefix_or_default(prefix: str | None, url: str | None = None, server: Server | None = None) -> str:
    """The prefix if one is given, else `TORIL_PREFIX`, else the default of the server that `open_server` would find: on a Cluster it
    holds a hash tag.

    Raises:
        InvalidRedisUrlError: the address can't be read.
    """
    if prefix is None:
        prefix = os.environ.get("TORIL_PREFIX") or None  # an empty variable is how compose files spell "not set"
    if prefix is not None:
        return prefix
    if server is not None:
        return server.address.default_prefix
    url = url or os.environ.get("REDIS_URL")
    return ServerAddress(url).default_prefix if url else DEFAULT_PREFIX


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
