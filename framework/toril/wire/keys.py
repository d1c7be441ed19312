"""Every key name. No other module builds one.

Source: the wire specification, §1 (BullMQ's keys) and §11 (ours).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Final

from toril.errors import InvalidOptionError

DEFAULT_PREFIX: Final = "bull"
CLUSTER_PREFIX: Final = "{bull}"
"""The default on a Cluster, where all keys of a queue must hash alike."""

QUEUE_KINDS: Final = {
    "wait": "list", "paused": "list", "active": "list", "prioritized": "zset", "delayed": "zset", "waiting-children": "zset",
    "completed": "zset", "failed": "zset", "id": "string", "meta": "hash", "events": "stream", "marker": "zset", "pc": "string",
    "stalled": "set", "stalled-check": "string", "limiter": "string", "repeat": "zset",
    "metrics:completed": "hash", "metrics:failed": "hash", "metrics:completed:data": "list", "metrics:failed:data": "list",
}  # fmt: skip
"""The queue's own keys by what follows its base, each with its type (wire §1)."""

JOB_KINDS: Final = {
    "": "hash", ":lock": "string", ":logs": "list", ":dependencies": "set", ":processed": "hash", ":failed": "hash",
    ":unsuccessful": "zset",
}  # fmt: skip
"""A job's keys by what follows its own, each with its type."""

RESERVED_JOB_IDS: Final = frozenset(QUEUE_KINDS) | {"priority", "delay"}
"""A job's hash lies beside the queue's own keys, so no job may have one of their names."""


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """The keys of one queue. `base` and `own` end in a colon; everything else is made from them, here and in the scripts."""

    prefix: str
    queue: str
    base: str = field(init=False)
    own: str = field(init=False)
    """Base of our own keys, which no Node operation touches."""

    def __post_init__(self) -> None:
        if not self.queue or ":" in self.queue:
            raise InvalidOptionError("queue", self.queue, "a queue's name must not be empty and must not hold a colon")
        if not self.prefix:
            raise InvalidOptionError("prefix", self.prefix, "a prefix must not be empty")
        for option, text in (("queue", self.queue), ("prefix", self.prefix)):
            if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
                raise InvalidOptionError(option, text, "it holds half a character (a lone surrogate), which has no UTF-8 form")
        object.__setattr__(self, "base", f"{self.prefix}:{self.queue}:")
        object.__setattr__(self, "own", f"toril:{self.prefix}:{self.queue}:")

    @property
    def qualified_name(self) -> str:
        """How other jobs name this queue, in `parent.queueKey` and `opts.parent.queue`."""
        return self.base[:-1]

    @property
    def events(self) -> str:
        return self.base + "events"

    @property
    def marker(self) -> str:
        return self.base + "marker"

    @property
    def meta(self) -> str:
        return self.base + "meta"

    @property
    def stalled_check(self) -> str:
        return self.base + "stalled-check"

    @property
    def schedulers(self) -> str:
        """The job schedulers, by the time of their current iteration."""
        return self.base + "repeat"

    def scheduler(self, scheduler_id: str) -> str:
        """A job scheduler's record."""
        return f"{self.base}repeat:{scheduler_id}"

    def deduplication(self, deduplication_id: str) -> str:
        """The id of the job that stands for all of a deduplication id."""
        return f"{self.base}de:{deduplication_id}"

    @property
    def limiter(self) -> str:
        return self.base + "limiter"

    def metrics(self, state: str) -> str:
        """How many jobs have completed, or failed."""
        return f"{self.base}metrics:{state}"

    def metrics_data(self, state: str) -> str:
        """And how many in each minute."""
        return f"{self.base}metrics:{state}:data"

    @property
    def control(self) -> str:
        """The channel on which workers are told to look at something at once."""
        return self.own + "control"

    def cancellation(self, job_id: str) -> str:
        """Why a running job is to be cancelled."""
        return f"{self.own}cancel:{job_id}"

    def added(self, token: str) -> str:
        """What an idempotent add was answered, for 10 minutes."""
        return f"{self.own}added:{token}"

    def replayed(self, letter_id: str) -> str:
        """The id of the job that a dead letter became, for a day."""
        return f"{self.own}replayed:{letter_id}"

    @property
    def paused_schedulers(self) -> str:
        """The records of job schedulers that are paused; ours."""
        return self.own + "paused-schedulers"

    @property
    def workers(self) -> str:
        """What the queue's workers tell of themselves; ours."""
        return self.own + "workers"

    def schedules(self, owner: str) -> str:
        """What an application declares of schedules, and in which version; ours."""
        return f"{self.own}schedules:{owner}"

    def job(self, job_id: str) -> str:
        return self.base + job_id

    def lock(self, job_id: str) -> str:
        return f"{self.base}{job_id}:lock"

    def logs(self, job_id: str) -> str:
        return f"{self.base}{job_id}:logs"

    def state(self, state: str) -> str:
        """The list or sorted set of a state, by its key's name (`wait`, not `waiting`)."""
        return self.base + state

    @property
    def tag(self) -> str | None:
        """What a Cluster hashes of all its keys; None if the prefix holds no hash tag."""
        _, opened, rest = self.prefix.partition("{")
        tag, closed, _ = rest.partition("}")
        return tag if opened and closed and tag else None

    def split_job_key(self, key: str) -> tuple[str, str, str]:
        """Prefix, queue and id of a job by its full key, as a parent keeps it.

        Behind our own prefix the queue's name ends at the first colon, so that ids may hold some (`a:b:c`, iterations of schedulers);
        behind another one only an id without a colon can be told from its queue (T20).
        """
        if key.startswith(f"{self.prefix}:"):
            name, colon, job_id = key[len(self.prefix) + 1 :].partition(":")
            if colon:
                return self.prefix, name, job_id
        base, _, job_id = key.rpartition(":")
        prefix, _, name = base.rpartition(":")
        return prefix, name, job_id

    def shares_slot_with(self, other: QueueKeys) -> bool:
        """Whether one script may touch both queues on a Cluster: the hash tags of their prefixes agree. Without tags there is none."""
        return self.tag == other.tag

    def client_name(self, worker_name: str | None = None) -> str:
        """What a worker calls its blocking connection, so that Node tools list it (wire §6)."""
        unnamed = f"{self.prefix}:{base64.b64encode(self.queue.encode()).decode()}"
        return f"{unnamed}:w:{shown_name(worker_name)}" if worker_name else unnamed

    @property
    def events_client_name(self) -> str:
        """What a reader of the events stream calls its connection."""
        return f"{self.prefix}:{base64.b64encode(self.queue.encode()).decode()}:qe"


def shown_name(worker_name: str) -> str:
    """A worker's name as the server takes it for a connection."""
    return "".join(c if c.isprintable() and not c.isspace() and c.isascii() else "-" for c in worker_name)
