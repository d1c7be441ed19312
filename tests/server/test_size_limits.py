"""What a job carries is bounded, also where nobody has set a limit: the server keeps it all in its memory."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.bench import Bench
from tests.proxy import Proxy, is_script
from toril import FlowProducer, Job, JobOptions, Queue, Worker, WorkerOptions, flow_job
from toril.errors import InvalidOptionError, PayloadTooLargeError
from toril.queues.job import PROGRESS_LIMIT
from toril.queues.job_schedulers import ScheduleRule
from toril.queues.payloads import DEFAULT_SIZE_LIMIT
from toril.wire.connection import Server
from toril.worker.turn import BATCH_BYTES

LARGEST = "x" * (DEFAULT_SIZE_LIMIT - 2)  # with its quotes it has as many bytes as may be
TOO_LARGE = LARGEST + "x"


async def test_data_above_the_default_limit_is_refused_by_every_way_of_adding_before_anything_is_sent(
    queue: Queue, bench: Bench, server: Server, prefix: str
) -> None:
    flows = FlowProducer(prefix=prefix, server=server)
    for attempt in (
        lambda: queue.add("report", TOO_LARGE),
        lambda: queue.add_many([queue.job("report", {}), queue.job("report", TOO_LARGE)]),
        lambda: flows.add(flow_job("parent", {}, queue="q", children=[flow_job("report", TOO_LARGE, queue="q")])),
        lambda: queue.job_schedulers.upsert("s", ScheduleRule(every="1h"), name="report", data=TOO_LARGE),
    ):
        with pytest.raises(PayloadTooLargeError) as caught:
            await attempt()
        assert (caught.value.name, caught.value.size, caught.value.limit) == ("report", DEFAULT_SIZE_LIMIT + 1, DEFAULT_SIZE_LIMIT)
    assert str(caught.value) == (
        "the data of job 'report' has 10,485,761 bytes, and its size_limit is 10,485,760: "
        "store the bulk of it elsewhere and pass a reference, or raise the limit with size_limit="
    )
    assert await bench.everything() == {}


async def test_data_and_a_result_of_just_the_limit_travel_and_nothing_about_it_is_on_the_wire(queue: Queue, bench: Bench) -> None:
    async def echo(job: Job) -> object:
        return job.data

    job = await queue.add("n", LARGEST)
    async with Worker(queue, echo) as worker:
        await worker.wait_until_idle()
    await job.refresh()
    assert job.return_value == LARGEST
    assert "sizeLimit" not in json.loads((await bench.hash(job.id))["opts"])


async def test_large_results_go_in_several_turns(proxy: Proxy, prefix: str) -> None:
    begun = asyncio.Barrier(8)

    async def all_at_once(job: Job) -> str:
        await begun.wait()
        return "x" * (BATCH_BYTES // 2)

    async with Queue("q", prefix=prefix, url=proxy.url) as queue:
        jobs = await queue.add_many([queue.job("n") for _ in range(8)])
        async with Worker(queue, all_at_once, WorkerOptions(concurrency=8)):
            assert [len(await job.result(timeout="20s")) for job in jobs] == [BATCH_BYTES // 2] * 8
    turns = [sum(map(len, command)) for command in proxy.commands if is_script("turn")(command)]
    assert BATCH_BYTES < max(turns) < 1.1 * BATCH_BYTES


async def test_a_size_limit_of_ones_own_counts_instead_for_adding_and_for_updating(queue: Queue) -> None:
    large = await queue.add("n", TOO_LARGE, size_limit=len(TOO_LARGE) + 2)
    await large.update_data(TOO_LARGE)
    small = await queue.add("n", "x", size_limit=10)
    for job, data, limit in ((small, "x" * 9, 10), (await queue.add("n"), TOO_LARGE, DEFAULT_SIZE_LIMIT)):
        with pytest.raises(PayloadTooLargeError) as caught:
            await job.update_data(data)
        assert caught.value.limit == limit
    await small.refresh()
    assert small.data == "x"


async def test_a_result_above_the_workers_limit_fails_the_job_for_good(queue: Queue) -> None:
    runs: list[str] = []

    async def much(job: Job) -> str:
        runs.append(job.id)
        return "x" * 99

    job = await queue.add("n", attempts=5)
    async with Worker(queue, much, WorkerOptions(result_size_limit=100)) as worker:
        await worker.wait_until_idle()
    await job.refresh()
    assert (runs, await job.get_state(), job.return_value) == ([job.id], "failed", None)
    assert job.failed_reason == (
        "the result of job 'n' has 101 bytes, and the worker's result_size_limit is 100: "
        "store the bulk of it elsewhere and return a reference, or raise WorkerOptions.result_size_limit"
    )


@pytest.mark.parametrize("limit", [0, -1, 1.5, True])
def test_a_limit_for_results_that_makes_no_sense_is_refused(limit: int) -> None:
    with pytest.raises(InvalidOptionError, match="result_size_limit"):
        WorkerOptions(result_size_limit=limit)


async def test_a_dead_letter_may_hold_more_than_its_job(server: Server, prefix: str) -> None:
    letters = Queue("letters", prefix=prefix, server=server)
    queue = Queue("q", prefix=prefix, server=server, dead_letter=letters)

    async def fail(job: Job) -> None:
        raise RuntimeError("boom")

    await queue.add("n", LARGEST)
    async with Worker(queue, fail) as worker:
        await worker.wait_until_idle()
    (letter,) = await letters.dead_letters.list()
    assert letter.data == LARGEST
    again = await queue.get_job(await letters.dead_letters.replay(letter.id))
    assert again.data == LARGEST


async def test_progress_is_bounded_since_every_listener_gets_it(queue: Queue) -> None:
    job = await queue.add("n")
    await job.update_progress("x" * (PROGRESS_LIMIT - 2))
    with pytest.raises(PayloadTooLargeError) as caught:
        await job.update_progress("x" * PROGRESS_LIMIT)
    assert (caught.value.part, caught.value.limit) == ("progress", PROGRESS_LIMIT)
    await job.refresh()
    assert job.progress == "x" * (PROGRESS_LIMIT - 2)


async def test_a_long_row_of_a_log_loses_its_middle_and_says_so(queue: Queue) -> None:
    job = await queue.add("n", options=JobOptions(keep_logs=5))
    await job.log("a" * 15_000 + "b" * 15_000)
    await job.log("half \ud800 of a character")
    long, half = (await job.get_logs()).rows
    assert long == "a" * 10_000 + "\n… 10000 characters left out …\n" + "b" * 10_000
    assert half == r"half \ud800 of a character"
