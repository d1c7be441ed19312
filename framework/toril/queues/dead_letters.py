"""Dead letters: jobs that failed for good, kept as jobs of another queue, to be looked at, and run again once the cause is mended.

`Queue("emails", dead_letter="dead-letter")` makes the script that fails a job for good write the letter, too: there is no moment
in which one of the two is missing. A letter is an ordinary job named `failed-job`, so Node tools see it and Node workers may
process it. Its data:

    {"originalJob": {"id", "name", "data", "opts", "attempts", "queue"}, "error": {"message", "stack"}, "failedAt"}

`queue` is the queue's name; one with another prefix than that of the letters is told by a further field, `prefix`. A job that was
cancelled leaves no letter: somebody wanted it to end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from toril.durations import Duration, to_ms
from toril.errors import DeadLetterError, InvalidOptionError, JobNotFoundError
from toril.queues.job import Job
from toril.queues.option_values import moment
from toril.queues.states import PENDING_STATES, STATES, JobState, state_key
from toril.telemetry.logs import get_logger
from toril.wire.codec import from_json_or, to_json
from toril.wire.jobs import NewJob
from toril.wire.keys import QueueKeys

if TYPE_CHECKING:
    from toril.queues.queue import Queue

log = get_logger(__name__)

FAILED_JOB: Final = "failed-job"
"""The name of all dead letters."""

PAGE: Final = 100
"""How many letters are in memory at a time where all are gone through. Each holds a job's whole data."""

_NOT_REPLAYED: Final = frozenset({"jobId", "delay", "timestamp", "parent", "repeat", "repeatJobKey", "prevMillis", "de", "expiresAt"})
"""What belonged to the old job's life: the new one is free of it (wire §11)."""

_KEPT_STATES: Final[tuple[JobState, ...]] = tuple(state for state in STATES if state != "active")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """What is known of a job that failed for good."""

    id: str
    """The letter's own id, in the queue of dead letters."""
    queue: str
    """Where the job comes from."""
    prefix: str
    """And the prefix of that queue."""
    job_id: str
    name: str
    data: Any
    options: Mapping[str, Any]
    """The job's options by their names on the wire."""
    attempts: int
    """How often it was tried."""
    message: str
    stack: str
    failed_at: str
    """ISO 8601, UTC."""


