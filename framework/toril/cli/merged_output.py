"""Writes what several processes say to one stream, each line whole."""

from __future__ import annotations

from contextlib import suppress
from typing import BinaryIO, Final

LONGEST_LINE: Final = 1 << 20
"""Bytes that are held back until their line ends."""


class MergedOutput:
    """What one process writes to one of its streams, on its way to ours."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._begun = bytearray()

    def write(self, data: bytes) -> None:
        """Pass on the lines that are whole now, in one piece: a traceback that came at once isn't torn by others' lines."""
        self._begun += data
        end = self._begun.rfind(b"\n") + 1
        if not end and len(self._begun) > LONGEST_LINE:
            self.end()
        elif end:
            whole = bytes(self._begun[:end])
            del self._begun[:end]
            self._pass_on(whole)

    def end(self) -> None:
        """Pass on the line that was begun."""
        if self._begun:
            whole = bytes(self._begun) + b"\n"
            self._begun.clear()
            self._pass_on(whole)

    def _pass_on(self, whole: bytes) -> None:
        with suppress(OSError):  # nobody reads any more, or the disk is full: as in a single process, lines are lost, and work goes on
            self._stream.write(whole)
            self._stream.flush()
