"""Waiting for a job's result: whenever it is asked for, whatever became of the job, it ends with the right answer."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from tests.bench import STACK, T0, Bench, done, gone_wrong
from tests.proxy import Cut, Proxy, is_command, is_script, nth
from toril.errors import (
    InvalidDurationError,
    InvalidPayloadError,
    JobFailedError,
    JobRemovedError,
    QueueClosedError,
    ResultTimeoutError,
)
from toril.queues import results
from toril.queues.job import Job
from toril.queues.job_def import JobDef
from toril.queues.queue import Queue
from toril.testing.clock import FakeClock
from toril.testing.eventually import eventually
from toril.wire import endings
from toril.wire.connection import Server


class Receipt(BaseModel):
    code: int


@pytest.fixture
async def queue(server: Server, prefix: str) -> AsyncIterator[Queue]:
    async with Queue("q", prefix=prefix, server=server) as queue:
        yield queue


Finish = Callable[[Bench, str], Awaitable[object]]


async def complete(bench: Bench, keep: str) -> None:
    await bench.claim()
    await bench.turn(endings.completed("j", "t", b'{"code":7}', keep))


async def fail(bench: Bench, keep: str) -> None:
    await bench.claim()
    await bench.turn(gone_wrong("j", keep=keep))


async def complete_at_the_second_try(bench: Bench, keep: str) -> None:
    await bench.claim()
    await bench.turn(endings.retried("j", "t", "boom", STACK, 0, lifo=False))
    await complete(bench, keep)


async def fail_and_be_removed(bench: Bench, keep: str) -> None:
    await fail(bench, keep)
    await bench.commands.remove("j")


async def be_removed(bench: Bench, keep: str) -> None:
    await bench.commands.remove("j")


FAILED = ("failed", "j", "q", "boom")
REMOVED = ("removed", "j", "q")

ENDS: list[tuple[Finish, object]] = [
    (complete, {"code": 7}),
    (complete_at_the_second_try, {"code": 7}),
    (fail, FAILED),
    (fail_and_be_removed, FAILED),
    (be_removed, REMOVED),
]


async def answer(job: Job) -> object:
    """What `result` returns, or what its error knows."""
    try:
        return await job.result(timeout="20s")
    except JobFailedError as error:
        return "failed", error.job_id, error.queue, error.reason
    except JobRemovedError as error:
        return "removed", error.job_id, error.queue


async def somebody_listens(bench: Bench) -> None:
    async def probe() -> bool:
        assert bench.keys.events_client_name in (await bench.raw("CLIENT", "LIST")).decode()
        return True

    listens: bool = await eventually(probe)
    assert listens


@pytest.mark.parametrize("keep", ["", "0,,"], ids=["kept", "removed at once"])
@pytest.mark.parametrize(("finish", "expected"), ENDS, ids=[finish.__name__ for finish, _ in ENDS])
async def test_a_result_is_there_before_and_after_the_end(queue: Queue, bench: Bench, finish: Finish, expected: object, keep: str) -> None:
    job = await queue.add("n", job_id="j")
    early = asyncio.create_task(answer(job))
    await somebody_listens(bench)
    await finish(bench, keep)
    assert await early == expected
    assert await answer(job) == expected
    async with Queue("q", prefix=bench.prefix, server=bench.server) as elsewhere:  # with a reader that starts after the end
        assert await answer(Job(elsewhere, job.record)) == expected


@pytest.mark.parametrize("keep", ["", "0,,"], ids=["kept", "removed at once"])
@pytest.mark.parametrize(("finish", "expected"), ENDS, ids=[finish.__name__ for finish, _ in ENDS])
@pytest.mark.parametrize("moment", ["taking the position", "reading the stream", "looking at the job"])
async def test_no_end_slips_through_between_looking_and_listening(
    toril_server_url: str, bench: Bench, finish: Finish, expected: object, keep: str, moment: str
) -> None:
    """The job ends in the middle of one of the steps: the server has answered, and the answer is on its way until then."""
    async with Proxy(toril_server_url) as proxy, Queue("q", prefix=bench.prefix, url=proxy.url) as queue:
        job = await queue.add("n", job_id="j")
        steps = {
            "taking the position": is_command("XREVRANGE"),
            "reading the stream": is_command("XREAD"),
            "looking at the job": is_script("get_jobs"),
        }
        proxy.decide = nth(1, steps[moment], Cut.HOLD)
        waiting = asyncio.create_task(answer(job))
        await proxy.happened.wait()
        await finish(bench, keep)
        proxy.release()
        assert await waiting == expected


async def test_a_result_has_the_definitions_type(queue: Queue, bench: Bench) -> None:
    job = await queue.add(JobDef[None, Receipt]("n"), job_id="j")
    await complete(bench, "")
    assert await job.result(timeout="20s") == Receipt(code=7)
    await job.refresh()
    assert job.return_value == Receipt(code=7)
    wrong = await queue.add(JobDef[None, int]("n"), job_id="j")
    with pytest.raises(InvalidPayloadError, match=r"the result of job j \('n'\) doesn't fit int"):
        await wrong.result(timeout="20s")


async def test_a_job_that_does_not_end_in_time_says_where_it_is(server: Server, prefix: str, bench: Bench) -> None:
    clock = FakeClock(T0)
    async with Queue("q", prefix=prefix, server=server, clock=clock) as queue:
        job = await queue.add("n", job_id="j")
        await bench.claim()
        waiting = asyncio.create_task(job.result(timeout=timedelta(minutes=5)))
        await somebody_listens(bench)
        clock.advance("5m")
        with pytest.raises(ResultTimeoutError) as caught:
            await waiting
        assert (caught.value.job_id, caught.value.queue, caught.value.timeout_ms, caught.value.state) == ("j", "q", 300_000, "active")
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.address == str(server.address)
        assert f" has not ended within 5m (state: active at {server.address}). Does a worker run for the queue" in str(caught.value)
        await bench.turn(done("j"))
        assert await job.result(timeout="5m") == 1


async def test_a_delayed_job_that_does_not_end_in_time_says_until_when_it_waits(server: Server, prefix: str) -> None:
    clock = FakeClock(T0)
    async with Queue("q", prefix=prefix, server=server, clock=clock) as queue:
        job = await queue.add("n", delay="1h")
        with pytest.raises(ResultTimeoutError) as caught:
            await job.result(timeout="0s")
    due_at = datetime.fromtimestamp(T0 / 1_000 + 3_600, UTC)
    assert caught.value.due_at == due_at
    until = due_at.isoformat(timespec="seconds")
    assert f"It waits until {until}: a retry, its own delay, or no handler for its name." in str(caught.value)
    assert "state: delayed" in str(pickle.loads(pickle.dumps(caught.value)))


async def test_a_delayed_job_that_will_never_be_due_says_no_time(queue: Queue, bench: Bench) -> None:
    job = await queue.add("n", delay="1h")
    await bench.raw("ZADD", bench.key("delayed"), "+inf", job.id)
    with pytest.raises(ResultTimeoutError) as caught:
        await job.result(timeout="0s")
    assert (caught.value.state, caught.value.due_at) == ("delayed", None)


async def test_the_timeout_is_no_bare_number(queue: Queue) -> None:
    job = await queue.add("n")
    wrong: Any = 5
    with pytest.raises(InvalidDurationError):
        await job.result(timeout=wrong)


async def test_the_ends_of_an_earlier_job_with_the_same_id_do_not_count(queue: Queue, bench: Bench) -> None:
    job = await queue.add("n", job_id="j")
    await complete(bench, "0,,")
    again = await queue.add("n", job_id="j")
    waiting = asyncio.create_task(again.result(timeout="20s"))
    await somebody_listens(bench)
    await again.remove()
    with pytest.raises(JobRemovedError):
        await waiting
    with pytest.raises(JobRemovedError):
        await job.result(timeout="20s")


async def test_a_job_that_vanishes_without_an_event_is_missed_in_time(queue: Queue, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "CHECK_MS", 50)
    job = await queue.add("n", job_id="j")
    waiting = asyncio.create_task(answer(job))
    await somebody_listens(bench)
    await bench.raw("LREM", bench.key("wait"), 1, "j")  # as draining does it, whoever drains
    await bench.raw("DEL", bench.key("j"))
    assert await waiting == REMOVED


async def test_an_end_whose_event_was_trimmed_away_is_found_in_the_hash(
    queue: Queue, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "CHECK_MS", 50)
    job = await queue.add("n", job_id="j")
    waiting = asyncio.create_task(answer(job))
    await somebody_listens(bench)
    await bench.raw("HSET", bench.key("j"), "returnvalue", "5", "finishedOn", T0)
    assert await waiting == 5


async def test_a_long_past_of_the_stream_is_searched(queue: Queue, bench: Bench) -> None:
    job = await queue.add("n", job_id="j")
    await complete(bench, "0,,")
    await queue.add_many([queue.job("n") for _ in range(1_500)])
    assert await answer(job) == {"code": 7}


async def test_many_wait_at_once_with_one_reader(queue: Queue, bench: Bench) -> None:
    jobs = await queue.add_many([queue.job("n", job_id=f"j{i}") for i in range(50)])
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(job.result(timeout="20s")) for job in jobs for _ in range(2)]
        await somebody_listens(bench)
        listing: bytes = await bench.raw("CLIENT", "LIST")
        assert listing.decode().count(bench.keys.events_client_name) == 1
        reply = await bench.turn(claims=50)
        ends = [endings.completed(record.job_id, token, record.job_id[1:].encode(), "") for token, record in reply.claimed]
        await bench.turn(*ends)
    assert [task.result() for task in tasks] == [i for i in range(50) for _ in range(2)]


async def test_everybody_who_waits_gets_an_error_of_his_own(queue: Queue, bench: Bench) -> None:
    job = await queue.add("n", job_id="j")
    tasks = [asyncio.create_task(job.result(timeout="20s")) for _ in range(2)]
    await somebody_listens(bench)
    await fail(bench, "")
    errors = [task.exception() for task in (await asyncio.wait(tasks))[0]]
    assert all(isinstance(error, JobFailedError) for error in errors)
    assert errors[0] is not errors[1]


async def test_the_reader_stops_when_nobody_waits(queue: Queue, bench: Bench) -> None:
    job = await queue.add("n", job_id="j")
    waiting = asyncio.create_task(job.result(timeout="20s"))
    await somebody_listens(bench)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await queue.add("n")  # an event wakes the reader, which sees that nobody waits

    async def probe() -> bool:
        assert bench.keys.events_client_name not in (await bench.raw("CLIENT", "LIST")).decode()
        return True

    stopped: bool = await eventually(probe)
    assert stopped
    waiting = asyncio.create_task(job.result(timeout="20s"))
    await somebody_listens(bench)  # and starts again
    await complete(bench, "")
    assert await waiting == {"code": 7}


async def test_a_cut_connection_loses_no_result(queue: Queue, bench: Bench) -> None:
    job = await queue.add("n", job_id="j")
    waiting = asyncio.create_task(answer(job))
    await somebody_listens(bench)
    listing: bytes = await bench.raw("CLIENT", "LIST")
    for line in listing.decode().splitlines():
        if f"name={bench.keys.events_client_name} " in line:
            await bench.raw("CLIENT", "KILL", "ID", line.split()[0].removeprefix("id="))
    await complete(bench, "0,,")
    assert await waiting == {"code": 7}


async def test_closing_the_queue_sends_everybody_away(server: Server, prefix: str, bench: Bench) -> None:
    async with Queue("q", prefix=prefix, server=server) as queue:
        job = await queue.add("n")
        waiting = asyncio.create_task(job.result(timeout="20s"))
        await somebody_listens(bench)
    with pytest.raises(QueueClosedError):
        await waiting
