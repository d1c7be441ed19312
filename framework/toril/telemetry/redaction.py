"""Hides secrets in what people and log stores will see.

When in doubt it hides too much: a host name that is missing from a log line costs a minute, a password that stands there
costs a new password.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from typing import Final, cast
from urllib.parse import unquote_plus

HIDDEN: Final = "***"
_MAX_DEPTH: Final = 8

_SECRET_WORDS: Final = frozenset("auth bearer cookie cookies credential credentials pin pwd pw secret secrets token".split())
"""Secret when they stand as a word of a key: `auth_token` and `authToken`, but not `author` or `spin`."""

_SECRET_PARTS: Final = re.compile(
    r"pass(?:word|wd|phrase|code)|secret|authori[sz]ation|credential|(?:api|access|private|signing)[_-]?key", re.IGNORECASE
)
"""Secret wherever they stand in a key: `dbpassword`, `X-Api-Key`."""

_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_URL: Final = re.compile(r'[a-zA-Z][a-zA-Z0-9+.-]*://[^\s"<>]*[^\s"<>:,;.]')  # a sentence goes on behind it
_AUTH_SCHEME: Final = re.compile(r"\b(Bearer|Basic|Token)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)
_ASSIGNMENT: Final = re.compile(
    r"""(?P<key>["']?\b[\w-]+["']?)(?P<sign>\s*=\s*|["']\s*:\s*)(?P<value>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,;&)\]}]+)"""
)


def redact_url(url: str) -> str:
    """The address with its password, and every query value with a secret's name, replaced by `***`.

    Works for what is not quite an address, too, since that is when it gets printed: an `@`, `/` or `#` inside of the password,
    a password without a user, or one that stands where the port should be.

    >>> redact_url("redis://app:s3cr/e@t@db.example.com:6379/0"), redact_url("rediss://db?password=x&db=1")
    ('redis://app:***@db.example.com:6379/0', 'rediss://db?password=***&db=1')
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    # The last `@` of all: a raw password may hold `/`, `?` or `#`, so nothing before it is safe to show but the user's name.
    user_info, at, rest = rest.rpartition("@")
    if at:
        user, colon, _ = user_info.partition(":")
        # Without a colon it may well be a token (https://TOKEN@host).
        user_info = f"{user}:{HIDDEN}" if colon else HIDDEN
    address, mark, query = rest.partition("?")
    return f"{scheme}{separator}{user_info}{at}{_without_false_port(address, bool(at))}{mark}{_redact_query(query)}"


def redact_text(text: str) -> str:
    """The text with the secrets that can be recognised replaced: in addresses, `password=…` and `Bearer …`."""
    if "://" in text:
        text = _URL.sub(lambda found: redact_url(found[0]), text)
    if "=" in text or ":" in text:
        text = _ASSIGNMENT.sub(_redact_assignment, text)
    return _AUTH_SCHEME.sub(rf"\1 {HIDDEN}", text)


def redact_traceback(text: str) -> str:
    """A traceback with the secrets in its messages replaced.

    Of its quoted lines of code, which stand four columns in, only addresses are touched: `token = lock.token` is no secret.
    """
    return "\n".join(
        _URL.sub(lambda found: redact_url(found[0]), line) if line.startswith("    ") else redact_text(line) for line in text.split("\n")
    )


def redact(value: object, *, depth: int = _MAX_DEPTH) -> object:
    """The value with secrets replaced, as plain dicts, lists and scalars; what is nested deeper than `depth` becomes `"…"`.

    Objects of other types are left as they are, or become their text if that holds a secret.
    """
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return redact_text(value)
    if not isinstance(value, (Mapping, list, tuple, Set)):
        text = repr(value)
        hidden = redact_text(text)
        return value if hidden == text else hidden
    if depth <= 0:
        return "…"
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {str(key): redact_item(str(key), item, depth=depth - 1) for key, item in items}
    return [redact(item, depth=depth - 1) for item in cast("Iterable[object]", value)]


def redact_item(key: str, value: object, *, depth: int = _MAX_DEPTH) -> object:
    """The value of one key: `***` if the key names a secret, otherwise as `redact`."""
    if value is not None and not isinstance(value, bool) and is_secret_name(key):
        return HIDDEN
    return redact(value, depth=depth)


def is_secret_name(name: str) -> bool:
    """Whether a key, field or variable of this name holds a secret.

    >>> [is_secret_name(name) for name in ("SMTP_PASSWORD", "authToken", "X-Api-Key", "author", "tokenizer")]
    [True, True, True, False, False]
    """
    if _SECRET_PARTS.search(name):
        return True
    return any(word in _SECRET_WORDS for word in re.split(r"[\W_]+", _CAMEL.sub("_", name).lower()))


def _without_false_port(address: str, has_user_info: bool) -> str:
    """`redis://:secret` and `redis://host:secret/0` put the password where the port should be."""
    if has_user_info or address.startswith("["):
        return address
    host, colon, port = address.partition(":")
    number, slash, path = port.partition("/")
    return address if not colon or number.isdecimal() or not number else f"{host}:{HIDDEN}{slash}{path}"


def _redact_query(query: str) -> str:
    def one(part: str) -> str:
        key, sign, _ = part.partition("=")
        return f"{key}={HIDDEN}" if sign and is_secret_name(unquote_plus(key)) else part

    return "&".join(one(part) for part in query.split("&"))


def _redact_assignment(found: re.Match[str]) -> str:
    if not is_secret_name(found["key"].strip("\"'")):
        return found[0]
    quote = found["value"][0] if found["value"][0] in "\"'" else ""
    return f"{found['key']}{found['sign']}{quote}{HIDDEN}{quote}"
