"""Sends the mails."""

from __future__ import annotations

from app.email.jobs import BULK, EMAILS, HIGH_PRIORITY, NORMAL, WELCOME
from app.email.models import BulkEmail, Notice, Receipt, TemplateData, WelcomeEmail
from app.email.provider import EmailProvider
from toril import Job, JobLogger, on_queue_active, on_queue_completed, on_queue_failed, process, processor


@processor(EMAILS, concurrency=20)
class EmailProcessor:
    """One method for each kind of mail. It lives as long as one job, since it asks for a `JobLogger`."""

    def __init__(self, provider: EmailProvider, log: JobLogger) -> None:
        self.provider = provider
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

    @on_queue_active()
    async def active(self, job: Job) -> None:
        self.log.debug("mail started", attempts_started=job.attempts_started)

    @on_queue_completed()
    async def completed(self, job: Job, result: Receipt) -> None:
        self.log.debug("mail sent", response=result.response)

    @on_queue_failed()
    async def failed(self, job: Job, error: BaseException, final: bool) -> None:
        self.log.error("mail not sent", final=final, exc_info=error)

    async def _send(self, job: Job, template: str, to: str, data: TemplateData) -> Receipt:
        receipt = await self.provider.send(to, template, data)
        await job.update_progress(100)
        return receipt
