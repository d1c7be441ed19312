"""Sends mails over SMTP."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from email.message import EmailMessage
from email.utils import parseaddr
from types import TracebackType
from typing import Final, Self

import aiosmtplib

from app.email.connections import SmtpConnections
from app.email.errors import MailDeferredError, MailError, MailRefusedError, MailServerUnavailableError
from app.email.message import MailTemplates, build_message
from app.email.models import Receipt, TemplateData
from app.email.provider import Delivery, OutgoingMail
from app.email.smtp_url import SmtpServer
from toril.clock import Clock, SystemClock
from toril.errors import UnrecoverableError
from toril.telemetry import get_logger
from toril.units import format_ms

log = get_logger(__name__)

_LOGIN_CODES: Final = frozenset({530, 534, 535, 538})
"""5xx replies that speak of us and not of the mail: with the right password it would go out, so it must not be given up."""


class SmtpEmailProvider:
    """The `EmailProvider` for real mail servers.

    Cancelling a call closes the connection that it used; whether the server had already taken the mail can't be known then.
    """

    def __init__(
        self,
        server: SmtpServer,
        *,
        sender: str,
        templates: MailTemplates,
        connections: int = 4,
        timeout: timedelta = timedelta(seconds=20),
        clock: Clock | None = None,
    ) -> None:
        """Args:
        server: where to hand over; see `parse_smtp_url`.
        sender: the From header, `Name <address>` or an address alone.
        templates: what mails are made of.
        connections: how many may be open at once.
        timeout: for connecting and logging in, and then for handing over one mail.
        clock: for the Date header.
        """
        self._server, self._sender, self._templates, self._clock = server, sender, templates, clock or SystemClock()
        self._timeout_s = timeout.total_seconds()
        self._envelope_sender = parseaddr(sender)[1]
        domain = self._envelope_sender.rpartition("@")[2]
        self._connections = SmtpConnections(server, limit=connections, timeout_s=self._timeout_s, local_hostname=domain or "localhost")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def send(self, to: str, template: str, data: TemplateData) -> Receipt:
        message = self._build(to, template, data)
        with self._translated(to):
            async with self._connections.one() as client:
                return await self._hand_over(client, to, message)

    async def send_bulk(self, mails: Sequence[OutgoingMail]) -> list[Delivery]:
        deliveries: list[Delivery] = []
        try:
            with self._translated("everybody"):
                async with self._connections.one() as client:
                    for mail in mails:
                        deliveries.append(await self._deliver(client, mail))  # noqa: PERF401  # what is done must survive a break
        except MailServerUnavailableError as error:
            deliveries += [Delivery(to=mail.to, error=error) for mail in mails[len(deliveries) :]]
        return deliveries

    async def aclose(self) -> None:
        """Close the connections. A `send` after this raises."""
        await self._connections.aclose()

    async def _deliver(self, client: aiosmtplib.SMTP, mail: OutgoingMail) -> Delivery:
        try:
            message = self._build(mail.to, mail.template, mail.data)
            with self._translated(mail.to):
                return Delivery(to=mail.to, receipt=await self._hand_over(client, mail.to, message))
        except MailServerUnavailableError:
            raise
        except (MailError, UnrecoverableError) as error:
            return Delivery(to=mail.to, error=error)

    def _build(self, to: str, template: str, data: TemplateData) -> EmailMessage:
        return build_message(self._sender, to, self._templates.render(template, data), now_ms=self._clock.now_ms())

    async def _hand_over(self, client: aiosmtplib.SMTP, to: str, message: EmailMessage) -> Receipt:
        async with asyncio.timeout(self._timeout_s):
            _, response = await client.sendmail(self._envelope_sender, [to], message.as_bytes())
        receipt = Receipt(to=to, message_id=str(message["Message-ID"]), response=response)
        log.debug("mail_sent", to=to, message_id=receipt.message_id, response=response)
        return receipt

    @contextmanager
    def _translated(self, to: str) -> Generator[None, None, None]:
        try:
            yield
        except aiosmtplib.SMTPRecipientsRefused as error:
            first = error.recipients[0]  # there is only one recipient in a mail of ours
            raise self._refusal(to, first.code, first.message) from error
        except (aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPDataError) as error:
            raise self._refusal(to, error.code, error.message) from error
        except aiosmtplib.SMTPResponseException as error:
            raise MailServerUnavailableError(self._server.address, f"{error.code} {error.message}") from error
        except TimeoutError as error:
            raise MailServerUnavailableError(
                self._server.address, f"no answer within {format_ms(round(self._timeout_s * 1_000))}"
            ) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise MailServerUnavailableError(self._server.address, str(error) or type(error).__name__) from error

    def _refusal(self, to: str, code: int, reply: str) -> Exception:
        reply = " ".join(reply.split())
        if code in _LOGIN_CODES:
            return MailServerUnavailableError(self._server.address, f"{code} {reply}")
        return MailRefusedError(to, code, reply) if code >= 500 else MailDeferredError(to, code, reply)
