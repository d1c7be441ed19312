"""Durations as users write them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toril.durations import optional_ms, to_ms
from toril.errors import (
    DelayedError,
    InvalidDurationError,
    JobExpiredError,
    JobFailedError,
    JobTimeoutError,
    RateLimitError,
    ResultTimeoutError,
)
from toril.units import format_ms


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("250ms", 250),
        ("5s", 5_000),
        ("1.5s", 1_500),
        ("1h30m", 5_400_000),
        ("1h 30m", 5_400_000),
        (" 2 D ", 172_800_000),
        ("1w", 604_800_000),
        ("0s", 0),
        (timedelta(seconds=2, microseconds=1_999), 2_001),
        (timedelta(0), 0),
    ],
)
def test_a_duration_is_read_as_milliseconds(written: str | timedelta, ms: int) -> None:
    assert to_ms(written, "delay") == ms


@pytest.mark.parametrize("written", [5, 5.0, True, "5", "1.5", "", "  ", "soon", "5 parsecs", "5s!", "5s and 3m", "s", None, "٣s"])
def test_what_has_no_unit_or_no_sense_is_refused(written: Any) -> None:  # noqa: ANN401 -- wrong on purpose
    with pytest.raises(InvalidDurationError) as caught:
        to_ms(written, "delay")
    assert (caught.value.option, caught.value.value) == ("delay", written)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("written", ["-1s", " -5m", timedelta(milliseconds=-1)])
def test_a_duration_is_never_negative(written: str | timedelta) -> None:
    with pytest.raises(InvalidDurationError, match="can't be negative"):
        to_ms(written, "delay")


@pytest.mark.parametrize("written", [5, "5"])
def test_a_bare_number_is_told_both_spellings(written: Any) -> None:  # noqa: ANN401 -- wrong on purpose
    with pytest.raises(InvalidDurationError, match=r'"5s" or "5ms"'):
        to_ms(written, "delay")


@given(st.integers(0, 10**12))
def test_what_is_formatted_reads_back(ms: int) -> None:
    assert to_ms(format_ms(ms), "x") == ms


def test_none_stays_none() -> None:
    assert optional_ms(None, "x") is None
    assert optional_ms("1s", "x") == 1_000


def test_a_number_with_hundreds_of_digits_is_no_duration() -> None:
    with pytest.raises(InvalidDurationError, match="too long to be counted"):
        to_ms("9" * 400 + "d", "delay")


def test_what_is_neither_number_nor_text_is_told_what_to_write() -> None:
    nothing: Any = None
    with pytest.raises(InvalidDurationError) as caught:
        to_ms(nothing, "timeout")
    assert str(caught.value) == 'timeout=None: not a duration: write for example "250ms", "5s" or "1h30m"'


def test_errors_tell_durations_as_people_write_them() -> None:
    assert str(JobTimeoutError("1", "q", 5_000)).endswith("its timeout of 5s")
    assert "expired 1m30s before" in str(JobExpiredError("1", "q", 90_000))
    assert "within 250ms " in str(ResultTimeoutError("1", "q", 250))
    assert str(DelayedError(timedelta(minutes=1.5))) == "run again in 1m30s"
    assert str(RateLimitError(timedelta(hours=2))) == "rate limit exceeded; again in 2h"


def test_the_failure_of_a_job_names_it_once() -> None:
    failed = JobFailedError("1", "emails", str(JobTimeoutError("1", "emails", 5_000)))
    assert str(failed) == "job 1 of queue 'emails' failed: it ran longer than its timeout of 5s"
    other = JobFailedError("1", "emails", str(JobTimeoutError("11", "emails", 5_000)))
    assert str(other) == "job 1 of queue 'emails' failed: job 11 of queue 'emails' ran longer than its timeout of 5s"


@pytest.mark.parametrize("written", [None, True, {"ms": 5}])
def test_what_is_no_number_either_is_shown_what_to_write(written: Any) -> None:  # noqa: ANN401 -- wrong on purpose
    with pytest.raises(InvalidDurationError, match=r'not a duration: write for example "250ms", "5s" or "1h30m"$'):
        to_ms(written, "delay")
