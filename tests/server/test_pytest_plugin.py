"""The pytest plugin as other projects use it: in a session of its own, with pytest-asyncio, with anyio, or without either."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support import ask

APPLICATION: Final = """
from typing import Annotated
from toril import InjectQueue, Job, JobLogger, Queue, QueueModule, QueueOptions, fixed, module, process, processor

class Adder:
    def __init__(self, sums: Annotated[Queue, InjectQueue("sums")]) -> None:
        self.sums = sums

@processor("sums")
class Sums:
    def __init__(self, log: JobLogger) -> None:
        self.log = log

    @process("add")
    async def add(self, job: Job) -> int:
        if job.data["late"] and job.attempts_made == 0:
            raise ValueError("not yet")
        return sum(job.data["numbers"])

@module(imports=[QueueModule.register_queue("sums")], providers=[Adder, Sums], exports=[Adder])
class SumsModule: ...
"""

BODY: Final = """
    t = await Test.create_testing_module(imports=[SumsModule]).compile()
    async with t:
        job = await t.get(Adder).sums.add("add", {"numbers": [1, 2], "late": True}, attempts=2, backoff=fixed("1h"))
        await t.drain("sums")
        await eventually(lambda: job.refresh())
        assert (await job.get_state(), t.queue("sums").prefix) == ("delayed", toril_prefix)
        await t.advance("1h")
        await t.drain("sums")
        assert await job.result(timeout="5s") == 3
        late = {"numbers": [3, 4], "late": True}
        assert await t.run_job("add", late, attempts=2, backoff=fixed("1h")) == 7
        async with t.run_workers():
            assert await t.run_job("add", late | {"late": False}) == 7
        t.assert_enqueued("add", {"numbers": [3, 4]}, times=2)
        print("prefix:", toril_prefix)
"""

HEAD: Final = "import pytest\nfrom sums import *\nfrom toril import fixed\nfrom toril.testing import Test, eventually\n\n"

WITH_ASYNCIO: Final = f"{HEAD}@pytest.mark.asyncio\nasync def test_sums(toril_prefix):{BODY}"

WITH_ANYIO: Final = f"""{HEAD}
@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def module():
    async with await Test.create_testing_module(imports=[SumsModule]).compile() as t:
        yield t

@pytest.mark.anyio
async def test_in_a_fixture(module, toril_prefix):
    assert module.queue("sums").prefix == toril_prefix

@pytest.mark.anyio
async def test_sums(toril_prefix):{BODY}
"""

WITH_NEITHER: Final = (
    f"{HEAD}import asyncio\n\ndef test_sums(toril_prefix):\n    asyncio.run(sums(toril_prefix))\n\nasync def sums(toril_prefix):{BODY}"
)


def run(folder: Path, text: str, *options: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
    (folder / "sums.py").write_text(APPLICATION)
    (folder / "test_sums.py").write_text(text)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TORIL_", "PYTEST_")) and key != "REDIS_URL"}
    if url is not None:
        environment["TORIL_TEST_REDIS_URL"] = url
    if "no:asyncio" not in options:
        options = (*options, "-o", "asyncio_default_fixture_loop_scope=function")  # it warns of a default that will change
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-W", "error", "-p", "no:cacheprovider", "-p", "no:valkey", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=50)


@pytest.mark.parametrize(
    ("text", "options", "count"),
    [
        (WITH_ASYNCIO, ["-p", "no:anyio"], 1),
        (WITH_ANYIO, ["-p", "no:asyncio"], 2),
        (WITH_ANYIO, [], 2),  # both are installed, and the marks tell
        (WITH_NEITHER, ["-p", "no:anyio", "-p", "no:asyncio"], 1),
    ],
    ids=["asyncio", "anyio", "both", "neither"],
)
def test_a_testing_module_works_with_it_and_leaves_no_key(
    tmp_path: Path, toril_server_url: str, text: str, options: list[str], count: int
) -> None:
    done = run(tmp_path, text, *options, url=toril_server_url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} passed" in done.stdout
    prefix = done.stdout.split("prefix: ")[1].split()[0].rstrip(".")
    assert ask(toril_server_url, "KEYS", f"*{prefix}*") == []


LEAKS: Final = f"""{HEAD}
import asyncio

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def t():
    async with await Test.create_testing_module(imports=[SumsModule]).compile() as t:
        yield t

async def add(t):
    assert await t.run_job("add", {{"numbers": [1, 2], "late": False}}) == 3

@pytest.mark.anyio
@pytest.mark.usefixtures("toril_leak_check")
class TestLeaks:
    async def test_clean(self, toril_prefix):
        async with await Test.create_testing_module(imports=[SumsModule]).compile() as t:
            await add(t)

    @pytest.mark.parametrize("number", [1, 2])
    async def test_clean_with_a_module_of_a_fixture(self, t, number):
        await add(t)

    async def test_leaves_a_task(self):
        self.task = asyncio.create_task(asyncio.sleep(10), name="forgotten")

    def test_leaves_a_thread(self):
        import threading
        threading.Thread(target=threading.Event().wait, name="toril-forgotten", daemon=True).start()
"""


@pytest.mark.parametrize("options", [["-p", "no:asyncio"], ["-p", "no:anyio", "-n", "2"]], ids=["anyio", "asyncio and xdist"])
def test_the_leak_check_tells_of_tasks_and_threads_and_of_nothing_else(tmp_path: Path, toril_server_url: str, options: list[str]) -> None:
    text = LEAKS if "no:asyncio" in options else LEAKS.replace("pytest.mark.anyio", "pytest.mark.asyncio(loop_scope='function')")
    if "no:anyio" in options:
        text = text.replace("@pytest.fixture\nasync def t", "import pytest_asyncio\n@pytest_asyncio.fixture\nasync def t")
        text = text.replace("    def test_leaves_a_thread", "    async def test_leaves_a_thread")
    done = run(tmp_path, text, *options, url=toril_server_url)
    assert "4 passed, 1 failed, 1 error" in done.stdout.replace("1 failed, 4 passed", "4 passed, 1 failed"), done.stdout + done.stderr
    assert "the task 'forgotten', which runs sleep" in done.stdout
    assert "the thread 'toril-forgotten'" in done.stdout


@pytest.mark.parametrize("url", ["redis://:secret@127.0.0.1:1", "redis://:secret@127.0.0.1:port"])
def test_a_server_given_that_is_of_no_use_is_told_with_its_variable(tmp_path: Path, url: str) -> None:
    done = run(tmp_path, WITH_ASYNCIO, "-p", "no:anyio", "--tb=line", url=url)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "TORIL_TEST_REDIS_URL names a server that can't be used, " in done.stdout
    assert "Is it running, and is REDIS_URL right" not in done.stdout
    assert "secret" not in done.stdout


def test_without_a_server_given_the_session_starts_one_and_stops_it(tmp_path: Path) -> None:
    base = tmp_path / "base"
    done = run(tmp_path, WITH_ASYNCIO, "-p", "no:anyio", f"--basetemp={base}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (base / "valkey").is_dir()


def test_a_fixture_of_a_wider_scope_is_told_how_to_name_a_server(tmp_path: Path) -> None:
    text = f"""{HEAD}
import asyncio

@pytest.fixture(scope="module")
def wide():
    return asyncio.run(Test.create_testing_module(imports=[SumsModule]).compile())

def test_it(wide): ...
"""
    done = run(tmp_path, text, "-p", "no:anyio")
    assert done.returncode == 1
    assert "in a fixture of a wider scope, name one with .use_server(url, prefix)" in done.stdout
