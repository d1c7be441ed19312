"""The jobs of the queue `notifications`."""

from __future__ import annotations

from typing import Final

from app.email.address import MailAddress
from app.email.models import WireModel
from toril import JobDef

NOTIFICATIONS: Final = "notifications"


class Notification(WireModel):
    """Something that a user should know."""

    to: MailAddress
    subject: str
    text: str
    urgent: bool = False


NOTIFY: Final = JobDef[Notification, str]("notify")
"""Its result is the id of the mail's job."""
