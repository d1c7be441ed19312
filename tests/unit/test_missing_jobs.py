"""Jobs that are gone are told at once, and then once a minute."""

from __future__ import annotations

import pytest

from toril.testing import FakeClock
from toril.worker.missing import MissingJobs


async def test_the_first_are_told_at_once_and_those_of_the_next_minute_together(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    missing = MissingJobs("q", clock)
    missing.dropped(0, [])
    assert not caplog.records
    missing.dropped(2, ["a", "b"])
    assert "count=2 job_ids=\"['a', 'b']\"" in caplog.text
    caplog.clear()
    for number in range(30):
        missing.dropped(2, [f"c{number}", f"d{number}"])
    assert not caplog.records
    clock.advance("1m")
    [record] = caplog.records
    assert "count=60" in record.getMessage()
    assert "'d4']" in record.getMessage()  # ten of them are named
    caplog.clear()
    missing.dropped(1, ["e"])
    missing.close()
    missing.close()
    [record] = caplog.records
    assert "count=1 job_ids=['e']" in record.getMessage()
    clock.advance("5m")
    assert len(caplog.records) == 1


async def test_after_a_minute_without_any_the_next_one_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    missing = MissingJobs("q", clock)
    missing.dropped(1, ["a"])
    clock.advance("1m")
    missing.dropped(1, ["b"])
    assert len(caplog.records) == 2
    missing.close()
