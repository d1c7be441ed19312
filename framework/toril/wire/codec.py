"""Job hash <-> `JobRecord`, and Python values <-> JSON text.

Only standard JSON may go on the wire: `NaN`, `Infinity` and lone surrogates stop Node workers for good (wire §9.1, T1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, Final, TypeAlias, cast

import pydantic_core
from pydantic import BaseModel, Secret, SecretBytes, SecretStr

from toril.errors import NotJsonError

JsonValue: TypeAlias = "None | bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue]"

JOB_FIELDS: Final = (
    b"name", b"data", b"opts", b"timestamp", b"delay", b"priority", b"ats", b"atm", b"stc", b"defa", b"stacktrace", b"progress",
    b"parentKey", b"parent", b"rjk", b"deid", b"tm", b"processedOn", b"attemptsMade",
    b"pb", b"finishedOn", b"returnvalue", b"failedReason",
)  # fmt: skip
"""The fields of a job's hash that are read; others may stand beside them."""

_FIRST_FIELDS: Final = frozenset(JOB_FIELDS[:7]) | {b"processedOn"}
"""A job that is claimed for the first time has no others."""


MAX_CHARACTERS: Final = 20_000
"""A longer stack (endless recursion, a huge message) or row of a job's log loses its middle: each stays in the server's memory."""


MAX_DEPTH: Final = 200
"""How deep JSON may be nested: the parser reads no deeper, though the writer would."""

MAX_DIGITS: Final = 4_300
"""How many digits a number may have: the parser reads no longer ones."""

_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_AS_ZEROS: Final = bytes.maketrans(b"123456789", b"0" * 9)


@dataclass(slots=True)
class JobRecord:
    """A job as it is on the wire: names ours, JSON still text, times in ms since the epoch."""

    job_id: str
    name: str
    data: bytes
    opts: bytes
    timestamp_ms: int = 0
    delay_ms: int = 0
    priority: int = 0
    attempts_started: int = 0
    attempts_made: int = 0
    stalled_count: int = 0
    deferred_failure: str | None = None
    """Why the claiming worker must fail the job without running it."""
    stack_trace: bytes | None = None
    progress: bytes | None = None
    parent_key: str | None = None
    parent: bytes | None = None
    scheduler_id: str | None = None
    deduplication_id: str | None = None
    telemetry: str | None = None
    processed_at_ms: int | None = None
    processed_by: str | None = None
    finished_at_ms: int | None = None
    return_value: bytes | None = None
    failed_reason: str | None = None


def job_record(job_id: str, listed: Sequence[bytes]) -> JobRecord:
    """Read a job from its hash, as HGETALL lists it: each value behind its field, a later one in place of an earlier one."""
    items = iter(listed)
    fields = dict(zip(items, items, strict=True))
    get = fields.get
    record = JobRecord(
        job_id,
        get(b"name", b"").decode("utf-8", "replace"),
        get(b"data") or b"{}",
        get(b"opts") or b"{}",
        _int(get(b"timestamp")),
        _int(get(b"delay")),
        _int(get(b"priority")),
        _int(get(b"ats")),
    )
    processed = get(b"processedOn")
    if processed is not None:
        record.processed_at_ms = _int(processed)
    if not fields.keys() <= _FIRST_FIELDS:
        _read_later_fields(record, fields)
    return record


def claimed_record(row: Sequence[Any], now_ms: int) -> JobRecord:
    """Read a job from a row of the turn script, which was told that it is `now_ms`."""
    job_id, _, name, data, opts, timestamp, delay, priority = row[:8]
    record = JobRecord(
        id_text(job_id), name.decode("utf-8", "replace"), data or b"{}", opts or b"{}", _int(timestamp), _int(delay), _int(priority), 1
    )
    if len(row) == 8:  # its first run
        record.processed_at_ms = now_ms
    else:
        items = iter(row[8])
        fields = dict(zip(items, items, strict=True))
        record.attempts_started, record.processed_at_ms = _int(fields.get(b"ats")), _int(fields.get(b"processedOn"))
        _read_later_fields(record, fields)
    return record


