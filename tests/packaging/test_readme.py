"""The README's quickstart and the guide's examples, run as a reader would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FILE = re.compile(r"<!-- file: (?P<name>\S+) -->\n```(?:python|toml)\n(?P<text>.*?)```", re.DOTALL)
EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def files_on(page: str) -> dict[str, str]:
    """The files that a page asks its reader to save, by name."""
    return dict(FILE.findall((ROOT / page).read_text(encoding="utf-8")))


def quickstart(folder: Path) -> dict[str, str]:
    """Write the quickstart's files into a folder, and give the environment to run them in."""
    files = files_on("README.md")
    assert list(files) == ["greetings.py", "send.py", "test_greetings.py", "pyproject.toml"]
    del files["pyproject.toml"]  # for a project that has tests in a folder; the quickstart does without
    for name, text in files.items():
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


def test_the_settings_for_pytest_let_a_folder_of_tests_do_without_marks(tmp_path: Path) -> None:
    environment = quickstart(tmp_path)
    (tmp_path / "pyproject.toml").write_text(files_on("README.md")["pyproject.toml"], encoding="utf-8")
    (tmp_path / "tests").mkdir()
    test = (tmp_path / "test_greetings.py").rename(tmp_path / "tests" / "test_greetings.py")
    test.write_text(test.read_text(encoding="utf-8").replace("@pytest.mark.asyncio\n", ""), encoding="utf-8")
    done = run(["pytest", "-q", "-p", "no:valkey"], tmp_path, environment)  # not `python -m`, which adds the folder by itself
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
    [
        (page, number)
        for page in (
            "docs/guide.md",
            "docs/modules.md",
            "docs/from-nestjs.md",
            "docs/interop.md",
            "docs/observability.md",
            "docs/scaling.md",
        )
        for number in range(len(examples(page)))
    ],
)
def test_an_example_of_the_documentation_runs(page: str, number: int, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(examples(page)[number], encoding="utf-8")
    environment = quickstart(tmp_path)
    done = run([sys.executable, "-W", "error", "example.py"], tmp_path, environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("page", "names", "passed"),
    [
        ("docs/from-nestjs.md", ["test_emails.py"], 2),
        ("docs/guide.md", ["test_timeout.py"], 1),
        ("docs/modules.md", ["orders.py", "invoices.py", "test_modules.py"], 3),
    ],
)
def test_the_tests_of_the_documentation_pass(page: str, names: list[str], passed: int, tmp_path: Path) -> None:
    environment = quickstart(tmp_path)
    files = files_on(page)
    assert list(files) == names
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = run([sys.executable, "-m", "pytest", "-q", "-p", "no:valkey", *names], tmp_path, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{passed} passed" in done.stdout
