"""Reads a queue's events stream as it grows, on a connection of its own, and goes on where it was when that breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import structlog

from toril.errors import QueueClosedError, ServerError, ServerUnreachableError
from toril.queues.events import QueueEvent, read_event
from toril.queues.opening import open_server, prefix_or_default
from toril.wire.commands import QueueCommands
from toril.wire.connection import Server, backoff_ms
from toril.wire.keys import QueueKeys
from toril.wire.line import ReplyLostError

if TYPE_CHECKING:
    from toril.queues.queue import Queue

BLOCK_MS: Final = 10_000
"""How long the server holds one read back when nothing happens. Longer would only delay the discovery of a dead connection."""

NOW: Final = "$"
"""As a position: behind the newest event."""

log = structlog.get_logger(__name__)


class EventStream:
    """Entries of one queue's stream behind a position that moves on with each read. For one reader at a time.

    Args:
        server: where the stream is; the connection is made from it, and closed here.
        commands: the queue's operations.
        after: the stream id behind which to begin, or `NOW`.
    """

    def __init__(self, server: Server, commands: QueueCommands, after: str = NOW) -> None:
        self.position = after
        self.trouble: ServerError | None = None
        """Why the last read or `settle` failed; None once one has succeeded again."""
        self._commands = commands
        self._connection = server.connection(commands.keys, commands.keys.events_client_name)
        self._pauses: Iterator[int] = backoff_ms()
        self._closing = asyncio.Event()

    @property
    def is_closed(self) -> bool:
        return self._closing.is_set()

    async def settle(self) -> bool:
        """Turn `NOW` into the id of the newest event, so that no reconnect can lose one. False: not yet possible, call again."""
        if self.position != NOW:
            return True
        try:
            self.position = await self._commands.last_event_id()
        except (ServerUnreachableError, ReplyLostError) as error:
            await self._recover(error)
            return False
        self._recovered()
        return True

    async def read(self, block_ms: int = BLOCK_MS) -> list[tuple[str, dict[str, str]]]:
        """The next entries; empty after `block_ms` without any, after a failure (and a pause that grows with each), and when closed."""
        try:
            entries = await self._commands.read_events(self._connection, self.position, block_ms)
        except (ServerUnreachableError, ReplyLostError) as error:
            await self._recover(error)
            return []
        except QueueClosedError:
            if not self.is_closed:
                raise
            return []
        self._recovered()
        if entries:
            self.position = entries[-1][0]
        return entries

    async def aclose(self) -> None:
        """End a read that is under way, and close the connection. May be called twice."""
        self._closing.set()
        await self._connection.aclose()

    async def _recover(self, error: ServerError) -> None:
        if self.is_closed:
            return
        if self.trouble is None:
            log.warning("events_stream_lost", queue=self._commands.keys.queue, error=str(error))
        self.trouble = error
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(next(self._pauses) / 1_000):  # the network's time is real, whatever a test's clock says
                await self._closing.wait()

    def _recovered(self) -> None:
        if self.trouble is not None:
            log.info("events_stream_back", queue=self._commands.keys.queue)
            self.trouble = None
            self._pauses = backoff_ms()


class QueueEvents:
    """What happens to a queue's jobs in the whole fleet, as it happens.

        async with QueueEvents(queue) as events:
            async for event in events:
                match event:
                    case CompletedEvent(job_id=job_id): ...

    From the moment `async with` has been entered no event is missed, however often the connection breaks (as long as the stream
    still holds it: about 10,000 events by default). Iteration ends when `aclose` is called, by whomever.

    Args:
        queue: a queue (its server and prefix are used), or a queue's name.
        last_event_id: the `stream_id` behind which to begin; without one only what happens from now on is told. `"0"` begins with
            the oldest event that is left.
        prefix, url, server: for a queue's name, as for `Queue`.
    """

    def __init__(
        self,
        queue: Queue[Any, Any] | str,
        *,
        last_event_id: str = NOW,
        prefix: str | None = None,
        url: str | None = None,
        server: Server | None = None,
    ) -> None:
        self._queue = queue
        self._keys = QueueKeys(prefix_or_default(prefix, url, server), queue) if isinstance(queue, str) else queue.keys
        self._url, self._server = url, server
        self._stack = AsyncExitStack()
        self._stream: EventStream | None = None
        self._buffer: deque[QueueEvent] = deque()
        self._one_reader = asyncio.Lock()
        self.last_event_id = last_event_id
        """The id of the event that was handed out last; begin there to go on later."""

    @property
    def queue_name(self) -> str:
        return self._keys.queue

    async def __aenter__(self) -> Self:
        if self._stream is not None:
            raise QueueClosedError(f"QueueEvents of {self.queue_name!r}", "open already")
        server = await self._open_server()
        stream = EventStream(server, QueueCommands(server, self._keys), self.last_event_id)
        self._stream = stream
        try:
            if not await stream.settle() and stream.trouble is not None:
                raise stream.trouble
        except BaseException:
            await self.aclose()
            raise
        self.last_event_id = stream.position
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> QueueEvent:
        stream = self._stream
        if stream is None:
            raise QueueClosedError(f"QueueEvents of {self.queue_name!r}", "not open")
        async with self._one_reader:
            while not self._buffer:
                if stream.is_closed:
                    raise StopAsyncIteration
                self._buffer.extend(read_event(stream_id, entry) for stream_id, entry in await stream.read())
            event = self._buffer.popleft()
            self.last_event_id = event.stream_id
            return event

    async def aclose(self) -> None:
        """End the iteration and close the connection. May be called twice."""
        if self._stream is not None:
            self._buffer.clear()
            await self._stream.aclose()
        await self._stack.aclose()

    async def _open_server(self) -> Server:
        if not isinstance(self._queue, str):
            await self._queue.open()
            return self._queue.server
        if self._server is not None:
            return self._server
        return await self._stack.enter_async_context(open_server(self._url))
