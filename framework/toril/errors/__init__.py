"""Every error that Toril raises, as one tree.

    TorilError
    ├── ConfigurationError                 found before anything runs: the program or its settings must change
    │   ├── InvalidOptionError             an option has a value that makes no sense        (also a ValueError)
    │   │   ├── InvalidCallError           a call with an option or argument that isn't there    (also a TypeError)
    │   │   ├── InvalidDurationError       a duration that can't be read, or a bare number  (also a ValueError)
    │   │   └── InvalidCronError           a cron expression or its zone                    (also a ValueError)
    │   ├── MissingExtraError              it needs a package that isn't installed
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
    │   ├── CommandFailedError             it could not carry out one command
    │   │   └── DamagedKeyError            since a key holds something that doesn't belong there
    │   │       └── DamagedJobsError       an operation on many jobs has left some as they are, for that reason
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
    │   ├── LetterRefusedError             the queue for dead letters can't take one; the job waits for it
    │   └── OutcomeRefusedError            how it ended can't be written, since its parent's keys are damaged; it waits for that
    └── JobSignal                          raised by a handler to say what should happen to its job
        ├── UnrecoverableError             fail for good, whatever `attempts` says
        ├── DelayedError                   run again after a delay; no attempt is spent
        ├── WaitingError                   run again as soon as possible; no attempt is spent
        ├── WaitingChildrenError           run again when its children have ended
        └── RateLimitError                 the same, once a rate limit has passed

Each error keeps what it knows as attributes and makes its text in `__str__`, so it can be pickled and asked.
"""

from __future__ import annotations

from toril.errors.base import TorilError
from toril.errors.configuration import (
    ConfigurationError,
    InvalidCallError,
    InvalidCronError,
    InvalidDurationError,
    InvalidOptionError,
    InvalidRedisUrlError,
    MissingExtraError,
    ProcessorError,
    SettingsError,
    UnknownBackoffError,
    UnusablePayloadTypeError,
)
from toril.errors.handling import DelayedError, JobSignal, RateLimitError, UnrecoverableError, WaitingChildrenError, WaitingError
from toril.errors.jobs import (
    ChildHandlerError,
    ChildProcessDiedError,
    ChildProcessStartError,
    DeadLetterError,
    FailedChildError,
    JobCancelledError,
    JobError,
    JobExpiredError,
    JobFailedError,
    JobNotFoundError,
    JobRemovedError,
    JobStateError,
    JobTimeoutError,
    LetterRefusedError,
    LockLostError,
    OutcomeRefusedError,
    PendingChildrenError,
    ResultTimeoutError,
    UnknownJobNameError,
)
from toril.errors.payloads import InvalidPayloadError, NotJsonError, PayloadError, PayloadTooLargeError
from toril.errors.queues import (
    AddOutcomeUnknownError,
    ClaimObstructedError,
    ParentError,
    QueueBusyError,
    QueueClosedError,
    SchedulerBusyError,
    SchedulerError,
    SchedulerNotFoundError,
    SyncCallError,
    UnknownScheduleError,
    WrongLoopError,
)
from toril.errors.servers import (
    CommandFailedError,
    DamagedJobsError,
    DamagedKeyError,
    EmbeddedServerError,
    ReadOnlyServerError,
    ServerError,
    ServerFullError,
    ServerKindError,
    ServerRefusedError,
    ServerTooOldError,
    ServerUnreachableError,
)

__all__ = [
    "AddOutcomeUnknownError",
    "ChildHandlerError",
    "ChildProcessDiedError",
    "ChildProcessStartError",
    "ClaimObstructedError",
    "CommandFailedError",
    "ConfigurationError",
    "DamagedJobsError",
    "DamagedKeyError",
    "DeadLetterError",
    "DelayedError",
    "EmbeddedServerError",
    "FailedChildError",
    "InvalidCallError",
    "InvalidCronError",
    "InvalidDurationError",
    "InvalidOptionError",
    "InvalidPayloadError",
    "InvalidRedisUrlError",
    "JobCancelledError",
    "JobError",
    "JobExpiredError",
    "JobFailedError",
    "JobNotFoundError",
    "JobRemovedError",
    "JobSignal",
    "JobStateError",
    "JobTimeoutError",
    "LetterRefusedError",
    "LockLostError",
    "MissingExtraError",
    "NotJsonError",
    "OutcomeRefusedError",
    "ParentError",
    "PayloadError",
    "PayloadTooLargeError",
    "PendingChildrenError",
    "ProcessorError",
    "QueueBusyError",
    "QueueClosedError",
    "RateLimitError",
    "ReadOnlyServerError",
    "ResultTimeoutError",
    "SchedulerBusyError",
    "SchedulerError",
    "SchedulerNotFoundError",
    "ServerError",
    "ServerFullError",
    "ServerKindError",
    "ServerRefusedError",
    "ServerTooOldError",
    "ServerUnreachableError",
    "SettingsError",
    "SyncCallError",
    "TorilError",
    "UnknownBackoffError",
    "UnknownJobNameError",
    "UnknownScheduleError",
    "UnrecoverableError",
    "UnusablePayloadTypeError",
    "WaitingChildrenError",
    "WaitingError",
    "WrongLoopError",
]

for _each in __all__:
    # They have one address, in tracebacks, in what is stored with jobs and in pickles, wherever they are written.
    globals()[_each].__module__ = __name__
