"""Makes the server's job schedulers what an application declares, and watches that they stay so.

    declared now ──┐                        ┌─ missing, changed ─► upsert         what is noted in the server, under the
                   ├─► noted in the server ─┼─ unchanged        ─► left alone     application's owner (wire §11):
    noted before ──┘   (both together)      └─ vanished         ─► remove         then only what is declared now

What is declared is noted before anything is done, what vanished is forgotten only after all is done: a process that dies between any
two steps leaves nothing behind that the next start doesn't find. One process of an owner reconciles at a time.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from toril.clock import real_sleep
from toril.errors import JobError, SchedulerBusyError, ServerError
from toril.queues.job_schedulers import JobScheduler, ScheduleRule
from toril.queues.option_values import moment
from toril.queues.queue import Queue
from toril.telemetry.logs import get_logger
from toril.wire.codec import to_json
from toril.wire.line import ReplyLostError
from toril.wire.scheduler_commands import NotedSchedules, SchedulerCommands, iteration_id

log = get_logger(__name__)

RECONCILE_LIMIT_MS: Final = 15_000
"""A reconciling that has taken this long counts as dead, and another process begins."""

BUSY_PAUSE_MS: Final = 20

TRIES: Final = 5
"""How often a connection may break in the middle before the start fails."""

_VERSION: Final = re.compile(r"v?(\d+(?:\.\d+)*)", re.ASCII | re.IGNORECASE)


def version_key(version: str | None) -> tuple[int, tuple[int, ...], str]:
    """By what versions are compared: none is the lowest, then texts in the order of text, then numbers by their parts.

    Numbers are what is written as such, with a `v` or without: `1.10` is above `1.9`, `2.0` the same as `2`. Everything else is
    text, `1.2-rc1` and a commit's id too; so a number is above any text.

    >>> sorted(["1.10", None, "v1.9", "2024-05-01"], key=version_key)
    [None, '2024-05-01', 'v1.9', '1.10']
    """
    if not version:
        return (0, (), "")
    found = _VERSION.fullmatch(version)
    if found is None:
        return (1, (), version)
    parts = [int(part) for part in found[1].split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return (2, tuple(parts), "")


@dataclass(frozen=True, slots=True)
class ScheduleDifference:
    """A schedule that is not in the server as it is declared."""

    name: str
    kind: Literal["missing", "changed", "vanished", "paused"]
    """Declared, and not there; there with another rule; there, and no longer declared; paused by somebody."""
    declared: ScheduleRule | None
    stored: JobScheduler | None


class Reconciler:
    """The schedules of one owner on one queue.

    Args:
        queue: whose job schedulers they are.
        owner: under which name the application declares them.
        version: the application's; not set: the lowest.
    """

    def __init__(self, queue: Queue[Any, Any], owner: str, version: str | None) -> None:
        self._queue = queue
        self._owner = owner
        self._version = version
        self.added: dict[str, ScheduleRule] = {}
        """What was added while the application ran."""

    async def reconcile(self, declared: Mapping[str, ScheduleRule]) -> bool:
        """Do it; waits while another process does. False if a higher version has declared its schedules: nothing is changed then."""
        for tries_left in reversed(range(TRIES)):
            try:
                return await self._reconcile(declared)
            except ReplyLostError as error:  # what was sent may have been done or not; all of it can be done again
                if not tries_left:
                    raise
                log.warning("reconciling the schedules begins anew", owner=self._owner, reason=str(error))
        raise AssertionError("unreachable: the last try returns or raises")

    async def _reconcile(self, declared: Mapping[str, ScheduleRule]) -> bool:
        commands = await self._commands()
        begun_ms, waited_ms = self._queue.clock.now_ms(), 0
        while True:
            before = await commands.noted_schedules(self._owner)
            if version_key(self._version) < version_key(before.version):
                self._refused(before.version)
                return False
            token = secrets.token_hex(8)
            now_ms = max(self._queue.clock.now_ms(), begun_ms + waited_ms)  # a test's clock may stand still
            code = await commands.declare_schedules(
                self._owner, now_ms, token=token, until_ms=now_ms + RECONCILE_LIMIT_MS, judged_by=before.version or "",
                version=self._version or "", rules={name: rule_text(rule) for name, rule in declared.items()},
            )  # fmt: skip
            if code == 1:
                if await self._apply(commands, token, declared, before):
                    return True
                log.warning("reconciling the schedules took so long that another process began: once more", owner=self._owner)
            elif code == 0:
                await real_sleep(BUSY_PAUSE_MS)  # it may be any other process: nothing tells us when it is through
                waited_ms += BUSY_PAUSE_MS

    async def _apply(self, commands: SchedulerCommands, token: str, declared: Mapping[str, ScheduleRule], before: NotedSchedules) -> bool:
        try:
            for name, rule in declared.items():
                found = await self._queue.job_schedulers.find(name)
                if found is not None and name not in before.declared and name not in before.added:
                    log.warning("this schedule was made by another owner or tool, and is taken over", schedule=name, owner=self._owner)
                await self.arm(name, rule)
            noted = await commands.noted_schedules(self._owner)
            vanished = [name for name in noted.declared if name not in declared]
            for name in vanished:
                await self.remove(name)
                log.info("schedule removed: it is no longer declared", schedule=name, owner=self._owner)
        except BaseException:
            with contextlib.suppress(ServerError):
                await commands.settle_schedules(self._owner, token, ())  # so that others needn't wait; forgets nothing
            raise
        return await commands.settle_schedules(self._owner, token, vanished)

    def _refused(self, noted: str | None) -> None:
        log.warning(
            "the schedules stay as they are: a higher version of this application has declared its own",
            owner=self._owner, version=self._version, higher=noted,
            fix=f"raise ScheduleModule.for_root(version=…), or delete the key {self._queue.keys.schedules(self._owner)} to begin anew",
        )  # fmt: skip

    async def arm(self, name: str, rule: ScheduleRule) -> bool:
        """Make one schedule in the server what its rule says, unless it is, or is paused; whether that changed anything.

        An interval's first run comes after one interval.
        """
        if await self._queue.job_schedulers.is_paused(name):
            log.warning("this schedule is paused, and stays so", schedule=name, fix=f"toril schedule resume {self._queue.name} {name}")
            return False
        found = await self._queue.job_schedulers.find(name)
        if found is not None and _is_same(found, name, rule):
            return False
        return await self._upsert(name, rule)

    async def remove(self, name: str) -> None:
        """End one schedule in the server; a run that is under way goes on."""
        found = await self._queue.job_schedulers.find(name)
        await self._queue.job_schedulers.remove(name)
        if found is not None:
            try:  # it may be due already, and wait for a worker that has no handler for it
                await self._queue.remove(iteration_id(name, found.next_ms))
            except JobError as error:
                log.info("a removed schedule runs a last time", schedule=name, reason=str(error))

    async def add(self, name: str, rule: ScheduleRule) -> None:
        """Add a schedule while the application runs."""
        self.added[name] = rule
        await (await self._commands()).note_added(self._owner, name, rule_text(rule))
        await self.arm(name, rule)

    async def forget(self, name: str) -> None:
        """End a schedule, declared or added, for all processes; a declared one comes back with the next start."""
        self.added.pop(name, None)
        await (await self._commands()).forget_schedule(self._owner, name)
        await self.remove(name)

    async def differences(self, declared: Mapping[str, ScheduleRule]) -> list[ScheduleDifference]:
        """Where the server's schedules are not what is declared, by name; nothing is changed. What others have made there doesn't count."""
        noted = await (await self._commands()).noted_schedules(self._owner)
        stored = {one.id: one for one in await self._queue.job_schedulers.list()}
        paused = {one.id for one in await self._queue.job_schedulers.list_paused()}
        found: list[ScheduleDifference] = []
        for name in sorted({*declared, *noted.declared, *noted.added}):
            rule, there = declared.get(name), stored.get(name)
            if name in paused:
                found.append(ScheduleDifference(name, "paused", rule, None))
            elif rule is None:
                if there is not None and name in noted.declared:
                    found.append(ScheduleDifference(name, "vanished", None, there))
            elif there is None and not _is_over(rule, self._queue.clock.now_ms(), None):
                found.append(ScheduleDifference(name, "missing", rule, None))
            elif there is not None and not _is_same(there, name, rule):
                found.append(ScheduleDifference(name, "changed", rule, there))
        return found

    # ── watching ──────────────────────────────────────────────────────────────────────────────────────────────

    async def look(self, declared: Mapping[str, ScheduleRule]) -> None:
        """Arm again what has no next run any more, and say so; leave alone what another version of the application decides about."""
        commands = await self._commands()
        noted = await commands.noted_schedules(self._owner)
        if noted.is_empty:
            log.warning("the server knows nothing of this application's schedules any more: they are declared anew", owner=self._owner)
            await self.reconcile(declared)
            for name, rule in self.added.items():
                await self.add(name, rule)
            return
        for name, rule in {**declared, **self.added}.items():
            if noted.declared.get(name, noted.added.get(name)) == rule_text(rule):
                found = await self._queue.job_schedulers.find(name)
                trouble = await self._trouble(name, rule, found)
                if trouble is not None and await self._arm_again(name, rule, found):
                    log.warning("a schedule had no next run and was armed again", schedule=name, reason=trouble)

    async def _trouble(self, name: str, rule: ScheduleRule, found: JobScheduler | None) -> str | None:
        """Why nothing would run next; None if something will, or the schedule has come to its end."""
        if _is_over(rule, self._queue.clock.now_ms(), found):
            return None
        if found is None and await self._queue.job_schedulers.is_paused(name):
            return None
        if found is None or (found.every_ms is None and found.pattern is None):
            return "its record was missing"
        state = await self._queue.commands.get_state(iteration_id(name, found.next_ms))
        if state not in ("completed", "failed", "unknown"):
            return None
        again = await self._queue.job_schedulers.find(name)
        if again is not None and again.next_ms != found.next_ms:  # a worker has added the next one meanwhile
            return None
        return "its next job was missing" if state == "unknown" else f"its next job has {state} and nothing followed"

    async def _arm_again(self, name: str, rule: ScheduleRule, found: JobScheduler | None) -> bool:
        if found is not None and rule.every is not None and found.next_ms > self._queue.clock.now_ms():
            # An upsert alone would take the lost run for one that has been, and skip it: of a daily schedule, a day.
            await self._queue.job_schedulers.remove(name)
            rule = replace(rule, start=moment(found.next_ms))
        return await self._upsert(name, rule)

    async def _upsert(self, name: str, rule: ScheduleRule) -> bool:
        now_ms = self._queue.clock.now_ms()
        if _is_over(rule, now_ms, None):
            return False
        if rule.every is not None and rule.start is None and rule.offset is None:
            rule = replace(rule, start=moment(now_ms + rule.every_ms))
        try:
            await self._queue.job_schedulers.upsert(name, rule)
        except SchedulerBusyError as error:
            log.warning("a schedule could not be armed; the next look will try again", schedule=name, reason=str(error))
            return False
        return True

    async def _commands(self) -> SchedulerCommands:
        await self._queue.open()
        return SchedulerCommands(self._queue.server, self._queue.keys)


def rule_text(rule: ScheduleRule) -> bytes:
    """A rule as it is noted in the server."""
    return to_json(rule.wire() | ({} if rule.offset_ms is None else {"offset": rule.offset_ms}), "the rule of a schedule")


def _is_same(found: JobScheduler, name: str, rule: ScheduleRule) -> bool:
    """Whether a scheduler runs as the rule says. Its start is not compared: it is when it was first made."""
    zones = [(one.tz or "UTC") if one.pattern is not None else None for one in (found, rule)]
    is_same_offset = rule.offset_ms is None or rule.offset_ms == found.offset_ms
    theirs = (found.name, found.every_ms, found.pattern, found.limit, found.end_ms)
    ours = (name, rule.every_ms or None, rule.pattern, rule.limit, rule.end_ms)
    return theirs == ours and zones[0] == zones[1] and is_same_offset


def _is_over(rule: ScheduleRule, now_ms: int, found: JobScheduler | None) -> bool:
    has_all_runs = found is not None and rule.limit is not None and found.iterations >= rule.limit
    return has_all_runs or (rule.end_ms is not None and rule.end_ms <= now_ms)
