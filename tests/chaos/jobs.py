"""The kinds of jobs in a storm: what their handlers do, and what must become of each, whatever happens on the way.

Every job carries its number `n` and how long it works, so a handler needs no state of its own. A handler first notes its run in a file,
which outlives the process: only so can be told afterwards how often a job ran, and where.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from toril.queues.job import Job
from toril.queues.option_parts import fixed
from toril.queues.options import JobOptionFields

WORK: Final = "work"
LETTERS: Final = "letters"

KINDS: Final = {"plain": 8, "delayed": 2, "urgent": 2, "flaky": 3, "doomed": 1, "long": 1, "flow": 1}
"""How often each kind comes, in relation to the others."""

CHILDREN: Final = 3
ATTEMPTS: Final = 4

BACKOFF: Final = fixed("200ms")
OPTIONS: Final[dict[str, JobOptionFields]] = {
    "plain": {},
    "delayed": {"delay": "400ms"},
    "urgent": {"priority": 3},
    "flaky": {"attempts": ATTEMPTS, "backoff": BACKOFF},
    "doomed": {"attempts": 2, "backoff": BACKOFF},
    "long": {},
}


@dataclass
class Added:
    """A job as the producer knows it."""

    n: int
    kind: str
    job_id: str
    fails: int = 0
    """How many of its first attempts fail."""
    children: list[str] = field(default_factory=list[str])
    asked_to_cancel: bool = False


class RunLog:
    """Where handlers note their runs, a line each: the job's id and the process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, job_id: str) -> None:
        os.write(self._file, f"{job_id}\t{os.getpid()}\n".encode())


def payload(kind: str, n: int, source: Random) -> dict[str, Any]:
    """What a job of this kind carries."""
    work_ms = source.randrange(1_500, 4_000) if kind == "long" else source.randrange(0, 1_000)
    return {"n": n, "work_ms": work_ms, "fails": source.randrange(1, ATTEMPTS) if kind == "flaky" else 0}


async def handle(job: Job[Any, Any], log: RunLog) -> Any:  # noqa: ANN401 -- each kind has its own
    """Run a job of any kind."""
    log.note(job.id)
    await asyncio.sleep(job.data.get("work_ms", 0) / 1_000)  # the job's work
    if job.name == "doomed" or job.attempts_made < job.data.get("fails", 0):
        raise RuntimeError(f"attempt {job.attempts_made + 1} of {job.name} {job.data['n']}")
    if job.name == "parent":
        return sorted((await job.get_children_values()).values())
    return job.data.get("n")
