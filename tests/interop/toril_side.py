"""Toril, one step at a time: the same operations as `differential.mjs` has, by the same names."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any, Final
from unittest import mock

from tests.interop.refusals import kind_of
from tests.interop.spelling import HOUR_MS, Json, flow_of, job_options, moment, optional, span
from toril import (
    FlowProducer,
    Job,
    JobNode,
    KeepJobs,
    Queue,
    RateLimit,
    ScheduleRule,
    UnrecoverableError,
    WorkerOptions,
)
from toril.clock import SystemClock
from toril.errors import TorilError
from toril.queues.options import NO_OPTIONS
from toril.wire.codec import JobRecord, to_json
from toril.wire.connection import Server
from toril.wire.endings import Ending
from toril.wire.scripts import load as load_script
from toril.wire.turns import TurnRequest
from toril.worker.calling import HandlerCaller
from toril.worker.executor import Executor
from toril.worker.executors import Children
from toril.worker.outcome import Completed, Outcome, PutBack, PutOff, RateLimited, WaitForChildren, ending
from toril.worker.policy import Policies
from toril.worker.processor import Registry
from toril.worker.running import RunningJob

WORKERS: Final = {
    "plain": WorkerOptions(),
    "named": WorkerOptions(name="w1"),
    "limited": WorkerOptions(limiter=RateLimit(max=2, duration="2h")),
    "metered": WorkerOptions(metrics="3m"),
    "tidy": WorkerOptions(),
}
"""The workers that there are; `differential.mjs` has the same ones."""

TIDY: Final = Policies(KeepJobs(count=2), KeepJobs(age="1h", limit=1))
KEEPING_ALL: Final = Policies(None, None)

_STATES: Final = ("waiting", "active", "delayed", "prioritized", "waiting-children", "completed", "failed")
_PAGED: Final = ("waiting", "prioritized", "delayed", "completed")


class ToldClock(SystemClock):
    """Shows the time that it was told last; it may go back, when another example begins."""

    def __init__(self) -> None:
        self.told_ms = 0

    def now_ms(self) -> int:
        return self.told_ms


@dataclass(frozen=True)
class Held:
    """A job that was claimed and has not ended."""

    job: Job[Any, Any]
    worker: str


class TorilSide:
    """`await TorilSide(server, prefix).ask("add", now=…, queue="q", …)`."""

    def __init__(self, server: Server, prefix: str) -> None:
        self._server = server
        self._prefix = prefix
        self._clock = ToldClock()
        self._queues: dict[str, Queue[Any, Any]] = {}
        self._held: dict[str, Held] = {}
        self._stack = AsyncExitStack()
        self._flows = FlowProducer(prefix=prefix, server=server, clock=self._clock)
        threads = self._stack.enter_context(ThreadPoolExecutor(1))
        self._executors = {
            kind: Executor(Registry("q", [], may_be_empty=True), options, self._clock, HandlerCaller(threads), Children(self._queue("q")))
            for kind, options in WORKERS.items()
        }

    async def aclose(self) -> None:
        """Close what it has opened."""
        for queue in self._queues.values():
            await queue.close()
        await self._flows.close()
        await self._stack.aclose()

    async def ask(self, operation: str, now: int, **args: Json) -> dict[str, Any]:
        """Do it, and tell what came of it as `differential.mjs` does."""
        self._clock.told_ms = now
        try:
            return {"value": await getattr(self, f"do_{operation}")(**args)}
        except TorilError as error:
            return {"error": kind_of(error), "text": str(error)}

    def _queue(self, name: str) -> Queue[Any, Any]:
        if name not in self._queues:
            self._queues[name] = Queue(name, prefix=self._prefix, server=self._server, clock=self._clock)
        return self._queues[name]

    # ── adding ────────────────────────────────────────────────────────────────────────────────────────────────

    async def do_reset(self) -> None:
        self._held.clear()

    async def do_drop(self, hold: str) -> None:
        self._held.pop(hold, None)

    async def do_add(self, queue: str, name: str, data: Json, opts: dict[str, Any], parent: dict[str, str] | None = None) -> str:
        there = self._queue(queue)
        above = None if parent is None else Job(self._queue(parent["queue"]), JobRecord(parent["id"], "", b"{}", b"{}"))
        return (await there.add(name, data, options=job_options(opts), parent=above)).id

    async def do_add_many(self, queue: str, jobs: Sequence[dict[str, Any]]) -> list[str]:
        there = self._queue(queue)
        added = await there.add_many([there.job(job["name"], job["data"], options=job_options(job["opts"])) for job in jobs])
        return [job.id for job in added]

    async def do_add_flow(self, flow: dict[str, Any]) -> None:
        await self._flows.add(flow_of(flow))

    # ── the worker ────────────────────────────────────────────────────────────────────────────────────────────

    async def do_claim(self, queue: str, worker: str, token: str, hold: str) -> dict[str, Any] | None:
        told = await self.do_turn(queue, worker, [], [{"token": token, "hold": hold}])
        return next(iter(told["jobs"]), None)

    async def do_end(self, **ending: Json) -> dict[str, Any] | None:
        held = self._held[ending["hold"]]
        told = await self.do_turn(held.job.queue_name, held.worker, [ending], [])
        (code,) = told["codes"]
        if code < 0:
            return {"refused": code}
        return {"waits": code == 0} if ending["how"] == "wait for children" else None

    async def do_turn(self, queue: str, worker: str, endings: Sequence[dict[str, Any]], claims: Sequence[dict[str, str]]) -> dict[str, Any]:
        there, options = self._queue(queue), WORKERS[worker]
        request = TurnRequest(
            self._clock.now_ms(),
            claims[0]["token"] if claims else "unused",
            HOUR_MS,
            endings=[self._ending(**one) for one in endings],
            claims=len(claims),
            worker_name=options.name or "",
            limit_max=options.limiter.max if options.limiter else 0,
            limit_ms=options.limiter.duration_ms if options.limiter else 0,
            metrics_points=options.metrics_points,
        )
        reply = await there.commands.turn(self._server.commands, request)
        jobs: list[dict[str, Any]] = []
        for claim, (token, record) in zip(claims, reply.claimed, strict=False):
            job: Job[Any, Any] = Job(there, record, token=token)
            assert token == claim["token"]
            self._held[claim["hold"]] = Held(job, worker)
            await there.job_schedulers.follow(job)
            jobs.append(_shown(job))
        return {"codes": list(reply.codes), "jobs": jobs}

    def _ending(self, hold: str, token: str, how: str, value: Json = None, reason: str = "", ms: int = 0) -> Ending:
        held = self._held[hold]
        policies = TIDY if held.worker == "tidy" else KEEPING_ALL
        running = RunningJob(held.job, token, policies.of(held.job.record.opts), None)
        made = ending(self._outcome(running, held.worker, how, value, reason, ms), running, None, 0)
        assert made is not None
        return made

    def _outcome(self, running: RunningJob, worker: str, how: str, value: Json, reason: str, ms: int) -> Outcome:
        match how:
            case "complete":
                return Completed(to_json(value, "the result"), value)
            case "fail" | "give up":
                error = RuntimeError(reason) if how == "fail" else UnrecoverableError(reason)
                with mock.patch("random.random", return_value=0.5):  # the jitter's chance, the same on both sides
                    return self._executors[worker].failure(running, error)
            case "put off":
                return PutOff(ms)
            case "put back":
                return PutBack()
            case "rate limit":
                return RateLimited(ms)
            case "wait for children":
                return WaitForChildren()
            case _:
                raise ValueError(how)

    async def do_renew(self, hold: str, token: str) -> bool:
        job = self._held[hold].job
        keys = job.queue.keys
        lost: list[bytes] = await self._server.commands.run(load_script("renew_locks"), [keys.base, keys.own], 2 * HOUR_MS, job.id, token)
        return not lost

    async def do_sweep(self, queue: str) -> None:
        await self._queue(queue).commands.sweep_stalled(self._clock.now_ms(), HOUR_MS, 1)

    # ── one job ───────────────────────────────────────────────────────────────────────────────────────────────

    async def do_progress(self, queue: str, job: str, value: Json) -> None:
        await (await self._queue(queue).get_job(job)).update_progress(value)

    async def do_update_data(self, queue: str, job: str, data: Json) -> None:
        await (await self._queue(queue).get_job(job)).update_data(data)

    async def do_log(self, queue: str, job: str, row: str) -> int:
        return await (await self._queue(queue).get_job(job)).log(row)

    async def do_promote(self, queue: str, job: str) -> None:
        await (await self._queue(queue).get_job(job)).promote()

    async def do_change_delay(self, queue: str, job: str, ms: int) -> None:
        await (await self._queue(queue).get_job(job)).change_delay(span(ms))

    async def do_change_priority(self, queue: str, job: str, priority: int, lifo: bool) -> None:
        await (await self._queue(queue).get_job(job)).change_priority(priority, lifo=lifo)

    async def do_retry(self, queue: str, job: str, state: Json, reset: bool) -> None:
        await (await self._queue(queue).get_job(job)).retry(state, reset_attempts=reset)

    async def do_remove(self, queue: str, job: str) -> bool:
        return await self._queue(queue).remove(job)

    async def do_drop_child_link(self, queue: str, job: str) -> bool:
        return await (await self._queue(queue).get_job(job)).remove_child_dependency()

    async def do_drop_own_deduplication(self, queue: str, job: str) -> bool:
        return await (await self._queue(queue).get_job(job)).remove_deduplication_key()

    async def do_remove_unprocessed(self, queue: str, job: str) -> None:
        await (await self._queue(queue).get_job(job)).remove_unprocessed_children()

    async def do_clear_logs(self, queue: str, job: str, keep: int) -> None:
        await (await self._queue(queue).get_job(job)).clear_logs(keep=keep)

    # ── the queue ─────────────────────────────────────────────────────────────────────────────────────────────

    async def do_pause(self, queue: str) -> None:
        await self._queue(queue).pause()

    async def do_resume(self, queue: str) -> None:
        await self._queue(queue).resume()

    async def do_retry_jobs(self, queue: str, state: Json, until: int | None) -> None:
        await self._queue(queue).retry_jobs(state, until=None if until is None else moment(until))

    async def do_promote_jobs(self, queue: str) -> None:
        await self._queue(queue).promote_jobs()

    async def do_drain(self, queue: str, delayed: bool) -> None:
        await self._queue(queue).drain(delayed=delayed)

    async def do_clean(self, queue: str, grace: int, limit: int, state: str) -> list[str]:
        spelled: Any = {"wait": "waiting"}.get(state, state)
        return await self._queue(queue).clean(span(grace), limit=limit or None, state=spelled)

    async def do_remove_orphans(self, queue: str, linked: list[str], owners: list[str]) -> int:
        del linked, owners  # what they hold on to is let go in any case
        return await self._queue(queue).remove_orphaned_jobs()

    async def do_obliterate(self, queue: str, force: bool) -> None:
        await self._queue(queue).obliterate(force=force)

    async def do_drop_deduplication(self, queue: str, key: str) -> bool:
        return await self._queue(queue).remove_deduplication_key(key)

    async def do_set_concurrency(self, queue: str, count: int) -> None:
        await self._queue(queue).set_global_concurrency(count)

    async def do_drop_concurrency(self, queue: str) -> None:
        await self._queue(queue).remove_global_concurrency()

    async def do_set_rate(self, queue: str, max: int, ms: int) -> None:  # noqa: A002
        await self._queue(queue).set_global_rate_limit(max, span(ms))

    async def do_drop_rate(self, queue: str) -> None:
        await self._queue(queue).remove_global_rate_limit()

    async def do_limit_rate(self, queue: str, ms: int) -> None:
        await self._queue(queue).rate_limit(span(ms))

    async def do_drop_limit(self, queue: str) -> None:
        await self._queue(queue).remove_rate_limit_key()

    async def do_upsert_scheduler(self, queue: str, scheduler: str, repeat: dict[str, Any], template: dict[str, Any]) -> str | None:
        rule = ScheduleRule(
            every=optional(span, repeat.get("every")),
            pattern=repeat.get("pattern"),
            tz=repeat.get("tz"),
            limit=repeat.get("limit"),
            start=optional(moment, repeat.get("startDate")),
            end=optional(moment, repeat.get("endDate")),
            offset=optional(span, repeat.get("offset")),
            immediately=repeat.get("immediately", False),
        )
        schedulers = self._queue(queue).job_schedulers
        options = job_options(template["opts"]) if template.get("opts") else NO_OPTIONS
        made = await schedulers.upsert(scheduler, rule, name=template.get("name"), data=template.get("data"), options=options)
        return made.id

    async def do_remove_scheduler(self, queue: str, scheduler: str) -> bool:
        return await self._queue(queue).job_schedulers.remove(scheduler)

    async def do_publish(self, queue: str, name: str, fields: dict[str, str]) -> None:
        await self._queue(queue).publish_event(name, fields)

    async def do_look(self, queue: str, job: str, deduplications: Sequence[str]) -> dict[str, Any]:
        there = await self._queue(queue).get_job(job)
        logs = await there.get_logs()
        tree = await self._flows.get_flow(job, queue=queue)
        assert tree is not None
        return {
            "data": there.data, "progress": 0 if there.progress is None else there.progress, "result": there.return_value,
            "reason": there.failed_reason, "made": there.attempts_made, "stacks": len(there.stack_trace),
            "timestamp": there.timestamp_ms, "processed": there.processed_at_ms, "finished": there.finished_at_ms,
            "by": there.processed_by, "deduplication": there.deduplication_id, "parent": there.parent_key,
            "state": await there.get_state(), "logs": [logs.rows, logs.total],
            "values": await there.get_children_values(), "ignored": await there.get_ignored_failures(),
            "counts": asdict(await there.get_dependencies_count()), "tree": _tree(tree),
            "owners": [await self._queue(queue).find_deduplicated(key) for key in deduplications],
        }  # fmt: skip

    async def do_read(self, queue: str, jobs: Sequence[str], priorities: Sequence[int]) -> dict[str, Any]:
        there: Any = self._queue(queue)
        return {
            "counts": await there.get_job_counts(*_STATES),
            "lists": {state: [job.id for job in await there.get_jobs(state, ascending=True)] for state in _STATES},
            "pages": [[job.id for job in await there.get_jobs(_PAGED, 1, 2, ascending=ascending)] for ascending in (True, False)],
            "priorities": {str(key): count for key, count in (await there.get_counts_per_priority(priorities)).items()},
            "paused": await there.is_paused(),
            "states": [await there.find_state(job) or "unknown" for job in jobs],
            "schedulers": [[one.id, one.next_ms, one.iterations] for one in await there.job_schedulers.list()],
            "metrics": (await there.get_metrics("completed")).count,
        }


def _tree(node: JobNode) -> list[Any]:
    return [node.job.id, sorted(map(_tree, node.children))]


def _shown(job: Job[Any, Any]) -> dict[str, Any]:
    record = job.record
    return {
        "id": job.id, "name": job.name, "data": job.data, "delay": job.delay_ms, "priority": job.priority, "made": job.attempts_made,
        "started": job.attempts_started, "stalled": job.stalled_count, "deferred": record.deferred_failure,
        "progress": 0 if job.progress is None else job.progress,  # a progress of null, which Node reads as none
        "stacks": len(job.stack_trace),
    }  # fmt: skip
