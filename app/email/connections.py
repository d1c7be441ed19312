"""Connections to the mail server: a few, reused, each used by one mail at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final

import aiosmtplib

from app.email.smtp_url import SmtpServer
from toril.errors import QueueClosedError

_QUIT_TIMEOUT_S: Final = 1.0
_START_TLS: Final[dict[str, bool | None]] = {"tls": False, "starttls-always": True, "starttls-auto": None, "none": False}


class SmtpConnections:
    """At most `limit` connections; who wants one more waits.

    A connection goes back only if both sides agree where they are: after a mail that was taken, or one that was refused with an
    answer. One whose use was cancelled, timed out or broke is closed, since a late answer would be taken for the next one's.

    The time is bounded here and by the user of a connection, with `asyncio.timeout`. aiosmtplib's own timeouts stay off: they
    stand on `asyncio.wait_for`, which before Python 3.12 swallows a cancellation that meets the answer.
    """

    def __init__(self, server: SmtpServer, *, limit: int, timeout_s: float, local_hostname: str) -> None:
        self._server, self._timeout_s, self._local_hostname = server, timeout_s, local_hostname
        self._slots = asyncio.Semaphore(limit)
        self._idle: list[aiosmtplib.SMTP] = []
        self._closed = False

    @property
    def idle_count(self) -> int:
        """How many connections wait to be used again."""
        return len(self._idle)

    @asynccontextmanager
    async def one(self) -> AsyncGenerator[aiosmtplib.SMTP, None]:
        """A connection that is logged in, for the time of the block.

        Raises:
            aiosmtplib.SMTPException, OSError: the server can't be reached or doesn't let us in.
            QueueClosedError: after `aclose()`.
        """
        async with self._slots:
            client = await self._take()
            usable = False
            try:
                yield client
                usable = True
            except (aiosmtplib.SMTPResponseException, aiosmtplib.SMTPRecipientsRefused):
                usable = True
                raise
            finally:
                if usable and client.is_connected and not self._closed:
                    self._idle.append(client)
                else:
                    client.close()

    async def aclose(self) -> None:
        """Say goodbye on the idle connections; those in use are closed as they come back. Harmless when called twice."""
        self._closed = True
        while self._idle:
            client = self._idle.pop()
            try:
                with suppress(aiosmtplib.SMTPException, OSError):
                    async with asyncio.timeout(_QUIT_TIMEOUT_S):
                        await client.quit()
            finally:
                client.close()

    async def _take(self) -> aiosmtplib.SMTP:
        while self._idle:
            client = self._idle.pop()
            if await self._is_alive(client):
                return client
        if self._closed:
            raise QueueClosedError("the mail provider")
        client = aiosmtplib.SMTP(
            hostname=self._server.host,
            port=self._server.port,
            username=self._server.username,
            password=self._server.password,
            use_tls=self._server.encryption == "tls",
            start_tls=_START_TLS[self._server.encryption],
            local_hostname=self._local_hostname,  # else looked up, which can take seconds without a name server
            timeout=None,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                await client.connect()
        except BaseException:
            client.close()
            raise
        return client

    async def _is_alive(self, client: aiosmtplib.SMTP) -> bool:
        # Servers hang up on idle clients. RSET finds that out before a mail depends on it, and clears what was left behind.
        alive = False
        try:
            async with asyncio.timeout(self._timeout_s):
                await client.rset()
            alive = True
        except (aiosmtplib.SMTPException, OSError):
            pass
        finally:
            if not alive:
                client.close()
        return alive