def _read_later_fields(record: JobRecord, fields: Mapping[bytes, bytes]) -> None:
    get = fields.get
    record.attempts_made = _int(get(b"attemptsMade", get(b"atm")))  # a very old spelling, preferred where present
    record.stalled_count = _int(get(b"stc"))
    record.deferred_failure = _text(get(b"defa"))
    record.stack_trace, record.progress = get(b"stacktrace"), get(b"progress")
    if b"parentKey" in fields:
        record.parent_key, record.parent = _text(get(b"parentKey")), get(b"parent")
    record.scheduler_id, record.deduplication_id = _text(get(b"rjk")), _text(get(b"deid"))
    record.telemetry, record.processed_by = _text(get(b"tm")), _text(get(b"pb"))
    record.finished_at_ms = _int(get(b"finishedOn")) if b"finishedOn" in fields else None
    record.return_value, record.failed_reason = get(b"returnvalue"), _text(get(b"failedReason"))


def id_text(raw: bytes) -> str:
    """A job's id. Bytes that are no UTF-8 (somebody's script may write anything) become surrogates, which `id_bytes` turns back."""
    return raw.decode("utf-8", "surrogateescape")


def id_bytes(text: str) -> bytes:
    """The bytes of an id that `id_text` has read."""
    return text.encode("utf-8", "surrogateescape")


def shortened(text: str) -> str:
    """`text` as it may go on the wire for people to read: no lone surrogates, and not longer than MAX_CHARACTERS."""
    if len(text) > MAX_CHARACTERS:
        half = MAX_CHARACTERS // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode()


def to_json(value: object, what: str) -> bytes:
    """Write a value as compact JSON; `what` names it in the error.

    Takes what JSON has, and models, dataclasses, dates, UUIDs and the like as pydantic writes them.

    Raises:
        NotJsonError: with the path of the first value that JSON can't hold.
    """
    if type(value) is str and value.isascii():
        return pydantic_core.to_json(value)
    text = check_numbers(value, what)
    check_readable(text, what)
    check_secrets(value, text, what)
    return text


def check_numbers(value: object, what: str) -> bytes:
    """Refuse a value that JSON can't hold, NaN and Infinity above all; the JSON otherwise. Raises NotJsonError."""
    try:
        text = pydantic_core.to_json(value, inf_nan_mode="constants", by_alias=True)
    except (pydantic_core.PydanticSerializationError, ValueError, RecursionError, TypeError) as error:
        raise _not_json(value, what, str(error)) from error
    # "constants" writes NaN and Infinity bare, where the default would quietly turn them into null. A cheap test rules
    # them out for nearly every value; only text that holds those letters is read again to be sure.
    # Models and dataclasses do turn them into null, whatever they are told; as plain values they keep them.
    if (b"NaN" in text or b"Infinity" in text) and _has_bare_constant(text):
        raise _not_json(value, what, "is NaN or Infinity, which JSON does not have")
    if b"null" in text and _has_bare_constant(pydantic_core.to_json(_plain(value), inf_nan_mode="constants")):
        raise _not_json(value, what, "is NaN or Infinity, which JSON does not have")
    return text


def check_readable(text: bytes, what: str, depth: int = MAX_DEPTH) -> None:
    """Refuse JSON that we have written and nobody could read back. `depth`: how deep it may be nested, up to MAX_DEPTH.

    Raises:
        NotJsonError
    """
    if not _may_be_too_deep(text, depth) and not _may_have_too_many_digits(text):
        return
    spare = MAX_DEPTH - depth
    try:
        pydantic_core.from_json(b"[" * spare + text + b"]" * spare, allow_inf_nan=False)
    except ValueError as error:
        if "recursion" in str(error):
            raise NotJsonError(what, "$", f"is nested deeper than {depth} levels") from None
        raise NotJsonError(what, "$", f"holds what no parser reads ({error}); a number may have {MAX_DIGITS:,} digits") from None


def check_secrets(value: object, text: bytes, what: str) -> None:
    """Refuse a value of which pydantic has written asterisks for a secret: whoever reads it would get those. `text`: what was written.

    Raises:
        NotJsonError: with the path of the secret.
    """
    if b"**********" not in text:
        return
    stack: list[tuple[str, object, tuple[int, ...]]] = [("$", value, ())]
    while stack:
        path, one, parents = stack.pop()
        kind = type(one).__name__
        if isinstance(one, (SecretStr, SecretBytes, Secret)):
            reason = (
                f"is a {kind}, which is written as asterisks, so that the secret would be lost: pass a reference to it, "
                'or write it in plain on purpose with @field_serializer("…", when_used="json")'
            )
            raise NotJsonError(what, path, reason)
        if id(one) not in parents:
            below = (*parents, id(one))
            stack.extend((f"{path}{step}", child, below) for step, child in _children(_fields_of(one)) or ())


