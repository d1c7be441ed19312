"""Connections to the server. Every client of the library is built here.

redis-py makes and speaks each connection (address, TLS, authentication, protocol); its retries are off, since it repeats a
script whose reply was cut, and only the caller knows what may be repeated. On top of it a `Connection` is *shared*: callers
write their commands one behind the other and one task hands out the replies in the same order.

    caller A ── write ─┐                      ┌─► reply A
    caller B ── write ─┼──► server ── reader ─┼─► reply B      a caller that is cancelled leaves its place in the line;
    caller C ── write ─┘                      └─► reply C      its reply is read and dropped

So commands that are awaited at the same time share round trips, and a cancelled caller never spoils the connection. When the
connection breaks, every caller in the line gets `ReplyLostError`, and the next call connects anew.
"""

from __future__ import annotations

import asyncio
import copy
import random
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Self, cast
from weakref import WeakSet

import hiredis
import redis
import redis.asyncio.connection as redis_connection
from redis import exceptions as redis_errors
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from toril.clock import real_sleep
from toril.errors import (
    QueueClosedError,
    ServerError,
    ServerRefusedError,
    ServerTooOldError,
    ServerUnreachableError,
)
from toril.wire.address import ServerAddress
from toril.wire.codec import id_bytes
from toril.wire.scripts import Script

OLDEST_SERVER: Final = (7, 0)
CONNECT_TIMEOUT_MS: Final = 3_000
REPLY_TIMEOUT_MS: Final = 10_000
"""How long a plain command may take before its connection counts as broken."""

SILENCE_MS: Final = 30_000
"""How long a channel may be silent before its server is asked whether it is still there, and how long it may take to answer."""

COMMAND_PATIENCE_MS: Final = 5_000
"""For how long a queue's command is tried again when the server can't be reached."""

_NETWORK_ERRORS: Final = (OSError, EOFError, asyncio.IncompleteReadError, redis_errors.ConnectionError, redis_errors.TimeoutError)

Argument = str | bytes | int | float

_pack: Callable[[tuple[Argument, ...]], bytes] = cast("Any", hiredis).pack_command  # its stub takes a tuple of one
"""redis-py would pack in Python: 1 ms for a turn of 50 jobs, against 23 us here (measured)."""


class ReplyLostError(ServerError):
    """The connection broke after the command was sent: the server may or may not have acted."""


