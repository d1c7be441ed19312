"""The work of `toril job ls|show|logs|add`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from typing import Any, Final

from toril.cli.common import FilterOptions
from toril.cli.confirming import reading
from toril.cli.connecting import UnknownQueueError
from toril.cli.errors import UsageError
from toril.cli.output import ago, at, cell_text, fields_table, iso, shortened, span_text, table
from toril.cli.selecting import moment_ms, selection_of
from toril.cli.session import Session
from toril.durations import to_ms
from toril.queues.job import Job
from toril.queues.states import JobState
from toril.wire.codec import from_json_or

DEFAULT_LIMIT: Final = 20
_DATA_WIDTH: Final = 60


async def list_jobs(session: Session, name: str, filters: FilterOptions) -> None:
    """Those that the filters find, state by state."""
    selection = selection_of(filters)
    limit = selection.limit or DEFAULT_LIMIT
    queue = await session.queues.get(name)
    total = sum((await queue.get_job_counts(*selection.states)).values()) if selection.is_narrow else None
    with session.out.progress() as progress:
        looking = progress.add_task("looking", total=total, visible=selection.is_narrow)
        jobs = replace(selection, limit=limit + 1).scan(queue, on_read=lambda: progress.advance(looking))
        found = [each async for each in jobs]
    has_more, found = len(found) > limit, found[:limit]
    now_ms = queue.clock.now_ms()
    documents = [job_document(job, state, await due_ms_of(job, state)) for state, job in found]
    rows = [
        (job.id, job.name, state, ago(moment_ms(job), now_ms), f"{job.attempts_made}/{attempts_allowed(job)}", gist(job))
        for state, job in found
    ]
    if has_more:
        session.out.note(f"there are more: --limit shows them, {limit} are shown")
    if not rows:
        session.out.note("no job of this kind")
    session.out.answer(
        {"queue": queue.name, "jobs": documents, "has_more": has_more},
        table("id", "name", "state", "age", "tries", "data or error", rows=rows),
    )


def gist(job: Job[Any, Any]) -> str:
    """What a table shows of a job: why it failed, else its data."""
    text = job.failed_reason or json.dumps(data_of(job), ensure_ascii=False)
    return shortened(" ".join(text.split()), _DATA_WIDTH)


async def show_job(session: Session, name: str, job_id: str) -> None:
    """All about one job."""
    queue = await session.queues.get(name)
    job = await queue.get_job(job_id)
    state, now_ms = await job.get_state(), queue.clock.now_ms()
    due = await due_ms_of(job, state)
    stacks = job.stack_trace
    document: dict[str, Any] = {**job_document(job, state, due), "stack_trace": stacks}
    moments = [(word, ms, f"{iso(ms)} ({ago(ms, now_ms)})") for word, ms in (
        ("added", job.timestamp_ms), ("due", due), ("last started", job.processed_at_ms), ("ended", job.finished_at_ms),
    ) if ms is not None]  # fmt: skip
    session.out.answer(
        document,
        fields_table(
            (
                ("id", job.id),
                ("name", job.name),
                ("queue", queue.name),
                ("state", state or "gone"),
                ("data", document["data"]),
                *((word, text) for word, _, text in moments),
                ("waited", span_text(document["waited_ms"])),
                ("ran", span_text(document["ran_ms"])),
                ("tries", f"{job.attempts_made} of {attempts_allowed(job)}, started {job.attempts_started} times"),
                ("stalled", f"{job.stalled_count} times" if job.stalled_count else None),
                ("worker", job.processed_by),
                ("priority", job.priority or None),
                ("progress", job.progress or None),
                ("error", job.failed_reason),
                ("result", document["result"] if job.record.return_value is not None else None),
                ("parent", job.parent_key),
                ("schedule", job.record.scheduler_id),
                ("deduplication", job.deduplication_id),
                ("options", document["options"]),
            )
        ),
        *(("", stacks[-1]) if stacks else ()),
    )


async def show_logs(session: Session, name: str, job_id: str, tail: int | None) -> None:
    """What a job's handler has logged."""
    queue = await session.queues.get(name)
    job = await queue.get_job(job_id)
    rows, total = await job.get_logs(0 if tail is None else -tail)
    if not rows:
        session.out.note("nothing was logged")
    session.out.answer({"queue": name, "id": job_id, "total": total, "rows": rows}, *rows)


