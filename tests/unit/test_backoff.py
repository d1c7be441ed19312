"""How long a failed job waits (wire §8)."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toril.errors import InvalidDurationError, InvalidOptionError, UnknownBackoffError
from toril.queues.backoff import LONGEST_WAIT_MS, BackoffStrategy, exponential_ms, fixed_ms, next_delay_ms
from toril.queues.job import Job
from toril.queues.option_parts import Backoff, custom, exponential, fixed
from toril.queues.queue import Queue
from toril.wire.codec import JobRecord

ERROR = ValueError("boom")


@pytest.fixture
def job() -> Job:
    return Job(Queue("q"), JobRecord("1", "n", b"{}", b"{}"))


def delay(job: Job, backoff: Backoff | None, failures: int = 1, chance: float = 0.0, **strategies: BackoffStrategy) -> int | None:
    return next_delay_ms(backoff, failures, ERROR, job, strategies=strategies, random=lambda: chance)


def test_without_backoff_a_job_runs_again_at_once(job: Job) -> None:
    assert delay(job, None, 3) == 0


def test_fixed_waits_the_same_each_time(job: Job) -> None:
    assert [delay(job, fixed("5s"), n) for n in (1, 2, 9)] == [5_000, 5_000, 5_000]


def test_exponential_doubles_up_to_its_cap(job: Job) -> None:
    waits = [delay(job, exponential("1s", jitter=0, cap="10s"), n) for n in (1, 2, 3, 4, 5, 6)]
    assert waits == [1_000, 2_000, 4_000, 8_000, 10_000, 10_000]


@pytest.mark.parametrize(("chance", "wait"), [(0.0, 500), (0.5, 750), (0.999, 999)])
def test_jitter_only_shortens(job: Job, chance: float, wait: int) -> None:
    assert delay(job, fixed("1s", jitter=0.5), 1, chance) == wait
    assert delay(job, exponential("1s", jitter=0.5), 2, chance) == math.floor(chance * 1_000 + 1_000)


def test_jitter_is_taken_off_the_capped_wait(job: Job) -> None:
    assert delay(job, exponential("1s", jitter=1, cap="4s"), 20, 0.25) == 1_000


def test_no_chance_is_asked_for_without_jitter(job: Job) -> None:
    def no_chance() -> float:
        raise AssertionError

    assert next_delay_ms(fixed("1s"), 1, ERROR, job, strategies={}, random=no_chance) == 1_000


def test_doubling_without_a_cap_stays_in_range(job: Job) -> None:
    assert delay(job, exponential("1s", cap=None, jitter=0), 10_000) == LONGEST_WAIT_MS


def test_a_job_that_never_failed_has_nothing_to_back_off_from() -> None:
    with pytest.raises(ValueError, match="never failed"):
        exponential_ms(0, 1, 0, None, 0)


@given(
    failures=st.integers(1, 40),
    base=st.integers(0, 10_000_000),
    jitter=st.floats(0, 1),
    chance=st.floats(0, 1, exclude_max=True),
    cap=st.none() | st.integers(0, 100_000_000),
)
def test_a_wait_lies_between_its_bounds(failures: int, base: int, jitter: float, chance: float, cap: int | None) -> None:
    full = min(base * 2 ** (failures - 1), LONGEST_WAIT_MS if cap is None else cap)
    wait = exponential_ms(failures, base, jitter, cap, chance)
    assert math.floor(full * (1 - jitter)) - 1 <= wait <= full
    assert math.floor(base * (1 - jitter)) - 1 <= fixed_ms(base, jitter, chance) <= base


@pytest.mark.parametrize(("answer", "wait"), [(0, 0), (1_500, 1_500), ("2s", 2_000), (None, None), (-1, None), ("900d", LONGEST_WAIT_MS)])
def test_a_strategy_of_the_workers_own_decides(job: Job, answer: Any, wait: int | None) -> None:  # noqa: ANN401 -- of several types
    asked: list[tuple[int, BaseException, Job]] = []

    def mine(failures: int, error: BaseException, failed: Job) -> Any:  # noqa: ANN401 -- of several types
        asked.append((failures, error, failed))
        return answer

    assert delay(job, custom("mine"), 2, mine=mine) == wait
    assert asked == [(2, ERROR, job)]


@pytest.mark.parametrize("answer", [-5, True])
def test_a_strategy_that_returns_no_wait_is_told_so(job: Job, answer: int) -> None:
    with pytest.raises(InvalidOptionError, match="backoff strategy 'mine'"):
        delay(job, custom("mine"), mine=lambda failures, error, job: answer)


def test_a_strategy_that_returns_nonsense_is_told_so(job: Job) -> None:
    with pytest.raises(InvalidDurationError, match="backoff strategy 'mine'"):
        delay(job, custom("mine"), mine=lambda failures, error, job: "soon")


def test_an_unknown_strategy_is_named_with_those_that_are_known(job: Job) -> None:
    with pytest.raises(UnknownBackoffError) as caught:
        delay(job, custom("theirs"), mine=lambda failures, error, job: 1)
    assert (caught.value.strategy, caught.value.known) == ("theirs", ("mine",))
    assert "'fixed', 'exponential', 'mine'" in str(caught.value)
    assert "@processor(…, backoff_strategies={…})" in str(caught.value)
