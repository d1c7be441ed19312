"""What a person does on bull-board to a queue, while Toril's workers work on it: it happens, and they survive it."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.browser.board import Board, BoardQueues, shown
from tests.browser.studio import VIDEO_SLOTS, add_family, add_one_of_each_state, comes_to, studio_at_work
from toril import ScheduleRule
from toril.testing import eventually

pytestmark = pytest.mark.timeout(120)


async def test_a_failed_job_is_retried_and_completes(board: Board, queues: BoardQueues) -> None:
    async with studio_at_work(queues) as studio:
        job = await queues.videos.add("broken", attempts=2)
        await comes_to(job, "failed")
        studio.repaired = True
        await board.open_job("videos", job.id)
        await board.act_on_job("Retry")
        await comes_to(job, "completed")
        await job.refresh()
        assert (job.failed_reason, job.return_value) == (None, {"file": "é.mp4", "seconds": 2.5})
        await board.open_job("videos", job.id)
        await shown(board.main, "Finished at")
        await studio.is_well()


async def test_all_failed_jobs_are_retried_at_once(board: Board, queues: BoardQueues) -> None:
    async with studio_at_work(queues) as studio:
        jobs = await queues.videos.add_many([queues.videos.job("broken") for _ in range(12)])
        for job in jobs:
            await comes_to(job, "failed")
        studio.repaired = True
        await board.open_queue("videos", "failed")
        await board.main.get_by_role("button", name="Retry all").click()
        await board.confirm()
        await eventually(lambda: counts_are(queues, completed=12, failed=0))
        await studio.is_well()


async def test_a_delayed_job_is_promoted_and_runs(board: Board, queues: BoardQueues) -> None:
    async with studio_at_work(queues) as studio:
        job = await queues.videos.add("encode", {"n": 1}, delay="3h")
        await board.open_job("videos", job.id)
        await board.act_on_job("Promote")
        assert await job.result(timeout="10s") == {"file": "é.mp4", "seconds": 2.5}
        await studio.is_well()


async def test_jobs_are_removed_with_their_children_while_others_run(board: Board, queues: BoardQueues) -> None:
    async with studio_at_work(queues) as studio:
        jobs = await add_one_of_each_state(studio)
        (delayed,) = jobs["delayed"]
        await board.open_job("videos", delayed.id)
        await board.act_on_job("Clean")
        await comes_to(delayed, None)
        parent, children = jobs["waiting-children"][0], await queues.thumbnails.get_jobs()
        await board.open_job("videos", parent.id)
        await board.act_on_job("Clean")
        await comes_to(parent, None)
        for child in children:
            await comes_to(child, None)
        await eventually(lambda: counts_are(queues, active=VIDEO_SLOTS, delayed=0, **{"waiting-children": 0}))
        studio.finish.set()
        await eventually(lambda: counts_are(queues, active=0, waiting=0))
        await studio.is_well()


async def test_a_queue_is_paused_and_resumed(board: Board, queues: BoardQueues) -> None:
    async with studio_at_work(queues) as studio:
        await board.open_queue("videos")
        await board.act_on_queue("Pause")
        await board.confirm()
        await eventually(lambda: is_paused(queues, True))
        job = await queues.videos.add("encode")
        assert await job.get_state() == "waiting"
        await board.open_overview()
        await shown(board.main, "[ Paused ]")
        await board.open_queue("videos")
        await board.act_on_queue("Resume")
        await board.confirm()
        assert (await job.result(timeout="10s"))["seconds"] == 2.5
        await studio.is_well()


@pytest.mark.parametrize("state", ["completed", "failed", "delayed"])
async def test_the_jobs_of_a_state_are_cleaned_and_no_others(board: Board, old_queues: BoardQueues, state: str) -> None:
    queues = old_queues  # the board cleans only what is older than five seconds
    async with studio_at_work(queues) as studio:
        jobs = await add_one_of_each_state(studio)
        await board.open_queue("videos", state)
        await board.main.get_by_role("button", name="Clean all").click()
        await board.confirm()
        await eventually(lambda: counts_are(queues, **{name: 0 if name == state else len(those) for name, those in jobs.items()}))
        studio.finish.set()
        await eventually(lambda: counts_are(queues, active=0, waiting=0, prioritized=0))
        await studio.is_well()


async def test_a_job_is_added_and_its_data_are_what_was_typed(board: Board, queues: BoardQueues) -> None:
    async with studio_at_work(queues) as studio:
        await board.open_queue("videos")
        await board.act_on_queue("Add job")
        dialog = board.page.get_by_role("dialog")
        await dialog.get_by_label("Job name").fill("encode")
        data = dialog.locator(".cm-content").first
        await data.click()
        await board.page.keyboard.press("ControlOrMeta+a")
        await board.page.keyboard.insert_text('{"typed": "by hand"}')
        await dialog.get_by_role("button", name="Add", exact=True).click()
        await eventually(lambda: counts_are(queues, completed=1))
        (job,) = await queues.videos.get_completed()
        assert (job.name, job.data) == ("encode", {"typed": "by hand"})
        await studio.is_well()


async def test_the_queue_is_emptied_and_obliterated_under_a_working_worker(board: Board, queues: BoardQueues) -> None:
    async with studio_at_work(queues) as studio:
        await add_one_of_each_state(studio)
        await board.open_queue("videos")
        await board.act_on_queue("Empty")
        await board.confirm()
        await eventually(lambda: counts_are(queues, active=VIDEO_SLOTS, waiting=0, prioritized=0, completed=1))
        await board.act_on_queue("Pause")
        await board.confirm()
        await eventually(lambda: is_paused(queues, True))
        await board.open_queue("videos")
        await board.act_on_queue("Obliterate")
        await board.page.get_by_text("Force obliterate").click()
        await board.confirm()
        await eventually(lambda: counts_are(queues, active=0, waiting=0, completed=0, failed=0, delayed=0))
        studio.finish.set()
        assert not await queues.videos.is_paused()
        await studio.is_well()


async def test_a_limit_for_the_whole_fleet_is_set(board: Board, queues: BoardQueues) -> None:
    async with studio_at_work(queues) as studio:
        await board.open_queue("videos")
        await board.act_on_queue("Set concurrency")
        dialog = board.page.get_by_role("dialog")
        await dialog.get_by_label("Concurrency").fill("1")
        await dialog.get_by_role("button", name="Save").click()
        await eventually(lambda: has_concurrency(queues, 1))
        first, second = [await queues.videos.add("slow", {"n": n}) for n in range(2)]
        await comes_to(first, "active")
        assert await second.get_state() == "waiting"
        studio.finish.set()
        await second.result(timeout="10s")
        await studio.is_well()


async def test_a_scheduler_runs_now_gets_another_rule_and_is_removed(board: Board, queues: BoardQueues) -> None:
    async with studio_at_work(queues) as studio:
        schedulers = queues.videos.job_schedulers
        await schedulers.upsert("monthly", ScheduleRule(pattern="30 3 1 * *", tz="Europe/Madrid"), name="report", data={"kind": "full"})
        await board.open_schedulers()
        await board.main.get_by_title("Run now").click()
        await board.confirm()
        await eventually(lambda: counts_are(queues, completed=1, delayed=1))
        (ran,) = await queues.videos.get_completed()
        assert (ran.name, ran.data) == ("report", {"kind": "full"})

        await board.main.get_by_title("Edit schedule").click()
        dialog = board.page.get_by_role("dialog").filter(has_text="Edit scheduler")
        await dialog.get_by_label("Cron pattern").last.fill("45 4 2 * *")
        await dialog.get_by_role("button", name="Save").click()
        await eventually(lambda: has_pattern(queues, "45 4 2 * *"))
        changed = await schedulers.get("monthly")
        assert (changed.tz, changed.name, changed.data) == ("Europe/Madrid", "report", {"kind": "full"})

        await board.main.get_by_title("Remove scheduler").click()
        await board.confirm()
        await expect(board.scheduler_row("monthly")).to_have_count(0)
        assert await schedulers.list() == []
        await eventually(lambda: counts_are(queues, delayed=0))
        await studio.is_well()


async def test_a_child_is_promoted_from_the_flow_and_its_parent_goes_on(board: Board, queues: BoardQueues) -> None:
    async with studio_at_work(queues) as studio:
        family = await add_family(queues)
        studio.repaired = True
        _, broken, poster = (node.job for node in family.children)
        await board.open_job("thumbnails", poster.id)
        await board.act_on_job("Promote")
        await comes_to(poster, "completed")
        assert await family.job.get_state() == "waiting-children"
        await board.open_job("thumbnails", broken.id)
        await board.act_on_job("Retry")
        await comes_to(family.job, "completed")
        await studio.is_well()


async def counts_are(queues: BoardQueues, **counts: int) -> None:
    found = await queues.videos.get_job_counts()
    assert {state: number for state, number in found.items() if state in counts} == counts


async def is_paused(queues: BoardQueues, wanted: bool) -> None:
    assert await queues.videos.is_paused() is wanted


async def has_concurrency(queues: BoardQueues, wanted: int) -> None:
    assert await queues.videos.get_global_concurrency() == wanted


async def has_pattern(queues: BoardQueues, wanted: str) -> None:
    assert (await queues.videos.job_schedulers.get("monthly")).pattern == wanted
