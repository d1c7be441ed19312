"""Runs all checks."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Final

from toril.clock import Clock
from toril.doctor import jobs, key_space, schedules, server, standstill, workers
from toril.doctor.clocks import check_clocks_of_work
from toril.doctor.findings import Check, Finding
from toril.doctor.workforce import read_workforce
from toril.errors import CommandFailedError, DamagedKeyError, ServerRefusedError
from toril.queues.queue import Queue
from toril.wire.connection import Server
from toril.wire.keys import QueueKeys

MOST_KEYS: Final = 1_000_000
"""Of a database with more, the keys are not gone through unless somebody asks for it: 1,000 round trips."""


_OF_SERVER: Final = (
    server.check_version, server.check_persistence, server.check_eviction, server.check_memory, server.check_clock, server.check_latency,
)  # fmt: skip


async def examine(
    at: Server, prefix: str, queues: Sequence[Queue[Any, Any]], clock: Clock, *, are_all: bool, all_keys: bool = False
) -> AsyncGenerator[Finding]:
    """All that the checks find, one after the other; first about the server, then about each queue.

    Args:
        at: the server; it answers.
        prefix: that of queues that don't say another one.
        queues: those to look at.
        clock: the one here.
        are_all: these are all queues that there are.
        all_keys: go through all keys, however many there are.

    Raises:
        ServerError: the server has stopped answering. What a queue's damaged key says is a finding.
    """
    connection = at.commands_of(QueueKeys(prefix, "any"))
    facts = await server.read_facts(connection, clock)
    for check in _OF_SERVER:
        for finding in check(facts):
            yield finding
    for finding in await server.check_permissions(at, QueueKeys(prefix, "any")):
        yield finding
    # The prefix counts also without queues: what is left of them may have lost its settings.
    by_prefix = defaultdict[str, list[Queue[Any, Any]]](list, {prefix: []} if are_all else {})
    for queue in queues:
        by_prefix[queue.prefix].append(queue)
    looks = all_keys or _keys_in(facts) <= MOST_KEYS
    for each_prefix, same in by_prefix.items():
        owners = await key_space.schedule_owners(at, each_prefix) if looks else dict[str, Sequence[str]]()
        for queue in same:
            async for finding in _examine_queue(queue, owners.get(queue.name, ())):
                yield finding
        if looks:
            for finding in await _guarded(functools.partial(key_space.check_keys, at, each_prefix, same, are_all=are_all), None):
                yield finding
    if not looks:
        text = f"the server holds {_keys_in(facts):,} keys, which were not gone through for keys without owners and vanished schedules"
        for finding in Check("keys").info(text, "toril doctor --all-keys does it; that takes some seconds a million"):
            yield finding


async def _examine_queue(queue: Queue[Any, Any], owners: Sequence[str]) -> AsyncGenerator[Finding]:
    try:
        workforce = await read_workforce(queue)
        waiting = await standstill.read_waiting(queue)
    except (DamagedKeyError, CommandFailedError, ServerRefusedError) as error:
        for finding in _damage(queue.name, error):
            yield finding
        return
    checks: tuple[Callable[[], Awaitable[list[Finding]]], ...] = (
        lambda: standstill.check_pause(queue, waiting),
        lambda: standstill.check_rate_limit(queue, waiting),
        lambda: standstill.check_concurrency(queue, waiting),
        lambda: workers.check_workers(queue, waiting, workforce),
        lambda: workers.check_handlers(queue, workforce),
        lambda: workers.check_blocked(queue, workforce),
        lambda: workers.check_claiming(queue, waiting, workforce),
        lambda: jobs.check_running(queue, workforce),
        lambda: jobs.check_locks(queue, workforce),
        lambda: jobs.check_poison(queue),
        lambda: jobs.check_dead_letters(queue),
        lambda: schedules.check_schedules(queue, owners),
        lambda: check_clocks_of_work(queue, workforce),
    )
    for check in checks:
        for finding in await _guarded(check, queue.name):
            yield finding


async def _guarded(check: Callable[[], Awaitable[list[Finding]]], queue: str | None) -> list[Finding]:
    """A key that somebody has damaged keeps one check from its work, and no other."""
    try:
        return await check()
    except (DamagedKeyError, CommandFailedError, ServerRefusedError) as error:
        return _damage(queue, error)


def _damage(queue: str | None, error: Exception) -> list[Finding]:
    return Check("damage", queue).error(str(error), None)


def _keys_in(facts: server.ServerFacts) -> int:
    """Over all databases: what the server counts is by database, and which one we use it doesn't tell."""
    spaces = [value for name, value in facts.info.items() if name.startswith("db") and value.startswith("keys=")]
    return sum(int(space.removeprefix("keys=").partition(",")[0]) for space in spaces)
