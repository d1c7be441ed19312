"""What is stored of the error that ended an attempt: its reason, and its traceback as an operator wants it."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Final

from toril import calls
from toril.wire.codec import shortened

_OURS: Final = f"{Path(__file__).parents[1]}{os.sep}"


def reason_of(error: BaseException) -> str:
    """The reason that is stored: never empty, since Node tools take a job for failed by it."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 -- a user's __str__
        text = ""
    return shortened(text) or type(error).__name__


def stack_of(error: BaseException) -> str:
    """The traceback, from where the library called the user's code: the way there is the same for all jobs, and fills a screen."""
    told = traceback.TracebackException.from_exception(error)
    parts = [told]
    while parts:
        part = parts.pop()
        parts += [other for other in (part.__cause__, part.__context__, *(part.exceptions or ())) if other is not None]
        ours = next((n for n, frame in enumerate(part.stack) if not frame.filename.startswith(_OURS)), 0)  # 0: it is all ours
        part.stack[:] = [frame for frame in part.stack[ours:] if frame.filename != calls.__file__]  # what only passes calls on
    return shortened("".join(told.format()))
