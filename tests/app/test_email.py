"""The mail feature from its service to the mailbox: what goes on the wire, and what becomes of it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from app.email.jobs import DEAD_LETTER, EMAILS, HIGH_PRIORITY, NORMAL
from app.email.mailbox_folder import MailboxFolder, StoredMail
from app.email.models import BulkData, BulkEmail, Notice, Receipt, TemplateData, User
from app.email.provider import Delivery, EmailProvider, OutgoingMail
from app.email.service import EmailService
from app.main import AppModule
from app.settings import AppSettings, MailboxSettings
from toril import Queue
from toril.clock import SystemClock
from toril.errors import InvalidPayloadError
from toril.testing import Test, TestingModule

ADA: Final = User(name="Ada", email="ada@example.com", verification_token="token123")
NOTICE: Final = BulkData(subject="Notice", text="Something happened.")


@pytest.fixture
async def t(tmp_path: Path) -> AsyncIterator[TestingModule]:
    """The whole application, with a mailbox of its own."""
    settings = AppSettings(env="test", mailbox=MailboxSettings(enabled=True, folder=tmp_path))
    t = await Test.create_testing_module(imports=[AppModule]).override_provider(AppSettings).use_value(settings).compile()
    async with t:
        yield t


async def received(folder: Path) -> list[StoredMail]:
    """Every mail in the mailbox, oldest first."""
    return await asyncio.to_thread(MailboxFolder(folder, SystemClock()).mails)


async def mails(folder: Path) -> list[tuple[str, str]]:
    """Address and subject of every mail in the mailbox, oldest first."""
    return [(mail.to, str(mail.message["Subject"])) for mail in await received(folder)]


async def stored(queue: Queue, job_id: str) -> tuple[str, object, dict[str, object]]:
    """A job's name, data and options exactly as they are in the server."""
    name, data, opts = await queue.server.commands.call("HMGET", queue.keys.job(job_id), "name", "data", "opts")
    return name.decode(), json.loads(data), json.loads(opts)


# ── on the wire ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_welcome_mail_is_stored_as_agreed(t: TestingModule) -> None:
    job = await t.get(EmailService).send_welcome_email(ADA)
    name, data, opts = await stored(t.queue(EMAILS), job.id)
    assert name == "welcome-email"
    link = "https://example.com/verify/token123"
    assert data == {"type": "welcome", "to": "ada@example.com", "data": {"name": "Ada", "verificationLink": link}}
    assert opts == {
        "priority": 1,
        "attempts": 5,
        "backoff": {"type": "exponential", "delay": 1_000, "jitter": 0.5, "maxDelay": 3_600_000},
        "removeOnComplete": True,
        "removeOnFail": False,
    }


async def test_bulk_mails_are_added_in_order_and_with_the_queues_defaults(t: TestingModule) -> None:
    emails = [BulkEmail(to=f"reader{number}@example.com", data=NOTICE) for number in range(50)]
    jobs = await t.get(EmailService).send_bulk_emails(emails)
    assert [job.data.to for job in jobs] == [email.to for email in emails]
    assert [int(job.id) for job in jobs] == list(range(1, 51))
    name, data, opts = await stored(t.queue(EMAILS), jobs[7].id)
    assert (name, data) == ("bulk-email", {"type": "bulk", "to": "reader7@example.com", "data": {"subject": "Notice", "text": NOTICE.text}})
    assert (opts["priority"], opts["attempts"], opts["removeOnComplete"]) == (2, 3, True)


async def test_the_queues_are_registered_as_agreed(t: TestingModule) -> None:
    assert t.queue(EMAILS).default_job_options.attempts == 3
    assert t.queue(DEAD_LETTER).default_job_options.remove_on_complete is False
    assert t.queue("notifications").name == "notifications"


async def test_data_that_the_handler_would_refuse_is_refused_when_it_is_added(t: TestingModule) -> None:
    with pytest.raises(InvalidPayloadError) as caught:
        await t.queue(EMAILS).add("welcome-email", {"type": "welcome", "to": "not an address"})
    assert "to:" in str(caught.value)
    assert await t.queue(EMAILS).count() == 0


# ── through the worker and SMTP ───────────────────────────────────────────────────────────────────────────────


