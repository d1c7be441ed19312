"""What people and programs do to jobs and queues that are there: the second part of `operations.py`."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.interop.machine import STATES, Machine
from tests.interop.made_up import BAD_REPEATS, DELAYS, PRIORITIES, QUEUES, REPEATS, STRAY, TEMPLATES, VALUES, N
from tests.interop.spelling import HOUR_MS, Json


class JobRules(Machine):
    """One job."""

    @rule(queue=QUEUES, n=N, stray=STRAY, what=st.sampled_from(["progress", "log", "update_data"]), value=VALUES)
    def report(self, queue: str, n: int, stray: str, what: str, value: Json) -> None:
        job = self.job_in(queue, ("active",), n, stray)
        if job is not None:
            args = {"progress": {"value": value}, "log": {"row": f"row {value}"}, "update_data": {"data": value}}[what]
            self.step(what, queue=queue, job=job, **args)

    @rule(queue=QUEUES, n=N, stray=STRAY)
    def promote(self, queue: str, n: int, stray: str) -> None:
        self.on_job("promote", queue, ("delayed",), n, stray)

    @rule(queue=QUEUES, n=N, stray=STRAY, ms=DELAYS)
    def change_delay(self, queue: str, n: int, stray: str, ms: int) -> None:
        self.on_job("change_delay", queue, ("delayed",), n, stray, ms=ms)

    @rule(queue=QUEUES, n=N, stray=STRAY, priority=PRIORITIES, lifo=st.booleans())
    def change_priority(self, queue: str, n: int, stray: str, priority: int, lifo: bool) -> None:
        self.on_job("change_priority", queue, ("wait", "prioritized"), n, stray, priority=priority, lifo=lifo)

    @rule(queue=QUEUES, n=N, stray=STRAY, state=st.sampled_from(["failed", "completed"]), reset=st.booleans())
    def retry(self, queue: str, n: int, stray: str, state: str, reset: bool) -> None:
        self.on_job("retry", queue, (state,), n, stray, state=state, reset=reset)

    @rule(queue=QUEUES, n=N, stray=STRAY)
    def remove(self, queue: str, n: int, stray: str) -> None:
        self.on_job("remove", queue, STATES, n, stray)

    @rule(queue=QUEUES, n=N, stray=STRAY)
    def drop_child_link(self, queue: str, n: int, stray: str) -> None:
        self.on_job("drop_child_link", queue, STATES, n, stray)

    @rule(queue=QUEUES, n=N, stray=STRAY)
    def drop_own_deduplication(self, queue: str, n: int, stray: str) -> None:
        self.on_job("drop_own_deduplication", queue, STATES, n, stray)

    @rule(queue=QUEUES, n=N, stray=STRAY)
    def remove_unprocessed(self, queue: str, n: int, stray: str) -> None:
        self.on_job("remove_unprocessed", queue, ("waiting-children", "active"), n, stray)

    @rule(queue=QUEUES, n=N, stray=STRAY, keep=st.integers(0, 2))
    def clear_logs(self, queue: str, n: int, stray: str, keep: int) -> None:
        self.on_job("clear_logs", queue, STATES, n, stray, keep=keep)

    @rule(queue=QUEUES, n=N, stray=STRAY)
    def look(self, queue: str, n: int, stray: str) -> None:
        self.on_job("look", queue, STATES, n, stray, deduplications=["d0", "d1"])


class QueueRules(Machine):
    """A queue, its schedulers, and the time that passes."""

    @rule(queue=QUEUES)
    def pause(self, queue: str) -> None:
        self.step("pause", queue=queue)

    @rule(queue=QUEUES)
    def resume(self, queue: str) -> None:
        self.step("resume", queue=queue)

    @rule(queue=QUEUES, state=st.sampled_from(["failed", "completed"]), until=st.sampled_from([None, None, -1_000]))
    def retry_jobs(self, queue: str, state: str, until: int | None) -> None:
        self.step("retry_jobs", queue=queue, state=state, until=None if until is None else self.now + until)

    @rule(queue=QUEUES)
    def promote_jobs(self, queue: str) -> None:
        self.step("promote_jobs", queue=queue)

    @rule(queue=QUEUES, delayed=st.booleans())
    def drain(self, queue: str, delayed: bool) -> None:
        if self.waiting_iterations(queue):
            return  # NOT_TRIED
        self.step("drain", queue=queue, delayed=delayed)

    @rule(queue=QUEUES, grace=st.sampled_from([0, 1_000, 60_000]), limit=st.sampled_from([0, 0, 1, 2]), state=st.sampled_from(STATES))
    def clean(self, queue: str, grace: int, limit: int, state: str) -> None:
        if limit and any(self.stays(queue, state, job, grace) for job in self.ids(queue, (state,))):
            return  # NOT_TRIED
        self.step("clean", queue=queue, grace=grace, limit=limit, state=state)

    def stays(self, queue: str, state: str, job: str, grace: int) -> bool:
        """Whether `clean` may leave this job, which is in that state."""
        fields = self.world.keys.get(f"bull:{queue}:{job}", {"value": {}})["value"]
        times = [int(fields[name]) for name in ("timestamp", "processedOn") if name in fields]
        is_locked = f"bull:{queue}:{job}:lock" in self.world.keys
        return is_locked or job.startswith("repeat:") or any(time > self.now - grace for time in times)

    @rule(queue=QUEUES, state=st.sampled_from([state for state in STATES if state != "active"]), n=N)
    def lose_a_job(self, queue: str, state: str, n: int) -> None:
        job = self.job_in(queue, (state,), n, "")
        if job is None or ":" in job or job == "1":
            return  # NOT_TRIED
        self.run(self.world.raw(*(("LREM", 1, job) if state == "wait" else ("ZREM", job)), key=f"{queue}:{state}"))
        fields = self.world.keys.get(f"bull:{queue}:{job}", {"value": {}})["value"]
        linked = [job] if fields.get("parentKey") in self.world.keys else []
        owned = f"bull:{queue}:de:{fields.get('deid')}"
        owners = [job] if self.world.keys.get(owned, {}).get("value") == job else []
        if owners:
            self.run(self.world.raw("DEL", key=f"{queue}:dn:{fields['deid']}"))
        self.step("remove_orphans", queue=queue, linked=linked, owners=owners)

    @rule(queue=QUEUES, force=st.booleans())
    def obliterate(self, queue: str, force: bool) -> None:
        if self.ids(queue, ("waiting-children",)):  # which Node would leave behind
            self.step("clean", queue=queue, grace=0, limit=0, state="waiting-children")
        self.step("obliterate", queue=queue, force=force)

    @rule(queue=QUEUES, key=st.sampled_from(["d0", "d1"]), by=st.sampled_from(["hand", "time"]))
    def release_deduplication(self, queue: str, key: str, by: str) -> None:
        if by == "hand":
            self.step("drop_deduplication", queue=queue, key=key)
        elif "ttl" in self.world.keys.get(f"bull:{queue}:de:{key}", {}):
            self.run(self.world.raw("DEL", key=f"{queue}:de:{key}"))

    @rule(queue=QUEUES, fields=st.sampled_from([{}, {"a": "b é", "c": "1"}]))
    def publish(self, queue: str, fields: dict[str, str]) -> None:
        self.step("publish", queue=queue, name="mine", fields=fields)

    @rule(queue=QUEUES, count=st.integers(0, 3))
    def bound_concurrency(self, queue: str, count: int) -> None:
        if count:
            self.step("set_concurrency", queue=queue, count=count)
        else:
            self.step("drop_concurrency", queue=queue)

    @rule(queue=QUEUES, most=st.integers(0, 2))
    def bound_rate(self, queue: str, most: int) -> None:
        if most:
            self.step("set_rate", queue=queue, max=most, ms=3 * HOUR_MS)
        else:
            self.step("drop_rate", queue=queue)

    @rule(queue=QUEUES, what=st.sampled_from(["limit_rate", "drop_limit", "drop_limit"]))
    def limit(self, queue: str, what: str) -> None:
        self.step(what, queue=queue, **({"ms": 4 * HOUR_MS} if what == "limit_rate" else {}))

    @rule(queue=QUEUES, scheduler=st.sampled_from(["s1", "s2"]), repeat=REPEATS, template=TEMPLATES)
    def upsert_scheduler(self, queue: str, scheduler: str, repeat: dict[str, Any], template: dict[str, Any]) -> None:
        if self.is_paused(queue) and self.waiting_iterations(queue):
            return  # NOT_TRIED
        if "pattern" in repeat and self.early_runs(queue, scheduler):
            return  # NOT_TRIED
        self.step("upsert_scheduler", queue=queue, scheduler=scheduler, repeat=self.dated(repeat), template=template)

    @rule(queue=QUEUES, repeat=BAD_REPEATS)
    def upsert_scheduler_badly(self, queue: str, repeat: dict[str, Any]) -> None:
        self.step("upsert_scheduler", queue=queue, scheduler="s1", repeat=self.dated(repeat), template={})

    @rule(queue=QUEUES, scheduler=st.sampled_from(["s1", "s2"]))
    def remove_scheduler(self, queue: str, scheduler: str) -> None:
        self.step("remove_scheduler", queue=queue, scheduler=scheduler)

    @rule(ms=st.sampled_from([1, 1_000, 1_000, 5_000, 60_000, HOUR_MS]))
    def pass_time(self, ms: int) -> None:
        self.now += ms

    @rule(queue=QUEUES)
    def read(self, queue: str) -> None:
        self.step("read", queue=queue, jobs=["nobody", *self.ids(queue, STATES)], priorities=[0, 1, 2])

    def dated(self, repeat: dict[str, Any]) -> dict[str, Any]:
        """A rule whose dates count from now, with real ones."""
        return {name: self.now + value if name in {"startDate", "endDate"} else value for name, value in repeat.items()}
