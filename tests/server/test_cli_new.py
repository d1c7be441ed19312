"""`toril new` as a process: the project that it writes passes its own tests and runs, and nothing is ever written over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from toril.cli.new import _FILES  # pyright: ignore[reportPrivateUsage]  # each of them must be there

pytestmark = pytest.mark.blocks_the_loop

TORIL: Final = Path(sys.executable).with_name("toril")
VENV: Final = f"VENV={Path(sys.executable).parent.parent}"
SOUND: Final = ("E", "F", "I", "UP", "B", "ASYNC", "RUF")


def run(*command: str | Path, cwd: Path, code: int = 0) -> str:
    own = {name: value for name, value in os.environ.items() if name != "REDIS_URL" and not name.startswith(("TORIL_", "PYTEST_", "MAKE"))}
    done = subprocess.run(command, cwd=cwd, env=own, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)
    assert done.returncode == code, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    told = run(TORIL, "new", "mail-service", cwd=tmp_path)
    assert "cd mail-service" in told
    return tmp_path / "mail-service"


def test_a_new_project_passes_its_own_tests(project: Path) -> None:
    assert "2 passed" in run("make", "test", VENV, cwd=project)


def test_a_new_projects_worker_runs_what_its_producer_adds(project: Path) -> None:
    own = {name: value for name, value in os.environ.items() if name != "REDIS_URL" and not name.startswith(("TORIL_", "MAKE"))}
    worker = subprocess.Popen(
        ["make", "run-worker", VENV], cwd=project, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert run("make", "greet", VENV, "NAME=Ann", cwd=project) == "Hello, Ann!\n"
    finally:
        worker.terminate()
        worker.communicate(timeout=30)
    assert run(TORIL, "worker", "mail_service.module:AppModule", "--burst", cwd=project)  # nothing is left: it ends at once
    assert "ok" in run("make", "doctor", VENV, cwd=project)


def test_what_a_new_project_holds_is_typed_formatted_and_complete(project: Path) -> None:
    held = {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}
    assert held == {name.replace("{{package}}", "mail_service") for name in _FILES.values()}
    assert not [name for name in held if "{{" in (project / name).read_text(encoding="utf-8")]
    ruff = Path(sys.executable).with_name("ruff")
    run(ruff, "check", "--isolated", "--select", ",".join(SOUND), "--line-length=140", ".", cwd=project)
    run(ruff, "format", "--isolated", "--line-length=140", "--check", ".", cwd=project)
    run(sys.executable, "-m", "mypy", "--strict", "mail_service", "tests", cwd=project)


def test_without_an_environment_make_makes_one(project: Path) -> None:
    planned = run("make", "--dry-run", "test", cwd=project)
    assert "python3 -m venv .venv" in planned
    assert "-e '.[dev]'" in planned
    assert "toril[embedded]" in planned
    assert "venv" not in run("make", "--dry-run", "test", "VENV=/elsewhere", cwd=project).replace("/elsewhere", "")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Mails", "small letters"),
        ("mail service", "small letters"),
        ("2mails", "small letters"),
        ("mails-", "small letters"),
        ("class", "a word of Python's own"),
        ("json", "hide the installed module 'json'"),
        ("redis", "hide the installed module 'redis'"),
        ("toril", "hide the installed module 'toril'"),
    ],
)
def test_a_name_that_would_not_work_is_refused(tmp_path: Path, name: str, said: str) -> None:
    assert said in run(TORIL, "new", name, cwd=tmp_path, code=2)
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "mails"
    folder.mkdir()
    run(TORIL, "new", folder, cwd=tmp_path)  # an empty one will do
    (folder / "Makefile").write_text("mine")
    assert "mails is not empty" in run(TORIL, "new", folder, cwd=tmp_path, code=2)
    assert (folder / "Makefile").read_text() == "mine"
    (tmp_path / "a-file").touch()
    assert "is a file" in run(TORIL, "new", "a-file", cwd=tmp_path, code=2)
