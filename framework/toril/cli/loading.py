"""Finds what a command line names: `app.main:AppModule`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from toril.di import is_module, near
from toril.errors import ConfigurationError


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
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        loaded = importlib.import_module(path)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if path == missing or path.startswith(f"{missing}."):
            raise ModuleNotLoadedError(target, f"there is no module {missing!r} here ({here}) or installed") from error
        raise ModuleNotLoadedError(target, f"it imports {missing!r}, which is not installed") from error
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
