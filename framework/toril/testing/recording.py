"""`spy_on(queue)`: what is added to a queue, as it goes to the wire. The jobs are added all the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, cast

from toril.errors import InvalidOptionError
from toril.queues.option_values import stored_options
from toril.queues.options import JobOptions
from toril.queues.queue import Queue
from toril.wire.codec import from_json
from toril.wire.jobs import NewJob


@dataclass(frozen=True, slots=True)
class RecordedJob:
    """One job that was added."""

    queue: str
    job_id: str
    name: str
    data: Any
    """The payload as JSON holds it: `{"to": "ann@example.com"}`, not the model it was made from."""
    options: dict[str, Any] = field(repr=False)
    """All options as they go to the wire, by the names they have there: `{"attempts": 5, "removeOnComplete": True}`."""
    job_options: JobOptions
    """The same by our names."""


class QueueSpy:
    """What was added through one `Queue` object since the spy was made. `spy_on` makes it."""

    def __init__(self, queue: Queue[Any, Any]) -> None:
        self._stop = record(queue, self._note)
        self.jobs: list[RecordedJob] = []

    @property
    def last(self) -> RecordedJob:
        """The job that was added last. Raises LookupError if none was."""
        if not self.jobs:
            raise LookupError("no job was added since this spy began, or since its clear()")
        return self.jobs[-1]

    def clear(self) -> None:
        """Forget what was recorded so far."""
        self.jobs.clear()

    def stop(self) -> None:
        """Record no more; what was recorded stays. May be called twice."""
        self._stop()

    def _note(self, job: RecordedJob) -> None:
        self.jobs.append(job)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def spy_on(queue: Queue[Any, Any]) -> QueueSpy:
    """Record every job that is added through this object from now on, until `stop`, or to the end of a `with` block.

    Jobs are recorded once the server has them. One whose `job_id` exists already is recorded, too: the server was asked.

    Raises:
        InvalidOptionError: it is no queue, but the name of one.
    """
    if not isinstance(queue, Queue):  # pyright: ignore[reportUnnecessaryIsInstance]  # untyped callers
        raise InvalidOptionError("queue", queue, f"write spy_on(t.queue({queue!r}))" if isinstance(queue, str) else "it must be a Queue")
    return QueueSpy(queue)


def record(queue: Queue[Any, Any], note: Callable[[RecordedJob], None]) -> Callable[[], None]:
    """Call `note` for every job that is added from now on; returns how to end that."""

    def added(job: NewJob, job_id: str) -> None:
        options = cast("dict[str, Any]", from_json(job.opts))
        note(RecordedJob(queue.name, job_id, job.name, from_json(job.data), options, stored_options(job.opts)))

    def stop() -> None:
        if added in queue.on_added:
            queue.on_added.remove(added)

    queue.on_added.append(added)
    return stop
