"""What Hypothesis makes up for the differential run: options, flows, rules of schedulers, in Node's spelling.

Times to live are of an hour or more, so that none runs out while two key spaces are compared.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from hypothesis import strategies as st

from tests.interop.differential import T0
from tests.interop.spelling import HOUR_MS, Json
from tests.interop.toril_side import WORKERS

Made: TypeAlias = st.SearchStrategy[Json]
Fields: TypeAlias = dict[str, Made]


def some_of(options: Fields, always: Fields | None = None) -> Made:
    """Any part of these options."""
    return st.fixed_dictionaries(always or {}, optional=options)


QUEUES: Final = st.sampled_from(["q", "q", "p"])
NAMES: Final = st.sampled_from(["n", "m"])
OBJECTS: Final[Made] = st.sampled_from([{}, {"a": 1}, [1, {"b": None}], "text é", 5, {"long": "x" * 30}])
DATA: Final[Made] = st.one_of(OBJECTS, st.none())
VALUES: Final[Made] = st.sampled_from([None, 1, {"ok": [True]}, "é", [], 0])
DELAYS: Final = st.sampled_from([0, 1, 1_000, 1_000, 60_000])
PRIORITIES: Final = st.sampled_from([0, 1, 2, 2_097_151])
KEEPS: Final[Made] = st.sampled_from([True, False, 0, 1, {"count": 1}, {"age": 60}, {"age": 60, "count": 2}, {"age": 1, "limit": 1}])
WORKER: Final = st.sampled_from(["plain", *WORKERS])
N: Final = st.integers(0, 7)
STRAY: Final = st.sampled_from(["", "", "", "", "", "other", "nobody"])
"""Mostly a job that is where the operation wants it; now and then one that isn't, or none."""
TOKENS: Final = st.sampled_from(["", "", "", "", "wrong"])
"""Mostly the lock's own."""

BACKOFFS: Final[Made] = st.sampled_from(
    [{"type": "fixed", "delay": 1_000}, {"type": "exponential", "delay": 1_000}, {"type": "exponential", "delay": 700, "jitter": 0.5}]
)
FLAGS: Final = [
    "failParentOnFailure",
    "continueParentOnFailure",
    "ignoreDependencyOnFailure",
    "removeDependencyOnFailure",
]
FLAG: Final[Made] = st.sampled_from([{}, *({flag: True} for flag in FLAGS)])
_WORK_FIELDS: Final[Fields] = {
    "attempts": st.integers(0, 3),
    "backoff": BACKOFFS,
    "removeOnComplete": KEEPS,
    "removeOnFail": KEEPS,
    "stackTraceLimit": st.integers(0, 2),
    "keepLogs": st.integers(1, 2),
}
_FIELDS: Final[Fields] = {
    **_WORK_FIELDS,
    "backoff": st.one_of(BACKOFFS, st.sampled_from([0, 500])),
}
_IN_LINE: Final[Fields] = {"lifo": st.booleans()}
_IN_TIME: Final[Fields] = {"delay": DELAYS, "priority": PRIORITIES}
_NAMED: Final[Fields] = {"jobId": st.sampled_from(["a", "b", "x:y:z"]), "timestamp": st.sampled_from([T0 - 5_000, T0 + 5_000])}


def _placed(fields: Fields) -> Made:
    """These options, and where the job goes: we refuse to let one go first that waits for its time or has a priority."""
    return st.one_of(some_of({**fields, **_IN_LINE}), some_of({**fields, **_IN_TIME}))


OPTIONS: Final = _placed({**_FIELDS, **_NAMED, "sizeLimit": st.sampled_from([20, 1_000])})
ANONYMOUS_OPTIONS: Final = _placed(_FIELDS)
CHILD_OPTIONS: Final = _placed({**_FIELDS, "jobId": st.sampled_from(["a", "b"])})
JOBS: Final[Made] = st.lists(
    st.fixed_dictionaries({"name": NAMES, "data": DATA, "opts": _placed({**_FIELDS, **_NAMED})}), min_size=1, max_size=4
)

