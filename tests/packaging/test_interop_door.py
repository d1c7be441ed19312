"""`make interop` where Node is missing or too old: it says so, and compares what needs no Node."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
TOOLS: Final = ("sh", "bash", "make", "env", "command", "touch", "awk", "rm")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of programs, without Node."""
    for name in TOOLS:
        if (found := shutil.which(name)) is not None:
            (tmp_path / name).symlink_to(found)
    return tmp_path


def _make_interop(machine: Path) -> subprocess.CompletedProcess[str]:
    command = ["make", "interop", f"PYTHON={sys.executable}", f"VENV={sys.prefix}", "TEST_PROCESSES=0", "ARGS=-k one_pauses"]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": str(machine)}, capture_output=True, text=True, timeout=50)


def test_without_node_a_line_says_that_nothing_ran_side_by_side(machine: Path) -> None:
    ended = _make_interop(machine)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "needs Node 20 and the npm packages of tests/interop: make interop" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "skipped: Node 20 and npm are not installed, so Toril and BullMQ did not run side by side"


def test_a_node_that_is_too_old_counts_as_none(machine: Path) -> None:
    for name, status in (("node", 1), ("npm", 0)):  # an old one ends the question for its version with 1
        program = machine / name
        program.write_text(f"#!/bin/sh\nexit {status}\n")
        program.chmod(0o755)
    ended = _make_interop(machine)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1].startswith("skipped: Node 20 and npm are not installed")
