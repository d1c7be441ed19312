"""Where in the source something was defined, which names it could see there, and what decorators noted about it."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar, cast

from toril.calls import BETWEEN

MetaT = TypeVar("MetaT")

_METADATA = "__toril_metadata__"


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a source file. `str()` shows the path relative to the current folder where that is shorter."""

    file: str
    line: int

    def __str__(self) -> str:
        if not self.file:
            return ""
        try:
            shown = self.file.removeprefix(f"{Path.cwd()}{os.sep}")
        except OSError:  # the current folder has been removed
            shown = self.file
        return f"{shown}:{self.line}" if self.line else shown


NOWHERE = Place("", 0)


@dataclass(frozen=True, slots=True)
class Namespace:
    """Names that a function's frame held when a decorator ran in it: what local classes need to read their annotations.

    It is a snapshot: names bound after the decorator ran are not in it.
    """

    module: str
    function: str
    names: Mapping[str, Any] = field(repr=False)

    def encloses(self, module: str, qualname: str) -> bool:
        """Whether something of this qualified name was defined in the very function that the names come from."""
        return module == self.module and qualname.startswith(f"{self.function}.<locals>.")


def caller_place(depth: int) -> Place:
    """The line that called the function `depth` frames up (1: the caller of our caller)."""
    frame = _frame(depth + 1)
    return Place(frame.f_code.co_filename, frame.f_lineno)


def caller_namespace(depth: int) -> Namespace | None:
    """The local names of the function `depth` frames up, or None at a file's top level, where globals are enough."""
    frame = _frame(depth + 1)
    if frame.f_locals is frame.f_globals:
        return None
    name = frame.f_globals.get("__name__", "")
    return Namespace(str(name), frame.f_code.co_qualname, dict(frame.f_locals))


def _frame(depth: int) -> FrameType:
    """The frame `depth` frames above our caller; one that only explains calls, or is of `Generic[…](…)`, gives way to the one above it."""
    frame = sys._getframe(depth + 1)  # pyright: ignore[reportPrivateUsage]  # inspect.stack() reads source files, which is slow
    while (frame.f_code in BETWEEN or frame.f_code.co_filename == typing.__file__) and frame.f_back is not None:
        frame = frame.f_back
    return frame


def place_of(target: object) -> Place:
    """Where a class or callable is defined; `NOWHERE` if that can't be told."""
    target = undecorated(target)
    if isinstance(target, type):
        return _place_of_class(target)
    code = getattr(target, "__code__", None)
    return _place_of_class(type(target)) if code is None else Place(code.co_filename, code.co_firstlineno)


def undecorated(target: object) -> object:
    """The function or class inside `functools.partial` and `functools.wraps`."""
    while True:
        if isinstance(target, functools.partial):
            target = cast("functools.partial[object]", target).func
        elif not isinstance(target, type) and callable(target) and hasattr(target, "__wrapped__"):
            target = inspect.unwrap(target)
        else:
            return target


def attach(cls: type, metadata: object) -> None:
    """Note `metadata` on exactly this class, under its own type; a second one of that type replaces the first."""
    own = cls.__dict__.get(_METADATA)
    if own is None:
        own = {}
        setattr(cls, _METADATA, own)
    own[type(metadata)] = metadata


def own_metadata(cls: object, kind: type[MetaT]) -> MetaT | None:
    """What `attach` noted on the class itself. Metadata is never inherited: a subclass says again what it is."""
    if not isinstance(cls, type):
        return None
    found = cls.__dict__.get(_METADATA, {}).get(kind)
    return found if isinstance(found, kind) else None


def _place_of_class(cls: type) -> Place:
    first_line: int | None = cls.__dict__.get("__firstlineno__")  # Python 3.13 and newer
    try:
        file = inspect.getsourcefile(cls) or inspect.getfile(cls)
        return Place(file, inspect.getsourcelines(cls)[1] if first_line is None else first_line)
    except (OSError, TypeError):  # built in, or made at run time
        init = cls.__dict__.get("__init__")
        code = getattr(init, "__code__", None)
        return NOWHERE if code is None else Place(code.co_filename, code.co_firstlineno)