class Connection:
    """One connection to the server, shared by everybody who calls it. It connects with the first call.

    Args:
        address: where the server is.
        client_name: shown in CLIENT LIST; set anew after every reconnect.
        reply_timeout_ms: how long a reply may take; a call that blocks in the server adds its block time.
        patience_ms: for how long a call that could not be made, or whose reply was lost, is tried again.
    """

    def __init__(
        self,
        address: ServerAddress,
        *,
        client_name: str | None = None,
        reply_timeout_ms: int = REPLY_TIMEOUT_MS,
        patience_ms: int = 0,
    ) -> None:
        self.address = address
        self._client_name = client_name
        self._reply_timeout_ms = reply_timeout_ms
        self._patience_ms = patience_ms
        self._redis: redis_connection.AbstractConnection | None = None
        self._readers: set[asyncio.Task[None]] = set()
        self._line: deque[tuple[asyncio.Future[Any], float]] = deque()  # each with the loop time by which it must be answered
        self._watch: asyncio.TimerHandle | None = None
        self._connecting = asyncio.Lock()
        self._failures = 0
        self._failure: ServerError | None = None
        self._is_closed = False

    @property
    def is_connected(self) -> bool:
        """Whether a connection stands, as far as is known without asking the server."""
        return self._redis is not None

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
            redis.exceptions.ResponseError: the server's own error.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._patience_ms / 1_000
        for pause_ms in backoff_ms():
            try:
                return await self._call_once(args, block_ms)
            except (ServerUnreachableError, ReplyLostError) as error:
                lost = isinstance(error, ReplyLostError)
                if (lost and not repeatable) or loop.time() + pause_ms / 1_000 > give_up_at:
                    raise
            await real_sleep(pause_ms)
        raise AssertionError("unreachable: backoff_ms never ends")

    async def run(self, script: Script, keys: Sequence[str], *args: Argument, repeatable: bool = False) -> Any:  # noqa: ANN401 -- a reply has the type that the command gives it
        """Run a script by its digest; its text is sent only if the server doesn't know it yet. Raises what `call` raises."""
        try:
            return await self.call("EVALSHA", script.sha1, len(keys), *keys, *args, repeatable=repeatable)
        except redis_errors.NoScriptError:
            await self.call("SCRIPT", "LOAD", script.text, repeatable=True)
            return await self.call("EVALSHA", script.sha1, len(keys), *keys, *args, repeatable=repeatable)

    async def connect(self) -> None:
        """Make the connection now, if there is none; tries once. Raises what `call` raises while connecting."""
        if self._redis is None:
            await self._connect()

    async def aclose(self) -> None:
        """Close it for good. Callers in the line get `ReplyLostError`. Calling it twice is harmless."""
        self._is_closed = True
        self._lose("it was closed")
        if self._readers:
            await asyncio.wait(self._readers)

    async def _call_once(self, args: tuple[Argument, ...], block_ms: int) -> Any:  # noqa: ANN401 -- a reply has the type that the command gives it
        connection = self._redis or await self._connect()
        try:
            packed = _pack(args)
        except UnicodeEncodeError:  # an id that is no UTF-8, as the server told it
            packed = _pack(tuple(id_bytes(arg) if isinstance(arg, str) else arg for arg in args))
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Any] = loop.create_future()
        answer_by = loop.time() + (self._reply_timeout_ms + block_ms) / 1_000
        if self._watch is None:
            self._watch = loop.call_at(answer_by, self._check_line)
        # From here to the write nothing suspends: the line must have the order of the bytes. redis-py's own sending would close
        # the connection when its caller is cancelled; here the whole command is in the transport's buffer by then.
        self._line.append((reply, answer_by))
        writer = _writer_of(connection)
        try:
            writer.write(packed)
            await writer.drain()
        except asyncio.CancelledError:
            reply.cancel()
            raise
        except (*_NETWORK_ERRORS, RuntimeError) as error:  # uvloop's transport says RuntimeError when it is closed
            if self._redis is connection:
                self._lose(_reason(error))
        return await reply

    async def _connect(self) -> redis_connection.AbstractConnection:
        failures = self._failures
        async with self._connecting:
            if self._is_closed:
                raise QueueClosedError(f"the connection to {self.address}")
            if self._redis is not None:
                return self._redis
            if self._failure is not None and self._failures != failures:
                # The try that we queued behind has failed. If all tried in turn, the last one would wait for the sum.
                raise copy.copy(self._failure) from self._failure.__cause__
            connection = _build(self.address, self._client_name)
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_MS / 1_000):
                    await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it without
                    await _check_version(connection, self.address)
                if self._is_closed:  # closed while it was being made: nobody would close this one
                    raise QueueClosedError(f"the connection to {self.address}")
            except BaseException as error:
                await connection.disconnect(nowait=True)
                if isinstance(error, (TimeoutError, redis_errors.RedisError, OSError)):
                    self._failures, self._failure = self._failures + 1, _connect_error(self.address, error)
                    raise self._failure from error
                raise
            self._redis, self._failure = connection, None
            reader = asyncio.create_task(self._read(connection), name=f"replies from {self.address}")
            self._readers.add(reader)
            reader.add_done_callback(self._readers.discard)
            return connection

    async def _read(self, connection: redis_connection.AbstractConnection) -> None:
        """Hand out the replies, in the order of the commands, until the connection breaks."""
        reason = "the server closed the connection"
        try:
            while self._redis is connection:
                reply: Any
                try:
                    reply = await connection.read_response(  # pyright: ignore[reportUnknownVariableType]  # redis-py has no types for it
                        disable_decoding=True, disconnect_on_error=False
                    )
                except redis_errors.ResponseError as error:
                    reply = error
                if not self._line:
                    reason = "the server sent a reply that nobody asked for"
                    return
                future, _ = self._line.popleft()
                if future.done():  # its caller was cancelled
                    continue
                if isinstance(reply, redis_errors.ResponseError):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)
        except (*_NETWORK_ERRORS, redis_errors.InvalidResponse) as error:
            reason = _reason(error)
        finally:
            if self._redis is connection:
                self._lose(reason)
            await connection.disconnect(nowait=True)

    def _lose(self, reason: str) -> None:
        """Drop the connection and tell everybody in the line; its reader closes it. The next call connects anew."""
        if self._redis is None:
            return
        connection, self._redis = self._redis, None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        line, self._line = self._line, deque()
        for future, _ in line:
            if not future.done():
                future.set_exception(ReplyLostError(str(self.address), f"the reply was lost: {reason}"))
                future.exception()  # marks it as seen: its caller may be gone
        # Its reader sees the end and closes what is left. Cancelling it instead would leave all open if it hasn't begun yet.
        _writer_of(connection).transport.abort()

    def _check_line(self) -> None:
        """The one timer of the line: set for its head, and moved on when it fires, so that a command costs no timer of its own."""
        self._watch = None
        if not self._line:
            return
        loop = asyncio.get_running_loop()
        answer_by = self._line[0][1]
        if answer_by <= loop.time():
            self._lose("the server did not answer in time")
        else:
            self._watch = loop.call_at(answer_by, self._check_line)


