"""`EmailService` as its users test it: what it adds, and what it tells of a job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from app.email.jobs import EMAILS, WELCOME
from app.email.models import User
from app.email.service import EmailService, JobStatus
from toril import Job, JobOptions, Queue, QueueModule, QueueOptions, Worker
from toril.errors import JobNotFoundError
from toril.testing import FakeClock, Test, TestingModule, spy_on

TEST_USER = User(name="Test User", email="test@example.com", verification_token="token123")


@pytest.fixture
async def t() -> AsyncIterator[TestingModule]:
    """The queue and the service, and nothing else of the application."""
    async with await Test.create_testing_module(
        imports=[QueueModule.register_queue(QueueOptions(EMAILS, default_job_options=JobOptions(remove_on_complete=False)))],
        providers=[EmailService],
    ).compile() as t:
        yield t


@pytest.fixture
def service(t: TestingModule) -> EmailService:
    return t.get(EmailService)


@pytest.fixture
def emails(t: TestingModule) -> Queue:
    return t.queue(EMAILS)


async def has_id_next(queue: Queue, job_id: int) -> None:
    """Let the server give the next job this id."""
    await queue.open()
    await queue.server.commands.call("SET", queue.keys.base + "id", job_id - 1)


async def complete(queue: Queue) -> None:
    async def handle(job: Job) -> None:
        await job.update_progress(100)

    async with Worker(queue, handle) as worker:
        await worker.wait_until_idle()


# ── (1) a welcome mail is added ───────────────────────────────────────────────────────────────────────────────


async def test_send_welcome_email_adds_the_job_with_its_payload_and_options(service: EmailService, emails: Queue) -> None:
    with spy_on(emails) as spy:
        await service.send_welcome_email(TEST_USER)
    (job,) = spy.jobs
    assert job.name == "welcome-email"
    assert job.data["type"] == "welcome"
    assert job.data["to"] == "test@example.com"
    assert job.options == {
        "attempts": 5,
        "backoff": {"type": "exponential", "delay": 1_000, "jitter": 0.5, "maxDelay": 3_600_000},
        "priority": 1,
        "removeOnComplete": True,
        "removeOnFail": False,
    }


async def test_the_welcome_mail_is_in_the_queue_as_it_was_added(t: TestingModule, service: EmailService, emails: Queue) -> None:
    added = await service.send_welcome_email(TEST_USER)
    assert added.id == "1"
    job = await emails.get_job(added.id)
    assert await job.get_state() == "prioritized"
    assert job.data == {
        "type": "welcome",
        "to": "test@example.com",
        "data": {"name": "Test User", "verificationLink": "https://example.com/verify/token123"},
    }
    options = job.options
    assert (options.attempts, options.priority, options.remove_on_complete, options.remove_on_fail) == (5, 1, True, False)
    t.assert_enqueued(WELCOME, {"to": "test@example.com"}, priority=1, attempts=5)


# ── (2) the status of a job ───────────────────────────────────────────────────────────────────────────────────


async def test_get_job_status_tells_all_of_a_completed_job(t: TestingModule, service: EmailService, emails: Queue) -> None:
    await has_id_next(emails, 123)
    await emails.add("welcome-email", {"type": "welcome"})
    await complete(emails)
    clock = t.clock
    assert isinstance(clock, FakeClock)
    assert await service.get_job_status("123") == JobStatus(
        id="123",
        state="completed",
        progress=100,
        data={"type": "welcome"},
        attempts=1,
        failed_reason=None,
        timestamp=datetime.fromtimestamp(clock.now_ms() / 1_000, UTC),
    )


async def test_the_status_of_a_job_with_an_automatic_id_and_a_whole_payload(service: EmailService, emails: Queue) -> None:
    payload = {"type": "welcome", "to": "test@example.com", "data": {"name": "Test User", "verificationLink": "https://example.com/v"}}
    job = await emails.add("welcome-email", payload, remove_on_complete=False)
    assert (await service.get_job_status(job.id)).state == "waiting"
    await complete(emails)
    status = await service.get_job_status(job.id)
    assert (status.id, status.state, status.progress, status.data) == (job.id, "completed", 100, payload)
    assert (status.attempts, status.failed_reason) == (1, None)


async def test_the_status_of_a_job_that_failed_tells_why(service: EmailService, emails: Queue) -> None:
    job = await emails.add("welcome-email")

    async def handle(job: Job) -> None:
        raise ValueError("no such user")

    async with Worker(emails, handle) as worker:
        await worker.wait_until_idle()
    status = await service.get_job_status(job.id)
    assert (status.state, status.attempts, status.failed_reason) == ("failed", 1, "no such user")


async def test_the_status_of_an_unknown_job_is_an_error_that_names_it(service: EmailService) -> None:
    with pytest.raises(JobNotFoundError) as caught:
        await service.get_job_status("4711")
    assert (caught.value.job_id, caught.value.queue) == ("4711", EMAILS)
