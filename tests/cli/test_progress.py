"""The bar that work shows which may take long: in a terminal, and nowhere else."""

from __future__ import annotations

import re
from typing import Final

import pytest

from tests.cli.command import Cli
from toril import Queue

JOBS: Final = 2_500


def counts(shown: str, what: str) -> list[int]:
    """How far the bar of this work stood, each time that it was drawn."""
    return [int(count) for count in re.findall(rf"{what} .*?(\d+)/{JOBS}", shown)]


@pytest.mark.parametrize(
    ("words", "bars", "answer"),
    [
        ("job ls emails --where data.n=7", ["looking"], "late"),
        ("dlq ls emails --error refused", ["looking"], "no dead letter"),
        ("job rm emails --all --state delayed --yes", ["looking", "remove"], "2,500 jobs removed"),
        ("queue clean emails --state delayed --older-than 0s --dry-run", ["looking"], "2,500 jobs of queue emails would be removed"),
        ("queue clean emails --state delayed --older-than 0s --yes", ["removing"], "2,500 jobs of queue emails removed"),
    ],
)
async def test_a_bar_goes_from_nothing_to_all_and_disappears(cli: Cli, emails: Queue, words: str, bars: list[str], answer: str) -> None:
    await emails.add_many([emails.job("late", {"n": number}, delay="1h") for number in range(JOBS)])
    code, shown = await cli.in_terminal(*words.split())
    assert (code, answer in shown) == (0, True), shown
    for bar in bars:
        drawn = counts(shown, bar)
        assert (drawn[0], drawn[-1]) == (0, JOBS), shown
        assert drawn == sorted(drawn)
    assert "━" in shown
    assert "\x1b[2K" in shown.rpartition("/2500")[2]  # its line is erased


@pytest.mark.parametrize(
    ("words", "bar", "ends_with"), [("queue drain emails --yes", "removing", 0), ("doctor", "looking", 1), ("doctor --json", "looking", 1)]
)
async def test_work_whose_length_is_not_known_shows_that_it_goes_on(cli: Cli, emails: Queue, words: str, bar: str, ends_with: int) -> None:
    await emails.add("a", {})
    code, shown = await cli.in_terminal(*words.split())
    assert (code, bar in shown, "━" in shown) == (ends_with, True, True), shown


async def test_without_a_terminal_there_is_no_bar(cli: Cli, emails: Queue) -> None:
    await emails.add_many([emails.job("late", delay="1h") for _ in range(JOBS)])
    done = await cli("job", "rm", "emails", "--all", "--state", "delayed", "--yes")
    assert (done.out, done.err) == ("2,500 jobs removed\n", "")
