"""`SchedulerRegistry`: the schedules of one application, to look at and to change while it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from toril.callables import is_async, place_of
from toril.clock import Clock
from toril.errors import InvalidOptionError, UnknownScheduleError
from toril.modules.process_schedules import ProcessSchedules
from toril.modules.reconciling import Reconciler
from toril.modules.roles import Role
from toril.modules.schedule_decorators import ScheduleScope, check_scope
from toril.modules.schedule_explorer import ScheduleOptions
from toril.modules.schedules import Schedule, ScheduleInfo, first_due_ms, upcoming_ms
from toril.queues.job import Job
from toril.queues.job_schedulers import ScheduleRule
from toril.queues.option_checks import check_job_name, check_whole
from toril.queues.option_values import moment
from toril.queues.queue import Queue
from toril.spelling import near
from toril.worker.processor import Registry


class SchedulerRegistry:
    """The schedules of this application, those of its decorated methods and those that it adds itself. Inject it where you need it.

    `ScheduleModule.for_root()` provides it. Fleet schedules are the same for all processes: what one adds or deletes, others follow.
    """

    def __init__(self, options: ScheduleOptions, queue: Queue[Any, Any], clock: Clock) -> None:
        self.options = options
        self.queue = queue
        self.handlers = Registry(queue.name, (), may_be_empty=True)
        """The fleet schedules, as handlers of their jobs; the workers of the queue share it."""
        self.process_schedules = ProcessSchedules(clock, queue.name)
        self.reconciler = Reconciler(queue, options.owner or "?", options.version)
        self.clock = clock
        self._schedules: dict[str, Schedule] = {}
        self._roles: frozenset[Role] = frozenset()
        self._declares = True
        """Until the application reconciles, what is added counts as declared."""

    # ── for the application ───────────────────────────────────────────────────────────────────────────────────

    def bind(self, schedules: Iterable[Schedule], *, owner: str, roles: frozenset[Role]) -> None:
        """Take the declared schedules, and learn what this process does. The application calls it once."""
        self.reconciler = Reconciler(self.queue, self.options.owner or owner, self.options.version)
        self._roles = roles
        for schedule in schedules:
            self._take(schedule)

    @property
    def declared(self) -> Mapping[str, ScheduleRule]:
        """The rules of the fleet schedules that were there before the application began to run."""
        fleet = (schedule for schedule in self._schedules.values() if schedule.scope == "fleet")
        return {one.name: one.rule for one in fleet if one.rule is not None and one.name not in self.reconciler.added}

    async def reconcile(self) -> bool:
        """Make the server have what is declared; the application calls it at start. See `Reconciler.reconcile`."""
        self._declares = False
        return await self.reconciler.reconcile(self.declared)

    async def look(self) -> None:
        """What the watchdog does once a minute."""
        await self.reconciler.look(self.declared)

    # ── looking ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all schedules, in order."""
        return tuple(sorted(self._schedules))

    async def get(self, name: str) -> ScheduleInfo:
        """One schedule. Raises UnknownScheduleError, which names what is near."""
        return await self._info(self._get(name))

    async def next_runs(self, name: str, count: int = 5) -> list[datetime]:
        """When a schedule runs the next times, in UTC; fewer if it ends before.

        Raises:
            UnknownScheduleError
            InvalidOptionError: a count below 1.
        """
        check_whole("count", count, 1)
        schedule = self._get(name)
        first_ms, rule = await self._next_ms(schedule), schedule.rule
        if rule is None:
            return [] if first_ms is None else [moment(first_ms)]
        if first_ms is None and schedule.scope == "fleet":  # nobody has declared it yet
            first_ms = first_due_ms(rule, self.clock.now_ms())
        return [moment(due_ms) for due_ms in islice(upcoming_ms(rule, first_ms), count)]

    async def list(self) -> list[ScheduleInfo]:
        """All schedules of this application, by name."""
        return [await self._info(self._schedules[name]) for name in self.names]

    # ── changing ──────────────────────────────────────────────────────────────────────────────────────────────

    async def add(self, name: str, rule: ScheduleRule | str, callback: Callable[[], Any], *, scope: ScheduleScope = "fleet") -> None:
        """Add a schedule while the application runs.

        A fleet schedule stays in the server until it is deleted, also when this process ends. Every process with the role
        `scheduler` may get its runs, so add it in all of them, best in `on_application_bootstrap`: until then it counts as declared,
        as a decorated method does. If the server has it already with the same rule, its next run does not move.

        Args:
            name: what it is called, here and in the server.
            rule: `ScheduleRule(every="5m")`, or the text of a cron expression, in UTC.
            callback: a coroutine function, or a plain one, which runs in a thread.
            scope: whether the fleet runs it, or this process alone, for as long as it lives.

        Raises:
            InvalidOptionError, InvalidCronError: a name that is taken, a rule that makes no sense, a process that runs nothing.
        """
        check_job_name(name)
        check_scope(scope)
        if name in self._schedules:
            other = self._schedules[name].place
            raise InvalidOptionError("name", name, f"there is a schedule of this name ({other}): delete it first, or choose another name")
        if not callable(callback):
            raise InvalidOptionError("callback", callback, "give a function without arguments")
        if scope == "process" and not self._roles & {"worker", "scheduler"}:
            raise InvalidOptionError("scope", scope, "this process only produces, and runs no schedules: give it the role scheduler")
        made = ScheduleRule(pattern=rule, tz="UTC") if isinstance(rule, str) else rule
        if made.end_ms is not None and made.end_ms <= self.clock.now_ms():
            raise InvalidOptionError("end", made.end, "it has passed")
        schedule = Schedule(
            name=name, scope=scope, rule=made, is_async=is_async(callback), place=place_of(callback),
            open=lambda: contextlib.nullcontext(callback),
        )  # fmt: skip
        self._take(schedule)
        if scope == "fleet" and not (self._declares and "scheduler" in self._roles):
            try:
                await self.reconciler.add(name, made)
            except BaseException:
                self._drop(name)
                raise

    async def delete(self, name: str) -> None:
        """End a schedule: a fleet one for all processes, one of scope `process` and a timeout in this process only.

        A run that is under way goes on. One that the code declares comes back with the next start of a process.

        Raises:
            UnknownScheduleError
        """
        schedule = self._get(name)
        if schedule.scope == "fleet":
            await self.reconciler.forget(name)
        self._drop(name)

    async def run_now(self, name: str) -> Job[Any, Any]:
        """Run a fleet schedule once more, as soon as a process with the role `scheduler` gets to it; its next run stays as it is.

        Returns:
            The job that was added for it; `await job.result()` waits for its end.

        Raises:
            UnknownScheduleError
            InvalidOptionError: the schedule runs in each process by itself. Others as in `Queue.add`.
        """
        schedule = self._get(name)
        if schedule.scope != "fleet":
            raise InvalidOptionError("name", name, f"it runs in each process by itself: call {schedule.place} directly")
        return await self.queue.add(name, {})

    # ── inside ────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, schedule: Schedule) -> None:
        self._schedules[schedule.name] = schedule
        if schedule.scope == "fleet":
            self.handlers.add(schedule.handler())
        else:
            self.process_schedules.add(schedule)

    def _drop(self, name: str) -> None:
        self._schedules.pop(name, None)
        self.handlers.discard(name)
        self.process_schedules.discard(name)

    def _get(self, name: str) -> Schedule:
        schedule = self._schedules.get(name)
        if schedule is None:
            raise UnknownScheduleError(name, near(name, self._schedules), self.names)
        return schedule

    async def _info(self, schedule: Schedule) -> ScheduleInfo:
        next_ms = await self._next_ms(schedule)
        return ScheduleInfo(name=schedule.name, scope=schedule.scope, rule=schedule.rule, next_ms=next_ms, place=schedule.place)

    async def _next_ms(self, schedule: Schedule) -> int | None:
        if schedule.scope == "process":
            return self.process_schedules.next_ms(schedule.name)
        found = await self.queue.job_schedulers.find(schedule.name)
        return None if found is None else found.next_ms
