"""A server that answers what a test tells it to: old, silent, loading, or out of its mind. Speaks just enough RESP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeAlias

from tests.proxy import Command, read_command

Answer: TypeAlias = Callable[[Command], Awaitable[bytes | None]]


def bulk(text: str) -> bytes:
    """A bulk string."""
    return b"$%d\r\n%s\r\n" % (len(text), text.encode())


async def greets(command: Command) -> bytes | None:
    """Answers what a client sends while connecting, as a Valkey would, and `OK` to everything else."""
    return bulk("# Server\r\nredis_version:7.2.4\r\n") if command[0] == b"INFO" else b"+OK\r\n"


async def is_silent(_: Command) -> bytes | None:
    """Reads, and never answers."""
    return None


class FakeServer:
    """Listens on a TCP port; asks `answer` for the bytes to reply with, None for nothing."""

    def __init__(self, answer: Answer = greets) -> None:
        self.answer = answer
        self.connections = 0
        self.commands: list[Command] = []
        self.may_read = asyncio.Event()
        """Clear it, and it leaves what comes in the socket."""
        self.may_read.set()
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        assert self._listener is not None
        return f"redis://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=64 * 1024)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._listener is not None
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await self.may_read.wait()
                command, _ = await read_command(reader)
                self.commands.append(command)
                reply = await self.answer(command)
                if reply is not None:
                    writer.write(reply)
                    await writer.drain()
        except (OSError, EOFError):
            pass  # the client left
        finally:
            writer.close()
