"""Mails that go out at a time of their own."""

from __future__ import annotations

from typing import Annotated, Final

from app.email.jobs import DAILY_REPORT, EMAILS, job_for
from app.email.models import DailyReport, Email, Receipt, ReportResult
from toril import Duration, InjectQueue, Job, Queue, cron, exponential, get_logger

log = get_logger(__name__)

REPORT_RECIPIENTS: Final = ["admin@example.com"]


class ScheduledJobsService:
    """Puts mails into the queue for later, and the daily report each midnight (UTC)."""

    def __init__(self, emails: Annotated[Queue, InjectQueue(EMAILS)]) -> None:
        self.emails = emails

    async def schedule_email(self, data: Email, delay: Duration) -> Job[Email, Receipt]:
        """Send a mail after `delay`, a `timedelta` or text such as `"1h"`."""
        job = await self.emails.add(job_for(data), data, delay=delay, attempts=3, backoff=exponential("1s"))
        log.info("mail scheduled", job_id=job.id, job_name=job.name, due_in=str(delay))
        return job

    @cron("0 0 * * *")
    async def schedule_daily_report(self) -> Job[DailyReport, ReportResult]:
        """Put the report into the queue: before all mails, and with more tries than most."""
        return await self.emails.add(DAILY_REPORT, DailyReport(recipients=REPORT_RECIPIENTS), priority=1, attempts=5)
