"""Fixtures that the project's own tests share."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest
import structlog
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings

from tests import quick_debugging
from tests.compared import Counting
from tests.compared import compared as compared  # a fixture
from tests.support import ask
from toril.telemetry.logs import mark_logs
from toril.wire.connection import Server
from toril.wire.scripts import load

quick_debugging.hurry()

# Machines are shared: how long an example takes says nothing. What failed is printed so that it can be tried again.
settings.register_profile("toril", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("toril")

SCRIPTS: Final = sorted(path.stem for path in (Path(__file__).parents[1] / "framework/toril/wire/lua").glob("*.lua"))

ALLOWED: Final = (
    ("linecache.py", "checkcache"),  # asyncio's debug mode looks at files for each traceback
    ("toril/queues/cron.py", "_zone"),  # reads a zone's small file, once
    ("toril/di/places.py", "_place_of_class"),  # finds a line for a message, at start or in a test
    ("toril/di/places.py", "__str__"),
    ("toril/testing/plugin.py", "toril_server_url"),  # the first test that needs a server starts it
    ("toril/testing/plugin.py", "toril_prefix"),
    ("tests/conftest.py", "toril_server_url"),
    ("toril/embedded/binary.py", "find_binary"),  # tests that run a server of their own
)


@pytest.hookimpl(optionalhook=True)  # where pytest-xdist is switched off, nobody asks
def pytest_xdist_auto_num_workers() -> int:
    """One and a half for each processor (`-n auto`): many tests wait for other processes, and leave theirs to others meanwhile."""
    processors = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return processors + (processors + 1) // 2


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Counting())


@pytest.fixture(autouse=True)
def _blocking_calls_fail(request: pytest.FixtureRequest) -> Iterator[None]:
    """A call of ours that blocks the event loop fails the test, unless it is marked `blocks_the_loop`."""
    quick_debugging.looked_at.clear()
    if request.node.get_closest_marker("blocks_the_loop") is not None:
        yield
        return
    with blockbuster_ctx(["toril", "app"]) as buster:
        for function in buster.functions.values():
            for file, name in ALLOWED:
                function.can_block_in(file, name)
        yield


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """How a test lets logs be written ends with it."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    mark_logs(None)
    root.setLevel(level)
    for handler in root.handlers:
        if handler not in handlers and handler.name == "toril":
            handler.close()
    root.handlers[:] = handlers
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def toril_server_url(toril_server_url: str) -> str:
    """The plugin's server, which knows all scripts: a test that cuts the reply of one must not cut the answer that it is unknown."""
    _load_all_scripts(toril_server_url)
    return toril_server_url


@pytest.fixture
def all_scripts_again(toril_server_url: str) -> Iterator[None]:
    """For a test that lets the server forget its scripts: those that come after it count on them."""
    yield
    _load_all_scripts(toril_server_url)


def _load_all_scripts(url: str) -> None:
    for name in SCRIPTS:
        ask(url, "SCRIPT", "LOAD", load(name).text)


@pytest.fixture
def prefix(toril_prefix: str) -> str:
    return toril_prefix


@pytest.fixture
async def server(toril_server_url: str) -> AsyncIterator[Server]:
    async with Server(toril_server_url) as server:
        yield server
