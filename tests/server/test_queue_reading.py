"""Looking at a queue and its jobs, changing and removing them; opening and closing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from tests.bench import STACK, T0, Bench, done, gone_wrong
from tests.proxy import Cut, Proxy, is_script, nth
from toril.embedded import EmbeddedServer
from toril.errors import InvalidOptionError, InvalidPayloadError, JobNotFoundError, NotJsonError, QueueClosedError
from toril.queues.job import Job
from toril.queues.job_def import JobDef
from toril.queues.payloads import PayloadType
from toril.queues.queue import Queue
from toril.queues.states import STATES
from toril.wire import endings
from toril.wire.codec import JobRecord
from toril.wire.connection import Server


class Mail(BaseModel):
    to: str


async def in_every_state(queue: Queue, bench: Bench) -> dict[str, str]:
    """One job in each state, by state."""
    await queue.add_many([queue.job("n", job_id=job_id) for job_id in ("c", "f", "a")])
    await bench.turn(claims=3)
    await bench.turn(done("c"), gone_wrong("f", "t:2"))
    await queue.add_many([queue.job("n", job_id="w"), queue.job("n", job_id="d", delay="1h"), queue.job("n", job_id="p", priority=1)])
    await bench.add_parent("wc", "q")
    return {
        "waiting": "w", "active": "a", "delayed": "d", "prioritized": "p", "waiting-children": "wc",
        "completed": "c", "failed": "f",
    }  # fmt: skip


async def test_every_state_is_found_counted_and_listed(queue: Queue, bench: Bench) -> None:
    expected = await in_every_state(queue, bench)
    assert {state: await queue.find_state(job_id) for state, job_id in expected.items()} == {state: state for state in STATES}
    assert await queue.get_job_counts() == dict.fromkeys(STATES, 1)
    assert await queue.get_job_counts("failed", "delayed") == {"failed": 1, "delayed": 1}
    assert {state: [job.id for job in await queue.get_jobs(state)] for state in STATES} == {s: [i] for s, i in expected.items()}
    assert sorted(job.id for job in await queue.get_jobs()) == sorted(expected.values())
    counters = [
        queue.get_waiting_count, queue.get_active_count, queue.get_delayed_count, queue.get_prioritized_count,
        queue.get_waiting_children_count, queue.get_completed_count, queue.get_failed_count,
    ]  # fmt: skip
    assert [await counter() for counter in counters] == [1] * 7
    listers = [
        queue.get_waiting, queue.get_active, queue.get_delayed, queue.get_prioritized,
        queue.get_waiting_children, queue.get_completed, queue.get_failed,
    ]  # fmt: skip
    assert [[job.id for job in await lister()] for lister in listers] == [[expected[state]] for state in STATES]
    assert await queue.count() == 4


async def test_an_unknown_state_is_refused_with_those_there_are(queue: Queue) -> None:
    wrong: Any = "wait"
    with pytest.raises(InvalidOptionError, match="waiting, active, delayed"):
        await queue.get_jobs(wrong)
    with pytest.raises(InvalidOptionError):
        await queue.get_job_counts(wrong)


async def test_a_missing_job_is_none_or_an_error(queue: Queue) -> None:
    assert await queue.find_job("nobody") is None
    assert await queue.find_state("nobody") is None
    with pytest.raises(JobNotFoundError) as caught:
        await queue.get_job("nobody")
    assert (caught.value.job_id, caught.value.queue) == ("nobody", "q")


async def test_pages_begin_where_they_should(queue: Queue, bench: Bench) -> None:
    await queue.add_many([queue.job("n", job_id=f"w{i}") for i in range(5)])
    await queue.add_many([queue.job("n", job_id=f"p{i}", priority=i + 1) for i in range(5)])

    def names(jobs: list[Job]) -> list[str]:
        return [job.id for job in jobs]

    assert names(await queue.get_waiting(0, 1)) == ["w0", "w1"]
    assert names(await queue.get_waiting(3)) == ["w3", "w4"]
    assert names(await queue.get_waiting(9)) == []
    assert names(await queue.get_jobs("waiting", 0, 1)) == ["w4", "w3"]
    assert names(await queue.get_jobs("waiting", 0, 1, ascending=True)) == ["w0", "w1"]
    assert names(await queue.get_prioritized(1, 2)) == ["p1", "p2"]
    assert names(await queue.get_jobs(["prioritized", "waiting"], 0, 0)) == ["p4", "w4"]
    await bench.turn(claims=3)
    bench.now += 5
    await bench.turn(done("w0"))
    bench.now += 5
    await bench.turn(done("w1", "t:2"))
    assert names(await queue.get_completed()) == ["w1", "w0"]
    assert names(await queue.get_jobs("completed", ascending=True)) == ["w0", "w1"]


async def test_a_page_is_filled_up_where_ids_without_a_job_stand(queue: Queue, bench: Bench) -> None:
    await queue.add_many([queue.job("n", job_id=f"j{i}") for i in range(10)])
    await bench.raw("DEL", *[bench.key(f"j{i}") for i in (0, 2, 3, 4)])
    assert [job.id for job in await queue.get_waiting(0, 3)] == ["j1", "j5", "j6", "j7"]
    assert [job.id for job in await queue.get_waiting()] == ["j1", "j5", "j6", "j7", "j8", "j9"]


# ── one job ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_job_is_listed_once_even_if_its_id_stands_twice(queue: Queue, bench: Bench) -> None:
    """A program of somebody's may have written it so, or a job moves on while one state after the other is read."""
    await bench.add(3)
    await bench.raw("RPUSH", queue.keys.state("wait"), "2")
    await bench.raw("ZADD", queue.keys.state("completed"), 1, "3")
    assert [job.id for job in await queue.get_waiting()] == ["2", "1", "3"]
    assert [job.id for job in await queue.get_jobs(["waiting", "completed"], ascending=True)] == ["2", "1", "3"]


