"""The pytest plugin: one real server a session, a prefix of its own for every test.

    toril_server_url   session   where the server is: `TORIL_TEST_REDIS_URL` if set, else an embedded one, shared by all
                                 pytest-xdist workers and stopped with the last of them
    toril_prefix       test      a fresh prefix; every key under it is deleted after the test
    toril_leak_check   test      the test fails if it leaves an asyncio task or one of the library's threads behind

A testing module finds both by itself, and starts the server only when it is needed. The fixtures are synchronous, so they work
with pytest-asyncio, with anyio, and without either.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import secrets
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from toril.embedded import ensure_server
from toril.errors import InvalidRedisUrlError, ServerError
from toril.testing.environment import TestEnvironment, set_environment
from toril.testing.errors import LeakError, TestServerError
from toril.testing.leaks import leaked_tasks, threads_end
from toril.wire.connection import Server
from toril.wire.key_pages import remove_keys


@pytest.fixture(scope="session")
def toril_server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the session's server."""
    given = os.environ.get("TORIL_TEST_REDIS_URL")
    if given:
        with ThreadPoolExecutor(1) as pool:  # this thread may run an event loop: a testing module asks when it is compiled
            pool.submit(asyncio.run, _check(given)).result()
        yield given
        return
    with ensure_server(_shared_folder(tmp_path_factory)) as server:
        yield server.url


@pytest.fixture(autouse=True)
def _toril_environment(request: pytest.FixtureRequest) -> Iterator[None]:
    """Lets `Test.create_testing_module` find this test's server and prefix."""

    def find() -> TestEnvironment:
        return TestEnvironment(request.getfixturevalue("toril_server_url"), request.getfixturevalue("toril_prefix"))

    set_environment(find)
    yield
    set_environment(None)


@pytest.fixture
def toril_prefix(toril_server_url: str) -> Iterator[str]:
    """A prefix that no other test has, now or ever."""
    prefix = f"test-{secrets.token_hex(6)}"
    yield prefix
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:  # which leaves the current loop of the test's alone
        runner.run(_remove_keys(toril_server_url, prefix))


@pytest.fixture
def toril_leak_check(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test if asyncio tasks that it has started, or threads of the library, go on after it.

    What a testing module itself leaves behind is told by its `close`, without this fixture.
    """
    node = request.node
    if isinstance(node, pytest.Function) and inspect.iscoroutinefunction(node.obj):
        node.obj = _ending_without_tasks(node.obj)
    with threads_end() as threads:
        yield
    if threads:
        raise LeakError(threads)


def _ending_without_tasks(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Coroutine[Any, Any, None]]:
    @functools.wraps(test)
    async def checked(*args: Any, **fixtures: Any) -> None:  # noqa: ANN401 -- whatever the test takes
        before = asyncio.all_tasks()
        await test(*args, **fixtures)
        if tasks := await leaked_tasks(before):
            raise LeakError(tasks)

    return checked


async def _check(url: str) -> None:
    """Refuse a server of no use. The causes are not shown: they speak of another variable, and their reasons are in the text."""
    try:
        async with Server(url) as server:
            await server.commands.call("PING")
    except InvalidRedisUrlError as error:
        raise TestServerError(error.safe_url, error.reason) from None
    except ServerError as error:
        raise TestServerError(error.address, error.reason) from None


async def _remove_keys(url: str, prefix: str) -> None:
    async with Server(url) as server:
        for pattern in (f"{prefix}[-:]*", f"toril:{prefix}[-:]*"):
            await remove_keys(server.commands, pattern)


def _shared_folder(factory: pytest.TempPathFactory) -> Path:
    """One folder for all workers of a pytest-xdist run: they share its server."""
    base = factory.getbasetemp()
    return (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "valkey"
