"""Watches the queue of mails, in the whole fleet: what goes wrong is logged, and its numbers can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from app.email.jobs import EMAILS
from app.email.models import ReportData
from toril import InjectQueue, Queue, get_logger, on_global_queue_completed, on_global_queue_failed, on_global_queue_stalled
from toril.queues.events import CompletedEvent, FailedEvent, StalledEvent

log = get_logger(__name__)

MINUTES_OF_A_DAY: Final = 24 * 60


@dataclass(frozen=True)
class QueueMetrics:
    """How many mails are where, at one instant."""

    waiting: int
    """They may go out now, with a priority or without."""
    active: int
    completed: int
    """Kept as completed; most mails are removed as soon as they are sent."""
    failed: int
    timestamp: datetime


class QueueMonitorService:
    """Every process that runs it hears of the whole fleet, Node workers included."""

    def __init__(self, emails: Annotated[Queue, InjectQueue(EMAILS)]) -> None:
        self.emails = emails

    @on_global_queue_completed(EMAILS)
    async def completed(self, event: CompletedEvent) -> None:
        log.debug("mail job completed", job_id=event.job_id)

    @on_global_queue_failed(EMAILS)
    async def failed(self, event: FailedEvent) -> None:
        job = await self.emails.find_job(event.job_id)  # None: it keeps nothing of failures
        stack = job.stack_trace[-1] if job is not None and job.stack_trace else None
        log.error("mail job failed", job_id=event.job_id, reason=event.reason, stack=stack)

    @on_global_queue_stalled(EMAILS)
    async def stalled(self, event: StalledEvent) -> None:
        log.warning("mail job stalled: its worker is gone, and it runs again", job_id=event.job_id)

    async def get_queue_metrics(self) -> QueueMetrics:
        """The queue's numbers, in one round trip."""
        counts = await self.emails.get_job_counts("waiting", "prioritized", "active", "completed", "failed")
        return QueueMetrics(
            waiting=counts["waiting"] + counts["prioritized"],
            active=counts["active"],
            completed=counts["completed"],
            failed=counts["failed"],
            timestamp=self._now(),
        )

    async def get_report(self) -> ReportData:
        """What the daily report tells: the mails of the last 24 hours, and where the others are."""
        now = await self.get_queue_metrics()
        sent, failed = [await self._of_the_day(state) for state in ("completed", "failed")]
        return ReportData(day=f"{now.timestamp:%Y-%m-%d %H:%M} UTC", completed=sent, failed=failed, waiting=now.waiting, active=now.active)

    async def _of_the_day(self, state: str) -> int:
        metrics = await self.emails.get_metrics("completed" if state == "completed" else "failed", 0, MINUTES_OF_A_DAY - 1)
        return sum(metrics.per_minute) + metrics.count - metrics.counted

    def _now(self) -> datetime:
        return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=self.emails.clock.now_ms())
