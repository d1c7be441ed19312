"""What can be wrong with one job of one queue."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from datetime import datetime

from toril.errors.base import TorilError
from toril.units import format_ms


class JobError(TorilError):
    """Base of what concerns one job of one queue."""

    def __init__(self, job_id: str, queue: str) -> None:
        super().__init__(job_id, queue)
        self.job_id, self.queue = job_id, queue

    def __str__(self) -> str:
        return f"job {self.job_id} of queue {self.queue!r}"


class JobNotFoundError(JobError):
    """There is no such job: it never was, or it has been removed."""

    def __str__(self) -> str:
        return f"{super().__str__()} does not exist: it never did, or it was removed (by hand, or by its keep rule after it ended)"


class JobStateError(JobError):
    """The job is not in a state that allows what was asked; `actual` is the one that it was found in right after that."""

    def __init__(self, job_id: str, queue: str, expected: str, actual: str = "in another state") -> None:
        super().__init__(job_id, queue)
        self.args = (job_id, queue, expected, actual)
        self.expected, self.actual = expected, actual

    def __str__(self) -> str:
        return f"{super().__str__()} is {self.actual}; this needs it to be {self.expected}"


class LockLostError(JobError):
    """The job's lock expired, passed to another worker, or vanished with the job, while this one still ran it."""

    def __init__(self, job_id: str, queue: str, reason: str) -> None:
        super().__init__(job_id, queue)
        self.args = (job_id, queue, reason)
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{super().__str__()} lost its lock: {self.reason}; another worker may be running it now. "
            "If the handler blocks the event loop, make it a plain `def` (it then runs in a thread), "
            "or raise WorkerOptions.lock_duration."
        )


class PendingChildrenError(JobError):
    """The job can't complete: some of its children have not ended yet."""

    def __str__(self) -> str:
        return f"{super().__str__()} has pending children: it can't complete before they have ended"


class FailedChildError(JobError):
    """The job can't complete: a child failed whose flag says that this fails the parent."""

    def __str__(self) -> str:
        return f"{super().__str__()} can't complete because at least one of its children failed"


class UnknownJobNameError(JobError):
    """No handler of the queue's worker has this name, and there is none for every name."""

    def __init__(self, job_id: str, queue: str, name: str, known: Sequence[str]) -> None:
        super().__init__(job_id, queue)
        self.args = (job_id, queue, name, known)
        self.name, self.known = name, tuple(known)

    def __str__(self) -> str:
        known = ", ".join(repr(name) for name in self.known) or "none"
        return (
            f"{super().__str__()} is named {self.name!r}, and no handler has that name (known: {known}). "
            "Add a @process for it, or one without a name for every other."
        )


class JobFailedError(JobError):
    """`Job.result`: the job failed for good. `reason` is the text of the handler's last error."""

    def __init__(self, job_id: str, queue: str, reason: str) -> None:
        super().__init__(job_id, queue)
        self.args = (job_id, queue, reason)
        self.reason = reason

    def __str__(self) -> str:
        subject, reason = super().__str__(), self.reason
        if reason.startswith(f"{subject} "):  # one of ours, which names the job itself
            reason = f"it {reason.removeprefix(subject).lstrip()}"
        return f"{subject} failed: {reason}"


class JobRemovedError(JobError):
    """`Job.result`: the job was removed before it ended, or so long ago that nothing tells any more how it ended."""

    def __str__(self) -> str:
        return f"{super().__str__()} was removed: before it ended, or so long ago that the events stream has forgotten how"


class ResultTimeoutError(JobError, TimeoutError):
    """`Job.result`: the job has not ended within the caller's timeout. It goes on; asking again is fine.

    Args:
        state: where it was then.
        address: the server that was asked; never holds a password.
        due_at: until when it waits if it is delayed.
    """

    def __init__(
        self, job_id: str, queue: str, timeout_ms: int, state: str = "unknown", address: str = "", due_at: datetime | None = None
    ) -> None:
        super().__init__(job_id, queue)
        self.args = (job_id, queue, timeout_ms, state, address, due_at)
        self.timeout_ms, self.state, self.address, self.due_at = timeout_ms, state, address, due_at

    def __str__(self) -> str:
        server = f" at {self.address}" if self.address else ""
        if self.due_at is not None:
            hint = f"It waits until {self.due_at.isoformat(timespec='seconds')}: a retry, its own delay, or no handler for its name."
        else:
            hint = "Does a worker run for the queue, on this server and with this prefix?"
        return f"{super().__str__()} has not ended within {format_ms(self.timeout_ms)} (state: {self.state}{server}). {hint}"


