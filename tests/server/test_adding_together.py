"""Adds that are awaited at the same time share round trips, and nothing else."""

from __future__ import annotations

import asyncio
import copy

import pytest

from tests.bench import Bench
from tests.proxy import Cut, Proxy, is_command, is_script
from toril.errors import AddOutcomeUnknownError, DamagedKeyError, ParentError, QueueClosedError, ServerUnreachableError
from toril.queues.job import Job
from toril.queues.option_parts import Deduplication
from toril.queues.queue import Queue
from toril.wire.add_commands import ADD_BATCH, CALL_BYTES, SHARED_BYTES
from toril.wire.codec import JobRecord
from toril.wire.connection import Server


def adds(proxy: Proxy) -> int:
    return sum(is_script("add")(command) for command in proxy.commands)


async def test_many_at_once_are_one_command_and_keep_their_order(toril_server_url: str, prefix: str) -> None:
    async with Proxy(toril_server_url) as proxy, Queue("q", prefix=prefix, url=proxy.url) as queue:
        await queue.add("first")
        before = adds(proxy)
        jobs = await asyncio.gather(*(queue.add("n", {"n": number}, priority=number % 3 or None) for number in range(200)))
        assert adds(proxy) == before + 1
        assert [job.id for job in jobs] == [str(number) for number in range(2, 202)]
        assert [job.data for job in jobs] == [{"n": number} for number in range(200)]
        await asyncio.gather(*(queue.add("n") for _ in range(ADD_BATCH + 1)))
        assert adds(proxy) == before + 3


