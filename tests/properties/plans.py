"""What may happen to a fleet, one step at a time: the values that `test_invariants.py` draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hypothesis import strategies as st

from toril.queues.job_schedulers import ScheduleRule
from toril.queues.option_parts import Deduplication
from toril.queues.options import NO_OPTIONS, JobOptions

NUMBERS: Final = st.integers(0, 60)
"""Chooses one of what there is: the n-th, counted round."""

QUEUES: Final = st.sampled_from(["q", "q", "q", "p"])
KEEP: Final = st.sampled_from(["", "", "", "0,,", "1,,"])
WAYS: Final = st.tuples(
    st.sampled_from(
        ["complete", "complete", "fail", "letter", "retry", "delay", "put off", "put back", "rate limited", "children", "unknown"]
    ),
    KEEP,
)
_IDS: Final = st.sampled_from([None, None, None, "a", "b"])
JOBS: Final = st.one_of(
    st.builds(
        JobOptions,
        delay=st.sampled_from([None, None, "2s", "40s"]),
        priority=st.sampled_from([None, None, 1, 5]),
        job_id=_IDS,
    ),
    st.builds(JobOptions, lifo=st.sampled_from([None, True]), job_id=_IDS),
)
DEDUPLICATED: Final = st.builds(
    JobOptions,
    # An id has one rule, or nearly so: whoever extends the time of an id for which a payload is kept gives that an end (as in BullMQ).
    deduplication=st.sampled_from([
        Deduplication("simple"), Deduplication("simple", reschedule=True), Deduplication("throttle", ttl="45s"),
        Deduplication("extend", ttl="45s", extend=True), Deduplication("debounce", replace=True),
        Deduplication("debounce", replace=True, ttl="45s"), Deduplication("last", keep_last_if_active=True),
        Deduplication("last", keep_last_if_active=True), Deduplication("last", keep_last_if_active=True, replace=True),
    ]),
    delay=st.sampled_from([None, None, "2s", "40s"]),
    priority=st.sampled_from([None, 3]),
)  # fmt: skip
FATES: Final = st.sampled_from(["heard", "heard", "heard", "heard", "unheard", "late"])
FLAGS: Final = st.sampled_from([
    NO_OPTIONS, JobOptions(fail_parent_on_failure=True), JobOptions(continue_parent_on_failure=True),
    JobOptions(ignore_dependency_on_failure=True), JobOptions(remove_dependency_on_failure=True),
])  # fmt: skip
"""What a child's failure does to its parent."""


@dataclass(frozen=True)
class Tree:
    """A job of a flow, and those that it waits for."""

    queue: str
    options: JobOptions
    flags: JobOptions
    children: Sequence[Tree] = ()


_OPTIONS: Final = st.builds(JobOptions, delay=st.sampled_from([None, "2s"]), priority=st.sampled_from([None, 4]))
TREES: Final = st.recursive(
    st.builds(Tree, QUEUES, _OPTIONS, FLAGS),
    lambda below: st.builds(Tree, QUEUES, _OPTIONS, FLAGS, st.lists(below, min_size=1, max_size=2)),
    max_leaves=4,
)
JOB_OPERATIONS: Final = (
    "cancel", "cancel", "promote", "delay", "to now", "priority", "to front", "no priority", "remove", "remove", "drop child link",
)  # fmt: skip
QUEUE_OPERATIONS: Final = (
    "pause", "resume", "resume", "resume", "resume", "concurrency 2", "concurrency", "concurrency", "rate 2", "rate", "rate",
    "limited 10s", "limited",
    "drain", "drain delayed", "clean completed", "clean failed", "clean waiting", "clean delayed", "clean prioritized", "clean active",
    "clean waiting-children", "retry failed", "retry completed", "promote",
)  # fmt: skip
RULES: Final = st.sampled_from([
    ScheduleRule(every="10s"), ScheduleRule(every="60s"), ScheduleRule(every="10s", offset="3s"), ScheduleRule(every="10s", limit=2),
    ScheduleRule(pattern="*/20 * * * * *"), ScheduleRule(pattern="*/30 * * * * *"), ScheduleRule(pattern="*/20 * * * * *", limit=2),
])  # fmt: skip
