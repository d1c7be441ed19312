"""asyncio's debug mode and Python's byte code, as quick as a suite of thousands of tests wants them. Imported before anything else.

Debug mode notes for each future where it was made: the whole stack, pytest's fifty frames with it, and for each file in it a look at
the file's date. That was a third of the time of an asynchronous test (measured). Here such a stack has ten frames, as many as asyncio
itself keeps of a callback's, and a file's date is looked at once in a test.
"""

from __future__ import annotations

import linecache
import os
import sys
import traceback
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Final

_BYTE_CODE: Final = Path(__file__).parents[1] / ".pytest_cache" / "bytecode"

_whole_stack, _look_at_dates = traceback.walk_stack, linecache.checkcache

looked_at: Final = set[str | None]()
"""Files whose dates are known; `tests/conftest.py` empties it before each test."""


def _walk_stack(f: FrameType | None) -> Iterator[tuple[FrameType, int]]:
    """What `traceback.extract_stack()` goes through: of the stack right here (a future's) the ten innermost frames."""
    stack = _whole_stack(f)
    return islice(stack, 10) if f is not None and f is sys._getframe(2) else stack  # pyright: ignore[reportPrivateUsage]


def _checkcache(filename: str | None = None) -> None:
    if filename not in looked_at:
        looked_at.add(filename)
        _look_at_dates(filename)


def hurry() -> None:
    """For this process; what concerns byte code for those that it starts, too: hundreds, and each would compile all modules anew where
    the environment wants none written."""
    traceback.walk_stack, linecache.checkcache = _walk_stack, _checkcache
    if sys.dont_write_bytecode:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ.setdefault("PYTHONPYCACHEPREFIX", str(_BYTE_CODE))
        sys.dont_write_bytecode, sys.pycache_prefix = False, os.environ["PYTHONPYCACHEPREFIX"]
