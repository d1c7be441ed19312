"""Fixtures that the project's own tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from toril.wire.connection import Server


@pytest.fixture
def prefix(toril_prefix: str) -> str:
    return toril_prefix


@pytest.fixture
async def server(toril_server_url: str) -> AsyncIterator[Server]:
    async with Server(toril_server_url) as server:
        yield server