async def test_a_job_tells_what_became_of_it(queue: Queue, bench: Bench) -> None:
    queue.register_payload("n", result=PayloadType[Any](int, "result"))
    job = await queue.add("n", {"a": 1}, attempts=2, job_id="j")
    assert (job.attempts_made, job.attempts_started, job.stalled_count, job.progress) == (0, 0, 0, 0)
    assert (job.processed_at, job.finished_at, job.return_value, job.failed_reason, job.stack_trace) == (None, None, None, None, [])
    bench.now = T0 + 1_000
    await bench.turn(claims=1, worker_name="w-1")
    await bench.turn(endings.retried("j", "t", "boom", STACK, 0, lifo=False))
    bench.now = T0 + 2_000
    await bench.turn(claims=1)
    bench.now = T0 + 2_500
    await bench.turn(endings.completed("j", "t", b"42", ""))
    await job.refresh()
    assert (job.attempts_made, job.attempts_started) == (2, 2)
    assert (job.failed_reason, job.stack_trace, job.return_value) == ("boom", ["stack"], 42)
    assert job.timestamp == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert (job.processed_at_ms, job.finished_at_ms) == (T0 + 2_000, T0 + 2_500)
    assert job.finished_at == datetime(2023, 11, 14, 22, 13, 22, 500_000, tzinfo=UTC)
    assert job.processed_by == "w-1"
    assert await job.get_state() == "completed"
    assert job.log_fields() == {"queue": "q", "job_id": "j", "job_name": "n", "attempt": 2}
    assert repr(job) == "<Job j 'n' of queue 'q'>"


async def test_progress_data_and_logs_are_stored_and_shown(queue: Queue, bench: Bench) -> None:
    job = await queue.add("n", {"a": 1}, keep_logs=2)
    await job.update_progress({"step": 3})
    await job.update_data({"a": 2})
    assert [await job.log(f"row {i}") for i in range(3)] == [1, 2, 2]
    assert (job.progress, job.data) == ({"step": 3}, {"a": 2})
    again = await queue.get_job(job.id)
    assert (again.progress, again.data) == ({"step": 3}, {"a": 2})
    assert await again.get_logs() == (["row 1", "row 2"], 2)
    assert await again.get_logs(0, 0, ascending=False) == (["row 2"], 2)
    assert (await bench.events())[-1] == 'progress 1 data={"step":3}'