async def test_a_welcome_mail_arrives_with_both_parts(t: TestingModule, tmp_path: Path) -> None:
    job = await t.get(EmailService).send_welcome_email(ADA)
    await t.drain(EMAILS)
    receipt = await job.result(timeout="5s")
    [mail] = await received(tmp_path)
    assert receipt.to == mail.to == "ada@example.com"
    assert mail.path.name in receipt.response
    for kind in ("plain", "html"):
        part = mail.message.get_body((kind,))
        assert part is not None
        assert "https://example.com/verify/token123" in part.get_content()
    assert await t.queue(EMAILS).find_job(job.id) is None  # removed on completion


async def test_every_kind_of_mail_arrives(t: TestingModule, tmp_path: Path) -> None:
    queue = t.queue(EMAILS)
    await t.get(EmailService).send_bulk_emails([BulkEmail(to="reader@example.com", data=BulkData(subject="News", text="1"))])
    await queue.add(HIGH_PRIORITY, Notice(to="high@example.com", data=NOTICE))
    await queue.add(NORMAL, Notice(to="normal@example.com", data=NOTICE))
    await t.drain(EMAILS)
    assert sorted(await mails(tmp_path)) == [
        ("high@example.com", "Notice"),
        ("normal@example.com", "Notice"),
        ("reader@example.com", "News"),
    ]


async def test_a_mail_that_is_refused_for_now_is_tried_again(t: TestingModule, tmp_path: Path) -> None:
    twice = User(name="Twice", email="fail4xx-2@example.com", verification_token="t")
    job = await t.get(EmailService).send_welcome_email(twice)
    await t.drain(EMAILS)
    for made in (1, 2):
        await job.refresh()
        assert (await job.get_state(), job.attempts_made) == ("delayed", made)
        await t.advance(timedelta(milliseconds=job.delay_ms))
    assert [to for to, _ in await mails(tmp_path)] == ["fail4xx-2@example.com"]
    assert (await job.result(timeout="5s")).to == "fail4xx-2@example.com"


async def test_a_mail_that_is_refused_for_good_fails_at_once_and_is_told(
    t: TestingModule, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    never = User(name="Never", email="fail5xx@example.com", verification_token="t")
    job = await t.get(EmailService).send_welcome_email(never)
    with caplog.at_level(logging.DEBUG):
        await t.drain(EMAILS)
    await job.refresh()
    assert (await job.get_state(), job.attempts_made) == ("failed", 1)  # kept, and not tried again
    assert "550" in str(job.failed_reason)
    [told] = [record for record in caplog.records if "mail not sent" in record.getMessage()]
    assert told.levelno == logging.ERROR
    assert told.exc_info is not None
    assert f"job_id={job.id}" in told.getMessage()
    assert await mails(tmp_path) == []
    assert any(record.levelno == logging.DEBUG and "mail started" in record.getMessage() for record in caplog.records)


async def test_a_job_reports_its_progress(t: TestingModule) -> None:
    job = await t.queue(EMAILS).add(NORMAL, Notice(to="normal@example.com", data=NOTICE), remove_on_complete=False)
    await t.drain(EMAILS)
    await job.refresh()
    assert job.progress == 100


class CountingProvider:
    """Counts how many mails to each address are on their way at once."""

    def __init__(self) -> None:
        self.under_way: dict[str, int] = {}
        self.most: dict[str, int] = {}

    async def send(self, to: str, template: str, data: TemplateData) -> Receipt:
        self.under_way[to] = self.under_way.get(to, 0) + 1
        self.most[to] = max(self.most.get(to, 0), self.under_way[to])
        for _ in range(3):
            await asyncio.sleep(0)
        self.under_way[to] -= 1
        return Receipt(to=to, message_id="<1@example.com>", response="250 taken")

    async def send_bulk(self, mails: Sequence[OutgoingMail]) -> list[Delivery]:
        raise NotImplementedError


async def test_each_kind_of_notice_has_a_limit_of_its_own(tmp_path: Path) -> None:
    counting = CountingProvider()
    settings = AppSettings(env="test", mailbox=MailboxSettings(enabled=True, folder=tmp_path))
    t = await (
        Test.create_testing_module(imports=[AppModule])
        .override_provider(AppSettings)
        .use_value(settings)
        .override_provider(EmailProvider)
        .use_value(counting)
        .compile()
    )
    async with t:
        queue = t.queue(EMAILS)
        kinds = ((HIGH_PRIORITY, "high@example.com"), (NORMAL, "normal@example.com"))
        await queue.add_many([queue.job(kind, Notice(to=to, data=NOTICE)) for kind, to in kinds for _ in range(30)])
        await t.drain(EMAILS)
    assert counting.most == {"high@example.com": 3, "normal@example.com": 1}