class DeadLetters:
    """The letters in one queue of dead letters: `queue.dead_letters`."""

    def __init__(self, queue: Queue[Any, Any]) -> None:
        self._queue = queue

    async def list(self, start: int = 0, end: int = -1, *, queue: str | None = None) -> Sequence[DeadLetter]:
        """The letters that nobody processes now, the oldest first; `start` and `end` are both included, -1 is the last.

        Args:
            start: the first to return.
            end: the last to return.
            queue: only those that come from this queue, of the page.
        """
        jobs = await self._queue.get_jobs(PENDING_STATES, start, end, ascending=True)
        if not jobs and (elsewhere := self._queue.letters) is not None:
            log.warning(
                "no dead letter is in this queue: those about its own jobs go to another", queue=self._queue.name, to=elsewhere.name
            )
        letters = [letter for job in jobs if (letter := read_letter(job)) is not None]
        return [letter for letter in letters if queue is None or letter.queue == queue]

    async def get(self, letter_id: str) -> DeadLetter:
        """One letter.

        Raises:
            JobNotFoundError: there is no such job.
            DeadLetterError: it is no dead letter.
        """
        job = await self._queue.get_job(letter_id)
        letter = read_letter(job)
        if letter is None:
            raise DeadLetterError(letter_id, self._queue.name, _why_unreadable(job))
        return letter

    async def replay(self, letter_id: str) -> str:
        """Put the job back into its queue, with all its attempts before it, and take the letter away; the new job's id.

        Both happen in one script. Replaying a letter twice adds the job once: for a day the second call gets the same id.

        Raises:
            JobNotFoundError: there is no such letter.
            DeadLetterError: it is no letter, or its queue doesn't exist (any more) or can't take the job; it stays where it is.
            LockLostError: a worker processes it right now.
        """
        try:
            letter = await self.get(letter_id)
        except JobNotFoundError:
            again = await self._queue.commands.replayed(letter_id)
            if again is None:
                raise
            return again
        return await self._replay(letter)

    async def replay_all(self, *, queue: str | None = None, limit: int | None = None) -> dict[str, str]:
        """Replay letters, the oldest first: the new jobs' ids by those of the letters. One that can't be replayed stays, and stops it.

        Those that arrive meanwhile stay, such as those of replayed jobs that fail again; what others replay, purge or process
        meanwhile is left to them. Letters are read 100 at a time.

        Args:
            queue: only those that come from this queue.
            limit: not more than so many.

        Raises:
            DeadLetterError: as `replay`; what was replayed before that stays so.
        """
        replayed: dict[str, str] = {}
        ids = await self._ids(PENDING_STATES)
        for start in range(0, len(ids), PAGE):
            for _, letter in await self._read(ids[start : start + PAGE], queue):
                if limit is not None and len(replayed) >= limit:
                    return replayed
                if await self._queue.find_state(letter.id) not in PENDING_STATES:
                    continue
                with suppress(JobNotFoundError):  # gone since we looked
                    replayed[letter.id] = await self._replay(letter)
        return replayed

    async def _replay(self, letter: DeadLetter) -> str:
        now_ms = self._queue.clock.now_ms()
        origin = self._origin_of(letter)
        new_id = await self._queue.commands.replay_letter(letter.id, now_ms, origin.base, _fresh_job(letter, now_ms))
        if new_id is None:
            reason = f"its queue {letter.queue!r} doesn't exist (any more): add a job there first, or purge the letter"
            raise DeadLetterError(letter.id, self._queue.name, reason)
        return new_id

    async def _ids(self, states: Sequence[JobState]) -> Sequence[str]:
        """What stands in these states now, oldest first: ids only, since the letters may be too many and too large for one reading."""
        await self._queue.open()
        commands = self._queue.commands
        ids: dict[str, None] = {}
        for state in states:
            ids.update(dict.fromkeys(await commands.list_ids(state_key(state), 0, -1, ascending=True)))
        return tuple(ids)

    async def _read(self, ids: Sequence[str], queue: str | None) -> Sequence[tuple[Job[Any, Any], DeadLetter]]:
        """Those that are letters, and still there; only those that come from `queue` if that is set."""
        jobs = [Job[Any, Any](self._queue, record) for record in await self._queue.commands.find_jobs(ids) if record is not None]
        letters = ((job, read_letter(job)) for job in jobs)
        return [(job, letter) for job, letter in letters if letter is not None and queue in (None, letter.queue)]

    def _origin_of(self, letter: DeadLetter) -> QueueKeys:
        """Where the job of a letter goes back to."""
        fix = "purge the letter, and add its job to the right queue yourself"
        try:
            origin = QueueKeys(letter.prefix, letter.queue)
        except InvalidOptionError as error:
            reason = f"it names the queue {letter.queue!r} (prefix {letter.prefix!r}), which can't be: {error.reason}; {fix}"
            raise DeadLetterError(letter.id, self._queue.name, reason) from error
        if not self._queue.keys.shares_slot_with(origin):
            reason = (
                f"its queue {letter.queue!r} lies in another slot, since the hash tag of the prefix {letter.prefix!r} is another; {fix}"
            )
            raise DeadLetterError(letter.id, self._queue.name, reason)
        return origin

    async def purge(self, *letter_ids: str) -> Sequence[str]:
        """Remove these letters for good; the ids of those that were removed. One that a worker processes stays.

        What is no letter (any more) stays as it is. Without an id nothing is removed: `purge_all` removes all.
        """
        removed: list[str] = []
        for letter_id in dict.fromkeys(letter_ids):
            job = await self._queue.find_job(letter_id)
            if job is not None and read_letter(job) is not None and await self._queue.remove(letter_id):
                removed.append(letter_id)
        return removed

    async def purge_all(self, *, older_than: Duration | None = None, queue: str | None = None) -> Sequence[str]:
        """Remove all letters for good; the ids of those that were removed. One that a worker processes stays.

        Those that arrive meanwhile stay, too. Letters are read 100 at a time.

        Args:
            older_than: only those that failed so long ago.
            queue: only those that come from this queue.
        """
        until_ms = None if older_than is None else self._queue.clock.now_ms() - to_ms(older_than, "older_than")
        removed: list[str] = []
        ids = await self._ids(_KEPT_STATES)
        for start in range(0, len(ids), PAGE):
            for job, letter in await self._read(ids[start : start + PAGE], queue):
                if (until_ms is None or job.timestamp_ms <= until_ms) and await self._queue.remove(letter.id):
                    removed.append(letter.id)
        return removed


