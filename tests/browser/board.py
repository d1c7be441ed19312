"""What a person sees and does on bull-board's pages."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import quote

from playwright.async_api import Locator, Page, expect

from toril import Queue
from toril.clock import Clock, SystemClock

QUEUES: Final = ("videos", "thumbnails")

Action = Literal["Retry", "Promote", "Duplicate", "Update Data", "Clean"]


@dataclass
class BoardQueues:
    """The queues that the board shows: Toril's side of them."""

    videos: Queue
    thumbnails: Queue


@asynccontextmanager
async def open_queues(url: str, prefix: str, clock: Clock) -> AsyncGenerator[BoardQueues]:
    async with AsyncExitStack() as stack:
        yield BoardQueues(*[await stack.enter_async_context(Queue(name, prefix=prefix, url=url, clock=clock)) for name in QUEUES])


class SlowClock(SystemClock):
    """A minute behind: what is done by it seems to be long ago."""

    def now_ms(self) -> int:
        return super().now_ms() - 60_000


class Board:
    """Pages are opened by address, and used as a person does: by what stands on them."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self._url = url

    @property
    def main(self) -> Locator:
        return self.page.locator("main")

    async def open_overview(self) -> None:
        await self.page.goto(f"{self._url}/")

    async def open_queue(self, queue: str, state: str | None = None) -> None:
        """Its page: of the latest jobs, or of those in one state, by the tab that a person clicks."""
        await self.page.goto(f"{self._url}/queue/{queue}")
        if state is not None:
            await self.main.locator(f"a[href='/queue/{queue}?status={state}']").click()

    async def open_job(self, queue: str, job_id: str) -> None:
        await self.page.goto(f"{self._url}/queue/{queue}/{quote(job_id, safe='')}")

    async def open_schedulers(self) -> None:
        await self.page.goto(f"{self._url}/job-schedulers")

    def cards(self) -> Locator:
        """Those of the jobs on the page: each names its job in a link."""
        return self.main.locator("[class^=card-]")

    async def count_of(self, queue: str, state: str) -> int:
        """The number in a tab."""
        tab = self.main.locator(f"a[href='/queue/{queue}?status={state}']")
        number = (await tab.inner_text()).split("\n")[-1]
        return int(number) if number.isdigit() else 0

    async def read_tab(self, tab: Literal["Data", "Progress", "Options", "Logs", "Error"]) -> Locator:
        """What a job's page tells under this heading."""
        await self.main.get_by_role("tab", name=tab).click()
        return self.main.get_by_role("tabpanel")

    async def act_on_job(self, action: Action) -> None:
        """Click the button of the job's page whose hint is `action`, and confirm it."""
        buttons = self.main.locator("[data-base-ui-tooltip-trigger] button")
        await expect(buttons.first).to_be_visible()
        hint = self.page.locator("[data-base-ui-portal] [role=presentation][data-open]")
        for button in await buttons.all():
            await self.page.mouse.move(0, 0)
            await expect(hint).to_have_count(0)
            await button.hover()
            await expect(hint).to_have_count(1)
            if await hint.inner_text() == action:
                await button.click()
                break
        else:
            raise AssertionError(f"no button for {action}")
        await self.confirm()

    async def act_on_queue(self, item: str) -> None:
        """Choose from the queue's menu."""
        await self.main.locator("button[aria-haspopup=menu]").first.click()
        await self.page.get_by_role("menuitem", name=item).click()

    async def confirm(self) -> None:
        await self.page.get_by_role("button", name="Confirm").click()

    def scheduler_row(self, scheduler_id: str) -> Locator:
        return self.main.get_by_role("row").filter(has_text=scheduler_id)


async def shown(place: Locator, *texts: Any) -> None:  # noqa: ANN401 -- numbers are texts, too
    """Wait until all of it can be read there."""
    for text in texts:
        await expect(place).to_contain_text(str(text))
