"""Reads the .lua files, puts their includes in, and knows their digests.

A script is one file under `lua/`. A line `-- include NAME` stands for `lua/include/NAME.lua`. The first line is `#!lua`, with
flags; the header says what KEYS and ARGV are, and the number of KEYS is counted there.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Final

_INCLUDE: Final = re.compile(r"^-- include (\w+)$", re.MULTILINE)
_KEY: Final = re.compile(r"^KEYS\[(\d+)\]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """One script, ready to send."""

    name: str
    text: str = field(repr=False)
    sha1: str
    key_count: int
    """How many KEYS its header declares."""


@cache
def load(name: str) -> Script:
    """The script `lua/{name}.lua`, its includes put in.

    Raises:
        FileNotFoundError: there is none; an installation without its .lua files is broken.
    """
    folder = resources.files("toril.wire") / "lua"
    source = (folder / f"{name}.lua").read_text(encoding="utf-8")
    shebang, _, body = source.partition("\n")
    included: set[str] = set()

    def include(match: re.Match[str]) -> str:
        part = match[1]
        if part in included:  # each include once, however many of the others ask for it
            return ""
        included.add(part)
        return _INCLUDE.sub(include, (folder / "include" / f"{part}.lua").read_text(encoding="utf-8"))

    text = f"{shebang}\n{_INCLUDE.sub(include, body)}"
    header = source.split("]]", 1)[0]
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Script(name, text, digest, len(set(_KEY.findall(header))))


def name_of(sha1: str) -> str:
    """The name of our script with this digest."""
    return _NAMES_BY_DIGEST.get(sha1, "a script")


def _names() -> list[str]:
    folder = resources.files("toril.wire") / "lua"
    return [entry.name.removesuffix(".lua") for entry in folder.iterdir() if entry.name.endswith(".lua")]


_NAMES_BY_DIGEST: Final = {load(_name).sha1: _name for _name in _names()}  # now: reading a file later would block the event loop
