"""Finds what a command line names: `app.main:AppModule`."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
import traceback
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import toril
from toril.di import is_module
from toril.errors import ConfigurationError, TorilError
from toril.spelling import near

_NOBODYS: Final = (str(Path(toril.__file__).parent), typing.__file__, "<")
"""How the files begin in which no user made a mistake: ours, what calls `JobDef[Mail, str](…)`, and what is made up, as of a dataclass."""

_NOT_IN_FILE: Final = re.compile(r"cannot import name '(?P<name>\w+)' from '(?P<file>[\w.]+)'")


class ModuleNotLoadedError(ConfigurationError):
    """The command line names a module that can't be loaded."""

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(target, reason)
        self.target, self.reason = target, reason

    def __str__(self) -> str:
        return f"can't load {self.target!r}: {self.reason}"


def load_module(target: str) -> type:
    """The `@module` class that `package.file:Class` names; packages are looked for in the current folder first.

    Raises:
        ModuleNotLoadedError: with what is wrong, and what is near.
    """
    path, colon, attribute = target.partition(":")
    if not colon or not path or not attribute:
        raise ModuleNotLoadedError(target, "write it as package.file:ClassName, for example app.main:AppModule")
    if path.endswith(".py") or not all(part.isidentifier() for part in path.split(".")):
        dotted = ".".join(Path(path).with_suffix("").parts)
        raise ModuleNotLoadedError(
            target, f"{path!r} is no name that can be imported; for a file in this folder write {dotted}:{attribute}"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        loaded = importlib.import_module(path)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if path == missing or path.startswith(f"{missing}."):
            reason = f"there is no module {missing!r} here ({here}) or installed{_hint(missing, _modules_beside(missing))}"
            raise ModuleNotLoadedError(target, reason) from error
        raise ModuleNotLoadedError(target, f"{_place_of(error)} imports {missing!r}, which is not installed") from error
    except Exception as error:  # whatever a user's file does when it is imported
        raise ModuleNotLoadedError(target, f"{_place_of(error)}: {_words_of(error)}{_circle_hint(error) or _name_hint(error)}") from error
    found: object = getattr(loaded, attribute, None)
    if found is None:
        raise ModuleNotLoadedError(target, f"{path} has no {attribute!r}{_hint(attribute, dir(loaded))}")
    if not isinstance(found, type) or not is_module(found):
        modules = [name for name in dir(loaded) if is_module(getattr(loaded, name))]
        what = "modules there: " + ", ".join(modules) if modules else "no class there is one"
        raise ModuleNotLoadedError(target, f"{attribute!r} is not decorated with @module ({what})")
    return found


def _hint(name: str, known: Sequence[str]) -> str:
    close = near(name, [other for other in known if not other.startswith("_")])
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _modules_beside(path: str) -> list[str]:
    """The modules that lie where this one was looked for."""
    package, _, _ = path.rpartition(".")
    folders = list(getattr(sys.modules[package], "__path__", ())) if package else [str(Path.cwd())]
    prefix = f"{package}." if package else ""
    return [prefix + found.name for found in pkgutil.iter_modules(folders)]


def _place_of(error: Exception) -> str:
    """The line of the user's code that an import stopped at; a decorator's mistake is made there, wherever it was found out."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    users = [frame for frame in frames if not frame.filename.startswith(_NOBODYS)]
    return f"{users[-1].filename}:{users[-1].lineno}" if users else "its import"


def _circle_hint(error: Exception) -> str:
    """What helps when two files of modules import each other, or a module is named above its class."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_NOBODYS)]
    is_top_level = bool(frames) and frames[-1].name in ("<module>", getattr(error, "name", None))
    if isinstance(error, ImportError) and "circular import" in str(error):
        package, _, file = (error.name or "b").rpartition(".")
        name = getattr(error, "name_from", None) or "BModule"  # Python 3.12 and newer tell it
        how = f"from {package} import {file}" if package else f"import {file}"
        return (
            f". Two files import each other: write `{how}` instead of importing the name, "
            f"and, if that is a module, imports=[forward_ref(lambda: {file}.{name})]"
        )
    if isinstance(error, NameError) and is_top_level and (error.name or "").endswith("Module"):
        return f". If {error.name} is a module that is defined further down, write forward_ref(lambda: {error.name})"
    return ""


def _name_hint(error: Exception) -> str:
    """What is near to a name that an object or a file doesn't have: `forRoot`, say."""
    if isinstance(error, AttributeError) and error.name:
        return _hint(error.name, dir(error.obj))
    missing = _NOT_IN_FILE.match(str(error)) if isinstance(error, ImportError) else None
    return _hint(missing["name"], dir(sys.modules.get(missing["file"]))) if missing else ""


def _words_of(error: Exception) -> str:
    """Our own errors say all there is to say; of others the name matters, too."""
    return str(error) if isinstance(error, TorilError) else f"{type(error).__name__}: {error}"
