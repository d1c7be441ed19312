"""The work of `toril check`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from toril.cli import exit_codes
from toril.cli.output import span_text
from toril.cli.queues import waiting_since_ms
from toril.cli.session import Session
from toril.durations import optional_ms
from toril.queues.queue import Queue


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a queue may not pass."""

    max_waiting: int | None
    max_age: str | None
    max_failed: int | None
    min_workers: int | None
    not_paused: bool


@dataclass(frozen=True, slots=True)
class Problem:
    """A limit that is passed."""

    queue: str
    check: str
    value: int | bool
    limit: int | bool
    text: str


async def check_queues(session: Session, names: list[str], limits: Limits) -> int:
    """Look at all queues, or at these; the exit code."""
    max_age_ms = optional_ms(limits.max_age, "--max-age")
    queues = await session.queues.some(names)
    problems = [problem for queue in queues async for problem in _problems(queue, limits, max_age_ms)]
    document = {
        "is_ok": not problems,
        "queues": [queue.name for queue in queues],
        "problems": [{"queue": one.queue, "check": one.check, "value": one.value, "limit": one.limit} for one in problems],
    }
    ok = f"ok: {session.queues.server.address} answers, {len(queues)} queues are within their limits"
    session.out.answer(document, *([one.text for one in problems] or [ok]))
    return exit_codes.FAILED if problems else exit_codes.OK


async def _problems(queue: Queue[Any, Any], limits: Limits, max_age_ms: int | None) -> AsyncGenerator[Problem]:
    name = queue.name
    counts = await queue.get_job_counts("waiting", "prioritized", "failed")
    waiting, failed = counts["waiting"] + counts["prioritized"], counts["failed"]
    if limits.max_waiting is not None and waiting > limits.max_waiting:
        yield Problem(
            name, "max_waiting", waiting, limits.max_waiting, f"{name}: {waiting:,} jobs wait, at most {limits.max_waiting:,} may"
        )
    if max_age_ms is not None and (since_ms := await waiting_since_ms(queue)) is not None:
        age_ms = max(0, queue.clock.now_ms() - since_ms)
        if age_ms > max_age_ms:
            text = f"{name}: its next job has waited for {span_text(age_ms)}, at most {limits.max_age} is allowed"
            yield Problem(name, "max_age", age_ms, max_age_ms, text)
    if limits.max_failed is not None and failed > limits.max_failed:
        yield Problem(
            name, "max_failed", failed, limits.max_failed, f"{name}: {failed:,} jobs have failed, at most {limits.max_failed:,} may"
        )
    if limits.min_workers is not None and (workers := len(await queue.get_workers())) < limits.min_workers:
        text = f"{name}: {workers} workers are connected, at least {limits.min_workers} must be"
        yield Problem(name, "min_workers", workers, limits.min_workers, text)
    if limits.not_paused and await queue.is_paused():
        yield Problem(name, "not_paused", True, False, f"{name}: it is paused")
