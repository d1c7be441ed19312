"""Bringing work to its end, or ending it early, without losing a cancellation or an error."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import pytest

from toril.cancellation import run_beside, run_to_end, run_unless


class Work:
    """Waits until it may end, and cleans up slowly when it is cancelled."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.cleaned_up = False

    async def run(self) -> str:
        self.begun.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            for _ in range(3):
                await asyncio.sleep(0)
            self.cleaned_up = True
            raise
        return "done"


async def test_run_to_end_finishes_the_work_before_it_lets_the_cancellation_out() -> None:
    work = Work()
    running = asyncio.create_task(run_to_end(work.run()))
    await work.begun.wait()
    for _ in range(2):
        running.cancel()
        await asyncio.sleep(0)
    assert not running.done()
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not work.cleaned_up


async def test_run_to_end_returns_what_the_work_returns() -> None:
    work = Work()
    work.may_end.set()
    assert await run_to_end(work.run()) == "done"


async def test_work_that_ends_by_itself_is_left_alone() -> None:
    work = Work()
    work.may_end.set()
    assert await run_unless(asyncio.Event(), work.run()) is True
    assert not work.cleaned_up


async def test_the_event_cancels_the_work_and_its_end_is_waited_for() -> None:
    work, event = Work(), asyncio.Event()
    running = asyncio.create_task(run_unless(event, work.run()))
    await work.begun.wait()
    event.set()
    assert await running is False
    assert work.cleaned_up


async def test_work_does_not_even_begin_when_the_event_is_set_already() -> None:
    work, event = Work(), asyncio.Event()
    event.set()
    assert await run_unless(event, work.run()) is False
    assert not work.begun.is_set()


async def test_an_error_of_the_work_comes_out() -> None:
    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await run_unless(asyncio.Event(), fails())


async def test_a_cancellation_from_outside_reaches_the_work_and_goes_on() -> None:
    work = Work()
    running = asyncio.create_task(run_unless(asyncio.Event(), work.run()))
    await work.begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert work.cleaned_up


async def test_a_cancellation_that_nobody_asked_for_is_an_error() -> None:
    async def confused() -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="confused let a CancelledError out, although nobody cancelled it"):
        await run_unless(asyncio.Event(), confused())


async def test_run_beside_gives_what_the_work_returns_and_ends_the_watch() -> None:
    watch, work = Work(), Work()

    async def watching() -> NoReturn:
        await watch.run()
        raise AssertionError

    running = asyncio.create_task(run_beside(watching(), work.run()))
    await watch.begun.wait()
    work.may_end.set()
    assert await running == "done"
    assert watch.cleaned_up


async def test_run_beside_ends_the_work_with_what_the_watch_raises() -> None:
    work = Work()

    async def watching() -> NoReturn:
        await work.begun.wait()
        raise LookupError("nobody comes")

    with pytest.raises(LookupError, match="nobody comes"):
        await run_beside(watching(), work.run())
    assert work.cleaned_up
