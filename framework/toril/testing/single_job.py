"""What `run_job` needs to know: which queue a job belongs to, and how it ended here."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from toril.di import Graph
from toril.errors import InvalidOptionError
from toril.modules.explorer import handled_names
from toril.modules.workers import check_served
from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.spelling import near


def serving_queue(graph: Graph, name: str, queue: str | None) -> str:
    """The queue whose processor handles jobs of this name; `queue` decides where there are several.

    Raises:
        InvalidOptionError: none does, or several do; with what there is.
    """
    handled = handled_names(graph)
    if queue is not None:
        check_served(graph, [queue], "queue")
        handled = {queue: handled[queue]}
    found = [each for each, names in handled.items() if name in names] or [each for each, names in handled.items() if None in names]
    if not found:
        known = [f"{job!r} ({each})" for each, names in handled.items() for job in sorted(filter(None, names))]
        close = near(name, {job for names in handled.values() for job in names if job is not None})
        hint = f"did you mean {' or '.join(map(repr, close))}? Handled are" if close else "handled are"
        raise InvalidOptionError("name", name, f"no processor handles jobs of this name; {hint}: {', '.join(known) or 'none'}")
    if len(found) > 1:
        several = ", ".join(repr(each) for each in found)
        raise InvalidOptionError("queue", None, f"jobs named {name!r} are handled in several queues ({several}); say which one is meant")
    return found[0]


class Ends:
    """How jobs of one queue end in this process, as long as somebody asks: the JSON of the result, or the handler's own exception."""

    def __init__(self, queue: Queue[Any, Any]) -> None:
        self._ends: dict[str, bytes | BaseException] = {}
        self._askers = 0
        queue.on("completed", self._completed)
        queue.on("failed", self._failed)

    @contextmanager
    def watched(self) -> Generator[None]:
        """Take note of ends in this block."""
        self._askers += 1
        try:
            yield
        finally:
            self._askers -= 1
            if not self._askers:
                self._ends.clear()

    def find(self, job_id: str) -> bytes | BaseException | None:
        """How it ended; None if it hasn't, or not here."""
        return self._ends.get(job_id)

    async def _completed(self, job: Job[Any, Any], _: object) -> None:
        if self._askers:
            self._ends[job.id] = job.record.return_value or b"null"

    async def _failed(self, job: Job[Any, Any], error: BaseException, final: bool) -> None:
        if self._askers and final:
            self._ends[job.id] = error
