"""The command line as a process, on queues of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.command import Cli, ForkedCli
from tests.cli.forked import Forks
from toril import Queue
from toril.wire.connection import Server


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Starts commands quickly."""
    forks = Forks()
    yield forks
    forks.close()


@pytest.fixture
def cli(toril_server_url: str, prefix: str, tmp_path: Path, forks: Forks) -> ForkedCli:
    """`toril`, with the test's server and prefix in its environment."""
    return ForkedCli(tmp_path, {"REDIS_URL": toril_server_url, "TORIL_PREFIX": prefix}, forks)


@pytest.fixture
def installed_cli(cli: ForkedCli) -> Cli:
    """The same, but the very program that is installed, which must import itself each time: slower, and as its users have it."""
    return Cli(cli.folder, cli.environment)


@pytest.fixture
async def emails(server: Server, prefix: str) -> AsyncIterator[Queue]:
    async with Queue("emails", prefix=prefix, server=server) as queue:
        yield queue


@pytest.fixture
def queue_of(server: Server, prefix: str) -> Callable[[str], Queue]:
    """A further queue by its name."""
    return lambda name: Queue(name, prefix=prefix, server=server)
