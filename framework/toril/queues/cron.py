"""When a cron expression is due next, by the rules of Node's `cron-parser`, so that both sides agree on every run.

- Five fields, or six with seconds **first**; `@daily` and its like; names of months and days; `L`, `5L`, `1#2`.
- Of days of the month and days of the week, where both are restricted, one is enough.
- A time that the clocks skip in spring is shifted by what they skip: 02:30 runs at 03:30. One that comes twice in autumn runs
  once, the first time. An expression that runs every hour follows elapsed time instead, and runs in both.

cronsim finds matching wall-clock times; what the wall clock means in a zone is decided here. Where this differs from cron-parser
(measured, version 5.10): a gap at midnight, which it skips altogether, and half-hour folds, in which it gives up or misses runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from toril.errors import InvalidCronError

ALIASES: Final = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
    "@minutely": "0 * * * * *",
    "@secondly": "* * * * * *",
    "@weekdays": "0 0 0 * * 1-5",
    "@weekends": "0 0 0 * * 0,6",
}

FIELDS: Final = ("second", "minute", "hour", "day of month", "month", "day of week")

_LONGEST_GAP: Final = timedelta(hours=25)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cron:
    """A checked expression in a zone.

    Args:
        expression: as users write it.
        zone: an IANA name such as `Europe/Berlin`.

    Raises:
        InvalidCronError: naming the field, or the zone.
    """

    expression: str
    zone: str = "UTC"

    def __post_init__(self) -> None:
        _zone(self.zone, self.expression)
        _fields(self.expression)

    def next_ms(self, after_ms: int) -> int:
        """The first time after a moment, in ms since the epoch.

        Raises:
            InvalidCronError: there is none within the next decades (such as 30 February).
        """
        zone = _zone(self.zone, self.expression)
        fields = _fields(self.expression)
        after = _EPOCH + timedelta(milliseconds=after_ms // 1_000 * 1_000)
        try:
            found = _by_elapsed_time(fields, after, zone) if _is_hourly(fields) else _by_wall_clock(fields, after, zone)
        except (CronSimError, StopIteration, OverflowError):
            raise InvalidCronError(self.expression, "day of month", "it never comes") from None
        return (found - _EPOCH) // timedelta(milliseconds=1)


def _is_hourly(fields: str) -> bool:
    return fields.split()[2] in ("*", "*/1", "0-23")


def _by_elapsed_time(fields: str, after: datetime, zone: ZoneInfo) -> datetime:
    """The first moment at which the wall clock shows a match, in each stretch of time in which it runs evenly."""
    start, stretch = after, after
    while True:
        offset = _offset(stretch, zone)
        wall = next(CronSim(fields, start.replace(tzinfo=None) + offset))
        found = (wall - offset).replace(tzinfo=UTC)
        change = _first_change(zone, stretch, found)
        if change is None:
            return found
        start, stretch = change - timedelta(seconds=1), change  # the change itself may be a match


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _first_change(zone: ZoneInfo, start: datetime, end: datetime) -> datetime | None:
    """When a zone's offset first changes after `start`, up to `end`, to the second. None: it doesn't."""
    offset = _offset(start, zone)
    low = start
    while low < end:
        high = min(low + timedelta(days=1), end)  # no zone changes twice a day
        if _offset(high, zone) != offset:
            while high - low > timedelta(seconds=1):
                middle = low + (high - low) // 2
                low, high = (middle, high) if _offset(middle, zone) == offset else (low, middle)
            return high.replace(microsecond=0)
        low = high
    return None


def _by_wall_clock(fields: str, after: datetime, zone: ZoneInfo) -> datetime:
    local = after.astimezone(zone).replace(tzinfo=None)
    # Skipped times are shifted behind later ones of the wall clock, so look back by what was skipped: a whole day in some zones.
    skipped = local - (after - _LONGEST_GAP).astimezone(zone).replace(tzinfo=None) - _LONGEST_GAP
    first: datetime | None = None
    for wall in CronSim(fields, local - max(skipped, timedelta())):
        found = _instant(wall, zone)
        if found <= after:
            continue
        first = found if first is None else min(first, found)
        if found.astimezone(zone).replace(tzinfo=None) == wall:
            return first  # not shifted, so nothing that follows can come before it
    raise StopIteration


def _instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """The moment that a wall clock means: the first of two, and behind a gap by what is skipped."""
    # In a gap, fold=0 counts with the offset before it: exactly the shift that is wanted.
    return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)


@lru_cache(maxsize=1_000)
def _fields(expression: str) -> str:
    """The six fields that cronsim reads, checked one by one."""
    text = expression.strip()
    if text.startswith("@"):
        if text.lower() not in ALIASES:
            raise InvalidCronError(expression, "alias", f"write one of {', '.join(ALIASES)}")
        return ALIASES[text.lower()]
    parts = text.upper().split()
    if len(parts) not in (5, 6):
        raise InvalidCronError(expression, "number of fields", f"{len(parts)} fields; write five, or six with seconds first")
    if len(parts) == 5:
        parts.insert(0, "0")
    checked = [_field(expression, number, part) for number, part in enumerate(parts)]
    # cronsim takes a field that begins with a star as "any day" even where a step restricts it; Node doesn't.
    for number in (3, 5):
        if checked[number].startswith("*/"):
            checked[number] = f"{1 if number == 3 else 0}-{31 if number == 3 else 6}{checked[number][1:]}"
    return " ".join(checked)


_ALLOWED: Final = ("0-59", "0-59", "0-23", "1-31 or L", "1-12 or JAN-DEC", "0-7 or SUN-SAT")
"""What each of the six fields may hold."""


def _field(expression: str, number: int, part: str) -> str:
    """One field alone, so that the error can name it."""
    if part == "?" and number in (3, 5):
        part = "*"
    trial = ["0", "0", "0", "*", "*", "*"]
    trial[number] = part
    try:
        CronSim(" ".join(trial), _EPOCH)
    except (CronSimError, ValueError, AssertionError, IndexError) as error:
        raise InvalidCronError(
            expression, FIELDS[number], f"{part!r} can't be read: write {_ALLOWED[number]}, or *, a-b, a,b, */n"
        ) from error
    return part


@lru_cache(maxsize=100)
def _zone(name: str, expression: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidCronError(expression, "zone", f"{name!r} is no zone; write an IANA name such as 'Europe/Berlin', or 'UTC'") from None


def upcoming(cron: Cron, after_ms: int) -> Iterator[int]:
    """The times after a moment, one after the other; without an end."""
    while True:
        after_ms = cron.next_ms(after_ms)
        yield after_ms