class Subscription:
    """What is published on one channel, on a connection of its own: `async for text in subscription`.

    Each iteration connects anew, and ends only by an error: what is published while nobody listens is lost.

    Raises:
        ServerError: no connection could be made, or it broke.
    """

    def __init__(self, address: ServerAddress, channel: str) -> None:
        self._address = address
        self._channel = channel

    async def __aiter__(self) -> AsyncGenerator[str]:
        connection = _build(self._address, None)
        try:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_MS / 1_000):
                    await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it without
                    await connection.send_command("SUBSCRIBE", self._channel, check_health=False)
            except (TimeoutError, redis_errors.RedisError, OSError) as error:
                raise _connect_error(self._address, error) from error
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
                    yield cast("bytes", reply[2]).decode("utf-8", "replace")
        except (*_NETWORK_ERRORS, redis_errors.RedisError) as error:
            raise ReplyLostError(str(self._address), _reason(error)) from error
        finally:
            await connection.disconnect(nowait=True)


class Server:
    """The server as one application sees it: its address, a connection shared by all commands, and the makings of others.

    Args:
        url: `redis://`, `rediss://` or `unix://`; without one the variable `REDIS_URL` is used.

    Raises:
        InvalidRedisUrlError: the address can't be read.
    """

    def __init__(self, url: str, *, patience_ms: int = COMMAND_PATIENCE_MS) -> None:
        self.address = ServerAddress(url)
        self.commands = Connection(self.address, patience_ms=patience_ms)
        self._connections: WeakSet[Connection] = WeakSet([self.commands])

    @property
    def open_connections(self) -> list[Connection]:
        """Those that were made here and stand now, the shared one among them."""
        return [connection for connection in self._connections if connection.is_connected]

    def connection(self, client_name: str | None = None) -> Connection:
        """A connection of its own, for blocking commands or a lane; whoever asks for it closes it, and decides what is repeated."""
        connection = Connection(self.address, client_name=client_name)
        self._connections.add(connection)
        return connection

    def subscription(self, channel: str) -> Subscription:
        """What is published on a channel."""
        return Subscription(self.address, channel)

    def thread_client(self, timeout_ms: int) -> redis.Redis:
        """A blocking client for a thread, its retries off; whoever asks for it closes it."""
        options = dict(self.address.connection_options)
        kind = _sync_class(options)
        pool = redis.ConnectionPool(
            connection_class=kind,
            max_connections=1,
            socket_timeout=timeout_ms / 1_000,
            socket_connect_timeout=timeout_ms / 1_000,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **options,
        )
        return redis.Redis.from_pool(pool)

    async def wait_until_ready(self, timeout_ms: int, on_failure: Callable[[ServerUnreachableError], None] | None = None) -> None:
        """Try to reach the server until it answers, for at most `timeout_ms`; `on_failure` hears of every failed try.

        Raises:
            ServerUnreachableError: nobody answered in time.
            ServerRefusedError, ServerTooOldError: at once, since waiting won't help.
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
        """Close the shared connection. Calling it twice is harmless."""
        await self.commands.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()


def backoff_ms(first_ms: int = 50, cap_ms: int = 2_000) -> Iterator[int]:
    """Pauses between tries to reach the server: doubled up to `cap_ms`, each shortened by up to half at random. Never ends."""
    pause = first_ms
    while True:
        yield round(pause * random.uniform(0.5, 1.0))
        pause = min(pause * 2, cap_ms)


def _build(address: ServerAddress, client_name: str | None) -> redis_connection.AbstractConnection:
    options = dict(address.connection_options)
    kind: type[redis_connection.AbstractConnection] = redis_connection.Connection
    if "path" in options:
        kind = redis_connection.UnixDomainSocketConnection
    elif options.pop("ssl"):
        kind = redis_connection.SSLConnection
    return kind(
        **options,
        client_name=client_name,
        socket_timeout=None,  # the line's own timer bounds every reply
        socket_connect_timeout=CONNECT_TIMEOUT_MS / 1_000,
        retry=AsyncRetry(NoBackoff(), 0),
        driver_info=None,  # it would look up redis-py's own version in files, for each connection, in the event loop
        protocol=2,
    )


def _sync_class(options: dict[str, Any]) -> type[redis.Connection]:
    if "path" in options:
        return cast("type[redis.Connection]", redis.UnixDomainSocketConnection)  # a sister of it; the pool takes both
    return redis.SSLConnection if options.pop("ssl") else redis.Connection


async def _check_version(connection: redis_connection.AbstractConnection, address: ServerAddress) -> None:
    """One INFO a connection: a failover may have brought us to a server of another version."""
    await connection.send_command("INFO", "server", check_health=False)
    reply = cast("bytes", await connection.read_response(disconnect_on_error=False))
    found = re.search(rb"^redis_version:(\d+)\.(\d+)", reply, re.MULTILINE)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < OLDEST_SERVER:
        raise ServerTooOldError(str(address), ".".join(map(str, version)), ".".join(map(str, OLDEST_SERVER)))


def _connect_error(address: ServerAddress, error: BaseException) -> ServerError:
    if type(error) is redis_errors.ConnectionError and isinstance(error.__cause__, redis_errors.RedisError):
        error = error.__cause__  # so does redis-py wrap the server's own words when it connects to a socket file
    if isinstance(error, redis_errors.BusyLoadingError):
        return ServerUnreachableError(str(address), "it is still loading its data")
    refused = (redis_errors.AuthenticationError, redis_errors.AuthorizationError, redis_errors.ResponseError)
    if isinstance(error, refused):  # NOPERM, NOAUTH, WRONGPASS, unknown database
        return ServerRefusedError(str(address), str(error))
    if isinstance(error, TimeoutError):
        return ServerUnreachableError(str(address), f"no answer within {CONNECT_TIMEOUT_MS} ms")
    return ServerUnreachableError(str(address), _reason(error))


def _writer_of(connection: redis_connection.AbstractConnection) -> asyncio.StreamWriter:
    writer = connection._writer  # pyright: ignore[reportPrivateUsage]  # there is no public way to it
    assert writer is not None  # redis-py drops it in `disconnect` only, which we call after `_lose`
    return writer


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
