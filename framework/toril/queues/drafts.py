"""From what a producer says to what goes on the wire: names, options laid over each other, data checked and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Generic, cast

from typing_extensions import TypeVar

from toril.errors import InvalidCallError, InvalidOptionError
from toril.queues.job_def import JobDef, uncalled
from toril.queues.option_checks import LAST_DUE_MS, check_job_name
from toril.queues.option_values import deduplication_text, encode_job_options
from toril.queues.options import NO_OPTIONS, JobOptions
from toril.queues.payloads import ANY_DATA, ANY_RESULT, DATA_DEPTH, PayloadType, check_size
from toril.wire.codec import JobRecord, check_readable, from_json, to_json
from toril.wire.jobs import NewJob
from toril.wire.option_names import FAILURE_FLAGS

DataT = TypeVar("DataT", default=Any)
ResultT = TypeVar("ResultT", default=Any)

DEFAULT_NAME: Final = "__default__"
"""The name of jobs that are added without one, as in Bull."""

MISSING: Final[Any] = object()
"""Stands for an argument that was not given."""

_NO_DATA: Final[Mapping[str, object]] = {}
_MOST_RECIPES: Final = 1_000


@dataclass(frozen=True, slots=True)
class JobDraft(Generic[DataT, ResultT]):
    """A job that has not been added yet, for `Queue.add_many`. Made by `Queue.job`."""

    name: str
    data: object
    options: JobOptions
    definition: JobDef[DataT, ResultT] | None
    parent: tuple[str, str] | None = None
    """The job that waits for this one: qualified name of its queue, and its id."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that is known beforehand about the jobs of one name or definition."""

    payload: PayloadType[Any]
    result: PayloadType[Any]
    options: JobOptions
    opts: bytes
    """`options` as they are written: most jobs add none of their own."""
    definition: JobDef[Any, Any] | None
    """Kept so that its `id` stays its own as long as this recipe is found by it."""
    _written: dict[int, tuple[JobOptions, JobOptions, bytes]] = field(default_factory=dict[int, tuple[JobOptions, JobOptions, bytes]])

    def under(self, said: JobOptions) -> tuple[JobOptions, bytes]:
        """What a job says itself, laid over `options`, and as it is written without the time at which it expires."""
        if said is NO_OPTIONS:
            return self.options, self.opts
        known = self._written.get(id(said))
        if known is None:
            if said.job_id is not None or said.deduplication is not None or said.timestamp is not None:  # nobody says that twice
                options = said.merged_over(self.options)
                return options, encode_job_options(options)
            if len(self._written) >= _MOST_RECIPES:
                self._written.clear()
            options = said.merged_over(self.options)
            known = self._written[id(said)] = (said, options, encode_job_options(options))  # `said` is kept: so its `id` stays its own
        return known[1], known[2]


@dataclass(frozen=True, slots=True)
class KnownName:
    """What a handler in this process says about the jobs of its name."""

    payload: PayloadType[Any] = ANY_DATA
    result: PayloadType[Any] = ANY_RESULT
    options: JobOptions = NO_OPTIONS
    has_timeout: bool = False
    """It bounds its jobs itself, which counts more than what definition and queue say."""


def draft_of(name: object, data: object, options: JobOptions) -> JobDraft[Any, Any]:
    """Sort out what was meant: `(definition, data)`, `(name, data)`, or `(data)` alone. `MISSING` stands for what wasn't given.

    Raises:
        InvalidOptionError: the name is none.
    """
    if isinstance(name, JobDef):
        definition: JobDef[Any, Any] = name  # pyright: ignore[reportUnknownVariableType]  # isinstance leaves the arguments open
        return JobDraft(definition.name, _NO_DATA if data is MISSING else data, options, definition)
    if data is MISSING and not isinstance(name, str):
        name, data = DEFAULT_NAME, name
    elif name is MISSING:
        name = DEFAULT_NAME
    if not isinstance(name, str) and (fix := uncalled(name)):
        raise InvalidCallError("a job", fix, "name")
    check_job_name(name)
    return JobDraft(cast("str", name), _NO_DATA if data is MISSING else data, options, None)


class Recipes:
    """The recipes of one queue, worked out once for each name and definition.

    Args:
        defaults: options of every job of the queue.
    """

    def __init__(self, defaults: JobOptions) -> None:
        if defaults.job_id is not None:
            raise InvalidOptionError("default_job_options.job_id", defaults.job_id, "all jobs would be the same one; give it to add()")
        self._defaults = defaults
        self._types: tuple[Any, ...] = (Any, Any)
        self._known: dict[str | None, KnownName] = {}
        self._recipes: dict[str | int, Recipe] = {}
        self._told: set[str] = set()

    def set_types(self, data: Any, result: Any) -> None:  # noqa: ANN401 -- annotations are no type of their own
        """The types of jobs about which nobody says more."""
        self._types = (data, result)
        self._recipes.clear()

    def learn(self, name: str | None, known: KnownName) -> None:
        """Take note of what a handler says about its jobs; None: about those of every name that has no handler of its own."""
        self._known[name] = known
        self._recipes.clear()

    def new_stranger(self, name: str) -> list[str] | None:
        """For a name that handlers of this process leave out, the first time that it is asked for: the names that they know."""
        known = self._known
        if not known or name in known or None in known or name in self._told:
            return None
        if len(self._told) < _MOST_RECIPES:
            self._told.add(name)
        return sorted(filter(None, known))

    def find(self, name: str, definition: JobDef[Any, Any] | None = None) -> Recipe:
        """The recipe for jobs of this definition, or of this name."""
        key = name if definition is None else id(definition)
        recipe = self._recipes.get(key)
        if recipe is None:
            if len(self._recipes) >= _MOST_RECIPES:  # names made up at run time must not fill the memory
                self._recipes.clear()
            recipe = self._recipes[key] = self._make(name, definition)
        return recipe

    def _make(self, name: str, definition: JobDef[Any, Any] | None) -> Recipe:
        known = self._known.get(name) or self._known.get(None) or KnownName()
        payload, result, options = known.payload, known.result, known.options
        if definition is not None:
            options = options.merged_over(definition.options)
            payload = payload if definition.payload.is_any else definition.payload
            result = result if definition.result.is_any else definition.result
        if payload.is_any:
            payload = PayloadType[Any](self._types[0])
        if result.is_any:
            result = PayloadType[Any](self._types[1], "result")
        options = options.merged_over(self._defaults)
        if known.has_timeout:
            options = options.without_timeout()
        return Recipe(payload, result, options, encode_job_options(options), definition)


