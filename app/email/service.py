"""What the rest of the application asks for when it wants a mail to go out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

from app.email.jobs import BULK, EMAILS, HIGH_PRIORITY, NORMAL, WELCOME
from app.email.models import BulkData, BulkEmail, Notice, Receipt, User, WelcomeData, WelcomeEmail
from toril import InjectQueue, Job, Queue, exponential
from toril.errors import JobNotFoundError
from toril.queues.states import JobState

VERIFICATION_PAGE: Final = "https://example.com/verify"


@dataclass(frozen=True)
class JobStatus:
    """How far one mail is."""

    id: str
    state: JobState
    progress: object
    """What its handler reported last; 100 once it is sent."""
    data: object
    attempts: int
    """How many attempts have ended."""
    failed_reason: str | None
    timestamp: datetime
    """When it was added."""


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

    async def send_notice(self, to: str, subject: str, text: str, *, urgent: bool = False) -> Job[Notice, Receipt]:
        """Tell somebody something. Urgent notices have a line of their own, in which bulk mail never stands."""
        notice = Notice(to=to, data=BulkData(subject=subject, text=text))
        return await self.emails.add(HIGH_PRIORITY if urgent else NORMAL, notice)

    async def get_job_status(self, job_id: str) -> JobStatus:
        """How far a mail is.

        Raises:
            JobNotFoundError: there is no such job (any more): a mail that was sent is removed at once.
        """
        job = await self.emails.get_job(job_id)
        state = await job.get_state()
        if state is None:
            raise JobNotFoundError(job_id, self.emails.name)
        return JobStatus(job.id, state, job.progress, job.data, job.attempts_made, job.failed_reason, job.timestamp)
