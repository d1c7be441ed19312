"""What can be wrong with the server itself: whether it keeps what it is given, has room for more, and answers in time."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from toril.clock import Clock
from toril.doctor.findings import Check, Finding, Severity
from toril.doctor.words import span_text
from toril.errors import CommandFailedError, ServerRefusedError
from toril.queues.option_values import moment
from toril.wire.connection import Connection, Server
from toril.wire.keys import QueueKeys
from toril.wire.reads import number_or
from toril.wire.server_checks import denied_commands, evicts, grant_words, server_info

CLOCK_WARNING_MS: Final = 1_000
CLOCK_ERROR_MS: Final = 10_000
SLOW_MS: Final = 20
"""A worker's turn is one round trip, and so is each `add`."""

VERY_SLOW_MS: Final = 200
FULL: Final = 0.75
NEARLY_FULL: Final = 0.9
_PINGS: Final = 7


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server tells of itself, read once for all checks."""

    info: Mapping[str, str]
    snapshots: str | None
    """When it writes snapshots (`save`); empty: never; None: this user may not ask."""
    ahead_ms: int
    """How far its clock is ahead of the one here; at most `round_trip_ms` wrong."""
    round_trip_ms: float
    """Of some round trips, the one in the middle."""

    def number(self, name: str) -> int:
        """A number that it tells; 0 where it doesn't."""
        return number_or(self.info.get(name, "").encode(), 0)


async def read_facts(connection: Connection, clock: Clock) -> ServerFacts:
    """Ask the server; some ten round trips. Raises what `Connection.call` raises."""
    loop = asyncio.get_running_loop()
    trips: list[float] = []
    for _ in range(_PINGS):
        begun = loop.time()
        await connection.call("PING", repeatable=True)
        trips.append((loop.time() - begun) * 1_000)
    before_ms = clock.now_ms()
    info = await server_info(connection)
    here_ms = (before_ms + clock.now_ms()) // 2
    there_ms = number_or(info.get("server_time_usec", "").encode(), here_ms * 1_000) // 1_000
    return ServerFacts(info, await _snapshots(connection), there_ms - here_ms, statistics.median(trips))


async def _snapshots(connection: Connection) -> str | None:
    try:
        reply: list[bytes] = await connection.call("CONFIG", "GET", "save", repeatable=True)
    except (ServerRefusedError, CommandFailedError):  # the documented user needn't have the right, and hosted servers give it to nobody
        return None
    return reply[1].decode() if len(reply) > 1 else None


def check_version(facts: ServerFacts) -> list[Finding]:
    """Which server it is. (One that is too old, or a replica, is refused when the connection is made.)"""
    compatible = facts.info.get("redis_version", "?")
    name = f"Valkey {facts.info['valkey_version']}" if "valkey_version" in facts.info else f"Redis {compatible}"
    return Check("version").ok(name, server=name, redis_version=compatible)


def check_persistence(facts: ServerFacts) -> list[Finding]:
    """Whether a restart of the server keeps the jobs."""
    aof, changes = facts.info.get("aof_enabled") == "1", facts.number("rdb_changes_since_last_save")
    told: dict[str, object] = {"append_only": aof, "snapshots": facts.snapshots, "changes_since_snapshot": changes}
    say, look = Check("persistence"), "look at the server's log and its disk (full? rights?)"
    if aof and facts.info.get("aof_last_write_status") != "ok":
        return say.error("the append-only file can't be written, so the server refuses writes", look, **told)
    if facts.info.get("rdb_last_bgsave_status") == "err":
        return say.error("the last snapshot failed; the server refuses writes unless told otherwise", look, **told)
    if aof:
        return say.ok("append-only file: a crash of the server loses a second of changes at most, unless appendfsync is no", **told)
    turn_on = "CONFIG SET appendonly yes, then CONFIG REWRITE so that it stays"
    if facts.snapshots == "":
        return say.warning("nothing is written to disk: a restart of the server loses all jobs", turn_on, **told)
    saved = moment(facts.number("rdb_last_save_time") * 1_000).isoformat(timespec="seconds")
    unsure = "" if facts.snapshots else " (whether any are made can't be seen: this user may not CONFIG GET)"
    text = (
        f"no append-only file: a crash of the server loses what changed since the last snapshot, {changes:,} changes since {saved}{unsure}"
    )
    return say.warning(text, turn_on, **told)


