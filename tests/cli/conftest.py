"""The command line as a process, on queues of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.cli.command import Cli
from toril import Queue
from toril.wire.connection import Server


@pytest.fixture
def cli(toril_server_url: str, prefix: str, tmp_path: Path) -> Cli:
    """`toril`, with the test's server and prefix in its environment."""
    return Cli(tmp_path, {"REDIS_URL": toril_server_url, "TORIL_PREFIX": prefix})


@pytest.fixture
async def emails(server: Server, prefix: str) -> AsyncIterator[Queue]:
    async with Queue("emails", prefix=prefix, server=server) as queue:
        yield queue


@pytest.fixture
def queue_of(server: Server, prefix: str) -> Callable[[str], Queue]:
    """A further queue by its name."""
    return lambda name: Queue(name, prefix=prefix, server=server)