async def test_much_data_goes_in_several_calls(toril_server_url: str, prefix: str) -> None:
    async with Proxy(toril_server_url) as proxy, Queue("q", prefix=prefix, url=proxy.url) as queue:
        text = "x" * (SHARED_BYTES // 3)
        jobs = await asyncio.gather(*(queue.add("n", text) for _ in range(5)), queue.add("n", text * 4), queue.add("n"))
        assert adds(proxy) == 5  # two, two, one, the one that is too much by itself, and the last one
        assert [job.id for job in jobs] == [str(number) for number in range(1, 8)]


async def test_many_with_much_data_go_in_several_calls(toril_server_url: str, prefix: str) -> None:
    async with Proxy(toril_server_url) as proxy, Queue("q", prefix=prefix, url=proxy.url) as queue:
        text = "x" * (CALL_BYTES // 3)
        texts = [text, text, text, text * 4, "", text, "", text]
        jobs = await queue.add_many([queue.job("n", one) for one in texts])
        assert adds(proxy) == 4  # two, one, the one that is too much by itself, and the others
        assert [job.id for job in jobs] == [str(number) for number in range(1, 9)]
        assert [job.data for job in await queue.get_waiting()] == texts


@pytest.mark.parametrize("count", [ADD_BATCH + 1, 5])
async def test_a_parent_that_is_gone_leaves_nothing_of_many_that_take_several_calls(queue: Queue, count: int) -> None:
    text = "x" * (1 if count > ADD_BATCH else CALL_BYTES // 3)
    gone = Job(queue, JobRecord("gone", "n", b"{}", b"{}"))
    with pytest.raises(ParentError) as caught:
        await queue.add_many([*(queue.job("n", text) for _ in range(count - 1)), queue.job("n", text, parent=gone)])
    assert (caught.value.parent_key, caught.value.place) == (queue.keys.job("gone"), count - 1)
    assert await queue.count() == 0


async def test_all_parents_are_looked_at_together_and_the_first_that_is_gone_is_named(proxy: Proxy, prefix: str) -> None:
    async with Queue("q", prefix=prefix, url=proxy.url) as queue:
        parents = await queue.add_many([queue.job("parent", delay="1h") for _ in range(ADD_BATCH)])
        children = [queue.job("n", parent=parent) for parent in (*parents, *parents[:5])]
        await queue.add_many(children)
        assert sum(map(is_command("EXISTS"), proxy.commands)) == 1
        one, other = (queue.job("n", parent=Job(queue, JobRecord(job_id, "n", b"{}", b"{}"))) for job_id in ("one", "other"))
        children[7:7] = [one, other, one]
        with pytest.raises(ParentError) as caught:
            await queue.add_many(children)
        assert (caught.value.parent_key, caught.value.place) == (queue.keys.job("one"), 7)


async def test_a_child_of_another_parent_keeps_none_of_many_from_being_added_in_whichever_call(queue: Queue) -> None:
    mine, other = await queue.add("parent", delay="1h"), await queue.add("parent", delay="1h")
    await queue.add_many([queue.job("child", job_id=job_id, parent=mine) for job_id in ("a", "b")])
    drafts = [queue.job("n") for _ in range(ADD_BATCH + 5)]
    drafts[3], drafts[-2] = (queue.job("child", job_id=job_id, parent=other) for job_id in ("a", "b"))
    with pytest.raises(ParentError, match="has another parent, which still lives; the others were added") as caught:
        await queue.add_many(drafts)
    assert (caught.value.parent_key, caught.value.place) == (queue.keys.job(other.id), 3)
    assert [job.name for job in await queue.get_waiting()] == ["child"] * 2 + ["n"] * (ADD_BATCH + 3)


async def test_a_parent_that_goes_while_many_are_added_is_told_with_how_many_were(queue: Queue) -> None:
    newest_wins = Deduplication("d", replace=True)
    parent = await queue.add("parent", delay="1h", deduplication=newest_wins)
    replaces = queue.job("n", delay="1h", deduplication=newest_wins)
    drafts = [replaces, *(queue.job("n") for _ in range(ADD_BATCH)), queue.job("child", parent=parent), queue.job("n")]
    with pytest.raises(ParentError, match=f"the first {ADD_BATCH} entries were added, and nothing else") as caught:
        await queue.add_many(drafts)
    assert (caught.value.parent_key, caught.value.place) == (queue.keys.job(parent.id), ADD_BATCH + 1)
    assert await queue.count() == ADD_BATCH


async def test_what_keeps_one_from_being_added_keeps_no_other(server: Server, prefix: str) -> None:
    bench, queue = Bench(server, prefix), Queue("q", prefix=prefix, server=server)
    await bench.raw("RPUSH", bench.key("de:damaged"), "no text")
    gone = Job(queue, JobRecord("gone", "n", b"{}", b"{}"))
    kept = await queue.add("n", job_id="mine")
    adding = (
        queue.add("sound"),
        queue.add("orphan", parent=gone),
        queue.add("damaged", deduplication=Deduplication("damaged")),
        queue.add("n", job_id="mine"),
        queue.add("last"),
    )
    told: list[Job | BaseException] = list(await asyncio.gather(*adding, return_exceptions=True))
    assert [type(one) for one in told[:2]] == [Job, ParentError]
    assert isinstance(told[2], DamagedKeyError)
    assert [one.id if isinstance(one, Job) else None for one in told[3:4]] == [kept.id]
    assert isinstance(told[4], Job)
    assert {job.name for job in await queue.get_jobs()} == {"n", "sound", "last"}


async def test_who_is_cancelled_before_anything_was_sent_adds_nothing(server: Server, prefix: str) -> None:
    async with Queue("q", prefix=prefix, server=server) as queue:
        await queue.add("first")
        impatient, patient = asyncio.create_task(queue.add("impatient")), asyncio.create_task(queue.add("patient"))
        asyncio.get_running_loop().call_soon(impatient.cancel)
        job = await patient
        with pytest.raises(asyncio.CancelledError):
            await impatient
        assert job.id == "2"
        assert {one.name for one in await queue.get_jobs()} == {"first", "patient"}


async def test_a_lost_reply_is_told_to_each_of_those_that_shared_it(toril_server_url: str, prefix: str) -> None:
    async with Proxy(toril_server_url) as proxy, Queue("q", prefix=prefix, url=proxy.url) as queue:
        await queue.add("first")
        proxy.decide = lambda command: Cut.AFTER if is_script("add")(command) else None
        told = await asyncio.gather(*(queue.add("n") for _ in range(3)), return_exceptions=True)
        assert [type(error) for error in told] == [AddOutcomeUnknownError] * 3
        assert len({id(error) for error in told}) == 3
        assert "3 jobs" not in str(told[0])


async def test_without_a_server_each_is_told_so(prefix: str) -> None:
    async with Queue("q", prefix=prefix, url="redis://127.0.0.1:1") as queue:
        told = await asyncio.gather(*(queue.add("n") for _ in range(2)), return_exceptions=True)
        assert [type(error) for error in told] == [ServerUnreachableError] * 2


async def test_closing_the_queue_answers_those_that_are_gathered(server: Server, toril_server_url: str, prefix: str) -> None:
    async with Queue("q", prefix=prefix, url=toril_server_url) as queue:
        await queue.add("first")
        adding = [asyncio.create_task(queue.add("n")) for _ in range(3)]
    told = await asyncio.gather(*adding, return_exceptions=True)
    assert {type(error) for error in told} <= {QueueClosedError, AddOutcomeUnknownError}
    assert len({id(error) for error in told}) == 3
    assert [one.name for one in await Queue("q", prefix=prefix, server=server).get_jobs()] == ["first"]


@pytest.mark.usefixtures("all_scripts_again")
async def test_a_server_that_has_lost_the_script_adds_each_once(server: Server, prefix: str) -> None:
    async with Queue("q", prefix=prefix, server=server) as queue:
        await queue.add("first")
        await server.commands.call("SCRIPT", "FLUSH")
        jobs = await asyncio.gather(*(queue.add("n") for _ in range(3)))
        assert [job.id for job in jobs] == ["2", "3", "4"]
        assert await queue.count() == 4


def test_errors_that_are_told_to_several_can_be_copied() -> None:
    error = ServerUnreachableError("127.0.0.1:1", "nobody is there")
    assert str(copy.copy(error)) == str(error)
