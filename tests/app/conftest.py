from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.email.mailbox import Mailbox
from app.email.message import MailTemplates
from app.email.smtp import SmtpEmailProvider
from tests.app.mail_servers import provider_for


@pytest.fixture(scope="session")
def templates() -> MailTemplates:
    return MailTemplates()


@pytest.fixture
async def mailbox(tmp_path: Path) -> AsyncIterator[Mailbox]:
    async with Mailbox(tmp_path / "mailbox") as box:
        yield box


@pytest.fixture
async def provider(mailbox: Mailbox, templates: MailTemplates) -> AsyncIterator[SmtpEmailProvider]:
    async with provider_for(mailbox.url, templates) as made:
        yield made
