"""What a job's stored options mean for the worker, whoever wrote them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toril.queues.option_parts import KeepJobs, exponential, fixed
from toril.worker.policy import DEFAULT_STACK_TRACES, JobPolicy, Policies

NOTHING_SAID = JobPolicy(
    attempts=0,
    backoff=None,
    lifo=False,
    delay_ms=0,
    timeout_ms=None,
    expires_at_ms=None,
    keep_completed="",
    keep_failed="",
    stack_trace_limit=DEFAULT_STACK_TRACES,
)


def policy(options: dict[str, Any] | str) -> JobPolicy:
    """Of a queue that says nothing itself."""
    return Policies(None, None).of((options if isinstance(options, str) else json.dumps(options)).encode())


def test_without_options_a_job_runs_once_and_all_is_kept() -> None:
    assert policy({}) == NOTHING_SAID


def test_each_option_is_read() -> None:
    read = policy(
        {
            "attempts": 3,
            "backoff": {"type": "exponential", "delay": 1_000, "jitter": 0.5, "maxDelay": 60_000},
            "lifo": True,
            "delay": 700,
            "timeout": 1_500,
            "expiresIn": 500,
            "expiresAt": 1_700_000_000_500,
            "removeOnComplete": True,
            "removeOnFail": {"count": 5, "age": 60},
            "stackTraceLimit": 0,
        }
    )
    assert read == JobPolicy(
        attempts=3,
        backoff=exponential("1s", jitter=0.5, cap="60s"),
        lifo=True,
        delay_ms=700,
        timeout_ms=1_500,
        expires_at_ms=1_700_000_000_500,
        keep_completed="0,,",
        keep_failed="5,60000,",
        stack_trace_limit=0,
    )


def test_a_bare_number_as_backoff_is_a_fixed_one_as_in_node() -> None:
    assert policy({"backoff": 250}).backoff == fixed("250ms")


def test_what_the_queue_keeps_counts_only_where_the_job_says_nothing() -> None:
    policies = Policies(KeepJobs(count=7), KeepJobs(age="1h"))
    assert (policies.of(b"{}").keep_completed, policies.of(b"{}").keep_failed) == ("7,,", ",3600000,")
    said = policies.of(b'{"removeOnComplete":false,"removeOnFail":3}')
    assert (said.keep_completed, said.keep_failed) == ("", "3,,")


def test_a_text_is_read_once() -> None:
    policies = Policies(None, None)
    assert policies.of(b'{"attempts":2}') is policies.of(b'{"attempts":2}')


def test_texts_that_never_come_again_are_not_all_kept() -> None:
    policies = Policies(None, None)
    first = policies.of(b'{"jobId":"first"}')
    for number in range(2_500):
        assert policies.of(f'{{"jobId":"{number}","attempts":{number}}}'.encode()).attempts == number
    assert policies.of(b'{"jobId":"first"}') is not first


@pytest.mark.parametrize("text", ["", "no JSON", "[]", '"text"', "null", "[" * 10_000, '{"attempts":"many","backoff":[],"timeout":-1}'])
def test_options_that_make_no_sense_count_as_not_set(text: str) -> None:
    assert policy(text) == NOTHING_SAID


@pytest.mark.parametrize(
    "text",
    [
        '{"attempts":3,"tm":"{\\"traceparent\\":\\"00-a-b-01\\"}","lifo":true}',
        '{"tm":"{\\"a\\":\\"\\\\\\"}\\"}","attempts":3,"lifo":true}',
        '{"attempts":3,"lifo":true,"tm":""}',
    ],
)
def test_a_trace_hides_no_other_option_and_its_jobs_share_a_policy(text: str) -> None:
    policies = Policies(None, None)
    assert json.loads(text)["attempts"] == 3
    traced = policies.of(text.encode())
    assert (traced.attempts, traced.lifo) == (3, True)
    assert policies.of(b'{"attempts":3,"lifo":true}') is traced


def test_options_of_nothing_but_a_trace_say_nothing() -> None:
    assert policy('{"tm":"x"}') == NOTHING_SAID


@pytest.mark.parametrize("age", [9e15, 1e20, 1e306, 1.7e308])
def test_an_age_beyond_all_bounds_stops_nobody(age: float) -> None:
    policy({"removeOnComplete": {"age": age}, "removeOnFail": {"age": age, "count": 3}})


_numbers = st.one_of(
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([2**53 - 1, 1 - 2**53, 2**63, 1e20, 1e306, -1e308, 5e-324, -0.0]),
)
_names = st.sampled_from(["type", "delay", "jitter", "maxDelay", "count", "age", "limit", "x"])
_values = st.recursive(
    st.one_of(st.none(), st.booleans(), _numbers, st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_names, inner, max_size=5)),
    max_leaves=8,
)
_options = st.sampled_from(
    ["attempts", "backoff", "lifo", "timeout", "removeOnComplete", "removeOnFail", "stackTraceLimit", "timestamp", "kl"]
)


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.dictionaries(_options, _values, max_size=6).map(lambda options: json.dumps(options).encode()), st.binary(max_size=40)))
def test_whatever_somebody_wrote_the_worker_can_go_by_it(text: bytes) -> None:
    read = Policies(None, None).of(text)
    assert isinstance(read.attempts, int)
    assert read.timeout_ms is None or read.timeout_ms > 0
    assert read.backoff is None or read.backoff.strategy
    assert all(rule == "" or rule.count(",") == 2 for rule in (read.keep_completed, read.keep_failed))
