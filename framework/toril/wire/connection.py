"""Connections to the server. Every client of the library is built here.

redis-py makes and speaks each connection (address, TLS, authentication, protocol); its retries are off, since it repeats a
script whose reply was cut, and only the caller knows what may be repeated. On top of it a `Connection` is *shared*: callers that
await commands at the same time share round trips (`line.py`), and a cancelled caller never spoils the connection. When it breaks,
every caller in the line gets `ReplyLostError`, and the next call connects anew, to wherever its place is by then (`places.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import random
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Self, cast
from weakref import WeakSet

import redis.asyncio.connection as redis_connection
from redis import exceptions as redis_errors

from toril.clock import real_sleep
from toril.errors import (
    DamagedKeyError,
    QueueClosedError,
    ReadOnlyServerError,
    ServerError,
    ServerKindError,
    ServerRefusedError,
    ServerTooOldError,
    ServerUnreachableError,
    WrongLoopError,
)
from toril.telemetry.logs import get_logger
from toril.units import format_ms
from toril.wire import scripts
from toril.wire.address import ServerAddress, ServerKind
from toril.wire.codec import id_text
from toril.wire.damage import locate
from toril.wire.keys import QueueKeys
from toril.wire.line import NETWORK_ERRORS, Line, ReplyLostError, reason_of
from toril.wire.places import ClusterPlace, FixedPlace, Place, SentinelPlace, connection_to
from toril.wire.refusals import Argument, UnknownScriptError, key_of, plain
from toril.wire.scripts import Script

log = get_logger(__name__)

OLDEST_SERVER: Final = (7, 0)
CONNECT_TIMEOUT_MS: Final = 3_000
REPLY_TIMEOUT_MS: Final = 10_000
"""How long a plain command may take before its connection counts as broken."""

LONGEST_PAUSE_MS: Final = 2_000
"""Between two tries to reach the server."""

SILENCE_MS: Final = 30_000
"""How long a channel may be silent before its server is asked whether it is still there, and how long it may take to answer."""

COMMAND_PATIENCE_MS: Final = 5_000
"""For how long a queue's command is tried again when the server can't be reached."""


class Connection:
    """One connection to the server, shared by everybody who calls it. It connects with the first call.

    Args:
        address: where the server is.
        place: which server of several; without it the one that the address names.
        client_name: shown in CLIENT LIST; set anew after every reconnect.
        reply_timeout_ms: how long a reply may take; a call that blocks in the server adds its block time.
        patience_ms: for how long a call that could not be made, or whose reply was lost, is tried again.
    """

    def __init__(
        self,
        address: ServerAddress,
        place: Place | None = None,
        *,
        client_name: str | None = None,
        reply_timeout_ms: int = REPLY_TIMEOUT_MS,
        patience_ms: int = 0,
    ) -> None:
        self.address = address
        self._place = place or FixedPlace(address)
        self._client_name = client_name
        self._reply_timeout_ms = reply_timeout_ms
        self._patience_ms = patience_ms
        self._line: Line | None = None
        self._readers: set[asyncio.Task[None]] = set()
        self._connecting = asyncio.Lock()
        self._failures = 0
        self._failure: ServerError | None = None
        self._is_closed = False

    @property
    def is_connected(self) -> bool:
        """Whether a connection stands, as far as is known without asking the server."""
        return self._line is not None and self._line.is_open

    def __repr__(self) -> str:
        return f"<Connection to {self.address}{'' if self._client_name is None else f' as {self._client_name}'}>"

    async def call(self, *args: Argument, repeatable: bool = False, block_ms: int = 0) -> Any:  # noqa: ANN401 -- a reply has the type that the command gives it
        """Send one command and wait for its reply.

        Args:
            args: the command and its arguments.
            repeatable: whether it may be sent again when its reply was lost.
            block_ms: how long the server itself may hold the reply back.

        Raises:
            ServerUnreachableError: no connection could be made; nothing was sent.
            ReplyLostError: the connection broke after the command was sent.
            ServerRefusedError, ServerTooOldError: while connecting.
            WrongLoopError: the connection stands, and belongs to another event loop; nothing was sent.
            ServerRefusedError, ServerFullError, CommandFailedError: what the server answered instead of doing it.
            DamagedKeyError: the same; a key is of another type.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._patience_ms / 1_000
        for pause_ms in backoff_ms():
            try:
                return await self._call_once(args, block_ms)
            except DamagedKeyError as error:
                if error.problems:
                    raise
                raise await locate(error, args, self._wrong_kinds(args)) from None
            except (ServerUnreachableError, ReplyLostError) as error:
                lost = isinstance(error, ReplyLostError)
                if (lost and not repeatable) or loop.time() + pause_ms / 1_000 > give_up_at:
                    raise error.with_traceback(None) from None  # its text says all; the reader looks for their own call
            await real_sleep(pause_ms)
        raise AssertionError("unreachable: backoff_ms never ends")

    async def run(self, script: Script, keys: Sequence[str], *args: Argument, repeatable: bool = False) -> Any:  # noqa: ANN401 -- a reply has the type that the command gives it
        """Run a script by its digest; its text is sent only if the server doesn't know it yet. Raises what `call` raises."""
        try:
            return await self.call("EVALSHA", script.sha1, len(keys), *keys, *args, repeatable=repeatable)
        except UnknownScriptError:
            await self.call("SCRIPT", "LOAD", script.text, repeatable=True)
            return await self.call("EVALSHA", script.sha1, len(keys), *keys, *args, repeatable=repeatable)

    def _wrong_kinds(self, args: tuple[Argument, ...]) -> Callable[[list[str]], Awaitable[list[bytes]]]:
        bases = [str(key) for key in args[3 : 3 + int(args[2])]] if args[0] == "EVALSHA" else [key_of(args)]

        async def look(pairs: list[str]) -> list[bytes]:
            found: list[bytes] = await self.run(scripts.load("wrong_kinds"), bases, *pairs, repeatable=True)
            return found

        return look

    async def connect(self) -> None:
        """Make the connection now, if there is none; tries once. Raises what `call` raises while connecting."""
        if not self.is_connected:
            await self._connect()

    def drop(self, reason: str) -> None:
        """Give up the connection that stands, if one does; may be called from another thread than the one it belongs to.

        Callers in the line get `ReplyLostError`, and the next call connects anew.
        """
        if self._line is not None and self._line.is_open:
            self._line.lose_soon(reason)

    async def aclose(self) -> None:
        """Close it for good. Callers in the line get `ReplyLostError`. Calling it twice is harmless."""
        self._is_closed = True
        if self._line is not None:
            self._line.lose("it was closed")
        if self._readers:
            await asyncio.wait(self._readers)

    async def _call_once(self, args: tuple[Argument, ...], block_ms: int) -> Any:  # noqa: ANN401 -- a reply has the type that the command gives it
        line = self._line
        if line is None or not line.is_open:
            line = await self._connect()
        if line.reader.get_loop() is not asyncio.get_running_loop():
            raise WrongLoopError(str(self.address))  # its reply would wake nobody here: the caller would wait for ever
        return await line.call(args, block_ms)

    def _check_open(self) -> None:
        if self._is_closed:
            raise QueueClosedError(f"the connection to {self.address}")

    async def _connect(self) -> Line:
        failures = self._failures
        async with self._connecting:
            self._check_open()
            if self._line is not None and self._line.is_open:
                return self._line
            if self._failure is not None and self._failures != failures:
                # The try that we queued behind has failed. If all tried in turn, the last one would wait for the sum.
                raise copy.copy(self._failure)
            try:
                connection = await _connected(self.address, self._place, self._client_name)
            except ServerError as error:
                self._failures, self._failure = self._failures + 1, error
                raise
            try:
                self._check_open()
            except QueueClosedError:  # closed while it was being made: nobody else would close this one
                await connection.disconnect(nowait=True)
                raise
            self._failure = None
            self._line = line = Line(connection, str(self.address), self._reply_timeout_ms)
            self._readers.add(line.reader)
            line.reader.add_done_callback(self._readers.discard)
            return line


