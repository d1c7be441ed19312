"""What operators are told to type can be typed: in docs/operating.md, and in the findings of the doctor."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from tests.scenarios.situations import SITUATIONS
from toril.cli.main import app

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
DOCTOR: Final = ROOT / "framework/toril/doctor"

HEADINGS: Final = {
    "stuck-queue": "Stuck queue",
    "no-handler": "No handler deployed",
    "poison-job": "Poison job",
    "clock-off": "Clock off",
    "evicting-server": "Evicting server",
    "forgotten-rate-limit": "Forgotten rate limit",
    "vanished-schedule": "Vanished schedule",
    "blocked-worker": "Blocked worker",
    "full-dead-letters": "Full dead-letter queue",
    "paused-and-forgotten": "Paused and forgotten",
}

_COMMAND: Final = re.compile(r"toril ((?:queue|job|dlq|schedule) [a-z]+|doctor|worker|graph|workers|new)\b([^`\"\n]*)")


def typed() -> Iterator[str]:
    """The commands in the page: after a prompt, and in the text between backticks."""
    yield from re.findall(r"^\$ (toril .*)$", PAGE, re.MULTILINE)
    yield from (command for command in re.findall(r"`(toril [^`]*)`", PAGE) if "…" not in command)


def command_of(words: list[str]) -> Any:  # noqa: ANN401 -- typer's own classes
    """The command that the first words name, which are taken away."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    return command


@pytest.mark.parametrize("line", sorted(set(typed())))
def test_the_command_line_understands_what_the_page_tells_to_type(line: str) -> None:
    words = shlex.split(line)[1:]
    command = command_of(words)
    if words:  # else it is only named
        command.make_context("toril", words)


@pytest.mark.parametrize("file", sorted(DOCTOR.glob("*.py")), ids=lambda file: file.stem)
def test_the_command_line_has_what_the_doctor_tells_to_type(file: Path) -> None:
    for name, rest in _COMMAND.findall(file.read_text(encoding="utf-8")):
        known = {option for parameter in command_of(name.split()).params for option in parameter.opts}
        named = re.split(r"[;:.] ", rest, maxsplit=1)[0]
        assert set(re.findall(r"--[a-z-]+", named)) <= known, f"toril {name}{rest}"


def test_each_situation_has_its_recipe() -> None:
    assert HEADINGS.keys() == SITUATIONS.keys()
    for situation, heading in HEADINGS.items():
        recipe = re.search(rf"^### {heading}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
        assert recipe is not None, heading
        for part in ("**Symptom**:", "$ toril doctor\n", "**Cause**:", "**Cure**:", f"`python -m tests.scenarios {situation}`"):
            assert part in recipe[1], f"{heading}: {part}"
        assert f"(#{heading.lower().replace(' ', '-')})" in PAGE, heading
