"""What tests that start processes of their own have in common."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

T = TypeVar("T")


def seeded_random() -> random.Random:
    """A source whose seed is printed where the test fails, and given again by the variable `TORIL_SEED`."""
    seed = int(os.environ.get("TORIL_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
    print(f"TORIL_SEED={seed} repeats this run")  # noqa: T201
    return random.Random(seed)


def eventually_now(probe: Callable[[], T], *, within_s: float = 20) -> T:
    """Run `probe` again and again until its assertions hold, and return what it returns. For what no event announces.

    For tests without an event loop; in a coroutine there is `toril.testing.eventually`.

    Raises:
        AssertionError: the probe's last one, if they didn't hold in time.
    """
    ends_at = time.monotonic() + within_s
    while True:
        try:
            return probe()
        except AssertionError:
            if time.monotonic() > ends_at:
                raise
        time.sleep(0.01)  # the things probed are other processes: they can't wake us


def ask(url: str, *command: str | int) -> Any:  # noqa: ANN401  # a reply can be anything
    """One command on a connection of its own, made without retries; redis-py turns the replies it knows into Python's types."""
    connections = redis.ConnectionPool.from_url(url, retry=Retry(NoBackoff(), 0))  # pyright: ignore[reportUnknownMemberType]  # its **kwargs
    with redis.Redis(connection_pool=connections) as client:
        execute = cast("Callable[..., Any]", client.execute_command)
        return execute(*command)
