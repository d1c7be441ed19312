"""`toril job explain` in each situation that it knows: what it finds, and the fix that it names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from tests.cli.command import Cli
from toril import FlowProducer, Job, Queue, ScheduleRule, UnrecoverableError, Worker, WorkerOptions, fixed, flow_job, handler
from toril.testing import eventually
from toril.wire.connection import Server


class Held:
    """Handlers that run until the test lets them end."""

    def __init__(self) -> None:
        self.running = asyncio.Event()
        self.may_end = asyncio.Event()

    async def hold(self, job: Job) -> None:
        self.running.set()
        await self.may_end.wait()

    async def stay(self, job: Job) -> None:
        """Like `hold`, but don't end when told to."""
        self.running.set()
        with suppress(asyncio.CancelledError):
            await self.may_end.wait()
        await self.may_end.wait()

    async def fail(self, job: Job) -> None:
        raise ValueError("mailbox full")

    async def give_up(self, job: Job) -> None:
        raise UnrecoverableError("no such user")

    def worker(self, queue: Queue, *, concurrency: int = 1) -> Worker:
        handlers = [handler(self.hold, "hold"), handler(self.stay, "stay"), handler(self.fail, "fail"), handler(self.give_up, "give-up")]
        return Worker(queue, handlers, WorkerOptions(name="w1", concurrency=concurrency))


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    held = Held()
    yield held
    held.may_end.set()


async def explained(cli: Cli, job: Job) -> dict[str, dict[str, Any]]:
    """What it finds, by code."""
    document = await cli.json("job", "explain", job.queue_name, job.id)
    assert (document["id"], document["name"], document["queue"]) == (job.id, job.name, job.queue_name)
    assert document["state"] == await job.get_state()
    return {one["code"]: one for one in document["findings"]}


async def test_a_waiting_job_without_a_worker_in_a_paused_and_limited_queue(cli: Cli, emails: Queue) -> None:
    job = await emails.add("hold", {}, expires_in="2h")
    found = await explained(cli, job)
    assert set(found) == {"no_worker", "waits", "expires"}
    assert "(in 1h59m), it fails" in found["expires"]["text"]
    await emails.pause()
    await emails.set_global_rate_limit(5, "1s")
    await emails.rate_limit("1h")
    found = await explained(cli, job)
    assert list(found) == ["paused", "rate_limited", "no_worker", "waits", "expires"]
    assert found["paused"]["fix"] == "toril queue resume emails"
    assert "the rate limit (5 in 1s) is used up for another 59m" in found["rate_limited"]["text"]
    assert found["rate_limited"]["fix"] == "toril queue limits emails --reset"
    lines = (await cli("job", "explain", "emails", job.id)).out.splitlines()
    assert lines[:3] == [
        f"job {job.id} (hold) of queue emails is waiting",
        "- the queue is paused: no worker claims anything",
        "  fix: toril queue resume emails",
    ]


async def test_a_job_whose_workers_do_not_handle_its_name_or_are_busy(cli: Cli, emails: Queue, held: Held) -> None:
    await emails.pause()
    unknown, waiting = await emails.add("welcome", {}), await emails.add("hold", {}, priority=1)
    async with held.worker(emails):
        found = await explained(cli, unknown)
        assert list(found) == ["paused", "no_handler", "waits"]
        text = found["no_handler"]["text"]
        assert text == "no connected worker (1) has a handler for jobs named 'welcome'; handled are fail, give-up, hold, stay"
        await emails.remove(unknown.id)
        running = await emails.add("hold", {})
        await emails.resume()
        await held.running.wait()
        found = await explained(cli, waiting)
        assert list(found) == ["busy", "waits"]
        assert "all slots (1)" in found["busy"]["text"]
        await emails.set_global_concurrency(1)
        assert set(await explained(cli, waiting)) == {"concurrency_full", "busy", "waits"}
        found = await explained(cli, running)
        assert list(found) == ["running"]
        assert "process " in found["running"]["text"]
        assert "(worker w1)" in found["running"]["text"]
        held.may_end.set()


