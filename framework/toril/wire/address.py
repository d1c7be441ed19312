"""Where the server is: reads the address, and never shows its password."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from toril.errors import InvalidRedisUrlError
from toril.telemetry.redaction import redact_url

_SCHEMES: Final = ("redis", "rediss", "unix")

_ENCODE_IT: Final = "of user and password, @ : / ? # [ ] and % must be percent-encoded"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where the server is. `str()` gives it without the password."""

    url: str = field(repr=False)

    def __post_init__(self) -> None:
        _ = self.connection_options  # reads the whole address now, so that a wrong one is refused where it is given

    def __str__(self) -> str:
        return redact_url(self.url)

    @property
    def connection_options(self) -> dict[str, Any]:
        """What redis-py needs to connect.

        Raises:
            InvalidRedisUrlError: naming what is wrong, and never the password.
        """
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError:  # whose text may quote a piece of the password
            raise InvalidRedisUrlError(str(self), f"host or port can't be read; {_ENCODE_IT}") from None
        if parts.scheme not in _SCHEMES:
            raise InvalidRedisUrlError(str(self), f"unknown scheme {parts.scheme!r}")
        if "@" in parts.path + parts.query + parts.fragment:
            raise InvalidRedisUrlError(str(self), f"user or password can't be read; {_ENCODE_IT}")
        if parts.query or parts.fragment:
            raise InvalidRedisUrlError(str(self), "nothing may follow the path")
        options: dict[str, Any] = {}
        if parts.username:
            options["username"] = unquote(parts.username)
        if parts.password:
            options["password"] = unquote(parts.password)
        if parts.scheme == "unix":
            if not parts.path:
                raise InvalidRedisUrlError(str(self), "the path of the socket is missing")
            return options | {"path": unquote(parts.path)}
        if not parts.hostname:
            raise InvalidRedisUrlError(str(self), "the host is missing")
        database = parts.path.strip("/") or "0"
        if not database.isdigit():
            raise InvalidRedisUrlError(str(self), f"the database must be a number, and {database!r} is none")
        return options | {"host": parts.hostname, "port": port or 6379, "db": int(database), "ssl": parts.scheme == "rediss"}
