"""What our loggers hand to the standard library."""

from __future__ import annotations

import json
from collections.abc import Mapping

from toril.telemetry.redaction import redact_item, redact_text


class LogEvent:
    """A record's `msg`: readable text for any formatter, data for ours."""

    __slots__ = ("event", "fields")

    def __init__(self, event: str, fields: Mapping[str, object]) -> None:
        self.event, self.fields = event, fields

    def __str__(self) -> str:
        pairs = (f"{key}={_pair_value(redact_item(key, value))}" for key, value in self.fields.items())
        text = " ".join((redact_text(self.event), *pairs))
        return text.encode("utf-8", "backslashreplace").decode()  # an id may be no text, and a stream refuses lone surrogates


def _pair_value(value: object) -> str:
    text = value if isinstance(value, str) else redact_text(repr(value))
    return text if text and not any(char.isspace() or char in '"=' for char in text) else json.dumps(text, ensure_ascii=False)
