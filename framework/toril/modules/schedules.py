"""One schedule of an application: what it is called, when it runs, and how it is called then."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from toril.modules.schedule_decorators import ScheduleScope
from toril.queues.cron import Cron
from toril.queues.job import Job
from toril.queues.job_schedulers import ScheduleRule
from toril.queues.option_values import moment
from toril.worker.processor import Handler, HandlerCall

ScheduleCall: TypeAlias = Callable[[], Any]
"""What runs: a coroutine function or a plain one, without arguments. What it returns is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule that is bound to what it calls."""

    name: str
    scope: ScheduleScope
    rule: ScheduleRule | None
    """None: a timeout."""
    after_ms: int | None = None
    """When a timeout runs, counted from the application's start."""
    open: Callable[[], AbstractAsyncContextManager[ScheduleCall]]
    """A block in which it may be called, once: what lives as long as one run is made and closed by it."""
    is_async: bool
    """A plain function runs in a thread."""
    place: str
    """Where it is written."""

    def handler(self) -> Handler:
        """The handler of the jobs that stand for its runs."""
        return Handler(name=self.name, scope=functools.partial(_open_for_job, self), is_async=self.is_async, place=self.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleInfo:
    """What the registry tells of a schedule."""

    name: str
    scope: ScheduleScope
    rule: ScheduleRule | None
    """None: a timeout."""
    next_ms: int | None
    """When it runs next; None: never again, or not as long as nothing runs it here."""
    place: str
    """Where what it calls is written."""

    @property
    def next_at(self) -> datetime | None:
        """`next_ms`, in UTC."""
        return None if self.next_ms is None else moment(self.next_ms)


@asynccontextmanager
async def _open_for_job(schedule: Schedule, _job: Job[Any, Any]) -> AsyncGenerator[HandlerCall]:
    async with schedule.open() as call:
        yield functools.partial(_await_it if schedule.is_async else _call_it, call)


async def _await_it(call: Callable[[], Awaitable[object]], _job: Job[Any, Any]) -> None:
    await call()


def _call_it(call: ScheduleCall, _job: Job[Any, Any]) -> None:
    call()


# ── when ──────────────────────────────────────────────────────────────────────────────────────────────────────


def first_due_ms(rule: ScheduleRule, now_ms: int) -> int | None:
    """When a rule that begins now is due first: an interval after one interval, unless its start or offset say otherwise."""
    start_ms = rule.start_ms or 0
    if rule.pattern is not None:
        due_ms = now_ms if rule.immediately else Cron(rule.pattern, rule.tz or "UTC").next_ms(max(now_ms, start_ms))
    elif start_ms:
        due_ms = max(start_ms, now_ms)
    elif rule.offset_ms:
        due_ms = now_ms // rule.every_ms * rule.every_ms + rule.offset_ms
        due_ms += rule.every_ms if due_ms <= now_ms else 0
    else:
        due_ms = now_ms + rule.every_ms
    return _unless_over(rule, due_ms)


def next_due_ms(rule: ScheduleRule, due_ms: int, now_ms: int) -> int | None:
    """When a rule is due after it was at `due_ms`. What was missed meanwhile is skipped."""
    if rule.pattern is not None:
        return _unless_over(rule, Cron(rule.pattern, rule.tz or "UTC").next_ms(max(now_ms, due_ms)))
    next_ms = due_ms + rule.every_ms
    if next_ms <= now_ms:
        next_ms += ((now_ms - next_ms) // rule.every_ms + 1) * rule.every_ms
    elif next_ms > now_ms + 2 * rule.every_ms:  # the machine's clock was set back
        next_ms = now_ms + rule.every_ms
    return _unless_over(rule, next_ms)


def upcoming_ms(rule: ScheduleRule, first_ms: int | None) -> Iterator[int]:
    """All times from this one on."""
    due_ms = first_ms
    while due_ms is not None:
        yield due_ms
        due_ms = next_due_ms(rule, due_ms, due_ms)


def _unless_over(rule: ScheduleRule, due_ms: int) -> int | None:
    return None if rule.end_ms is not None and due_ms > rule.end_ms else due_ms
