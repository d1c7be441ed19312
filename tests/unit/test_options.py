"""Options of jobs and queues: what is refused and how it is said, how they are laid over each other."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

import toril.queues.options as options_module
from toril.errors import InvalidDurationError, InvalidOptionError
from toril.queues.flows import flow_job
from toril.queues.option_parts import Backoff, Deduplication, KeepJobs, custom, exponential, fixed, keep_text
from toril.queues.options import NO_OPTIONS, JobOptionFields, JobOptions, QueueOptions, options_said
from toril.queues.queue import Queue


def test_every_option_may_be_given_as_a_keyword_of_add() -> None:
    assert set(JobOptionFields.__annotations__) == {field.name for field in dataclasses.fields(JobOptions)}


@pytest.mark.parametrize(
    ("options", "option", "says"),
    [
        ({"attempts": -1}, "attempts", "0 or more"),
        ({"attempts": 2.5}, "attempts", "a whole number"),
        ({"attempts": True}, "attempts", "a whole number"),
        ({"attempts": "3"}, "attempts", "a whole number"),
        ({"priority": 2_097_152}, "priority", "2,097,151"),
        ({"priority": -1}, "priority", "0 or more"),
        ({"priority": 1.0}, "priority", "a whole number"),
        ({"lifo": 1}, "lifo", "True or False"),
        ({"lifo": True, "priority": 2}, "lifo", "beside priority, since that decides when the job runs"),
        ({"lifo": True, "delay": "5s"}, "lifo", "beside delay, since the job takes its place in line when its time has come"),
        ({"timeout": timedelta(0)}, "timeout", "leave the option out"),
        ({"backoff": 5_000}, "backoff", 'fixed("5s")'),
        ({"backoff": "5s"}, "backoff", 'fixed("5s")'),
        ({"backoff": {"type": "fixed", "delay": 1}}, "backoff", 'fixed("5s")'),
        ({"remove_on_complete": -1}, "remove_on_complete", "KeepJobs"),
        ({"remove_on_fail": "1d"}, "remove_on_fail", "KeepJobs"),
        ({"remove_on_fail": {"count": 1}}, "remove_on_fail", "KeepJobs"),
        ({"stack_trace_limit": -1}, "stack_trace_limit", "0 or more"),
        ({"keep_logs": 0}, "keep_logs", "1 or more"),
        ({"size_limit": 0}, "size_limit", "1 or more"),
        ({"timestamp": datetime(2026, 1, 1)}, "timestamp", "time zone"),  # noqa: DTZ001 -- that is what is refused
        ({"timestamp": 1_700_000_000_000}, "timestamp", "datetime"),
        ({"job_id": 12}, "job_id", '"order-12"'),
        ({"job_id": b"12"}, "job_id", 'an id is text, such as "order-7"'),
        ({"job_id": "12"}, "job_id", '"order-12"'),
        ({"job_id": "-3"}, "job_id", "the server gives"),
        ({"job_id": "0"}, "job_id", "the server gives"),
        ({"job_id": "0:a:b"}, "job_id", "colon"),
        ({"job_id": "a:b"}, "job_id", '"a-b"'),
        ({"job_id": "a:b:c:d"}, "job_id", "colon"),
        ({"job_id": "meta"}, "job_id", "own keys"),
        ({"job_id": "waiting-children"}, "job_id", "own keys"),
        ({"job_id": "repeat:x:1"}, "job_id", "own keys"),
        ({"job_id": "metrics:completed:data"}, "job_id", "own keys"),
        ({"job_id": "a\ud800"}, "job_id", "half a character"),
    ],
)
def test_a_wrong_option_is_named_with_its_value_and_the_fix(options: dict[str, Any], option: str, says: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        JobOptions(**options)
    assert (caught.value.option, caught.value.value) == (option, next(iter(options.values())))
    assert says in str(caught.value)
    assert option in str(caught.value)


@pytest.mark.parametrize("option", ["delay", "timeout"])
@pytest.mark.parametrize("value", [5, 5.0, "5", "-1s", timedelta(seconds=-1), "soon"])
def test_a_bare_number_or_negative_duration_is_refused(option: str, value: Any) -> None:  # noqa: ANN401 -- wrong on purpose
    with pytest.raises(InvalidDurationError) as caught:
        JobOptions(**{option: value})
    assert caught.value.option == option


@pytest.mark.parametrize("job_id", ["012", "1.5", "a:b:c", "", "ünïcode", "12a"])
def test_ids_that_node_takes_are_taken(job_id: str) -> None:
    assert JobOptions(job_id=job_id).job_id == job_id


def test_durations_are_kept_as_timedelta() -> None:
    options = JobOptions(delay="1h30m", timeout=timedelta(seconds=2))
    assert options.delay == timedelta(minutes=90)
    assert (options.delay_ms, options.timeout_ms) == (5_400_000, 2_000)
    assert JobOptions(timestamp=datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)).timestamp_ms == 1_700_000_000_000


def test_what_is_said_lies_over_what_was_said_before() -> None:
    queue = JobOptions(attempts=3, backoff=fixed("1s"), remove_on_complete=True, lifo=True)
    call = JobOptions(attempts=0, remove_on_complete=False, lifo=False)
    assert call.merged_over(queue) == JobOptions(attempts=0, backoff=fixed("1s"), remove_on_complete=False, lifo=False)
    assert NO_OPTIONS.merged_over(queue) is queue
    assert queue.merged_over(NO_OPTIONS) is queue


def test_options_show_only_what_is_said() -> None:
    assert repr(JobOptions(attempts=2, lifo=False)) == "JobOptions(attempts=2, lifo=False)"
    assert repr(NO_OPTIONS) == "JobOptions()"


def test_equal_options_are_equal_and_may_be_keys() -> None:
    assert JobOptions(delay="60s", backoff=exponential("1s")) == JobOptions(delay="1m", backoff=exponential(timedelta(seconds=1)))
    assert len({JobOptions(delay="60s"), JobOptions(delay="1m"), JobOptions(remove_on_fail=KeepJobs(count=1))}) == 2


# ── backoff ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_defaults_of_backoff() -> None:
    assert fixed("5s") == Backoff(strategy="fixed", delay=timedelta(seconds=5), jitter=0.0, cap=None)
    assert exponential("1s") == Backoff(strategy="exponential", delay=timedelta(seconds=1), jitter=0.5, cap=timedelta(hours=1))
    assert exponential("1s", cap=None).cap_ms is None
    assert custom("mine", delay="1s") == Backoff(strategy="mine", delay=timedelta(seconds=1))
    assert custom("mine").delay_ms is None


@pytest.mark.parametrize("jitter", [-0.1, 1.5, float("nan"), "0.5", True])
def test_jitter_is_a_part_from_0_to_1(jitter: Any) -> None:  # noqa: ANN401 -- wrong on purpose
    with pytest.raises(InvalidOptionError, match="from 0 to 1"):
        fixed("1s", jitter=jitter)


def test_backoff_refuses_bare_numbers_and_taken_names() -> None:
    with pytest.raises(InvalidDurationError, match=r"backoff\.delay=5000"):
        fixed(5_000)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose
    with pytest.raises(InvalidDurationError, match=r"backoff\.cap"):
        exponential("1s", cap=60)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose
    with pytest.raises(InvalidOptionError, match=r"write exponential\(…\)"):
        custom("exponential")
    with pytest.raises(InvalidOptionError, match="not empty"):
        custom("")


# ── what is kept ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_keep_rules_as_the_scripts_take_them() -> None:
    rules = [None, False, True, 0, 5, KeepJobs(count=5), KeepJobs(age="1h"), KeepJobs(count=1, age="2s", limit=3)]
    assert [keep_text(rule) for rule in rules] == [None, "", "0,,", "0,,", "5,,", "5,,", ",3600000,", "1,2000,3"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "needs a count, an age, or both"),
        ({"limit": 3}, "needs a count, an age, or both"),
        ({"count": -1}, "0 or more"),
        ({"age": "1500ms"}, "whole seconds"),
        ({"age": 60}, "60s"),
        ({"count": 1, "limit": 0}, "1 or more"),
    ],
)
def test_a_keep_rule_must_make_sense(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidOptionError, match=says):
        KeepJobs(**fields)


# ── queues ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_registered_queue_keeps_a_bounded_number_of_ended_jobs() -> None:
    options = QueueOptions(name="emails")
    assert options.keep_completed == KeepJobs(count=1_000, age="24h")
    assert options.keep_failed == KeepJobs(count=10_000, age="30d")


@pytest.mark.parametrize("fields", [{"name": ""}, {"name": "a:b"}, {"name": "q", "prefix": ""}, {"name": "q", "max_events": 0}])
def test_a_queue_refuses_bad_names(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError):
        QueueOptions(**fields)


def test_the_last_one_is_kept_without_a_time_to_live() -> None:
    with pytest.raises(InvalidOptionError, match=r"no ttl bounds that: leave out one of the two") as caught:
        Deduplication("d", ttl="5s", keep_last_if_active=True)
    assert caught.value.option == "deduplication.ttl"


@pytest.mark.parametrize("place", [{"priority": 2}, {"delay": "5s"}])
def test_lifo_is_refused_where_one_call_says_what_decides_instead(place: dict[str, Any]) -> None:
    queue = Queue("q", url="redis://localhost:1")
    first = JobOptions(lifo=True)
    calls: list[dict[str, Any]] = [{"lifo": True, **place}, {"options": first, **place}, {"options": JobOptions(**place), "lifo": True}]
    for said in calls:
        with pytest.raises(InvalidOptionError, match=r"lifo=True: it means nothing beside"):
            queue.job("a", **said)
        with pytest.raises(InvalidOptionError, match=r"lifo=True: it means nothing beside"):
            flow_job("a", queue="q", **said)


def test_lifo_means_nothing_where_defaults_say_what_decides_instead() -> None:
    queue = Queue("q", url="redis://localhost:1", default_job_options=JobOptions(lifo=True, timeout="5s"))
    queue.register_payload("a", has_timeout=True)
    job = queue.encode(queue.job("a", priority=2), 0)
    assert (job.priority, job.lifo, b"timeout" in job.opts) == (2, True, False)
    assert JobOptions(lifo=True, priority=0, delay="0s").lifo
    assert JobOptions(lifo=False, priority=2).priority == 2


def test_what_is_equal_but_of_another_type_is_checked_anew() -> None:
    assert options_said(None, {"attempts": 1}).attempts == 1
    with pytest.raises(InvalidOptionError):
        options_said(None, {"attempts": True})
    with pytest.raises(InvalidOptionError):
        options_said(None, cast("Any", {"attempts": 1.0}))


def test_the_same_said_again_is_the_same_and_as_good_as_new() -> None:
    first = options_said(None, {"attempts": 7, "delay": "5s"})
    assert options_said(None, {"attempts": 7, "delay": "5s"}) is first
    assert first == JobOptions(attempts=7, delay="5s")
    assert options_said(JobOptions(priority=3), {"attempts": 7, "delay": "5s"}) == JobOptions(attempts=7, delay="5s", priority=3)
    assert options_said(None, {"attempts": 7, "delay": "5s"}) is first


def test_any_number_of_different_options_is_remembered_within_bounds() -> None:
    first = options_said(None, {"attempts": 9})
    for number in range(2_500):
        assert options_said(None, {"job_id": f"job-{number}"}).job_id == f"job-{number}"
    assert options_said(None, {"attempts": 9}) is first
    for number in range(2_500):
        assert options_said(None, {"priority": number}).priority == number
    assert len(vars(options_module)["_SAID"]) <= 1_000
