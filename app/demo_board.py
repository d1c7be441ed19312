"""What the demo knows of its jobs, from their events, and how it shows that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from rich.markup import escape
from rich.table import Column, Table

from toril import Job
from toril.queues.events import ActiveEvent, CompletedEvent, DelayedEvent, FailedEvent, JobEvent

State = Literal["waiting", "delayed", "active", "completed", "failed"]


@dataclass
class Progress:
    """What the events have told of one job. Times are the server's, in ms."""

    job_id: str
    added_ms: int
    group: str
    expected: State = "completed"
    reaction: tuple[State, Callable[[], Awaitable[None]]] | None = None
    """What the demo does as soon as the job has come so far."""
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
        return self.first_started_ms - self.added_ms if self.first_started_ms else None

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

    def follow(
        self,
        group: str,
        jobs: Iterable[Job[Any, Any]],
        expected: State = "completed",
        reaction: tuple[State, Callable[[], Awaitable[None]]] | None = None,
    ) -> None:
        """Show these jobs, too."""
        for job in jobs:
            self.jobs[job.id] = Progress(job.id, job.timestamp_ms, group, expected, reaction)

    async def react(self, event: object) -> None:
        """Do what is to be done now that the event's job has come so far; once."""
        job = self.jobs.get(event.job_id) if isinstance(event, JobEvent) else None
        if job is not None and job.reaction is not None and job.reaction[0] == job.state:
            (_, act), job.reaction = job.reaction, None
            await act()

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
    """The mailbox's file, from the mail server's reply; the reply itself from any other mail server; of a report to whom it went."""
    said = cast("dict[str, object]", result) if isinstance(result, dict) else {}
    if isinstance(recipients := said.get("sent"), list):
        return f"to {', '.join(map(str, cast('list[object]', recipients)))}"
    reply = str(said.get("response", ""))
    return reply.rpartition("kept as ")[2] or reply