def _fields_of(value: object) -> object:
    if isinstance(value, BaseModel) or (is_dataclass(value) and not isinstance(value, type)):
        return dict(value) if isinstance(value, BaseModel) else {name: getattr(value, name) for name in value.__dataclass_fields__}
    return list(cast("Iterable[object]", value)) if isinstance(value, (set, frozenset)) else value


def _may_be_too_deep(text: bytes, depth: int) -> bool:
    """False if it is certainly not. Cheap: the innermost pairs of brackets are taken away until few are left (or those in texts)."""
    if len(text) <= 2 * depth or text.count(b"[") + text.count(b"{") <= depth:
        return False
    brackets, gone = text.translate(None, _NO_BRACKETS), 0
    while gone + len(brackets) // 2 > depth:
        inner = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(inner) == len(brackets):
            return True
        brackets, gone = inner, gone + 2  # at most: `{[]}` goes at once
    return False


def _may_have_too_many_digits(text: bytes) -> bool:
    return len(text) > MAX_DIGITS and b"0" * (MAX_DIGITS + 1) in text.translate(_AS_ZEROS)


def from_json(text: bytes | str) -> Any:  # noqa: ANN401 -- this is where JSON comes in
    """Read JSON text.

    Raises:
        ValueError: it is no JSON.
    """
    return pydantic_core.from_json(text, allow_inf_nan=False)


def from_json_or(text: bytes | None, default: object) -> Any:  # noqa: ANN401 -- this is where JSON comes in
    """Read JSON text that somebody else wrote: `default` where there is none, or where it is no JSON."""
    if text is None:
        return default
    try:
        return from_json(text)
    except ValueError:
        return default


def _plain(value: object) -> object:
    """The value as dicts, lists and scalars."""
    plain: object = pydantic_core.to_jsonable_python(value, by_alias=True)
    return plain


def _has_bare_constant(text: bytes) -> bool:
    try:
        pydantic_core.from_json(text, allow_inf_nan=False)
    except ValueError:
        return True
    return False


def _not_json(value: object, what: str, fallback: str) -> NotJsonError:
    path, reason = _find_culprit(value) or ("$", fallback)
    return NotJsonError(what, path, reason)


def _find_culprit(root: object) -> tuple[str, str] | None:
    """The path of the first value in `root` that JSON can't hold, and why. Iterative, and safe against cycles."""
    stack: list[tuple[str, object, tuple[int, ...]]] = [("$", root, ())]
    while stack:
        path, value, parents = stack.pop()
        if isinstance(value, str) and not _has_utf8(value):
            return path, "is text with half a character (a lone surrogate), which has no UTF-8 form"
        if isinstance(value, float) and not math.isfinite(value):
            return path, f"is {value}, which JSON does not have"
        children = _children(value)
        if children is None:
            try:
                plain = _plain(value)
                pydantic_core.to_json(plain)
            except Exception:  # noqa: BLE001 -- any failure of a user's object to be written is the answer here
                return path, f"is of type {type(value).__name__}, which JSON can't hold"
            if _children(plain) is not None:  # a model: what is in it has a path, too
                stack.append((path, plain, parents))
            continue
        if id(value) in parents:
            return path, "refers back to itself"
        if _has_broken_key(value):
            return path, "is a mapping with half a character (a lone surrogate) in a key, which has no UTF-8 form"
        if len(parents) > MAX_DEPTH:
            return "$", f"is nested deeper than {MAX_DEPTH} levels"
        below = (*parents, id(value))
        stack.extend((f"{path}{step}", child, below) for step, child in reversed(list(children)))
    return None


def _has_broken_key(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(key, str) and not _has_utf8(key) for key in cast("Mapping[object, object]", value))


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _children(value: object) -> Iterable[tuple[str, object]] | None:
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return [(f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]", child) for key, child in items]
    if isinstance(value, (list, tuple)):
        return [(f"[{index}]", child) for index, child in enumerate(cast("Sequence[object]", value))]
    return None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _int(value: bytes | None) -> int:
    """A number as Node reads it (parseInt): nothing readable counts as 0."""
    if not value:
        return 0
    try:
        return int(value)
    except ValueError:
        try:
            return int(float(value))
        except (ValueError, OverflowError):
            return 0
