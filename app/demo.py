"""`make demo`: sends sample mails of every kind through a running worker, and shows what becomes of each.

Everything it shows comes from the queue's events, as any other process would see them. The exit status is 0 only if all jobs
ended as they should: all sent, but those that were to be refused, cancelled, or stopped by their timeout.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.markup import escape

from app.demo_board import Board, Progress, group_line, live_table, result_table, side_by_side
from app.email.dead_letter import DeadLetterService
from app.email.jobs import BULK, EMAILS, HIGH_PRIORITY, NORMAL
from app.email.models import BulkData, BulkEmail, Notice, User
from app.email.provider import EmailProvider
from app.email.scheduled import ScheduledJobsService
from app.email.service import EmailService
from app.main import AppModule
from toril import Application, Queue, QueueEvents, TorilError, WorkerFactory, provide
from toril.di import Overrides
from toril.errors import ServerError
from toril.telemetry import redact_text

PATIENCE_S: Final = 60
"""Far more than it takes; the longest wait in it is a backoff of a few seconds."""

WIDTH_IN_FILES: Final = 200

NOTICE: Final = BulkData(subject="Notice", text="Something happened.")

BULK_MAILS: Final = 50
NOTICES: Final = 20


async def add_jobs(app: Application, board: Board) -> None:
    """One of every kind, and many of some."""
    service, emails = app.get(EmailService), app.queue(EMAILS)
    board.follow("welcome", [await service.send_welcome_email(User(name="Ada", email="ada@example.com", verification_token="token-1"))])
    bulk = [
        BulkEmail(to=f"reader{number}@example.com", data=BulkData(subject="News", text=f"Issue {number}")) for number in range(BULK_MAILS)
    ]
    board.follow("bulk", await service.send_bulk_emails(bulk))
    drafts = [
        emails.job(definition, Notice(to=f"user{number}@example.com", data=NOTICE))
        for number in range(NOTICES)
        for definition in (NORMAL, HIGH_PRIORITY)
    ]
    notices = await emails.add_many(drafts)
    board.follow("normal", notices[::2])
    board.follow("high-priority", notices[1::2])
    board.follow("delayed by 3 s", [later := await emails.add(NORMAL, Notice(to="later@example.com", data=NOTICE), delay="3s")])
    # Subjects differ from run to run, since the mailbox counts its refusals by address and subject.
    twice = User(name=f"Twice {later.id}", email=f"fail4xx-2.{later.id}@example.com", verification_token="token-2")
    board.follow("refused twice", [await service.send_welcome_email(twice)])
    never = User(name="Never", email="fail5xx@example.com", verification_token="token-3")
    board.follow("refused for good", [await service.send_welcome_email(never)], expected="failed")
    board.follow("daily report", [await app.get(ScheduledJobsService).schedule_daily_report()])
    await add_troubles(app, board, later.id)


async def add_troubles(app: Application, board: Board, run: str) -> None:
    """Jobs that somebody or something stops. `run` makes their addresses new in each run."""
    service, emails = app.get(EmailService), app.queue(EMAILS)
    once = User(name=f"Once {run}", email=f"fail5xx-1.{run}@example.com", verification_token="token-4")
    mended = await service.send_welcome_email(once)

    async def replay() -> None:
        """The cause is mended: the mailbox refuses this address once only."""
        dead = app.get(DeadLetterService)
        (letter,) = [letter for letter in await dead.list() if letter.job_id == mended.id and letter.queue == EMAILS]
        new_id = await dead.replay(letter.id)
        board.jobs[new_id] = Progress(new_id, emails.clock.now_ms(), "replayed from dead-letter")

    board.follow("refused until mended", [mended], expected="failed", reaction=("failed", replay))

    slow = BulkEmail(to="slow-3@example.com", data=NOTICE)
    board.follow("overruns its timeout", [await emails.add(BULK, slow, timeout="500ms", attempts=1)], expected="failed")

    slower = await emails.add(BULK, BulkEmail(to="slow-30@example.com", data=NOTICE), attempts=3)

    async def cancel() -> None:
        await emails.cancel(slower.id, "shown in the demo")

    board.follow("cancelled while it runs", [slower], expected="failed", reaction=("active", cancel))


async def show_a_pause(app: Application, board: Board, console: Console) -> None:
    """Pause the queue, add a mail, see that it stays, and resume."""
    emails = app.queue(EMAILS)
    await emails.pause()
    try:
        job = await emails.add(NORMAL, Notice(to="patient@example.com", data=NOTICE))
        board.follow("added while paused", [job])
        console.print(f"paused: {emails.name} holds {await emails.count()} waiting job back; now it is resumed")
    finally:
        await emails.resume()


async def has_worker(emails: Queue) -> bool:
    """Whether a worker of the queue is connected, ours or Node's: workers name their connections."""
    name = emails.keys.client_name()
    clients: bytes = await emails.server.commands.call("CLIENT", "LIST", repeatable=True)
    names = [part.removeprefix("name=") for line in clients.decode().splitlines() for part in line.split(" ") if part.startswith("name=")]
    return any(one == name or one.startswith(f"{name}:w:") for one in names)


