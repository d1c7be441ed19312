"""The work of `toril queue orphans`."""

from __future__ import annotations

from toril.cli.confirming import confirm
from toril.cli.jobs import DEFAULT_LIMIT, gist, job_document
from toril.cli.output import ago, table
from toril.cli.session import Session
from toril.errors import DamagedJobsError


async def show_orphans(session: Session, name: str, *, remove: bool, yes: bool) -> None:
    """Jobs in no state; remove them if asked to."""
    queue = await session.queues.get(name)
    with session.out.progress() as progress:
        progress.add_task("looking", total=None)
        found = sorted(await queue.find_orphaned_jobs(), key=lambda job_id: (len(job_id), job_id))
    jobs = [job for job_id in found[:DEFAULT_LIMIT] if (job := await queue.find_job(job_id)) is not None]
    removed, left = 0, None
    if found and remove:
        confirm(session.out, f"remove {_count(len(found))} of queue {name}", yes=yes, look=f"toril queue orphans {name}")
        with session.out.progress() as progress:
            progress.add_task("removing", total=None)
            try:
                removed = await queue.remove_orphaned_jobs()
            except DamagedJobsError as error:
                removed, left = error.done, error
    rows = [(job.id, job.name, ago(job.timestamp_ms, session.queues.now_ms), gist(job)) for job in jobs]
    if len(found) > len(rows):
        session.out.note(f"there are {len(found):,}, {len(rows)} are shown")
    if not found:
        session.out.note("no orphaned job: each is in a state")
    documents = [job_document(job, None, None) for job in jobs]
    document = {"queue": name, "found": len(found), "jobs": documents, "removed": removed}
    words = (
        (f"{_count(removed)} of queue {name} removed",) if remove and found else (table("id", "name", "added", "data or error", rows=rows),)
    )
    session.out.answer(document, *words)
    if left is not None:
        raise left


def _count(count: int) -> str:
    return f"{count:,} job{'' if count == 1 else 's'} in no state"
