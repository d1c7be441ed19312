"""How `make audit` ends: what could not be looked up is never taken for safe."""

from __future__ import annotations

import json
import shutil
import subprocess
import venv
from typing import Any, TypeAlias

import pytest

from tools import audit

Answer: TypeAlias = dict[str, Any]

SAFE_PYTHON: Answer = {"dependencies": [{"name": "redis", "version": "8.0", "vulns": []}]}
BAD_PYTHON: Answer = {"dependencies": [{"name": "redis", "version": "8.0", "vulns": [{"id": "PYSEC-1"}]}]}
UNKNOWN_PYTHON: Answer = {"dependencies": [{"name": "redis", "skip_reason": "not found"}, *SAFE_PYTHON["dependencies"]]}
SAFE_NODE: Answer = {"vulnerabilities": {}, "metadata": {"dependencies": {"total": 60}}}
BAD_NODE: Answer = {"vulnerabilities": {"ioredis": {"severity": "high"}}, "metadata": {"dependencies": {"total": 60}}}
REFUSED: Answer = {"error": "no such endpoint"}


@pytest.mark.parametrize(
    ("python", "node", "code"),
    [
        (SAFE_PYTHON, SAFE_NODE, 0),
        (BAD_PYTHON, SAFE_NODE, 1),
        (SAFE_PYTHON, BAD_NODE, 1),
        (REFUSED, SAFE_NODE, 3),
        (SAFE_PYTHON, REFUSED, 3),
        (UNKNOWN_PYTHON, SAFE_NODE, 3),
        (REFUSED, BAD_NODE, 1),
        (BAD_PYTHON, REFUSED, 1),
    ],
)
def test_it_ends_with_1_for_what_is_known_and_with_3_for_what_is_not(
    python: Answer, node: Answer, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The advisories' answers are made up: which there are changes from day to day."""

    def run(*command: str, folder: object = None) -> subprocess.CompletedProcess[str]:
        answer = node if command[0] == "npm" else python
        return subprocess.CompletedProcess(command, 0, json.dumps(answer), "")

    def find(_: str) -> str:
        return "npm"

    def create_nothing(*_: object, **__: object) -> None: ...

    monkeypatch.setattr(audit, "_run", run)
    monkeypatch.setattr(shutil, "which", find)
    monkeypatch.setattr(venv, "create", create_nothing)
    assert audit.main() == code
    shown = capsys.readouterr().out
    assert ("could not be looked up" in shown) == (REFUSED in (python, node) or python is UNKNOWN_PYTHON)
    assert ("PYSEC-1" in shown, "ioredis" in shown) == (python is BAD_PYTHON, node is BAD_NODE)
