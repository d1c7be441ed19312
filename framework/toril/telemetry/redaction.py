"""Hides secrets in what people and log stores will see.

When in doubt it hides too much: a host name that is missing from a log line costs a minute, a password that stands there
costs a new password.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Set
from typing import Final, cast
from urllib.parse import unquote_plus

HIDDEN: Final = "***"
_MAX_DEPTH: Final = 8

_LONG_ENOUGH: Final = 8
"""Shorter passwords are too often words of the text itself."""

_MOST_KNOWN: Final = 100
"""A process has a few addresses; one that made up new ones without end would get slower with each."""

_known: tuple[str, ...] = ()

_SECRET_WORDS: Final = frozenset("auth bearer cookie cookies credential credentials pass pin pwd pw secret secrets token".split())
"""Secret when they stand as a word of a key: `auth_token` and `authToken`, but not `author` or `spin`."""

_SECRET_PARTS: Final = re.compile(
    r"pas+w|pass(?:phrase|code)|secret|authori[sz]ation|credential|(?:api|access|private|signing)[_-]?key", re.IGNORECASE
)
"""Secret wherever they stand in a key: `dbpassword`, `X-Api-Key`, and misspelt `sentinel_pasword`."""

_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_URL: Final = re.compile(r'[a-zA-Z][a-zA-Z0-9+.-]*://[^\s"<>]*[^\s"<>:,;.]')  # a sentence goes on behind it
_SEVERAL_HOSTS: Final = ("+sentinel", "+cluster")
"""How schemes end behind which several hosts may stand. (Elsewhere a comma may as well be a part of a password.)"""

_HOST: Final = re.compile(r"\[[\w:.%-]*\]|[^\[\]:,/?#]*")
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
    >>> redact_url("redis+sentinel://a:26379,[::1]:26380/main"), redact_url("redis://[::1]:s3cret/0")
    ('redis+sentinel://a:26379,[::1]:26380/main', 'redis://[::1]:***/0')
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
    elif (shown := _without_false_port(rest, has_several=scheme.endswith(_SEVERAL_HOSTS))) is not None:
        return f"{scheme}{separator}{shown}"
    address, mark, query = rest.partition("?")
    return f"{scheme}{separator}{user_info}{at}{address}{mark}{_redact_query(query)}"


def hide_always(secrets: Iterable[str]) -> None:
    """From now on these are hidden wherever they stand: nothing else gives a password away that an error quotes by itself."""
    global _known  # noqa: PLW0603 -- the secrets of a process are one
    known = dict.fromkeys((*_known, *(secret for secret in secrets if len(secret) >= _LONG_ENOUGH)))
    _known = tuple(known)[-_MOST_KNOWN:]


def hide(text: str, secrets: Iterable[str]) -> str:
    """The text with these words replaced, the longest ones first: one may hold the other."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def redact_text(text: str) -> str:
    """The text with the secrets that can be recognised replaced: known ones, in addresses, `password=…` and `Bearer …`."""
    text = hide(text, _known)
    if "://" in text:
        text = _URL.sub(_redact_found_url, text)
    if "=" in text or ":" in text:
        text = _ASSIGNMENT.sub(_redact_assignment, text)
    return text if len(text.split(None, 1)) < 2 else _AUTH_SCHEME.sub(rf"\1 {HIDDEN}", text)  # one word can't hold scheme and secret


def redact_traceback(text: str) -> str:
    """A traceback with the secrets in its messages replaced.

    Of its quoted lines of code, which stand four columns in, only addresses are touched: `token = lock.token` is no secret.
    """
    return "\n".join(
        _URL.sub(_redact_found_url, line) if line.startswith("    ") else redact_text(line) for line in hide(text, _known).split("\n")
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


@functools.lru_cache(maxsize=1_000)
def is_secret_name(name: str) -> bool:
    """Whether a key, field or variable of this name holds a secret.

    >>> [is_secret_name(name) for name in ("SMTP_PASSWORD", "authToken", "X-Api-Key", "author", "tokenizer")]
    [True, True, True, False, False]
    """
    if _SECRET_PARTS.search(name):
        return True
    return any(word in _SECRET_WORDS for word in re.split(r"[\W_]+", _CAMEL.sub("_", name).lower()))


def _without_false_port(rest: str, *, has_several: bool) -> str | None:
    """`redis://:secret` and `redis://host:secret/0` put the password where the port should be. None: this address doesn't.

    The password may hold anything, so of what comes behind it only the number of a database is shown.
    """
    netloc = re.split(r"[/?#]", rest, maxsplit=1)[0]
    place = 0
    for one in netloc.split(",") if has_several else (netloc,):
        found = _HOST.match(one)
        host = found[0] if found else ""
        if not re.fullmatch(r"(:\d*)?" if host else "", one[len(host) :]):
            database = re.search(r"/\d*$", rest[place:])
            return f"{rest[:place]}{host}:{HIDDEN}{database[0] if database else ''}"
        place += len(one) + 1
    return None


def _redact_found_url(found: re.Match[str]) -> str:
    """An address inside of a text; one that stands in single quotes ends before the closing one."""
    is_quoted = found[0].endswith("'") and found.string[: found.start()].endswith("'")
    return f"{redact_url(found[0][:-1])}'" if is_quoted else redact_url(found[0])


def _redact_query(query: str) -> str:
    shown: list[str] = []
    is_secret = False
    for part in query.split("&"):
        key, sign, _ = part.partition("=")
        if sign:
            is_secret = is_secret_name(unquote_plus(key))
            shown.append(f"{key}={HIDDEN}" if is_secret else part)
        else:  # behind a secret it may belong to that: a raw password may hold an `&`
            shown.append(HIDDEN if is_secret else part)
    return "&".join(shown)


def _redact_assignment(found: re.Match[str]) -> str:
    if not is_secret_name(found["key"].strip("\"'")):
        return found[0]
    quote = found["value"][0] if found["value"][0] in "\"'" else ""
    return f"{found['key']}{found['sign']}{quote}{HIDDEN}{quote}"