_FORMS: Final[list[dict[str, Any]]] = [
    {},
    {"ttl": HOUR_MS},
    {"ttl": 2 * HOUR_MS, "extend": True},
    {"replace": True},
    {"ttl": HOUR_MS, "replace": True},
    {"ttl": 3 * HOUR_MS, "replace": True, "extend": True},
    {"keepLastIfActive": True},
    {"keepLastIfActive": True, "replace": True},
    {"reschedule": True},
    {"reschedule": True, "ttl": HOUR_MS},
]
_FOREIGN_FORMS: Final[list[dict[str, Any]]] = [
    {"keepLastIfActive": True, "ttl": HOUR_MS},
    {"keepLastIfActive": True, "ttl": HOUR_MS, "extend": True},
    {"extend": True},
    {"replace": True, "reschedule": True},
]


def _deduplications(forms: list[dict[str, Any]]) -> Made:
    return st.sampled_from([{"id": name, **form} for form in forms for name in ("d0", "d1")])


DEDUPLICATIONS: Final = _deduplications(_FORMS)

# ── what our API refuses ──────────────────────────────────────────────────────────────────────────────────────────

FOREIGN_OPTIONS: Final = some_of(
    {
        **_FIELDS,
        "lifo": st.booleans(),
        "delay": st.sampled_from([-5, 0, 1_000]),
        "priority": st.sampled_from([0, 2]),
        "deduplication": _deduplications([*_FORMS, *_FOREIGN_FORMS]),
    }
)
"""Node takes these, and they mean something to whoever runs the job."""

BAD_OPTIONS: Final[Made] = st.sampled_from(
    [
        *({"jobId": text} for text in ("12", "-3", "a:b", "a:b:c:d")),
        *({"priority": number} for number in (2_097_152, 1.5)),
        {"failParentOnFailure": True, "ignoreDependencyOnFailure": True},
        {"continueParentOnFailure": True, "removeDependencyOnFailure": True},
        {"deduplication": {"id": ""}},
        {"backoff": {"type": "fixed", "delay": 1, "jitter": 2}},
    ]
)
BAD_REPEATS: Final[Made] = st.sampled_from(
    [
        {},
        {"every": 1_000, "pattern": "* * * * *"},
        {"every": 1_000, "immediately": True, "startDate": 5_000},
        {"pattern": "* * * * *", "immediately": True, "startDate": 5_000},
        {"every": 1_000, "endDate": -5},
        {"pattern": "* * * * *", "endDate": -5},
        {"pattern": "61 * * * *"},
    ]
)
"""Both refuse these."""

# ── flows: of two levels, or three ────────────────────────────────────────────────────────────────────────────────

_NODE: Final[Fields] = {"name": NAMES, "data": DATA, "opts": ANONYMOUS_OPTIONS, "flag": FLAG, "queue": QUEUES}


def _node(below: Made | None = None, most: int = 0) -> Made:
    children: Fields = {} if below is None else {"children": st.lists(below, min_size=1, max_size=most)}
    return st.fixed_dictionaries({**_NODE, **children})


FLOWS: Final = _node(st.one_of(_node(), _node(_node(), 2)), 3)

# ── schedulers; dates count from now ──────────────────────────────────────────────────────────────────────────────

_ENDS: Final[Fields] = {"limit": st.integers(1, 3), "endDate": st.sampled_from([500, 90_000])}
REPEATS: Final[Made] = st.one_of(
    some_of(
        {**_ENDS, "offset": st.sampled_from([0, 300]), "startDate": st.sampled_from([-5_000, 5_000])},
        {"every": st.sampled_from([1_000, 60_000])},
    ),
    some_of(
        {**_ENDS, "tz": st.sampled_from(["UTC", "Europe/Berlin"]), "startDate": st.sampled_from([-5_000, 70_000])},
        {"pattern": st.sampled_from(["* * * * *", "*/5 * * * * *", "0 3 * * *"])},
    ),
    st.just({"pattern": "* * * * *", "immediately": True}),
)
TEMPLATES: Final = some_of({"name": NAMES, "data": OBJECTS, "opts": some_of({**_WORK_FIELDS, "priority": PRIORITIES})})
