"""The mail feature: its queues, its service, and whoever carries the mails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from app.email.cleanup import CleanupService
from app.email.dead_letter import DeadLetterService
from app.email.jobs import DEAD_LETTER, EMAILS
from app.email.mailbox import Mailbox
from app.email.message import MailTemplates
from app.email.monitor import QueueMonitorService
from app.email.processor import EmailProcessor
from app.email.provider import EmailProvider
from app.email.resilient import ResilientJobsService
from app.email.scheduled import ScheduledJobsService
from app.email.service import EmailService
from app.email.smtp import SmtpEmailProvider
from app.email.smtp_url import parse_smtp_url
from app.settings import AppSettings
from toril import JobOptions, QueueModule, QueueOptions, exponential, module, provide
from toril.modules.settings_loader import project_folder


async def email_provider(settings: AppSettings) -> AsyncIterator[EmailProvider]:
    """Carries mails to `SMTP_URL`, or in development to a mailbox that lives beside the worker."""
    templates = await asyncio.to_thread(MailTemplates)
    async with AsyncExitStack() as stack:
        server = settings.smtp_server
        if server is None:
            box = settings.mailbox
            folder = await asyncio.to_thread(project_folder)
            mailbox = await stack.enter_async_context(Mailbox(folder / box.folder, host=box.host, port=box.port))
            server = parse_smtp_url(mailbox.url)
        mail = settings.mail
        yield await stack.enter_async_context(
            SmtpEmailProvider(server, sender=mail.sender, templates=templates, connections=mail.connections, timeout=mail.timeout)
        )


@module(
    imports=[
        QueueModule.register_queue(
            QueueOptions(
                EMAILS,
                default_job_options=JobOptions(attempts=3, backoff=exponential("1s"), remove_on_complete=True),
                dead_letter=DEAD_LETTER,
            ),
            QueueOptions(DEAD_LETTER, default_job_options=JobOptions(remove_on_complete=False)),
        )
    ],
    providers=[
        provide(EmailProvider, use_factory=email_provider),
        EmailProcessor,
        EmailService,
        QueueMonitorService,
        DeadLetterService,
        ScheduledJobsService,
        ResilientJobsService,
        CleanupService,
    ],
    exports=[EmailService],
)
class EmailModule:
    """Everything about mails."""
