"""These tests need Node and its libraries: `make interop` installs them. Without, they are skipped, and say so."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.interop.peer import NodePeer
from toril import Queue


@pytest.fixture
async def node(toril_server_url: str, toril_prefix: str) -> AsyncIterator[NodePeer]:
    """The real BullMQ, on the test's server and prefix."""
    if shutil.which("node") is None or not (Path(__file__).parent / "node_modules/bullmq").is_dir():
        pytest.skip("needs Node and the npm package bullmq: make interop")
    async with NodePeer(toril_server_url, toril_prefix) as peer:
        yield peer


@pytest.fixture
async def queue(toril_server_url: str, toril_prefix: str) -> AsyncIterator[Queue]:
    """Our side of the queue `q`."""
    async with Queue("q", prefix=toril_prefix, url=toril_server_url) as queue:
        yield queue
