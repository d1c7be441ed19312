"""What bull-board shows of a queue that Toril has filled and works on."""

from __future__ import annotations

from datetime import datetime

import pytest
from playwright.async_api import expect

from tests.browser.board import Board, BoardQueues, shown
from tests.browser.studio import add_family, add_one_of_each_state, studio_at_work
from toril import JobOptions, ScheduleRule

pytestmark = pytest.mark.timeout(120)


async def test_the_overview_counts_the_jobs_of_all_queues(board: Board, queues: BoardQueues) -> None:
    async with studio_at_work(queues) as studio:
        jobs = await add_one_of_each_state(studio)
        await board.open_overview()
        await shown(board.main, "3 Jobs", f"{sum(map(len, jobs.values()))} Jobs")
        told = (await board.main.inner_text()).split("\n")
        counts = {
            name: told[told.index(name) + 1] for name in ("ACTIVE", "WAITING", "WAITING CHILDREN", "PRIORITIZED", "COMPLETED", "FAILED")
        }
        assert counts == {
            "ACTIVE": "2", "WAITING": "3", "WAITING CHILDREN": "1", "PRIORITIZED": "1", "COMPLETED": "2", "FAILED": "2",
        }  # fmt: skip


async def test_each_tab_counts_and_lists_the_jobs_in_that_state(board: Board, queues: BoardQueues) -> None:
    async with studio_at_work(queues) as studio:
        jobs = await add_one_of_each_state(studio)
        for state, of_this_state in jobs.items():
            await board.open_queue("videos", state)
            await expect(board.cards()).to_have_count(len(of_this_state))
            assert await board.count_of("videos", state) == len(of_this_state)
            for job in of_this_state:
                await expect(board.main.locator(f"a[href^='/queue/videos/{job.id}']")).to_have_count(1)
        await board.open_queue("videos", "active")
        await shown(board.cards().first, "slow", "by studio-1", "40%")
        await board.open_queue("videos")
        await expect(board.cards()).to_have_count(sum(map(len, jobs.values())))


async def test_a_job_page_tells_what_the_handler_got_wrote_and_returned(board: Board, queues: BoardQueues) -> None:
    async with studio_at_work(queues):
        job = await queues.videos.add(
            "encode", {"title": "Ferdinand <1938>", "tags": ["bull", "ß"]}, job_id="ferdinand", priority=7, attempts=3, keep_logs=50
        )
        await job.result(timeout="10s")
        await board.open_job("videos", "ferdinand")
        await shown(board.main, "ferdinand", "encode", "Added at", "Process started at", "by studio-1", "Finished at")
        await expect(board.main).not_to_contain_text("Failed at")
        await shown(await board.read_tab("Data"), 'title:"Ferdinand <1938>"', '"ß"', 'file:"é.mp4"', "seconds:2.5")
        await shown(await board.read_tab("Options"), "priority:7", "attempts:3")
        await shown(await board.read_tab("Logs"), "began encode", "wrote é.mp4")


async def test_a_failed_job_shows_its_reason_and_the_stacks_of_all_attempts(board: Board, queues: BoardQueues) -> None:
    async with studio_at_work(queues) as studio:
        jobs = await add_one_of_each_state(studio)
        (failed,) = jobs["failed"]
        await board.open_job("videos", failed.id)
        await shown(board.main, "broken", "Failed at", "by studio-1")
        error = await board.read_tab("Error")
        await shown(error, "in handle", "ValueError: no <video> & no sound in attempt 1")
        told = await error.inner_text()
        assert "in handle" in told.splitlines()[1]  # and not the way of the worker to it, which would fill the box
        assert told.index("in attempt 2") < told.index("in attempt 1")  # the latest is what a person looks for
        await shown(await board.read_tab("Logs"), "began broken")


async def test_a_delayed_job_tells_when_it_will_run(board: Board, queues: BoardQueues) -> None:
    async with studio_at_work(queues):
        job = await queues.videos.add("encode", delay="3h")
        await board.open_job("videos", job.id)
        due = datetime.fromtimestamp((job.timestamp_ms + job.delay_ms) / 1_000, job.timestamp.tzinfo)
        await shown(board.main, "Will run at", f"{due:%M:%S}")


async def test_the_flow_tree_shows_all_of_a_family_from_any_member(board: Board, queues: BoardQueues) -> None:
    async with studio_at_work(queues):
        family = await add_family(queues)
        for job in (family.job, family.children[2].job):
            await board.open_job(job.queue_name, job.id)
            await shown(board.main, "Job flow", "1 done", "2 unfinished")
            for node, state in zip(family, ("waiting-children", "completed", "failed", "delayed"), strict=True):
                said = f"{node.job.name}, {state}, queue {node.job.queue_name}, id {node.job.id}"
                await expect(board.main.get_by_label(said, exact=True)).to_be_visible()
            await expect(board.main.locator(".react-flow__edge")).to_have_count(3)


async def test_schedulers_show_their_rule_their_template_and_their_next_run(board: Board, queues: BoardQueues) -> None:
    async with studio_at_work(queues):
        schedulers = queues.videos.job_schedulers
        rule = ScheduleRule(pattern="30 3 1 * *", tz="Europe/Madrid", limit=9)
        await schedulers.upsert("monthly", rule, name="report", data={"kind": "full"}, options=JobOptions(attempts=4))
        first = await schedulers.upsert("beat", ScheduleRule(every="2h"), name="tick", data={"n": 1})
        await first.result(timeout="10s")
        await board.open_schedulers()
        monthly, beat = board.scheduler_row("monthly"), board.scheduler_row("beat")
        at = (await schedulers.get("monthly")).next_at
        await shown(monthly, "report", "videos", "30 3 1 * *", "Europe/Madrid", f"{at.month}/{at.day}", f"{at:%M:%S}")
        at = (await schedulers.get("beat")).next_at
        await shown(beat, "tick", "every 2h", f"{at:%M:%S}", "in 2 hours", f"{first.timestamp:%M:%S}")
        await expect(beat.locator(f"a[href='/queue/videos/repeat%3Abeat%3A{first.timestamp_ms}']")).to_have_count(1)
        await monthly.get_by_role("button", name="Job template").click()
        await shown(board.main, 'kind:"full"', "attempts:4")


async def test_connected_workers_stand_there_by_name(board: Board, queues: BoardQueues) -> None:
    async with studio_at_work(queues):
        for queue, worker in (("videos", "studio-1"), ("thumbnails", "studio-2")):
            await board.open_queue(queue)
            await board.page.get_by_title("Queue info").click()
            dialog = board.page.get_by_role("dialog")
            await shown(dialog, "Workers", "Running")
            await dialog.get_by_text("Connected workers").click()
            await shown(dialog, worker, "connected")
