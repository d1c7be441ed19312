"""The situations. Each is a function that brings a stage into trouble; its docstring is what the person who calls says of it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.scenarios.stage import HOUR_MS, PREFIX, Stage
from toril import JobOptions
from toril.testing import eventually

YESTERDAY: Final = "tests.scenarios.application:YesterdaysModule"
MANY: Final = 1_200


@dataclass(frozen=True, slots=True)
class Situation:
    """One of them."""

    set_up: Callable[[Stage], Awaitable[None]]
    server: Mapping[str, str] = field(default_factory=dict[str, str])
    """Settings of its server."""

    @property
    def call(self) -> str:
        """What the person says who calls."""
        return (self.set_up.__doc__ or "").strip()


async def stuck_queue(stage: Stage) -> None:
    """No mail has gone out for an hour. The worker runs, its log is quiet."""
    async with stage.queue("emails") as emails:
        await emails.add_many([emails.job("welcome", {"to": f"{number}@example.com"}) for number in range(12)])
        taken = await emails.add("welcome", {"to": "taken@example.com"}, lifo=True)
        call = stage.server.commands_of(emails.keys).call
        await call("RPOPLPUSH", emails.keys.state("wait"), emails.keys.state("active"))  # its worker was killed, and none came after it
        await call("HSET", emails.keys.job(taken.id), "processedOn", taken.timestamp_ms, "ats", 1)
        await stage.age(emails, HOUR_MS)
    await stage.start_worker("--queues", "images", "--roles", "worker")


async def no_handler(stage: Stage) -> None:
    """Customers have paid, and get no invoice since the deploy this afternoon. Other mails come."""
    await stage.start_worker("--roles", "worker", module=YESTERDAY)
    async with stage.queue("emails") as emails:
        jobs = await emails.add_many([emails.job("invoice", {"number": number}) for number in range(5)])
        await emails.add("welcome", {"to": "ann@example.com"})

        async def are_put_back() -> None:
            assert await emails.get_delayed_count() == len(jobs)

        await eventually(are_put_back, timeout="20s")


async def poison_job(stage: Stage) -> None:
    """The image workers restart again and again, and pictures are late."""
    async with stage.queue("images") as images:
        await images.add("render", {"picture": "broken.tiff"}, job_id="broken-tiff")

        async def is_given_up() -> None:
            assert await images.find_state("broken-tiff") == "failed"

        for _ in range(2):
            worker = await stage.start_worker("--queues", "images", "--roles", "worker")
            assert await worker.wait() == -signal.SIGSEGV
        await stage.start_worker("--queues", "images", "--roles", "worker")
        await eventually(is_given_up, timeout="20s")


async def clock_off(stage: Stage) -> None:
    """Reminders go out a minute late, since that new machine is there. Everything else is fine."""
    async with stage.queue("emails") as emails:
        await stage.start(sys.executable, "-m", "tests.scenarios.wrong_clock", stage.own.url, PREFIX, "emails")
        for number in range(3):
            await (await emails.add("welcome", {"to": f"{number}@example.com"})).result(timeout="10s")


async def evicting_server(stage: Stage) -> None:
    """Some customers never got their mail. There is no error anywhere."""
    async with stage.queue("emails") as emails:
        for _ in range(80):
            await emails.add_many([emails.job("welcome", {"to": "x@example.com", "text": "x" * 4_000}) for _ in range(20)])
        # Which keys go is chance; here the list of those that wait is among them in any case.
        await stage.server.commands_of(emails.keys).call("DEL", emails.keys.state("wait"))
        await emails.add("welcome", {"to": "y@example.com"})
    assert (await stage.own.ask("INFO", "stats"))["evicted_keys"] > 0


async def forgotten_rate_limit(stage: Stage) -> None:
    """Mails take hours, since last week's trouble with the mail provider. The workers are idle."""
    async with stage.queue("emails") as emails:
        await emails.set_global_rate_limit(1, "30m")
        await emails.add_many([emails.job("welcome", {"to": f"{number}@example.com"}) for number in range(30)])
        await stage.age(emails, 3 * HOUR_MS)
        await stage.start_worker("--roles", "worker")

        async def is_used_up() -> None:
            assert await emails.get_completed_count() == 1

        await eventually(is_used_up, timeout="20s")


async def vanished_schedule(stage: Stage) -> None:
    """There was no nightly report for two days."""
    await stage.run_burst("--roles", "scheduler")  # once it was declared
    async with stage.queue("schedules") as schedules:
        assert await schedules.job_schedulers.remove("nightly-report")  # and somebody tidied up
    await stage.start_worker("--roles", "worker")  # what runs now has another role


async def blocked_worker(stage: Stage) -> None:
    """Videos are stuck, and pictures behind them, too. The worker uses no CPU, its process is there, and no job fails."""
    async with stage.queue("images") as images:
        await images.add("encode", {"video": "holiday.mp4"}, job_id="holiday")
        await stage.start_worker("--queues", "images", "--roles", "worker")

        async def is_blocked() -> None:
            [manifest] = await images.get_worker_manifests()
            assert manifest.blocked_ms

        await eventually(is_blocked, timeout="40s")
        await images.add_many([images.job("resize", {"picture": f"{number}.png"}) for number in range(8)])
        await stage.age(images, HOUR_MS)


async def full_dead_letters(stage: Stage) -> None:
    """Support says that welcome mails don't come. Dashboards are green: nothing waits, nothing runs."""
    await stage.start_worker("--roles", "worker")
    async with stage.queue("emails", default_job_options=JobOptions(attempts=1)) as emails, stage.queue("letters") as letters:
        await emails.add_many([emails.job("welcome", {"to": f"{number}@example.com", "host": "mx1"}) for number in range(MANY)])

        async def are_dead() -> None:
            assert await letters.get_waiting_count() == MANY

        await eventually(are_dead, timeout="50s")


async def paused_and_forgotten(stage: Stage) -> None:
    """Nobody got a mail since the maintenance on Thursday, says the shop. It is Sunday."""
    async with stage.queue("emails") as emails:
        await emails.pause()
        await emails.add_many([emails.job("welcome", {"to": f"{number}@example.com"}) for number in range(40)])
        await stage.age(emails, 72 * HOUR_MS)
    await stage.start_worker("--roles", "worker")


SITUATIONS: Final[Mapping[str, Situation]] = {
    "stuck-queue": Situation(stuck_queue),
    "no-handler": Situation(no_handler),
    "poison-job": Situation(poison_job),
    "clock-off": Situation(clock_off),
    "evicting-server": Situation(evicting_server, {"maxmemory": "4mb", "maxmemory_policy": "allkeys-lru"}),
    "forgotten-rate-limit": Situation(forgotten_rate_limit),
    "vanished-schedule": Situation(vanished_schedule),
    "blocked-worker": Situation(blocked_worker),
    "full-dead-letters": Situation(full_dead_letters),
    "paused-and-forgotten": Situation(paused_and_forgotten),
}
