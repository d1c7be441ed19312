"""The states of a job.

    add ─┬─► waiting ─────────┐            ┌─► completed
         ├─► prioritized ─────┼─► active ──┼─► failed
         ├─► delayed ─► (one of the two)   └─► waiting or prioritized (retry), delayed (retry with backoff), waiting-children
         └─► waiting-children ─► (one of the three)

A retry by hand takes a job from completed or failed back to waiting or prioritized. Removing takes it out of any state.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

JobState: TypeAlias = Literal["waiting", "active", "delayed", "prioritized", "waiting-children", "completed", "failed"]
"""Where a job is. Every job is in exactly one of them."""

STATES: Final[tuple[JobState, ...]] = ("waiting", "active", "delayed", "prioritized", "waiting-children", "completed", "failed")

PENDING_STATES: Final[tuple[JobState, ...]] = ("waiting", "delayed", "prioritized", "waiting-children")
"""Jobs that are yet to run."""

NEWEST_FIRST: Final[frozenset[JobState]] = frozenset({"completed", "failed"})
"""Lists of ended jobs begin with the latest; the others begin with the job that runs first."""


def state_key(state: JobState) -> str:
    """The name of the key that holds the state's jobs."""
    return "wait" if state == "waiting" else state


def state_of_key(key: str) -> JobState | None:
    """The state whose jobs the key holds; None for what is no state. `paused` is the list in which old BullMQ kept waiting jobs."""
    if key in {"wait", "paused"}:
        return "waiting"
    return next((state for state in STATES if state == key), None)
