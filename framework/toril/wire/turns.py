"""What a worker asks of the server in one turn, and what it is answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from toril.wire.codec import JobRecord
from toril.wire.endings import Ending

HEEDS_ANY_LIMIT: Final = -1


class ClaimState(IntEnum):
    """Why a turn claimed no more jobs than it did. The numbers are the script's."""

    SATISFIED = 0
    """It got all that it asked for."""
    EMPTY = 1
    """Nothing is waiting; `value` is when the next delayed job is due (ms), or 0."""
    LIMITED = 2
    """The rate limit is used up; `value` is for how many ms."""
    BLOCKED = 3
    """The queue is paused, or as many jobs are active as its global concurrency allows."""
    ONLY_FULL_NAMES = 4
    """What is waiting has names that have no free slot here."""
    LOOK_FURTHER = 5
    """The same as far as was looked; the next turn goes on from the positions."""
    OBSTRUCTED = 6
    """Nothing can be claimed, because of what a key holds: `obstacle`."""


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """What one turn asks for: first finish `endings`, then claim up to `claims` jobs."""

    now_ms: int
    token: str
    """The lock of the first claimed job; the others get it with `:2`, `:3`… behind."""
    lock_ms: int
    lane: str = ""
    """Under which the answer is kept (worker id and lane), so that the turn may be sent again. Empty: it is not kept."""
    sequence: int = 0
    endings: Sequence[Ending] = ()
    claims: int = 0
    worker_name: str = ""
    free_by_name: Sequence[tuple[str, int]] = ()
    """Names with a limit of their own, with their free slots."""
    positions: tuple[int, int] = (0, 0)
    """From where to look, in the waiting and in the prioritized jobs."""
    limit_max: int = 0
    limit_ms: int = 0
    """The worker's own rate limit: so many jobs in so many ms; 0: none. With `HEEDS_ANY_LIMIT` instead of a number of jobs it has none,
    and yet claims nothing while there is one."""
    metrics_points: int = 0
    """For how many minutes finished jobs are counted; 0: they aren't."""


@dataclass(frozen=True, slots=True)
class TurnReply:
    """What a turn did."""

    codes: Sequence[int]
    """One for each ending: 0 done, above 0 what happened instead (`replies`), negative why it was refused (`replies.job_error`)."""
    details: Mapping[int, int | bytes]
    """What else is known of some of them, by their places: of a `put_back` with a limit the ms that are left of that, of an ending
    that found its job cancelled the reason for that, and of a dead letter that can't be written what keeps it from that."""
    claimed: Sequence[tuple[str, JobRecord]]
    """Each with its lock token."""
    state: ClaimState
    value: int
    positions: tuple[int, int]
    obstacle: str = ""
    """The key that keeps everybody from claiming, and what is wrong with it."""
    dropped: int = 0
    """How many ids without a job were taken out of the queue."""
    dropped_ids: Sequence[str] = ()
    """The first ones of them."""


@dataclass(frozen=True, slots=True)
class StalledReply:
    """What a sweep found: the ids it put back, or how long to wait because another worker swept lately."""

    recovered: Sequence[str]
    cancelled: Sequence[str]
    """Jobs that somebody cancelled before their worker died; they are active until `end_cancelled`, or the next sweep finds them."""
    dropped: Sequence[str]
    """Ids without a job behind them, which were active."""
    wait_ms: int