class Subscription:
    """What is published on one channel, on a connection of its own: `async for text in subscription`. What is no UTF-8 is read as
    ids are (`id_text`), since the texts hold some.

    Each iteration connects anew, and ends only by an error: what is published while nobody listens is lost.

    Raises:
        ServerError: no connection could be made, or it broke.
    """

    def __init__(self, address: ServerAddress, place: Place, channel: str) -> None:
        self._address = address
        self._place = place
        self._channel = channel

    async def __aiter__(self) -> AsyncGenerator[str]:
        connection = await _connected(self._address, self._place, None)
        try:
            await connection.send_command("SUBSCRIBE", self._channel, check_health=False)
            was_asked = False
            while True:
                try:
                    async with asyncio.timeout(SILENCE_MS / 1_000):
                        reply: Any = await connection.read_response(disable_decoding=True, disconnect_on_error=False)  # pyright: ignore[reportUnknownVariableType]  # redis-py has no types for it
                except TimeoutError as error:
                    if was_asked:
                        raise ReplyLostError(str(self._address), "the server did not answer in time") from error
                    was_asked = True  # is anybody still there?
                    await connection.send_command("PING", check_health=False)
                    continue
                was_asked = False
                if reply[0] == b"message":
                    yield id_text(cast("bytes", reply[2]))
        except (*NETWORK_ERRORS, redis_errors.RedisError) as error:
            raise ReplyLostError(str(self._address), reason_of(error)) from error
        finally:
            await connection.disconnect(nowait=True)


