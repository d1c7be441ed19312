"""The jobs of the queue `emails`: their names on the wire, and their types."""

from __future__ import annotations

from typing import Any, Final

from app.email.models import BulkEmail, DailyReport, Email, Notice, Receipt, ReportResult, WelcomeEmail
from toril import JobDef

EMAILS: Final = "emails"
DEAD_LETTER: Final = "dead-letter"

WELCOME: Final = JobDef[WelcomeEmail, Receipt]("welcome-email")
BULK: Final = JobDef[BulkEmail, Receipt]("bulk-email")
HIGH_PRIORITY: Final = JobDef[Notice, Receipt]("high-priority")
NORMAL: Final = JobDef[Notice, Receipt]("normal")
DAILY_REPORT: Final = JobDef[DailyReport, ReportResult]("daily-report")


def job_for(email: Email) -> JobDef[Any, Receipt]:
    """The job that sends a mail of this kind."""
    match email:
        case WelcomeEmail():
            return WELCOME
        case BulkEmail():
            return BULK
        case Notice():
            return NORMAL
