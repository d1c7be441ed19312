"""Both type checkers, with the project's own settings, refuse what `tests/typing/rejected.py` says, and nothing else in it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

ROOT: Final = Path(__file__).parents[2]
FILE: Final = ROOT / "tests" / "typing" / "rejected.py"

Codes: TypeAlias = dict[int, set[str]]
"""The codes of errors, by line."""

pytestmark = pytest.mark.timeout(180)


def expected(checker: str) -> Codes:
    """What the comments of the file say: `# rejected: mypy[arg-type] pyright[reportArgumentType]`."""
    found: Codes = {}
    for number, line in enumerate(FILE.read_text().splitlines(), 1):
        comment = re.search(r"# rejected: .*\b" + checker + r"\[([\w, -]+)\]", line)
        if comment is not None:
            found[number] = set(comment[1].split(", "))
    return found


def run(*command: str) -> str:
    ran = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 1, f"{command[0]} ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}"
    return ran.stdout


def agree(checker: str, reported: Codes) -> None:
    wanted = expected(checker)
    assert len(wanted) > 30
    assert set(reported) == set(wanted)  # lines
    assert {line: codes & reported[line] for line, codes in wanted.items()} == wanted  # one mistake may well have several codes


def test_mypy_rejects_each_marked_line_and_no_other() -> None:
    reported: Codes = defaultdict(set)
    for line in run("mypy", "--output", "json", str(FILE)).splitlines():
        message: dict[str, Any] = json.loads(line)
        if message["severity"] == "error":
            assert Path(message["file"]).name == FILE.name, message
            reported[message["line"]].add(message["code"])
    agree("mypy", reported)


def test_basedpyright_rejects_each_marked_line_and_no_other(tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"  # what the project's settings exclude is left out even if it is named
    settings.write_text(json.dumps({"extends": str(ROOT / "pyproject.toml"), "include": [str(FILE)], "exclude": []}))
    reported: Codes = defaultdict(set)
    for message in json.loads(run("basedpyright", "--outputjson", "--project", str(settings)))["generalDiagnostics"]:
        reported[message["range"]["start"]["line"] + 1].add(message["rule"])
    agree("pyright", reported)


def test_every_marked_line_is_marked_for_both() -> None:
    assert set(expected("mypy")) == set(expected("pyright"))
