"""The books of a storm: what was added, what became of it, how often it ran and why. Nothing may be lost, nothing unexplained."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.jobs import CHILDREN, Added
from toril.queues.job import Job
from toril.queues.queue import Queue

PAGE = 500


@dataclass
class Ledger:
    """What was found at the end. `wrong` is empty, or the storm has found a bug."""

    added: int
    maybe_added: int
    """Adds that were given up because the server was away for too long; they may have happened, once."""
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    scheduled: int = 0
    again: Counter[str] = field(default_factory=Counter[str])
    """Runs beyond what a job's attempts account for, by their reason."""
    wrong: list[str] = field(default_factory=list[str])

    def __str__(self) -> str:
        rows = {
            "added": f"{self.added:,}, and {self.maybe_added} whose reply never came",
            "scheduled": f"{self.scheduled:,}",
            "completed": f"{self.completed:,}",
            "failed for good, as they must": f"{self.failed:,}",
            "cancelled": f"{self.cancelled:,}",
            "run again": f"{sum(self.again.values()):,}",
            **{f"  since {reason}": f"{count:,}" for reason, count in self.again.most_common()},
            "lost, doubled or unexplained": str(len(self.wrong)),
        }
        return "\n".join(f"  {name:<46} {value}" for name, value in rows.items())


async def all_jobs(queue: Queue) -> dict[str, Job[Any, Any]]:
    """Every job of the queue that has ended, by its id."""
    found: dict[str, Job[Any, Any]] = {}
    for state in ("completed", "failed"):
        start = 0
        while page := await queue.get_jobs([state], start, start + PAGE - 1):
            found |= {job.id: job for job in page}
            start += PAGE
    return found


def read_runs(log: Path) -> dict[str, list[int]]:
    """In which processes each job ran, in order."""
    runs: defaultdict[str, list[int]] = defaultdict(list)
    for line in log.read_text().splitlines():
        job_id, _, pid = line.partition("\t")
        runs[job_id].append(int(pid))
    return runs


def judge(
    added: Mapping[str, Added],
    maybe_added: int,
    jobs: Mapping[str, Job[Any, Any]],
    runs: Mapping[str, list[int]],
    letters: Counter[str],
    disturbed: Mapping[int, str],
    *,
    server_was_away: bool,
) -> Ledger:
    """Compare what must be with what is."""
    ledger = Ledger(len(added), maybe_added)
    for job_id, one in added.items():
        job = jobs.get(job_id)
        if job is None:
            ledger.wrong.append(f"{one.kind} job {job_id} (n={one.n}) is lost: it has not ended")
            continue
        ledger.wrong += _outcome(one, job, letters, ledger)
    unknown = [job for job_id, job in jobs.items() if job_id not in added]
    ledger.scheduled = sum(job.id.startswith("repeat:") for job in unknown)
    strangers = len(unknown) - ledger.scheduled
    if strangers > maybe_added * (CHILDREN + 1):
        ledger.wrong.append(f"{strangers} jobs ended that nobody has added")
    numbers = Counter((job.name, job.data["n"]) for job in jobs.values() if job.name != "tick")
    ledger.wrong += [f"{name} job n={n} exists {count} times" for (name, n), count in numbers.items() if count > 1]
    for job in jobs.values():
        ledger.wrong += _runs(job, runs.get(job.id, []), disturbed, ledger, server_was_away=server_was_away)
    return ledger


def _outcome(one: Added, job: Job[Any, Any], letters: Counter[str], ledger: Ledger) -> list[str]:
    reason = job.failed_reason or ""
    has_completed = job.record.return_value is not None
    wrong: list[str] = []
    if one.asked_to_cancel and not has_completed:
        ledger.cancelled += 1
        if not reason.startswith("cancelled"):
            wrong.append(f"{one.kind} job {job.id} was to be cancelled, and failed: {reason!r}")
        return wrong
    if one.kind == "doomed":
        ledger.failed += 1
        if has_completed or job.attempts_made != 2 or letters[job.id] != 1:
            wrong.append(f"doomed job {job.id}: {job.attempts_made} attempts, {letters[job.id]} letters, completed: {has_completed}")
        return wrong
    ledger.completed += 1
    if not has_completed:
        wrong.append(f"{one.kind} job {job.id} failed: {reason!r}")
        return wrong
    value = json.loads(job.record.return_value or b"null")
    expected: Any = sorted(one.n + 1 + place for place in range(CHILDREN)) if one.kind == "parent" else one.n
    if value != expected:
        wrong.append(f"{one.kind} job {job.id} returned {value!r} instead of {expected!r}")
    if job.attempts_made != one.fails + 1:
        wrong.append(f"{one.kind} job {job.id} took {job.attempts_made} attempts instead of {one.fails + 1}")
    return wrong


def _runs(job: Job[Any, Any], pids: list[int], disturbed: Mapping[int, str], ledger: Ledger, *, server_was_away: bool) -> list[str]:
    """A job runs once for each attempt. Each further run needs a reason: what became of the worker of an earlier one."""
    wrong: list[str] = []
    if len(pids) > job.attempts_started:
        wrong.append(f"job {job.id} ran {len(pids)} times, and was claimed {job.attempts_started} times")
    further = len(pids) - job.attempts_made
    if further <= 0:
        return wrong
    reasons = [disturbed[pid] for pid in pids if pid in disturbed]
    if len(reasons) < further and server_was_away:
        reasons += ["the server was away for longer than its lock lasts"] * (further - len(reasons))
    if len(reasons) < further:
        wrong.append(f"job {job.id} ran {further} times too often, in processes {pids}, without a reason")
    ledger.again.update(reasons[:further])
    return wrong