async def test_a_running_job_that_is_cancelled_or_blocked_has_not_ended_yet(
    cli: Cli, emails: Queue, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toril.worker.presence.REFRESH_S", 3_600)  # or it would note again that nothing is blocked
    job = await emails.add("stay", {})
    waiting = await emails.add("stay", {}, delay="1h")
    async with held.worker(emails) as worker:
        await held.running.wait()
        out = (await cli("job", "cancel", "emails", job.id, waiting.id, "--yes")).out
        assert out == "1 job cancelled, 1 job told to stop; it has not ended yet\n"
        assert list(await explained(cli, job)) == ["running", "cancelling"]
        [manifest] = await emails.get_worker_manifests()
        blocked = replace(manifest, blocked_ms=70_000)  # as its lock keeper notes it
        await emails.server.commands.call("HSET", emails.keys.workers, worker.id, blocked.text().decode())
        found = await explained(cli, job)
        assert list(found) == ["running", "blocked", "cancelling"]
        assert "blocked for 1m10s or longer" in found["blocked"]["text"]
        held.may_end.set()


async def test_a_running_job_whose_worker_is_gone(cli: Cli, emails: Queue, held: Held) -> None:
    job = await emails.add("hold", {})
    async with held.worker(emails):
        await held.running.wait()
        await emails.server.commands.call("DEL", emails.keys.lock(job.id))
        found = await explained(cli, job)
        assert list(found) == ["lock_expired"]
        assert "by worker w1" in found["lock_expired"]["text"]
        held.may_end.set()


async def test_delayed_jobs_and_those_that_are_tried_again(cli: Cli, emails: Queue, held: Held) -> None:
    late = await emails.add("hold", {}, delay="2h")
    found = await explained(cli, late)
    assert list(found) == ["delayed", "no_worker"]
    assert "in 1h59m" in found["delayed"]["text"]
    assert found["delayed"]["fix"] == f"to run it now: toril job promote emails {late.id}"
    tried = await emails.add("fail", {}, attempts=3, backoff=fixed("1h"))
    async with held.worker(emails):

        async def has_failed() -> None:
            assert await tried.get_state() == "delayed"

        await eventually(has_failed)
        found = await explained(cli, tried)
        assert list(found) == ["delayed", "tried"]
        assert found["tried"]["text"] == "1 of 3 tries have failed, 2 are left; the last error: mailbox full"
    scheduled = await emails.job_schedulers.upsert("hourly", ScheduleRule(pattern="0 0 * * * *"), name="hold")
    assert list(await explained(cli, scheduled))[:2] == ["schedule", "delayed"]


async def test_jobs_that_have_ended(cli: Cli, emails: Queue, held: Held, queue_of: Callable[[str], Queue]) -> None:
    held.may_end.set()
    done = await emails.add("hold", {})
    exhausted = await emails.add("fail", {}, attempts=2)
    given_up = await emails.add("give-up", {}, attempts=5)
    async with held.worker(emails) as worker:
        await worker.wait_until_idle()
    await emails.pause()
    cancelled = await emails.add("hold", {})
    await emails.cancel(cancelled.id, "by mistake")
    found = await explained(cli, done)
    assert list(found) == ["completed"]
    assert "by worker w1" in found["completed"]["text"]
    found = await explained(cli, exhausted)
    assert list(found) == ["tries_exhausted"]
    assert "after all 2 tries: mailbox full" in found["tries_exhausted"]["text"]
    assert found["tries_exhausted"]["fix"].endswith(f"toril job retry emails {exhausted.id} --reset-attempts")
    assert "in try 1 of 5: no such user" in (await explained(cli, given_up))["failed_early"]["text"]
    assert (await explained(cli, cancelled))["cancelled"]["text"].endswith(": by mistake")


async def test_a_parent_that_waits_for_its_children(cli: Cli, emails: Queue, held: Held, server: Server, prefix: str) -> None:
    async with FlowProducer(prefix=prefix, server=server) as flows:
        children = [flow_job("give-up", {}, queue="emails", fail_parent_on_failure=False), flow_job("hold", {}, queue="emails")]
        node = await flows.add(flow_job("render", {}, queue="emails", children=children))
    async with held.worker(emails, concurrency=2):
        await held.running.wait()
        parent, (_, waiting) = node.job, (child.job for child in node.children)

        async def one_has_failed() -> None:
            assert await emails.get_failed_count() == 1

        await eventually(one_has_failed)
        found = await explained(cli, parent)
        assert f"{prefix}:emails:{waiting.id}" in found["waits_for_children"]["text"]
        assert f"{prefix}:emails:{parent.id}" in (await explained(cli, waiting))["has_parent"]["text"]
        assert found["waits_for_children"]["fix"] == f"toril flow show emails {parent.id}"
        held.may_end.set()


async def test_what_can_not_be_explained(cli: Cli, emails: Queue) -> None:
    await emails.add("a", {})
    assert "does not exist" in await cli.error("job", "explain", "emails", "404", code=1)
