"""What the application asks of whoever carries its mails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from app.email.errors import MailError
from app.email.models import Receipt, TemplateData
from toril.errors import UnrecoverableError


@dataclass(frozen=True, kw_only=True)
class OutgoingMail:
    """One mail of many."""

    to: str
    template: str
    data: TemplateData


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What became of one mail of many: a receipt or an error, never both."""

    to: str
    receipt: Receipt | None = None
    error: MailError | UnrecoverableError | None = None


class EmailProvider(Protocol):
    """Carries mails. Injected by this type; tests put another in its place."""

    async def send(self, to: str, template: str, data: TemplateData) -> Receipt:
        """Hand one mail over.

        Raises:
            MailError: not now; another try may succeed.
            UnrecoverableError: this mail will never be taken.
        """
        ...

    async def send_bulk(self, mails: Sequence[OutgoingMail]) -> list[Delivery]:
        """Hand many mails over one connection, one after the other; tells of each what became of it, in the same order.

        If the connection breaks, the mail under way and all after it carry the error.
        """
        ...
