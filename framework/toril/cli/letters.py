"""The work of `toril dlq …`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from toril.cli.bulk import Action
from toril.cli.common import FilterOptions
from toril.cli.jobs import DEFAULT_LIMIT
from toril.cli.output import ago, shortened, table
from toril.cli.selecting import selection_of
from toril.cli.session import Session
from toril.errors import DeadLetterError, JobNotFoundError
from toril.queues.dead_letters import DeadLetter, read_letter
from toril.queues.job import Job
from toril.queues.states import PENDING_STATES, JobState

_ERROR_WIDTH: Final = 60


async def list_letters(session: Session, name: str, filters: FilterOptions) -> None:
    """Those that the filters find."""
    selection = selection_of(filters, PENDING_STATES)
    limit = selection.limit or DEFAULT_LIMIT
    queue = await session.queues.get(name)
    found: list[tuple[Job[Any, Any], DeadLetter]] = []
    total = sum((await queue.get_job_counts(*selection.states)).values())
    with session.out.progress() as progress:
        looking = progress.add_task("looking", total=total)
        jobs = replace(selection, limit=None).scan(queue, ascending=True, on_read=lambda: progress.advance(looking))
        async for _, job in jobs:
            if len(found) > limit:
                break
            if (letter := read_letter(job)) is not None:
                found.append((job, letter))
    has_more, found = len(found) > limit, found[:limit]
    now_ms = queue.clock.now_ms()
    rows = [
        (one.id, one.queue, one.name, one.job_id, one.attempts, ago(job.timestamp_ms, now_ms), shortened(one.message, _ERROR_WIDTH))
        for job, one in found
    ]
    if has_more:
        session.out.note(f"there are more: --limit shows them, {limit} are shown")
    if not rows:
        session.out.note("no dead letter")
    session.out.answer(
        {"queue": name, "letters": [_document(one) for _, one in found], "has_more": has_more},
        table("id", "from", "name", "job", "tries", "age", "error", rows=rows, numbers=["tries"]),
    )


def _document(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "from_queue": letter.queue,
        "from_prefix": letter.prefix,
        "job_id": letter.job_id,
        "name": letter.name,
        "data": letter.data,
        "options": dict(letter.options),
        "attempts": letter.attempts,
        "error": letter.message,
        "stack_trace": letter.stack,
        "failed_at": letter.failed_at,
    }


async def _replay(job: Job[Any, Any], _state: JobState) -> str | None:
    try:
        await job.queue.dead_letters.replay(job.id)
    except JobNotFoundError:
        return "it is gone"
    except DeadLetterError as error:
        return str(error)
    return None


async def _purge(job: Job[Any, Any], _state: JobState) -> str | None:
    if read_letter(job) is None:
        return "it is no dead letter: toril job rm removes other jobs"
    return None if await job.queue.dead_letters.purge(job.id) else "a worker processes it"


REPLAYING: Final = Action(name="replay", done="replayed", states=PENDING_STATES, default_states=PENDING_STATES, noun="letter", do=_replay)
PURGING: Final = Action(
    name="purge", done="purged", states=PENDING_STATES, default_states=PENDING_STATES, noun="letter", is_destructive=True, do=_purge
)
