"""What can be wrong with a queue and what is in it, besides single jobs."""

from __future__ import annotations

from collections.abc import Sequence

from toril.errors.base import TorilError


class AddOutcomeUnknownError(TorilError):
    """The connection broke after an add was sent and before its reply came: it may or may not have happened."""

    def __init__(self, queue: str, count: int, reason: str) -> None:
        super().__init__(queue, count, reason)
        self.queue, self.count, self.reason = queue, count, reason

    def __str__(self) -> str:
        jobs = "a job" if self.count == 1 else f"{self.count} jobs"
        return (
            f"the reply to adding {jobs} to queue {self.queue!r} was lost ({self.reason}): the server may have added or not. "
            "Use add(…, idempotent=True), which is repeated and never adds twice, or give the job a job_id and add again."
        )


class WrongLoopError(TorilError, RuntimeError):
    """A job or queue was used from another event loop than the one that its connection belongs to; nothing was sent."""

    def __init__(self, server: str) -> None:
        super().__init__(server)
        self.server = server

    def __str__(self) -> str:
        return (
            f"The connection to {self.server} belongs to another event loop than the one that runs here. Don't use asyncio.run() in a "
            "thread for a job or queue: call job.sync.update_progress(…) and its like there, or make the handler `async def`, and give "
            "what blocks to asyncio.to_thread()."
        )


class SyncCallError(TorilError, RuntimeError):
    """A call of `job.sync` that can't be carried out, or was given up; `call` names it."""

    def __init__(self, call: str, reason: str) -> None:
        super().__init__(call, reason)
        self.call, self.reason = call, reason

    def __str__(self) -> str:
        return f"job.sync.{self.call}: {self.reason}"


class QueueClosedError(TorilError):
    """A queue, worker or connection was used after close(), or before it was opened."""

    def __init__(self, what: str, state: str = "closed") -> None:
        super().__init__(what, state)
        self.what, self.state = what, state

    def __str__(self) -> str:
        return f"{self.what} is {self.state}: use it inside `async with`, and not after close()"


class ClaimObstructedError(TorilError):
    """A key of the queue holds what it can't, or can't be read: its workers claim nothing until it is mended (`problem`)."""

    def __init__(self, queue: str, problem: str) -> None:
        super().__init__(queue, problem)
        self.queue, self.problem = queue, problem.rstrip(".")

    def __str__(self) -> str:
        return (
            f"no job of queue {self.queue!r} can be claimed: the key {self.problem}. "
            "Nothing is lost: mend or delete that key, and its jobs go on"
        )


class ParentError(TorilError):
    """A job names a parent that it can't have. `place`: its place among the jobs that were to be added."""

    def __init__(self, parent_key: str, reason: str, place: int = 0) -> None:
        super().__init__(parent_key, reason, place)
        self.parent_key, self.reason, self.place = parent_key, reason, place

    def __str__(self) -> str:
        return f"job {self.parent_key} can't be the parent of entry {self.place}: {self.reason}"


class QueueBusyError(TorilError):
    """A queue can't be removed as it is."""

    def __init__(self, queue: str, reason: str) -> None:
        super().__init__(queue, reason)
        self.queue, self.reason = queue, reason.rstrip(".")

    def __str__(self) -> str:
        return f"queue {self.queue!r} can't be obliterated: {self.reason}. Pause it and let its jobs end, or use force=True."


class SchedulerError(TorilError):
    """Base of what concerns one job scheduler of one queue."""

    def __init__(self, scheduler_id: str, queue: str) -> None:
        super().__init__(scheduler_id, queue)
        self.scheduler_id, self.queue = scheduler_id, queue


class SchedulerNotFoundError(SchedulerError):
    """There is no job scheduler with this id."""

    def __str__(self) -> str:
        return f"queue {self.queue!r} has no job scheduler {self.scheduler_id!r}"


class SchedulerBusyError(SchedulerError):
    """Jobs of the same ids, or a scheduler that is called so, stand where the scheduler's next iteration belongs."""

    def __str__(self) -> str:
        return (
            f"job scheduler {self.scheduler_id!r} of queue {self.queue!r} can't add its next iteration: a job with that id exists, or a "
            f"scheduler called like {self.scheduler_id + ':1700000000000'!r}. Remove it, or choose another id for this scheduler."
        )


class UnknownScheduleError(TorilError):
    """This application has no schedule of this name; `near` are those that look like it."""

    def __init__(self, name: str, near: Sequence[str], known: Sequence[str]) -> None:
        super().__init__(name, near, known)
        self.name, self.near, self.known = name, tuple(near), tuple(known)

    def __str__(self) -> str:
        there = f"there are {', '.join(repr(name) for name in self.known)}" if self.known else "it has none"
        hint = f"did you mean {' or '.join(repr(name) for name in self.near)}?" if self.near else there
        return f"this application has no schedule {self.name!r}; {hint}"
