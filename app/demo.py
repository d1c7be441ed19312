"""`make demo`: sends sample mails of every kind through a running worker, and shows what becomes of each.

Everything it shows comes from the queue's events, as any other process would see them. The exit status is 0 only if all jobs
ended as they should: all sent, but the one whose address is refused for good.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Column, Table

from app.email.jobs import EMAILS, HIGH_PRIORITY, NORMAL
from app.email.models import BulkData, BulkEmail, Notice, User
from app.email.provider import EmailProvider
from app.email.service import EmailService
from app.main import AppModule
from toril import Application, Job, Queue, QueueEvents, TorilError, WorkerFactory, provide
from toril.di import Overrides
from toril.errors import ServerError
from toril.queues.events import ActiveEvent, CompletedEvent, DelayedEvent, FailedEvent, JobEvent
from toril.telemetry import redact_text

PATIENCE_S: Final = 60
"""Far more than it takes; the longest wait in it is a backoff of a few seconds."""

WIDTH_IN_FILES: Final = 200

BULK_MAILS: Final = 50
NOTICES: Final = 20

State = Literal["waiting", "delayed", "active", "completed", "failed"]


@dataclass
class Progress:
    """What the events have told of one job. Times are the server's, in ms."""

    job: Job[Any, Any]
    group: str
    expected: State = "completed"
    state: State = "waiting"
    attempts: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    first_started_ms: int = 0
    backoffs_ms: list[int] = field(default_factory=list[int])
    """The wait before each further attempt."""
    outcome: str = ""

    @property
    def has_ended(self) -> bool:
        return self.state in ("completed", "failed")

    @property
    def wait_ms(self) -> int | None:
        """From adding it to its first attempt; None: there was none yet."""
        return self.first_started_ms - self.job.timestamp_ms if self.first_started_ms else None

    @property
    def duration_ms(self) -> int | None:
        """Of its last attempt; None: it hasn't ended."""
        return self.ended_ms - self.started_ms if self.has_ended else None

    def hear(self, event: JobEvent) -> None:
        """Follow one event."""
        at_ms = round(event.at.timestamp() * 1_000)
        if isinstance(event, ActiveEvent):
            self.state, self.started_ms, self.attempts = "active", at_ms, self.attempts + 1
            self.first_started_ms = self.first_started_ms or at_ms
        elif isinstance(event, DelayedEvent):
            if self.attempts:
                self.backoffs_ms.append(event.due_at_ms - at_ms)
            self.state = "delayed"
        elif isinstance(event, CompletedEvent):
            self.state, self.ended_ms, self.outcome = "completed", at_ms, _file_of(event.return_value)
        elif isinstance(event, FailedEvent):
            self.state, self.ended_ms, self.outcome = "failed", at_ms, event.reason


@dataclass
class Board:
    """All jobs of this run."""

    jobs: dict[str, Progress] = field(default_factory=dict[str, Progress])

    def follow(self, group: str, jobs: Iterable[Job[Any, Any]], expected: State = "completed") -> None:
        """Show these jobs, too."""
        for job in jobs:
            self.jobs[job.id] = Progress(job, group, expected)

    def hear(self, event: object) -> None:
        """Follow one event, if it is about one of the jobs."""
        if isinstance(event, JobEvent) and event.job_id in self.jobs:
            self.jobs[event.job_id].hear(event)

    @property
    def has_ended(self) -> bool:
        return all(job.has_ended for job in self.jobs.values())

    @property
    def is_as_expected(self) -> bool:
        return all(job.state == job.expected for job in self.jobs.values())

    def groups(self) -> dict[str, list[Progress]]:
        """The jobs by group, in the order in which the groups came."""
        found: dict[str, list[Progress]] = {}
        for job in self.jobs.values():
            found.setdefault(job.group, []).append(job)
        return found


def live_table(board: Board) -> Table:
    """How far each group is."""
    table = Table("group", "jobs", "waiting", "delayed", "active", "completed", "failed", "attempts")
    for group, jobs in board.groups().items():
        states = [job.state for job in jobs]
        counts = [str(states.count(state)) for state in ("waiting", "delayed", "active", "completed", "failed")]
        table.add_row(group, str(len(jobs)), *counts, str(sum(job.attempts for job in jobs)))
    return table


def group_line(group: str, jobs: Sequence[Progress]) -> str:
    """One group in words."""
    attempts = sum(job.attempts for job in jobs)
    return f"{group}: {_states(jobs)} after {attempts} {'attempt' if attempts == 1 else 'attempts'}"