def read_letter(job: Job[Any, Any]) -> DeadLetter | None:
    """What a job of a queue of dead letters tells; None if it is no letter."""
    content = _object(from_json_or(job.record.data, None))
    original, error = _object(content.get("originalJob")), _object(content.get("error"))
    if job.name != FAILED_JOB or not isinstance(original.get("name"), str) or not isinstance(original.get("queue"), str):
        return None
    attempts = original.get("attempts")
    return DeadLetter(
        id=job.id,
        queue=original["queue"],
        prefix=str(original.get("prefix") or job.queue.prefix),
        job_id=str(original.get("id", "")),
        name=original["name"],
        data=original.get("data"),
        options=_object(original.get("opts")),
        attempts=attempts if isinstance(attempts, int) else 0,
        message=str(error.get("message", "")),
        stack=str(error.get("stack", "")),
        failed_at=str(content.get("failedAt", "")),
    )


def _why_unreadable(job: Job[Any, Any]) -> str:
    fix = "take it away with queue.remove(…) if nobody needs it"
    original = _object(_object(from_json_or(job.record.data, None)).get("originalJob"))
    if job.name != FAILED_JOB or not original:
        return f"it is a job named {job.name!r} without the data of a dead letter; {fix}"
    field = "queue" if not isinstance(original.get("queue"), str) else "name"
    return f"its data has {original.get(field)!r} as originalJob.{field}, where a text belongs; {fix}"


def letter_about(job: Job[Any, Any], message: str, stacks: bytes, letters: Queue[Any, Any]) -> NewJob:
    """The letter about a job that fails for good now, for the queue `letters`. `stacks`: JSON, of all attempts, the latest last."""
    record, now_ms = job.record, job.queue.clock.now_ms()
    all_stacks = from_json_or(stacks, [])
    original = {
        "id": record.job_id.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        "name": record.name,
        "data": from_json_or(record.data, record.data.decode("utf-8", "replace")),
        "opts": from_json_or(record.opts, {}),
        "attempts": record.attempts_made + 1,
        "queue": job.queue.name,
    }
    if job.queue.prefix != letters.prefix:
        original["prefix"] = job.queue.prefix
    error = {"message": message, "stack": all_stacks[-1] if all_stacks else ""}
    failed_at = moment(now_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    draft = letters.job(FAILED_JOB, {"originalJob": original, "error": error, "failedAt": failed_at})
    return letters.encode(draft, is_letter=True)


def _fresh_job(letter: DeadLetter, now_ms: int) -> NewJob:
    options = {name: value for name, value in letter.options.items() if name not in _NOT_REPLAYED}
    expires_in = options.get("expiresIn")
    if isinstance(expires_in, int):
        options["expiresAt"] = now_ms + expires_in
    priority = options.get("priority")
    return NewJob(
        letter.name,
        to_json(letter.data, f"the data of dead letter {letter.id}"),
        to_json({"attempts": 0, **options}, f"the options of dead letter {letter.id}"),
        now_ms,
        priority=priority if isinstance(priority, int) and priority > 0 else 0,
        lifo=options.get("lifo") is True,
    )


def _object(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
