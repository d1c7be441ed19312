"""Waiting for a result in a test whose clock stands still: what nothing will end is told soon, with what to do."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

import pytest

from tests.proxy import Proxy
from toril import (
    FlowProducer,
    InjectFlowProducer,
    InjectQueue,
    Job,
    Queue,
    QueueModule,
    Worker,
    WorkerOptions,
    flow_job,
    module,
    process,
    processor,
)
from toril.errors import JobFailedError, ServerUnreachableError
from toril.testing import NeverEndsError, StillBusyError, Test, TestingModule


@processor("mails")
class Mails:
    def __init__(self, reports: Annotated[Queue, InjectQueue("reports")]) -> None:
        self.reports = reports

    @process("send")
    async def send(self, job: Job) -> str:
        return "sent"

    @process("nap")
    async def nap(self, job: Job) -> str:
        await job.queue.clock.sleep(60_000)
        return "awake"

    @process("hang")
    async def hang(self, job: Job) -> None:
        await asyncio.Event().wait()

    @process("hang with a timeout", timeout="5s")
    async def hang_with_a_timeout(self, job: Job) -> None:
        await asyncio.Event().wait()

    @process("ask")
    async def ask(self, job: Job) -> Any:  # noqa: ANN401 -- whatever the other one returned
        return await (await self.reports.add("report")).result(timeout="5s")


@processor("reports")
class Reports:
    @process()
    async def report(self, job: Job) -> str:
        return "reported"


@module(
    imports=[QueueModule.register_queue("mails", "reports", "unserved"), QueueModule.register_flow_producer("flows")],
    providers=[Mails, Reports],
)
class StandingModule: ...


async def compiled() -> TestingModule:
    return await Test.create_testing_module(imports=[StandingModule]).compile()


async def advice_for(job: Job) -> NeverEndsError:
    with pytest.raises(NeverEndsError) as caught:
        await job.result(timeout="5s")
    return caught.value


async def test_a_result_that_nobody_works_for_says_who_would() -> None:
    async with await compiled() as t:
        job = await t.queue("mails").add("send")
        error = await advice_for(job)
        assert (error.job_id, error.queue, error.state) == (job.id, "mails", "waiting")
        assert str(error) == (
            f"job {job.id} of queue 'mails' does not come to its end: it is waiting, and nothing runs the jobs of 'mails' in this test: "
            "await t.drain('mails') before, or ask inside `async with t.run_workers('mails'):`."
        )
        await t.drain("mails")
        assert await job.result(timeout="5s") == "sent"


async def test_a_result_of_a_delayed_job_says_that_time_stands_still() -> None:
    async with await compiled() as t:
        job = await t.queue("mails").add("send", delay="5m")
        assert 'await t.advance("…")' in str(await advice_for(job))
        async with t.run_workers("mails"):
            assert "time stands still" in str(await advice_for(job))
            await t.advance("5m")
            assert await job.result(timeout="5s") == "sent"


async def test_a_result_of_a_handler_that_sleeps_on_the_clock_says_that_time_stands_still() -> None:
    async with await compiled() as t, t.run_workers("mails"):
        job = await t.queue("mails").add("nap")
        error = await advice_for(job)
        assert (error.state, "time stands still" in error.advice) == ("active", True)


async def test_a_name_without_a_handler_is_told_with_the_one_that_is_near() -> None:
    async with await compiled() as t:
        job = await t.queue("mails").add("sennd")
        await t.drain("mails")
        assert "no handler of 'mails' takes jobs named 'sennd': did you mean send?" in str(await advice_for(job))


async def test_a_queue_without_a_processor_is_told_as_one() -> None:
    async with await compiled() as t:
        job = await t.queue("unserved").add("send")
        assert "no processor of this testing module serves 'unserved'" in str(await advice_for(job))


async def test_a_paused_queue_is_told_as_a_reason() -> None:
    async with await compiled() as t:
        await t.queue("mails").pause()
        async with t.run_workers("mails"):
            assert "is the queue paused" in str(await advice_for(await t.queue("mails").add("send")))


async def test_a_parent_whose_children_nobody_runs_says_so() -> None:
    async with await compiled() as t:
        flows: FlowProducer = t.get(InjectFlowProducer("flows").token)
        node = await flows.add(flow_job("send", queue="mails", children=[flow_job("report", queue="reports")]))
        assert "nothing runs its children" in str(await advice_for(node.job))


async def test_a_handler_that_asks_for_a_job_nobody_runs_fails_with_the_advice() -> None:
    async with await compiled() as t:
        job = await t.queue("mails").add("ask")
        await t.drain("mails")
        with pytest.raises(JobFailedError, match=r"does not come to its end: .*await t\.drain\('reports'\)"):
            await job.result(timeout="5s")


async def test_whoever_waits_while_another_task_runs_the_job_gets_the_result() -> None:
    async with await compiled() as t:
        job = await t.queue("mails").add("send", delay="5m")
        asked = asyncio.create_task(job.result(timeout="10m"))
        await t.advance("5m")
        assert await asked == "sent"


async def test_a_worker_of_the_tests_own_is_waited_for_with_patience() -> None:
    async with await compiled() as t:
        t.patience = "3s"  # longer than what it takes to tell that no processor serves the queue

        async def hang(job: Job) -> None:
            await asyncio.Event().wait()

        queue = t.queue("unserved")
        async with Worker(queue, hang, WorkerOptions(shutdown_timeout="0s")) as worker:
            error = await advice_for(await queue.add("any"))
            assert (error.state, "a worker outside of this testing module" in error.advice) == ("active", True)
            worker.ask_to_stop(force=True)


async def test_a_handler_that_hangs_for_the_whole_patience_is_told() -> None:
    async with await compiled() as t:
        t.patience = "2s"
        async with t.run_workers("mails"):
            job = await t.queue("mails").add("hang")
            assert "wait for what never comes" in str(await advice_for(job))
            await job.cancel()


async def test_run_job_names_the_handler_that_hangs() -> None:
    async with await compiled() as t:
        t.patience = "6s"
        with pytest.raises(NeverEndsError) as caught:
            await t.run_job("hang")
        assert caught.value.state == "active"
        assert "'hang' of queue 'mails', attempt 1, handled by Mails.hang (" in caught.value.advice
        assert "asyncio.sleep" in caught.value.advice


async def test_a_drain_of_a_handler_that_hangs_tells_how_its_timeout_comes() -> None:
    async with await compiled() as t:
        t.patience = "12s"
        job = await t.queue("mails").add("hang with a timeout")
        with pytest.raises(StillBusyError) as caught:
            await t.drain("mails")
        assert caught.value.needs_ms == 5_000
        text = re.sub(r" \(.*:\d+\)", "", str(caught.value))  # where the handler stands
        assert text == (
            "nothing has happened for 2s of real time in the workers of 'mails', while the clock stands still, and with it the timeouts "
            "of:\n"
            f"  runs: job {job.id} 'hang with a timeout' of queue 'mails', attempt 1, handled by Mails.hang_with_a_timeout\n"
            'If it hangs, await t.advance("5s") instead, which runs jobs and lets time pass. '
            "If it does real work that takes longer, raise `patience` of the testing module. The jobs that ran were put back."
        )
        await t.advance("5s")
        assert await job.get_state() == "failed"


async def test_a_result_of_a_handler_that_hangs_tells_how_its_timeout_comes() -> None:
    async with await compiled() as t:
        t.patience = "24s"
        async with t.run_workers("mails"):
            job = await t.queue("mails").add("hang with a timeout")
            error = await advice_for(job)
            assert (error.state, 'await t.advance("5s") in another task' in error.advice) == ("active", True)
            await t.advance("5s")
            with pytest.raises(JobFailedError, match="longer than its timeout"):
                await job.result(timeout="1s")


async def test_a_result_says_that_the_server_is_gone(toril_server_url: str, toril_prefix: str) -> None:
    async with Proxy(toril_server_url) as proxy:
        builder = Test.create_testing_module(imports=[StandingModule]).use_server(proxy.url, toril_prefix)
        async with builder.compile() as t:
            job = await t.queue("mails").add("send")
            proxy.down()
            with pytest.raises(ServerUnreachableError, match="no server answers"):
                await job.result(timeout="5s")
            proxy.up()


@pytest.mark.parametrize("call", ["drain", "advance"])
async def test_a_server_that_nobody_reaches_is_an_error_and_no_endless_wait(call: str) -> None:
    async with Test.create_testing_module(imports=[StandingModule]).use_server("redis://127.0.0.1:1", "nowhere").compile() as t:
        with pytest.raises(ServerUnreachableError, match=r"no server answers at redis://127\.0\.0\.1:1"):
            await (t.drain() if call == "drain" else t.advance("1m"))
