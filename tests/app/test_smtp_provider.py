from __future__ import annotations

import asyncio
import pickle
from datetime import timedelta
from email.utils import parsedate_to_datetime

import pytest

from app.email.errors import MailDeferredError, MailRefusedError, MailServerUnavailableError, UnusableMailError
from app.email.mailbox import Mailbox
from app.email.message import MailTemplates
from app.email.models import BulkData, WelcomeData
from app.email.provider import EmailProvider, OutgoingMail
from app.email.smtp import SmtpEmailProvider
from tests.app.mail_servers import ScriptedServer, provider_for
from toril.errors import QueueClosedError, UnrecoverableError

WELCOME = WelcomeData(name="Zoë <b>", verification_link="https://example.com/verify/a&b")
NEWS = BulkData(subject="News", text="One.\n\nTwo.")


async def test_a_mail_arrives_with_headers_and_a_text_and_an_html_part(provider: SmtpEmailProvider, mailbox: Mailbox) -> None:
    receipt = await provider.send("zoe@example.com", "welcome", WELCOME)
    (mail,) = await mailbox.mails()
    message = mail.message
    assert (mail.to, str(message["To"]), str(message["From"])) == ("zoe@example.com", "zoe@example.com", "Töril <no-reply@example.com>")
    assert str(message["Subject"]) == "Welcome, Zoë <b>"
    assert receipt.to == "zoe@example.com"
    assert receipt.message_id == message["Message-ID"]
    assert receipt.message_id.endswith("@example.com>")
    assert mail.path.name in receipt.response
    assert parsedate_to_datetime(str(message["Date"])).tzinfo is not None
    assert message.get_content_type() == "multipart/alternative"
    text, html = message.iter_parts()
    assert [part.get_content_type() for part in (text, html)] == ["text/plain", "text/html"]
    assert "Hello Zoë <b>," in text.get_content()
    assert "https://example.com/verify/a&b" in text.get_content()
    assert "Hello Zoë &lt;b&gt;," in html.get_content()
    assert 'href="https://example.com/verify/a&amp;b"' in html.get_content()


def test_the_smtp_provider_is_an_email_provider(provider: SmtpEmailProvider) -> None:
    injected: EmailProvider = provider
    assert injected is provider


@pytest.mark.parametrize("template", ["welcome", "bulk", "notice"])
async def test_every_template_renders(template: str, provider: SmtpEmailProvider, mailbox: Mailbox) -> None:
    data = {"name": "Ada", "verification_link": "https://example.com/v", "subject": "Hi", "text": "a\n\nb"}
    await provider.send("ada@example.com", template, data)
    (mail,) = await mailbox.mails()
    assert mail.message["Subject"]


async def test_a_mail_that_is_deferred_twice_is_taken_the_third_time(provider: SmtpEmailProvider, mailbox: Mailbox) -> None:
    for _ in range(2):
        with pytest.raises(MailDeferredError) as caught:
            await provider.send("fail4xx-2@example.com", "welcome", WELCOME)
        assert (caught.value.to, caught.value.code) == ("fail4xx-2@example.com", 451)
        assert not isinstance(caught.value, UnrecoverableError)
    await provider.send("fail4xx-2@example.com", "welcome", WELCOME)
    assert [mail.to for mail in await mailbox.mails()] == ["fail4xx-2@example.com"]


async def test_a_mail_refused_with_5xx_is_given_up(provider: SmtpEmailProvider, mailbox: Mailbox) -> None:
    with pytest.raises(MailRefusedError) as caught:
        await provider.send("fail5xx@example.com", "welcome", WELCOME)
    assert isinstance(caught.value, UnrecoverableError)
    assert str(caught.value).startswith("the mail to fail5xx@example.com was refused for good: 550 5.1.1 ")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert await mailbox.mails() == []


@pytest.mark.parametrize("to", ["a@example.com\r\nBcc: b@example.com", "a@example.com, b@example.com", "a", "", "Ada <a@example.com>"])
async def test_what_is_no_single_address_is_refused_before_anything_is_sent(to: str, provider: SmtpEmailProvider, mailbox: Mailbox) -> None:
    with pytest.raises(UnusableMailError) as caught:
        await provider.send(to, "welcome", WELCOME)
    assert caught.value.what == "recipient"
    assert await mailbox.mails() == []


async def test_data_can_not_add_headers_through_the_subject(provider: SmtpEmailProvider, mailbox: Mailbox) -> None:
    with pytest.raises(UnusableMailError) as caught:
        await provider.send("a@example.com", "welcome", WELCOME.model_copy(update={"name": "Ada\r\nBcc: b@example.com"}))
    assert caught.value.what == "subject"
    assert isinstance(caught.value, UnrecoverableError)
    assert await mailbox.mails() == []


