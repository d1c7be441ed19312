"""Reads the address of a mail server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from app.email.errors import InvalidSmtpUrlError
from toril.telemetry import redact_url

Encryption = Literal["tls", "starttls-always", "starttls-auto", "none"]

_DEFAULT_PORTS: Final = {"smtp": 25, "smtps": 465}
_STARTTLS: Final[dict[str, Encryption]] = {"always": "starttls-always", "auto": "starttls-auto", "never": "none"}
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class SmtpServer:
    """Where and how to hand over mails."""

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    encryption: Encryption = "starttls-auto"

    @property
    def address(self) -> str:
        """Host and port, for messages."""
        return f"{self.host}:{self.port}"


def parse_smtp_url(url: str) -> SmtpServer:
    """Read `smtp://user:password@host:port?starttls=always`, or `smtps://…`.

    Without `starttls=`, encryption is used where the server offers it; with a password, and a server that isn't on this machine,
    it must, since otherwise whoever sits in between could read the password by hiding the offer.

    Raises:
        InvalidSmtpUrlError: what is wrong, without the password.
    """
    safe_url = redact_url(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidSmtpUrlError(safe_url, "the port is not a number up to 65535, or the host can't be read") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise InvalidSmtpUrlError(safe_url, "it must begin with smtp:// or smtps://")
    if not parts.hostname:
        raise InvalidSmtpUrlError(safe_url, "it names no host")
    if parts.path.strip("/") or parts.fragment:
        raise InvalidSmtpUrlError(safe_url, "nothing may follow the port but ?starttls=…")
    username = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    if (username is None) != (password is None):
        raise InvalidSmtpUrlError(safe_url, "user and password are needed together")
    return SmtpServer(
        host=parts.hostname,
        port=port or _DEFAULT_PORTS[parts.scheme],
        username=username,
        password=password,
        encryption=_encryption(safe_url, parts.scheme, parts.query, secret_travels=bool(password) and parts.hostname not in _LOOPBACK),
    )


def _encryption(safe_url: str, scheme: str, query: str, *, secret_travels: bool) -> Encryption:
    options = dict(parse_qsl(query, keep_blank_values=True))
    wanted = options.pop("starttls", None)
    if options:
        raise InvalidSmtpUrlError(safe_url, f"unknown option {next(iter(options))!r}; there is only starttls")
    if scheme == "smtps":
        if wanted is not None:
            raise InvalidSmtpUrlError(safe_url, "smtps:// is encrypted from the first byte, starttls= makes no sense with it")
        return "tls"
    if wanted is None:
        return "starttls-always" if secret_travels else "starttls-auto"
    if wanted not in _STARTTLS:
        raise InvalidSmtpUrlError(safe_url, f"starttls={wanted!r} is not always, auto or never")
    if secret_travels and wanted != "always":
        raise InvalidSmtpUrlError(safe_url, f"starttls={wanted} could send the password unencrypted; remove it, or the password")
    return _STARTTLS[wanted]
