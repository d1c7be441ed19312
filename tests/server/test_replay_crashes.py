"""Replaying and purging, stopped dead at any of their commands: each letter becomes one job or stays, and whoever goes on completes it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Final

import pytest

from tests.invariants import check_invariants
from tests.proxy import Command, Cut, Proxy
from toril import Job, Queue, Worker
from toril.testing import eventually
from toril.wire.connection import Server

LETTERS: Final = 4
GREETINGS: Final = frozenset({b"HELLO", b"CLIENT", b"INFO", b"PING"})


class Fault:
    """Lets commands through up to the n-th, which is cut, as all are that come after it: the process is dead from there on."""

    def __init__(self, number: int, cut: Cut) -> None:
        self.left = number
        self.happened = asyncio.Event()
        self._cut = cut

    def __call__(self, command: Command) -> Cut | None:
        if self.happened.is_set():
            return Cut.BEFORE
        if command[0].upper() in GREETINGS:
            return None
        self.left -= 1
        if self.left == 0:
            self.happened.set()
            return self._cut
        return None


async def add_letters(work: Queue) -> list[int]:
    """Letters of jobs that carry the numbers which come back."""
    numbers = list(range(LETTERS))

    async def fail(job: Job) -> None:
        raise ValueError("no")

    await work.add_many([work.job("n", n) for n in numbers])
    async with Worker(work, fail) as worker:
        await worker.wait_until_idle()
    return numbers


async def died_at(number: int, cut: Cut, url: str, prefix: str, act: Callable[[Queue], Awaitable[object]]) -> bool:
    """Let a process of its own do that, and die at its n-th command; False if it was done before."""
    async with Proxy(url) as proxy, Server(proxy.url, patience_ms=0) as server:
        fault = proxy.decide = Fault(number, cut)
        acting = asyncio.ensure_future(act(Queue("letters", prefix=prefix, server=server)))
        happened = asyncio.create_task(fault.happened.wait())
        await asyncio.wait({acting, happened}, return_when=asyncio.FIRST_COMPLETED)
        acting.cancel()
        happened.cancel()
        await asyncio.wait({acting, happened})
        if not acting.cancelled():
            acting.exception()  # it may have noticed that the server is gone
        return fault.happened.is_set()


@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER], ids=["before_the_server_runs_it", "after_the_server_ran_it"])
async def test_a_replay_that_dies_at_any_command_loses_and_doubles_nothing(
    server: Server, toril_server_url: str, prefix: str, cut: Cut
) -> None:
    points = 0
    for number in count(1):
        own = f"{prefix}-{number}"
        letters = Queue("letters", prefix=own, server=server)
        work = Queue("work", prefix=own, server=server, dead_letter=letters)
        numbers = await add_letters(work)
        died = await died_at(number, cut, toril_server_url, own, lambda queue: queue.dead_letters.replay_all())

        async def each_is_a_letter_or_a_job(work: Queue = work, letters: Queue = letters) -> None:
            assert await work.get_waiting_count() + await letters.count() == LETTERS

        await eventually(each_is_a_letter_or_a_job)  # the last command may still be on its way to the server
        assert await check_invariants(server, own) == []
        await letters.dead_letters.replay_all()
        ran = Counter[int]()

        async def run(job: Job, ran: Counter[int] = ran) -> None:
            ran[job.data] += 1

        async with Worker(work, run) as worker:
            await worker.wait_until_idle()
        assert ran == Counter(numbers)
        assert await letters.count() == 0
        assert await check_invariants(server, own) == []
        if not died:
            break
        points = number
    assert points > 2 * LETTERS  # a look and a script for each letter, at least


@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER], ids=["before_the_server_runs_it", "after_the_server_ran_it"])
async def test_a_purge_that_dies_at_any_command_touches_nothing_but_letters(
    server: Server, toril_server_url: str, prefix: str, cut: Cut
) -> None:
    points = 0
    for number in count(1):
        own = f"{prefix}-{number}"
        letters = Queue("letters", prefix=own, server=server)
        work = Queue("work", prefix=own, server=server, dead_letter=letters)
        await add_letters(work)
        died = await died_at(number, cut, toril_server_url, own, lambda queue: queue.dead_letters.purge_all())
        assert await check_invariants(server, own) == []
        await letters.dead_letters.purge_all()
        assert (await letters.count(), await work.get_failed_count()) == (0, LETTERS)
        assert await check_invariants(server, own) == []
        if not died:
            break
        points = number
    assert points > LETTERS
