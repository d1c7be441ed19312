"""docs/cli.md names all commands, and none that there isn't; so do the fixes that commands tell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.tree import COMMANDS

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"worker", "new"}
"""Commands about an application rather than its queues: in the guide."""


@pytest.mark.parametrize("command", [one for one in COMMANDS if one[0] not in ELSEWHERE], ids=" ".join)
def test_each_command_has_its_place_on_the_page(command: tuple[str, ...]) -> None:
    headings = [line for line in (ROOT / "docs/cli.md").read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any(re.search(rf"[` ]{' '.join(command)}[` ]", heading) for heading in headings), f"no heading names {' '.join(command)}"


@pytest.mark.parametrize("file", ["docs/cli.md", "framework/toril/cli/explain.py", "framework/toril/cli/schedules.py"])
def test_what_is_named_exists(file: str) -> None:
    named = re.findall(r"toril ([a-z]+(?: [a-z]+)?)", (ROOT / file).read_text(encoding="utf-8"))
    known = {" ".join(command) for command in COMMANDS} | {command[0] for command in COMMANDS}
    assert named
    for words in named:
        assert words in known or words.split()[0] in known - {command[0] for command in COMMANDS if len(command) > 1}, words
