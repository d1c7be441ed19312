"""One line of the log for each attempt, whatever came of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from toril import DelayedError, Job, Queue, RateLimitError, WaitingError, Worker, WorkerOptions, fixed
from toril.errors import UnrecoverableError
from toril.telemetry.log_event import LogEvent
from toril.testing import eventually


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, dict[str, Any]]]:
    """Level, event and fields of each."""
    return [
        (one.levelname, one.msg.event, dict(one.msg.fields))
        for one in caplog.records
        if one.name == "toril.jobs" and isinstance(one.msg, LogEvent)
    ]


def raising(error: BaseException) -> Callable[[Job], Awaitable[None]]:
    async def handle(job: Job) -> None:
        if job.attempts_started < 2:
            raise error

    return handle


async def drain(queue: Queue, handle: Callable[[Job], Awaitable[None]]) -> None:
    async with Worker(queue, handle, WorkerOptions()) as worker:
        await worker.wait_until_idle()


async def test_a_job_that_completes_is_one_line_with_its_time(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "toril.jobs")
    job = await queue.add("n")
    await drain(queue, _ok)
    ((level, event, fields),) = lines(caplog)
    assert (level, event) == ("INFO", "the job completed")
    assert fields == {"queue": "q", "job_id": job.id, "job_name": "n", "attempt": 1, "ran_ms": 0}  # on a clock that stands still


async def _ok(job: Job) -> None: ...


@pytest.mark.parametrize(
    ("error", "level", "event"),
    [
        (DelayedError("1h"), "INFO", "the job is put off, as its handler wants"),
        (WaitingError(), "INFO", "the job is put back, and runs again"),
        (RateLimitError("1h"), "INFO", "the job is put back until a rate limit has passed"),
        (ValueError("no"), "WARNING", "an attempt failed; the job runs again"),
        (UnrecoverableError("no"), "ERROR", "the job failed for good"),
    ],
)
async def test_each_other_end_of_an_attempt_is_one_line(
    queue: Queue, caplog: pytest.LogCaptureFixture, error: BaseException, level: str, event: str
) -> None:
    caplog.set_level(logging.INFO, "toril.jobs")
    job = await queue.add("n", attempts=2, backoff=fixed("1h"))
    await drain(queue, raising(error))
    first = lines(caplog)[0]
    assert first[:2] == (level, event)
    assert first[2].items() >= {"queue": "q", "job_id": job.id, "job_name": "n", "attempt": 1}.items()
    assert [line[1] for line in lines(caplog)[1:]] == (["the job completed"] if isinstance(error, WaitingError) else [])


async def test_a_job_that_is_put_back_at_stop(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "toril.jobs")
    begun = asyncio.Event()

    async def hang(job: Job) -> None:
        begun.set()
        await asyncio.Event().wait()

    await queue.add("n")
    async with Worker(queue, hang, WorkerOptions(shutdown_timeout="0s")):
        await begun.wait()
    assert [line[1] for line in lines(caplog)] == ["the job is put back, and runs again"]


async def test_a_cancelled_job_is_no_failure(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "toril.jobs")
    begun = asyncio.Event()

    async def hang(job: Job) -> None:
        begun.set()
        await asyncio.Event().wait()

    job = await queue.add("n")
    async with Worker(queue, hang, WorkerOptions()):
        await begun.wait()
        await queue.cancel(job.id, reason="enough")
        await eventually(lambda: _one(lines(caplog)))
    assert lines(caplog)[0][:2] == ("INFO", "the job is cancelled")


def _one(found: list[Any]) -> None:
    assert len(found) == 1


async def test_the_lines_can_be_switched_off_alone(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "toril")
    caplog.set_level(logging.WARNING, "toril.jobs")
    await queue.add("n")
    await drain(queue, _ok)
    assert lines(caplog) == []
