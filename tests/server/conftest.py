"""What most tests on a server work with: one queue, seen through the public interface (`queue`) and through the wire layer (`bench`)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.bench import T0, Bench
from tests.proxy import Proxy
from toril import Queue
from toril.testing import FakeClock
from toril.wire.connection import Server


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(T0)


@pytest.fixture
def bench(server: Server, prefix: str) -> Bench:
    return Bench(server, prefix)


@pytest.fixture
async def queue(server: Server, prefix: str, clock: FakeClock) -> AsyncIterator[Queue]:
    """The same queue as `bench`."""
    async with Queue("q", prefix=prefix, server=server, clock=clock) as queue:
        yield queue


@pytest.fixture
def letters(server: Server, prefix: str, clock: FakeClock) -> Queue:
    """For a queue with `dead_letter=letters`."""
    return Queue("dead-letter", prefix=prefix, server=server, clock=clock)


@pytest.fixture
async def proxy(toril_server_url: str) -> AsyncIterator[Proxy]:
    """Between the test and the server."""
    async with Proxy(toril_server_url) as proxy:
        yield proxy
