"""The wheel as a user gets it: what it holds, and that a job runs in an environment that has nothing but it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Final

import pytest

PROJECT: Final = Path(__file__).parents[2]
PACKAGE: Final = PROJECT / "framework" / "toril"

ONE_JOB: Final = """
    import asyncio

    from toril import Job, Queue, Worker


    async def double(job: Job[int, int]) -> int:
        return 2 * job.data


    async def main() -> None:
        async with Queue("numbers") as numbers, Worker(numbers, double):
            job = await numbers.add("double", 21)
            print("result:", await job.result(timeout="20s"))


    asyncio.run(main())
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once a test process, out of the source distribution, with the build tools of the environment."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, PROJECT)
    (built,) = folder.glob("*.whl")
    return built


def run(*command: str | Path, cwd: Path | None = None) -> str:
    # Without our settings it must use the embedded server.
    environment = {name: value for name, value in os.environ.items() if name != "REDIS_URL" and not name.startswith(("TORIL_", "PYTEST_"))}
    done = subprocess.run(command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = {
        path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped == sources
    assert "toril/py.typed" in shipped
    assert any(name.endswith(".lua") for name in shipped)


def test_the_wheel_carries_licence_command_and_extras_but_no_address_of_a_registry(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        texts = {name.rpartition(".dist-info/")[2]: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    assert "Toril contributors" in texts["licenses/LICENSE"]
    assert "toril = toril.cli.main:main" in texts["entry_points.txt"]
    extras = {line.removeprefix("Provides-Extra: ") for line in texts["METADATA"].splitlines() if line.startswith("Provides-Extra: ")}
    assert extras == {"embedded", "speed", "dashboard", "metrics", "otel", "reload", "dev", "all"}
    assert "://pypi" not in texts["METADATA"]


@pytest.mark.timeout(300)
def test_one_job_runs_in_an_environment_that_holds_only_the_wheel(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    run(sys.executable, "-m", "venv", environment)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "-c", PROJECT / "constraints.txt", f"{wheel}[embedded]")
    (tmp_path / "one_job.py").write_text(textwrap.dedent(ONE_JOB))
    assert run(python, "-I", "-W", "error", "one_job.py", cwd=tmp_path) == "result: 42\n"
    assert (tmp_path / "var" / "valkey").is_dir()  # there is no project here
