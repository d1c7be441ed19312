"""What a worker looks at before it begins: whether its user may do all that a queue needs, and whether the server would throw jobs away."""

from __future__ import annotations

from toril.errors import ServerRefusedError
from toril.telemetry.logs import get_logger
from toril.wire import scripts
from toril.wire.connection import Server
from toril.wire.keys import QueueKeys

log = get_logger(__name__)


async def check_server(server: Server, keys: QueueKeys) -> None:
    """Look at the server as one queue will use it; costs two round trips.

    Raises:
        ServerRefusedError: the user lacks a permission; the text tells which, and how to grant it.
        ServerUnreachableError, ReplyLostError: nobody answers.
    """
    connection = server.commands_of(keys)
    try:
        denied: list[bytes] = await connection.run(scripts.load("probe"), (keys.base, keys.own), repeatable=True)
    except ServerRefusedError as error:
        raise ServerRefusedError(error.address, error.reason, _grant(keys)) from error
    if denied:
        commands = [command.decode() for command in denied]
        raise ServerRefusedError(
            str(server.address), f"queue {keys.queue!r} needs commands that its user may not run: {', '.join(commands)}", _grant(keys)
        )
    await _warn_of_eviction(server, keys)


def _grant(keys: QueueKeys) -> str:
    return (
        f"It needs the keys ~{keys.prefix}:* and ~toril:{keys.prefix}:*, the channels &toril:{keys.prefix}:*, and the commands that "
        "docs/reliability.md lists"
    )


async def _warn_of_eviction(server: Server, keys: QueueKeys) -> None:
    reply: bytes = await server.commands_of(keys).call("INFO", "memory", repeatable=True)
    told = dict(line.split(":", 1) for line in reply.decode("utf-8", "replace").split("\r\n") if ":" in line)
    policy = told.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and told.get("maxmemory", "0") != "0":
        log.warning(
            "the server throws away keys when its memory is full, and with them jobs or their locks: set maxmemory-policy noeviction",
            queue=keys.queue,
            maxmemory_policy=policy,
            maxmemory=told.get("maxmemory_human"),
        )