def new_job(draft: JobDraft[Any, Any], recipe: Recipe, now_ms: int, *, is_letter: bool = False) -> NewJob:
    """The job as it goes on the wire. Only a `size_limit` that somebody has set bounds a dead letter, which holds more than its job.

    Raises:
        InvalidPayloadError, NotJsonError, PayloadTooLargeError: its data.
        InvalidOptionError: it would be due too far in the future.
    """
    data = recipe.payload.encode(draft.data, draft.name)
    options, opts = recipe.under(draft.options)
    timestamp_ms = now_ms if options.timestamp_ms is None else options.timestamp_ms
    if options.expires_in is not None:
        opts = encode_job_options(options, _expiry_ms(options, timestamp_ms))
    if options.size_limit is not None or not is_letter:
        check_size(data, options.size_limit, draft.name)
    if not is_letter:
        check_readable(data, f"the data of job {draft.name!r}", DATA_DEPTH)
    delay_ms = options.delay_ms or 0
    if timestamp_ms + delay_ms > LAST_DUE_MS:
        raise InvalidOptionError("delay", options.delay, "BullMQ's format ends in September 2039, and the job would be due later")
    job = NewJob(
        draft.name,
        data,
        opts,
        timestamp_ms,
        delay_ms,
        options.priority or 0,
        bool(options.lifo),
        options.job_id or "",
        b"" if options.deduplication is None else deduplication_text(options.deduplication),
    )
    if draft.parent is None:
        return job
    if options.deduplication is not None:
        raise InvalidOptionError("deduplication", options.deduplication.id, "a job with a parent can't have it")
    return linked(job, parent=draft.parent)


def linked(job: NewJob, *, job_id: str = "", parent: tuple[str, str] | None = None) -> NewJob:
    """The job with an id, if it says none itself, and as one that another job waits for (wire §2.1, §3.1.4).

    Args:
        parent: the qualified name of the other job's queue, and its id.
    """
    opts, parent_key, link = job.opts, job.parent_key, job.parent
    if job_id:
        opts = _with_member(opts, b"jobId", to_json(job_id, f"the id of job {job.name!r}"))
    if parent is not None:
        said, link = _parent_texts(parent, _failure_flags(job.opts))
        opts, parent_key = _with_member(opts, b"parent", said), f"{parent[0]}:{parent[1]}"
    return NewJob(  # `replace` would take three times as long
        job.name,
        job.data,
        opts,
        job.timestamp_ms,
        job.delay_ms,
        job.priority,
        job.lifo,
        job_id or job.job_id,
        job.deduplication,
        parent_key,
        link,
    )


def _with_member(json_object: bytes, name: bytes, value: bytes) -> bytes:
    """JSON text of an object with one member more, which it doesn't have yet."""
    return b'%b%b"%b":%b}' % (json_object[:-1], b"" if json_object == b"{}" else b",", name, value)


@lru_cache(maxsize=64)
def _failure_flags(opts: bytes) -> tuple[str, ...]:
    """What the failure of a job with these options does to its parent, as the wire has it: the children of a flow mostly share them."""
    options = cast("dict[str, Any]", from_json(opts))
    return tuple(flag for flag in FAILURE_FLAGS.values() if options.get(flag))


@lru_cache(maxsize=64)
def _parent_texts(parent: tuple[str, str], flags: tuple[str, ...]) -> tuple[bytes, bytes]:
    """What a child's options say of its parent, and what its hash does: the same for all children that a flow adds to one parent."""
    queue, job_id = parent
    what = f"the parent {job_id!r}"
    return to_json({"id": job_id, "queue": queue}, what), to_json({"id": job_id, "queueKey": queue, **dict.fromkeys(flags, True)}, what)


def _expiry_ms(options: JobOptions, timestamp_ms: int) -> int | None:
    return None if options.expires_in_ms is None else timestamp_ms + (options.delay_ms or 0) + options.expires_in_ms


def record_of(job_id: str, job: NewJob) -> JobRecord:
    """What the server has stored for a job that was just added."""
    return JobRecord(job_id, job.name, job.data, job.opts, job.timestamp_ms, job.delay_ms, job.priority)
