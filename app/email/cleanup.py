"""Removes jobs that nobody will look at any more."""

from __future__ import annotations

from typing import Annotated, Final

from app.email.jobs import EMAILS
from toril import InjectQueue, Queue, cron, get_logger

log = get_logger(__name__)

KEEP_COMPLETED: Final = "1d"
KEEP_FAILED: Final = "7d"


class CleanupService:
    """Keep rules apply whenever a job ends; in a queue that has become quiet, only this removes what is old."""

    def __init__(self, emails: Annotated[Queue, InjectQueue(EMAILS)]) -> None:
        self.emails = emails

    @cron("30 3 * * *")
    async def clean_old_jobs(self) -> int:
        """How many were removed."""
        completed = await self.emails.clean(KEEP_COMPLETED, state="completed")
        failed = await self.emails.clean(KEEP_FAILED, state="failed")
        log.info("old jobs removed", completed=len(completed), failed=len(failed))
        return len(completed) + len(failed)
