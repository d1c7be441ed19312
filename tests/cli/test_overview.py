"""`toril workers`, `stats`, `check`, `flow show` and `dlq …`: what goes on over all queues, and what hangs together."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tests.cli.command import Cli
from toril import FlowProducer, Job, Queue, UnrecoverableError, Worker, WorkerOptions, flow_job, handler
from toril.testing import eventually
from toril.wire.connection import Server


async def nothing(job: Job) -> None: ...


async def fail(job: Job) -> None:
    raise UnrecoverableError(str(job.data))


async def test_workers_are_listed_ours_and_others(cli: Cli, emails: Queue) -> None:
    running, may_end = asyncio.Event(), asyncio.Event()

    async def hold(job: Job) -> None:
        running.set()
        await may_end.wait()

    await emails.add("hold", {})
    assert "no worker is connected" in (await cli("workers")).err
    handlers = [handler(hold, "hold"), handler(nothing, "welcome")]
    node_names = ("node-1", None, None)
    nodes = [emails.server.connection(emails.keys, emails.keys.client_name(name)) for name in node_names]
    for node in nodes:
        await node.connect()
    async with Worker(emails, handlers, WorkerOptions(name="w 1 é", concurrency=3)) as worker:
        await running.wait()
        ours, *others = (await cli.json("workers", "emails"))["workers"]
        rows = (await cli("workers")).rows
        may_end.set()
    for node in nodes:
        await node.aclose()
    for field in ("started_at", "started_at_ms", "seen_at", "seen_at_ms", "version", "address"):
        assert ours.pop(field), field
    assert abs(ours.pop("clock_off_ms")) < 5_000
    assert ours == {
        "queue": "emails",
        "kind": "toril",
        "name": "w 1 é",
        "id": worker.id,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "handlers": ["hold", "welcome"],
        "handles_all": False,
        "roles": [],
        "concurrency": 3,
        "running": 1,
        "is_connected": True,
    }
    assert sorted(str(one["name"]) for one in others) == ["None", "None", "node-1"]
    assert all((one["kind"], one["handlers"], one["roles"], one["is_connected"]) == ("other", None, None, True) for one in others)
    assert rows[1][:9] == ["emails", "w", "1", "é", socket.gethostname(), str(os.getpid()), "1/3", "hold,", "welcome"]


async def test_speed_and_waits_are_shown(cli: Cli, emails: Queue) -> None:
    jobs = [await emails.add("a", number) for number in range(5)]
    async with Worker(emails, [handler(nothing, "a"), handler(fail, "b")]):
        for job in jobs:
            await job.result(timeout="10s")
    waiting = await emails.add("a", 6)
    document = await cli.json("stats", "emails")
    (stats,) = document["queues"]
    assert (stats["completed_per_minute"], stats["failed_per_minute"], stats["counted_by"]) == (5.0, 0.0, "kept jobs")
    assert 0 <= stats["run_ms"]["median"] <= stats["run_ms"]["p95"] < 10_000
    assert 0 <= stats["oldest_waiting_ms"] - (document["measured_at_ms"] - waiting.timestamp_ms) < 1_000
    assert (await cli("stats")).rows[1][:6] == ["emails", "1", "0", "0", "0", "5"]
    watched = await cli.interrupted("stats", "--watch", "0.2", after=b"emails")
    assert (watched.code, watched.err) == (130, "interrupted\n")
    assert "--watch is for people" in await cli.error("stats", "--watch", "1", "--json", code=2)


async def test_a_check_tells_with_its_code_which_limits_are_passed(cli: Cli, emails: Queue, queue_of: Callable[[str], Queue]) -> None:
    await emails.add("a", 1)
    await emails.add("a", 2)
    await queue_of("images").pause()
    await queue_of("images").add("a", 1)
    assert (await cli("check")).out.startswith("ok: ")
    document = await cli.json(
        "check", "--max-waiting", "1", "--max-age", "0s", "--max-failed", "0", "--min-workers", "1", "--not-paused", code=1
    )
    assert (document["is_ok"], document["queues"]) == (False, ["emails", "images"])
    found = {(one["queue"], one["check"]): (one["value"], one["limit"]) for one in document["problems"]}
    assert found[("emails", "max_waiting")] == (2, 1)
    assert set(found) == {
        ("emails", "max_waiting"),
        ("emails", "max_age"),
        ("emails", "min_workers"),
        ("images", "max_age"),
        ("images", "min_workers"),
        ("images", "not_paused"),
    }
    assert (await cli("check", "emails", "--max-waiting", "1", code=1)).out == "emails: 2 jobs wait, at most 1 may\n"
    assert (await cli.json("check", "emails", "--max-waiting", "2", "--max-age", "1h"))["is_ok"] is True
    assert "nothing else was looked at" in (await cli("check")).out
    assert "are within these limits" in (await cli("check", "--max-waiting", "2")).out
    await cli.error("check", "--redis-url", "redis://127.0.0.1:1", code=3)
    await cli.error("check", "emial", code=1)


async def test_a_check_finds_queues_whose_jobs_nobody_handles(cli: Cli, emails: Queue, queue_of: Callable[[str], Queue]) -> None:
    await queue_of("letters").add("failed-job", {})  # a dead letter waits for people
    await cli("check", "--handled")
    await emails.add("invoice", {})
    assert (await cli("check", "--handled", code=1)).out == "emails: no running worker handles 'invoice' (1 job)\n"
    await emails.pause()  # so that the worker takes nothing
    async with Worker(emails, [handler(nothing, "welcome")]):
        (problem,) = (await cli.json("check", "emails", "--handled", code=1))["problems"]
        assert problem == {"queue": "emails", "check": "handled", "value": 1, "limit": 0}
    async with Worker(emails, [handler(nothing, "welcome"), handler(nothing, "invoice")]):
        assert (await cli.json("check", "--handled"))["is_ok"] is True


async def test_a_check_finds_jobs_that_a_worker_has_put_back_since_it_does_not_know_them(cli: Cli, emails: Queue) -> None:
    await emails.add("invoice", {})
    async with Worker(emails, [handler(nothing, "welcome")]):

        async def is_put_back() -> None:
            assert await emails.get_delayed_count() == 1

        await eventually(is_put_back)
        assert (await cli("check", "--handled", code=1)).out == "emails: no running worker handles 'invoice' (1 job)\n"


async def test_without_a_worker_a_check_finds_delayed_jobs_whose_time_has_come(cli: Cli, emails: Queue) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    await emails.add("reminder", {}, delay="3h", timestamp=long_ago)
    assert (await cli("check", "--handled")).out.count("1 queue is within these limits") == 1
    await emails.add("reminder", {}, delay="1h", timestamp=long_ago)
    assert (await cli("check", "--handled", code=1)).out == "emails: no running worker handles 'reminder' (1 job)\n"


async def test_a_flow_is_shown_as_a_tree(cli: Cli, emails: Queue, server: Server, prefix: str) -> None:
    async with FlowProducer(prefix=prefix, server=server) as flows:
        children = [flow_job("fetch", {"n": number}, queue="emails") for number in range(3)]
        node = await flows.add(flow_job("render", {}, queue="emails", children=[*children, flow_job("resize", {}, queue="images")]))
    async with Worker(emails, [handler(nothing, "fetch"), handler(nothing, "render")]) as worker:
        await worker.wait_until_idle()
    root, resize = node.job, node.children[-1].job
    document = await cli.json("flow", "show", "images", resize.id, "--root")
    assert (document["id"], document["name"], document["state"], document["is_asked_for"]) == (root.id, "render", "waiting-children", False)
    assert document["children_counts"] == {"processed": 3, "unprocessed": 1, "ignored": 0, "failed": 0}
    by_id = {child["id"]: child for child in document["children"]}
    assert (by_id[resize.id]["queue"], by_id[resize.id]["state"], by_id[resize.id]["is_asked_for"]) == ("images", "waiting", True)
    assert [child["state"] for child in document["children"]].count("completed") == 3
    lines = (await cli("flow", "show", "emails", root.id, "--children", "2")).out.splitlines()
    assert lines[0].startswith("render waiting-children  emails ")
    assert len(lines) == 4
    assert "and 2 more" in lines[-1]
    assert (await cli.json("flow", "show", "images", resize.id))["name"] == "resize"
    await cli.error("flow", "show", "emails", "404", code=1)


async def test_dead_letters_are_listed_replayed_and_purged(cli: Cli, queue_of: Callable[[str], Queue], server: Server, prefix: str) -> None:
    letters = queue_of("letters")
    for name in ("emails", "images"):
        queue = Queue(name, prefix=prefix, server=server, dead_letter=letters)
        await queue.add_many([queue.job("send", f"{'refused' if n % 2 else 'full'} {name} {n}") for n in range(4)])
        async with Worker(queue, fail) as worker:
            await worker.wait_until_idle()
    document = await cli.json("dlq", "ls", "letters", "--from", "emails", "--error", "REFUSED")
    assert [one["error"] for one in document["letters"]] == ["refused emails 1", "refused emails 3"]
    first = document["letters"][0]
    assert (first["from_queue"], first["name"], first["attempts"], first["from_prefix"]) == ("emails", "send", 1, prefix)
    listed = await cli("dlq", "ls", "letters", "--limit", "3")
    assert (len(listed.rows), "there are more" in listed.err) == (4, True)
    assert (await cli("dlq", "replay", "letters", first["id"])).out == "1 letter replayed\n"
    assert await queue_of("emails").get_waiting_count() == 1
    assert "this would replay 3 letters of queue letters" in await cli.error(
        "dlq", "replay", "letters", "--all", "--from", "emails", code=2
    )
    done = await cli.json("dlq", "replay", "letters", "--all", "--from", "emails", "--error", "full", "--yes")
    assert (done["action"], done["matched"], done["done"]) == ("replay", 2, 2)
    assert "this would purge 1 letter of queue letters" in await cli.error("dlq", "purge", "letters", "--all", "--from", "emails", code=2)
    purged = await cli.json("dlq", "purge", "letters", "--all", "--older-than", "0s", "--yes")
    assert (purged["done"], await letters.count()) == (5, 0)
    other = await letters.add("no letter", {})
    assert "no dead letter" in (await cli("dlq", "ls", "letters")).err
    assert "it is no dead letter" in (await cli("dlq", "purge", "letters", other.id, "--yes", code=1)).err
