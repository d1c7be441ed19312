"""The mailbox for development: a real SMTP server beside the worker, which keeps mails as files and fails on request.

ada@example.com              taken, as `var/mailbox/…-ada@example.com.eml`
fail4xx-2@example.com        refused twice with 451, then taken          (fail4xx-2.any.words@…, too)
fail4xx@example.com          refused with 451 each time
fail5xx@example.com          refused with 550                            (fail5xx.any.words@…, too)
fail5xx-1@example.com        refused with 554 once, then taken: as if somebody had mended the cause
slow-3@example.com           taken after 3 seconds
"""

from __future__ import annotations

import asyncio
import logging
import re
from email.parser import BytesHeaderParser
from pathlib import Path
from types import TracebackType
from typing import Final, Self, cast

from aiosmtpd.smtp import SMTP, Envelope, Session

from app.email.errors import MailboxError
from app.email.mailbox_folder import MailboxFolder, StoredMail
from toril.clock import Clock, SystemClock
from toril.errors import QueueClosedError
from toril.telemetry import get_logger

log = get_logger(__name__)

_DEFERRED: Final = re.compile(r"fail4xx(?:-(\d{1,2}))?(?:[.+_-].*)?@.*", re.IGNORECASE)
_REFUSED: Final = re.compile(r"fail5xx(?:-(\d{1,2}))?(?:[.+_-].*)?@.*", re.IGNORECASE)
_SLOW: Final = re.compile(r"slow-(\d{1,2})(?:[.+_-].*)?@.*", re.IGNORECASE)


class Mailbox:
    """Listens while its `async with` block runs. Lives in the running loop: no thread, no second process."""

    def __init__(self, folder: Path, *, host: str = "127.0.0.1", port: int = 0, clock: Clock | None = None) -> None:
        """Args:
        folder: where the `.eml` files go; made if it doesn't exist.
        host: the address to listen at. Everybody who reaches it may write files: leave it at loopback.
        port: 0 takes any free one, so that several workers of one project each have a mailbox, sharing the folder.
        clock: for the names of the files.
        """
        self._clock: Clock = clock or SystemClock()
        self._folder = MailboxFolder(folder, self._clock)
        self._host, self._port = host, port
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    @property
    def url(self) -> str:
        """The address to send to, as `SMTP_URL` spells it.

        Raises:
            QueueClosedError: outside of the `async with` block.
        """
        if self._server is None:
            raise QueueClosedError("the development mailbox")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"smtp://{host}:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        try:
            await asyncio.to_thread(self._folder.create)
            self._server = await asyncio.get_running_loop().create_server(self._connection, self._host, self._port)
        except OSError as error:
            raise MailboxError(f"{self._host}:{self._port}", error.strerror or str(error)) from error
        # aiosmtpd writes every line of the conversation at info.
        logging.getLogger("mail.log").setLevel(logging.WARNING)
        log.info("mailbox_open", url=self.url, folder=str(self._folder.path))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        conversations = [connection.abort() for connection in self._connections]
        if conversations:
            await asyncio.wait(conversations)
        await server.wait_closed()

    async def mails(self) -> list[StoredMail]:
        """All mails in the folder, oldest first."""
        return await asyncio.to_thread(self._folder.mails)

    def _connection(self) -> _Connection:
        return _Connection(_Handler(self._folder, self._clock), self._connections)


class _Handler:
    """Decides what becomes of a mail. aiosmtpd calls the methods by their names."""

    def __init__(self, folder: MailboxFolder, clock: Clock) -> None:
        self._folder, self._clock = folder, clock

    async def handle_RCPT(  # noqa: N802  # the name is aiosmtpd's
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        refused = _REFUSED.fullmatch(address)
        if refused is not None and refused[1] is None:
            return f"550 5.1.1 <{address}> asks to be refused"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802  # the name is aiosmtpd's
        content = envelope.content if isinstance(envelope.content, bytes) else str(envelope.content).encode()
        subject = str(BytesHeaderParser().parsebytes(content)["Subject"])
        for address in envelope.rcpt_tos:
            if await self._defers(address, subject):
                return f"451 4.7.1 <{address}> asks to be tried again later"
            if await self._refuses(address, subject):
                return f"554 5.7.1 <{address}> asks to be refused for good, for now"
            if (slow := _SLOW.fullmatch(address)) is not None:
                await self._clock.sleep(int(slow[1]) * 1_000)
        stored = [await asyncio.to_thread(self._folder.store, address, content) for address in envelope.rcpt_tos]
        for path in stored:
            log.debug("mail_received", file=path.name)
        return f"250 2.0.0 kept as {' '.join(path.name for path in stored)}"

    async def _defers(self, address: str, subject: str) -> bool:
        asked = _DEFERRED.fullmatch(address)
        if asked is None:
            return False
        return asked[1] is None or await asyncio.to_thread(self._folder.refuse, address, subject, times=int(asked[1]))

    async def _refuses(self, address: str, subject: str) -> bool:
        asked = _REFUSED.fullmatch(address)
        return asked is not None and await asyncio.to_thread(self._folder.refuse, address, subject, times=int(asked[1] or 0))


class _Connection(SMTP):
    """One client. Known to the mailbox until the conversation's task has ended, so that the mailbox can wait for that."""

    def __init__(self, handler: _Handler, connections: set[_Connection]) -> None:
        super().__init__(handler, hostname="localhost", ident="Toril mailbox", loop=asyncio.get_running_loop())
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.add(self)
        self._conversation().add_done_callback(self._ended)

    def abort(self) -> asyncio.Task[None]:
        """Hang up; the task ends soon after."""
        if self.transport is not None:
            # uvloop's transports are no subclasses of asyncio's, so this can't be asked with isinstance.
            cast("asyncio.WriteTransport", self.transport).abort()
        return self._conversation()

    def _conversation(self) -> asyncio.Task[None]:
        if self._handler_coroutine is None:
            raise RuntimeError("aiosmtpd made no task for the connection")
        return self._handler_coroutine

    def _ended(self, conversation: asyncio.Task[None]) -> None:
        self._connections.discard(self)
        if not conversation.cancelled() and (error := conversation.exception()) is not None:
            log.debug("mailbox_client_gone", error=repr(error))