class JobTimeoutError(JobError, TimeoutError):
    """The handler ran longer than its timeout and was cancelled. Counts as a failed attempt."""

    def __init__(self, job_id: str, queue: str, timeout_ms: int) -> None:
        super().__init__(job_id, queue)
        self.args = (job_id, queue, timeout_ms)
        self.timeout_ms = timeout_ms

    def __str__(self) -> str:
        return f"{super().__str__()} ran longer than its timeout of {format_ms(self.timeout_ms)}"


class ChildProcessStartError(JobError):
    """No child process could be started for the job: its application can't be imported or made there. Counts as a failed attempt."""

    def __init__(self, job_id: str, queue: str, reason: str) -> None:
        super().__init__(job_id, queue)
        self.args = (job_id, queue, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"no child process could be started for {super().__str__()}: {self.reason}"


class ChildProcessDiedError(JobError):
    """The job's child process ended while its handler ran there. Counts as a failed attempt; the next job gets a new process.

    Args:
        exit_code: what it exited with; below 0 it is the signal that killed it.
    """

    def __init__(self, job_id: str, queue: str, exit_code: int) -> None:
        super().__init__(job_id, queue)
        self.args = (job_id, queue, exit_code)
        self.exit_code = exit_code

    @property
    def signal_name(self) -> str | None:
        """The signal that killed it, such as `SIGKILL`."""
        if self.exit_code >= 0:
            return None
        try:
            return signal.Signals(-self.exit_code).name
        except ValueError:  # a real-time signal
            return f"signal {-self.exit_code}"

    def __str__(self) -> str:
        how = f"was killed by {self.signal_name}" if self.exit_code < 0 else f"exited with code {self.exit_code}"
        hint = " (out of memory, perhaps)" if self.signal_name == "SIGKILL" else ""
        return f"the child process of {super().__str__()} {how}{hint} while the handler ran"


class ChildHandlerError(JobError):
    """Stands in the worker for what a handler raised in its child process; as text it is the same.

    Args:
        class_name: of what was raised, as in `ValueError` or `app.errors.NoTemplate`.
        text: its text.
        stack: its traceback, as the child printed it.
        is_final: whether another attempt can't mend it.
    """

    def __init__(self, job_id: str, queue: str, class_name: str, text: str, stack: str, is_final: bool = False) -> None:
        super().__init__(job_id, queue)
        self.args = (job_id, queue, class_name, text, stack, is_final)
        self.class_name, self.text, self.stack, self.is_final = class_name, text, stack, is_final

    def __str__(self) -> str:
        return self.text


class JobCancelledError(JobError):
    """Somebody cancelled the job. Its text is the reason that is stored with it."""

    def __init__(self, job_id: str, queue: str, reason: str) -> None:
        super().__init__(job_id, queue)
        self.args = (job_id, queue, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"cancelled: {self.reason}"


class JobExpiredError(JobError):
    """The job waited longer than its `expires_in` allows, and was not run."""

    def __init__(self, job_id: str, queue: str, late_ms: int) -> None:
        super().__init__(job_id, queue)
        self.args = (job_id, queue, late_ms)
        self.late_ms = late_ms

    def __str__(self) -> str:
        return f"{super().__str__()} expired {format_ms(self.late_ms)} before a worker took it, and was not run"


class DeadLetterError(JobError):
    """A dead letter that can't be read or replayed; `reason` tells why. It stays where it is."""

    def __init__(self, job_id: str, queue: str, reason: str) -> None:
        super().__init__(job_id, queue)
        self.args = (job_id, queue, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"dead letter {self.job_id} of queue {self.queue!r}: {self.reason}"


class LetterRefusedError(JobError):
    """A job failed for good, and the queue for dead letters can't take its letter (`problem`); it stays active until that can."""

    def __init__(self, job_id: str, queue: str, problem: str) -> None:
        super().__init__(job_id, queue)
        self.args = (job_id, queue, problem)
        self.problem = problem

    def __str__(self) -> str:
        return (
            f"{super().__str__()} failed for good, but its dead letter can't be written, since the key {self.problem}: "
            "the job stays active, and its worker tries again; mend or delete that key, or give the worker's user the right to write it"
        )


class OutcomeRefusedError(JobError):
    """A job's attempt has ended, and a key of its parent keeps that from being written (`problem`); it stays active until that can."""

    def __init__(self, job_id: str, queue: str, problem: str) -> None:
        super().__init__(job_id, queue)
        self.args = (job_id, queue, problem)
        self.problem = problem

    def __str__(self) -> str:
        return (
            f"{super().__str__()} has run, but how it ended can't be written, since the key {self.problem}: "
            "the job stays active, and its worker tries again; mend or delete that key"
        )
