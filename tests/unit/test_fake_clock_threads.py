"""`FakeClock.settle`: what threads wake up for has happened before time goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from toril.testing import FakeClock, eventually


class Ticker:
    """A thread that works for a moment every 500 ms of the clock, as the one does that renews locks."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.stop = clock, threading.Event()
        self.done = 0
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self.clock.wait(self.stop, 500):
            time.sleep(0.03)  # the work: it takes longer than the clock's look
            self.done += 1


@pytest.fixture
def ticker() -> Iterator[Ticker]:
    ticker = Ticker(FakeClock())
    ticker.thread.start()
    yield ticker
    ticker.stop.set()
    ticker.thread.join(5)


async def one_thread_waits(clock: FakeClock) -> None:
    def probe() -> None:
        assert clock.waiting_threads == 1

    await eventually(probe)


async def test_a_thread_whose_time_has_come_has_done_its_work(ticker: Ticker) -> None:
    await one_thread_waits(ticker.clock)
    for times in range(1, 4):
        ticker.clock.advance("500ms")
        await ticker.clock.settle()
        assert ticker.done == times


async def test_a_thread_whose_time_has_not_come_is_not_waited_for(ticker: Ticker) -> None:
    await one_thread_waits(ticker.clock)
    ticker.clock.advance("499ms")
    await ticker.clock.settle()
    assert ticker.done == 0


async def test_a_thread_that_has_ended_is_not_waited_for(ticker: Ticker) -> None:
    await one_thread_waits(ticker.clock)
    ticker.stop.set()
    ticker.thread.join(5)
    ticker.clock.advance("1s")
    before = time.monotonic()
    await ticker.clock.settle()
    assert time.monotonic() - before < 1


async def test_a_thread_that_never_waits_again_is_waited_for_once_and_not_for_long() -> None:
    clock, released = FakeClock(), threading.Event()
    thread = threading.Thread(target=lambda: (clock.wait(threading.Event(), 100), released.wait()), daemon=True)
    thread.start()
    await one_thread_waits(clock)
    clock.advance("1s")
    before = time.monotonic()
    await clock.settle()
    assert time.monotonic() - before < 20
    before = time.monotonic()
    await clock.settle()
    assert time.monotonic() - before < 1
    released.set()
    thread.join(5)
