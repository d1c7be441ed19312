"""Whether the clocks of those who add and run jobs agree with the server's.

Our workers tell it themselves. For Node's, and for producers: the times in a job's hash are theirs, and the id of an event is the
server's. Both are written by one script, so their difference is how far a clock is off, plus what the call took.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any, Final

from toril.doctor.findings import Check, Finding, Severity
from toril.doctor.server import CLOCK_ERROR_MS
from toril.doctor.words import span_text
from toril.doctor.workforce import Workforce
from toril.queues.queue import Queue
from toril.wire.reads import number_or

TOLERANCE_MS: Final = 3_000
"""More than a call takes that had to be sent again; less than anybody would set a clock wrong."""

_EVENTS: Final = 1_000


async def check_clocks_of_work(queue: Queue[Any, Any], workforce: Workforce) -> list[Finding]:
    """Of the workers that are there, and of who has added the latest jobs that are still there."""
    off: defaultdict[str, list[int]] = defaultdict(list)
    for one in workforce.manifests:
        off[f"worker {one.name or one.id} (process {one.pid} on {one.host})"].append(one.clock_off_ms)
    told = {one.name for one in workforce.manifests}
    for who, ahead_ms in await _by_events(queue):
        if who is None:
            off["producers"].append(ahead_ms)
        elif who not in told and workforce.is_connected(who):
            off[f"worker {who}"].append(ahead_ms)
    say = Check("clocks", queue.name)
    findings: list[Finding] = []
    for who, each in sorted(off.items()):
        findings += _about(say, who, round(statistics.median(each)))
    return findings or (say.ok("producers and workers agree with the server's clock") if off else [])


async def _by_events(queue: Queue[Any, Any]) -> list[tuple[str | None, int]]:
    """Who was how far ahead of the server: the worker of each claim, None for the producer of each job."""
    times: dict[str, dict[str, int]] = {"active": {}, "added": {}}
    for event_id, fields in await queue.commands.range_events_back("+", _EVENTS):
        kind = times.get(fields.get("event", ""))
        if kind is not None and "jobId" in fields:  # the newest comes first: the time of a job's last claim stands in its hash
            kind.setdefault(fields["jobId"], int(event_id.partition("-")[0]))
    taken, added = times["active"], times["added"]
    ids = list({**taken, **added})
    found: list[tuple[str | None, int]] = []
    rows = await queue.commands.find_fields(ids, "name", "processedOn", "pb", "timestamp", "rjk")
    for job_id, row in zip(ids, rows, strict=True):
        if row is None:
            continue
        _, processed, worker, timestamp, scheduler = row
        if job_id in taken and processed is not None and worker is not None:
            found.append((worker.decode("utf-8", "replace"), number_or(processed, taken[job_id]) - taken[job_id]))
        if job_id in added and timestamp is not None and scheduler is None:
            found.append((None, number_or(timestamp, added[job_id]) - added[job_id]))
    return found


def _about(say: Check, who: str, ahead_ms: int) -> list[Finding]:
    if abs(ahead_ms) <= TOLERANCE_MS:
        return []
    way, when = ("ahead of", "early") if ahead_ms > 0 else ("behind", "late")
    what = "jobs that they delay become due" if who == "producers" else "it runs delayed and scheduled jobs"
    when = {"early": "late", "late": "early"}[when] if who == "producers" else when
    text = f"the clock of {who} is {span_text(abs(ahead_ms))} {way} the server's: {what} that much too {when}"
    fix = "on that machine: timedatectl (is NTP active?), then restart the process; a container has the clock of its node"
    return say.found(Severity.ERROR if abs(ahead_ms) > CLOCK_ERROR_MS else Severity.WARNING, text, fix, {"who": who, "ahead_ms": ahead_ms})
