"""The README's quickstart and the guide's examples, run as a reader would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FILE = re.compile(r"<!-- file: (?P<name>\S+) -->\n```python\n(?P<text>.*?)```", re.DOTALL)
EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def quickstart(folder: Path) -> dict[str, str]:
    """Write the quickstart's files into a folder, and give the environment to run them in."""
    files = FILE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert [name for name, _ in files] == ["greetings.py", "send.py", "test_greetings.py"]
    for name, text in files:
        (folder / name).write_text(text, encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TORIL_", "PYTEST_")) and key != "REDIS_URL"}
    return environment | {"TORIL_EMBEDDED_DIR": str(folder / "valkey"), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def run(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=50)


def test_the_quickstarts_test_passes_in_an_empty_folder(tmp_path: Path) -> None:
    environment = quickstart(tmp_path)
    done = run([sys.executable, "-m", "pytest", "-q", "-p", "no:valkey"], tmp_path, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_the_quickstarts_worker_answers_its_producer(tmp_path: Path) -> None:
    environment = quickstart(tmp_path)
    with subprocess.Popen(
        ["toril", "worker", "greetings:GreetingModule"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as worker:
        try:
            assert worker.stderr is not None
            assert any(" ready" in line or "ready " in line for line in worker.stderr), "the worker ended before it was ready"
            done = run([sys.executable, "send.py"], tmp_path, environment)
        finally:
            worker.terminate()
        assert worker.wait(timeout=30) == 0
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Hello, Ann!\n"


def examples(page: str) -> list[str]:
    """The programs on a page of the documentation, without its files of tests."""
    return EXAMPLE.findall(FILE.sub("", (ROOT / page).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("page", "number"),
    [(page, number) for page in ("docs/guide.md", "docs/from-nestjs.md", "docs/interop.md") for number in range(len(examples(page)))],
)
def test_an_example_of_the_documentation_runs(page: str, number: int, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(examples(page)[number], encoding="utf-8")
    environment = quickstart(tmp_path)
    done = run([sys.executable, "-W", "error", "example.py"], tmp_path, environment)
    assert done.returncode == 0, done.stderr


def test_the_tests_that_are_shown_to_nestjs_users_pass(tmp_path: Path) -> None:
    environment = quickstart(tmp_path)
    files = FILE.findall((ROOT / "docs/from-nestjs.md").read_text(encoding="utf-8"))
    assert [name for name, _ in files] == ["test_emails.py"]
    for name, text in files:
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = run([sys.executable, "-m", "pytest", "-q", "-p", "no:valkey", "test_emails.py"], tmp_path, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
