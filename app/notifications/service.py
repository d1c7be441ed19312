"""What the rest of the application asks for when a user should know something."""

from __future__ import annotations

from typing import Annotated

from app.notifications.jobs import NOTIFICATIONS, NOTIFY, Notification
from toril import InjectQueue, Job, Queue


class NotificationService:
    """Puts notifications into the queue; the processor finds the way to the user."""

    def __init__(self, notifications: Annotated[Queue, InjectQueue(NOTIFICATIONS)]) -> None:
        self.notifications = notifications

    async def notify(self, notification: Notification) -> Job[Notification, str]:
        """Tell a user something."""
        return await self.notifications.add(NOTIFY, notification)
