"""The test kit: one job run to its end, workers for a block, work that never ends, spies."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from toril import InjectQueue, Job, JobDef, Queue, QueueModule, SystemClock, exponential, fixed, module, process, processor
from toril.errors import InvalidOptionError, InvalidPayloadError, JobFailedError, JobRemovedError
from toril.testing import FakeClock, NeverEndsError, StillBusyError, Test, TestingModule, eventually, spy_on


class Mail(BaseModel):
    to: str
    subject: str = "hello"


class Receipt(BaseModel):
    to: str
    attempt: int


SEND = JobDef[Mail, Receipt]("send")


class Refused(Exception):
    pass


REFUSED = Refused("no such mailbox")


@processor("mails")
class Mails:
    def __init__(self, mails: Annotated[Queue, InjectQueue("mails")]) -> None:
        self.mails = mails
        self.ran_at: list[int] = []
        self.started = asyncio.Event()

    @process(SEND)
    async def send(self, job: Job[Mail, Receipt]) -> Receipt:
        self.ran_at.append(self.mails.clock.now_ms())
        if job.data.to == "nobody":
            raise REFUSED
        if job.data.to == "later" and job.attempts_made < 2:
            raise Refused("not yet")
        return Receipt(to=job.data.to, attempt=job.attempts_made + 1)

    @process("chain")
    async def chain(self, job: Job) -> None:
        await self.mails.add("chain", {})

    @process("wait")
    async def wait(self, job: Job) -> str:
        self.started.set()
        await self.mails.clock.sleep(job.data["ms"])
        return "slept"

    @process("both")
    async def both(self, job: Job) -> str:
        return "mails"


@processor("reports")
class Reports:
    @process()
    async def rest(self, job: Job) -> str:
        return job.name

    @process("both")
    async def both(self, job: Job) -> str:
        return "reports"


@module(imports=[QueueModule.register_queue("mails", "reports", "unserved")], providers=[Mails, Reports])
class KitModule: ...


async def compiled(clock: FakeClock | SystemClock | None = None) -> TestingModule:
    builder = Test.create_testing_module(imports=[KitModule])
    return await (builder if clock is None else builder.use_clock(clock)).compile()


# ── run_job ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("options", [{}, {"remove_on_complete": True}, {"delay": "1h", "priority": 3}])
async def test_a_job_is_run_and_its_validated_result_returned(options: Any) -> None:  # noqa: ANN401 -- keywords of add
    async with await compiled() as t:
        receipt = await t.run_job(SEND, Mail(to="ann"), **options)
        assert receipt == Receipt(to="ann", attempt=1)
        assert await t.queue("mails").count() == 0


async def test_time_passes_for_the_retries_of_a_job_that_is_run() -> None:
    async with await compiled(FakeClock(1_700_000_000_000)) as t:
        receipt = await t.run_job(SEND, {"to": "later"}, attempts=3, backoff=fixed("10m"))
        assert receipt.attempt == 3
        assert t.get(Mails).ran_at == [1_700_000_000_000, 1_700_000_600_000, 1_700_001_200_000]


async def test_retries_run_in_real_time_with_a_real_clock() -> None:
    async with await compiled(SystemClock()) as t:
        receipt = await t.run_job(SEND, {"to": "later"}, attempts=3, backoff=fixed("20ms"))
        assert receipt.attempt == 3


async def test_a_job_that_fails_for_good_raises_with_the_handlers_own_exception() -> None:
    async with await compiled() as t:
        with pytest.raises(JobFailedError, match="no such mailbox") as caught:
            await t.run_job(SEND, Mail(to="nobody"), attempts=3, backoff=exponential("1s"), remove_on_fail=True)
        assert caught.value.__cause__ is REFUSED
        assert len(t.get(Mails).ran_at) == 3


async def test_data_that_does_not_fit_raises_before_anything_is_added() -> None:
    async with await compiled() as t:
        with pytest.raises(InvalidPayloadError):
            await t.run_job(SEND, {"to": 5})
        assert await t.queue("mails").count() == 0


async def test_a_name_finds_its_queue_and_several_are_an_error_that_lists_them() -> None:
    async with await compiled() as t:
        assert await t.run_job("anything") == "anything"  # only the reports have a handler for every name
        assert await t.run_job("both", {}, queue="reports") == "reports"
        with pytest.raises(InvalidOptionError, match=r"several queues \('mails', 'reports'\); say which one"):
            await t.run_job("both", {})
        with pytest.raises(InvalidOptionError, match=r"no processor handles jobs of this name; handled are: 'both' \(mails\), 'chain'"):
            await t.run_job("anything", {}, queue="mails")
        with pytest.raises(InvalidOptionError, match=r"did you mean 'chain'\? Handled are: 'both' \(mails\), 'chain'"):
            await t.run_job("chian", {}, queue="mails")
        with pytest.raises(InvalidOptionError, match="served are: mails, reports"):
            await t.run_job("anything", {}, queue="unserved")


async def test_a_job_in_a_paused_queue_is_told_as_one_that_never_ends() -> None:
    async with await compiled() as t:
        await t.queue("mails").pause()
        with pytest.raises(NeverEndsError) as caught:
            await t.run_job(SEND, Mail(to="ann"))
        assert (caught.value.queue, caught.value.state) == ("mails", "waiting")


async def test_a_job_that_somebody_removes_is_told_as_removed() -> None:
    async with await compiled(SystemClock()) as t:
        mails = t.queue("mails")
        running = asyncio.create_task(t.run_job(SEND, Mail(to="ann"), delay="1h"))
        [job] = await eventually(lambda: _one_delayed(mails))
        await job.remove()
        with pytest.raises(JobRemovedError):
            await running


async def _one_delayed(queue: Queue) -> list[Job]:
    jobs = await queue.get_delayed()
    assert len(jobs) == 1
    return jobs


async def test_a_job_can_be_run_while_workers_run() -> None:
    async with await compiled() as t, t.run_workers("mails"):
        assert (await t.run_job(SEND, Mail(to="ann"))).to == "ann"
        assert await t.run_job("wait", {"ms": 90_000}) == "slept"


# ── run_workers and drain ─────────────────────────────────────────────────────────────────────────────────────


async def test_workers_run_for_the_block_and_only_those_that_are_named() -> None:
    async with await compiled() as t:
        async with t.run_workers("mails"):
            job = await t.queue("mails").add(SEND, Mail(to="ann"))
            other = await t.queue("reports").add("report", {})
            assert (await job.result(timeout="10s")).to == "ann"
            assert await other.get_state() == "waiting"
        late = await t.queue("mails").add(SEND, Mail(to="late"))
        assert await late.get_state() == "waiting"
        async with t.run_workers():
            assert await other.result(timeout="10s") == "report"
        with pytest.raises(InvalidOptionError, match="run_workers='unserved'"):
            async with t.run_workers("unserved"):
                pass


async def test_a_job_that_waits_for_the_clock_at_the_end_of_the_block_is_put_back_without_an_attempt() -> None:
    async with await compiled() as t:
        async with t.run_workers("mails"):
            job = await t.queue("mails").add("wait", {"ms": 60_000})
            await t.get(Mails).started.wait()
        await job.refresh()
        assert (await job.get_state(), job.attempts_made) == ("waiting", 0)


async def test_an_error_in_the_block_comes_out_of_it() -> None:
    async def fail_while_a_job_runs(t: TestingModule) -> None:
        async with t.run_workers():
            await t.queue("mails").add("wait", {"ms": 60_000})
            await t.get(Mails).started.wait()
            raise LookupError("mine")

    async with await compiled() as t:
        with pytest.raises(LookupError, match="mine"):
            await fail_while_a_job_runs(t)


@pytest.mark.parametrize("name", ["drain", "advance"])
async def test_an_endless_chain_of_jobs_is_an_error_that_names_it(name: str) -> None:
    async with await compiled() as t:
        t.patience = "1s"
        await t.queue("mails").add("chain", {})
        with pytest.raises(StillBusyError) as caught:
            await (t.drain() if name == "drain" else t.advance("1h"))
        assert caught.value.queues == ("mails",)
        assert caught.value.begun > 1  # how many depends on the machine
        assert "each job add another one" in str(caught.value)


async def test_a_drain_of_a_job_that_waits_for_the_clock_tells_what_runs() -> None:
    async with await compiled() as t:
        await t.queue("mails").add("wait", {"ms": 60_000})
        with pytest.raises(StillBusyError, match=r"job 1 'wait' of queue 'mails', attempt 1, handled by Mails\.wait") as caught:
            await t.drain("mails")
        assert (caught.value.sleeps, caught.value.needs_ms) == (True, 60_000)
        assert "wait for the clock, which stands still" in str(caught.value)
        assert await t.run_job("wait", {"ms": 1}) == "slept"


# ── spies ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_spy_records_what_goes_to_the_wire_and_the_jobs_are_added() -> None:
    async with await compiled() as t:
        queue = t.queue("mails")
        await queue.add(SEND, Mail(to="before"))
        with spy_on(queue) as spy:
            job = await queue.add(
                SEND, Mail(to="ann"), attempts=5, priority=1, backoff=fixed("2s"), remove_on_complete=True, remove_on_fail=False
            )
            assert (spy.last.name, spy.last.data, spy.last.job_id) == ("send", {"to": "ann", "subject": "hello"}, job.id)
            assert spy.last.options == {
                "attempts": 5, "priority": 1, "backoff": {"type": "fixed", "delay": 2_000}, "removeOnComplete": True, "removeOnFail": False,
            }  # fmt: skip
            assert spy.last.job_options == job.options
            await queue.add_many([queue.job("chain"), queue.job("wait", {"ms": 1})])
            assert [one.name for one in spy.jobs] == ["send", "chain", "wait"]
            spy.clear()
            with pytest.raises(LookupError):
                _ = spy.last
        await queue.add("chain")
        assert spy.jobs == []
        assert await queue.count() == 5
