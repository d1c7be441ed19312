"""How each job of a race ended, as the state, the events, the result, the metrics, the letters and this process say."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import pytest

from tests.bench import Bench
from tests.invariants import check_invariants
from toril import Job, Queue, Worker
from toril.errors import JobFailedError

CANCELLED: Final = "cancelled: enough"


class Ledger:
    """What was told of each job here, to be held against what the server says."""

    def __init__(self, *workers: Worker) -> None:
        self.told: dict[str, list[str]] = {}
        for worker in workers:
            self.watch(worker)

    def watch(self, worker: Worker) -> None:
        """Note what this worker tells, too."""
        worker.on("completed", lambda job, result: self._note(job.id, "completed"))
        worker.on("failed", lambda job, error, final: self._note(job.id, str(error)) if final else None)

    def _note(self, job_id: str, what: str) -> None:
        self.told.setdefault(job_id, []).append(what)

    async def check(self, jobs: list[Job[Any, Any]], queue: Queue, letters: Queue, bench: Bench) -> Counter[str]:
        """Exactly one end of each job, and the same one everywhere. How many ended in which way."""
        ends = await _ends(bench)
        assert ends.keys() == {job.id for job in jobs}
        ways: Counter[str] = Counter()
        with_letters: set[str] = set()
        for job in jobs:
            ((name, reason, previous),) = ends[job.id]
            await job.refresh()
            assert await job.get_state() == name
            if name == "completed":
                assert self.told[job.id] == ["completed"]
                assert await job.result(timeout="5s") is not None
                assert job.failed_reason is None or job.attempts_made > 1
                ways["completed"] += 1
                continue
            assert job.failed_reason == reason
            assert job.return_value is None
            assert self.told.get(job.id, []) == ([reason] if previous == "active" else [])
            with pytest.raises(JobFailedError) as caught:
                await job.result(timeout="5s")
            assert caught.value.reason == reason
            ways[f"{'cancelled' if reason == CANCELLED else 'failed'} while {previous}"] += 1
            if reason != CANCELLED:
                with_letters.add(job.id)
        found = [letter.job_id for letter in await letters.dead_letters.list()]
        assert Counter(found) == Counter(with_letters)
        assert (await queue.get_metrics("completed")).count == ways["completed"]
        # A job that isn't running is ended by the queue, which counts nothing, as it tells nobody here.
        assert (await queue.get_metrics("failed")).count == ways["cancelled while active"] + ways["failed while active"]
        left = list(await bench.raw("KEYS", f"{bench.prefix}:q:*:lock") + await bench.raw("KEYS", f"{bench.keys.own}cancel:*"))
        assert left == []
        assert await check_invariants(bench.server, bench.prefix, now_ms=queue.clock.now_ms()) == []
        return ways


async def _ends(bench: Bench) -> dict[str, list[tuple[str, str, str]]]:
    """Of each job the events that end it: name, reason, where it was."""
    ends: dict[str, list[tuple[str, str, str]]] = {}
    for _, flat in await bench.raw("XRANGE", bench.keys.events, "-", "+"):
        texts = [one.decode() for one in flat]
        fields = dict(zip(texts[::2], texts[1::2], strict=True))
        if fields["event"] in ("completed", "failed"):
            end = (fields["event"], fields.get("failedReason", ""), fields["prev"])
            ends.setdefault(fields["jobId"], []).append(end)
        elif fields["event"] != "retries-exhausted" and "jobId" in fields:
            assert fields["jobId"] not in ends, f"{fields} came after the end"
    return ends
