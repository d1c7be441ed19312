"""Cron expressions, held to npm's cron-parser and to properties over many zones."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toril.errors import InvalidCronError
from toril.queues.cron import Cron

TABLE: Final = json.loads((Path(__file__).parents[1] / "data" / "cron_parser.json").read_text(encoding="utf-8"))["cases"]
ZONES: Final = (
    "UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Asia/Kolkata", "Australia/Lord_Howe", "Africa/Casablanca",
    "Pacific/Apia", "Asia/Tehran", "America/St_Johns", "Antarctica/Troll", "Europe/Dublin",
)  # fmt: skip


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1_000)


@pytest.mark.parametrize("expression", sorted({case[0] for case in TABLE}))
def test_an_expression_is_due_when_cron_parser_says(expression: str) -> None:
    for _, zone, start_ms, expected in (case for case in TABLE if case[0] == expression):
        cron, at_ms = Cron(expression, zone), start_ms
        for due_ms in expected:
            at_ms = cron.next_ms(at_ms)
            assert at_ms == due_ms, (expression, zone, datetime.fromtimestamp(start_ms / 1_000, UTC))


def test_a_time_that_the_clocks_skip_is_shifted_by_what_they_skip() -> None:
    assert Cron("30 2 * * *", "Europe/Berlin").next_ms(ms("2025-03-29T12:00:00+00:00")) == ms("2025-03-30T03:30:00+02:00")
    # cron-parser leaves this day out altogether.
    assert Cron("0 0 * * *", "America/Sao_Paulo").next_ms(ms("2018-11-03T12:00:00+00:00")) == ms("2018-11-04T01:00:00-02:00")


def test_a_time_that_comes_twice_runs_the_first_time_only() -> None:
    cron = Cron("30 2 * * *", "Europe/Berlin")
    first = cron.next_ms(ms("2025-10-25T12:00:00+00:00"))
    assert first == ms("2025-10-26T02:30:00+02:00")
    assert cron.next_ms(first) == ms("2025-10-27T02:30:00+01:00")


@pytest.mark.parametrize(
    ("expression", "field"),
    [
        ("60 * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day of month"),
        ("* * * 13 *", "month"),
        ("* * * * 8", "day of week"),
        ("61 * * * * *", "second"),
        ("a * * * *", "minute"),
        ("*/0 * * * *", "minute"),
        ("5-1 * * * *", "minute"),
        ("1,2, * * * *", "minute"),
        ("* * *", "number of fields"),
        ("", "number of fields"),
        ("* * * * * * *", "number of fields"),
        ("@sometimes", "alias"),
    ],
)
def test_an_error_points_at_the_field(expression: str, field: str) -> None:
    with pytest.raises(InvalidCronError) as caught:
        Cron(expression)
    assert (caught.value.expression, caught.value.field) == (expression, field)


def test_an_error_tells_what_is_wrong_and_where() -> None:
    with pytest.raises(InvalidCronError) as caught:
        Cron("60 * * * *")
    assert str(caught.value) == "cron='60 * * * *': minute: '60' can't be read: write 0-59, or *, a-b, a,b, */n"


def test_an_unknown_zone_is_an_error() -> None:
    with pytest.raises(InvalidCronError) as caught:
        Cron("* * * * *", "Europe/Atlantis")
    assert caught.value.field == "zone"


def test_a_day_that_never_comes_is_an_error() -> None:
    with pytest.raises(InvalidCronError):
        Cron("0 0 30 2 *").next_ms(0)


@given(
    zone=st.sampled_from(ZONES),
    after_ms=st.integers(ms("2000-01-01T00:00:00+00:00"), ms("2040-01-01T00:00:00+00:00")),
    hour=st.integers(0, 23),
    minute=st.integers(0, 59),
)
@settings(max_examples=300, deadline=None)
def test_a_daily_time_runs_once_a_day_in_every_zone(zone: str, after_ms: int, hour: int, minute: int) -> None:
    cron = Cron(f"{minute} {hour} * * *", zone)
    first = cron.next_ms(after_ms)
    second = cron.next_ms(first)
    assert after_ms < first < second
    # Zones that jump over the date line have a day of 0 or 48 hours (Pacific/Apia left one out).
    assert timedelta(hours=20) <= timedelta(milliseconds=second - first) <= timedelta(hours=50)
    wall = datetime.fromtimestamp(first / 1_000, ZoneInfo(zone))
    assert wall.fold == 0
    is_skipped = (wall.hour, wall.minute) != (hour, minute)
    if is_skipped:  # then the wall clock jumped since that time
        asked = wall.replace(hour=hour, minute=minute)
        assert asked.astimezone(UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None) != asked.replace(tzinfo=None)


@given(zone=st.sampled_from(ZONES), after_ms=st.integers(ms("2000-01-01T00:00:00+00:00"), ms("2040-01-01T00:00:00+00:00")))
@settings(max_examples=200, deadline=None)
def test_every_ten_minutes_means_every_ten_minutes(zone: str, after_ms: int) -> None:
    cron = Cron("*/10 * * * *", zone)
    first = cron.next_ms(after_ms)
    assert 0 < first - after_ms <= 600_000
    assert cron.next_ms(first) - first == 600_000
