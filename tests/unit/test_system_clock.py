"""Timeouts of the real clock: the rules of `asyncio.timeout`, with one timer for all that are equally long."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
from collections.abc import Callable

import pytest

from toril.clock import Clock, SystemClock

SHORT_MS = 20.0
LONG_MS = 60_000.0


class Timers(asyncio.SelectorEventLoop):
    """Counts the timers that are set."""

    count = 0

    def call_at(
        self, when: float, callback: Callable[..., object], *args: object, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        self.count += 1
        return super().call_at(when, callback, *args, context=context)


@pytest.fixture
def clock() -> Clock:
    return SystemClock()


async def test_a_block_whose_time_is_over_is_cancelled_and_raises(clock: Clock) -> None:
    began = asyncio.get_running_loop().time()
    limit = clock.timeout(SHORT_MS)
    with pytest.raises(TimeoutError) as raised:
        async with limit:
            await asyncio.Event().wait()
    assert limit.expired()
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)
    assert asyncio.get_running_loop().time() - began >= SHORT_MS / 1_000


async def test_a_block_within_its_time_ends_as_it_would_without(clock: Clock) -> None:
    limit = clock.timeout(LONG_MS)
    async with limit:
        pass
    assert not limit.expired()
    with pytest.raises(ValueError, match="its own"):
        async with clock.timeout(LONG_MS):
            raise ValueError("its own")
    own = clock.timeout(LONG_MS)
    with pytest.raises(TimeoutError):
        async with own:
            raise TimeoutError
    assert not own.expired()


@pytest.mark.parametrize("inner_is_shorter", [True, False])
async def test_of_blocks_in_each_other_the_one_whose_time_is_over_raises(clock: Clock, inner_is_shorter: bool) -> None:
    outer = clock.timeout(LONG_MS if inner_is_shorter else SHORT_MS)
    inner = clock.timeout(SHORT_MS if inner_is_shorter else LONG_MS)
    with pytest.raises(TimeoutError):
        async with outer, inner:
            await asyncio.Event().wait()
    assert (outer.expired(), inner.expired()) == (not inner_is_shorter, inner_is_shorter)


async def test_who_is_cancelled_by_somebody_else_stays_cancelled(clock: Clock) -> None:
    entered = asyncio.Event()
    limit = clock.timeout(LONG_MS)

    async def bounded() -> None:
        async with limit:
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(bounded())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not limit.expired()


async def test_a_cancellation_from_outside_wins_over_one_by_the_time(clock: Clock) -> None:
    limit = clock.timeout(SHORT_MS)

    async def bounded() -> None:
        async with limit:
            try:
                await asyncio.Event().wait()
            finally:
                task.cancel()

    task = asyncio.create_task(bounded())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert limit.expired()


async def test_a_swallowed_cancellation_is_no_error_but_is_told(clock: Clock) -> None:
    limit = clock.timeout(SHORT_MS)
    async with limit:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    assert limit.expired()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_blocks_that_are_entered_one_after_the_other_are_cancelled_in_that_order(clock: Clock) -> None:
    ended: list[int] = []

    async def bounded(number: int) -> None:
        with pytest.raises(TimeoutError):
            async with clock.timeout(SHORT_MS):
                await asyncio.Event().wait()
        ended.append(number)

    await asyncio.gather(*(bounded(number) for number in range(50)))
    assert ended == list(range(50))


def test_equally_long_blocks_share_one_timer() -> None:
    async def enter_many() -> int:
        clock = SystemClock()
        before = loop.count
        for _ in range(100):
            async with clock.timeout(LONG_MS):
                pass
        return loop.count - before

    loop = Timers()
    try:
        assert loop.run_until_complete(enter_many()) == 1
    finally:
        loop.close()


def test_a_clock_that_outlives_its_loop_serves_the_next_one() -> None:
    clock = SystemClock()

    async def overrun() -> None:
        with pytest.raises(TimeoutError):
            async with clock.timeout(SHORT_MS):
                await asyncio.Event().wait()

    asyncio.run(overrun())
    asyncio.run(overrun())


async def test_what_has_ended_is_forgotten_before_its_time_is_over(clock: Clock) -> None:
    limit = clock.timeout(LONG_MS)
    async with limit:
        pass
    gc.collect()
    holders: list[object] = gc.get_referrers(limit)
    assert not any(isinstance(one, dict) for one in holders)


async def test_a_timeout_outside_of_a_task_is_refused(clock: Clock) -> None:
    told: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def step() -> None:
        try:
            clock.timeout(LONG_MS).__aenter__().send(None)
        except BaseException as error:  # noqa: BLE001 -- it is what the test looks at
            told.set_result(error)

    asyncio.get_running_loop().call_soon(step)
    assert "outside" in str(await told)
