"""Options on the wire: what we write, and how we read what Node or a user's script wrote."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toril.queues.option_parts import Backoff, KeepJobs, custom, exponential, fixed
from toril.queues.option_values import encode_job_options, moment, stored_options
from toril.queues.options import NO_OPTIONS, JobOptions
from toril.wire.option_names import OptionValues, decode_options, encode_options

CASES: list[tuple[JobOptions, dict[str, Any]]] = [
    (NO_OPTIONS, {}),
    (JobOptions(attempts=3), {"attempts": 3}),
    (JobOptions(backoff=fixed("5s")), {"backoff": {"type": "fixed", "delay": 5_000}}),
    (JobOptions(backoff=exponential("1s")), {"backoff": {"type": "exponential", "delay": 1_000, "jitter": 0.5, "maxDelay": 3_600_000}}),
    (JobOptions(backoff=custom("mine")), {"backoff": {"type": "mine"}}),
    (JobOptions(delay="1m", priority=7), {"delay": 60_000, "priority": 7}),
    (JobOptions(lifo=True), {"lifo": True}),
    (JobOptions(timeout="30s"), {"timeout": 30_000}),
    (JobOptions(remove_on_complete=True, remove_on_fail=False), {"removeOnComplete": True, "removeOnFail": False}),
    (JobOptions(remove_on_complete=100), {"removeOnComplete": 100}),
    (JobOptions(remove_on_fail=KeepJobs(count=9, age="1h", limit=5)), {"removeOnFail": {"count": 9, "age": 3_600, "limit": 5}}),
    (JobOptions(job_id="order-1"), {"jobId": "order-1"}),
    (JobOptions(timestamp=datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)), {"timestamp": 1_700_000_000_000}),
    (JobOptions(stack_trace_limit=0, keep_logs=5, size_limit=100), {"stackTraceLimit": 0, "kl": 5, "sizeLimit": 100}),
]


@pytest.mark.parametrize(("options", "wire"), CASES, ids=[repr(options) for options, _ in CASES])
def test_options_go_out_with_nodes_names_and_come_back(options: JobOptions, wire: dict[str, Any]) -> None:
    text = encode_job_options(options)
    assert json.loads(text) == {"attempts": 0} | wire
    read = stored_options(text)
    assert {**read.said(), "attempts": read.attempts or 0} == {"attempts": 0} | options.said()


def test_an_empty_id_is_none() -> None:
    assert encode_job_options(JobOptions(job_id="")) == b'{"attempts":0}'


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        ('{"attempts":3.0}', {"attempts": 3}),
        ('{"attempts":null}', {}),
        ('{"attempts":"3"}', {}),
        ('{"attempts":1e999}', {}),
        ('{"backoff":1000}', {"backoff": fixed("1s")}),
        ('{"backoff":{"type":"fixed","delay":1000}}', {"backoff": fixed("1s")}),
        ('{"backoff":{"type":"exponential","delay":-5,"jitter":2}}', {"backoff": Backoff(strategy="exponential", delay="0s")}),
        ('{"backoff":{"type":"theirs","delay":1,"x":2}}', {"backoff": custom("theirs", delay="1ms")}),
        ('{"backoff":{"type":""}}', {}),
        ('{"backoff":{"delay":1000}}', {}),
        ('{"backoff":"5s"}', {}),
        ('{"delay":-5}', {"delay": timedelta(0)}),
        ('{"timeout":0}', {}),
        ('{"removeOnComplete":true,"removeOnFail":0}', {"remove_on_complete": True, "remove_on_fail": 0}),
        ('{"removeOnComplete":-1}', {"remove_on_complete": False}),
        ('{"removeOnComplete":{}}', {"remove_on_complete": False}),
        ('{"removeOnComplete":{"count":3}}', {"remove_on_complete": KeepJobs(count=3)}),
        ('{"removeOnFail":{"age":60,"limit":0}}', {"remove_on_fail": KeepJobs(age="60s")}),
        ('{"removeOnFail":"yes"}', {}),
        ('{"keepLogs":3}', {"keep_logs": 3}),
        ('{"jobId":7,"lifo":1}', {"lifo": True}),
        ("[1]", {}),
        ("nonsense", {}),
        ("", {}),
    ],
)
def test_whatever_stands_in_a_hash_is_read_as_far_as_it_makes_sense(wire: str, expected: dict[str, Any]) -> None:
    assert stored_options(wire.encode()).said() == expected


def test_an_age_with_parts_of_a_second_is_read_as_it_is() -> None:
    keep = stored_options(b'{"removeOnFail":{"age":0.5}}').remove_on_fail
    assert isinstance(keep, KeepJobs)
    assert keep.age_ms == 500


def test_what_we_do_not_know_is_kept_for_whoever_does() -> None:
    text = b'{"attempts":2,"parent":{"id":"1","queue":"bull:p"},"job_id":"snake","tm":"trace","odd":null}'
    values = decode_options(text)
    assert values == {"attempts": 2, "others": {"parent": {"id": "1", "queue": "bull:p"}, "job_id": "snake", "tm": "trace", "odd": None}}
    again = json.loads(encode_options(values))
    assert again == {"attempts": 2, "parent": {"id": "1", "queue": "bull:p"}, "job_id": "snake", "tm": "trace"}  # and never a null


def test_a_text_is_read_once() -> None:
    text = b'{"attempts":77}'
    assert stored_options(bytes(text)) is stored_options(b'{"attempts":7' + b"7}")


def test_times_beyond_the_calendar_do_no_harm() -> None:
    assert stored_options(b'{"timestamp":9007199254740991,"delay":9007199254740991}').timestamp == moment(2**53)
    assert moment(2**53).year == 9999
    assert moment(-(2**53)).year == 1


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_names = st.sampled_from(
    "attempts backoff delay priority lifo timeout removeOnComplete removeOnFail jobId timestamp stackTraceLimit kl sizeLimit x".split()
)
_rules = st.fixed_dictionaries(
    {}, optional={"type": _json, "delay": _json, "jitter": _json, "maxDelay": _json, "count": _json, "age": _json}
)


@given(st.dictionaries(_names, _json | _rules))
def test_reading_never_fails_and_what_was_read_can_be_written(wire: dict[str, Any]) -> None:
    text = json.dumps(wire).encode()
    options = stored_options(text)
    encode_job_options(options)
    values: OptionValues = decode_options(text)
    assert b"null" not in encode_options(values) or "null" in json.dumps(values.get("others"))


def test_a_keep_rule_that_lasts_longer_than_time_itself_is_read() -> None:
    options = stored_options(b'{"removeOnComplete":{"age":86400000000000},"delay":1e300}')
    assert isinstance(options.remove_on_complete, KeepJobs)


def test_what_our_own_calls_refuse_together_is_read_where_node_wrote_it() -> None:
    read = stored_options(b'{"lifo":true,"priority":2,"delay":5,"de":{"id":"d","ttl":5,"keepLastIfActive":true}}')
    assert (read.lifo, read.priority, read.delay_ms) == (True, 2, 5)
    assert read.deduplication is not None
    assert (read.deduplication.ttl_ms, read.deduplication.keep_last_if_active) == (5, True)
