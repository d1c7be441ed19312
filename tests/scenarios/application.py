"""The application that is in trouble. The variable `MENDED` stands for the deploy that mends it.

With `SHORT_LIMIT_PAUSE` it looks sooner whether a rate limit was lifted, so that the tests needn't wait for that.
"""

from __future__ import annotations

import os
import signal
import time

from toril import (
    Job,
    JobOptions,
    QueueModule,
    QueueOptions,
    ScheduleModule,
    cron,
    fixed,
    module,
    process,
    processor,
)
from toril.worker import turn

IS_MENDED = "MENDED" in os.environ

if "SHORT_LIMIT_PAUSE" in os.environ:  # of the tests: a worker would sleep on for 30 s after its rate limit was lifted
    assert "LONGEST_LIMIT_PAUSE_MS" in turn.__dict__
    turn.__dict__["LONGEST_LIMIT_PAUSE_MS"] = 2_000


@processor("emails", concurrency=5, stalled_interval="1s", unknown_name_delay="10m")
class Emails:
    @process("welcome")
    async def welcome(self, job: Job) -> str:
        if job.data.get("host") == "mx1" and not IS_MENDED:
            raise ConnectionError("no mail server at mx1")
        return f"sent to {job.data['to']}"


@processor("emails", concurrency=5, stalled_interval="1s", unknown_name_delay="10m")
class EmailsToday(Emails):
    @process("invoice")
    async def invoice(self, job: Job) -> str:
        return f"invoice {job.data['number']} sent"


@processor("images", concurrency=5, lock_duration="1s", stalled_interval="200ms")
class Images:
    @process("resize")
    async def resize(self, job: Job) -> str:
        return "resized"

    @process("render")
    async def render(self, job: Job) -> str:
        if not IS_MENDED:
            os.kill(os.getpid(), signal.SIGSEGV)  # as a crash in C would
        return "rendered"

    @process("encode")
    async def encode(self, job: Job) -> str:
        if not IS_MENDED:
            time.sleep(3_600)  # noqa: ASYNC251 -- a call that blocks the event loop is what this is about
        return "encoded"


class Nightly:
    @cron("0 3 * * *", name="nightly-report")
    async def report(self) -> None: ...


QUEUES = [
    QueueModule.register_queue(
        QueueOptions("emails", dead_letter="letters", default_job_options=JobOptions(attempts=1, backoff=fixed("1s"))),
        "letters",
        "images",
    ),
    ScheduleModule.for_root(),
]


@module(imports=QUEUES, providers=[EmailsToday, Images, Nightly])
class AppModule: ...


@module(imports=QUEUES, providers=[Emails, Images, Nightly])
class YesterdaysModule:
    """The release before that: without the handler for invoices."""
