"""The jobs of the queue `emails`: their names on the wire, and their types."""

from __future__ import annotations

from typing import Final

from app.email.models import BulkEmail, Notice, Receipt, WelcomeEmail
from toril import JobDef

EMAILS: Final = "emails"
DEAD_LETTER: Final = "dead-letter"

WELCOME: Final = JobDef[WelcomeEmail, Receipt]("welcome-email")
BULK: Final = JobDef[BulkEmail, Receipt]("bulk-email")
HIGH_PRIORITY: Final = JobDef[Notice, Receipt]("high-priority")
NORMAL: Final = JobDef[Notice, Receipt]("normal")