class Server:
    """The server as one application sees it: its address, the connections shared by all commands, and the makings of others.

    Args:
        url: see `toril.wire.address`; for a queue without one the variable `REDIS_URL` is used.
        patience_ms: for how long a command is tried again when the server can't be reached.

    Raises:
        InvalidRedisUrlError: the address can't be read.
    """

    def __init__(self, url: str, *, patience_ms: int = COMMAND_PATIENCE_MS) -> None:
        self.address = ServerAddress(url)
        self._patience_ms = patience_ms
        self._places: dict[int, Place] = {}
        self._shared: dict[int, Connection] = {}
        self._connections: WeakSet[Connection] = WeakSet()
        self._watch: asyncio.Task[None] | None = None

    @property
    def commands(self) -> Connection:
        """The connection shared by all that belongs to no queue; on a Cluster it goes to one of the nodes."""
        return self._shared_at(0)

    def commands_of(self, keys: QueueKeys) -> Connection:
        """The connection shared by all commands on this queue: but for a Cluster, the one of all queues.

        Raises:
            InvalidOptionError: on a Cluster, a prefix without a hash tag.
        """
        return self._shared_at(self.address.slot_of(keys))

    def _shared_at(self, slot: int) -> Connection:
        connection = self._shared.get(slot)
        if connection is None:
            connection = Connection(self.address, self._place(slot), patience_ms=self._patience_ms)
            self._shared[slot] = connection
            self._connections.add(connection)
        return connection

    def _place(self, slot: int) -> Place:
        place = self._places.get(slot)
        if place is None:
            match self.address.kind:
                case ServerKind.SENTINEL:
                    place = SentinelPlace(self.address)
                case ServerKind.CLUSTER:
                    place = ClusterPlace(self.address, slot)
                case ServerKind.SINGLE | ServerKind.SOCKET:
                    place = FixedPlace(self.address)
            self._places[slot] = place
        return place

    @property
    def open_connections(self) -> list[Connection]:
        """Those that were made here and stand now, the shared ones among them."""
        return [connection for connection in self._connections if connection.is_connected]

    def connection(self, keys: QueueKeys, client_name: str | None = None, *, reply_timeout_ms: int = REPLY_TIMEOUT_MS) -> Connection:
        """A connection of its own to where the queue is, for blocking commands, a lane or a thread's own event loop; whoever asks for
        it closes it, and decides what is repeated."""
        place = self._place(self.address.slot_of(keys))
        connection = Connection(self.address, place, client_name=client_name, reply_timeout_ms=reply_timeout_ms)
        self._connections.add(connection)
        return connection

    def subscription(self, keys: QueueKeys, channel: str) -> Subscription:
        """What is published on a queue's channel."""
        return Subscription(self.address, self._place(self.address.slot_of(keys)), channel)

    async def wait_until_ready(self, timeout_ms: int, on_failure: Callable[[ServerUnreachableError], None] | None = None) -> None:
        """Try to reach the server until it answers, for at most `timeout_ms`; `on_failure` hears of every failed try.

        Raises:
            ServerUnreachableError: nobody answered in time.
            ServerRefusedError, ServerTooOldError, ServerKindError: at once, since waiting won't help.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + timeout_ms / 1_000
        for pause_ms in backoff_ms():
            try:
                await self.commands.connect()
            except ServerUnreachableError as error:
                if loop.time() + pause_ms / 1_000 > give_up_at:
                    raise
                if on_failure is not None:
                    on_failure(error)
            else:
                return
            await real_sleep(pause_ms)

    async def aclose(self) -> None:
        """Close the shared connections. Calling it twice is harmless."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait({self._watch})
        for connection in list(self._shared.values()):
            await connection.aclose()

    async def __aenter__(self) -> Self:
        place = self._place(0)
        if isinstance(place, SentinelPlace) and self._watch is None:
            self._watch = asyncio.create_task(self._follow(place), name=f"switches of {self.address}")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def _follow(self, place: SentinelPlace) -> None:
        """Leave a primary as soon as the Sentinels name another one, until cancelled. That none answers, others will say."""
        pauses = backoff_ms()
        while True:
            with contextlib.suppress(ServerError):
                async with contextlib.aclosing(place.switches()) as switches:
                    async for _ in switches:
                        pauses = backoff_ms()
                        for connection in list(self._connections):
                            connection.drop("the Sentinels have named another primary")
            await real_sleep(next(pauses))


