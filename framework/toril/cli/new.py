"""`toril new`: writes a small application that runs, with tests that pass. Its files lie beside this one, in `template/`."""

from __future__ import annotations

import importlib.util
import json
import keyword
import re
import sys
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import typer

from toril.cli import exit_codes

_FILES: Final = {
    "gitignore": ".gitignore",
    "README.md": "README.md",
    "Makefile": "Makefile",
    "pyproject.toml": "pyproject.toml",
    "init.py": "{{package}}/__init__.py",
    "main.py": "{{package}}/__main__.py",
    "jobs.py": "{{package}}/jobs.py",
    "service.py": "{{package}}/service.py",
    "processor.py": "{{package}}/processor.py",
    "module.py": "{{package}}/module.py",
    "test_greetings.py": "tests/test_greetings.py",
}
"""Where each template goes. Their names end in `.tmpl`, or a linter and git would take them for files of this project."""

_NAME: Final = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_TAKEN: Final = frozenset({"tests", "var", "toril"})


def run_new(folder: Path) -> int:
    """Write the project into this folder, whose last part is its name; the exit code."""
    name = folder.absolute().resolve().name
    problem = _wrong_with(name) or _occupied(folder)
    if problem is not None:
        typer.echo(problem, err=True)
        return exit_codes.USAGE
    package = name.replace("-", "_")
    words = {"{{name}}": name, "{{package}}": package, "{{toril}}": _toril_requirement()}
    try:
        for template, target in _FILES.items():
            file = folder / _filled(target, words)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_filled(_template(template), words), encoding="utf-8")
    except OSError as error:
        typer.echo(f"can't write {error.filename or folder}: {error.strerror}", err=True)
        return exit_codes.FAILED
    typer.echo(f"{name} is ready. Now:\n\n    cd {folder}\n    make test\n    make run-worker")
    return 0


def _wrong_with(name: str) -> str | None:
    """Why this can't be the name of a project and of its package."""
    how = "use small letters, digits and dashes, beginning with a letter, as in `toril new mail-service`"
    if not _NAME.fullmatch(name):
        return f"{name!r} can't be the name of a project: {how}"
    package = name.replace("-", "_")
    if keyword.iskeyword(package) or keyword.issoftkeyword(package):
        return f"{name!r} can't be the name of a project: it is a word of Python's own; choose another one"
    if package in _TAKEN or package in sys.stdlib_module_names or _is_installed(package):
        return f"{name!r} can't be the name of a project: its package would hide the installed module {package!r}; choose another one"
    return None


def _is_installed(package: str) -> bool:
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None  # a mere folder of this name hides nothing


def _occupied(folder: Path) -> str | None:
    """Nothing that somebody has is ever written over."""
    try:
        held = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return f"{folder} is a file: name a folder that doesn't exist yet, or an empty one"
    except OSError as error:
        return f"can't read {folder}: {error.strerror}"
    if not held:
        return None
    some = ", ".join(held[:3]) + ("…" if held[3:] else "")
    return f"{folder} is not empty (it holds {some}): name a folder that doesn't exist yet, or an empty one"


def _template(name: str) -> str:
    return files("toril.cli").joinpath("template", f"{name}.tmpl").read_text(encoding="utf-8")


def _filled(text: str, words: dict[str, str]) -> str:
    for placeholder, word in words.items():
        text = text.replace(placeholder, word)
    return text


def _toril_requirement() -> str:
    """What pip is told to install: where this Toril came from, if that was a folder, a file or a repository, and else its name."""
    told = distribution("toril").read_text("direct_url.json")
    if told is None:
        return "toril[embedded]"
    came: dict[str, Any] = json.loads(told)
    vcs = came.get("vcs_info")
    url = f"{vcs['vcs']}+{came['url']}@{vcs['commit_id']}" if vcs else came["url"]
    return f"toril[embedded] @ {url}"
