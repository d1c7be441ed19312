"""These tests need Chromium, Node and its libraries: `make browser` installs them. Without, they are skipped, and say so.

Each test's last screen is kept as a picture: in the folder `TORIL_SCREENSHOTS`, or with the other files of the run.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import Page, Route, async_playwright, expect

from tests.browser.board import QUEUES, Board, BoardQueues, SlowClock, open_queues
from tests.interop.peer import FOLDER, NodePeer
from toril.clock import SystemClock

FLAGS: Final = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
)
PATIENCE_MS: Final = 15_000

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where it is; skips where it isn't, or Node isn't."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None or shutil.which("node") is None or not (FOLDER / "node_modules/@bull-board/express").is_dir():
        pytest.skip("needs Chromium, Node 20 and the npm packages of tests/interop: make browser")
    return found


@pytest.fixture
async def page(chromium: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Page]:
    """An empty page that reaches this machine only, shows times in UTC, and fails the test if a script of the page raises."""
    raised: list[str] = []
    folder = Path(os.environ.get("TORIL_SCREENSHOTS", tmp_path))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS.split())
        context = await browser.new_context(viewport={"width": 1400, "height": 1000}, locale="en-US", timezone_id="UTC")
        await context.route(re.compile(r"^https?://(?!127\.0\.0\.1[:/])"), _refuse)  # it asks for a font, far away
        page = await context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: raised.append(str(error)))
        try:
            yield page
        finally:
            await page.screenshot(path=folder / f"{request.node.name}.png")
            await browser.close()
    assert [error for error in raised if not error.endswith("failed to load.")] == []  # we left the page while it loaded a part


async def _refuse(route: Route) -> None:
    await route.abort()


@pytest.fixture
async def queues(toril_server_url: str, toril_prefix: str) -> AsyncIterator[BoardQueues]:
    """Our side of the board's queues."""
    async with open_queues(toril_server_url, toril_prefix, SystemClock()) as queues:
        yield queues


@pytest.fixture
async def old_queues(toril_server_url: str, toril_prefix: str) -> AsyncIterator[BoardQueues]:
    """The same; what is done in them was done a minute ago."""
    async with open_queues(toril_server_url, toril_prefix, SlowClock()) as queues:
        yield queues


@pytest.fixture
async def board(page: Page, toril_server_url: str, toril_prefix: str) -> AsyncIterator[Board]:
    """bull-board, serving the test's queues, and the page that shows it."""
    async with NodePeer(toril_server_url, toril_prefix, "board.mjs") as peer:
        yield Board(page, await peer.ask("serve", queues=QUEUES))
