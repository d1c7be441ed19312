"""What either side could misread is refused before anything is written, wherever it is said."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from tests.bench import T0, Bench
from toril import FlowProducer, JobOptions, Queue, flow_job
from toril.errors import InvalidOptionError
from toril.queues.job_schedulers import ScheduleRule
from toril.queues.options import JobOptionFields
from toril.testing import FakeClock
from toril.wire.connection import Server
from toril.wire.keys import RESERVED_JOB_IDS


@pytest.fixture
async def flows(server: Server, prefix: str) -> AsyncIterator[FlowProducer]:
    async with FlowProducer(prefix=prefix, server=server, clock=FakeClock(T0)) as flows:
        yield flows


IDS = (
    "12", "-3", "0", "0:a:b", "a:b", "a:b:c:d", ":", *sorted(RESERVED_JOB_IDS), "repeat:x:1", "de:x:y", "dn:x:y", "metrics:completed:data",
)  # fmt: skip


@pytest.mark.parametrize("job_id", IDS)
async def test_an_id_that_bullmq_refuses_or_that_is_a_key_is_refused_by_every_way_of_adding(
    queue: Queue, flows: FlowProducer, bench: Bench, job_id: str
) -> None:
    for attempt in (
        lambda: queue.add("n", {}, job_id=job_id),
        lambda: queue.add_many([queue.job("n"), queue.job("n", job_id=job_id)]),
        lambda: flows.add(flow_job("n", {}, queue="q", children=[flow_job("n", {}, queue="q", job_id=job_id)])),
    ):
        with pytest.raises(InvalidOptionError) as caught:
            await attempt()
        assert (caught.value.option, caught.value.value) == ("job_id", job_id)
    assert await bench.everything() == {}


def test_every_key_of_a_queue_is_the_name_of_no_job() -> None:
    """Those that hold a colon are refused with it, as `repeat:…` is."""
    assert {"wait", "paused", "active", "events", "meta", "id", "pc", "marker", "limiter", "repeat", "stalled-check"} <= RESERVED_JOB_IDS


@pytest.mark.parametrize("name", ["", "a:b", ":", "a:"])
async def test_a_queues_name_with_a_colon_is_refused_wherever_a_queue_is_named(flows: FlowProducer, bench: Bench, name: str) -> None:
    with pytest.raises(InvalidOptionError, match="must not hold a colon") as caught:
        Queue(name)
    assert (caught.value.option, caught.value.value) == ("queue", name)
    with pytest.raises(InvalidOptionError):
        Queue("q", dead_letter=name)
    with pytest.raises(InvalidOptionError):
        await flows.add(flow_job("n", {}, queue="q", children=[flow_job("n", {}, queue=name)]))
    with pytest.raises(InvalidOptionError):
        await flows.get_flow("1", queue=name)
    assert await bench.everything() == {}


@pytest.mark.parametrize("priority", [-1, 2_097_152, 1.0, 1.5, "1", True, float("nan")])
async def test_a_priority_out_of_range_or_with_a_fraction_is_refused_everywhere(queue: Queue, bench: Bench, priority: Any) -> None:  # noqa: ANN401 -- wrong on purpose
    job = await queue.add("n")
    before = await bench.everything()
    for attempt in (
        lambda: queue.add("n", {}, priority=priority),
        lambda: job.change_priority(priority),
        lambda: queue.get_counts_per_priority([0, priority]),
    ):
        with pytest.raises(InvalidOptionError) as caught:
            await attempt()
        assert caught.value.option == "priority"
        assert caught.value.value is priority
    assert await bench.everything() == before


FLAGS = ("fail_parent_on_failure", "continue_parent_on_failure", "ignore_dependency_on_failure", "remove_dependency_on_failure")


def flagged(flags: dict[str, bool]) -> JobOptions:
    return JobOptions(**cast("JobOptionFields", flags))


@pytest.mark.parametrize(("first", "second"), [(a, b) for a in FLAGS for b in FLAGS if a < b])
async def test_a_childs_failure_can_do_only_one_thing(flows: FlowProducer, bench: Bench, first: str, second: str) -> None:
    with pytest.raises(InvalidOptionError, match="it excludes"):
        await flows.add(flow_job("n", {}, queue="q", options=flagged({first: True, second: True})))
    assert await bench.everything() == {}


@pytest.mark.parametrize(("first", "second"), [(a, b) for a in FLAGS for b in FLAGS if a < b])
async def test_flags_that_meet_only_when_options_are_laid_over_each_other_are_refused(
    server: Server, prefix: str, bench: Bench, first: str, second: str
) -> None:
    queue = Queue("q", prefix=prefix, server=server, default_job_options=flagged({first: True}))
    with pytest.raises(InvalidOptionError, match="it excludes"):
        await queue.add("n", {}, options=flagged({second: True}))
    assert await bench.everything() == {}
    job = await queue.add("n", {}, options=flagged({first: False, second: True}))
    assert (getattr(job.options, first), getattr(job.options, second)) == (False, True)


async def test_the_jobs_of_a_scheduler_cannot_have_what_it_decides_itself(queue: Queue, bench: Bench) -> None:
    rule = ScheduleRule(every="1h")
    for options in (JobOptions(job_id="mine"), JobOptions(delay="1s")):
        with pytest.raises(InvalidOptionError, match="leave it out"):
            await queue.job_schedulers.upsert("tick", rule, options=options)
    assert await bench.everything() == {}
