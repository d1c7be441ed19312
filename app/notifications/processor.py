"""Brings notifications to their users."""

from __future__ import annotations

from app.email.service import EmailService
from app.notifications.jobs import NOTIFICATIONS, NOTIFY, Notification
from toril import process, processor


@processor(NOTIFICATIONS, concurrency=5)
class NotificationProcessor:
    """By mail: `EmailService` comes from another module, which exports it."""

    def __init__(self, emails: EmailService) -> None:
        self.emails = emails

    @process(NOTIFY)
    async def notify(self, notification: Notification) -> str:
        """The id of the mail's job."""
        job = await self.emails.send_notice(notification.to, notification.subject, notification.text, urgent=notification.urgent)
        return job.id
