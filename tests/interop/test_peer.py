"""The Node processes of these tests leave with the test, whatever happens to them."""

from __future__ import annotations

import os

import pytest

from tests.interop.peer import NodePeer
from tests.line_process import PeerError
from toril import Queue


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_an_answer_finds_who_asked_even_if_a_job_id_is_among_the_arguments(node: NodePeer, queue: Queue) -> None:
    job = await queue.add("a")
    assert (await node.ask("get", queue="q", id=job.id))["name"] == "a"


async def test_what_node_raises_is_raised_here(node: NodePeer) -> None:
    with pytest.raises(PeerError, match="no job 7"):
        await node.ask("retry", queue="q", id="7")


async def test_a_node_process_that_hangs_is_killed_with_its_block(node_is_there: None, toril_server_url: str, toril_prefix: str) -> None:
    peer = NodePeer(toril_server_url, toril_prefix)

    async def hang() -> None:
        async with peer:
            await peer.ask("hang")
            await peer.heard(lambda event: event["event"] == "hangs")
            assert _lives(peer.pid)
            peer.patience_s = 0.5

    with pytest.raises(TimeoutError):
        await hang()
    assert not _lives(peer.pid)


async def test_whoever_waits_for_a_node_process_that_is_killed_is_told(node: NodePeer) -> None:
    node.kill()
    with pytest.raises(PeerError, match=r"peer\.mjs has ended"):
        await node.ask("counts", queue="q")


async def test_a_node_process_that_cannot_start_is_reported_and_leaves_nothing(
    node_is_there: None, toril_server_url: str, toril_prefix: str
) -> None:
    peer = NodePeer(toril_server_url, toril_prefix, library="no-such-package")
    with pytest.raises(PeerError, match="has ended"):
        await peer.__aenter__()
    assert not _lives(peer.pid)
