"""The application's settings: `config/*.toml`, over them the environment."""

from __future__ import annotations

from datetime import timedelta
from email.utils import parseaddr
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from app.email.address import check_address
from app.email.smtp_url import SmtpServer, parse_smtp_url
from toril.modules.settings import DurationSetting, SettingsSection, TorilSettings


class MailSettings(SettingsSection):
    """How mails are handed over."""

    sender: str = "Toril <no-reply@example.com>"
    """The From header of every mail."""

    connections: int = Field(default=4, ge=1, le=100)
    """How many connections to the mail server one process may open."""

    timeout: DurationSetting = timedelta(seconds=20)
    """For connecting to the mail server and logging in, and then for handing over one mail."""

    @field_validator("sender")
    @classmethod
    def _has_an_address(cls, sender: str) -> str:
        check_address(parseaddr(sender)[1])
        return sender


class MailboxSettings(SettingsSection):
    """The mailbox for development, used when `SMTP_URL` isn't set."""

    enabled: bool = False
    folder: Path = Path("var/mailbox")
    """From the project's folder."""

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65_535)


class AppSettings(TorilSettings):
    """What the application can be told from outside."""

    smtp_url: SecretStr | None = Field(default=None, validation_alias="smtp_url")
    """The mail server, from `SMTP_URL`; None: the development mailbox."""

    mail: MailSettings = MailSettings()
    mailbox: MailboxSettings = MailboxSettings()

    @property
    def smtp_server(self) -> SmtpServer | None:
        """`smtp_url`, read."""
        return None if self.smtp_url is None else parse_smtp_url(self.smtp_url.get_secret_value())

    @field_validator("smtp_url")
    @classmethod
    def _can_be_read(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            parse_smtp_url(url.get_secret_value())
        return url

    @model_validator(mode="after")
    def _has_a_mail_server(self) -> Self:
        if self.smtp_url is None and not self.mailbox.enabled:
            raise ValueError(f"SMTP_URL is not set, and the environment {self.env!r} has no mailbox (mailbox.enabled)")
        return self
