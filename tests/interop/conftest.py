"""These tests need Node and its libraries: `make interop` installs them. Without, they are skipped, and say so."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from tests.interop.peer import NodePeer
from toril import Queue

MODULES: Final = Path(__file__).parent / "node_modules"


@pytest.fixture(scope="session")
def node_is_there() -> None:
    """Skip where Node or its libraries are missing, or Node is too old."""
    is_new = "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)"
    has_node = shutil.which("node") is not None and subprocess.run(["node", "-e", is_new]).returncode == 0
    if not has_node or not (MODULES / ".package-lock.json").exists():
        pytest.skip("needs Node 20 and the npm packages of tests/interop: make interop")


@pytest.fixture
async def node(node_is_there: None, toril_server_url: str, toril_prefix: str) -> AsyncIterator[NodePeer]:
    """The real BullMQ 6, on the test's server and prefix."""
    async with NodePeer(toril_server_url, toril_prefix) as peer:
        yield peer


@pytest.fixture(params=["bullmq", "bullmq5"])
async def each_node(
    request: pytest.FixtureRequest, node_is_there: None, toril_server_url: str, toril_prefix: str
) -> AsyncIterator[NodePeer]:
    """The real BullMQ 6, and once more the last 5.x."""
    async with NodePeer(toril_server_url, toril_prefix, library=request.param) as peer:
        yield peer


@pytest.fixture
async def queue(toril_server_url: str, toril_prefix: str) -> AsyncIterator[Queue]:
    """Our side of the queue `q`."""
    async with Queue("q", prefix=toril_prefix, url=toril_server_url) as queue:
        yield queue
