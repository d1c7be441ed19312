"""`JobOptions` <-> the JSON text in a job's hash."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, cast

from toril.queues.option_parts import Backoff, Deduplication, KeepJobs
from toril.queues.options import NO_OPTIONS, JobOptions
from toril.wire.codec import from_json_or, to_json
from toril.wire.option_names import (
    BackoffValues,
    DeduplicationValues,
    KeepValues,
    OptionValues,
    decode_options,
    deduplication_values,
    encode_options,
)

_DEDUPLICATION_FLAGS: Final = ("extend", "replace", "keep_last_if_active", "reschedule")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST: Final = datetime(1, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9999, 12, 31, tzinfo=UTC)
_LONGEST_MS: Final = timedelta.max // timedelta(milliseconds=1)
_NOTHING_SAID: Final[dict[str, Any]] = dict.fromkeys(JobOptions.__dataclass_fields__)


def encode_job_options(options: JobOptions, expires_at_ms: int | None = None) -> bytes:
    """The JSON text that goes into the job's hash. `expires_at_ms`: what became of `expires_in`, which depends on the time."""
    values: dict[str, Any] = {}
    if expires_at_ms is not None:
        values["expires_at_ms"] = expires_at_ms
    for name, value in options.said().items():
        match name:
            case "delay":
                values["delay_ms"] = options.delay_ms
            case "timeout":
                values["timeout_ms"] = options.timeout_ms
            case "timestamp":
                values["timestamp_ms"] = options.timestamp_ms
            case "backoff":
                values[name] = _backoff_values(value)
            case "deduplication":
                values[name] = _deduplication_values(value)
            case "remove_on_complete" | "remove_on_fail":
                values[name] = _keep_values(value)
            case "expires_in":
                values["expires_in_ms"] = options.expires_in_ms
            case "job_id" if value == "":
                pass
            case _:
                values[name] = value
    return encode_options(cast("OptionValues", values))


@lru_cache(maxsize=1_024)
def stored_options(text: bytes) -> JobOptions:
    """The options in a job's hash, whoever wrote them; what makes no sense there counts as not set.

    Most jobs of a queue share one text, so a worker reads it once. Texts with an id in each are read each time, which
    takes some microseconds.
    """
    values = decode_options(text)
    if not values:
        return NO_OPTIONS
    said = _NOTHING_SAID.copy()
    for name, value in values.items():
        match name:
            case "delay_ms":
                said["delay"] = _duration(cast("int", value))
            case "timeout_ms":
                said["timeout"] = _duration(cast("int", value)) or None
            case "expires_in_ms":
                said["expires_in"] = _duration(cast("int", value))
            case "timestamp_ms":
                said["timestamp"] = moment(cast("int", value))
            case "deduplication":
                said[name] = _stored_deduplication(cast("DeduplicationValues", value))
            case "backoff":
                wait = cast("BackoffValues", value)
                said[name] = _stored_backoff(wait["strategy"], wait.get("delay_ms"), wait.get("jitter", 0.0), wait.get("cap_ms"))
            case "remove_on_complete" | "remove_on_fail":
                said[name] = _stored_keep(cast("bool | int | KeepValues", value))
            case "others" | "expires_at_ms":
                pass
            case _:
                said[name] = value
    return JobOptions.unchecked(said)


def stored_expiry_ms(text: bytes) -> int | None:
    """Until when a job with these options may wait; None: for ever."""
    return decode_options(text).get("expires_at_ms") if b"expiresAt" in text else None


def waiting_from(text: bytes, now_ms: int) -> bytes:
    """Stored options of a job that begins to wait anew; empty if they say the same as before."""
    wire = from_json_or(text, {})
    expires_in_ms = decode_options(text).get("expires_in_ms")
    return b"" if expires_in_ms is None else to_json({**wire, "expiresAt": now_ms + expires_in_ms}, "the options of a job")


def moment(ms: int) -> datetime:
    """Milliseconds since the epoch as a point in time in UTC, as near as the calendar goes."""
    try:
        return _EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        return _LAST if ms > 0 else _FIRST


def _duration(ms: int) -> timedelta:
    """What somebody else wrote, as far as a `timedelta` goes."""
    return timedelta(milliseconds=min(max(0, ms), _LONGEST_MS))


def _backoff_values(backoff: Backoff) -> BackoffValues:
    values: BackoffValues = {"strategy": backoff.strategy, "jitter": backoff.jitter}
    if backoff.delay_ms is not None:
        values["delay_ms"] = backoff.delay_ms
    if backoff.cap_ms is not None:
        values["cap_ms"] = backoff.cap_ms
    return values


def _deduplication_values(deduplication: Deduplication) -> DeduplicationValues:
    values: dict[str, Any] = {name: True for name in _DEDUPLICATION_FLAGS if getattr(deduplication, name)}
    if deduplication.ttl_ms is not None:
        values["ttl_ms"] = deduplication.ttl_ms
    return cast("DeduplicationValues", {"id": deduplication.id, **values})


def deduplication_text(deduplication: Deduplication) -> bytes:
    """As the add script takes it."""
    return to_json(deduplication_values(_deduplication_values(deduplication)), "the deduplication of a job")


def _stored_deduplication(values: DeduplicationValues) -> Deduplication:
    """What stands on the wire, where options may be together that make no sense."""
    stored = object.__new__(Deduplication)
    said: dict[str, Any] = {"id": values["id"], "ttl": _duration(values["ttl_ms"]) if "ttl_ms" in values else None}
    for name, value in {**said, **{flag: values.get(flag, False) for flag in _DEDUPLICATION_FLAGS}}.items():
        object.__setattr__(stored, name, value)
    return stored


def _keep_values(keep: bool | int | KeepJobs) -> bool | int | KeepValues:
    if not isinstance(keep, KeepJobs):
        return keep
    values: KeepValues = {}
    if keep.count is not None:
        values["count"] = keep.count
    if keep.age_ms is not None:
        values["age_ms"] = keep.age_ms
    if keep.limit is not None:
        values["limit"] = keep.limit
    return values


@lru_cache(maxsize=128)
def _stored_backoff(strategy: str, delay_ms: int | None, jitter: float, cap_ms: int | None) -> Backoff:
    return Backoff(
        strategy=strategy,
        delay=None if delay_ms is None else _duration(delay_ms),
        jitter=jitter,
        cap=None if cap_ms is None else _duration(cap_ms),
    )


def _stored_keep(values: bool | int | KeepValues) -> bool | int | KeepJobs:
    if not isinstance(values, dict):
        return values
    age = values.get("age_ms")
    return KeepJobs.unchecked(values.get("count"), None if age is None else _duration(age), values.get("limit"))
