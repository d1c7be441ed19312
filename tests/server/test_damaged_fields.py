"""A field of a job that somebody has damaged harms nobody but that job: it is still listed, and the next job runs."""

from __future__ import annotations

import pytest

from tests.bench import Bench
from toril import Job, Queue, Worker
from toril.testing import eventually
from toril.wire.codec import JOB_FIELDS
from toril.wire.connection import Server

VALUES = (
    b"",
    b"nope",
    b"-1",
    b"1e400",
    b"NaN",
    b"[]",
    b'"x"',
    b"null",
    b"7",
    b'{"a":{}}',
    b"[" * 300 + b"]" * 300,
    b"\xff\xfe",
    b"9" * 400,
)


FATAL = {"data", "defa"}
"""A job whose data can't be read fails; so does one that another program has failed, for the reason that it gave."""

TEXTS = {value.decode("utf-8", "replace").encode() or b"UnrecoverableError" for value in VALUES}


def _ran(ids: list[str], wanted: str) -> None:
    assert wanted in ids


@pytest.mark.parametrize("field", [field.decode() for field in JOB_FIELDS])
async def test_a_damaged_field_of_a_job_harms_no_other_and_is_named_where_it_fails_its_own(
    server: Server, prefix: str, field: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench, queue = Bench(server, prefix), Queue("q", prefix=prefix, server=server)
    ran: list[str] = []

    async def note(job: Job) -> None:
        ran.append(job.id)

    damaged = [await queue.add("n", attempts=1) for _ in VALUES]
    for job, value in zip(damaged, VALUES, strict=True):
        await bench.raw("HSET", bench.key(job.id), field, value)
    sound = await queue.add("n")
    async with Worker(queue, note) as worker:
        await eventually(lambda: _ran(ran, sound.id))
        await eventually(lambda: _idle(worker))
        assert worker.is_ready
    for job in await queue.get_jobs():
        _ = job.options, job.progress, job.stack_trace, job.timestamp, job.processed_at, job.finished_at, repr(job)
    assert await sound.get_state() == "completed"
    failed = await queue.get_failed()
    assert bool(failed) == (field in FATAL)
    for job in failed:
        reason = job.failed_reason or ""
        assert reason.startswith(f"the data of job {job.id} ('n')") if field == "data" else reason.encode("utf-8", "replace") in TEXTS
        assert any(f"job_id={job.id} " in line and "failed for good" in line for line in caplog.text.splitlines())


def _idle(worker: Worker) -> None:
    assert worker.is_idle
