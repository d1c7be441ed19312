"""Mails that put up with trouble."""

from __future__ import annotations

from typing import Annotated

from app.email.jobs import EMAILS, job_for
from app.email.models import Email, Receipt
from toril import InjectQueue, Job, Queue, exponential


class ResilientJobsService:
    """Ways to add a mail, by how much it matters that it arrives, and when."""

    def __init__(self, emails: Annotated[Queue, InjectQueue(EMAILS)]) -> None:
        self.emails = emails

    async def add_job_with_retry(self, data: Email) -> Job[Email, Receipt]:
        """Try five times, at growing distances. One that fails even so is kept, to be looked at."""
        return await self.emails.add(
            job_for(data), data, attempts=5, backoff=exponential("1s"), remove_on_complete=True, remove_on_fail=False
        )

    async def add_priority_job(self, data: Email, priority: int) -> Job[Email, Receipt]:
        """Send it before others: 1 goes before 2. An attempt that takes more than five seconds has failed."""
        return await self.emails.add(job_for(data), data, priority=priority, attempts=3, timeout="5s")
