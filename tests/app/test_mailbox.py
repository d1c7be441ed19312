from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import aiosmtplib
import pytest
import uvloop

from app.email.errors import MailboxError, MailDeferredError
from app.email.mailbox import Mailbox
from app.email.message import MailTemplates
from app.email.models import BulkData
from app.email.smtp import SmtpEmailProvider
from tests.app.mail_servers import provider_for
from toril.errors import QueueClosedError

MAIL = b"Subject: hello\r\n\r\nbody\r\n"


async def hand_over(mailbox: Mailbox, to: str | list[str], content: bytes = MAIL, sender: str = "from@example.com") -> None:
    host, port = mailbox.url.removeprefix("smtp://").rsplit(":", 1)
    async with aiosmtplib.SMTP(hostname=host, port=int(port), local_hostname="localhost") as client:
        await client.sendmail(sender, to, content)


async def test_a_mail_becomes_a_file_with_its_addressee_in_the_name(mailbox: Mailbox, tmp_path: Path) -> None:
    await hand_over(mailbox, "ada+news@example.com")
    (mail,) = await mailbox.mails()
    assert mail.path.parent == tmp_path / "mailbox"
    assert mail.path.name.endswith("-ada+news@example.com.eml")
    assert mail.path.read_bytes() == b"X-Mailbox-To: ada+news@example.com\r\n" + MAIL
    assert mail.message["Subject"] == "hello"


async def test_every_addressee_of_a_mail_gets_a_file(mailbox: Mailbox) -> None:
    await hand_over(mailbox, ["a@example.com", "b@example.com"])
    assert [mail.to for mail in await mailbox.mails()] == ["a@example.com", "b@example.com"]


async def test_names_sort_by_arrival_and_never_meet(mailbox: Mailbox) -> None:
    for number in range(20):
        await hand_over(mailbox, "ada@example.com", b"Subject: %d\r\n\r\n" % number)
    assert [str(mail.message["Subject"]) for mail in await mailbox.mails()] == [str(number) for number in range(20)]


@pytest.mark.parametrize("local_part", ["../../escaped", "a/b", ".hidden", "'quoted'", "a;b$(c)", "-rf", "x" * 300])
async def test_no_address_leads_out_of_the_folder_or_hides_its_file(local_part: str, mailbox: Mailbox, tmp_path: Path) -> None:
    await hand_over(mailbox, f"{local_part}@example.com")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 1
    assert files[0].parent == tmp_path / "mailbox"
    assert files[0].name[0].isdigit()
    assert not set(files[0].name) & set("/'\"$(); ")
    assert files[0].suffix == ".eml"


async def test_a_mail_asked_to_fail_n_times_is_deferred_n_times_and_then_taken_and_then_anew(provider: SmtpEmailProvider) -> None:
    async def attempt(subject: str, to: str = "fail4xx-2.x@example.com") -> str:
        try:
            await provider.send(to, "notice", BulkData(subject=subject, text="x"))
        except MailDeferredError:
            return "deferred"
        return "taken"

    assert [await attempt("one") for _ in range(2)] == ["deferred", "deferred"]
    assert await attempt("other") == "deferred", "another mail to the same address has a count of its own"
    assert await attempt("one", "fail4xx-2.y@example.com") == "deferred", "and so has another address"
    assert [await attempt("one") for _ in range(4)] == ["taken", "deferred", "deferred", "taken"]
    assert [await attempt("zero", "fail4xx-0@example.com"), await attempt("ever", "fail4xx@example.com")] == ["taken", "deferred"]


async def test_mailboxes_that_share_a_folder_count_together(tmp_path: Path, templates: MailTemplates) -> None:
    outcomes: list[str] = []
    async with Mailbox(tmp_path) as first, Mailbox(tmp_path) as second:
        assert first.url != second.url
        for url in (first.url, second.url, first.url):
            async with provider_for(url, templates) as provider:
                try:
                    await provider.send("fail4xx-2@example.com", "notice", BulkData(subject="s", text="t"))
                except MailDeferredError:
                    outcomes.append("deferred")
                else:
                    outcomes.append("taken")
        assert [mail.path for mail in await first.mails()] == [mail.path for mail in await second.mails()] != []
    assert outcomes == ["deferred", "deferred", "taken"]


async def test_an_address_asked_to_be_refused_is_refused_before_the_mail_is_sent(mailbox: Mailbox) -> None:
    with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as caught:
        await hand_over(mailbox, "fail5xx.no.way@example.com")
    assert caught.value.recipients[0].code == 550
    await hand_over(mailbox, "fail5xxx@example.com")
    assert len(await mailbox.mails()) == 1


async def test_nothing_half_written_is_left_or_seen(mailbox: Mailbox, tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(hand_over(mailbox, f"a{number}@example.com", MAIL + b"x" * 990 + b"\r\n"))
    assert sorted(path.suffix for path in (tmp_path / "mailbox").iterdir() if path.is_file()) == [".eml"] * 10


async def test_a_port_in_use_is_named_with_the_way_out(mailbox: Mailbox, tmp_path: Path) -> None:
    port = int(mailbox.url.rpartition(":")[2])
    with pytest.raises(MailboxError) as caught:
        async with Mailbox(tmp_path, port=port):
            pass
    assert caught.value.address == f"127.0.0.1:{port}"
    assert "address already in use" in str(caught.value)
    assert "Set mailbox.port to 0" in str(caught.value)


async def test_a_folder_that_can_not_be_made_is_an_error_of_the_mailbox(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MailboxError):
        async with Mailbox(tmp_path / "file" / "mailbox"):
            pass


async def test_it_can_be_closed_while_clients_are_connected_and_opened_again(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path)
    with pytest.raises(QueueClosedError):
        _ = mailbox.url
    async with mailbox:
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=int(mailbox.url.rpartition(":")[2]), local_hostname="localhost")
        await client.connect()
        before = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
        assert len(before) == 1
    assert all(task.done() for task in before), "the conversation has ended with the mailbox"
    with pytest.raises((aiosmtplib.SMTPException, OSError)):
        await client.noop()
    client.close()
    async with mailbox:
        await hand_over(mailbox, "ada@example.com")
        assert len(await mailbox.mails()) == 1


def test_it_closes_at_once_under_uvloop_too(tmp_path: Path, templates: MailTemplates) -> None:
    async def send_one() -> int:
        # The mailbox is the inner one, so that it closes while the provider's connection still stands.
        async with asyncio.timeout(10), AsyncExitStack() as stack:
            mailbox = Mailbox(tmp_path)
            async with mailbox:
                provider = await stack.enter_async_context(provider_for(mailbox.url, templates))
                await provider.send("ada@example.com", "notice", BulkData(subject="s", text="t"))
            return len(await mailbox.mails())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(send_one()) == 1


async def test_foreign_files_in_the_folder_are_no_mails(mailbox: Mailbox, tmp_path: Path) -> None:
    (tmp_path / "mailbox" / "notes.txt").write_text("x")
    (tmp_path / "mailbox" / ".x.eml.part").write_text("x")
    assert await mailbox.mails() == []
