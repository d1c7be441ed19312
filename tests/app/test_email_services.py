"""The services around the queue of mails: schedules, monitoring, dead letters, resilience, clean-up, notifications."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.email.cleanup import CleanupService
from app.email.dead_letter import DeadLetterService
from app.email.jobs import BULK, DAILY_REPORT, DEAD_LETTER, EMAILS, NORMAL, WELCOME
from app.email.mailbox_folder import MailboxFolder, StoredMail
from app.email.models import BulkData, BulkEmail, DailyReport, Notice, WelcomeData, WelcomeEmail
from app.email.monitor import QueueMonitorService
from app.email.resilient import ResilientJobsService
from app.email.scheduled import ScheduledJobsService
from app.main import AppModule
from app.notifications.jobs import Notification
from app.notifications.service import NotificationService
from app.settings import AppSettings, MailboxSettings
from toril import SystemClock
from toril.errors import JobFailedError
from toril.testing import FakeClock, Test, TestingModule, eventually

NOTICE = Notice(to="ada@example.com", data=BulkData(subject="News", text="One."))


@pytest.fixture
def mails(tmp_path: Path) -> MailboxFolder:
    return MailboxFolder(tmp_path / "mailbox", SystemClock())


@pytest.fixture
async def t(tmp_path: Path) -> AsyncIterator[TestingModule]:
    settings = AppSettings(env="test", mailbox=MailboxSettings(enabled=True, folder=tmp_path / "mailbox"))
    clock = FakeClock(1_700_000_000_000)
    module = Test.create_testing_module(imports=[AppModule]).override_provider(AppSettings).use_value(settings).use_clock(clock)
    async with await module.compile() as t:
        yield t


async def stored(mails: MailboxFolder) -> list[StoredMail]:
    return await asyncio.to_thread(mails.mails)


# ── schedules ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_scheduled_mail_goes_out_when_it_is_due(t: TestingModule, mails: MailboxFolder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        job = await t.get(ScheduledJobsService).schedule_email(NOTICE, "1h")
    assert f"job_id={job.id}" in caplog.text
    t.assert_enqueued(NORMAL, NOTICE, delay="1h", attempts=3)
    assert job.options.backoff is not None
    assert (job.options.backoff.strategy, job.options.backoff.delay_ms) == ("exponential", 1_000)
    await t.advance("59m")
    assert await stored(mails) == []
    await t.advance("1m")
    assert len(await stored(mails)) == 1


async def test_the_daily_report_is_added_as_agreed(t: TestingModule) -> None:
    job = await t.get(ScheduledJobsService).schedule_daily_report()
    t.assert_enqueued("daily-report", {"type": "daily-report", "recipients": ["admin@example.com"]}, priority=1, attempts=5)
    assert job.name == "daily-report"


async def test_the_daily_report_goes_out_at_midnight_with_the_days_counts(t: TestingModule, mails: MailboxFolder) -> None:
    emails = t.queue(EMAILS)
    await emails.add(BULK, BulkEmail(to="ada@example.com", data=BulkData(subject="News", text="One.")))
    await emails.add(BULK, BulkEmail(to="fail5xx@example.com", data=BulkData(subject="News", text="One.")), attempts=1)
    await t.advance("24h")
    reports = [mail for mail in await stored(mails) if mail.to == "admin@example.com"]
    assert len(reports) == 1
    body = reports[0].message.get_body(("plain",))
    assert body is not None
    text = body.get_content()
    assert "sent:     1" in text
    assert "failed:   1" in text


async def test_a_report_that_is_tried_again_goes_to_nobody_twice(t: TestingModule, mails: MailboxFolder) -> None:
    recipients = ["ada@example.com", "fail4xx-1@example.com", "eve@example.com"]
    result = await t.run_job(DAILY_REPORT, DailyReport(recipients=recipients))
    assert result.sent == recipients
    assert sorted(mail.to for mail in await stored(mails)) == sorted(recipients)


async def test_old_jobs_are_removed_every_night(t: TestingModule) -> None:
    emails = t.queue(EMAILS)
    old = await emails.add(NORMAL, NOTICE, remove_on_complete=False)
    await t.drain(EMAILS)
    await t.advance("2d")
    assert await emails.find_job(old.id) is None
    assert await t.get(CleanupService).clean_old_jobs() == 0


# ── monitoring ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_numbers_of_the_queue_come_in_one_round_trip(t: TestingModule) -> None:
    emails, monitor = t.queue(EMAILS), t.get(QueueMonitorService)
    await emails.add(NORMAL, NOTICE)
    await emails.add(NORMAL, NOTICE, priority=3)
    await emails.add(BULK, BulkEmail(to="fail5xx@example.com", data=NOTICE.data), priority=1)
    metrics = await monitor.get_queue_metrics()
    assert (metrics.waiting, metrics.active, metrics.completed, metrics.failed) == (3, 0, 0, 0)
    assert metrics.timestamp.timestamp() * 1_000 == t.clock.now_ms()
    await t.drain(EMAILS)
    metrics = await monitor.get_queue_metrics()
    assert (metrics.waiting, metrics.failed) == (0, 1)


async def test_what_goes_wrong_in_the_fleet_is_logged(t: TestingModule, caplog: pytest.LogCaptureFixture) -> None:
    emails, refused = t.queue(EMAILS), BulkEmail(to="fail5xx@example.com", data=NOTICE.data)
    with caplog.at_level(logging.DEBUG):
        async with t.run_workers():
            good = await emails.add(NORMAL, NOTICE)
            bad = await emails.add(BULK, refused)
            await eventually(lambda: _said(caplog, "the dead letters"))
            await eventually(lambda: _said(caplog, "mail job failed"))
            await eventually(lambda: _said(caplog, "mail job completed"))
    lines = {record.getMessage().split(" ")[0:3][-1]: record for record in caplog.records if record.name == "app.email.monitor"}
    assert lines["completed"].levelname == "DEBUG"
    assert f"job_id={good.id}" in lines["completed"].getMessage()
    assert lines["failed"].levelname == "ERROR"
    assert f"job_id={bad.id}" in lines["failed"].getMessage()
    assert "MailRefusedError" in lines["failed"].getMessage()  # from the stack
    (moved,) = [record for record in caplog.records if record.name == "app.email.dead_letter"]
    assert moved.levelname == "WARNING"
    assert f"job_id={bad.id}" in moved.getMessage()


def _said(caplog: pytest.LogCaptureFixture, text: str) -> None:
    assert text in caplog.text


# ── dead letters ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_mail_that_is_refused_for_good_is_replayed_once_the_cause_is_mended(t: TestingModule, mails: MailboxFolder) -> None:
    dead = t.get(DeadLetterService)
    mended_soon = WelcomeEmail(
        to="fail5xx-1@example.com", data=WelcomeData(name="Ada", verification_link="https://example.com/verify/token")
    )
    with pytest.raises(JobFailedError):
        await t.run_job(WELCOME, mended_soon)
    (letter,) = await dead.list()
    original = (await t.queue(DEAD_LETTER).get_job(letter.id)).data
    assert set(original) == {"originalJob", "error", "failedAt"}
    assert set(original["originalJob"]) == {"id", "name", "data", "opts", "attempts", "queue"}
    assert (letter.queue, letter.name, letter.attempts) == (EMAILS, "welcome-email", 1)
    assert "554" in letter.message
    assert await stored(mails) == []
    new_id = await dead.replay(letter.id)
    assert await dead.replay(letter.id) == new_id
    await t.drain(EMAILS)
    assert [mail.to for mail in await stored(mails)] == ["fail5xx-1@example.com"]
    assert await dead.list() == []


async def test_letters_can_be_purged(t: TestingModule) -> None:
    await t.queue(EMAILS).add(NORMAL, Notice(to="fail5xx@example.com", data=NOTICE.data))
    await t.drain(EMAILS)
    dead = t.get(DeadLetterService)
    assert await dead.purge_all(older_than="1h") == 0
    (letter,) = await dead.list()
    assert await dead.purge() == 0
    assert await dead.purge(letter.id) == 1
    assert await dead.list() == []


# ── resilience ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_job_with_retry_and_one_with_priority_are_added_as_agreed(t: TestingModule) -> None:
    service = t.get(ResilientJobsService)
    await service.add_job_with_retry(NOTICE)
    await service.add_priority_job(NOTICE, 7)
    first, second = t.assert_enqueued(NORMAL, NOTICE)
    assert (first.options["attempts"], first.options["removeOnComplete"], first.options["removeOnFail"]) == (5, True, False)
    assert first.options["backoff"]["type"] == "exponential"
    assert first.options["backoff"]["delay"] == 1_000
    assert (second.options["attempts"], second.options["priority"], second.options["timeout"]) == (3, 7, 5_000)


# ── notifications ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_notification_becomes_a_mail_through_the_other_module(t: TestingModule, mails: MailboxFolder) -> None:
    await t.get(NotificationService).notify(Notification(to="ada@example.com", subject="Hello", text="You have mail.", urgent=True))
    await t.drain()
    t.assert_enqueued("high-priority", {"to": "ada@example.com"})
    (mail,) = await stored(mails)
    assert mail.message["Subject"] == "Hello"
