"""`toril schedule …`."""

from __future__ import annotations

from tests.cli.command import Cli
from toril import Queue, ScheduleRule
from toril.modules.reconciling import Reconciler
from toril.wire.connection import Server

APPLICATION = """
from toril import ConfigModule, ScheduleModule, TorilSettings, cron, interval, module

class Crons:
    @cron("0 3 * * *", name="nightly", tz="Europe/Berlin")
    async def nightly(self) -> None: ...
    @interval("5m", name="often")
    async def often(self) -> None: ...

@module(imports=[ConfigModule.for_root(TorilSettings), ScheduleModule.for_root(owner="shop")], providers=[Crons])
class AppModule: ...
"""


async def test_schedules_are_listed_run_paused_resumed_and_removed(cli: Cli, emails: Queue) -> None:
    await emails.job_schedulers.upsert("digest", ScheduleRule(every="1h", limit=9), name="send", data={"kind": "digest"})
    await emails.job_schedulers.upsert("nightly", ScheduleRule(pattern="0 3 * * *", tz="Europe/Berlin"))
    by_id = {one["id"]: one for one in (await cli.json("schedule", "ls"))["schedules"]}
    digest = by_id["digest"]
    assert (by_id["nightly"]["rule"], digest["rule"], digest["every_ms"]) == ("0 3 * * * Europe/Berlin", "every 1h", 3_600_000)
    assert (digest["name"], digest["data"], digest["is_paused"], digest["has_next_job"]) == ("send", {"kind": "digest"}, False, True)
    assert digest["next_at_ms"] == (await emails.job_schedulers.get("digest")).next_ms
    ran = await cli.json("schedule", "run", "emails", "digest")
    assert (ran["name"], ran["data"], ran["state"]) == ("send", {"kind": "digest"}, "waiting")
    assert "toril schedule resume emails nightly lets it go on" in (await cli("schedule", "pause", "emails", "nightly")).out
    await cli("schedule", "pause", "emails", "nightly")  # twice is harmless
    listed = await cli("schedule", "ls", "emails")
    assert ["emails", "nightly", "0", "3", "*", "*", "*", "Europe/Berlin", "paused"] in [row[:9] for row in listed.rows]
    assert await emails.job_schedulers.find("nightly") is None
    assert "runs next in " in (await cli("schedule", "resume", "emails", "nightly")).out
    assert (await emails.job_schedulers.get("nightly")).tz == "Europe/Berlin"
    refused = await cli.error("schedule", "rm", "emails", "digest", code=2)
    assert refused.startswith("error: this would remove schedule digest (every 1h) of queue emails")
    assert refused.endswith("add --yes to do it")  # and no option that it hasn't
    assert await cli.json("schedule", "rm", "emails", "digest", "--yes") == {"queue": "emails", "id": "digest", "is_removed": True}
    assert await emails.job_schedulers.find("digest") is None
    assert "did you mean nightly?" in await cli.error("schedule", "pause", "emails", "nigthly", code=1)


async def test_the_code_is_compared_with_the_server(cli: Cli, server: Server, prefix: str) -> None:
    (cli.folder / "things.py").write_text(APPLICATION)
    cli.environment["TORIL_APP"] = "things:AppModule"
    queue = Queue("schedules", prefix=prefix, server=server)
    nightly, often = ScheduleRule(pattern="0 3 * * *", tz="Europe/Berlin"), ScheduleRule(every="5m")
    document = await cli.json("schedule", "diff", code=1)
    assert (document["owner"], document["queue"], document["declared"]) == ("shop", "schedules", 2)
    assert [(one["id"], one["kind"]) for one in document["differences"]] == [("nightly", "missing"), ("often", "missing")]
    await Reconciler(queue, "shop", None).reconcile({"nightly": nightly, "often": often})
    assert "are in the server as they are declared" in (await cli("schedule", "diff")).out
    await Reconciler(queue, "shop", None).reconcile({"nightly": ScheduleRule(pattern="0 4 * * *"), "often": often, "old": often})
    await queue.job_schedulers.pause("often")
    await queue.job_schedulers.upsert("somebody else's", often)
    document = await cli.json("schedule", "diff", code=1)
    assert document["differences"] == [
        {"id": "nightly", "kind": "changed", "declared": "0 3 * * * Europe/Berlin", "stored": "0 4 * * *"},
        {"id": "often", "kind": "paused", "declared": "every 5m", "stored": None},
        {"id": "old", "kind": "vanished", "declared": None, "stored": "every 5m"},
    ]
    assert "no longer declared" in (await cli("schedule", "diff", code=1)).out
    del cli.environment["TORIL_APP"]
    assert "only an application with a ScheduleModule" in await cli.error("schedule", "diff", code=2)
