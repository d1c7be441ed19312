"""What comes from the server, or from a child process, is data: nothing in the framework unpickles or evaluates it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

import toril

FRAMEWORK: Final = Path(toril.__file__).parent
FORBIDDEN_MODULES: Final = frozenset(
    {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "yaml", "jsonpickle", "multiprocessing"}
)
FORBIDDEN_CALLS: Final = frozenset({"eval", "exec", "compile", "__import__"})

IMPORTS_BY_NAME: Final = {
    "__init__.py",  # its own list of names, when one of them is first asked for
    "worker/programs.py",  # what a child process runs: named by its worker, by place, never by a job
    "cli/loading.py",  # the module that the command line names
}
COMPILES: Final = {"di/plan.py"}
"""Compiles how a scope is built, from names that it makes up itself at start: no text of anybody else gets in."""


def _names(path: Path) -> set[str]:
    """What a file imports and calls by a bare name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=aliases):
                names |= {alias.name.split(".")[0] for alias in aliases}
            case ast.ImportFrom(module=str(module)):
                names.add(module.split(".")[0])
            case ast.Call(func=ast.Name(id=name)):
                names.add(name)
            case _:
                pass
    return names


@pytest.mark.parametrize("path", sorted(FRAMEWORK.rglob("*.py")), ids=lambda path: str(path.relative_to(FRAMEWORK)))
def test_no_file_unpickles_or_evaluates(path: Path) -> None:
    names = _names(path)
    assert not names & FORBIDDEN_MODULES
    assert not names & FORBIDDEN_CALLS or str(path.relative_to(FRAMEWORK)) in COMPILES


def test_modules_are_imported_by_name_only_where_a_program_names_them() -> None:
    found = {str(path.relative_to(FRAMEWORK)) for path in FRAMEWORK.rglob("*.py") if "import_module" in path.read_text()}
    assert found <= IMPORTS_BY_NAME
