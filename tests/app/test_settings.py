from __future__ import annotations

from pathlib import Path

import pytest

from app.settings import AppSettings
from toril.errors import SettingsError
from toril.modules.settings_loader import load_settings

CONFIG = Path(__file__).parents[2] / "config"


@pytest.mark.parametrize("env", ["development", "test", "production"])
def test_the_files_of_every_environment_are_usable(env: str) -> None:
    settings = load_settings(AppSettings, folder=CONFIG, environ={"TORIL_ENV": env, "SMTP_URL": "smtp://mail.example.com"})
    assert settings.env == env
    assert settings.log.format == ("json" if env == "production" else "console")
    assert settings.smtp_server is not None
    assert settings.smtp_server.address == "mail.example.com:25"


def test_development_without_a_mail_server_has_a_mailbox_at_any_free_port() -> None:
    settings = load_settings(AppSettings, folder=CONFIG, environ={})
    assert settings.smtp_server is None
    assert (settings.mailbox.enabled, settings.mailbox.port, settings.mailbox.folder) == (True, 0, Path("var/mailbox"))


def test_production_without_a_mail_server_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"SMTP_URL is not set, and the environment 'production' has no mailbox"):
        load_settings(AppSettings, folder=CONFIG, environ={"TORIL_ENV": "production"})


def test_a_bad_address_of_the_mail_server_is_explained_without_its_password() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(AppSettings, folder=CONFIG, environ={"SMTP_URL": "smtp://me:hunter2@mail:many"})
    (problem,) = caught.value.problems
    assert problem.startswith("SMTP_URL: 'smtp://me:***@mail:many': the port is not a number up to 65535")
    assert "hunter2" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"


def test_a_sender_without_an_address_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"TORIL_MAIL__SENDER: 'nobody' is not a mail address"):
        load_settings(AppSettings, folder=CONFIG, environ={"TORIL_MAIL__SENDER": "nobody"})
