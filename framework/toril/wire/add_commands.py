"""Adding jobs to one queue: several with one call, each with those that are added at the same moment, or a tree of them.

add_one(a) ─┐
add_one(b) ─┼─ end of this turn of the event loop ─► one call of the script ─► each its own answer
add_one(c) ─┘
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import secrets
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Final, TypeAlias

from redis import exceptions as redis_errors

from toril.errors import AddOutcomeUnknownError, ParentError
from toril.wire import replies, scripts
from toril.wire.codec import id_text
from toril.wire.connection import Server
from toril.wire.jobs import Added, FlowNode, NewJob
from toril.wire.keys import QueueKeys
from toril.wire.line import ReplyLostError
from toril.wire.reads import QueueReads
from toril.wire.refusals import Argument, refusal

ADD_BATCH: Final = 1_000
"""How many jobs one call of the add script takes; more are split, so that no script holds the server for long."""

CALL_BYTES: Final = 4 * 1024 * 1024
"""How many bytes of data and options they may have together, for the same reason; one that has more goes alone."""

SHARED_BYTES: Final = 1024 * 1024
"""How many bytes of data jobs may have together that share a call only since they are added at the same moment: a script of 100 MB holds
the server for 290 ms, and a hundred of 1 MB for 1.3 ms each (measured)."""

Single: TypeAlias = tuple[NewJob, "asyncio.Future[Added]"]


class AddCommands(QueueReads):
    """The part of `QueueCommands` that adds."""

    def __init__(self, server: Server, keys: QueueKeys) -> None:
        super().__init__(server, keys)
        self._singles: tuple[asyncio.AbstractEventLoop, list[Single]] | None = None
        """What is added by itself in this turn of the event loop."""
        self._sending: set[asyncio.Task[None]] = set()
        self._adds_name: Final = f"adds to {keys.queue}"

    async def add(self, jobs: Sequence[NewJob], *, idempotent: bool = False) -> list[Added]:
        """Add jobs in order and return their ids; a job whose custom id exists already is left as it is, and of one that its
        deduplication keeps out the id is that of the job that stands for it.

        Delays count from the jobs' timestamps, as in BullMQ.

        Raises:
            AddOutcomeUnknownError: the reply was lost. The add is not repeated, since that could add twice; an `idempotent` one is, for
                some seconds: the server knows by a token whether it has done it, for 10 minutes.
            ServerUnreachableError: nothing was sent.
            ParentError: a job can't have its parent; it tells which of the others were added.
        """
        added: list[Added] = []
        refused: ParentError | None = None
        parts = list(_parts(jobs, CALL_BYTES))
        if len(parts) > 1:
            await self._check_parents(jobs)
        for part in parts:
            start, batch = part.start, jobs[part]
            token = secrets.token_hex(12) if idempotent else ""
            try:
                reply = await self._run_add(token, batch, alone=False, repeatable=idempotent)
            except ReplyLostError as error:
                raise AddOutcomeUnknownError(self.keys.queue, len(jobs) - start, error.reason) from error
            if not isinstance(reply[0], int):
                added += map(_added, reply)
                continue
            code, place = reply[1], int(reply[0])
            problem = replies.parent_error(code, batch[place].parent_key, start + place, start)
            if code == replies.MISSING_PARENT:  # it has gone since it was looked at, and nothing of this call was added
                raise problem from refused
            refused = refused or problem  # all others of this call were added: so are those of the calls to come
        if refused is not None:
            raise refused
        return added

    async def _check_parents(self, jobs: Sequence[NewJob]) -> None:
        """The script says of a parent that is gone only once it comes to that job: the calls before it would have added theirs."""
        places: dict[str, int] = {}
        for place, job in enumerate(jobs):
            if job.parent_key:
                places.setdefault(job.parent_key, place)
        keys = [*places]
        for start in range(0, len(keys), ADD_BATCH):
            some = keys[start : start + ADD_BATCH]
            if await self._commands.call("EXISTS", *some, repeatable=True) == len(some):
                continue
            for key in some:
                if not await self._commands.call("EXISTS", key, repeatable=True):
                    raise replies.parent_error(replies.MISSING_PARENT, key, places[key])

    async def add_one(self, job: NewJob) -> Added:
        """The same for one job, which shares its round trip with those that others add before the event loop turns: what becomes of one
        has nothing to do with the others.
        """
        loop = asyncio.get_running_loop()
        gathered = self._singles  # read once: a loop in another thread may begin its own meanwhile
        if gathered is None or gathered[0] is not loop:
            gathered = self._singles = (loop, [])
            self._begin(loop, self._send_singles(gathered))
        answer: asyncio.Future[Added] = loop.create_future()
        gathered[1].append((job, answer))
        return await answer

    def _begin(self, loop: asyncio.AbstractEventLoop, adds: Coroutine[Any, Any, None]) -> None:
        sending = loop.create_task(adds, name=self._adds_name, context=contextvars.Context())  # it is nobody's own
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def _send_singles(self, gathered: tuple[asyncio.AbstractEventLoop, list[Single]]) -> None:
        loop, singles = gathered
        if self._singles is gathered:
            self._singles = None
        waited_for = [single for single in singles if not single[1].done()]  # who was cancelled by now adds nothing
        mine: list[Single] = []
        for part in _parts([job for job, _ in waited_for], SHARED_BYTES):
            batch = waited_for[part]
            if mine:
                self._begin(loop, self._add_singles(batch))
            else:
                mine = batch
        if mine:
            await self._add_singles(mine)

    async def _add_singles(self, batch: list[Single]) -> None:
        try:
            reply = await self._run_add("", [job for job, _ in batch], alone=True)
        except BaseException as error:  # noqa: BLE001 -- whoever waits gets it, even the end of the whole loop
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(self._single_error(error))
            return
        for (job, answer), one in zip(batch, reply, strict=True):
            if answer.done():  # its caller was cancelled
                continue
            if isinstance(one, int):
                answer.set_exception(replies.parent_error(one, job.parent_key, 0))
            elif one[0] == b"":
                answer.set_exception(self._refusal(one[1]))
            else:
                answer.set_result(_added(one))

    def _single_error(self, error: BaseException) -> BaseException:
        if isinstance(error, ReplyLostError):
            unknown = AddOutcomeUnknownError(self.keys.queue, 1, error.reason)
            unknown.__cause__ = error
            return unknown
        return copy.copy(error)  # one for each: raising it writes its traceback

    def _refusal(self, words: bytes) -> Exception:
        """What stopped one of several adds, as the server would have said it of that one alone."""
        command = ("EVALSHA", scripts.load("add").sha1, len(self._bases), *self._bases)
        return refusal(str(self._server.address), command, redis_errors.ResponseError(words.decode("utf-8", "replace")))

    async def _run_add(self, token: str, jobs: Sequence[NewJob], *, alone: bool, repeatable: bool = False) -> list[Any]:
        args: list[Argument] = [token, 1 if alone else 0]
        for run in _runs(jobs):
            job = run[0]
            args += (len(run), job.name, job.opts, job.timestamp_ms, job.delay_ms, job.priority, 1 if job.lifo else 0)
            args += (job.job_id, job.deduplication, job.parent_key, job.parent)
            args += [one.data for one in run]
        reply: list[Any] = await self._commands.run(scripts.load("add"), self._bases, *args, repeatable=repeatable)
        return reply

    async def add_flow(self, jobs: Sequence[FlowNode], now_ms: int, *, idempotent: bool = False) -> list[str | None]:
        """Add a tree of jobs that wait for each other, all or none, in the order of its levels; this is the root's queue.

        Returns:
            Their ids; None for a child that was not added, since a job with its id has another parent.

        Raises:
            ParentError: the root's own parent doesn't exist.
            AddOutcomeUnknownError, ServerUnreachableError: as `add`.
        """
        args: list[Argument] = [now_ms, secrets.token_hex(12) if idempotent else ""]
        for node in jobs:
            job = node.job
            args += (node.base, job.name, job.data, job.opts, job.timestamp_ms, job.delay_ms, job.priority, 1 if job.lifo else 0)
            args += (job.job_id, job.deduplication, job.parent_key, job.parent, 1 if node.has_children else 0)
        try:
            reply: Any = await self._commands.run(scripts.load("add_flow"), self._bases, *args, repeatable=idempotent)
        except ReplyLostError as error:
            raise AddOutcomeUnknownError(self.keys.queue, len(jobs), error.reason) from error
        if isinstance(reply, int):
            raise replies.parent_error(reply, jobs[0].job.parent_key, 0)
        return [None if isinstance(one, int) else id_text(one) for one in reply]


def _parts(jobs: Sequence[NewJob], most_bytes: int) -> Iterator[slice]:
    """In their order, cut where the next one would be too many or too much."""
    start = size = 0
    for place, job in enumerate(jobs):
        more = len(job.data) + len(job.opts)
        size += more
        if place > start and (place - start == ADD_BATCH or size > most_bytes):
            yield slice(start, place)
            start, size = place, more
    if jobs:
        yield slice(start, len(jobs))


def _runs(jobs: Sequence[NewJob]) -> Iterator[list[NewJob]]:
    """Neighbours that differ in nothing but their data, as most of one call do: each argument costs both sides some 100 ns (measured)."""
    run: list[NewJob] = []
    for job in jobs:
        if run and not job.is_like(run[0]):
            yield run
            run = []
        run.append(job)
    if run:
        yield run


def _added(one: Any) -> Added:  # noqa: ANN401 -- a part of the script's answer
    return Added(id_text(one), True) if isinstance(one, bytes) else Added(id_text(one[0]), False)
