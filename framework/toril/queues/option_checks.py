"""What the values of options must be. Each check names the option and its value, and says what to write instead."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

from toril.durations import Duration, to_ms
from toril.errors import InvalidOptionError
from toril.wire.keys import RESERVED_JOB_IDS

MAX_PRIORITY: Final = 2_097_151
"""Priorities are 21 bits wide in the order of the prioritized jobs."""

LAST_DUE_MS: Final = 2**41 - 1
"""Due times have 41 bits in the order of the delayed jobs: up to September 2039."""

_FAMILIES_OF_KEYS: Final = ("repeat:", "de:", "dn:", "metrics:")
_NUMBER: Final = re.compile(r"-?(0|[1-9]\d*)", re.ASCII)
_MILLISECOND: Final = timedelta(milliseconds=1)


def ms_of(duration: Duration | None) -> int | None:
    """Milliseconds of a duration that `check_duration` has gone over."""
    return duration // _MILLISECOND if isinstance(duration, timedelta) else None


def check_duration(options: object, name: str, shown_as: str | None = None) -> None:
    """Read the duration in the field `name` of a frozen dataclass, and leave it there as a `timedelta`."""
    value: Duration | None = getattr(options, name)
    if value is not None:
        object.__setattr__(options, name, timedelta(milliseconds=to_ms(value, shown_as or name)))


def check_whole(name: str, value: object, lowest: int) -> None:
    """Refuse what is neither None nor a whole number from `lowest` on."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidOptionError(name, value, "write a whole number")
    if value < lowest:
        raise InvalidOptionError(name, value, f"write {lowest} or more")


def check_flag(name: str, value: object) -> None:
    """Refuse what is neither None nor a bool."""
    if value is not None and not isinstance(value, bool):
        raise InvalidOptionError(name, value, "write True or False")


def check_priority(value: object) -> None:
    """Refuse what is neither None nor a priority."""
    check_whole("priority", value, 0)
    if isinstance(value, int) and value > MAX_PRIORITY:
        raise InvalidOptionError("priority", value, f"write a number from 1 (first) to {MAX_PRIORITY:,}, or 0 for none")


def check_timestamp(value: object) -> None:
    """Refuse what is neither None nor a point in time."""
    if value is None:
        return
    if not isinstance(value, datetime):
        raise InvalidOptionError("timestamp", value, "write a datetime with a time zone, such as datetime(2026, 1, 1, tzinfo=UTC)")
    if value.tzinfo is None:
        raise InvalidOptionError("timestamp", value, "a datetime without a time zone tells no point in time: give it a tzinfo, such as UTC")


def check_job_id(value: object) -> None:
    """Refuse ids that would be taken for an automatic one, or whose key would be one of the queue's own (wire §2.3)."""
    if not isinstance(value, str):
        fix = f': write "{value}" with something in front, such as "order-{value}"' if type(value) is int else ', such as "order-7"'
        raise InvalidOptionError("job_id", value, f"an id is text{fix}")
    if _NUMBER.fullmatch(value):
        raise InvalidOptionError("job_id", value, f'whole numbers are the ids that the server gives: write for example "order-{value}"')
    if value in RESERVED_JOB_IDS or value.startswith(_FAMILIES_OF_KEYS):
        raise InvalidOptionError("job_id", value, f'one of the queue\'s own keys has this name: write for example "job-{value}"')
    if ":" in value and (value.count(":") != 2 or value.startswith("0:")):
        raise InvalidOptionError("job_id", value, f'an id must not hold a colon: write for example "{value.replace(":", "-")}"')
    check_text("job_id", value)


def check_job_name(value: object) -> None:
    """Refuse what can't be the name of a job."""
    if not isinstance(value, str) or not value:
        raise InvalidOptionError("name", value, "the name of a job is text, and not empty")
    check_text("name", value)


def check_text(name: str, value: str) -> None:
    """Refuse text that has no UTF-8 form."""
    if value.isascii():
        return
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidOptionError(name, value, "it holds half a character (a lone surrogate), which has no UTF-8 form") from None
