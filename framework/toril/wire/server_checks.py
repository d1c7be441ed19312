"""What is to know of a server before it is worked with: whether its user may do all that a queue needs, and whether it would throw jobs
away. A worker looks at it before it begins."""

from __future__ import annotations

from collections.abc import Mapping

from toril.errors import ServerRefusedError
from toril.telemetry.logs import get_logger
from toril.wire import scripts
from toril.wire.connection import Connection, Server
from toril.wire.keys import QueueKeys

log = get_logger(__name__)


async def check_server(server: Server, keys: QueueKeys) -> None:
    """Look at the server as one queue will use it; costs two round trips.

    Raises:
        ServerRefusedError: the user lacks a permission; the text tells which, and how to grant it.
        ServerUnreachableError, ReplyLostError: nobody answers.
    """
    try:
        denied = await denied_commands(server, keys)
    except ServerRefusedError as error:
        raise ServerRefusedError(error.address, error.reason, grant_words(keys)) from error
    if denied:
        raise ServerRefusedError(
            str(server.address), f"queue {keys.queue!r} needs commands that its user may not run: {', '.join(denied)}", grant_words(keys)
        )
    info = await server_info(server.commands_of(keys), "memory")
    if evicts(info):
        log.warning(
            "the server throws away keys when its memory is full, and with them jobs or their locks: set maxmemory-policy noeviction",
            queue=keys.queue,
            maxmemory_policy=info.get("maxmemory_policy"),
            maxmemory=info.get("maxmemory_human"),
        )


async def denied_commands(server: Server, keys: QueueKeys) -> list[str]:
    """What the server's user may not do and a queue needs; each command is tried.

    Raises:
        ServerRefusedError: it may not even run a script.
        ServerUnreachableError, ReplyLostError: nobody answers.
    """
    denied: list[bytes] = await server.commands_of(keys).run(scripts.load("probe"), (keys.base, keys.own), repeatable=True)
    return [command.decode("utf-8", "replace") for command in denied]


def grant_words(keys: QueueKeys) -> str:
    """What its user must be allowed."""
    return (
        f"It needs the keys ~{keys.prefix}:* and ~toril:{keys.prefix}:*, the channels &toril:{keys.prefix}:*, and the commands that "
        "docs/reliability.md lists"
    )


async def server_info(connection: Connection, *sections: str) -> dict[str, str]:
    """What INFO tells, by name: of these sections, or of the usual ones."""
    reply: bytes = await connection.call("INFO", *sections, repeatable=True)
    return dict(line.split(":", 1) for line in reply.decode("utf-8", "replace").split("\r\n") if ":" in line)


def evicts(info: Mapping[str, str]) -> bool:
    """Whether it throws away keys when its memory is full. A limit that isn't set is never reached."""
    return info.get("maxmemory_policy", "noeviction") != "noeviction" and info.get("maxmemory", "0") != "0"