@asynccontextmanager
async def application() -> AsyncGenerator[Application]:
    """The application's modules, without workers."""
    # The mails are the worker's business: without this, a second mailbox would open here, at the port that the worker's may have.
    no_provider = Overrides(providers=[provide(EmailProvider, use_value=None)])
    app = await WorkerFactory.create(AppModule, overrides=no_provider, roles=["producer"], connect_timeout="5s")
    async with app:
        yield app


async def follow(board: Board, events: QueueEvents, console: Console) -> None:
    """Show how far the jobs are until all have ended: a live table on a terminal, elsewhere a line for each group that ends."""
    if not console.is_terminal:
        async for group in ended_groups(board, events):
            console.print(group_line(group, board.groups()[group]), markup=False)
        return
    with Live(live_table(board), console=console, refresh_per_second=10, transient=True) as live:
        async for _ in ended_groups(board, events, on_event=lambda: live.update(live_table(board))):
            pass


async def ended_groups(board: Board, events: QueueEvents, on_event: Callable[[], None] = lambda: None) -> AsyncIterator[str]:
    """The groups of the board, each as soon as its last job has ended."""
    told: set[str] = set()
    async for event in events:
        board.hear(event)
        await board.react(event)
        on_event()
        for group in [name for name, jobs in board.groups().items() if name not in told and all(job.has_ended for job in jobs)]:
            told.add(group)
            yield group
        if board.has_ended:
            return


async def run(console: Console) -> int:
    """Add the jobs, follow them, and tell what became of them; the exit status."""
    async with application() as app:
        emails = app.queue(EMAILS)
        if not await has_worker(emails):
            console.print(
                f"No worker is running on {escape(str(emails.server.address))}. Start one in another terminal: make run-worker",
                soft_wrap=True,
            )
            return 3
        board = Board()
        async with QueueEvents(emails) as events:
            await show_a_pause(app, board, console)
            await add_jobs(app, board)
            console.print(f"{len(board.jobs)} jobs added; following their events")
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await follow(board, events, console)
            except TimeoutError:
                console.print(f"[red]not all jobs ended within {PATIENCE_S} s[/]")
    console.print(result_table(board))
    if not board.is_as_expected:
        wrong = [f"{job.group} ({job.job_id}): {job.state}" for job in board.jobs.values() if job.state != job.expected]
        console.print(f"[red]not as expected:[/] {', '.join(wrong)}", soft_wrap=True)
        return 1
    console.print(side_by_side(board), soft_wrap=True)
    stopped = sum(job.expected == "failed" for job in board.jobs.values())
    console.print(f"all {len(board.jobs)} jobs ended as expected: sent, but the {stopped} that were to be refused, cancelled or too slow")
    return 0


def main() -> None:
    """The entry point."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH_IN_FILES  # else 80, which cuts the names of the files
    try:
        sys.exit(asyncio.run(run(console)))
    except TorilError as error:
        console.print("[bold red]error:[/]", escape(redact_text(str(error))), soft_wrap=True, highlight=False)
        sys.exit(3 if isinstance(error, ServerError) else 2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
