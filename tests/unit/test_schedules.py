"""When schedules are due, and which version of an application comes first."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import cast

import pytest

from toril import ScheduleRule, WorkerFactory
from toril.errors import InvalidOptionError
from toril.modules.reconciling import version_key
from toril.modules.roles import Role, check_roles
from toril.modules.schedules import first_due_ms, next_due_ms, upcoming_ms

NOW = 1_700_000_000_000
MINUTE = 60_000


def at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1_000, UTC)


def test_versions_are_numbers_where_they_look_like_them() -> None:
    given = ["V1.10", "abc", "2.0.1", None, "1.2", "2024-05-01", "v1", "0.9"]
    assert sorted(given, key=version_key) == [None, "2024-05-01", "abc", "0.9", "v1", "1.2", "V1.10", "2.0.1"]
    assert version_key("2") == version_key("v2.0.0")
    assert version_key("") == version_key(None)


def test_an_interval_is_due_after_one_interval_and_skips_what_it_missed() -> None:
    rule = ScheduleRule(every="1m")
    first = first_due_ms(rule, NOW)
    assert first == NOW + MINUTE
    assert next_due_ms(rule, first, first) == NOW + 2 * MINUTE
    assert next_due_ms(rule, first, first - 1) == NOW + 2 * MINUTE  # woken a little too early
    assert next_due_ms(rule, first, first + 5 * MINUTE) == NOW + 7 * MINUTE
    assert next_due_ms(rule, first, first - 60 * MINUTE) == NOW - 58 * MINUTE  # the clock was set back


def test_start_offset_and_end_of_a_rule_are_kept() -> None:
    assert first_due_ms(ScheduleRule(every="1m", start=at(NOW + 5_000)), NOW) == NOW + 5_000
    assert first_due_ms(ScheduleRule(every="1h", offset="10m"), NOW) == NOW // (60 * MINUTE) * 60 * MINUTE + 70 * MINUTE
    assert first_due_ms(ScheduleRule(pattern="@daily", immediately=True), NOW) == NOW
    ending = ScheduleRule(every="1m", end=at(NOW + 150_000))
    assert list(upcoming_ms(ending, first_due_ms(ending, NOW))) == [NOW + MINUTE, NOW + 2 * MINUTE]
    daily = ScheduleRule(pattern="0 0 * * *", tz="UTC")
    assert [at(ms).isoformat() for ms in islice(upcoming_ms(daily, first_due_ms(daily, NOW)), 2)] == [
        "2023-11-15T00:00:00+00:00",
        "2023-11-16T00:00:00+00:00",
    ]


async def test_an_unknown_role_is_refused_with_those_that_there_are() -> None:
    assert check_roles(None) == {"producer", "worker", "scheduler"}
    with pytest.raises(InvalidOptionError, match="there are producer, worker, scheduler"):
        await WorkerFactory.create(object, roles=[cast("Role", "boss")])
    with pytest.raises(InvalidOptionError, match="at least one"):
        check_roles(())
