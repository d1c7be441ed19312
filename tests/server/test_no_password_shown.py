"""The password of a server's address stands in no error, traceback or log line, at debug level neither."""

from __future__ import annotations

import logging
import traceback

import pytest

from tests.support import ask
from toril import Queue
from toril.errors import TorilError
from toril.wire.connection import Server

SECRET = "hunter2hunter2"

ADDRESSES = (
    f"redis://u:{SECRET}@127.0.0.1:1/0",
    f"redis://:{SECRET}@127.0.0.1:1/nope",
    f"redis://u:{SECRET}@[::1/0",
    f"rediss://u:{SECRET}@127.0.0.1:1",
    f"redis+sentinel://u:{SECRET}@127.0.0.1:1/m",
    f"redis+cluster://u:{SECRET}@127.0.0.1:1",
    f"unix://u:{SECRET}@/no/socket",
    f"http://u:{SECRET}@x",
)


async def shown_for(address: str, caplog: pytest.LogCaptureFixture) -> str:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(TorilError) as caught:
        async with Server(address, patience_ms=0) as server:
            await Queue("q", prefix="{x}:bull", server=server).add("n")
    return "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caplog.text


@pytest.mark.parametrize("address", ADDRESSES)
async def test_an_address_that_is_wrong_or_where_nobody_answers(address: str, caplog: pytest.LogCaptureFixture) -> None:
    assert SECRET not in await shown_for(address, caplog)


@pytest.mark.parametrize("suffix", ["", "?db=99999"])
async def test_a_password_that_the_server_refuses(toril_server_url: str, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    assert ask(toril_server_url, "PING")
    socket = toril_server_url.removeprefix("unix://").rpartition("@")[2]
    assert SECRET not in await shown_for(f"unix://u:{SECRET}@{socket}{suffix}", caplog)