async def test_an_unknown_template_and_missing_data_are_named(provider: SmtpEmailProvider) -> None:
    with pytest.raises(UnusableMailError, match=r"template 'welcom': does not exist; did you mean 'welcome'\?"):
        await provider.send("a@example.com", "welcom", WELCOME)
    with pytest.raises(UnusableMailError, match="template 'welcome': 'verification_link' is undefined"):
        await provider.send("a@example.com", "welcome", {"name": "Ada"})


async def test_nobody_listening_is_worth_another_try(templates: MailTemplates) -> None:
    async with ScriptedServer() as server:
        pass
    async with provider_for(server.url, templates) as provider:
        with pytest.raises(MailServerUnavailableError) as caught:
            await provider.send("a@example.com", "welcome", WELCOME)
    assert caught.value.address == server.url.removeprefix("smtp://")
    assert not isinstance(caught.value, UnrecoverableError)


@pytest.mark.parametrize("moment", ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "content"])
@pytest.mark.parametrize("answer", ["<hang up>", "421 4.3.2 going down"])
async def test_a_server_that_leaves_at_any_moment_is_worth_another_try_and_costs_only_its_connection(
    moment: str, answer: str, templates: MailTemplates
) -> None:
    async with ScriptedServer(**{moment: answer}) as server, provider_for(server.url, templates) as provider:
        with pytest.raises((MailServerUnavailableError, MailDeferredError)):
            await provider.send("a@example.com", "welcome", WELCOME)
        server.answers.update(ScriptedServer().answers)
        assert (await provider.send("a@example.com", "welcome", WELCOME)).response == "taken"
        assert server.connections == 2


async def test_a_silent_server_times_out(templates: MailTemplates) -> None:
    short = timedelta(milliseconds=50)
    async with ScriptedServer(DATA="<silence>") as server, provider_for(server.url, templates, timeout=short) as provider:
        with pytest.raises(MailServerUnavailableError) as caught:
            await provider.send("a@example.com", "welcome", WELCOME)
        assert caught.value.reason == "no answer within 50ms"


@pytest.mark.parametrize(("moment", "reply"), [("AUTH", "535 5.7.8 bad credentials"), ("MAIL", "530 5.7.0 log in first")])
async def test_a_wrong_password_does_not_give_the_mail_up_and_is_not_shown(moment: str, reply: str, templates: MailTemplates) -> None:
    async with ScriptedServer(**{moment: reply}) as server:
        url = server.url.replace("smtp://", "smtp://me:hunter2@")
        async with provider_for(url, templates) as provider:
            with pytest.raises(MailServerUnavailableError) as caught:
                await provider.send("a@example.com", "welcome", WELCOME)
    assert reply[:3] in str(caught.value)
    assert "hunter2" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"


@pytest.mark.parametrize("moment", ["MAIL", "RCPT", "DATA", "content"])
async def test_5xx_is_final_and_4xx_is_not_wherever_the_server_says_it(moment: str, templates: MailTemplates) -> None:
    async with ScriptedServer(**{moment: "552 5.2.2 too much"}) as server, provider_for(server.url, templates) as provider:
        with pytest.raises(MailRefusedError):
            await provider.send("a@example.com", "welcome", WELCOME)
        server.answers["<content>" if moment == "content" else moment] = "452 4.2.2 too much for now"
        with pytest.raises(MailDeferredError):
            await provider.send("a@example.com", "welcome", WELCOME)
        assert server.connections == 1, "a refusal leaves the connection usable"


async def test_many_mails_at_once_share_the_allowed_connections(templates: MailTemplates) -> None:
    async with ScriptedServer() as server, provider_for(server.url, templates, connections=3) as provider:
        async with asyncio.TaskGroup() as group:
            for number in range(30):
                group.create_task(provider.send(f"a{number}@example.com", "welcome", WELCOME))
        assert server.connections == 3
        assert server.commands.count("<content>") == 30


async def test_a_hundred_concurrent_mails_each_arrive_once_and_whole(provider: SmtpEmailProvider, mailbox: Mailbox) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(provider.send(f"a{number}@example.com", "notice", BulkData(subject=f"s{number}", text=f"text {number}")))
    mails = await mailbox.mails()
    assert sorted(mail.to for mail in mails) == sorted(f"a{number}@example.com" for number in range(100))
    for mail in mails:
        which = mail.to.removeprefix("a").partition("@")[0]
        body = mail.message.get_body(("plain",))
        assert body is not None
        assert (mail.message["Subject"], body.get_content().strip()) == (f"s{which}", f"text {which}")


