"""Mail servers for tests that the development mailbox is too well-behaved for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Final, Literal, Self

from app.email.message import MailTemplates
from app.email.smtp import SmtpEmailProvider
from app.email.smtp_url import parse_smtp_url

Answer = str | Literal["<silence>", "<hang up>"]

_USUAL: Final[dict[str, Answer]] = {
    "<greeting>": "220 scripted",
    "EHLO": "250-scripted\r\n250 AUTH PLAIN",
    "AUTH": "235 welcome",
    "MAIL": "250 ok",
    "RCPT": "250 ok",
    "DATA": "354 go on",
    "<content>": "250 taken",
    "RSET": "250 ok",
    "QUIT": "221 bye",
}


class ScriptedServer:
    """Answers each command from a table; counts connections, and tells when it has fallen silent."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = {**_USUAL, **{key if key in _USUAL else f"<{key}>": answer for key, answer in answers.items()}}
        self.connections = 0
        self.commands: list[str] = []
        self.silent = asyncio.Event()
        self._proceed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._conversations: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._converse, "127.0.0.1", 0)
        self.url = f"smtp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.close()
        self._proceed.set()
        for writer in self._writers:
            writer.transport.abort()
        if self._conversations:
            await asyncio.wait(self._conversations)
        await self._server.wait_closed()

    def proceed(self) -> None:
        """End the silence: answer as usual."""
        self._proceed.set()

    async def everybody_gone(self) -> None:
        """Wait until every client has hung up."""
        await asyncio.wait(self._conversations)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        task.add_done_callback(self._conversations.discard)
        self._writers.add(writer)
        self.connections += 1
        try:
            goes_on = await self._answer("<greeting>", writer)
            while goes_on and (line := await reader.readline()):
                command = line.split()[0].decode().upper()
                goes_on = await self._answer(command, writer) and command != "QUIT"
                if goes_on and command == "DATA" and self.answers["DATA"].startswith("354"):
                    await reader.readuntil(b"\r\n.\r\n")
                    goes_on = await self._answer("<content>", writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)

    async def _answer(self, key: str, writer: asyncio.StreamWriter) -> bool:
        self.commands.append(key)
        answer = self.answers[key]
        if answer == "<silence>":
            self.silent.set()
            await self._proceed.wait()
            answer = _USUAL[key]
        if answer == "<hang up>":
            return False
        writer.write(answer.encode() + b"\r\n")
        await writer.drain()
        return not answer.startswith("421")  # which promises to hang up


@asynccontextmanager
async def provider_for(
    url: str, templates: MailTemplates, *, connections: int = 4, timeout: timedelta = timedelta(seconds=5)
) -> AsyncGenerator[SmtpEmailProvider, None]:
    async with SmtpEmailProvider(
        parse_smtp_url(url),
        sender="Töril <no-reply@example.com>",
        templates=templates,
        connections=connections,
        timeout=timeout,
    ) as made:
        yield made
