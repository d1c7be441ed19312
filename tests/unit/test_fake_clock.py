"""`FakeClock`: time passes only when a test says so."""

from __future__ import annotations

import asyncio
import functools
import threading

import pytest

from toril.errors import InvalidDurationError
from toril.testing import FakeClock, eventually

START = 1_700_000_000_000


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


async def ticks(count: int = 5) -> None:
    """Let tasks that are ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_stands_still_until_it_is_moved(clock: FakeClock) -> None:
    await ticks()
    assert clock.now_ms() == START
    clock.advance("1h30m")
    assert clock.now_ms() == START + 5_400_000


def test_begins_at_the_real_time_unless_told_otherwise() -> None:
    assert FakeClock().now_ms() > START


async def test_calls_back_in_order_of_time_each_at_its_own(clock: FakeClock) -> None:
    seen: list[tuple[str, int]] = []

    def note(name: str) -> None:
        seen.append((name, clock.now_ms() - START))

    for name, delay in (("late", 3_000), ("early", 1_000), ("same", 1_000), ("never", 9_000)):
        clock.call_later(delay, functools.partial(note, name))
    clock.advance("5s")
    assert seen == [("early", 1_000), ("same", 1_000), ("late", 3_000)]


async def test_what_a_callback_schedules_within_the_jump_is_called_in_it_too(clock: FakeClock) -> None:
    seen: list[int] = []

    def again() -> None:
        seen.append(clock.now_ms() - START)
        clock.call_later(1_000, again)

    clock.call_later(1_000, again)
    clock.advance("3500ms")
    assert seen == [1_000, 2_000, 3_000]
    assert clock.now_ms() == START + 3_500


async def test_a_cancelled_callback_is_not_called(clock: FakeClock) -> None:
    seen: list[str] = []
    timer = clock.call_later(1_000, lambda: seen.append("called"))
    timer.cancel()
    timer.cancel()
    clock.advance("2s")
    assert seen == []


async def test_a_callback_without_delay_is_called_by_the_loop_without_a_move(clock: FakeClock) -> None:
    seen: list[str] = []
    clock.call_later(0, lambda: seen.append("now"))
    clock.call_later(-5, lambda: seen.append("overdue"))
    assert seen == []
    await ticks()
    assert seen == ["now", "overdue"]


async def test_an_error_of_a_callback_comes_out_of_the_jump_and_loses_no_other(clock: FakeClock) -> None:
    seen: list[str] = []

    def fail() -> None:
        raise LookupError("mine")

    clock.call_later(1_000, fail)
    clock.call_later(1_000, lambda: seen.append("second"))
    with pytest.raises(LookupError, match="mine"):
        clock.advance("2s")
    assert clock.now_ms() == START + 1_000
    clock.advance("1s")
    assert seen == ["second"]


async def test_sleepers_wake_when_their_time_has_come(clock: FakeClock) -> None:
    async with asyncio.TaskGroup() as group:
        sleeper = group.create_task(clock.sleep(1_000))
        await ticks()
        clock.advance("999ms")
        await ticks()
        assert not sleeper.done()
        clock.advance("1ms")
    assert sleeper.done()


async def test_a_cancelled_sleeper_leaves_nothing_behind(clock: FakeClock) -> None:
    sleeper = asyncio.create_task(clock.sleep(1_000))
    await ticks()
    sleeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeper
    clock.advance("1h")


async def test_a_timeout_ends_its_block_when_the_clock_passes_it(clock: FakeClock) -> None:
    async def block() -> bool:
        timeout = clock.timeout(1_000)
        with pytest.raises(TimeoutError):
            async with timeout:
                await asyncio.Event().wait()
        return timeout.expired()

    task = asyncio.create_task(block())
    await ticks()
    clock.advance("1s")
    assert await task is True


async def test_a_timeout_that_was_not_needed_is_forgotten(clock: FakeClock) -> None:
    async with clock.timeout(1_000) as timeout:
        pass
    clock.advance("1h")
    assert not timeout.expired()


async def test_a_timeout_without_time_ends_its_block(clock: FakeClock) -> None:
    with pytest.raises(TimeoutError):
        async with clock.timeout(0):
            await asyncio.Event().wait()


async def test_a_timeout_lets_errors_and_other_timeouts_through(clock: FakeClock) -> None:
    timeout = clock.timeout(1_000)
    with pytest.raises(TimeoutError, match="somebody else's"):
        async with timeout:
            raise TimeoutError("somebody else's")
    assert not timeout.expired()


async def test_the_inner_of_two_timeouts_ends_first_even_in_one_jump(clock: FakeClock) -> None:
    async def block() -> list[str]:
        ended: list[str] = []
        async with clock.timeout(60_000):
            try:
                async with clock.timeout(1_000):
                    await asyncio.Event().wait()
            except TimeoutError:
                ended.append("inner")
            return ended

    task = asyncio.create_task(block())
    await ticks()
    clock.advance("2s")
    assert await task == ["inner"]


async def test_a_thread_waits_for_the_clock_and_not_for_real_time(clock: FakeClock) -> None:
    never, begun = threading.Event(), threading.Event()

    def wait() -> bool:
        begun.set()
        return clock.wait(never, 60_000)

    waiting = asyncio.create_task(asyncio.to_thread(wait))
    await eventually(lambda: _is_set(begun))
    clock.advance("1m")
    assert await waiting is False


async def test_a_thread_that_waits_hears_its_event_without_a_move(clock: FakeClock) -> None:
    event = threading.Event()
    waiting = asyncio.create_task(asyncio.to_thread(clock.wait, event, 60_000))
    event.set()
    assert await waiting is True


def test_an_event_that_is_set_already_needs_no_time(clock: FakeClock) -> None:
    event = threading.Event()
    assert clock.wait(event, 0) is False
    event.set()
    assert clock.wait(event, 0) is True


@pytest.mark.parametrize("wrong", ["-1s", 5, "soon"])
def test_time_is_moved_by_durations_and_forward_only(clock: FakeClock, wrong: object) -> None:
    with pytest.raises(InvalidDurationError):
        clock.advance(wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # on purpose
    assert clock.now_ms() == START


def _is_set(event: threading.Event) -> None:
    assert event.is_set()
