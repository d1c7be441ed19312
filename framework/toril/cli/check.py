"""The work of `toril check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from toril.cli import exit_codes
from toril.cli.output import span_text
from toril.cli.queues import waiting_since_ms
from toril.cli.session import Session
from toril.doctor.words import jobs_word, listed
from toril.doctor.workers import names_to_take, unhandled_names
from toril.doctor.workforce import read_workforce
from toril.durations import optional_ms
from toril.queues.dead_letters import FAILED_JOB
from toril.queues.queue import Queue


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a queue may not pass."""

    max_waiting: int | None
    max_age: str | None
    max_failed: int | None
    min_workers: int | None
    not_paused: bool
    handled: bool

    @property
    def are_any(self) -> bool:
        """Whether there is one at all."""
        return self != Limits(max_waiting=None, max_age=None, max_failed=None, min_workers=None, not_paused=False, handled=False)


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
    within = f"{'1 queue is' if len(queues) == 1 else f'{len(queues):,} queues are'} within these limits"
    words = within if limits.are_any else "nothing else was looked at, since no limit was given"
    ok = f"ok: {session.queues.server.address} answers, {words}; toril doctor looks for all that may be wrong"
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
    if limits.handled and (unhandled := await _unhandled(queue)):
        told = listed([f"{one!r} ({jobs_word(count)})" for one, count in unhandled.most_common()])
        yield Problem(name, "handled", unhandled.total(), 0, f"{name}: no running worker handles {told}")


async def _unhandled(queue: Queue[Any, Any]) -> Counter[str]:
    """The names of jobs that are next, and that nobody takes: no worker handles them, or there is none. Dead letters wait for people."""
    workforce = await read_workforce(queue)
    if workforce.clients:
        return await unhandled_names(queue, workforce)
    names = await names_to_take(queue)
    del names[FAILED_JOB]
    return names
