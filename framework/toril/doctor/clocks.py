"""Whether the clocks of those who add and run jobs agree with the server's.

The times in a job's hash are those of its producer and its worker; the id of an event is the server's time. Both are written by one
script, so their difference is how far a clock is off, plus what the call took.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any, Final

from toril.doctor.findings import Check, Finding, Severity
from toril.doctor.server import CLOCK_ERROR_MS
from toril.doctor.words import span_text
from toril.queues.queue import Queue
from toril.wire.reads import number_or

TOLERANCE_MS: Final = 3_000
"""More than a call takes that had to be sent again; less than anybody would set a clock wrong."""

_EVENTS: Final = 1_000


async def check_clocks_of_work(queue: Queue[Any, Any]) -> list[Finding]:
    """By the latest jobs that are still there."""
    events = await queue.commands.range_events_back("+", _EVENTS)
    taken: dict[str, int] = {}
    added: dict[str, int] = {}
    for event_id, fields in events:  # the newest first: a job's last claim is the one whose time stands in its hash
        times = {"active": taken, "added": added}.get(fields.get("event", ""))
        if times is not None and "jobId" in fields:
            times.setdefault(fields["jobId"], int(event_id.partition("-")[0]))
    ids = list({**taken, **added})
    off: defaultdict[str, list[int]] = defaultdict(list)
    rows = await queue.commands.find_fields(ids, "name", "processedOn", "pb", "timestamp", "rjk")
    for job_id, row in zip(ids, rows, strict=True):
        if row is None:
            continue
        _, processed, worker, timestamp, scheduler = row
        if job_id in taken and processed is not None:
            off[f"worker {(worker or b'without a name').decode('utf-8', 'replace')}"].append(
                number_or(processed, taken[job_id]) - taken[job_id]
            )
        if job_id in added and timestamp is not None and scheduler is None:
            off["producers"].append(number_or(timestamp, added[job_id]) - added[job_id])
    say = Check("clocks", queue.name)
    findings: list[Finding] = []
    for who, each in sorted(off.items()):
        findings += _about(say, who, round(statistics.median(each)))
    return findings or (say.ok("producers and workers agree with the server's clock") if off else [])


def _about(say: Check, who: str, ahead_ms: int) -> list[Finding]:
    if abs(ahead_ms) <= TOLERANCE_MS:
        return []
    way, when = ("ahead of", "early") if ahead_ms > 0 else ("behind", "late")
    what = "jobs that they delay become due" if who == "producers" else "it runs delayed and scheduled jobs"
    when = {"early": "late", "late": "early"}[when] if who == "producers" else when
    text = f"the clock of {who} is {span_text(abs(ahead_ms))} {way} the server's: {what} that much too {when}"
    fix = "on that machine: timedatectl (is NTP active?), then restart the process; a container has the clock of its node"
    return say.found(Severity.ERROR if abs(ahead_ms) > CLOCK_ERROR_MS else Severity.WARNING, text, fix, {"who": who, "ahead_ms": ahead_ms})