def check_eviction(facts: ServerFacts) -> list[Finding]:
    """Whether a full server throws jobs away."""
    policy, evicted, limit = facts.info.get("maxmemory_policy", "noeviction"), facts.number("evicted_keys"), facts.number("maxmemory")
    told: dict[str, object] = {"policy": policy, "evicted_keys": evicted, "maxmemory": limit}
    say = Check("eviction")
    fix = "CONFIG SET maxmemory-policy noeviction, then CONFIG REWRITE so that it stays; caches belong on a server of their own"
    if evicted and policy != "noeviction":
        return say.error(f"the server has thrown away {evicted:,} keys since its start ({policy}), jobs or locks among them", fix, **told)
    if evicted:
        text = f"the server has thrown away {evicted:,} keys since its start, jobs or locks among them; it doesn't any more"
        return say.warning(text, "see what `keys` and `locks` say of the queues; what is gone can't be brought back", **told)
    if evicts(facts.info):
        return say.error(f"with {policy} the server throws away jobs or locks once its {_size(limit)} are full", fix, **told)
    if policy != "noeviction":
        return say.warning(f"with {policy} the server would throw away jobs or locks if it had a limit (maxmemory)", fix, **told)
    return say.ok("noeviction: a full server refuses new jobs, and loses none", **told)


def check_memory(facts: ServerFacts) -> list[Finding]:
    """How much room there is."""
    used, limit, machine = facts.number("used_memory"), facts.number("maxmemory"), facts.number("total_system_memory")
    told: dict[str, object] = {"used_memory": used, "maxmemory": limit, "total_system_memory": machine}
    of, what = (limit, "its limit") if limit else (machine, "the machine's memory")
    share = used / of if of else 0
    text = f"{_size(used)} of {_size(of)} used ({share:.0%} of {what})"
    if share < FULL:
        return Check("memory").ok(text, **told)
    fix = (
        "`toril queue ls` shows where the jobs are. Run more workers where they wait; keep fewer ended ones (`toril queue clean`, "
        "remove_on_complete); keep large data elsewhere; or raise maxmemory"
    )
    return Check("memory").found(Severity.ERROR if share >= NEARLY_FULL else Severity.WARNING, text, fix, told)


def check_clock(facts: ServerFacts) -> list[Finding]:
    """Whether the clock here agrees with the server's. Jobs' times are those of producers and workers: see `check_clocks_of_work`."""
    off_ms = max(abs(facts.ahead_ms) - round(facts.round_trip_ms), 0)
    told: dict[str, object] = {"server_ahead_ms": facts.ahead_ms, "round_trip_ms": round(facts.round_trip_ms, 3)}
    if off_ms <= CLOCK_WARNING_MS:
        return Check("clock").ok("the clock here agrees with the server's", **told)
    text = f"the server's clock is {span_text(off_ms)} {'ahead of' if facts.ahead_ms > 0 else 'behind'} the one here"
    fix = "see which of the two is wrong, and let NTP keep it (timedatectl): jobs that are delayed or scheduled run that much early or late"
    return Check("clock").found(Severity.ERROR if off_ms > CLOCK_ERROR_MS else Severity.WARNING, text, fix, told)


def check_latency(facts: ServerFacts) -> list[Finding]:
    """How long the server takes to answer nothing."""
    told: dict[str, object] = {"round_trip_ms": round(facts.round_trip_ms, 3)}
    text = f"a round trip takes {facts.round_trip_ms:.2g} ms"
    if facts.round_trip_ms <= SLOW_MS:
        return Check("latency").ok(text, **told)
    fix = "SLOWLOG GET and INFO commandstats show what keeps the server busy; else it is the network: put workers near the server"
    return Check("latency").found(Severity.ERROR if facts.round_trip_ms > VERY_SLOW_MS else Severity.WARNING, text, fix, told)


async def check_permissions(server: Server, keys: QueueKeys) -> list[Finding]:
    """Whether the user of this address may do all that a queue needs.

    The only check that writes: each command is tried on two keys that nobody else has, and that are gone when the script ends.
    """
    try:
        denied = await denied_commands(server, keys)
    except ServerRefusedError as error:
        denied = [error.reason]
    if not denied:
        return Check("permissions").ok("the user of this address may do all that a queue needs")
    text = f"the user of this address may not do what workers must: {', '.join(denied)}"
    return Check("permissions").error(text, grant_words(keys), denied=denied)


def _size(number: int) -> str:
    size = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1_000:
            return f"{size:.3g} {unit}"
        size /= 1_000
    return f"{size:,.0f} TB"