@pytest.mark.parametrize("moment", ["greeting", "MAIL", "content"])
async def test_a_cancelled_send_leaves_no_half_used_connection_behind(moment: str, templates: MailTemplates) -> None:
    async with ScriptedServer(**{moment: "<silence>"}) as server, provider_for(server.url, templates, connections=1) as provider:
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(provider.send("a@example.com", "welcome", WELCOME))
            await server.silent.wait()
            sending.cancel()
        assert sending.cancelled()
        server.answers.update(ScriptedServer().answers)
        await provider.send("b@example.com", "welcome", WELCOME)
        assert server.connections == 2


async def test_cancelling_one_who_waits_for_a_connection_gives_the_place_to_the_next(templates: MailTemplates) -> None:
    async with ScriptedServer(MAIL="<silence>") as server, provider_for(server.url, templates, connections=1) as provider:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(provider.send("a@example.com", "welcome", WELCOME))
            await server.silent.wait()
            second = group.create_task(provider.send("b@example.com", "welcome", WELCOME))
            third = group.create_task(provider.send("c@example.com", "welcome", WELCOME))
            server.answers.update(ScriptedServer().answers)
            second.cancel()
            first.cancel()
        assert third.result().to == "c@example.com"
        assert server.commands.count("<content>") == 1


async def test_a_connection_that_the_server_has_dropped_meanwhile_is_replaced(templates: MailTemplates) -> None:
    async with ScriptedServer() as server, provider_for(server.url, templates, connections=1) as provider:
        await provider.send("a@example.com", "welcome", WELCOME)
        server.answers["RSET"] = "<hang up>"
        await provider.send("b@example.com", "welcome", WELCOME)
        assert server.connections == 2


async def test_bulk_goes_over_one_connection_and_tells_of_each_mail(provider: SmtpEmailProvider, mailbox: Mailbox) -> None:
    addresses = ["a@example.com", "fail5xx@example.com", "fail4xx-1@example.com", "no address", "b@example.com"]
    deliveries = await provider.send_bulk([OutgoingMail(to=to, template="bulk", data=NEWS) for to in addresses])
    assert [delivery.to for delivery in deliveries] == addresses
    assert [type(delivery.error) for delivery in deliveries] == [
        type(None),
        MailRefusedError,
        MailDeferredError,
        UnusableMailError,
        type(None),
    ]
    assert [delivery.receipt is not None for delivery in deliveries] == [True, False, False, False, True]
    assert [mail.to for mail in await mailbox.mails()] == ["a@example.com", "b@example.com"]


async def test_bulk_reports_every_mail_after_a_break_as_not_sent(templates: MailTemplates) -> None:
    async with ScriptedServer() as server, provider_for(server.url, templates) as provider:
        mails = [OutgoingMail(to=f"{name}@example.com", template="bulk", data=NEWS) for name in "abc"]
        assert all(delivery.receipt for delivery in await provider.send_bulk(mails))
        assert server.connections == 1
        server.answers["DATA"] = "<hang up>"
        deliveries = await provider.send_bulk(mails)
        assert [type(delivery.error) for delivery in deliveries] == [MailServerUnavailableError] * 3
    async with provider_for(server.url, templates) as provider:  # nobody listens there any more
        deliveries = await provider.send_bulk(mails)
        assert [type(delivery.error) for delivery in deliveries] == [MailServerUnavailableError] * 3


async def test_closing_says_goodbye_once_and_refuses_what_comes_after(templates: MailTemplates) -> None:
    async with ScriptedServer() as server, provider_for(server.url, templates) as provider:
        await provider.send("a@example.com", "welcome", WELCOME)
        await provider.aclose()
        await provider.aclose()
        assert server.commands.count("QUIT") == 1
        with pytest.raises(QueueClosedError):
            await provider.send("a@example.com", "welcome", WELCOME)


async def test_a_connection_in_use_while_closing_is_closed_when_it_comes_back(templates: MailTemplates) -> None:
    async with ScriptedServer(content="<silence>") as server, provider_for(server.url, templates) as provider, asyncio.TaskGroup() as group:
        sending = group.create_task(provider.send("a@example.com", "welcome", WELCOME))
        await server.silent.wait()
        await provider.aclose()
        assert not sending.done()
        server.proceed()
        assert (await sending).response == "taken"
        await server.everybody_gone()
