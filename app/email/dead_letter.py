"""Mails that failed for good: told of, looked at, sent again once the cause is mended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from app.email.jobs import DEAD_LETTER
from toril import Duration, InjectQueue, Queue, get_logger, on_global_queue_added
from toril.queues.dead_letters import FAILED_JOB, DeadLetter
from toril.queues.events import AddedEvent

log = get_logger(__name__)


class DeadLetterService:
    """The worker writes the letters, in the same step in which a job fails for good; this reads them."""

    def __init__(self, letters: Annotated[Queue, InjectQueue(DEAD_LETTER)]) -> None:
        self.letters = letters

    @on_global_queue_added(DEAD_LETTER)
    async def moved(self, event: AddedEvent) -> None:
        if event.name != FAILED_JOB:
            return
        letter = await self.letters.dead_letters.get(event.job_id)
        log.warning(
            "a job has moved to the dead letters",
            letter_id=letter.id,
            from_queue=letter.queue,
            job_id=letter.job_id,
            job_name=letter.name,
            attempts=letter.attempts,
            reason=letter.message,
        )

    async def list(self, start: int = 0, end: int = -1) -> Sequence[DeadLetter]:
        """The letters, the oldest first."""
        return await self.letters.dead_letters.list(start, end)

    async def replay(self, letter_id: str) -> str:
        """Put a job back into its queue with all its attempts; the new job's id. Doing it twice adds it once.

        Raises:
            JobNotFoundError: there is no such letter. DeadLetterError: its queue is gone.
        """
        new_id = await self.letters.dead_letters.replay(letter_id)
        log.info("dead letter replayed", letter_id=letter_id, job_id=new_id)
        return new_id

    async def purge(self, *letter_ids: str) -> int:
        """Remove these letters for good; how many were removed."""
        return len(await self.letters.dead_letters.purge(*letter_ids))

    async def purge_all(self, *, older_than: Duration | None = None) -> int:
        """Remove all letters for good, or those that are so old; how many were removed."""
        return len(await self.letters.dead_letters.purge_all(older_than=older_than))
