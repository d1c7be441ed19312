"""`toril queue pause|resume|drain|clean|obliterate|limits`: what they do, say, ask and refuse."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tests.cli.command import Cli
from tests.proxy import Proxy, is_script
from toril import Job, Queue, Worker


async def nothing(job: Job) -> None: ...


async def test_queues_are_paused_and_resumed(cli: Cli, emails: Queue, queue_of: Callable[[str], Queue]) -> None:
    await emails.add("a", 1)
    await queue_of("images").add("a", 1)
    assert (await cli("queue", "pause", "emails")).out == "queue emails is paused: running jobs go on, adding goes on\n"
    assert await emails.is_paused()
    document = await cli.json("queue", "pause", "--all")
    assert document == {"queues": [{"queue": "emails", "is_paused": True}, {"queue": "images", "is_paused": True}]}
    assert (await cli("queue", "resume", "images", "emails")).out == "queue images is not paused\nqueue emails is not paused\n"
    assert not await emails.is_paused()
    assert "name the queues, or write --all" in await cli.error("queue", "pause", code=2)
    assert "name the queues, or write --all" in await cli.error("queue", "pause", "emails", "--all", code=2)


async def test_a_queue_is_drained_after_asking(cli: Cli, emails: Queue) -> None:
    for number in range(3):
        await emails.add("a", number)
    await emails.add("a", 4, delay="1h")
    assert await cli.json("queue", "drain", "emails", "--dry-run") == {"queue": "emails", "removed": 3, "is_dry_run": True}
    line = await cli.error("queue", "drain", "emails", code=2)
    assert line.startswith("error: this would remove 3 jobs (3 waiting) of queue emails; standard input is no terminal")
    assert "--yes" in line
    code, shown = await cli.in_terminal("queue", "drain", "emails", typed="n\n")
    assert (code, "This will remove 3 jobs (3 waiting) of queue emails." in shown, "nothing was done" in shown) == (1, True, True)
    code, shown = await cli.in_terminal("queue", "drain", "emails", interrupted_after="Go on?")
    assert (code, "interrupted" in shown) == (130, True)
    assert await emails.count() == 4
    code, shown = await cli.in_terminal("queue", "drain", "emails", "--delayed", typed="maybe\nY\n")
    assert shown.count("Go on? [y/N]: ") == 2
    assert (code, "4 jobs of queue emails removed" in shown, await emails.count()) == (0, True, 0)


async def test_a_job_kept_by_damage_is_named_and_others_are_cleaned(cli: Cli, emails: Queue, queue_of: Callable[[str], Queue]) -> None:
    images = queue_of("images")
    parent = await images.add("parent", 0)
    kept = await emails.add("a", 1, parent=parent)
    await emails.server.commands.call("DEL", images.keys.job(f"{parent.id}:dependencies"))
    await emails.server.commands.call("SET", images.keys.job(f"{parent.id}:dependencies"), "?")
    for work, *options in (("clean", "--older-than", "0s", "--state", "waiting"), ("drain",), ("obliterate",)):
        await emails.add("a", 2)
        run = await cli("queue", work, "emails", *options, "--yes", code=1)
        assert run.out.startswith("1 jobs of queue emails removed")
        assert f"error: {work} of queue 'emails' has left 1 job as before, and done all others: job {kept.id}, since the key " in run.err
        assert [job.id for job in await emails.get_waiting()] == [kept.id]
        await emails.add("a", 3)
        assert (await cli.json("queue", work, "emails", *options, "--yes", code=1))["removed"] == 1
    last = [await emails.add("a", number) for number in range(3)][-1]
    run = await cli("queue", "clean", "emails", "--older-than", "0s", "--state", "waiting", "--limit", "2", "--yes", code=1)
    assert run.out == "2 jobs of queue emails removed\n"
    assert [job.id for job in await emails.get_waiting()] == [kept.id, last.id]


async def test_a_clean_goes_through_the_jobs_once_and_by_the_thousand(cli: Cli, emails: Queue, toril_server_url: str) -> None:
    before = datetime.now(UTC) - timedelta(days=1)
    young = [emails.job("young", delay="1h") for _ in range(1_500)]
    old = [emails.job("old", delay="3d", timestamp=before) for _ in range(2_500)]
    await emails.add_many([*young, *old])
    async with Proxy(toril_server_url) as proxy:
        cli.environment["REDIS_URL"] = proxy.url
        document = await cli.json("queue", "clean", "emails", "--state", "delayed", "--older-than", "1h", "--yes")
        steps = [command for command in proxy.commands if is_script("clean")(command)]
    assert (document["removed"], await emails.get_delayed_count(), len(steps)) == (2_500, 1_500, 5)


async def test_old_jobs_are_cleaned(cli: Cli, emails: Queue) -> None:
    jobs = [await emails.add("a", number) for number in range(5)]
    async with Worker(emails, nothing):
        for job in jobs:
            await job.result(timeout="10s")
    assert (await cli.json("queue", "clean", "emails", "--older-than", "1h", "--dry-run"))["removed"] == 0
    assert (await cli.json("queue", "clean", "emails", "--older-than", "0s", "--dry-run", "--limit", "3"))["removed"] == 3
    assert "remove up to 2 completed jobs of queue emails (there are 5)" in await cli.error(
        "queue", "clean", "emails", "--older-than", "0s", "--limit", "2", code=2
    )
    assert (await cli("queue", "clean", "emails", "--older-than", "0s", "--limit", "2", "--yes")).out == "2 jobs of queue emails removed\n"
    assert (await cli.json("queue", "clean", "emails", "--older-than", "0s", "--yes"))["removed"] == 3
    assert "clean one state at a time" in await cli.error("queue", "clean", "emails", "--older-than", "0s", "--state", "active", code=2)
    assert "did you mean completed?" in await cli.error("queue", "clean", "emails", "--older-than", "0s", "--state", "complete", code=2)
    assert "a bare number has no unit" in await cli.error("queue", "clean", "emails", "--older-than", "5", code=2)


async def test_a_queue_is_obliterated(cli: Cli, emails: Queue) -> None:
    await emails.add("a", 1)
    assert (
        "queue emails would be removed, with 1 jobs (1 waiting) and 0 schedules"
        in (await cli("queue", "obliterate", "emails", "--dry-run")).out
    )
    document = await cli.json("queue", "obliterate", "emails", "--yes")
    assert (document["removed"], document["counts"]["waiting"], document["schedules"]) == (1, 1, 0)
    assert "there is no queue 'emails'" in await cli.error("queue", "show", "emails", code=1)


async def test_limits_are_shown_set_and_taken_away(cli: Cli, emails: Queue) -> None:
    await emails.add("a", 1)
    out = (await cli("queue", "limits", "emails", "--concurrency", "3", "--rate", "10/1s")).out
    assert "3 at once, over all workers" in out
    assert "10 in 1s, over all workers" in out
    assert await emails.get_global_concurrency() == 3
    await emails.rate_limit("1h")
    assert "notice within 30 s" in (await cli("queue", "limits", "emails", "--rate", "5/1s")).err
    assert (await cli("queue", "limits", "emails", "--concurrency", "3")).err == ""
    document = await cli.json("queue", "limits", "emails", "--concurrency", "none", "--rate", "none", "--reset")
    assert document == {"queue": "emails", "limits": {"concurrency": None, "rate": None, "limited_for_ms": 0}}
    for wrong in ("lots", "0"):
        assert "write a whole number from 1 on, or none" in await cli.error("queue", "limits", "emails", "--concurrency", wrong, code=2)
    assert "such as 10/1s" in await cli.error("queue", "limits", "emails", "--rate", "10", code=2)
    assert "a bare number has no unit" in await cli.error("queue", "limits", "emails", "--concurrency", "3", "--rate", "10/1", code=2)
    assert await emails.get_global_concurrency() is None


async def test_orphaned_jobs_are_shown_and_removed(cli: Cli, emails: Queue) -> None:
    kept = await emails.add("kept", {})
    lost = [await emails.add("lost", {"number": number}) for number in range(25)]
    assert "no orphaned job" in (await cli("queue", "orphans", "emails")).err
    for job in lost:
        await emails.server.commands_of(emails.keys).call("LREM", emails.keys.state("wait"), 1, job.id)
    fix = next(one for one in (await cli.json("doctor", code=1))["findings"] if one["check"] == "keys")["fix"]
    assert fix.startswith("toril queue orphans emails shows them")
    document = await cli.json("queue", "orphans", "emails")
    assert (document["found"], document["removed"]) == (25, 0)
    assert [(one["id"], one["state"], one["data"]) for one in document["jobs"]] == [
        (job.id, None, {"number": number}) for number, job in enumerate(lost[:20])
    ]
    shown = await cli("queue", "orphans", "emails")
    assert (len(shown.rows), shown.err) == (21, "there are 25, 20 are shown\n")
    line = await cli.error("queue", "orphans", "emails", "--remove", code=2)
    assert line.startswith("error: this would remove 25 jobs in no state of queue emails; ")
    assert await emails.find_job(lost[0].id) is not None
    assert (await cli("queue", "orphans", "emails", "--remove", "--yes")).out == "25 jobs in no state of queue emails removed\n"
    assert await emails.find_orphaned_jobs() == []
    assert await emails.find_job(lost[0].id) is None
    assert await kept.get_state() == "waiting"
