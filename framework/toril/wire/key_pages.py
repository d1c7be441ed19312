"""Keys found by their names, page by page, so that a large server goes on with other work meanwhile."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator

from toril.wire.connection import Connection


async def pages_of_keys(connection: Connection, pattern: str) -> AsyncGenerator[list[bytes]]:
    """The names of all keys that match, page by page; one may come twice."""
    cursor: bytes | str = "0"
    while True:
        cursor, keys = await connection.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1_000, repeatable=True)
        if keys:
            yield keys
        if cursor == b"0":
            return


async def remove_keys(connection: Connection, pattern: str) -> None:
    """Remove all keys whose names match, page by page."""
    async for keys in pages_of_keys(connection, pattern):
        await connection.call("UNLINK", *keys, repeatable=True)


def below(base: str) -> str:
    """The pattern of all keys that begin with `base`, whatever that holds."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", base) + "*"
