"""Standard output and error of a process whose output another one reads: if that is gone, what a job prints must not fail the job."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _LastingFile(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except ConnectionError:  # a broken pipe: nobody reads it any more
            return memoryview(data).nbytes


def let_output_last() -> None:
    """From now on, what this process writes there goes line by line, and nowhere when its reader is gone."""
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)


def _lasting(stream: TextIO) -> TextIO:
    raw = _LastingFile(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=stream.encoding, errors=stream.errors, line_buffering=True)
