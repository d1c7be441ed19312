"""Cron expressions in many zones and around their transitions, held to a wall clock that is looked at minute by minute."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from toril.queues.cron import Cron

ZONES: Final = sorted(zone for zone in available_timezones() if "/" in zone and not zone.startswith(("posix", "right", "Etc")))
FIRST_DAY: Final = datetime(2000, 1, 1, tzinfo=UTC)
DAYS: Final = 38 * 365
WINDOW: Final = timedelta(hours=40)
LONGEST_SHIFT: Final = timedelta(hours=26)
MINUTE: Final = timedelta(minutes=1)


class Field(NamedTuple):
    text: str
    values: frozenset[int]


def numbers(low: int, high: int) -> st.SearchStrategy[Field]:
    """A field of a few numbers."""
    some = st.frozensets(st.integers(low, high), min_size=1, max_size=3)
    return some.map(lambda values: Field(",".join(map(str, sorted(values))), values))


def steps(low: int, high: int) -> st.SearchStrategy[Field]:
    """A field with a step over all values."""
    return st.integers(2, high // 2).map(lambda step: Field(f"*/{step}", frozenset(range(low, high + 1, step))))


def every(low: int, high: int) -> st.SearchStrategy[Field]:
    return st.just(Field("*", frozenset(range(low, high + 1))))


class Expression(NamedTuple):
    minute: Field
    hour: Field
    day: Field
    weekday: Field

    @property
    def text(self) -> str:
        return f"{self.minute.text} {self.hour.text} {self.day.text} * {self.weekday.text}"

    def matches(self, wall: datetime) -> bool:
        if wall.minute not in self.minute.values or wall.hour not in self.hour.values:
            return False
        days = wall.day in self.day.values, wall.isoweekday() % 7 in self.weekday.values
        return any(days) if self.day.text != "*" and self.weekday.text != "*" else all(days)


expressions = st.builds(
    Expression,
    st.one_of(every(0, 59), steps(0, 59), numbers(0, 59)),
    st.one_of(every(0, 23), steps(0, 23), numbers(0, 23), numbers(0, 4)),
    st.one_of(every(1, 31), every(1, 31), numbers(1, 31)),
    st.one_of(every(0, 6), every(0, 6), numbers(0, 6)),
)


@lru_cache(maxsize=len(ZONES))
def transitions(zone: str) -> tuple[datetime, ...]:
    """The days on whose morning (in UTC) a zone has another offset than the day before."""
    days = [FIRST_DAY + timedelta(days=day) for day in range(DAYS)]
    offsets = [day.astimezone(ZoneInfo(zone)).utcoffset() for day in days]
    return tuple(day for day, (before, after) in zip(days[1:], pairwise(offsets), strict=True) if before != after)


@st.composite
def starts(draw: st.DrawFn) -> tuple[str, datetime]:
    """A zone and a moment; mostly shortly before a transition of the zone."""
    zone = draw(st.sampled_from(ZONES))
    days, is_near = transitions(zone), draw(st.integers(0, 4)) > 0
    if days and is_near:
        event("near a transition")
        start = days[draw(st.integers(0, len(days) - 1))] - timedelta(days=1)
    else:
        start = FIRST_DAY + timedelta(days=draw(st.integers(0, DAYS)))
    return zone, start + timedelta(milliseconds=draw(st.integers(0, 24 * 3_600_000)))


def due_moments(expression: Expression, zone: ZoneInfo, start: datetime, end: datetime) -> set[datetime]:
    """All times that an expression is due, as the docstring of `toril.queues.cron` has it."""
    if expression.hour.text == "*":  # elapsed time
        first = start.replace(second=0, microsecond=0)
        return {moment for moment in _minutes(first, end) if expression.matches(moment.astimezone(zone))}
    low, high = ((moment.astimezone(zone)).replace(tzinfo=None, second=0, microsecond=0) for moment in (start, end))
    return {_moment(wall, zone) for wall in _minutes(low - LONGEST_SHIFT, high + LONGEST_SHIFT) if expression.matches(wall)}


def _minutes(first: datetime, last: datetime) -> Iterator[datetime]:
    while first <= last:
        yield first
        first += MINUTE


def _moment(wall: datetime, zone: ZoneInfo) -> datetime:
    """When a wall clock shows this first; where it never does, what it would have been with the offset before."""
    day_before, day_after = (wall.replace(tzinfo=UTC) + shift for shift in (-1.5 * LONGEST_SHIFT, 1.5 * LONGEST_SHIFT))
    offsets = [moment.astimezone(zone).utcoffset() or timedelta() for moment in (day_before, day_after)]
    moments = [(wall - offset).replace(tzinfo=UTC) for offset in offsets]
    shown = [moment for moment in moments if moment.astimezone(zone).replace(tzinfo=None) == wall]
    return min(shown, default=moments[0])


def field(low: int, high: int, *values: int) -> Field:
    return Field(",".join(map(str, values)) or "*", frozenset(values or range(low, high + 1)))


def expression(minutes: tuple[int, ...], hours: tuple[int, ...], days: tuple[int, ...] = ()) -> Expression:
    return Expression(field(0, 59, *minutes), field(0, 23, *hours), field(1, 31, *days), field(0, 6))


LORD_HOWE: Final = ("Australia/Lord_Howe", datetime(2024, 10, 5, 12, tzinfo=UTC))
ST_JOHNS: Final = ("America/St_Johns", datetime(2000, 10, 29, 0, tzinfo=UTC))
APIA: Final = ("Pacific/Apia", datetime(2011, 12, 30, 11, tzinfo=UTC))


@given(expression=expressions, at=starts())
@example(expression=expression((20, 40), (2,)), at=LORD_HOWE)  # 02:20 is shifted by half an hour, behind 02:40
@example(expression=expression((30,), (5,), (30,)), at=APIA)  # a whole day is skipped
@example(expression=Expression(field(0, 59), field(0, 23), field(1, 31), field(0, 6, 0)), at=ST_JOHNS)  # from Sunday back to Saturday
@settings(max_examples=250)
def test_every_run_comes_when_the_wall_clock_says_none_is_missed_and_none_comes_twice(
    expression: Expression, at: tuple[str, datetime]
) -> None:
    zone, start = at
    end = start + WINDOW
    cron, now_ms, end_ms = Cron(expression.text, zone), _ms(start), _ms(end)
    runs: list[int] = []
    while (now_ms := cron.next_ms(now_ms)) <= end_ms:
        assert now_ms > (runs[-1] if runs else _ms(start))
        runs.append(now_ms)
    expected = sorted(_ms(moment) for moment in due_moments(expression, ZoneInfo(zone), start, end) if start < moment <= end)
    assert [_show(ms) for ms in runs] == [_show(ms) for ms in expected]


def _ms(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _show(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1_000, UTC).isoformat()
