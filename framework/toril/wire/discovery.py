"""Which queues a server holds."""

from __future__ import annotations

from contextlib import suppress

from toril.wire.connection import Server
from toril.wire.key_pages import below, pages_of_keys
from toril.wire.keys import QueueKeys


async def queue_names(server: Server, prefix: str) -> list[str]:
    """The names of all queues under a prefix, in order: those that have a `meta`, which each queue has from its first job on.

    All keys of the database are gone through, page by page. On a Cluster, the node is asked that has the prefix's hash tag.
    """
    start, end = len(f"{prefix}:".encode()), len(b":meta")
    names: set[str] = set()
    async for keys in pages_of_keys(server.commands_of(QueueKeys(prefix, "any")), below(f"{prefix}:") + ":meta"):
        for key in keys:
            with suppress(UnicodeDecodeError):  # no queue of ours or Node's is called so
                names.add(key[start:-end].decode())
    return sorted(name for name in names if name and ":" not in name)  # else it is a job whose id ends so
