"""What the rest of the application asks for when it wants a mail to go out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

from app.email.jobs import BULK, EMAILS, WELCOME
from app.email.models import BulkEmail, Receipt, User, WelcomeData, WelcomeEmail
from toril import InjectQueue, Job, Queue, exponential

VERIFICATION_PAGE: Final = "https://example.com/verify"


class EmailService:
    """Puts mails into the queue; the processor sends them."""

    def __init__(self, emails: Annotated[Queue, InjectQueue(EMAILS)]) -> None:
        self.emails = emails

    async def send_welcome_email(self, user: User) -> Job[WelcomeEmail, Receipt]:
        """Welcome somebody, with a link to verify the address: before all bulk mail, and with more tries than most."""
        link = f"{VERIFICATION_PAGE}/{user.verification_token}"
        return await self.emails.add(
            WELCOME,
            WelcomeEmail(to=user.email, data=WelcomeData(name=user.name, verification_link=link)),
            priority=1,
            attempts=5,
            backoff=exponential("1s"),
            remove_on_complete=True,
            remove_on_fail=False,
        )

    async def send_bulk_emails(self, emails: Iterable[BulkEmail]) -> list[Job[BulkEmail, Receipt]]:
        """Send many mails, in one round trip; none is added if one of them can't be."""
        return await self.emails.add_many([self.emails.job(BULK, email, priority=2, attempts=3) for email in emails])
