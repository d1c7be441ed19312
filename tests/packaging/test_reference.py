"""docs/reference.md: every public name is there, as the code has it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import toril
import toril.testing
from tools.reference import page
from toril import errors
from toril.queues import events

WRITTEN = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")


def test_the_page_says_what_the_code_says() -> None:
    for line, (written, made) in enumerate(zip(WRITTEN.splitlines(), page().splitlines(), strict=False), 1):
        assert written == made, f"docs/reference.md:{line} is out of date: run `make reference`"
    assert len(WRITTEN) == len(page()), "docs/reference.md is out of date: run `make reference`"


@pytest.mark.parametrize("module", [toril, toril.testing], ids=["toril", "testing"])
def test_every_public_name_has_an_entry_with_a_text(module: object) -> None:
    texts = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##)", WRITTEN, re.DOTALL | re.MULTILINE))
    names: list[str] = getattr(module, "__all__", [])
    assert names
    assert [name for name in names if not re.sub(r"```text.*?```", "", texts.get(name, ""), flags=re.DOTALL).strip()] == []


@pytest.mark.parametrize("module", [errors, events], ids=["errors", "events"])
def test_every_error_and_event_is_listed(module: object) -> None:
    names = [name for name, value in vars(module).items() if isinstance(value, type) and value.__module__ == module.__name__]  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    assert [name for name in names if not re.search(rf"^(### |- `){name}\b", WRITTEN, re.MULTILINE) and not name.startswith("_")] == []
