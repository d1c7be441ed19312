"""`eventually` looks again until an assertion holds."""

from __future__ import annotations

from typing import assert_type

import pytest

from toril.errors import InvalidDurationError
from toril.testing import eventually


class Countdown:
    """Holds at the n-th look."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def look(self) -> str:
        self.left -= 1
        assert self.left <= 0, f"{self.left} looks too early"
        return "there"

    async def look_async(self) -> str:
        return self.look()


async def test_returns_what_a_plain_probe_returns_once_it_holds() -> None:
    probe = Countdown(3)
    found = await eventually(probe.look)
    assert_type(found, str)
    assert (found, probe.left) == ("there", 0)


async def test_returns_what_a_coroutine_probe_returns_once_it_holds() -> None:
    probe = Countdown(3)
    found = await eventually(probe.look_async)
    assert_type(found, str)
    assert (found, probe.left) == ("there", 0)


async def test_a_coroutine_probe_without_result_can_be_awaited_as_a_statement() -> None:
    probe = Countdown(2)

    async def look() -> None:
        probe.look()

    await eventually(look)
    assert probe.left == 0


async def test_a_lambda_that_makes_a_coroutine_is_awaited() -> None:
    assert await eventually(lambda: Countdown(1).look_async()) == "there"


async def test_raises_the_last_assertion_with_a_note_when_the_time_is_over() -> None:
    probe = Countdown(1_000_000)
    with pytest.raises(AssertionError, match="looks too early") as caught:
        await eventually(probe.look, timeout="20ms")
    assert str(probe.left) in str(caught.value), "the last one, not the first"
    assert caught.value.__notes__ == ["still so after 20ms"]


async def test_every_other_error_comes_out_at_once() -> None:
    looks: list[int] = []

    def look() -> None:
        looks.append(1)
        raise LookupError("not mine")

    with pytest.raises(LookupError, match="not mine"):
        await eventually(look)
    assert len(looks) == 1


async def test_looks_once_even_without_time() -> None:
    assert await eventually(Countdown(1).look, timeout="0ms") == "there"


async def test_a_bare_number_is_no_timeout() -> None:
    with pytest.raises(InvalidDurationError):
        await eventually(Countdown(1).look, timeout=5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]  # on purpose
