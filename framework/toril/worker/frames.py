"""What a worker and its child processes tell each other: JSON, each message with its length before it, over two pipes.

    worker ─► child    start, then for each job: job, and at the end: stop
    child ─► worker    ready | broken, then for each job: progress*, done | failed

Text that is JSON already (data, results) travels inside as text, and is never read in between.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, Final, TypeAlias

from toril.wire.codec import JobRecord, from_json, to_json

Message: TypeAlias = Mapping[str, Any]

_LENGTH: Final = struct.Struct(">I")
_FIELDS: Final = tuple(field.name for field in fields(JobRecord))
_BYTES: Final = frozenset({"data", "opts", "stack_trace", "progress", "parent", "return_value"})


def frame(kind: str, **content: object) -> bytes:
    """One message as it goes through the pipe."""
    text = to_json({"kind": kind, **content}, f"the message {kind!r} of a child process")
    return _LENGTH.pack(len(text)) + text


class Frames:
    """Cuts what comes out of a pipe into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are complete now. Raises ValueError if that is no message of ours."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            text = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield from_json(text)


def as_text(value: bytes) -> str:
    """Bytes as text that JSON can hold, whatever they are."""
    return value.decode("latin-1")


def as_bytes(value: str) -> bytes:
    """What `as_text` was given."""
    return value.encode("latin-1")


def record_message(record: JobRecord) -> Message:
    """A job's record for a message."""
    values = ((name, getattr(record, name)) for name in _FIELDS)
    return {name: as_text(value) if isinstance(value, bytes) else value for name, value in values if value is not None}


def record_from(message: Message) -> JobRecord:
    """The record that `record_message` was given."""
    values: dict[str, Any] = {name: as_bytes(value) if name in _BYTES else value for name, value in message.items()}
    return JobRecord(**values)
