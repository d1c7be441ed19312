"""Turns and adds whose replies are lost: a turn is sent again and done once; an add says that nobody knows."""

from __future__ import annotations

import pytest

from tests.bench import Bench, done, error_of, ids, tokens
from tests.proxy import Cut, Proxy, is_script, nth
from toril.errors import AddOutcomeUnknownError
from toril.wire import replies
from toril.wire.connection import Server
from toril.wire.line import ReplyLostError
from toril.wire.turns import ClaimState, TurnReply


async def test_a_turn_sent_again_gets_the_same_answer_and_does_nothing_twice(bench: Bench) -> None:
    await bench.add(4)
    await bench.claim(2)
    endings = (done("1"), done("2", "wrong"))
    first = await bench.turn(*endings, lane="w:0", sequence=5, token="u", claims=1)
    events = await bench.events()
    again = await bench.turn(*endings, lane="w:0", sequence=5, token="u", claims=1)
    assert again == first
    assert (list(first.codes), ids(first), tokens(first)) == ([0, replies.LOCK_MISMATCH], ["3"], ["u"])
    assert await bench.events() == events
    assert await bench.commands.count(["wait", "active", "completed"]) == [1, 2, 1]


async def test_a_repeated_answer_leaves_out_what_is_not_ours_any_more(bench: Bench) -> None:
    await bench.add(5)
    first = await bench.turn(lane="w:0", sequence=1, claims=4)
    assert ids(first) == ["1", "2", "3", "4"]
    await bench.raw("DEL", bench.keys.lock("1"))
    await bench.raw("SET", bench.keys.lock("2"), "another")
    await bench.raw("DEL", bench.key("3"))
    await bench.raw("SADD", bench.key("stalled"), "4")
    await bench.raw("PEXPIRE", bench.keys.lock("4"), 100)
    await bench.commands.update_data("4", b'{"new":1}')
    again = await bench.turn(lane="w:0", sequence=1, claims=4, lock_ms=20_000)
    assert (ids(again), tokens(again)) == (["4"], ["t:4"])
    assert again.claimed[0][1].data == b'{"new":1}'
    assert 15_000 < await bench.raw("PTTL", bench.keys.lock("4")) <= 20_000
    assert not await bench.raw("EXISTS", bench.key("stalled"))


async def test_an_old_turn_is_refused_and_does_nothing(bench: Bench) -> None:
    await bench.add(3)
    await bench.claim()
    await bench.turn(lane="w:0", sequence=7)
    before = await bench.everything()
    with pytest.raises(replies.StaleTurnError, match="after a later one"):
        await bench.turn(done("1"), lane="w:0", sequence=6, claims=1)
    after = await bench.everything()
    assert {key: value["value"] for key, value in after.items()} == {key: value["value"] for key, value in before.items()}


async def test_a_first_copy_that_arrives_after_its_resend_does_nothing(bench: Bench) -> None:
    """The dead connection's turn reaches the server last: once as the latest, and once when the lane has gone on."""
    await bench.add(4)
    resent = await bench.turn(lane="w:0", sequence=1, claims=2, token="a")
    late = await bench.turn(lane="w:0", sequence=1, claims=2, token="a")
    assert (ids(late), tokens(late)) == (ids(resent), tokens(resent)) == (["1", "2"], ["a", "a:2"])
    await bench.turn(done("1", "a"), done("2", "a:2"), lane="w:0", sequence=2, claims=1, token="b")
    assert isinstance(await error_of(bench.turn(lane="w:0", sequence=1, claims=2, token="a")), replies.StaleTurnError)
    assert await bench.commands.count(["wait", "active", "completed"]) == [1, 1, 2]


async def test_a_turn_left_on_a_dead_connection_arrives_after_all_and_changes_nothing(bench: Bench, toril_server_url: str) -> None:
    await bench.add(4)
    async with Proxy(toril_server_url) as proxy, Server(proxy.url) as through:
        lane = Bench(through, bench.prefix)
        proxy.decide = nth(1, is_script("turn"), Cut.LATE)
        assert isinstance(await error_of(lane.turn(lane="w:0", sequence=1, claims=2, token="a")), ReplyLostError)
        assert ids(await lane.turn(lane="w:0", sequence=1, claims=2, token="a")) == ["1", "2"]
        before = await bench.everything(), await bench.events()
        (reply,) = await proxy.deliver_late()
        assert reply.startswith(b"*8\r\n")
        after = await bench.everything(), await bench.events()
    assert [key for key in after[0] if after[0][key]["value"] != before[0][key]["value"]] == []
    assert after[1] == before[1]


@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER])
async def test_a_turn_whose_reply_was_lost_is_done_exactly_once_when_it_is_sent_again(
    bench: Bench, toril_server_url: str, cut: Cut
) -> None:
    await bench.add(3)
    await bench.claim()
    async with Proxy(toril_server_url) as proxy, Server(proxy.url) as through:
        proxy.decide = nth(1, is_script("turn"), cut)
        lane = Bench(through, bench.prefix)
        assert await _again_if_lost(lane) == (reply := await _again_if_lost(lane))
    assert (list(reply.codes), ids(reply)) == ([0], ["2"])
    assert sum(event == "completed 1 returnvalue=1 prev=active" for event in await bench.events()) == 1
    assert await bench.commands.count(["wait", "active", "completed"]) == [1, 1, 1]


async def _again_if_lost(lane: Bench) -> TurnReply:
    try:
        return await lane.turn(done("1"), lane="w:0", sequence=1, claims=1, token="a")
    except ReplyLostError:
        return await lane.turn(done("1"), lane="w:0", sequence=1, claims=1, token="a")


async def test_an_add_whose_reply_was_lost_says_so_and_is_not_repeated(bench: Bench, toril_server_url: str) -> None:
    for cut, added in ((Cut.BEFORE, 0), (Cut.AFTER, 3)):
        async with Proxy(toril_server_url) as proxy, Server(proxy.url) as through:
            proxy.decide = nth(1, is_script("add"), cut)
            error = await error_of(Bench(through, bench.prefix).add(3))
        assert isinstance(error, AddOutcomeUnknownError)
        assert (error.queue, error.count) == ("q", 3)
        assert await bench.commands.count(["wait"]) == [added]


async def test_lanes_do_not_hear_of_each_other(bench: Bench) -> None:
    await bench.add(2)
    assert ids(await bench.turn(lane="w:0", sequence=9, claims=1, token="a")) == ["1"]
    assert ids(await bench.turn(lane="w:1", sequence=1, claims=1, token="b")) == ["2"]


async def test_a_receipt_lives_for_two_lock_durations_after_the_last_turn(bench: Bench) -> None:
    receipt = bench.keys.own + "receipt:w:0"
    await bench.turn(lane="w:0", sequence=1, lock_ms=1_000)
    assert 1_500 < await bench.raw("PTTL", receipt) <= 2_000
    await bench.turn(lane="w:0", sequence=1, lock_ms=3_000)
    assert 5_500 < await bench.raw("PTTL", receipt) <= 6_000
    await bench.turn(lane="w:0", sequence=2, lock_ms=2_000)
    assert 3_500 < await bench.raw("PTTL", receipt) <= 4_000
    await bench.raw("DEL", receipt)
    assert (await bench.turn(lane="w:0", sequence=1, lock_ms=2_000)).state is ClaimState.SATISFIED


async def test_a_turn_without_a_lane_keeps_nothing(bench: Bench) -> None:
    await bench.add()
    await bench.claim()
    assert [key for key in await bench.everything() if key.startswith("toril:")] == []