def backoff_ms(first_ms: int = 50, cap_ms: int = LONGEST_PAUSE_MS) -> Iterator[int]:
    """Pauses between tries to reach the server: doubled up to `cap_ms`, each shortened by up to half at random. Never ends."""
    pause = first_ms
    while True:
        yield round(pause * random.uniform(0.5, 1.0))
        pause = min(pause * 2, cap_ms)


async def _connected(address: ServerAddress, place: Place, client_name: str | None) -> redis_connection.AbstractConnection:
    """A connection that stands, to a server that can be used."""
    options = await place.find()
    connection = connection_to(options, client_name, CONNECT_TIMEOUT_MS)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_MS / 1_000):
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it without
            await _check_server(connection, address)
    except BaseException as error:
        await connection.disconnect(nowait=True)
        if not isinstance(error, (TimeoutError, redis_errors.RedisError, OSError)):
            raise
        if not address.is_told_by(error):
            log.debug("could not connect", server=str(address), exc_info=error)
        failure = _connect_error(address, error)
    else:
        return connection
    raise failure  # out here, without 40 lines of redis-py and asyncio before it, whose text is in ours


async def _check_server(connection: redis_connection.AbstractConnection, address: ServerAddress) -> None:
    """One look at each connection: a failover may have brought us to a server of another version, or to a replica."""
    for section in ("server", "replication"):
        await connection.send_command("INFO", section, check_health=False)
    told: dict[str, str] = {}
    for _ in range(2):
        reply = cast("bytes", await connection.read_response(disconnect_on_error=False))
        told.update(re.findall(r"^(\w+):(\S*)", reply.decode("utf-8", "replace"), re.MULTILINE))
    found = re.match(r"(\d+)\.(\d+)", told.get("redis_version", ""))
    if (version := (int(found[1]), int(found[2])) if found else (0, 0)) < OLDEST_SERVER:
        raise ServerTooOldError(str(address), ".".join(map(str, version)), ".".join(map(str, OLDEST_SERVER)))
    mode = told.get("redis_mode") or told.get("server_mode") or "standalone"  # Redis, Valkey
    if mode == "sentinel" or (mode == "cluster") != (address.kind is ServerKind.CLUSTER):
        raise ServerKindError(str(address), mode)
    if told.get("role") == "slave":
        raise ReadOnlyServerError(str(address), f"{told.get('master_host')}:{told.get('master_port')}")


def _connect_error(address: ServerAddress, error: BaseException) -> ServerError:
    if type(error) is redis_errors.ConnectionError and isinstance(error.__cause__, redis_errors.RedisError):
        error = error.__cause__  # so does redis-py wrap the server's own words when it connects to a socket file
    if isinstance(error, redis_errors.BusyLoadingError):
        return ServerUnreachableError(str(address), "it is still loading its data")
    refused = (redis_errors.AuthenticationError, redis_errors.AuthorizationError, redis_errors.ResponseError)
    if isinstance(error, refused):  # NOPERM, NOAUTH, WRONGPASS, unknown database
        return ServerRefusedError(str(address), address.hide(plain(str(error))))
    if isinstance(error, TimeoutError):
        return ServerUnreachableError(str(address), f"no answer within {format_ms(CONNECT_TIMEOUT_MS)}")
    return ServerUnreachableError(str(address), address.hide(reason_of(error)))
