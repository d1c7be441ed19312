"""Where the server is: reads the address, and never shows its password.

    redis://[user:password@]host[:port][/db]                       one server
    unix://[user:password@]/path/to/socket                         one server, by its socket file
    redis+sentinel://[user:password@]host[:port],…/name[/db]       the primary that Sentinels call `name`
    redis+cluster://[user:password@]host[:port],…                  a Cluster, by some of its nodes

`rediss…` instead of `redis…` is TLS. Behind a `?` may follow `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` (paths), `ssl_cert_reqs`
(`required` or `none`) and `ssl_check_hostname` (`true` or `false`), and for Sentinels' own login `sentinel_username` and
`sentinel_password`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis.crc import key_slot

from toril.errors import InvalidOptionError, InvalidRedisUrlError
from toril.telemetry.redaction import hide, hide_always, redact_url
from toril.wire.keys import CLUSTER_PREFIX, DEFAULT_PREFIX, QueueKeys

_ENCODE_IT: Final = "of user and password, @ : / ? # [ ] and % must be percent-encoded"

_TLS_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "ssl_ca_certs": (),
    "ssl_certfile": (),
    "ssl_keyfile": (),
    "ssl_cert_reqs": ("required", "none"),
    "ssl_check_hostname": ("true", "false"),
}
"""What may follow a TLS address, and the values it may have (none named: a path)."""

_SENTINEL_WORDS: Final = ("sentinel_username", "sentinel_password")


class ServerKind(Enum):
    """How the server is set up; the value is what its address begins with, but for TLS."""

    SINGLE = "redis"
    SOCKET = "unix"
    SENTINEL = "redis+sentinel"
    CLUSTER = "redis+cluster"


_SCHEMES: Final = {
    scheme: (kind, scheme.startswith("rediss"))
    for kind in ServerKind
    for scheme in (kind.value, kind.value.replace("redis", "rediss", 1))
    if scheme != "unixs"
}


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where the server is. `str()` gives it without the password.

    Raises:
        InvalidRedisUrlError: naming what is wrong, and never the password.
    """

    url: str = field(repr=False)
    kind: ServerKind = field(init=False, compare=False)
    hosts: tuple[tuple[str, int], ...] = field(init=False, compare=False)
    """The server's host and port; those of the Sentinels, or of some nodes of the Cluster. Empty for a socket file."""
    service: str = field(init=False, default="", compare=False)
    """What the Sentinels call the primary."""
    connection_options: dict[str, Any] = field(init=False, repr=False, compare=False)
    """What redis-py needs to connect to the server itself: all but host and port."""
    sentinel_options: dict[str, Any] = field(init=False, repr=False, compare=False)
    """The same for the Sentinels."""
    secrets: frozenset[str] = field(init=False, repr=False, compare=False)
    """The passwords, and what may be one, as they stand in the address and as they are sent."""

    def __post_init__(self) -> None:
        read = _read(self.url)
        if read is None:
            raise self._error(_why_unreadable(self.url))
        parts, user_info, hosts = read
        if parts.scheme not in _SCHEMES:
            raise self._error(f"unknown scheme {parts.scheme!r}")
        kind, is_tls = _SCHEMES[parts.scheme]
        if "@" in parts.path + parts.query + parts.fragment:
            raise self._error(f"user or password can't be read; {_ENCODE_IT}")
        user, _, password = user_info.partition(":")
        login = {"username": unquote(user), "password": unquote(password)}
        options: dict[str, Any] = {key: value for key, value in login.items() if value}
        tls, sentinel_login = self._words(parts, kind, is_tls=is_tls)
        if kind is ServerKind.SOCKET:
            options["path"] = self._path(parts)
        else:
            self._check_hosts(kind, hosts)
            service, database = self._service_and_database(parts, kind)
            options |= {"db": database, "ssl": is_tls} | tls
            object.__setattr__(self, "service", service)
        object.__setattr__(self, "kind", kind)
        default_port = 26_379 if kind is ServerKind.SENTINEL else 6_379
        object.__setattr__(self, "hosts", tuple((host, port or default_port) for host, port in hosts))
        object.__setattr__(self, "connection_options", options)
        object.__setattr__(self, "sentinel_options", sentinel_login | {"ssl": is_tls} | tls)
        passwords = {password, unquote(password), sentinel_login.get("password", "")}
        hide_always(passwords)
        # A user without a password may well be a token that stands in the wrong place.
        secrets = passwords if password else passwords | {user, unquote(user)}
        object.__setattr__(self, "secrets", frozenset(filter(None, secrets)))

    def __str__(self) -> str:
        return redact_url(self.url)

    def hide(self, text: str) -> str:
        """What the server has said, without the passwords: one that doesn't know AUTH quotes what it doesn't understand."""
        return hide(text, self.secrets)

    def is_told_by(self, error: BaseException) -> bool:
        """Whether a password stands in the error, or in one that led to it."""
        link: BaseException | None = error
        while link is not None:
            text = f"{link} {link!r}"
            if self.hide(text) != text:
                return True
            link = link.__cause__ or link.__context__
        return False

    @property
    def default_prefix(self) -> str:
        """What keys begin with unless the user says otherwise: on a Cluster it must hold a hash tag."""
        return CLUSTER_PREFIX if self.kind is ServerKind.CLUSTER else DEFAULT_PREFIX

    def slot_of(self, keys: QueueKeys) -> int:
        """Where a Cluster keeps this queue; 0 elsewhere.

        Raises:
            InvalidOptionError: its keys would lie in several slots, which no script can work on.
        """
        if self.kind is not ServerKind.CLUSTER:
            return 0
        if keys.tag is None:
            reason = f"on a Cluster it must hold a hash tag, so that all keys of a queue lie together: write {{{keys.prefix}}}"
            raise InvalidOptionError("prefix", keys.prefix, reason)
        return key_slot(keys.base.encode())

    def _error(self, reason: str) -> InvalidRedisUrlError:
        return InvalidRedisUrlError(str(self), reason)

    def _path(self, parts: SplitResult) -> str:
        if not parts.path:
            raise self._error("the path of the socket is missing")
        return unquote(parts.path)

    def _check_hosts(self, kind: ServerKind, hosts: tuple[tuple[str, int], ...]) -> None:
        if not hosts or any(not host for host, _ in hosts):
            raise self._error("the host is missing")
        if kind is ServerKind.SINGLE and len(hosts) > 1:
            raise self._error("several hosts are for redis+sentinel:// and redis+cluster:// only")

    def _service_and_database(self, parts: SplitResult, kind: ServerKind) -> tuple[str, int]:
        service, database = "", parts.path.strip("/")
        if kind is ServerKind.SENTINEL:
            service, _, database = database.partition("/")
            if not service:
                raise self._error("the name of the primary is missing: redis+sentinel://host:26379/mymaster")
        if database and kind is ServerKind.CLUSTER:
            raise self._error("a Cluster has no databases: nothing may follow the hosts")
        if not (database or "0").isdigit():
            raise self._error(f"the database must be a number, and {database!r} is none")
        return unquote(service), int(database or "0")

    def _words(self, parts: SplitResult, kind: ServerKind, *, is_tls: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """What stands behind the `?`: redis-py's options for TLS, and for the login at the Sentinels."""
        tls: dict[str, Any] = {}
        login: dict[str, Any] = {}
        if parts.fragment:
            raise self._error("nothing may follow the path")
        for word, value in parse_qsl(parts.query, keep_blank_values=True):
            if is_tls and word in _TLS_WORDS:
                allowed = _TLS_WORDS[word]
                if not value or (allowed and value not in allowed):
                    raise self._error(f"{word} must be {' or '.join(allowed) or 'a path'}, not {value!r}")
                tls[word] = value == "true" if word == "ssl_check_hostname" else value
            elif kind is ServerKind.SENTINEL and word in _SENTINEL_WORDS:
                login[word.removeprefix("sentinel_")] = value
            else:
                known = (*(_TLS_WORDS if is_tls else ()), *(_SENTINEL_WORDS if kind is ServerKind.SENTINEL else ()))
                if not value:  # what stands there may be the rest of a raw password that holds an `&`
                    raise self._error("an option has no value; in a password, & must be percent-encoded")
                raise self._error(f"unknown option {word!r}; here may stand {', '.join(known)}" if known else "nothing may follow the path")
        if tls.get("ssl_cert_reqs") == "none":
            tls["ssl_check_hostname"] = False  # there is nothing to check it against
        return tls, login


def _read(url: str) -> tuple[SplitResult, str, tuple[tuple[str, int], ...]] | None:
    """The parts of an address, its user and password, its hosts; None, and no error, whose text may quote a piece of the password."""
    try:
        parts = urlsplit(url)
        user_info, _, netloc = parts.netloc.rpartition("@")
        hosts = tuple(_host_and_port(one) for one in netloc.split(",")) if parts.scheme != "unix" and netloc else ()
    except ValueError:
        return None
    return parts, user_info, hosts


def _why_unreadable(url: str) -> str:
    """Without a word of the port: what stands there may be a password."""
    if not set("[]@") & set(url) and url.isascii():
        return "the port is not a number up to 65535"
    return f"host or port can't be read; {_ENCODE_IT}"


def _host_and_port(text: str) -> tuple[str, int]:
    one = urlsplit(f"//{text}")
    return one.hostname or "", one.port or 0
