"""Every error that Toril raises, as one tree.

    TorilError
    ├── ConfigurationError                 found before anything runs: the program or its settings must change
    │   ├── InvalidOptionError             an option has a value that makes no sense        (also a ValueError)
    │   │   ├── InvalidCallError           a call with an option or argument that isn't there    (also a TypeError)
    │   │   ├── InvalidDurationError       a duration that can't be read, or a bare number  (also a ValueError)
    │   │   └── InvalidCronError           a cron expression or its zone                    (also a ValueError)
    │   ├── UnknownBackoffError            a job asks for a backoff strategy that the worker doesn't have
    │   ├── UnusablePayloadTypeError       a type that pydantic can't check as the data or result of a job
    │   ├── SettingsError                  a settings file or environment variable
    │   ├── InvalidRedisUrlError           the address of the server can't be read
    │   ├── ProcessorError                 processors and handlers that contradict each other
    │   └── di.errors.DIError              the module graph (its branch is drawn in that module)
    ├── ServerError                        the Redis or Valkey server
    │   ├── ServerUnreachableError         nobody answers there, or not in time
    │   │   └── ReadOnlyServerError        a replica answers
    │   ├── ServerRefusedError             it answers, but won't let us in, or won't obey
    │   ├── ServerFullError                its memory is full, and nothing can be added
    │   ├── ServerTooOldError              it lacks what the protocol needs
    │   ├── ServerKindError                it is a Cluster's node, or a Sentinel, and the address is written for something else
    │   └── EmbeddedServerError            the private server could not be found, started or reached
    ├── PayloadError                       data or a result that can't travel
    │   ├── NotJsonError                   a value that JSON can't hold, with its path
    │   ├── InvalidPayloadError            JSON that doesn't fit the model
    │   └── PayloadTooLargeError           data above its `size_limit`, or a result or progress value above its bound
    ├── AddOutcomeUnknownError             an add whose reply was lost
    ├── SchedulerError                     one job scheduler of one queue
    │   ├── SchedulerNotFoundError         there is no such scheduler
    │   └── SchedulerBusyError             a job stands where its next iteration belongs
    ├── UnknownScheduleError               the application has no schedule of this name
    ├── ParentError                        a job that can't become the child of the one that it names
    ├── QueueClosedError                   used after close()
    ├── WrongLoopError                     used from another event loop than its own       (also a RuntimeError)
    ├── SyncCallError                      a call of `job.sync` that can't be carried out          (also a RuntimeError)
    ├── QueueBusyError                     the queue is not in a state in which it could be removed
    ├── ClaimObstructedError               a key of the queue keeps its workers from claiming
    ├── JobError                           one job of one queue
    │   ├── JobNotFoundError               there is no such job (any more)
    │   ├── JobStateError                  the job is in a state that doesn't allow this
    │   ├── LockLostError                  the job's lock expired, was taken, or never was ours
    │   ├── PendingChildrenError           the job still waits for children
    │   ├── FailedChildError               a child failed, and its flag says that this fails the parent
    │   ├── UnknownJobNameError            no handler has this name
    │   ├── JobFailedError                 raised by `Job.result`: the job failed for good
    │   ├── JobRemovedError                raised by `Job.result`: the job was removed before it ended
    │   ├── ResultTimeoutError             raised by `Job.result`: the job has not ended in time (also a TimeoutError)
    │   ├── JobTimeoutError                the handler ran longer than its timeout      (also a TimeoutError)
    │   ├── ChildProcessStartError         no child process could be started for it
    │   ├── ChildProcessDiedError          its child process ended while the handler ran there
    │   ├── ChildHandlerError              what its handler raised in a child process
    │   ├── JobCancelledError              somebody cancelled it: `Queue.cancel`
    │   ├── JobExpiredError                it waited longer than its `expires_in`
    │   ├── DeadLetterError                a dead letter that can't be read or replayed
    │   └── LetterRefusedError             the queue for dead letters can't take one; the job waits for it
    └── JobSignal                          raised by a handler to say what should happen to its job
        ├── UnrecoverableError             fail for good, whatever `attempts` says
        ├── DelayedError                   run again after a delay; no attempt is spent
        ├── WaitingError                   run again as soon as possible; no attempt is spent
        ├── WaitingChildrenError           run again when its children have ended
        └── RateLimitError                 the same, once a rate limit has passed

Each error keeps what it knows as attributes and makes its text in `__str__`, so it can be pickled and asked.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from datetime import timedelta

from toril.units import format_duration, format_ms


class TorilError(Exception):
    """Base of all errors of this library."""


# ── found before anything runs ────────────────────────────────────────────────────────────────────────────────


class ConfigurationError(TorilError):
    """The program, its options or its settings must change before it can run."""


class InvalidOptionError(ConfigurationError, ValueError):
    """An option has a value that makes no sense."""

    def __init__(self, option: str, value: object, reason: str) -> None:
        super().__init__(option, value, reason)
        self.option, self.value, self.reason = option, value, reason

    def __str__(self) -> str:
        return f"{self.option}={self.value!r}: {self.reason}"


class InvalidCallError(InvalidOptionError, TypeError):
    """A function, class or decorator was given an option or argument that it doesn't take.

    `value` is never kept: under a name that nobody knows it may be a secret.
    """

    def __init__(self, called: str, problem: str, option: str) -> None:
        super().__init__(option, None, problem)
        self.args = (called, problem, option)
        self.called = called

    def __str__(self) -> str:
        return f"{self.called} {self.reason}"


class InvalidDurationError(InvalidOptionError):
    """A duration is a bare number, negative, or text that can't be read."""


