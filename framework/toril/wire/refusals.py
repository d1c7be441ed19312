"""What a server answers instead of doing a command -> errors of ours, in one place. None of redis-py's comes out of the wire layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, TypeAlias

from redis import exceptions as redis_errors

from toril.errors import CommandFailedError, DamagedKeyError, ServerError, ServerFullError, ServerRefusedError
from toril.wire import scripts

Argument: TypeAlias = str | bytes | int | float

_WITHOUT_KEY: Final = frozenset({"CLIENT", "INFO", "PING", "SCAN", "SCRIPT"})

_NOT_NOW: Final = {
    "MISCONF": "Nothing was written; look at the disk to which it saves, and at its log",
    "NOREPLICAS": "Nothing was written; look why its replicas don't follow it (min-replicas-to-write)",
}
"""What a server says that could obey, but by its own rules must not do so now; and what to do."""

DAMAGED: Final = "DAMAGED "
"""With this a script of ours begins its answer where it has found a key that would stop it half-way, and so has done nothing."""

_NO_NUMBER: Final = ("is not an integer", "is not a valid float", "would overflow", "would produce NaN")
_PLACE_IN_SCRIPT: Final = re.compile(r"^user_script:\d+: | script: [^ ]*,? ?on @user_script:\d+\.?$")


class UnknownScriptError(ServerError):
    """The server doesn't know a script (any more)."""


def refusal(address: str, args: Sequence[Argument], error: redis_errors.ResponseError) -> ServerError:
    """The error that the reply to a command stands for."""
    text = str(error)
    if isinstance(error, redis_errors.NoScriptError):
        return UnknownScriptError(address, "it doesn't know the script")
    if text.startswith(DAMAGED):
        return DamagedKeyError(address, plain(text), *_named(args), [plain(text).removeprefix(DAMAGED)])
    ours = _of_text(address, text, *_named(args), is_denied=isinstance(error, redis_errors.NoPermissionError))
    ours.stopped_script = "user_script" in text
    return ours


def _of_text(address: str, text: str, command: str, target: str, *, is_denied: bool) -> ServerError:
    reason = plain(text)
    for code, fix in _NOT_NOW.items():
        if text.startswith(code):
            return ServerRefusedError(address, reason, fix)
    if "used memory > 'maxmemory'" in text:
        return ServerFullError(address, reason)
    if is_denied or "ACL failure" in text:
        return ServerRefusedError(address, f"{command} on {target}: {reason}" if target else f"{command}: {reason}")
    if "WRONGTYPE" in text or any(words in text for words in _NO_NUMBER):
        return DamagedKeyError(address, reason, command, target)
    return CommandFailedError(address, reason, command, target)


def plain(text: str) -> str:
    """A server's words without the line of a script, and without the arguments that some of them repeat, which may be secret."""
    return _PLACE_IN_SCRIPT.sub("", text.partition(", with args beginning with")[0])


def key_of(args: Sequence[Argument]) -> str:
    """The key that a command other than a script is about; "": none."""
    command = str(args[0])
    if command in _WITHOUT_KEY:
        return ""
    at = args.index("STREAMS") + 1 if command == "XREAD" else 1
    key = args[at] if len(args) > at else ""
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)


def _named(args: Sequence[Argument]) -> tuple[str, str]:
    """What was to be done, and to what: a command and its key, or a script and its queue."""
    if args[0] == "EVALSHA":
        return scripts.name_of(str(args[1])), str(args[3]).removesuffix(":")
    return str(args[0]), key_of(args)
