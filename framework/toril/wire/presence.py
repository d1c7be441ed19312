"""Which workers of a queue are there, as they tell it themselves (wire §11): a hash of worker ids and manifests.

The server's clock counts here, not ours: a worker whose clock is wrong is there all the same.
"""

from __future__ import annotations

from toril.wire.codec import id_text
from toril.wire.connection import Connection
from toril.wire.keys import QueueKeys


async def server_ms(connection: Connection) -> int:
    """What time it is at the server."""
    seconds, micros = await connection.call("TIME", repeatable=True)
    return int(seconds) * 1_000 + int(micros) // 1_000


async def note_worker(connection: Connection, keys: QueueKeys, worker_id: str, manifest: bytes) -> None:
    """Write what a worker tells of itself."""
    await connection.call("HSET", keys.workers, worker_id, manifest, repeatable=True)


async def noted_workers(connection: Connection, keys: QueueKeys) -> dict[str, bytes]:
    """What workers have told of themselves, those that are gone included, by their ids."""
    reply: list[bytes] = await connection.call("HGETALL", keys.workers, repeatable=True)
    return {id_text(reply[at]): reply[at + 1] for at in range(0, len(reply), 2)}


async def forget_workers(connection: Connection, keys: QueueKeys, *worker_ids: str) -> None:
    """Forget what these workers have told."""
    await connection.call("HDEL", keys.workers, *worker_ids, repeatable=True)