class UnknownBackoffError(ConfigurationError):
    """A job asks for a backoff strategy that is neither built in nor known to the worker."""

    def __init__(self, strategy: str, known: Sequence[str]) -> None:
        super().__init__(strategy, known)
        self.strategy, self.known = strategy, tuple(known)

    def __str__(self) -> str:
        known = ", ".join(repr(name) for name in ("fixed", "exponential", *self.known))
        return (
            f"backoff strategy {self.strategy!r} is not known to the worker (known: {known}). "
            "Give it to the worker (WorkerOptions.backoff_strategies), or use another one for the job."
        )


class UnusablePayloadTypeError(ConfigurationError):
    """A type that pydantic can't check, so no job can carry it."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(model, reason)
        self.model, self.reason = model, reason.rstrip(".")

    def __str__(self) -> str:
        return (
            f"{self.model} can't be the data or result of a job: {self.reason}. Use a pydantic model, dataclass, TypedDict or plain type."
        )


class InvalidCronError(InvalidOptionError):
    """A cron expression that can't be read; `field` names the part that is wrong."""

    def __init__(self, expression: str, field: str, reason: str) -> None:
        super().__init__("cron", expression, f"{field}: {reason}")
        self.args = (expression, field, reason)
        self.expression, self.field = expression, field


class SettingsError(ConfigurationError):
    """A settings file or an environment variable holds something that the settings don't allow."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        head = "the settings are not usable" if len(self.problems) == 1 else f"{len(self.problems)} problems in the settings"
        return head + ":\n" + "\n".join(f"  - {problem}" for problem in self.problems)


class InvalidRedisUrlError(ConfigurationError):
    """The address of the server can't be read. The text never holds the password."""

    def __init__(self, safe_url: str, reason: str) -> None:
        super().__init__(safe_url, reason)
        self.safe_url, self.reason = safe_url, reason.rstrip(".")

    def __str__(self) -> str:
        return (
            f"REDIS_URL {self.safe_url!r}: {self.reason}. "
            "Write redis://[user:password@]host[:port][/db], rediss://… for TLS, unix:///path/to/socket, "
            "redis+sentinel://host:26379,…/name or redis+cluster://host:port,…"
        )


class ProcessorError(ConfigurationError):
    """Processors or handlers of one queue contradict each other."""

    def __init__(self, queue: str, reason: str, places: Sequence[str] = ()) -> None:
        super().__init__(queue, reason, places)
        self.queue, self.reason, self.places = queue, reason, tuple(places)

    def __str__(self) -> str:
        where = "".join(f"\n  - {place}" for place in self.places)
        return f"queue {self.queue!r}: {self.reason}{where}"


