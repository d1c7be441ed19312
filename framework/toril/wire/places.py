"""Where a connection must go: to the one server, to the primary that the Sentinels name, or to the node that has a queue's slot.

A place is looked up each time a connection is made. So a failover needs no code of its own: the old primary closes its connections
or says that it is none (`line.py`), and the next try finds the new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, Protocol, cast

import redis.asyncio.connection as redis_connection
from redis import exceptions as redis_errors
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from toril.errors import ServerKindError, ServerUnreachableError
from toril.wire.address import ServerAddress, ServerKind
from toril.wire.line import NETWORK_ERRORS, reason_of
from toril.wire.refusals import Argument

ASK_TIMEOUT_MS: Final = 1_000
"""How long one Sentinel or node may take to say where to go, before the next one is asked."""

_PLAIN_SERVER: Final = ("cluster support disabled", "unknown command 'SENTINEL'")
"""What a server says to these questions that is neither a Sentinel nor a node of a Cluster."""


class Place(Protocol):
    """Where one connection goes."""

    async def find(self) -> dict[str, Any]:
        """redis-py's options for a connection to it.

        Raises:
            ServerUnreachableError: nobody can tell. ServerKindError: who answers is of another kind.
        """
        ...


class FixedPlace:
    """The server that the address names."""

    def __init__(self, address: ServerAddress) -> None:
        self._options = address.connection_options
        if address.kind is not ServerKind.SOCKET:
            host, port = address.hosts[0]
            self._options = self._options | {"host": host, "port": port}

    async def find(self) -> dict[str, Any]:
        return self._options


class SentinelPlace:
    """The primary that the Sentinels know under the address' name."""

    def __init__(self, address: ServerAddress) -> None:
        self._address = address
        self._sentinels = list(address.hosts)
        self._primary: tuple[str, int] | None = None

    async def find(self) -> dict[str, Any]:
        address = self._address
        command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service)
        reply = await _ask_in_turn(address, self._sentinels, address.sentinel_options, command, _known_primary(address.service))
        self._primary = host, port = reply[0].decode(), int(reply[1])
        return address.connection_options | {"host": host, "port": port}

    async def switches(self) -> AsyncGenerator[None]:
        """Tells each time that the Sentinels name another primary. The old one may take writes for seconds, and loses them.

        Raises:
            ServerUnreachableError: no Sentinel answers (any more).
        """
        known = self._primary
        await self.find()  # and the Sentinel that answered is the first now
        host, port = self._sentinels[0]
        connection = connection_to(self._address.sentinel_options | {"host": host, "port": port})
        try:
            async with asyncio.timeout(ASK_TIMEOUT_MS / 1_000):
                await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it without
                await connection.send_command("SUBSCRIBE", "+switch-master", check_health=False)
            if known not in (None, self._primary):
                yield
            while True:
                reply = cast("list[bytes]", await connection.read_response(disable_decoding=True, disconnect_on_error=False))
                if reply[0] == b"message" and reply[2].split()[0].decode() == self._address.service:
                    yield
        except (*NETWORK_ERRORS, redis_errors.RedisError, TimeoutError) as error:
            cause = error
        finally:
            await connection.disconnect(nowait=True)
        reason = f"{host}:{port}: {self._address.hide(reason_of(cause))}"
        raise ServerUnreachableError(str(self._address), reason) from (None if self._address.is_told_by(cause) else cause)


class ClusterPlace:
    """The node of a Cluster that has a slot."""

    def __init__(self, address: ServerAddress, slot: int) -> None:
        self._address = address
        self._slot = slot
        self._nodes = list(address.hosts)

    async def find(self) -> dict[str, Any]:
        options = self._address.connection_options

        def known(reply: list[Any], asked: tuple[str, int]) -> list[tuple[str, int]]:
            for first, last, *nodes in reply:
                if first <= self._slot <= last:
                    # A node that doesn't know its own address leaves it out: it is the one that was asked.
                    return [(host.decode() if host else asked[0], port) for host, port, *_ in nodes]
            raise LookupError(f"nobody has slot {self._slot}")

        nodes = await _ask_in_turn(self._address, self._nodes, options, ("CLUSTER", "SLOTS"), known)
        self._nodes = list(dict.fromkeys([*nodes, *self._address.hosts]))  # the address may name one node only, and that one may go
        host, port = nodes[0]
        return options | {"host": host, "port": port}


def connection_to(
    options: dict[str, Any], client_name: str | None = None, timeout_ms: int = ASK_TIMEOUT_MS
) -> redis_connection.AbstractConnection:
    """A connection that redis-py is yet to make, its retries off."""
    options = dict(options)
    kind: type[redis_connection.AbstractConnection] = redis_connection.Connection
    if "path" in options:
        kind = redis_connection.UnixDomainSocketConnection
    elif options.pop("ssl"):
        kind = redis_connection.SSLConnection
    return kind(
        **options,
        client_name=client_name,
        socket_timeout=None,  # whoever uses it bounds every reply
        socket_connect_timeout=timeout_ms / 1_000,
        retry=Retry(NoBackoff(), 0),
        driver_info=None,  # it would look up redis-py's own version in files, for each connection, in the event loop
        protocol=2,
    )


def _known_primary(service: str) -> Callable[[Any, tuple[str, int]], Any]:
    def known(reply: Any, _: tuple[str, int]) -> Any:  # noqa: ANN401 -- host and port as bytes
        if reply is None:
            raise LookupError(f"it knows no primary called {service!r}")
        return reply

    return known


async def _ask_in_turn(
    address: ServerAddress,
    hosts: list[tuple[str, int]],
    options: dict[str, Any],
    command: tuple[Argument, ...],
    read: Callable[[Any, tuple[str, int]], Any],
) -> Any:  # noqa: ANN401 -- whatever `read` makes of the reply
    """Ask one after the other until `read` can make something of the reply; who answered goes first next time."""
    reasons: list[str] = []
    for host, port in tuple(hosts):
        try:
            found = read(await _ask(options | {"host": host, "port": port}, command), (host, port))
        except (*NETWORK_ERRORS, redis_errors.RedisError, LookupError, TimeoutError) as error:
            if any(words in str(error) for words in _PLAIN_SERVER):
                raise ServerKindError(str(address), "standalone") from error
            reason = "no answer in time" if isinstance(error, TimeoutError) else address.hide(reason_of(error))
            reasons.append(f"{host}:{port}: {reason}")
            continue
        hosts.remove((host, port))
        hosts.insert(0, (host, port))
        return found
    raise ServerUnreachableError(str(address), "; ".join(reasons))


async def _ask(options: dict[str, Any], command: tuple[Argument, ...]) -> Any:  # noqa: ANN401 -- the command's own
    connection = connection_to(options)
    try:
        async with asyncio.timeout(ASK_TIMEOUT_MS / 1_000):
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it without
            await connection.send_command(*command, check_health=False)
            return cast("Any", await connection.read_response(disable_decoding=True, disconnect_on_error=False))
    finally:
        await connection.disconnect(nowait=True)
