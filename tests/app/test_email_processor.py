"""What becomes of mails in the worker when mail servers, producers and the process misbehave."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from pydantic import SecretStr

from app.email.jobs import BULK, EMAILS, HIGH_PRIORITY, NORMAL
from app.email.mailbox_folder import MailboxFolder
from app.email.models import BulkData, BulkEmail, Notice, Receipt, TemplateData, User
from app.email.provider import Delivery, EmailProvider, OutgoingMail
from app.email.service import EmailService
from app.main import AppModule
from app.settings import AppSettings, MailboxSettings, MailSettings
from tests.app.mail_servers import ScriptedServer
from toril import QueueEvents
from toril.clock import SystemClock
from toril.queues.events import ProgressEvent
from toril.testing import Test, TestingModuleBuilder, eventually

ADA: Final = User(name="Ada", email="ada@example.com", verification_token="t0ken")
MAIL: Final = MailSettings()
NOTICE: Final = BulkData(subject="Notice", text="Something happened.")


def with_mailbox(folder: Path) -> TestingModuleBuilder:
    settings = AppSettings(env="test", mailbox=MailboxSettings(enabled=True, folder=folder))
    return Test.create_testing_module(imports=[AppModule]).override_provider(AppSettings).use_value(settings)


def with_server(url: str, mail: MailSettings = MAIL) -> TestingModuleBuilder:
    settings = AppSettings(env="test", smtp_url=SecretStr(url), mail=mail)
    return Test.create_testing_module(imports=[AppModule]).override_provider(AppSettings).use_value(settings)


def told(caplog: pytest.LogCaptureFixture, text: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if text in record.getMessage()]


# ── tries ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_mail_that_is_never_taken_is_given_up_after_five_tries_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with await with_mailbox(tmp_path).compile() as t:
        job = await t.get(EmailService).send_welcome_email(User(name="Late", email="fail4xx@example.com", verification_token="t0ken"))
        await t.drain(EMAILS)
        for tries in range(1, 5):
            await job.refresh()
            assert (await job.get_state(), job.attempts_made) == ("delayed", tries)
            longest = 1_000 << (tries - 1)
            assert longest // 2 <= job.delay_ms <= longest  # jitter takes away up to a half
            await t.advance(timedelta(milliseconds=job.delay_ms))
        await job.refresh()
        assert (await job.get_state(), job.attempts_made) == ("failed", 5)
        assert "451" in str(job.failed_reason)
    failures = told(caplog, "mail not sent")
    assert ["final=True" in record.getMessage() for record in failures] == [False, False, False, False, True]
    assert {record.levelno for record in failures} == {logging.ERROR}
    assert "t0ken" not in caplog.text  # what the link carries is nobody's business


async def test_before_its_time_a_refused_mail_is_not_tried_again(tmp_path: Path) -> None:
    async with await with_mailbox(tmp_path).compile() as t:
        job = await t.get(EmailService).send_welcome_email(User(name="Late", email="fail4xx-1@example.com", verification_token="t"))
        await t.drain(EMAILS)
        await t.advance("499ms")
        await t.drain(EMAILS)
        await job.refresh()
        assert (await job.get_state(), job.attempts_made) == ("delayed", 1)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"greeting": "<hang up>"}, "is not available"),
        ({"greeting": "421 too busy"}, "421 too busy"),
        ({"AUTH": "535 no such user"}, "535 no such user"),
        ({"DATA": "<hang up>"}, "is not available"),
    ],
)
async def test_a_mail_server_that_is_down_costs_a_try_and_no_mail(answers: dict[str, str], reason: str) -> None:
    async with ScriptedServer(**answers) as server:
        url = server.url.replace("//", "//me:hunter2@")
        async with await with_server(url).compile() as t:
            job = await t.get(EmailService).send_welcome_email(ADA)
            await t.drain(EMAILS)
            await job.refresh()
            assert (await job.get_state(), job.attempts_made) == ("delayed", 1)
            assert reason in str(job.failed_reason)
            assert "hunter2" not in f"{job.failed_reason} {job.stack_trace}"
            server.answers.update(dict.fromkeys(answers, ""), **ScriptedServer().answers)  # it is well again
            await t.advance("1s")
            await t.drain(EMAILS)
            assert (await job.result(timeout="5s")).response == "taken"


async def test_a_mail_server_that_falls_silent_costs_a_try_and_its_connection() -> None:
    mail = MailSettings(timeout=timedelta(milliseconds=100))
    async with ScriptedServer(content="<silence>") as server, await with_server(server.url, mail).compile() as t:
        job = await t.get(EmailService).send_welcome_email(ADA)
        await t.drain(EMAILS)
        await job.refresh()
        assert (await job.get_state(), job.attempts_made) == ("delayed", 1)
        assert "no answer within 100ms" in str(job.failed_reason)
        assert server.commands.count("RSET") == 0
        server.proceed()
        await t.advance("1s")
        await t.drain(EMAILS)
        await job.result(timeout="5s")
        assert server.connections == 2  # nobody knows what the first one would answer


async def test_a_mail_refused_for_good_among_many_hinders_no_other(tmp_path: Path) -> None:
    async with await with_mailbox(tmp_path).compile() as t:
        addresses = [f"reader{number}@example.com" for number in range(20)]
        addresses.insert(7, "fail5xx@example.com")
        jobs = await t.get(EmailService).send_bulk_emails(BulkEmail(to=address, data=NOTICE) for address in addresses)
        await t.drain(EMAILS)
        [failed] = await t.queue(EMAILS).get_failed()
        assert (failed.id, failed.attempts_made) == (jobs[7].id, 1)
        assert "550" in failed.stack_trace[0]
    mails = await asyncio.to_thread(MailboxFolder(tmp_path, SystemClock()).mails)
    assert Counter(mail.to for mail in mails) == Counter(addresses[:7] + addresses[8:])


async def test_a_payload_from_elsewhere_that_does_not_fit_fails_at_once_and_says_why(tmp_path: Path) -> None:
    async with await with_mailbox(tmp_path).compile() as t:
        queue = t.queue(EMAILS)
        job = await queue.add(BULK, BulkEmail(to="ada@example.com", data=NOTICE))
        bad = b'{"type":"bulk","to":"nobody","data":{"subject":"S"}}'
        await queue.server.commands.call("HSET", queue.keys.job(job.id), "data", bad)  # as Node would have added it
        await t.drain(EMAILS)
        await job.refresh()
        assert (await job.get_state(), job.attempts_made) == ("failed", 1)
        for part in ("'nobody' is not a mail address", "data.text", "job 1 "):
            assert part in str(job.failed_reason)


# ── what is told ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_progress_is_reported_at_the_end_also_of_jobs_that_are_then_removed(tmp_path: Path) -> None:
    async with await with_mailbox(tmp_path).compile() as t, QueueEvents(t.queue(EMAILS)) as events:
        job = await t.get(EmailService).send_welcome_email(ADA)
        await t.drain(EMAILS)
        async with asyncio.timeout(10):
            event = await anext(event async for event in events if isinstance(event, ProgressEvent))
        assert (event.job_id, event.value) == (job.id, 100)
        assert await t.queue(EMAILS).find_job(job.id) is None


async def test_begin_and_end_of_a_job_are_told_at_debug(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with await with_mailbox(tmp_path).compile() as t:
            job = await t.get(EmailService).send_welcome_email(ADA)
            await t.drain(EMAILS)
    for text in ("mail started", "mail sent"):
        [record] = told(caplog, text)
        assert record.levelno == logging.DEBUG
        assert f"job_id={job.id}" in record.getMessage()


# ── limits ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class GatedProvider:
    """Holds each mail to an address until the address is let through."""

    closed: set[str] = field(default_factory=set[str])
    held: Counter[str] = field(default_factory=Counter[str])
    sent: Counter[str] = field(default_factory=Counter[str])
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, to: str, template: str, data: TemplateData) -> Receipt:
        if to in self.closed:
            self.held[to] += 1
            await self.opened.wait()
        self.sent[to] += 1
        return Receipt(to=to, message_id="<1@example.com>", response="250 taken")

    async def send_bulk(self, mails: Sequence[OutgoingMail]) -> list[Delivery]:
        raise NotImplementedError


@pytest.mark.parametrize(("closed", "open_", "limit"), [("normal", "high", 1), ("high", "normal", 3)])
async def test_a_kind_of_notice_that_is_stuck_holds_up_no_other(tmp_path: Path, closed: str, open_: str, limit: int) -> None:
    provider = GatedProvider(closed={f"{closed}@example.com"})
    async with await with_mailbox(tmp_path).override_provider(EmailProvider).use_value(provider).compile() as t:
        queue = t.queue(EMAILS)
        kinds = {"high": HIGH_PRIORITY, "normal": NORMAL}
        for name in (closed, open_):  # those that will be stuck stand in front
            await queue.add_many([queue.job(kinds[name], Notice(to=f"{name}@example.com", data=NOTICE)) for _ in range(50)])
        await queue.add_many([queue.job(BULK, BulkEmail(to="bulk@example.com", data=NOTICE)) for _ in range(50)])
        draining = asyncio.create_task(t.drain(EMAILS))

        def all_others_are_through() -> None:
            assert provider.sent == {f"{open_}@example.com": 50, "bulk@example.com": 50}

        await eventually(all_others_are_through)
        assert provider.held == {f"{closed}@example.com": limit}
        provider.opened.set()
        await draining
        assert provider.sent[f"{closed}@example.com"] == 50


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_provider_says_goodbye_to_its_mail_server_at_shutdown() -> None:
    async with ScriptedServer() as server:
        async with await with_server(server.url).compile() as t:
            await t.get(EmailService).send_welcome_email(ADA)
            await t.drain(EMAILS)
            assert "QUIT" not in server.commands  # kept for the next mail
        assert server.commands[-1] == "QUIT"


async def test_the_mailbox_closes_with_the_application(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with await with_mailbox(tmp_path).compile():
            pass
    [record] = told(caplog, "mailbox_open")
    port = int(record.getMessage().partition("smtp://127.0.0.1:")[2].split()[0].strip("'"))
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
