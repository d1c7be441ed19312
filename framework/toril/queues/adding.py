"""Adding jobs to a queue: one or many, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Generic, overload

from typing_extensions import TypeVar, Unpack

from toril.calls import explained, no_such_option
from toril.clock import Clock
from toril.errors import InvalidCallError, InvalidOptionError, TorilError
from toril.queues.drafts import MISSING, JobDraft, KnownName, Recipe, Recipes, draft_of, new_job, record_of
from toril.queues.job import Job
from toril.queues.job_def import JobDef
from toril.queues.listeners import Listeners
from toril.queues.options import NO_OPTIONS, JobOptionFields, JobOptions, options_said
from toril.queues.payloads import ANY_DATA, ANY_RESULT, PayloadType
from toril.spelling import near
from toril.telemetry.hooks import HOOKS, AddOperation
from toril.telemetry.logs import get_logger
from toril.wire.codec import JobRecord
from toril.wire.commands import QueueCommands
from toril.wire.jobs import Added, NewJob
from toril.wire.keys import QueueKeys

log = get_logger(__name__)

_IN_DRAFTS: Final = dict.fromkeys(JobOptionFields.__annotations__, "each job has its own: give it to queue.job")

_OF_THE_CALL: Final = ("options", "parent", "idempotent")

DataT = TypeVar("DataT", default=Any)
ResultT = TypeVar("ResultT", default=Any)
D = TypeVar("D")
R = TypeVar("R")


class QueueAdding(Generic[DataT, ResultT]):
    """The adding part of `Queue`."""

    keys: QueueKeys
    prefix: str
    clock: Clock
    listeners: Listeners
    on_added: list[Callable[[NewJob, str], object]]
    _recipes: Recipes

    @overload
    def job(
        self,
        name: JobDef[D, R],
        data: D | Mapping[str, object],
        *,
        options: JobOptions | None = None,
        parent: Job[Any, Any] | None = None,
        **fields: Unpack[JobOptionFields],
    ) -> JobDraft[D, R]: ...

    @overload
    def job(
        self,
        name: JobDef[None, R],
        *,
        options: JobOptions | None = None,
        parent: Job[Any, Any] | None = None,
        **fields: Unpack[JobOptionFields],
    ) -> JobDraft[None, R]: ...

    @overload
    def job(
        self,
        name: str,
        data: DataT | Mapping[str, object] = ...,
        *,
        options: JobOptions | None = None,
        parent: Job[Any, Any] | None = None,
        **fields: Unpack[JobOptionFields],
    ) -> JobDraft[DataT, ResultT]: ...

    @overload
    def job(
        self,
        data: DataT | Mapping[str, object],
        /,
        *,
        options: JobOptions | None = None,
        parent: Job[Any, Any] | None = None,
        **fields: Unpack[JobOptionFields],
    ) -> JobDraft[DataT, ResultT]: ...

    @explained("Queue.job")
    def job(
        self,
        name: Any = MISSING,
        data: Any = MISSING,
        *,
        options: JobOptions | None = None,
        parent: Job[Any, Any] | None = None,
        **fields: Unpack[JobOptionFields],
    ) -> JobDraft[Any, Any]:
        """A job for `add_many`; takes what `add` takes, and sends nothing. The data is checked when it is added."""
        return self._draft(name, data, options, parent, fields)

    @overload
    async def add(
        self,
        name: JobDef[D, R],
        data: D | Mapping[str, object],
        *,
        options: JobOptions | None = None,
        parent: Job[Any, Any] | None = None,
        idempotent: bool = False,
        **fields: Unpack[JobOptionFields],
    ) -> Job[D, R]: ...

    @overload
    async def add(
        self,
        name: JobDef[None, R],
        *,
        options: JobOptions | None = None,
        parent: Job[Any, Any] | None = None,
        idempotent: bool = False,
        **fields: Unpack[JobOptionFields],
    ) -> Job[None, R]: ...

    @overload
    async def add(
        self,
        name: str,
        data: DataT | Mapping[str, object] = ...,
        *,
        options: JobOptions | None = None,
        parent: Job[Any, Any] | None = None,
        idempotent: bool = False,
        **fields: Unpack[JobOptionFields],
    ) -> Job[DataT, ResultT]: ...

    @overload
    async def add(
        self,
        data: DataT | Mapping[str, object],
        /,
        *,
        options: JobOptions | None = None,
        parent: Job[Any, Any] | None = None,
        idempotent: bool = False,
        **fields: Unpack[JobOptionFields],
    ) -> Job[DataT, ResultT]: ...

    @explained("Queue.add")
    async def add(
        self,
        name: Any = MISSING,
        data: Any = MISSING,
        *,
        options: JobOptions | None = None,
        parent: Job[Any, Any] | None = None,
        idempotent: bool = False,
        **fields: Unpack[JobOptionFields],
    ) -> Job[Any, Any]:
        """Add a job.

        Args:
            name: a definition, or the job's name; `add(data)` without one uses the name `__default__`.
            data: a value of the definition's type, or a mapping that fits it; for a mere name whatever JSON can hold. If this
                process knows the type that the name's handler takes, the data must fit it, too.
            options: how the job is treated; laid over what handler, definition and queue say.
            parent: a job, in whatever state, that is to wait for this one, too: see `WaitingChildrenError`.
            idempotent: send it again if the reply is lost (for 5 s), and let the server see to it that it adds once. Costs a small key
                that lives for 10 minutes.
            fields: the same as keywords, laid over `options`: `delay="5m", attempts=3, backoff=exponential("1s")`.

        Returns:
            The job. If its `job_id` exists already, nothing was added and the existing job stays as it is; `refresh()` reads it.

        Raises:
            InvalidOptionError, InvalidPayloadError, NotJsonError, PayloadTooLargeError: nothing was sent.
            ParentError: the parent doesn't exist (nothing was added), or a job with this id has another one.
            ServerUnreachableError: nothing was added.
            AddOutcomeUnknownError: the reply was lost, so the job may or may not have been added. Adding again with the same
                `job_id` is safe; with `idempotent` that was tried already, and the server did not come back in time.
        """
        try:
            draft = self._draft(name, data, options, parent, fields)
        except InvalidCallError as error:
            if near(error.option, _OF_THE_CALL):  # no option of a job, but of this call
                raise no_such_option("Queue.add", error.option, _OF_THE_CALL, {}) from None
            raise
        if idempotent:
            return (await self._add([draft], idempotent))[0]
        commands = await self._use()
        encoded = self._encode(0, 1, draft, self.clock.now_ms())
        if HOOKS.tracer is None:
            return self._tell_added([draft], [encoded], [await commands.add_one(encoded)])[0]
        with HOOKS.tracer.adding("add", self.keys.queue, [encoded.name]) as span:
            encoded = replace(encoded, opts=span.carried(encoded.opts))
            added = await commands.add_one(encoded)
            span.added([added.job_id])
        return self._tell_added([draft], [encoded], [added])[0]

    @explained("Queue.add_many", _IN_DRAFTS)
    async def add_many(self, jobs: Iterable[JobDraft[D, R]], *, idempotent: bool = False) -> list[Job[D, R]]:
        """Add many jobs in order: `add_many([queue.job("a", {...}), queue.job("b", {...})])`. One round trip takes 1,000, or 4 MB.

        All are checked before the first is sent, so that a bad one leaves nothing behind. Raises what `add` raises.
        """
        return await self._add(list(jobs), idempotent)

    async def _add(self, drafts: Sequence[JobDraft[D, R]], idempotent: bool) -> list[Job[D, R]]:
        commands = await self._use()
        now_ms = self.clock.now_ms()
        encoded = [self._encode(index, len(drafts), draft, now_ms) for index, draft in enumerate(drafts)]
        if not encoded:
            return []
        if HOOKS.tracer is None:
            return self._tell_added(drafts, encoded, await commands.add(encoded, idempotent=idempotent))
        operation: AddOperation = "add" if len(encoded) == 1 else "addBulk"
        with HOOKS.tracer.adding(operation, self.keys.queue, [job.name for job in encoded]) as span:
            encoded = [replace(job, opts=span.carried(job.opts)) for job in encoded]
            added = await commands.add(encoded, idempotent=idempotent)
            span.added([one.job_id for one in added])
        return self._tell_added(drafts, encoded, added)

    def _tell_added(self, drafts: Sequence[JobDraft[Any, Any]], encoded: Sequence[NewJob], added: Sequence[Added]) -> list[Job[Any, Any]]:
        if self.on_added:
            for one, job in zip(added, encoded, strict=True):
                for note in tuple(self.on_added):
                    note(job, one.job_id)
        if self.listeners.hears("waiting"):
            for one, job in zip(added, encoded, strict=True):
                if one.is_new and job.delay_ms <= 0:
                    self.listeners.tell("waiting", one.job_id)
        return [self._job(record_of(one.job_id, job), draft.definition) for one, job, draft in zip(added, encoded, drafts, strict=True)]

    def encode(self, draft: JobDraft[Any, Any], now_ms: int | None = None, *, is_letter: bool = False) -> NewJob:
        """What `add_many` would send for this draft: checked, with all options laid over each other. Raises what `add` raises."""
        return self._encode(0, 1, draft, self.clock.now_ms() if now_ms is None else now_ms, is_letter=is_letter)

    def job_of(self, job_id: str, sent: NewJob, draft: JobDraft[D, R]) -> Job[D, R]:
        """The job that was made of a draft and has got this id."""
        return self._job(record_of(job_id, sent), draft.definition)

    def register_payload(
        self,
        name: str | None,
        payload: PayloadType[Any] = ANY_DATA,
        *,
        result: PayloadType[Any] = ANY_RESULT,
        options: JobOptions = NO_OPTIONS,
        has_timeout: bool = False,
    ) -> None:
        """Tell what the handler of this name in this process takes and returns, and with which options its jobs are added.

        From then on `add` checks the data of jobs of this name, and jobs that are read have it as this type. Without a name
        the handler of every name is meant that has none of its own. With `has_timeout` the handler bounds its jobs itself, so
        that only a timeout given to `add` is stored, and not that of a definition or of the queue.
        """
        self._recipes.learn(name, KnownName(payload, result, options, has_timeout))

    def _draft(
        self, name: object, data: object, options: JobOptions | None, parent: Job[Any, Any] | None, fields: JobOptionFields
    ) -> JobDraft[Any, Any]:
        draft = draft_of(name, data, options_said(options, fields))
        if parent is None:
            return draft
        if not self.keys.shares_slot_with(parent.queue.keys):
            reason = (
                f"both queues must lie in one slot, and their prefixes {self.prefix!r} and {parent.queue.prefix!r} have different hash tags"
            )
            raise InvalidOptionError("parent", parent.id, reason)
        return replace(draft, parent=(parent.queue.keys.qualified_name, parent.id))

    def _encode(self, index: int, count: int, draft: JobDraft[Any, Any], now_ms: int, *, is_letter: bool = False) -> NewJob:
        if not isinstance(draft, JobDraft):  # pyright: ignore[reportUnnecessaryIsInstance]  # untyped callers
            raise InvalidCallError("Queue.add_many", "takes what Queue.job makes: write queue.job(name, data, attempts=3)", "jobs")
        if (handled := self._recipes.new_stranger(draft.name)) is not None:
            # No error: a newer or another application may handle it. But most often it is a slip, and its workers will put it back.
            log.warning(
                "no handler of this application takes jobs of this name", queue=self.keys.queue, job_name=draft.name, handled=handled
            )
        try:
            return new_job(draft, self._recipe(draft.name, draft.definition), now_ms, is_letter=is_letter)
        except TorilError as error:
            if count > 1:
                error.add_note(f"in entry {index} of add_many, a job named {draft.name!r}; none of the {count} jobs was added")
            raise

    def _recipe(self, name: str, definition: JobDef[Any, Any] | None) -> Recipe:
        raise NotImplementedError

    def _job(self, record: JobRecord, definition: JobDef[Any, Any] | None = None) -> Job[Any, Any]:
        raise NotImplementedError

    async def _use(self) -> QueueCommands:
        raise NotImplementedError
