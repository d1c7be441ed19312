"""A job's options: our names and units <-> the names and units on the wire.

Node writes this JSON, too, and so do users' scripts; so reading takes what it understands, leaves out what makes no sense,
and keeps everything it doesn't know. Source: the wire specification, §2.2 (BullMQ's names) and §11 (ours).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Required, TypedDict, cast

from toril.wire.codec import from_json_or, to_json


class BackoffValues(TypedDict, total=False):
    """How long to wait between attempts."""

    strategy: Required[str]
    delay_ms: int
    jitter: float
    cap_ms: int


class KeepValues(TypedDict, total=False):
    """What stays of ended jobs; at least one of the first two is there."""

    count: int
    age_ms: int
    limit: int


class DeduplicationValues(TypedDict, total=False):
    """What keeps a job out while another one stands for it."""

    id: Required[str]
    ttl_ms: int
    extend: bool
    replace: bool
    keep_last_if_active: bool
    reschedule: bool


class OptionValues(TypedDict, total=False):
    """A job's options in our names; what isn't there isn't set."""

    attempts: int
    backoff: BackoffValues
    delay_ms: int
    priority: int
    lifo: bool
    timeout_ms: int
    expires_in_ms: int
    expires_at_ms: int
    remove_on_complete: bool | int | KeepValues
    remove_on_fail: bool | int | KeepValues
    job_id: str
    deduplication: DeduplicationValues
    fail_parent_on_failure: bool
    continue_parent_on_failure: bool
    ignore_dependency_on_failure: bool
    remove_dependency_on_failure: bool
    timestamp_ms: int
    stack_trace_limit: int
    keep_logs: int
    size_limit: int
    others: Mapping[str, Any]
    """What these names don't cover (parents, schedulers, somebody's own keys), exactly as on the wire."""


_WIRE_NAMES: Final = {
    "attempts": "attempts",
    "backoff": "backoff",
    "delay_ms": "delay",
    "priority": "priority",
    "lifo": "lifo",
    "timeout_ms": "timeout",  # ours: BullMQ has none, Bull wrote the same
    "expires_in_ms": "expiresIn",  # ours, as the next one: how long it may wait, from when it may run
    "expires_at_ms": "expiresAt",
    "remove_on_complete": "removeOnComplete",
    "remove_on_fail": "removeOnFail",
    "job_id": "jobId",
    "deduplication": "de",
    "fail_parent_on_failure": "fpof",
    "continue_parent_on_failure": "cpof",
    "ignore_dependency_on_failure": "idof",
    "remove_dependency_on_failure": "rdof",
    "timestamp_ms": "timestamp",
    "stack_trace_limit": "stackTraceLimit",
    "keep_logs": "kl",
    "size_limit": "sizeLimit",
}
_OUR_NAMES: Final = {wire: ours for ours, wire in _WIRE_NAMES.items()} | {"keepLogs": "keep_logs"}  # the long name, before BullMQ 5
_WHOLE_NUMBERS: Final = frozenset(
    {
        "attempts",
        "delay_ms",
        "priority",
        "timeout_ms",
        "expires_in_ms",
        "expires_at_ms",
        "timestamp_ms",
        "stack_trace_limit",
        "keep_logs",
        "size_limit",
    }
)

FAILURE_FLAGS: Final[Mapping[str, str]] = {
    name: _WIRE_NAMES[name]
    for name in (
        "fail_parent_on_failure", "continue_parent_on_failure", "ignore_dependency_on_failure", "remove_dependency_on_failure",
    )
}  # fmt: skip
"""What the failure of a child does to its parent: our names -> those on the wire. A child has at most one of them."""

_LARGEST: Final = 2**53 - 1

DEFAULT_OPTIONS: Final = b'{"attempts":0}'
"""What a job without options has: Node needs the number of attempts, and counts 0 as 1."""


def encode_options(options: OptionValues) -> bytes:
    """Write options as the JSON that goes into the job's hash. There is never a null in it: Node would fail on one."""
    if not options:
        return DEFAULT_OPTIONS
    wire: dict[str, Any] = {"attempts": 0}
    for name, value in options.items():
        match name:
            case "backoff":
                wire["backoff"] = _encode_backoff(cast("BackoffValues", value))
            case "remove_on_complete" | "remove_on_fail":
                wire[_WIRE_NAMES[name]] = _encode_keep(cast("bool | int | KeepValues", value))
            case "deduplication":
                wire["de"] = deduplication_values(cast("DeduplicationValues", value))
            case "others":
                wire.update((key, other) for key, other in cast("Mapping[str, Any]", value).items() if other is not None)
            case _:
                wire[_WIRE_NAMES[name]] = value
    return to_json(wire, "the options of a job")