# ── the server ────────────────────────────────────────────────────────────────────────────────────────────────


class ServerError(TorilError):
    """Something about the Redis or Valkey server. `address` never holds a password; `reason` has no full stop at its end."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address, self.reason = address, reason.rstrip(".")

    def __str__(self) -> str:
        return f"server at {self.address}: {self.reason}"


class ServerUnreachableError(ServerError):
    """Nobody answers at the address, or not in time."""

    def __str__(self) -> str:
        return (
            f"no server answers at {self.address}: {self.reason}. Is it running, and is REDIS_URL right? "
            "(Unset REDIS_URL to use the embedded server.)"
        )


class ServerRefusedError(ServerError):
    """The server answers but refuses: wrong password, missing permission, a command it doesn't know."""

    def __str__(self) -> str:
        return f"the server at {self.address} refuses: {self.reason}. Check user and password in REDIS_URL, and the user's ACL."


class ServerFullError(ServerError):
    """The server's memory is full (`maxmemory`), so it takes nothing new; what runs goes on, and its outcomes are written."""

    def __str__(self) -> str:
        return (
            f"the memory of the server at {self.address} is full, and nothing was written: {self.reason}. "
            "Raise maxmemory, keep fewer ended jobs (keep_completed, keep_failed, Queue.clean), or let workers catch up and add again."
        )


class ServerTooOldError(ServerError):
    """The server's version is below the oldest one that the protocol works with."""

    def __init__(self, address: str, version: str, needed: str) -> None:
        super().__init__(address, f"it has version {version}, and Toril needs {needed} or newer")
        self.args = (address, version, needed)
        self.version, self.needed = version, needed


class ServerKindError(ServerError):
    """The address is written for another kind of server than the one that answers: `mode` is standalone, cluster or sentinel."""

    def __init__(self, address: str, mode: str) -> None:
        fix = {
            "sentinel": "it is a Sentinel: write redis+sentinel://host:26379/name-of-the-primary",
            "cluster": "it is a node of a Cluster: write redis+cluster://host:port",
        }
        super().__init__(address, fix.get(mode, "it is neither a Sentinel nor a node of a Cluster: write redis://host:port"))
        self.args = (address, mode)
        self.mode = mode


class ReadOnlyServerError(ServerUnreachableError):
    """A replica answers, which can't be written to; `primary` is the server that it follows.

    It is tried again like any that can't be reached: after a failover it may be the primary itself.
    """

    def __init__(self, address: str, primary: str) -> None:
        super().__init__(address, f"it is a read-only replica of {primary}")
        self.args = (address, primary)
        self.primary = primary

    def __str__(self) -> str:
        return (
            f"the server at {self.address} is a read-only replica of {self.primary}, and can't be written to. "
            "Let REDIS_URL name the primary, or the Sentinels that know it: redis+sentinel://host:26379/name"
        )


class EmbeddedServerError(ServerError):
    """The embedded server could not be found, started or reached; `reason` tells the cause, `fix` the way out."""

    def __init__(self, address: str, reason: str, fix: str) -> None:
        super().__init__(address, reason)
        self.args = (address, reason, fix)
        self.fix = fix

    def __str__(self) -> str:
        return f"embedded server ({self.address}): {self.reason}. {self.fix}"


# ── what travels ──────────────────────────────────────────────────────────────────────────────────────────────


class PayloadError(TorilError):
    """A payload, result, progress value or option that can't travel."""


class NotJsonError(PayloadError):
    """A value that JSON can't hold. `path` leads to it from the root, as in `$.user.tags[2]`."""

    def __init__(self, what: str, path: str, reason: str) -> None:
        super().__init__(what, path, reason)
        self.what, self.path, self.reason = what, path, reason

    def __str__(self) -> str:
        return f"{self.what} is not JSON: {self.path} {self.reason}"


