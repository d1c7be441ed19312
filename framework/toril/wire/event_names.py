"""The fields of the events stream: names on the wire -> our names. Source: the wire specification, §4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_FIELDS: Final = {
    "jobId": "job_id",
    "prev": "previous",
    "returnvalue": "return_value",
    "failedReason": "reason",
    "attemptsMade": "attempts_made",
    "deduplicationId": "deduplication_id",
    "deduplicatedJobId": "deduplicated_job_id",
    "delay": "due_at_ms",
    "data": "value",
}


def read_fields(entry: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The event's name and its fields in our names; unknown ones keep theirs. All values are text still."""
    return entry.get("event", ""), {_FIELDS.get(key, key): value for key, value in entry.items() if key != "event"}
