"""One connection that stands, shared by many callers: they write one behind the other, and a task hands out the replies.

    caller A ── write ─┐                      ┌─► reply A
    caller B ── write ─┼──► server ── reader ─┼─► reply B      a caller that is cancelled leaves its place in the line;
    caller C ── write ─┘                      └─► reply C      its reply is read and dropped

A line ends in one of two ways. It is *lost* when the connection breaks: everybody in it gets `ReplyLostError`. It is *retired* when
the server says that it is not the one to ask (any more): that caller gets `ServerUnreachableError`, since nothing was done; those
behind still get their replies, and nobody new may step in.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis
import redis.asyncio.connection as redis_connection
from redis import exceptions as redis_errors

from toril.errors import ServerError, ServerUnreachableError
from toril.wire.codec import id_bytes
from toril.wire.refusals import Argument, refusal

NETWORK_ERRORS: Final = (OSError, EOFError, asyncio.IncompleteReadError, redis_errors.ConnectionError, redis_errors.TimeoutError)

_pack: Callable[[tuple[Argument, ...]], bytes] = cast("Any", hiredis).pack_command  # its stub takes a tuple of one
"""redis-py would pack in Python: 1 ms for a turn of 50 jobs, against 23 us here (measured)."""

_ELSEWHERE: Final = (
    redis_errors.AskError,  # MOVED is one, too
    redis_errors.ClusterDownError,
    redis_errors.TryAgainError,
    redis_errors.ReadOnlyError,
    redis_errors.BusyLoadingError,
)
"""What a server says instead of doing anything when it isn't the primary of this key, or is none yet."""


class ReplyLostError(ServerError):
    """The connection broke after the command was sent: the server may or may not have acted."""


class Line:
    """Callers of one connection, in the order of their commands.

    Args:
        connection: one that has just been made; closed here.
        address: how errors and the reader's task name it.
        reply_timeout_ms: how long a reply may take; a call that blocks in the server adds its block time.
    """

    def __init__(self, connection: redis_connection.AbstractConnection, address: str, reply_timeout_ms: int) -> None:
        self.is_open = True
        """Whether a command may be sent through it, as far as is known without asking the server."""
        self._connection = connection
        self._address = address
        self._reply_timeout_ms = reply_timeout_ms
        self._waiting: deque[tuple[asyncio.Future[Any], float, tuple[Argument, ...]]] = deque()
        """Each with the loop time by which it must be answered, and its command."""
        self._watch: asyncio.TimerHandle | None = None
        self._is_lost = False
        self._loop = asyncio.get_running_loop()
        self.reader = asyncio.create_task(self._read(), name=f"replies from {address}")
        """Ends when the line has ended and its connection is closed. Whoever made the line waits for it."""

    async def call(self, args: tuple[Argument, ...], block_ms: int) -> Any:  # noqa: ANN401 -- a reply has the type that the command gives it
        """Send one command and wait for its reply. Raises ReplyLostError, ServerUnreachableError, and what `refusal` makes of
        an error in the server's reply."""
        try:
            packed = _pack(args)
        except UnicodeEncodeError:  # an id that is no UTF-8, as the server told it
            packed = _pack(tuple(id_bytes(arg) if isinstance(arg, str) else arg for arg in args))
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Any] = loop.create_future()
        answer_by = loop.time() + (self._reply_timeout_ms + block_ms) / 1_000
        if self._watch is None:
            self._watch = loop.call_at(answer_by, self._check)
        # From here to the write nothing suspends: the line must have the order of the bytes. redis-py's own sending would close
        # the connection when its caller is cancelled; here the whole command is in the transport's buffer by then.
        self._waiting.append((reply, answer_by, args))
        writer = _writer_of(self._connection)
        try:
            writer.write(packed)
            await writer.drain()
        except asyncio.CancelledError:
            reply.cancel()
            raise
        except (*NETWORK_ERRORS, RuntimeError) as error:  # uvloop's transport says RuntimeError when it is closed
            self.lose(reason_of(error))
        return await reply

    def lose(self, reason: str) -> None:
        """Tell everybody in the line that the connection broke; the reader closes it."""
        if self._is_lost:
            return
        self._is_lost, self.is_open = True, False
        if self._watch is not None:
            self._watch.cancel()
        waiting, self._waiting = self._waiting, deque()
        for future, _, _ in waiting:
            if not future.done():
                future.set_exception(ReplyLostError(self._address, f"the reply was lost: {reason}"))
                future.exception()  # marks it as seen: its caller may be gone
        # The reader sees the end and closes what is left. Cancelling it instead would leave all open if it hasn't begun yet.
        _writer_of(self._connection).transport.abort()

    def lose_soon(self, reason: str) -> None:
        """The same from anywhere, also from another thread than the line's."""
        with contextlib.suppress(RuntimeError):  # that loop has just been closed, and with it the line
            self._loop.call_soon_threadsafe(self.lose, reason)

    async def _read(self) -> None:
        """Hand out the replies, in the order of the commands, until the line ends."""
        reason = "the server closed the connection"
        try:
            while not self._is_lost and (self.is_open or self._waiting):
                reply = await self._next_reply()
                if not self._waiting:
                    reason = "the server sent a reply that nobody asked for"
                    return
                future, _, command = self._waiting.popleft()
                if future.done():  # its caller was cancelled
                    continue
                if isinstance(reply, redis_errors.ResponseError):
                    future.set_exception(refusal(self._address, command, reply))
                elif isinstance(reply, Exception):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)
        except (*NETWORK_ERRORS, redis_errors.InvalidResponse) as error:
            reason = reason_of(error)
        finally:
            self.lose(reason)
            await self._connection.disconnect(nowait=True)

    async def _next_reply(self) -> Any:  # noqa: ANN401 -- a reply has the type that its command gives it
        try:
            return await self._connection.read_response(  # pyright: ignore[reportUnknownVariableType]  # redis-py has no types for it
                disable_decoding=True, disconnect_on_error=False
            )
        except _ELSEWHERE as error:
            return self._retire(error)
        except redis_errors.ResponseError as error:
            text = str(error)
            if text.startswith("UNBLOCKED"):  # so is a blocked command let go when its server becomes a replica
                return self._retire(error)
            if text.startswith("BUSY "):  # with somebody's script, or with one that was frozen with the server: nothing was done
                return ServerUnreachableError(self._address, text)
            return error

    def _retire(self, error: Exception) -> ServerUnreachableError:
        self.is_open = False
        return ServerUnreachableError(self._address, f"it is not the server to ask now: {reason_of(error)}")

    def _check(self) -> None:
        """The one timer of the line: set for its head, and moved on when it fires, so that a command costs no timer of its own."""
        self._watch = None
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        answer_by = self._waiting[0][1]
        if answer_by <= loop.time():
            self.lose("the server did not answer in time")
        else:
            self._watch = loop.call_at(answer_by, self._check)


def reason_of(error: BaseException) -> str:
    """What went wrong, in the error's own words, without a full stop at their end: more may follow."""
    return str(error).rstrip(".") or type(error).__name__


def _writer_of(connection: redis_connection.AbstractConnection) -> asyncio.StreamWriter:
    writer = connection._writer  # pyright: ignore[reportPrivateUsage]  # there is no public way to it
    assert writer is not None  # redis-py drops it in `disconnect` only, which we call after `lose`
    return writer
