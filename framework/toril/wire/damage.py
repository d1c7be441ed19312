"""Finds the key that stopped a command. The server says only that there is one of another type, and neither which nor of what type, so
all that the command may have met are looked at afterwards: one round trip more, and only on the way of an error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final, cast

from toril.errors import DamagedKeyError, ServerError
from toril.wire.codec import from_json_or
from toril.wire.keys import JOB_KINDS, QUEUE_KINDS, RESERVED_JOB_IDS
from toril.wire.refusals import Argument, key_of

_KINDS: Final = {"G": "string", "H": "hash", "L": "list", "S": "set", "X": "stream", "Z": "zset", "B": "zset"}
"""Of what type the key of a command must be, by the command's first letter."""

_STRING_COMMANDS: Final = frozenset({"SET"})
_LONGEST_NAME: Final = 1_000
_MOST: Final = 2_000
"""How many keys are looked at, at most: about 1 ms of the server's time."""


async def locate(error: DamagedKeyError, args: Sequence[Argument], look: Callable[[list[str]], Awaitable[list[bytes]]]) -> DamagedKeyError:
    """The same error with the keys that caused it, as far as they are found.

    Args:
        error: as the server tells it.
        args: the command.
        look: runs the script `wrong_kinds` with these arguments.
    """
    suspects: dict[str, str] = {}
    for key, kind in _suspects(args):
        suspects[key] = kind
        if len(suspects) >= _MOST:
            break
    try:
        found = await look([text for pair in suspects.items() for text in pair]) if suspects else []
    except ServerError:  # it says what it knew before
        return error
    problems = [problem.decode("utf-8", "replace") for problem in found]
    located = DamagedKeyError(error.address, error.reason, error.command, error.target, problems)
    located.stopped_script = error.stopped_script
    return located


def _suspects(args: Sequence[Argument]) -> Iterator[tuple[str, str]]:
    """The keys that a command may have met, each with the type that it should have."""
    command = str(args[0])
    if command != "EVALSHA":
        kind = "string" if command in _STRING_COMMANDS else _KINDS.get(command[0])
        if kind is not None and (key := key_of(args)):
            yield key, kind
        return
    if args[2] == 1:
        yield str(args[3]), "hash"  # what an application declares of schedules
        return
    base = str(args[3])
    own = f"toril:{base}"
    yield from _of_queue(base)
    for arg in args[3 + int(args[2]) :]:
        for name in _names_in(arg):
            if name.endswith(":"):
                yield from _of_queue(name)
                continue
            for suffix, kind in JOB_KINDS.items():
                yield f"{base}{name}{suffix}", kind
                if ":" in name:  # a job of another queue by its full key
                    yield name + suffix, kind
            yield f"{base}repeat:{name}", "hash"
            yield f"{base}de:{name}", "string"
            yield f"{base}dn:{name}", "hash"
            yield f"{own}receipt:{name}", "hash"
            for family in ("cancel", "unknown", "replayed"):
                yield f"{own}{family}:{name}", "string"


def _of_queue(base: str) -> Iterator[tuple[str, str]]:
    for suffix, kind in QUEUE_KINDS.items():
        yield base + suffix, kind


def _names_in(arg: Argument) -> Iterator[str]:
    """What an argument may name: a job, scheduler or deduplication. Most name none; where no key is, nothing is found."""
    if isinstance(arg, bytes):
        # A rule of deduplication is the one JSON that names something.
        value: Any = from_json_or(arg, None) if arg.startswith(b'{"id"') and len(arg) <= _LONGEST_NAME else None
        arg = str(cast("dict[str, object]", value).get("id", "")) if isinstance(value, dict) else ""
    if isinstance(arg, str) and 0 < len(arg) <= _LONGEST_NAME and arg not in RESERVED_JOB_IDS:
        yield arg