def decode_options(text: bytes) -> OptionValues:
    """Read what stands in a job's hash; never raises."""
    wire = from_json_or(text, {})
    options: dict[str, Any] = {}
    others: dict[str, Any] = {}
    if isinstance(wire, dict):
        for key, value in cast("dict[str, Any]", wire).items():
            name = _OUR_NAMES.get(key)
            if name is None:
                others[key] = value
            elif (ours := _decode(name, value)) is not None:
                options[name] = ours
    if others:
        options["others"] = others
    return cast("OptionValues", options)


_DEDUPLICATION_FLAGS: Final = (
    ("extend", "extend"), ("replace", "replace"), ("keep_last_if_active", "keepLastIfActive"), ("reschedule", "reschedule"),
)  # fmt: skip


def deduplication_values(values: DeduplicationValues) -> dict[str, Any]:
    """As the options have them under `de`: what isn't set has no field."""
    wire: dict[str, Any] = {"id": values["id"]}
    if "ttl_ms" in values:
        wire["ttl"] = values["ttl_ms"]
    wire.update({theirs: True for ours, theirs in _DEDUPLICATION_FLAGS if values.get(ours)})
    return wire


def _decode_deduplication(value: object) -> DeduplicationValues | None:
    wire = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    if not isinstance(wire.get("id"), str) or not wire["id"]:
        return None
    values: dict[str, Any] = {"id": wire["id"]}
    if (ttl_ms := _whole(wire.get("ttl"))) is not None and ttl_ms > 0:
        values["ttl_ms"] = ttl_ms
    values.update({ours: True for ours, theirs in _DEDUPLICATION_FLAGS if wire.get(theirs) is True})
    return cast("DeduplicationValues", values)


def _encode_backoff(backoff: BackoffValues) -> dict[str, Any]:
    wire: dict[str, Any] = {"type": backoff["strategy"]}
    if "delay_ms" in backoff:
        wire["delay"] = backoff["delay_ms"]
    if jitter := backoff.get("jitter"):
        wire["jitter"] = jitter
    if "cap_ms" in backoff:
        wire["maxDelay"] = backoff["cap_ms"]
    return wire


def _encode_keep(keep: bool | int | KeepValues) -> bool | int | dict[str, int | float]:
    if not isinstance(keep, dict):
        return keep
    wire: dict[str, int | float] = {}
    if "count" in keep:
        wire["count"] = keep["count"]
    if "age_ms" in keep:
        seconds, rest = divmod(keep["age_ms"], 1_000)
        wire["age"] = seconds if rest == 0 else keep["age_ms"] / 1_000
    if "limit" in keep:
        wire["limit"] = keep["limit"]
    return wire


def _decode(name: str, value: object) -> Any:  # noqa: ANN401 -- this is where JSON comes in
    """One value in our unit, or None if it makes no sense."""
    if name in _WHOLE_NUMBERS:
        return _whole(value)
    if name == "backoff":
        return _decode_backoff(value)
    if name == "deduplication":
        return _decode_deduplication(value)
    if name in {"remove_on_complete", "remove_on_fail"}:
        return _decode_keep(value)
    if name == "lifo" or name in FAILURE_FLAGS:
        return bool(value)
    return value if isinstance(value, str) and value else None  # job_id


def _decode_backoff(value: object) -> BackoffValues | None:
    if not isinstance(value, dict):
        delay_ms = _whole(value)
        return None if delay_ms is None else {"strategy": "fixed", "delay_ms": delay_ms}
    wire = cast("dict[str, Any]", value)
    strategy = wire.get("type")
    if not isinstance(strategy, str) or not strategy:
        return None
    backoff: BackoffValues = {"strategy": strategy}
    if (delay_ms := _whole(wire.get("delay"))) is not None:
        backoff["delay_ms"] = delay_ms
    jitter = wire.get("jitter")
    if isinstance(jitter, (int, float)) and not isinstance(jitter, bool) and 0 < jitter <= 1:
        backoff["jitter"] = float(jitter)
    if (cap_ms := _whole(wire.get("maxDelay"))) is not None:
        backoff["cap_ms"] = cap_ms
    return backoff


def _decode_keep(value: object) -> bool | int | KeepValues | None:
    if isinstance(value, bool):
        return value
    if not isinstance(value, dict):
        count = _whole(value)
        return False if count is not None and count < 0 else count  # below 0: Node keeps all
    wire = cast("dict[str, Any]", value)
    keep: KeepValues = {}
    if (count := _whole(wire.get("count"))) is not None and count >= 0:
        keep["count"] = count
    age = wire.get("age")
    if isinstance(age, (int, float)) and 0 <= age <= _LARGEST:
        keep["age_ms"] = round(age * 1_000)
    if (limit := _whole(wire.get("limit"))) is not None and limit > 0:
        keep["limit"] = limit
    return keep if "count" in keep or "age_ms" in keep else False  # an object that says nothing keeps all


def _whole(value: object) -> int | None:
    """A number as a whole one, if it is one in JavaScript, which doesn't tell 3 from 3.0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -_LARGEST <= value <= _LARGEST:
        return None
    return int(value)
