"""Where tests find their server and their prefix: the pytest plugin tells for each test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from toril.errors import TorilError


class NoTestEnvironmentError(TorilError):
    """A testing module was compiled outside of a test, or where the pytest plugin is switched off."""

    def __str__(self) -> str:
        return (
            "no server for this testing module: compile it in a test, or in a fixture of a test, under pytest (its plugin `toril` is on "
            "by default). Elsewhere, also in a fixture of a wider scope, name one with .use_server(url, prefix); the fixture "
            "`toril_server_url` gives a url."
        )


@dataclass(frozen=True, slots=True)
class TestEnvironment:
    """One test's server and prefix."""

    __test__ = False  # not a test class

    url: str
    prefix: str


_find: Callable[[], TestEnvironment] | None = None


def set_environment(find: Callable[[], TestEnvironment] | None) -> None:
    """Say where this test's environment is found. It is asked only when it is needed: a test without queues starts no server."""
    global _find  # noqa: PLW0603 -- a process runs one test at a time
    _find = find


def current_environment() -> TestEnvironment:
    """This test's server and prefix. Raises NoTestEnvironmentError."""
    if _find is None:
        raise NoTestEnvironmentError
    return _find()