@dataclass(frozen=True, slots=True)
class NewJobRequest:
    """What `toril job add` is told."""

    queue: str
    name: str
    data: str
    options: dict[str, Any]
    wait: str | None
    new_queue: bool


async def add_job(session: Session, request: NewJobRequest) -> None:
    """Add a job; wait for its result if asked."""
    if request.wait is not None:
        to_ms(request.wait, "--wait")  # not only when the job is there
    text = _read_input() if request.data == "-" else request.data
    try:
        data = json.loads(text)
    except ValueError as error:
        raise UsageError(f'the data is no JSON ({error}): write for example \'{{"to": "ann@example.com"}}\'') from error
    try:
        queue = await session.queues.get(request.queue)
    except UnknownQueueError:
        if not request.new_queue:
            session.out.note("a job in a new queue needs --new-queue")
            raise
        queue = session.queues.at(request.queue)
    job = await queue.add(request.name, data, **{name: value for name, value in request.options.items() if value is not None})
    if request.wait is not None:
        result = await job.result(timeout=request.wait)
        await job.refresh()
        return session.out.answer(job_document(job, await job.get_state(), None), cell_text(result))
    state = await job.get_state()
    return session.out.answer(job_document(job, state, await due_ms_of(job, state)), f"added job {job.id} to queue {queue.name}")


def _read_input() -> str:
    with reading():
        return sys.stdin.read()


# ── what a job looks like ─────────────────────────────────────────────────────────────────────────────────────


def job_document(job: Job[Any, Any], state: JobState | None, due_ms: int | None) -> dict[str, Any]:
    """A job, for a document."""
    started_ms, ended_ms = job.processed_at_ms, job.finished_at_ms
    return {
        "id": job.id,
        "name": job.name,
        "queue": job.queue_name,
        "state": state,
        "data": data_of(job),
        "options": from_json_or(job.record.opts, {}),
        "priority": job.priority,
        "attempts_made": job.attempts_made,
        "attempts_started": job.attempts_started,
        "attempts_allowed": attempts_allowed(job),
        "stalled_count": job.stalled_count,
        "progress": job.progress,
        **at("added", job.timestamp_ms),
        **at("due", due_ms),
        **at("started", started_ms),
        **at("ended", ended_ms),
        "waited_ms": None if started_ms is None else max(0, started_ms - job.timestamp_ms),
        "ran_ms": None if started_ms is None or ended_ms is None else max(0, ended_ms - started_ms),
        "worker": job.processed_by,
        "error": job.failed_reason,
        "result": None if job.record.return_value is None else _json_or_text(job.record.return_value),
        "parent": job.parent_key,
        "scheduler_id": job.record.scheduler_id,
        "deduplication_id": job.deduplication_id,
    }


def data_of(job: Job[Any, Any]) -> Any:  # noqa: ANN401 -- whatever JSON somebody has added
    """A job's data as it stands in the server, whatever its type."""
    return _json_or_text(job.record.data)


def attempts_allowed(job: Job[Any, Any]) -> int:
    """How often the job is tried at most."""
    return max(job.options.attempts or 1, 1)


async def due_ms_of(job: Job[Any, Any], state: JobState | None) -> int | None:
    """Until when a delayed job waits; None for others."""
    return await job.queue.commands.find_due_ms(job.id) if state == "delayed" else None


def _json_or_text(text: bytes) -> Any:  # noqa: ANN401 -- whatever JSON somebody has written
    return from_json_or(text, text.decode("utf-8", "replace"))
