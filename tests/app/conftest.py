from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.email.mailbox import Mailbox
from app.email.message import MailTemplates
from app.email.smtp import SmtpEmailProvider
from tests.app.mail_servers import provider_for
from tests.app.processes import Runner


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


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """For processes: everything in folders of the test, server and mailbox."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("TORIL_", "PYTEST_")) and key not in ("REDIS_URL", "SMTP_URL")
    }
    return kept | {"TORIL_EMBEDDED_DIR": str(tmp_path / "valkey"), "TORIL_MAILBOX__FOLDER": str(tmp_path / "mailbox"), "COLUMNS": "200"}


@pytest.fixture
def run(environment: dict[str, str]) -> Iterator[Runner]:
    """Starts processes; none is left at the end."""
    runner = Runner(environment)
    yield runner
    runner.close()
