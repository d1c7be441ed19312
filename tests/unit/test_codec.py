"""Job hash <-> record, and values <-> JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import OrderedDict
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from toril.errors import NotJsonError
from toril.wire.codec import JobRecord, from_json, from_json_or, job_record, to_json


class Colour(Enum):
    RED = "red"


class Resize(BaseModel):
    width_px: int = Field(alias="widthPx")
    ratio: float = 1.0


@dataclasses.dataclass
class Point:
    x: int
    y: float


class Opaque:
    pass


@dataclasses.dataclass
class Holder:
    held: object


def listed(**fields: bytes) -> list[bytes]:
    """A hash that has these fields, as HGETALL lists it."""
    return [part for name, value in fields.items() for part in (name.encode(), value)]


# ── values -> JSON ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, b"null"),
        ("plain", b'"plain"'),
        ("größe \u2028 🙂", '"größe \u2028 🙂"'.encode()),
        ({"b": [1, 2.5, True], "a": {}}, b'{"b":[1,2.5,true],"a":{}}'),
        (2**70, b"1180591620717411303424"),
        ((1, 2), b"[1,2]"),
        ("NaN and Infinity are words", b'"NaN and Infinity are words"'),
        ({"NaN": "Infinity"}, b'{"NaN":"Infinity"}'),
        (["größe", "NaN"], '["größe","NaN"]'.encode()),
        (Resize(widthPx=3), b'{"widthPx":3,"ratio":1.0}'),
        (Point(1, 2.0), b'{"x":1,"y":2.0}'),
        ([Resize(widthPx=3), None], b'[{"widthPx":3,"ratio":1.0},null]'),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), b'"2026-01-02T03:04:05Z"'),
        (UUID(int=5), b'"00000000-0000-0000-0000-000000000005"'),
        (Decimal("1.10"), b'"1.10"'),
        (Colour.RED, b'"red"'),
        (b"text", b'"text"'),
        ({7}, b"[7]"),
        (OrderedDict([("a", 1)]), b'{"a":1}'),
        ({1: "one"}, b'{"1":"one"}'),
    ],
)
def test_a_value_is_written_as_compact_json(value: object, text: bytes) -> None:
    assert to_json(value, "data") == text
    json.loads(text)


def _looped() -> dict[str, object]:
    loop: dict[str, object] = {"name": "loop"}
    loop["inner"] = [1, {"self": loop}]
    return loop


def _deep(levels: int) -> list[object]:
    value: list[object] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        (math.nan, "$", "is nan, which JSON does not have"),
        ({"user": {"tags": ["a", "b", math.inf]}}, "$.user.tags[2]", "is inf, which JSON does not have"),
        ({"first name": [-math.inf]}, "$['first name'][0]", "is -inf, which JSON does not have"),
        ({"a": "NaN", "b": math.nan}, "$.b", "is nan"),
        ({"text": "a\ud800b"}, "$.text", "is text with half a character (a lone surrogate)"),
        ("\udfff", "$", "is text with half a character (a lone surrogate)"),
        ({"a": [b"\xff"]}, "$.a[0]", "is of type bytes, which JSON can't hold"),
        ({"a": [1, Opaque()]}, "$.a[1]", "is of type Opaque, which JSON can't hold"),
        ({"a": {"b": {1, Opaque()}}}, "$.a.b", "is of type set, which JSON can't hold"),
        ({"f": print}, "$.f", "is of type builtin_function_or_method, which JSON can't hold"),
        (_looped(), "$.inner[1].self", "refers back to itself"),
        (Resize(widthPx=1, ratio=math.nan), "$.ratio", "is nan, which JSON does not have"),
        ([{"p": Point(1, math.inf)}], "$[0].p.y", "is inf, which JSON does not have"),
        (Holder(Opaque()), "$", "is of type Holder, which JSON can't hold"),
    ],
)
def test_what_json_cannot_hold_is_named_with_its_path(value: object, path: str, reason: str) -> None:
    with pytest.raises(NotJsonError) as caught:
        to_json(value, "the data of 'welcome-email'")
    assert caught.value.path == path
    assert reason in caught.value.reason
    assert str(caught.value).startswith(f"the data of 'welcome-email' is not JSON: {path} is " if "refers" not in reason else "the data")


def test_the_same_value_twice_is_no_cycle() -> None:
    shared = {"a": 1}
    assert to_json([shared, shared], "data") == b'[{"a":1},{"a":1}]'
    with pytest.raises(NotJsonError) as caught:
        to_json([shared, shared, math.nan], "data")
    assert caught.value.path == "$[2]"


def test_nesting_without_end_is_refused_and_not_a_crash() -> None:
    with pytest.raises(NotJsonError):
        to_json(_deep(10_000), "data")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_any_json_value_comes_back_as_it_was(value: Any) -> None:  # noqa: ANN401 -- any JSON
    text = to_json(value, "data")
    assert from_json(text) == value
    assert json.loads(text) == value


@given(
    st.recursive(
        st.floats() | st.text(st.characters()) | st.binary(max_size=3), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_what_is_written_is_always_json(value: Any) -> None:  # noqa: ANN401 -- any value
    try:
        text = to_json(value, "data")
    except NotJsonError:
        return
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


# ── JSON -> values ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", [b"", b"{", b"NaN", b"[Infinity]", b"-Infinity", b"undefined", b"'a'", b'"\xff"'])
def test_what_is_no_json_is_refused_or_replaced(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_json(text)
    assert from_json_or(text, "default") == "default"


def test_json_that_others_wrote_is_read_with_blanks_and_escapes() -> None:
    assert from_json(b' { "a" : [ 1 , "\\u00e9" ] }\n') == {"a": [1, "é"]}
    assert from_json_or(None, 5) == 5
    assert from_json_or(b"null", 5) is None


# ── job hash -> record ────────────────────────────────────────────────────────────────────────────────────────


def test_a_hash_is_read_whole() -> None:
    parent = b'{"id":"P","queueKey":"bull:pq"}'
    found = listed(
        name=b"n",
        data=b"[1]",
        opts=b'{"attempts":3}',
        timestamp=b"1700000000000",
        delay=b"5",
        priority=b"2",
        ats=b"3",
        atm=b"2",
        stc=b"1",
        defa=b"child failed",
        stacktrace=b"[]",
        progress=b"42",
        tm=b"trace",
        parentKey=b"bull:pq:P",
        parent=parent,
        rjk=b"nightly",
        deid=b"once",
        processedOn=b"1700000000001",
        pb=b"alpha",
        finishedOn=b"1700000000002",
        returnvalue=b"null",
        failedReason=b"boom",
    )
    assert job_record("7", found) == JobRecord(
        job_id="7",
        name="n",
        data=b"[1]",
        opts=b'{"attempts":3}',
        timestamp_ms=1_700_000_000_000,
        delay_ms=5,
        priority=2,
        attempts_started=3,
        attempts_made=2,
        stalled_count=1,
        deferred_failure="child failed",
        stack_trace=b"[]",
        progress=b"42",
        parent_key="bull:pq:P",
        parent=parent,
        scheduler_id="nightly",
        deduplication_id="once",
        telemetry="trace",
        processed_at_ms=1_700_000_000_001,
        processed_by="alpha",
        finished_at_ms=1_700_000_000_002,
        return_value=b"null",
        failed_reason="boom",
    )


def test_missing_fields_are_what_node_takes_them_for() -> None:
    assert job_record("7", listed(name=b"n")) == JobRecord("7", "n", b"{}", b"{}")
    assert job_record("7", []) == JobRecord("7", "", b"{}", b"{}")


def test_a_field_that_comes_again_takes_the_place_of_the_first() -> None:
    record = job_record("7", [*listed(name=b"n", ats=b"1", processedOn=b"5"), b"ats", b"2", b"processedOn", b"6"])
    assert (record.attempts_started, record.processed_at_ms) == (2, 6)


def test_fields_that_nobody_knows_are_passed_by() -> None:
    assert job_record("7", listed(name=b"n", theirs=b"x")) == JobRecord("7", "n", b"{}", b"{}")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"", 0),
        (b"12", 12),
        (b" 12 ", 12),
        (b"1.9", 1),
        (b"1.7e12", 1_700_000_000_000),
        (b"-5", -5),
        (b"abc", 0),
        (b"NaN", 0),
        (b"Infinity", 0),
        (b"1e999", 0),
    ],
)  # fmt: skip
def test_odd_numbers_do_not_stop_anybody(text: bytes, number: int) -> None:
    record = job_record("7", listed(name=b"n", timestamp=text, ats=text, delay=text, processedOn=text, finishedOn=text))
    assert (record.timestamp_ms, record.attempts_started, record.delay_ms, record.processed_at_ms, record.finished_at_ms) == (number,) * 5


def test_the_old_spelling_of_attempts_made_wins_where_there_is_one() -> None:
    assert job_record("7", listed(name=b"n", atm=b"2", attemptsMade=b"5")).attempts_made == 5
    assert job_record("7", listed(name=b"n", atm=b"2")).attempts_made == 2
    assert job_record("7", listed(name=b"n", atm=b"2", attemptsMade=b"0")).attempts_made == 0


def test_text_that_is_no_utf_8_is_read_with_replacements() -> None:
    record = job_record("7", listed(name=b"n\xff", failedReason=b"\xfe", data=b"\xff"))
    assert (record.name, record.failed_reason, record.data) == ("n\ufffd", "\ufffd", b"\xff")


def test_a_parent_without_its_key_is_no_parent() -> None:
    assert job_record("7", listed(name=b"n", parent=b"{}")).parent is None
