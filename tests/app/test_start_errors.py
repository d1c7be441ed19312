"""What a person sees who has made a mistake in settings, arguments or modules: one clear text, no traceback, no secret."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Final

import pytest

from tests.app.processes import ROOT, Runner, Running


def text_of(failed: Running) -> str:
    """The output without its line breaks; what no output may hold is checked here."""
    assert "Traceback" not in failed.output
    assert "s3cret" not in failed.output
    return re.sub(r"\s+", " ", failed.output)


# ── settings and arguments ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "variables", "told"),
    [
        ([], {"REDIS_URL": "http://app:s3cret@127.0.0.1"}, "unknown scheme 'http'"),
        ([], {"SMTP_URL": "http://user:s3cret@mail"}, "SMTP_URL: 'http://user:***@mail': it must begin with smtp:// or smtps://"),
        ([], {"TORIL_PREFX": "x"}, "TORIL_PREFX: no such setting; did you mean TORIL_PREFIX?"),
        ([], {"TORIL_ENV": "prodction"}, "did you mean 'production'?"),
        (["--shutdown-timeout", "25"], {}, 'write "25s" or "25ms"'),
        (["--connect-timeout", "-1s"], {}, "connect_timeout"),
        (["--queues", "emials"], {}, "did you mean 'emails'?"),
    ],
)
def test_a_wrong_setting_is_named_with_its_remedy(run: Runner, arguments: list[str], variables: dict[str, str], told: str) -> None:
    run.environment |= variables
    worker = run.worker(*arguments)
    assert worker.end() == 2
    assert told in text_of(worker)


def test_an_unknown_key_is_named_with_its_file(run: Runner, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(ROOT / "config", project / "config")
    (project / "pyproject.toml").touch()  # makes it a project
    file = project / "config" / "development.toml"
    file.write_text(file.read_text().replace("[mailbox]\n", "[mailbox]\nfoldr = 'x'\n"))
    run.environment["PYTHONPATH"] = str(ROOT)
    worker = run.worker(folder=project)
    assert worker.end() == 2
    assert "config/development.toml: mailbox.foldr: unknown key; did you mean 'folder'?" in text_of(worker)


# ── the module ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("app.main", "for example app.main:AppModule"),
        ("app.mian:AppModule", "there is no module 'app.mian' here"),
        ("app.main:AppModul", "did you mean AppModule?"),
        ("app.settings:AppSettings", "'AppSettings' is not decorated with @module"),
    ],
)
def test_a_wrong_name_for_the_module_is_explained(run: Runner, module: str, told: str) -> None:
    worker = run.worker(module=module)
    assert worker.end() == 2
    assert told in text_of(worker)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("import nothing_of_this_name", "broken.py:1 imports 'nothing_of_this_name', which is not installed"),
        ("from toril import modul", "broken.py:1: ImportError: cannot import name 'modul'"),
        ("x = (", "broken.py:1: SyntaxError: '(' was never closed"),
        ("import toril; toril.process('a', timeout=30)", 'broken.py:1: timeout=30: a bare number has no unit: write "30s" or "30ms"'),
        ("import toril; toril.JobOptions(delay='-1s')", "broken.py:1: delay='-1s'"),
    ],
)
def test_a_file_that_can_not_be_imported_is_named_with_the_line(run: Runner, tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "broken.py").write_text(line + os.linesep)
    worker = run.worker(module="broken:AppModule", folder=tmp_path)
    assert worker.end() == 2
    assert told in text_of(worker)


BROKEN: Final = """
from typing import Annotated
from toril import InjectQueue, Job, Queue, QueueModule, module, process, processor

class Mailer: ...

@processor("emials", concurrency=2)
class First:
    def __init__(self, mailer: Mailer) -> None: ...
    @process("a")
    async def run(self, job: Job) -> None: ...

@processor("emails", concurrency=2)
class Second:
    def __init__(self, letters: Annotated[Queue, InjectQueue("letters")]) -> None: ...
    @process("a")
    async def run(self, job: Job) -> None: ...

@processor("emails", concurrency=3)
class Third:
    @process("a")
    async def run(self, job: Job) -> None: ...

@module(imports=[QueueModule.register_queue("emails")], providers=[First, Second, Third])
class AppModule: ...
"""


def test_all_that_is_wrong_in_the_modules_is_told_at_once(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    worker = run.worker(module="broken:AppModule", folder=tmp_path)
    assert worker.end() == 2
    told = text_of(worker)
    assert "5 problems in the module graph" in told
    assert "Mailer" in told
    assert "First (broken.py:7 in AppModule) processes queue 'emials': queue 'emials' is not registered; did you mean 'emails'?" in told
    assert "queue 'letters' is not registered: add QueueModule.register_queue('letters') to the imports." in told
    assert "queue 'emails' has two handlers for jobs named 'a': keep one of them." in told
    assert "Second.run (broken.py:16) in AppModule" in told
    assert "contradict each other in concurrency" in told
