"""A door to the server that can be shut at the worst moment: before a command, after it, or with its reply on the way.

    async with Proxy(toril_server_url) as proxy:
        server = Server(proxy.url)
        proxy.decide = nth(1, is_script("turn"), Cut.AFTER)     # the server runs the first turn, its reply never arrives
        ...
        await proxy.happened.wait()                             # the cut, not a time

`decide` is asked once for each command of every client (those with which redis-py greets the server too), in the order in
which they come; it answers with a `Cut` or None. For random cuts: `proxy.decide = at_random(Random(seed), 0.01, is_script("turn"))`.

    Cut.BEFORE   the connection is cut, the server never sees the command
    Cut.AFTER    the server runs the command; its reply is dropped, and the connection is cut
    Cut.LATE     the connection is cut, the command is kept: `await proxy.deliver_late()` sends it after all
    Cut.HALF_COMMAND, Cut.HALF_REPLY   the connection is cut in the middle of it
    Cut.HOLD     the reply, and all behind it on that connection, wait for `proxy.release()`

`cut()` cuts every connection now; `down()` refuses new ones as well, until `up()`. `commands` is the list of all commands seen,
`seen(matches)` waits for one. The proxy speaks to clients by TCP (with `tls` by TLS, as `localhost`), to the server by whatever its
address says.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from types import TracebackType
from typing import Final, Self, TypeAlias
from urllib.parse import urlsplit

from toril.wire.scripts import load

Command: TypeAlias = list[bytes]
Matches: TypeAlias = Callable[[Command], bool]

_LIMIT: Final = 64 * 1024 * 1024


class Cut(Enum):
    """What happens to a command."""

    BEFORE = auto()
    AFTER = auto()
    LATE = auto()
    HALF_COMMAND = auto()
    HALF_REPLY = auto()
    HOLD = auto()


def is_command(name: str) -> Matches:
    """A command by its name."""
    return lambda command: command[0].upper() == name.encode()


def is_script(name: str) -> Matches:
    """A call of one of our scripts."""
    digest = load(name).sha1.encode()
    return lambda command: command[0].upper() == b"EVALSHA" and command[1] == digest


def nth(number: int, matches: Matches, cut: Cut) -> Callable[[Command], Cut | None]:
    """Do it to the n-th command that matches, counted from 1, and to no other."""
    left = number

    def decide(command: Command) -> Cut | None:
        nonlocal left
        if not matches(command):
            return None
        left -= 1
        return cut if left == 0 else None

    return decide


def at_random(source: random.Random, share: float, matches: Matches) -> Callable[[Command], Cut | None]:
    """Cut this share of the matching commands, as many before as after the server ran them, and half of those in the middle."""

    def decide(command: Command) -> Cut | None:
        if not matches(command) or source.random() >= share:
            return None
        return source.choice((Cut.BEFORE, Cut.HALF_COMMAND, Cut.AFTER, Cut.HALF_REPLY))

    return decide


class Proxy:
    """See the module."""

    def __init__(self, server_url: str, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.decide: Callable[[Command], Cut | None] = lambda command: None
        self.commands: list[Command] = []
        self.connections = 0
        """How many clients have connected so far."""
        self.cuts = 0
        self.happened = asyncio.Event()
        """Set with the first command for which `decide` answered something; clear it to wait for the next."""
        self._target = urlsplit(server_url)
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._late: list[bytes] = []
        self._held: list[asyncio.Event] = []
        self._news = asyncio.Condition()
        self._is_down = False

    @property
    def url(self) -> str:
        """The address that clients use instead of the server's own; user, password and database stay."""
        assert self._listener is not None
        port: int = self._listener.sockets[0].getsockname()[1]
        user_info, at, _ = self._target.netloc.rpartition("@")
        database = self._target.path if self._target.scheme == "redis" else ""
        scheme, host = ("redis", "127.0.0.1") if self._tls is None else ("rediss", "localhost")
        return f"{scheme}://{user_info}{at}{host}:{port}{database}"

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_LIMIT, ssl=self._tls)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._listener is not None
        self._listener.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self) -> None:
        """Cut every connection, both ways, now."""
        for writer in self._writers:
            writer.close()

    def down(self) -> None:
        """Cut every connection, and every new one at once, until `up()`."""
        self._is_down = True
        self.cut()

    def up(self) -> None:
        """Let clients in again."""
        self._is_down = False

    def release(self) -> None:
        """Let the replies to all commands that were held so far go their way, those that the server still owes included."""
        for event in self._held:
            event.set()
        self._held.clear()

    async def seen(self, matches: Matches, count: int = 1) -> None:
        """Wait until `count` matching commands have come by, those before this call included."""
        async with self._news:
            await self._news.wait_for(lambda: sum(map(matches, self.commands)) >= count)

    async def deliver_late(self) -> list[bytes]:
        """Send the commands that were kept back, each on a connection of its own; the replies, as they came."""
        kept, self._late = self._late, []
        replies: list[bytes] = []
        for raw in kept:
            reader, writer = await self._connect()
            writer.write(raw)
            replies.append(await read_reply(reader))
            writer.close()
            await writer.wait_closed()
        return replies

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._target.scheme == "unix":
            return await asyncio.open_unix_connection(self._target.path, limit=_LIMIT)
        return await asyncio.open_connection(self._target.hostname, self._target.port or 6379, limit=_LIMIT)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._is_down:
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        to_server: asyncio.StreamWriter | None = None
        try:
            from_server, to_server = await self._connect()
            self._writers.add(to_server)
            line: deque[Cut | asyncio.Event | None] = deque()
            async with asyncio.TaskGroup() as both:
                there = both.create_task(self._pass_commands(reader, to_server, line))
                back = both.create_task(self._pass_replies(from_server, writer, line))
                there.add_done_callback(lambda _: back.cancel())
                back.add_done_callback(lambda _: there.cancel())
        except* (OSError, EOFError):
            pass  # the server is gone: so is the client
        finally:
            for end in (writer, to_server):
                if end is not None:
                    end.close()
                    self._writers.discard(end)

    async def _pass_commands(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, line: deque[Cut | asyncio.Event | None]
    ) -> None:
        while True:
            try:
                command, raw = await read_command(reader)
            except (OSError, EOFError):
                return
            self.commands.append(command)
            async with self._news:
                self._news.notify_all()
            cut = self.decide(command)
            held = asyncio.Event() if cut is Cut.HOLD else None
            if held is not None:
                self._held.append(held)
                self.happened.set()
            if cut is Cut.LATE:
                self._late.append(raw)
            if cut in {Cut.LATE, Cut.BEFORE, Cut.HALF_COMMAND}:
                if cut is Cut.HALF_COMMAND:
                    server.write(raw[: len(raw) // 2])
                    await server.drain()
                self._note_cut()
                return
            line.append(held or cut)
            server.write(raw)
            await server.drain()

    async def _pass_replies(
        self, reader: asyncio.StreamReader, client: asyncio.StreamWriter, line: deque[Cut | asyncio.Event | None]
    ) -> None:
        while True:
            try:
                raw = await read_reply(reader)
            except (OSError, EOFError):
                return
            cut = line.popleft() if line else None
            if cut in {Cut.AFTER, Cut.HALF_REPLY}:
                if cut is Cut.HALF_REPLY:
                    client.write(raw[: len(raw) // 2])
                    await client.drain()
                self._note_cut()
                return
            if isinstance(cut, asyncio.Event):
                await cut.wait()
            client.write(raw)
            await client.drain()

    def _note_cut(self) -> None:
        self.cuts += 1
        self.happened.set()


async def read_command(reader: asyncio.StreamReader) -> tuple[Command, bytes]:
    """One command, as clients write it: its arguments, and the bytes."""
    raw = [await reader.readuntil(b"\r\n")]
    command: Command = []
    for _ in range(int(raw[0][1:])):
        head = await reader.readuntil(b"\r\n")
        body = await reader.readexactly(int(head[1:]) + 2)
        command.append(body[:-2])
        raw += (head, body)
    return command, b"".join(raw)


async def read_reply(reader: asyncio.StreamReader) -> bytes:
    """The bytes of one whole reply (RESP 2)."""
    raw: list[bytes] = []
    left = 1
    while left:
        left -= 1
        head = await reader.readuntil(b"\r\n")
        raw.append(head)
        size = int(head[1:]) if head[:1] in b"$*" else 0
        if head[:1] == b"$" and size >= 0:
            raw.append(await reader.readexactly(size + 2))
        elif head[:1] == b"*":
            left += max(size, 0)
    return b"".join(raw)