async def test_other_data_must_fit_the_type_as_well(server: Server, prefix: str) -> None:
    queue = Queue("q", prefix=prefix, server=server)
    job = await queue.add(JobDef[Mail, None]("welcome"), Mail(to="a"))
    await job.update_data({"to": "b"})
    assert job.data == Mail(to="b")
    with pytest.raises(InvalidPayloadError):
        await job.update_data({"to": 5})
    assert job.data == Mail(to="b")
    with pytest.raises(NotJsonError, match="the progress of job 1"):
        await job.update_progress(object())


async def test_data_that_does_not_fit_spoils_only_its_own_job(queue: Queue, bench: Bench) -> None:
    await queue.add_many([queue.job("welcome", {"to": "a"}), queue.job("welcome", {"wrong": 1})])
    queue.register_payload("welcome", PayloadType[Any](Mail))
    good, bad = await queue.get_waiting()
    assert good.data == Mail(to="a")
    with pytest.raises(InvalidPayloadError, match=r"the data of job 2 \('welcome'\)"):
        _ = bad.data


async def test_what_is_done_to_a_removed_job_says_that_it_is_gone(queue: Queue) -> None:
    job = await queue.add("n")
    assert await job.remove()
    assert await job.get_state() is None
    for call in (job.update_progress(1), job.update_data({}), job.log("row"), job.refresh()):
        with pytest.raises(JobNotFoundError):
            await call
    assert await job.remove()
    assert await queue.remove("nobody")


async def test_a_running_job_is_not_removed(queue: Queue, bench: Bench) -> None:
    job = await queue.add("n")
    await bench.claim()
    assert not await queue.remove(job.id)
    assert await job.get_state() == "active"


async def test_reads_are_repeated_when_their_reply_is_lost(toril_server_url: str, prefix: str) -> None:
    async with Proxy(toril_server_url) as proxy, Queue("q", prefix=prefix, url=proxy.url) as queue:
        await queue.add("n", job_id="j")
        for script in ("get_jobs", "get_state", "counts"):
            proxy.decide = nth(1, is_script(script), Cut.AFTER)
            assert (await queue.get_job("j")).id == "j"
            assert await queue.find_state("j") == "waiting"
            assert await queue.count() == 1
        assert proxy.cuts == 3


def test_the_flag_of_a_cancelled_run_is_one_for_all_threads() -> None:
    job: Job = Job(Queue("q"), JobRecord("1", "n", b"{}", b"{}"))
    assert job.cancelled is job.cancelled
    assert not job.cancelled.is_set()


# ── opening and closing ───────────────────────────────────────────────────────────────────────────────────────────


async def test_a_closed_queue_says_so(toril_server_url: str, prefix: str) -> None:
    async with Queue("q", prefix=prefix, url=toril_server_url) as queue:
        job = await queue.add("n")
    await queue.close()
    with pytest.raises(QueueClosedError, match="queue 'q' is closed"):
        await queue.add("n")
    with pytest.raises(QueueClosedError):
        await queue.get_job(job.id)
    with pytest.raises(QueueClosedError):
        await job.update_progress(1)
    with pytest.raises(QueueClosedError):
        await job.result(timeout="1s")
    with pytest.raises(QueueClosedError):
        async with queue:
            pass


async def test_closing_a_queue_leaves_a_shared_server_open(server: Server, prefix: str) -> None:
    async with Queue("q", prefix=prefix, server=server) as queue:
        await queue.add("n")
    assert await server.commands.call("PING") == b"PONG"


async def test_a_queue_opens_itself_with_its_first_call(toril_server_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", toril_server_url)
    queue = Queue("q", prefix=prefix)
    with pytest.raises(QueueClosedError, match="not open"):
        _ = queue.commands
    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(queue.add("n"))
    assert await queue.count() == 10
    await queue.close()


async def test_without_an_address_a_queue_uses_the_embedded_server(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("embedded")
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setattr("toril.embedded.server.default_folder", lambda: folder)
    async with Queue("q") as queue:
        assert (await queue.add("n")).id == "1"
        assert EmbeddedServer(folder).folder == folder
        assert queue.server.address.url.startswith("unix://")


def test_making_a_queue_connects_nowhere() -> None:
    queue = Queue("q", url="redis://nowhere.invalid")
    assert repr(queue) == "<Queue bull:q>"
    with pytest.raises(InvalidOptionError, match="colon"):
        Queue("a:b")
    with pytest.raises(InvalidOptionError, match="max_events"):
        Queue("q", max_events=0)