def result_table(board: Board) -> Table:
    """What became of each job; groups of many are summed up."""
    why = Column(".eml file, or why not", overflow="fold")
    table = Table("job", "state", "attempts", "wait", "duration", why, title="What became of the jobs")
    for group, jobs in board.groups().items():
        name, outcome = group, jobs[0].outcome
        if len(jobs) > 1:
            name = f"{group} ({len(jobs)})"
            outcome = f"{sum('.eml' in job.outcome for job in jobs)} files, such as {jobs[-1].outcome}"
        times = [_span(job.wait_ms for job in jobs), _span(job.duration_ms for job in jobs)]
        # Outcomes come from mail servers: their brackets are no markup.
        table.add_row(name, _states(jobs), _attempts(jobs), *times, escape(outcome))
    return table


def side_by_side(board: Board) -> str:
    """Whether the two kinds of notices ran beside each other, in words and numbers."""
    groups = board.groups()
    high, normal = groups["high-priority"], groups["normal"]
    first = min(job.first_started_ms for job in (*high, *normal))
    spans = [
        f"{name}: {min(job.first_started_ms for job in jobs) - first} to {max(job.ended_ms for job in jobs) - first} ms"
        for name, jobs in (("high-priority (3 at a time)", high), ("normal (1 at a time)", normal))
    ]
    overlap = all(
        min(job.first_started_ms for job in one) < max(job.ended_ms for job in other) for one, other in ((high, normal), (normal, high))
    )
    verdict = "neither kind of notice waited for the other" if overlap else "one kind of notice waited for the other"
    return f"{verdict}: {'; '.join(spans)}"


async def add_jobs(service: EmailService, emails: Queue, board: Board) -> None:
    """One of every kind, and many of some."""
    board.follow("welcome", [await service.send_welcome_email(User(name="Ada", email="ada@example.com", verification_token="token-1"))])
    bulk = [
        BulkEmail(to=f"reader{number}@example.com", data=BulkData(subject="News", text=f"Issue {number}")) for number in range(BULK_MAILS)
    ]
    board.follow("bulk", await service.send_bulk_emails(bulk))
    notice = BulkData(subject="Notice", text="Something happened.")
    drafts = [
        emails.job(definition, Notice(to=f"user{number}@example.com", data=notice))
        for number in range(NOTICES)
        for definition in (NORMAL, HIGH_PRIORITY)
    ]
    notices = await emails.add_many(drafts)
    board.follow("normal", notices[::2])
    board.follow("high-priority", notices[1::2])
    later = await emails.add(NORMAL, Notice(to="later@example.com", data=notice), delay="3s")
    board.follow("delayed by 3 s", [later])
    # Subjects differ from run to run, since the mailbox counts its refusals by address and subject.
    twice = User(name=f"Twice {later.id}", email=f"fail4xx-2.{later.id}@example.com", verification_token="token-2")
    board.follow("refused twice", [await service.send_welcome_email(twice)])
    never = User(name="Never", email="fail5xx@example.com", verification_token="token-3")
    board.follow("refused for good", [await service.send_welcome_email(never)], expected="failed")


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
    app = await WorkerFactory.create(AppModule, overrides=no_provider, queues=[], connect_timeout="5s")
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
    under_way = board.groups()
    async for event in events:
        board.hear(event)
        on_event()
        for group in [name for name, jobs in under_way.items() if all(job.has_ended for job in jobs)]:
            del under_way[group]
            yield group
        if not under_way:
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
            await add_jobs(app.get(EmailService), emails, board)
            console.print(f"{len(board.jobs)} jobs added; following their events")
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await follow(board, events, console)
            except TimeoutError:
                console.print(f"[red]not all jobs ended within {PATIENCE_S} s[/]")
    console.print(result_table(board))
    if not board.is_as_expected:
        wrong = [f"{job.group} ({job.job.id}): {job.state}" for job in board.jobs.values() if job.state != job.expected]
        console.print(f"[red]not as expected:[/] {', '.join(wrong)}", soft_wrap=True)
        return 1
    console.print(side_by_side(board), soft_wrap=True)
    console.print(f"all {len(board.jobs)} jobs ended as expected: sent, but the one whose address is refused for good")
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


def _states(jobs: Sequence[Progress]) -> str:
    if len(jobs) == 1:
        return jobs[0].state
    states = [job.state for job in jobs]
    return ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))


def _attempts(jobs: Sequence[Progress]) -> str:
    """How many, and what was waited between them."""
    backoffs = ", ".join(f"{backoff_ms} ms" for job in jobs for backoff_ms in job.backoffs_ms)
    return str(sum(job.attempts for job in jobs)) + (f" (backoff {backoffs})" if backoffs else "")


def _span(values: Iterable[int | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{known[0]} ms" if len(known) == 1 else f"{min(known)}-{max(known)} ms"


def _file_of(result: object) -> str:
    """The mailbox's file, from the mail server's reply; the reply itself from any other mail server."""
    reply = str(cast("dict[str, object]", result).get("response", "")) if isinstance(result, dict) else ""
    return reply.rpartition("kept as ")[2] or reply


if __name__ == "__main__":
    main()
