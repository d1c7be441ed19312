"""The feature that tells users what happened."""

from __future__ import annotations

from app.email.module import EmailModule
from app.notifications.jobs import NOTIFICATIONS
from app.notifications.processor import NotificationProcessor
from app.notifications.service import NotificationService
from toril import QueueModule, module


@module(
    imports=[QueueModule.register_queue(NOTIFICATIONS), EmailModule],
    providers=[NotificationProcessor, NotificationService],
    exports=[NotificationService],
)
class NotificationsModule:
    """It uses what `EmailModule` exports, and nothing else of it."""
