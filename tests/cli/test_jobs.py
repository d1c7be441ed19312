"""`toril job …`: looking at jobs, finding them, adding them, and doing something to one or all of them."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import termios
from typing import Any

from tests.cli.command import Cli
from tests.proxy import Cut, Proxy, is_script, nth
from toril import Job, Queue, UnrecoverableError, Worker, WorkerOptions
from toril.testing import eventually


async def handle(job: Job) -> Any:  # noqa: ANN401 -- whatever a test wants
    """What its data says."""
    if "error" in job.data:
        raise UnrecoverableError(job.data["error"])
    await job.log("one row")
    await job.log("another")
    return job.data.get("result")


async def run_all(queue: Queue, *data: dict[str, Any], name: str = "send") -> list[Job]:
    """Add jobs, and run them to their ends, in this order."""
    jobs = [await queue.add(name, each) for each in data]
    async with Worker(queue, handle, WorkerOptions(name="the worker", concurrency=1)) as worker:
        await worker.wait_until_idle()
    return jobs


def ids(document: Any) -> list[str]:  # noqa: ANN401 -- a document
    return [job["id"] for job in document["jobs"]]


async def test_jobs_are_found_by_state_name_age_error_and_data(cli: Cli, emails: Queue) -> None:
    ended = await run_all(
        emails,
        {"to": "ann", "user": {"id": 7}, "error": "Connection refused by mx"},
        {"to": "bob", "user": {"id": "7"}, "error": "mailbox full"},
        {"to": "cy", "items": [{"sku": "a"}], "result": {"receipt": "r-1"}},
    )
    waiting = await emails.add("welcome-1", {"to": "ann"})
    late = await emails.add("welcome-2", {"to": None}, delay="1h")
    first, second, third = (job.id for job in ended)

    async def found(*arguments: str) -> list[str]:
        return ids(await cli.json("job", "ls", "emails", *arguments))

    assert set(await found()) == {first, second, third, waiting.id, late.id}
    assert await found("--state", "failed") == [second, first]  # the latest first
    assert await found("-s", "completed,delayed") == [third, late.id]
    assert await found("--name", "welcome-*") == [waiting.id, late.id]
    assert await found("--error", "CONNECTION refused") == [first]
    assert await found("--where", "data.to=ann", "--state", "failed") == [first]
    assert await found("--where", "data.user.id=7", "-s", "failed") == [second, first]  # a text, and a number
    assert await found("--where", 'data.user.id="7"') == [second]
    assert await found("--where", "data.items.0.sku=a") == [third]
    assert await found("--where", "result.receipt=r-1") == [third]
    assert await found("--where", "data.to=null") == [late.id]
    assert await found("--older-than", "1h") == []
    assert len(await found("--newer-than", "1h")) == 5
    limited = await cli("job", "ls", "emails", "--limit", "2")
    assert (len(limited.rows), "there are more" in limited.err) == (3, True)
    table = (await cli("job", "ls", "emails", "--state", "failed")).rows
    assert table[0] == ["id", "name", "state", "age", "tries", "data", "or", "error"]
    assert table[1][:3] == [second, "send", "failed"]
    assert "mailbox full" in " ".join(table[1])
    assert "no job of this kind" in (await cli("job", "ls", "emails", "--name", "nobody")).err
    assert "did you mean failed?" in await cli.error("job", "ls", "emails", "--state", "faild", code=2)
    assert "write data.path.to=value" in await cli.error("job", "ls", "emails", "--where", "to=ann", code=2)


async def test_one_job_is_shown_with_all_that_is_known_of_it(cli: Cli, emails: Queue) -> None:
    done, failed = await run_all(emails, {"to": "ann", "result": 5}, {"to": "bob", "error": "mailbox \x1b[31mfull"})
    document = await cli.json("job", "show", "emails", done.id)
    await done.refresh()
    assert document == {
        "id": done.id,
        "name": "send",
        "queue": "emails",
        "state": "completed",
        "data": {"to": "ann", "result": 5},
        "options": {"attempts": 0},
        "priority": 0,
        "attempts_made": 1,
        "attempts_started": 1,
        "attempts_allowed": 1,
        "stalled_count": 0,
        "progress": 0,
        "added_at": done.timestamp.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "added_at_ms": done.timestamp_ms,
        "due_at": None,
        "due_at_ms": None,
        "started_at": document["started_at"],
        "started_at_ms": done.processed_at_ms,
        "ended_at": document["ended_at"],
        "ended_at_ms": done.finished_at_ms,
        "waited_ms": (done.processed_at_ms or 0) - done.timestamp_ms,
        "ran_ms": (done.finished_at_ms or 0) - (done.processed_at_ms or 0),
        "worker": "the worker",
        "error": None,
        "result": 5,
        "parent": None,
        "scheduler_id": None,
        "deduplication_id": None,
        "stack_trace": [],
    }
    shown = (await cli("job", "show", "emails", failed.id)).out
    assert r"mailbox \x1b[31mfull" in shown
    assert "UnrecoverableError" in shown
    assert await cli.json("job", "logs", "emails", done.id) == {
        "queue": "emails", "id": done.id, "total": 2, "rows": ["one row", "another"],
    }  # fmt: skip
    assert (await cli("job", "logs", "emails", done.id, "--tail", "1")).out == "another\n"
    assert "nothing was logged" in (await cli("job", "logs", "emails", failed.id)).err
    assert (await cli.error("job", "show", "emails", "404", code=1)).startswith("error: job 404 of queue 'emails' does not exist")


async def test_a_job_is_added(cli: Cli, emails: Queue) -> None:
    await emails.add("a", 1)
    document = await cli.json(
        "job", "add", "emails", "send", '{"to": "ann"}', "--delay", "1h", "--priority", "3", "--attempts", "5", "--id", "my-own"
    )
    assert (document["id"], document["state"], document["data"]) == ("my-own", "delayed", {"to": "ann"})
    assert document["due_at_ms"] == document["added_at_ms"] + 3_600_000
    job = await emails.get_job("my-own")
    assert (job.priority, job.options.attempts) == (3, 5)
    from_input = await cli("job", "add", "emails", "send", "-", stdin="[1, 2]")
    assert from_input.out.startswith("added job ")
    assert "the data is no JSON" in await cli.error("job", "add", "emails", "send", "{to: ann}", code=2)
    assert "not a duration" in await cli.error("job", "add", "emails", "send", "{}", "--delay", "soon", code=2)
    before = await emails.count()
    assert "a bare number has no unit" in await cli.error("job", "add", "emails", "send", "{}", "--wait", "5", code=2)
    assert await emails.count() == before
    refused = await cli("job", "add", "emial", "send", code=1)
    assert "did you mean emails?" in refused.err
    assert "--new-queue" in refused.err
    await cli("job", "add", "fresh", "send", "--new-queue")
    async with Worker(emails, handle):
        assert (await cli("job", "add", "emails", "send", '{"result": {"ok": true}}', "--wait", "20s")).out == '{"ok": true}\n'
        failed = await cli.error("job", "add", "emails", "send", r'{"error": "boom\u001b[31m"}', "--wait", "20s", code=1)
        assert r"boom\x1b[31m" in failed


async def test_jobs_that_are_named_are_retried_promoted_cancelled_and_removed(cli: Cli, emails: Queue) -> None:
    (failed, done) = await run_all(emails, {"error": "boom"}, {"result": 1})
    late = await emails.add("late", {}, delay="1h")
    await emails.pause()
    assert (await cli("job", "retry", "emails", failed.id)).out == "1 job retried\n"
    assert await failed.get_state() == "waiting"
    assert (await cli("job", "promote", "emails", late.id)).out == "1 job promoted\n"
    document = await cli.json("job", "retry", "emails", failed.id, done.id, "404", code=1)
    assert document == {
        "action": "retry",
        "queue": "emails",
        "matched": 1,
        "done": 1,
        "skipped": [
            {"id": failed.id, "reason": "it is waiting, and not failed or completed"},
            {"id": "404", "reason": "there is no such job"},
        ],
        "is_dry_run": False,
    }
    assert "this would cancel 1 job of queue emails" in await cli.error("job", "cancel", "emails", late.id, code=2)
    assert (await cli("job", "cancel", "emails", late.id, "--reason", "by mistake", "--yes")).out == "1 job cancelled\n"
    await late.refresh()
    assert late.failed_reason == "cancelled: by mistake"
    assert (await cli("job", "rm", "emails", late.id, "--dry-run")).out == "1 job would be removed\n"
    assert (await cli("job", "rm", "emails", late.id, done.id, "--yes")).out == "2 jobs removed\n"
    assert await emails.find_job(late.id) is None


async def test_promoting_warns_of_names_that_nobody_handles(cli: Cli, emails: Queue) -> None:
    await emails.pause()  # or the worker would put it back meanwhile

    async def promoted(name: str) -> str:
        job = await emails.add(name, delay="1h")
        done = await cli("job", "promote", "emails", job.id)
        assert (done.out, await job.get_state()) == ("1 job promoted\n", "waiting")
        return done.err

    async with Worker(emails, {"send": handle}):
        assert await promoted("send") == ""
        assert (await promoted("sned")).startswith("warning: no connected worker handles 'sned': ")
    assert await promoted("sned") == ""  # where no worker is, nobody knows


async def test_all_that_a_filter_finds_is_retried(cli: Cli, emails: Queue) -> None:
    await run_all(emails, *({"error": "refused" if number % 2 else "full", "n": number} for number in range(120)))
    await emails.pause()
    refused = "this would retry 60 jobs of queue emails"
    assert refused in await cli.error("job", "retry", "emails", "--all", "--error", "refused", code=2)
    document = await cli.json("job", "retry", "emails", "--all", "--error", "refused", "--limit", "55", "--yes")
    assert (document["matched"], document["done"], document["skipped"]) == (55, 55, [])
    assert await emails.get_failed_count() == 65
    document = await cli.json("job", "retry", "emails", "--all", "--error", "refused", "--yes")  # goes on with the rest
    assert (document["matched"], document["done"]) == (5, 5)
    code, shown = await cli.in_terminal("job", "rm", "emails", "--all", "--state", "failed", "--where", "data.n=2", typed="y\n")
    assert (code, "This will remove 1 job of queue emails." in shown, "1 job removed" in shown) == (0, True, True)
    assert (await cli.json("job", "cancel", "emails", "--all", "-s", "waiting", "--dry-run"))["matched"] == 60
    for arguments, told in (
        (["retry", "emails"], "name the jobs to retry by their ids, or write --all"),
        (["retry", "emails", "1", "--all"], "name the jobs to retry by their ids, or write --all"),
        (["retry", "emails", "1", "--error", "x"], "filters go with --all"),
        (["rm", "emails", "--all"], "say with --state which jobs to remove: waiting, delayed"),
        (["promote", "emails", "--all", "--state", "failed"], "--state failed: such jobs can't be promoted; those that can are delayed"),
    ):
        assert told in await cli.error("job", *arguments, code=2)


async def test_an_interrupted_bulk_can_be_run_again(cli: Cli, emails: Queue, toril_server_url: str) -> None:
    await emails.add_many([emails.job("late", {"n": number}, delay="1h") for number in range(300)])
    async with Proxy(toril_server_url) as proxy:
        proxy.decide = nth(120, is_script("promote"), Cut.HOLD)
        interrupted = Cli(cli.folder, cli.environment | {"REDIS_URL": proxy.url})
        async with interrupted.running("job", "promote", "emails", "--all", "--yes") as process:
            await proxy.happened.wait()
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
    assert process.returncode == 130
    assert b"at least 100 of 300 jobs are promoted; the same command goes on with the rest" in err
    document = await cli.json("job", "promote", "emails", "--all", "--yes")
    assert 150 <= document["done"] <= 180  # of the third batch some have been promoted, and nobody has heard of it
    assert await emails.get_waiting_count() == 300


async def test_a_command_that_reads_its_input_can_be_interrupted(cli: Cli, emails: Queue) -> None:
    await emails.add("a", {})
    its, ours = os.pipe()
    os.write(ours, b"[1, ")
    async with cli.running("job", "add", "emails", "send", "-", stdin=its) as process:

        async def reads() -> None:
            assert process.returncode is None
            unread = fcntl.ioctl(its, termios.FIONREAD, bytes(4))
            assert int.from_bytes(unread, sys.byteorder) == 0

        await eventually(reads)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    os.close(its)
    os.close(ours)
    assert (process.returncode, err) == (130, b"interrupted\n")
    assert await emails.count() == 1


async def test_a_command_that_waits_can_be_interrupted(cli: Cli, emails: Queue) -> None:
    await emails.add("a", {})
    async with cli.running("job", "add", "emails", "send", "--wait", "10m") as process:

        async def is_added() -> None:
            assert await emails.get_waiting_count() == 2

        await eventually(is_added)
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    assert (process.returncode, out, err) == (130, b"", b"interrupted\n")
