from __future__ import annotations

import pickle

import pytest

from app.email.errors import InvalidSmtpUrlError
from app.email.smtp_url import SmtpServer, parse_smtp_url


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.example.com", SmtpServer(host="mail.example.com", port=25)),
        ("smtp://127.0.0.1:1025", SmtpServer(host="127.0.0.1", port=1025)),
        ("smtps://mail", SmtpServer(host="mail", port=465, encryption="tls")),
        (
            "smtp://me%40x:p%2Fw@mail:587",
            SmtpServer(host="mail", port=587, username="me@x", password="p/w", encryption="starttls-always"),
        ),
        ("smtp://mail?starttls=never", SmtpServer(host="mail", port=25, encryption="none")),
        ("smtp://me:pw@localhost", SmtpServer(host="localhost", port=25, username="me", password="pw")),
        ("smtp://[::1]:25/", SmtpServer(host="::1", port=25)),
    ],
)
def test_an_address_is_read(url: str, server: SmtpServer) -> None:
    assert parse_smtp_url(url) == server


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://me:hunter2@mail", "it must begin with smtp:// or smtps://"),
        ("mail.example.com:25", "it must begin with smtp:// or smtps://"),
        ("smtp://", "it names no host"),
        ("smtp://me:hunter2@", "it names no host"),
        ("smtp://me:hunter2@mail:port", "the port is not a number up to 65535, or the host can't be read"),
        ("smtp://mail:99999", "the port is not a number up to 65535, or the host can't be read"),
        ("smtp://me:hun/ter2@mail", "the port is not a number up to 65535, or the host can't be read"),
        ("smtp://me@mail", "user and password are needed together"),
        ("smtp://mail/inbox", "nothing may follow the port but ?starttls=…"),
        ("smtp://mail?tls=1", "unknown option 'tls'; there is only starttls"),
        ("smtp://mail?starttls=yes", "starttls='yes' is not always, auto or never"),
        ("smtps://mail?starttls=always", "smtps:// is encrypted from the first byte, starttls= makes no sense with it"),
        ("smtp://me:hunter2@mail?starttls=never", "starttls=never could send the password unencrypted; remove it, or the password"),
    ],
)
def test_an_address_that_can_not_be_used_is_explained_without_its_password(url: str, reason: str) -> None:
    with pytest.raises(InvalidSmtpUrlError) as caught:
        parse_smtp_url(url)
    assert caught.value.reason == reason
    assert not any(secret in str(caught.value) for secret in ("hunter2", "ter2"))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_the_password_is_not_part_of_the_text_of_a_server() -> None:
    assert "hunter2" not in repr(parse_smtp_url("smtp://me:hunter2@mail"))