class InvalidPayloadError(PayloadError):
    """Data that doesn't fit the model that the job's definition or handler asks for. `detail` is pydantic's text.

    `part` is `data`, or `result` where the value that a handler returned is meant.
    """

    def __init__(self, name: str, model: str, detail: str, job_id: str | None = None, part: str = "data") -> None:
        super().__init__(name, model, detail, job_id, part)
        self.name, self.model, self.detail, self.job_id, self.part = name, model, detail, job_id, part

    def __str__(self) -> str:
        which = f"job {self.job_id} ({self.name!r})" if self.job_id else f"job {self.name!r}"
        return f"the {self.part} of {which} doesn't fit {self.model}: {self.detail}"


class PayloadTooLargeError(PayloadError):
    """What a job carries has more bytes of JSON than it may have; `part` tells what: `data`, `result` or `progress`."""

    def __init__(self, name: str, size: int, limit: int, part: str = "data") -> None:
        super().__init__(name, size, limit, part)
        self.name, self.size, self.limit, self.part = name, size, limit, part

    def __str__(self) -> str:
        bound, fix = {
            "data": ("its size_limit", "store the bulk of it elsewhere and pass a reference, or raise the limit with size_limit="),
            "result": (
                "the worker's result_size_limit",
                "store the bulk of it elsewhere and return a reference, or raise WorkerOptions.result_size_limit",
            ),
        }.get(self.part, ("the limit", "events carry it to all who listen, so report a summary, and store the bulk of it elsewhere"))
        return f"the {self.part} of job {self.name!r} has {self.size:,} bytes, and {bound} is {self.limit:,}: {fix}"


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
    """Jobs of the same ids stand where the scheduler's next iteration belongs."""

    def __str__(self) -> str:
        return (
            f"job scheduler {self.scheduler_id!r} of queue {self.queue!r} can't add its next iteration: a job with that id exists. "
            "Remove that job, or choose another id for the scheduler."
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


# ── one job ───────────────────────────────────────────────────────────────────────────────────────────────────


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
    """`Job.result`: the job has not ended within the caller's timeout. It goes on; asking again is fine."""

    def __init__(self, job_id: str, queue: str, timeout_ms: int, state: str = "unknown") -> None:
        super().__init__(job_id, queue)
        self.args = (job_id, queue, timeout_ms, state)
        self.timeout_ms, self.state = timeout_ms, state

    def __str__(self) -> str:
        return (
            f"{super().__str__()} has not ended within {format_ms(self.timeout_ms)} (state: {self.state}). Does a worker run for the queue?"
        )


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


# ── what a handler may raise ──────────────────────────────────────────────────────────────────────────────────


class JobSignal(TorilError):
    """Base of what a handler raises to say what should happen to its job."""


class UnrecoverableError(JobSignal):
    """The job can't succeed, however often it is tried: it fails at once, whatever `attempts` says."""


class DelayedError(JobSignal):
    """Run the job again after `delay`; this run does not count as an attempt.

    Args:
        delay: a `timedelta` or text such as `"30s"`.
        message: for the log.
    """

    def __init__(self, delay: timedelta | str, message: str = "") -> None:
        super().__init__(delay, message)
        self.delay, self.message = delay, message

    def __str__(self) -> str:
        return self.message or f"run again in {format_duration(self.delay)}"


class WaitingError(JobSignal):
    """Run the job again as soon as possible, before all others; this run does not count as an attempt."""


class WaitingChildrenError(JobSignal):
    """Run the job again when its children have ended; this run does not count as an attempt. If none is pending, it runs again at once.

    A handler adds children with `queue.add(…, parent=job)`, notes in `job.update_data` how far it is, and raises this.
    """


class RateLimitError(JobSignal):
    """What the job needs (somebody's API, say) takes no more at the moment: run it again later; this run does not count as an attempt.

    Until then this worker claims nothing more, and neither do others of the queue that have a rate limit of their own or of the
    queue's (`WorkerOptions.limiter`, `Queue.set_global_rate_limit`); those that have none don't look at it.

    Args:
        duration: for how long, a `timedelta` or text such as `"30s"`; left out where `Queue.rate_limit` has just said it.
    """

    def __init__(self, duration: timedelta | str | None = None) -> None:
        super().__init__(duration)
        self.duration = duration

    def __str__(self) -> str:
        return "rate limit exceeded" if self.duration is None else f"rate limit exceeded; again in {format_duration(self.duration)}"
