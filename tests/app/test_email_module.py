"""What the mail feature offers to the rest of the application, and what it sends to the server when asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Final

import pytest
from pydantic import ValidationError

from app.email.jobs import BULK, DEAD_LETTER, EMAILS, WELCOME
from app.email.models import BulkData, BulkEmail, User, WelcomeEmail
from app.email.module import EmailModule
from app.email.provider import EmailProvider
from app.email.service import EmailService
from app.main import AppModule
from app.settings import AppSettings, MailboxSettings
from tests.proxy import Proxy, is_command
from toril import ConfigModule, InjectQueue, Queue
from toril.di.errors import GraphErrors
from toril.errors import JobNotFoundError
from toril.testing import Test, TestingModule, TestingModuleBuilder

NEWS: Final = BulkData(subject="News", text="One.")


def application(folder: Path) -> TestingModuleBuilder:
    settings = AppSettings(env="test", mailbox=MailboxSettings(enabled=True, folder=folder))
    return Test.create_testing_module(imports=[AppModule]).override_provider(AppSettings).use_value(settings)


@pytest.fixture
async def t(tmp_path: Path) -> AsyncIterator[TestingModule]:
    async with await application(tmp_path).compile() as t:
        yield t


async def field(queue: Queue, job_id: str, name: str) -> bytes:
    value = await queue.server.commands.call("HGET", queue.keys.job(job_id), name)
    assert isinstance(value, bytes)
    return value


async def test_all_bulk_mails_travel_in_one_command(tmp_path: Path, toril_server_url: str, toril_prefix: str) -> None:
    async with (
        Proxy(toril_server_url) as proxy,
        await application(tmp_path).use_server(proxy.url, toril_prefix).compile() as t,
    ):
        service = t.get(EmailService)
        await service.send_bulk_emails([BulkEmail(to="first@example.com", data=NEWS)])  # the script is loaded now
        before = len(proxy.commands)
        jobs = await service.send_bulk_emails(BulkEmail(to=f"reader{number}@example.com", data=NEWS) for number in range(500))
        sent = proxy.commands[before:]
        assert [command[0] for command in sent] == [b"EVALSHA"]
        assert [int(job.id) for job in jobs] == list(range(2, 502))
        assert [job.data.to for job in jobs] == [f"reader{number}@example.com" for number in range(500)]


async def test_no_bulk_mails_are_no_command(tmp_path: Path, toril_server_url: str, toril_prefix: str) -> None:
    async with (
        Proxy(toril_server_url) as proxy,
        await application(tmp_path).use_server(proxy.url, toril_prefix).compile() as t,
    ):
        before = len(proxy.commands)
        assert await t.get(EmailService).send_bulk_emails([]) == []
        assert not any(map(is_command("EVALSHA"), proxy.commands[before:]))


async def test_a_bulk_mail_has_its_own_options_over_those_of_the_queue(t: TestingModule) -> None:
    [job] = await t.get(EmailService).send_bulk_emails([BulkEmail(to="ada@example.com", data=NEWS)])
    assert json.loads(await field(t.queue(EMAILS), job.id, "opts")) == {
        "priority": 2,
        "attempts": 3,
        "backoff": {"type": "exponential", "delay": 1_000, "jitter": 0.5, "maxDelay": 3_600_000},
        "removeOnComplete": True,
    }


async def test_a_job_without_options_has_those_of_its_queue(t: TestingModule) -> None:
    queue = t.queue(EMAILS)
    job = await queue.add(BULK, BulkEmail(to="ada@example.com", data=NEWS))
    assert json.loads(await field(queue, job.id, "opts")) == {
        "attempts": 3,
        "backoff": {"type": "exponential", "delay": 1_000, "jitter": 0.5, "maxDelay": 3_600_000},
        "removeOnComplete": True,
    }


async def test_dead_letters_are_kept_although_other_queues_forget_what_is_completed(t: TestingModule) -> None:
    queue = t.queue(DEAD_LETTER)
    job = await queue.add("letter", {"of": 1})
    assert json.loads(await field(queue, job.id, "opts"))["removeOnComplete"] is False


async def test_the_token_is_in_the_payload_and_nowhere_in_what_is_shown(t: TestingModule) -> None:
    user = User(name="Ada", email="ada@example.com", verification_token="t0ken")
    job = await t.get(EmailService).send_welcome_email(user)
    assert b"t0ken" in await field(t.queue(EMAILS), job.id, "data")
    assert "t0ken" not in f"{user!r} {job!r} {job.log_fields()}"


async def test_the_name_of_a_user_may_be_anything_that_json_can_hold(t: TestingModule) -> None:
    name = 'Zoë "Z" {{ 7*7 }} \u2028 \U0001f98a'
    job = await t.get(EmailService).send_welcome_email(User(name=name, email="zoe@example.com", verification_token="t"))
    assert json.loads(await field(t.queue(EMAILS), job.id, "data"))["data"]["name"] == name


@pytest.mark.parametrize("address", ["", "ada", "ada@", "ada@example.com\r\nRCPT TO:<eve@example.com>", "Ada <ada@example.com>"])
async def test_a_user_without_a_usable_address_does_not_get_as_far_as_the_queue(address: str) -> None:
    with pytest.raises(ValidationError, match="is not a mail address"):
        User(name="Ada", email=address, verification_token="t")


async def test_one_unusable_mail_among_many_keeps_all_of_them_out(t: TestingModule) -> None:
    with pytest.raises(ValidationError, match="'nobody' is not a mail address"):
        await t.get(EmailService).send_bulk_emails(BulkEmail(to=to, data=NEWS) for to in ("ada@example.com", "nobody"))
    assert await t.queue(EMAILS).count() == 0
    with pytest.raises(JobNotFoundError):
        await t.queue(EMAILS).get_job("1")


async def test_a_payload_that_node_wrote_is_read_by_the_same_model(t: TestingModule) -> None:
    data = {"type": "welcome", "to": "ada@example.com", "data": {"name": "Ada", "verificationLink": "https://example.com/v"}}
    job = await t.queue(EMAILS).add("welcome-email", data)
    assert (await t.queue(EMAILS).get_job(job.id)).data == WelcomeEmail.model_validate(data)
    assert WELCOME.name == job.name


class Newsletter:
    """Something of another module, which asks for the service."""

    def __init__(self, service: EmailService) -> None:
        self.service = service


class Carrier:
    """Something of another module, which asks for what the mail feature keeps to itself."""

    def __init__(self, provider: EmailProvider, emails: Annotated[Queue, InjectQueue(EMAILS)]) -> None:
        self.provider, self.emails = provider, emails


async def test_other_modules_may_use_the_service_and_nothing_else() -> None:
    settings = AppSettings(env="test", mailbox=MailboxSettings(enabled=True))
    imports = [ConfigModule.for_root(AppSettings), EmailModule]
    builder = Test.create_testing_module(imports=imports, providers=[Newsletter]).override_provider(AppSettings).use_value(settings)
    t = await builder.override_provider(EmailProvider).use_value(None).compile()
    try:
        assert t.get(Newsletter).service is t.get(EmailService)
    finally:
        await t.close()
    with pytest.raises(GraphErrors) as caught:
        await Test.create_testing_module(imports=imports, providers=[Carrier]).compile()
    assert "EmailProvider is provided by EmailModule, which does not export it" in str(caught.value)
