"""What `toril worker` says about a module that it can't find or import."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from toril.cli.loading import ModuleNotLoadedError, load_module
from toril.modules.application_graph import graph_of

pytestmark = pytest.mark.blocks_the_loop


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with a package, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    package = tmp_path / "zoo"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "main.py").write_text(
        "from toril import module\n@module()\nclass ZooModule: ...\n@module()\nclass CageModule: ...\nclass Lion: ...\nzebra = 1\n"
    )
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def reason(target: str) -> str:
    with pytest.raises(ModuleNotLoadedError) as caught:
        load_module(target)
    assert caught.value.target == target
    assert str(caught.value) == f"can't load {target!r}: {caught.value.reason}"
    return caught.value.reason


def test_a_module_of_the_current_folder_is_found() -> None:
    assert load_module("zoo.main:ZooModule").__name__ == "ZooModule"


@pytest.mark.parametrize("target", ["", "zoo.main", "zoo.main:", ":ZooModule"])
def test_an_incomplete_target_is_shown_how_to_write_it(target: str) -> None:
    assert reason(target) == "write it as package.file:ClassName, for example app.main:AppModule"


@pytest.mark.parametrize("path", ["zoo/main.py", "./zoo/main.py", "zoo/main", "zoo.main.py"])
def test_a_path_is_shown_as_a_name(path: str) -> None:
    assert reason(f"{path}:ZooModule") == f"{path!r} is no name that can be imported; for a file in this folder write zoo.main:ZooModule"


def test_a_module_that_is_not_there_is_told_with_what_is_near(folder: Path) -> None:
    assert reason("zoo.mian:ZooModule") == f"there is no module 'zoo.mian' here ({folder}) or installed; did you mean zoo.main?"
    assert reason("zooo.main:ZooModule") == f"there is no module 'zooo' here ({folder}) or installed; did you mean zoo?"
    assert reason("nothing_like_it:M") == f"there is no module 'nothing_like_it' here ({folder}) or installed"


def test_a_file_is_no_package(folder: Path) -> None:
    (folder / "single.py").touch()
    assert reason("single.main:M").startswith(f"there is no module 'single.main' here ({folder}) or installed")


def test_an_attribute_that_is_not_there_is_told_with_what_is_near() -> None:
    assert reason("zoo.main:ZooModul") == "zoo.main has no 'ZooModul'; did you mean ZooModule?"


@pytest.mark.parametrize("attribute", ["Lion", "zebra"])
def test_what_is_no_module_is_told_with_those_that_are(attribute: str) -> None:
    assert reason(f"zoo.main:{attribute}") == f"{attribute!r} is not decorated with @module (modules there: CageModule, ZooModule)"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\nimport nothing_of_that_name", "{file}:2 imports 'nothing_of_that_name', which is not installed"),
        ("from zoo import main\nmain.ZooModul", "{file}:2: AttributeError: module 'zoo.main' has no attribute 'ZooModul'"),
        ("def broken(:\n    pass", "{file}:1: SyntaxError: invalid syntax"),
        ("raise SystemError('no')", "{file}:1: SystemError: no"),
        ("from toril import JobOptions\nJobOptions(\n  attempts=-1)", "{file}:2: attempts=-1: write 0 or more"),
        (
            "from toril import processor\n@processor('a', concurency=2)\nclass A: ...",
            "{file}:2: @processor has no option 'concurency'; did you mean 'concurrency'?",
        ),
    ],
)
def test_what_stops_an_import_is_told_with_the_line_of_the_users_file(folder: Path, text: str, told: str) -> None:
    file = folder / "broken.py"
    file.write_text(text)
    assert reason("broken:M").startswith(told.format(file=file))


def test_a_mistake_in_a_definition_with_types_is_told_with_its_line(folder: Path) -> None:
    (folder / "typed.py").write_text("from toril import JobDef\n\nMAIL = JobDef[str, str]('x', attempts='3')\n")
    assert reason("typed:M").startswith(f"{folder / 'typed.py'}:3: ")


def test_two_files_that_import_each_other_are_told_of_forward_ref(folder: Path) -> None:
    for here, there in ("ab", "ba"):
        other = f"{there.upper()}Module"
        text = f"from toril import module\nfrom {there} import {other}\n\n@module(imports=[{other}])\nclass {here.upper()}Module: ...\n"
        (folder / f"{here}.py").write_text(text)
    told = reason("a:AModule")
    assert "circular import" in told
    assert "write `import " in told
    assert "imports=[forward_ref(lambda: " in told


def test_a_module_that_is_named_above_its_class_is_told_of_forward_ref(folder: Path) -> None:
    (folder / "above.py").write_text(
        "from toril import module\n\n@module(imports=[LowModule])\nclass TopModule: ...\n\n@module()\nclass LowModule: ...\n"
    )
    told = reason("above:TopModule")
    assert told.startswith(f"{folder / 'above.py'}:3: NameError: name 'LowModule' is not defined")
    assert told.endswith("If LowModule is a module that is defined further down, write forward_ref(lambda: LowModule)")


@pytest.mark.parametrize(("way", "of"), [("import {}", ""), ("from zoo import {}", "zoo.")])
def test_what_two_files_that_import_each_other_are_told_works(folder: Path, way: str, of: str) -> None:
    for here, there in ("ab", "ba"):
        entry = f"forward_ref(lambda: {there}.{there.upper()}Module)"
        text = (
            f"{way.format(there)}\nfrom toril import forward_ref, module\n\n@module(imports=[{entry}])\nclass {here.upper()}Module: ...\n"
        )
        (folder / of.replace(".", "/") / f"{here}.py").write_text(text)
    nodes = graph_of(load_module(f"{of}a:AModule")).nodes
    assert [node.name for node in nodes] == ["AModule", "BModule"]


@pytest.mark.parametrize(
    ("line", "near"),
    [
        ("toril.QueueModule.forRoot()", "type object 'QueueModule' has no attribute 'forRoot'; did you mean for_root?"),
        ("toril.Proces", "module 'toril' has no attribute 'Proces'; did you mean process"),
        ("from toril import Jbo", "; did you mean Job?"),
    ],
)
def test_a_name_that_is_not_there_is_told_with_what_is_near(folder: Path, line: str, near: str) -> None:
    (folder / "typo.py").write_text(f"import toril\n\n{line}\n")
    told = reason("typo:AppModule")
    assert told.startswith(f"{folder / 'typo.py'}:3: ")
    assert near in told
