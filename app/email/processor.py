"""Sends the mails."""

from __future__ import annotations

from app.email.jobs import BULK, DAILY_REPORT, EMAILS, HIGH_PRIORITY, NORMAL, WELCOME
from app.email.models import BulkEmail, DailyReport, Notice, Receipt, ReportResult, TemplateData, WelcomeEmail
from app.email.monitor import QueueMonitorService
from app.email.provider import EmailProvider
from toril import Job, JobLogger, on_queue_active, on_queue_completed, on_queue_failed, process, processor


@processor(EMAILS, concurrency=20, metrics="7d")
class EmailProcessor:
    """One method for each kind of mail. It lives as long as one job, since it asks for a `JobLogger`."""

    def __init__(self, provider: EmailProvider, monitor: QueueMonitorService, log: JobLogger) -> None:
        self.provider = provider
        self.monitor = monitor
        self.log = log

    @process(WELCOME, timeout="30s")
    async def welcome(self, job: Job[WelcomeEmail, Receipt]) -> Receipt:
        return await self._send(job, "welcome", job.data.to, job.data.data)

    @process(BULK, timeout="30s")
    async def bulk(self, job: Job[BulkEmail, Receipt]) -> Receipt:
        return await self._send(job, "bulk", job.data.to, job.data.data)

    @process(HIGH_PRIORITY, concurrency=3, timeout="30s")
    async def high_priority(self, job: Job[Notice, Receipt]) -> Receipt:
        return await self._send(job, "notice", job.data.to, job.data.data)

    @process(NORMAL, concurrency=1, timeout="30s")
    async def normal(self, job: Job[Notice, Receipt]) -> Receipt:
        return await self._send(job, "notice", job.data.to, job.data.data)

    @process(DAILY_REPORT, timeout="2m")
    async def daily_report(self, job: Job[DailyReport, ReportResult]) -> ReportResult:
        report = await self.monitor.get_report()
        # A retry goes on where the attempt before it stopped, so that nobody gets the report twice.
        sent = ReportResult.model_validate(job.progress).sent if job.progress else []
        for recipient in job.data.recipients:
            if recipient not in sent:
                await self.provider.send(recipient, "daily-report", report)
                sent.append(recipient)
                await job.update_progress(ReportResult(sent=sent))
        return ReportResult(sent=sent)

    @on_queue_active()
    async def active(self, job: Job) -> None:
        self.log.debug("mail started", attempts_started=job.attempts_started)

    @on_queue_completed()
    async def completed(self, job: Job, result: object) -> None:
        self.log.debug("mail sent", result=str(result))

    @on_queue_failed()
    async def failed(self, job: Job, error: BaseException, final: bool) -> None:
        self.log.error("mail not sent", final=final, exc_info=error)

    async def _send(self, job: Job, template: str, to: str, data: TemplateData) -> Receipt:
        receipt = await self.provider.send(to, template, data)
        await job.update_progress(100)
        return receipt
