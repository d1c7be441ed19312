"""Job schedulers: rules that put a job in the queue again and again, once for the whole fleet, as Node's do.

The job of the next time, the *iteration*, always waits in the queue. Whoever claims it adds the one that follows before running
it, so a crash doesn't end a schedule; the server adds it once, however many try.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from toril.calls import explained, explained_class
from toril.durations import Duration, optional_ms
from toril.errors import InvalidOptionError, SchedulerBusyError, SchedulerNotFoundError
from toril.queues.cron import Cron
from toril.queues.option_checks import check_text
from toril.queues.option_values import encode_job_options, moment, stored_options
from toril.queues.options import NO_OPTIONS, JobOptions, check_job_options
from toril.telemetry.hooks import HOOKS
from toril.telemetry.logs import get_logger
from toril.wire.codec import from_json, from_json_or, to_json
from toril.wire.jobs import NewJob
from toril.wire.reads import number_or
from toril.wire.refusals import Argument
from toril.wire.scheduler_commands import LATER, NAME_TAKEN, Iteration, SchedulerCommands, SchedulerUpsert

if TYPE_CHECKING:
    from toril.queues.job import Job
    from toril.queues.queue import Queue

log = get_logger(__name__)

_OURS: Final = frozenset({"repeatJobKey", "jobId", "delay", "timestamp", "repeat", "prevMillis", "expiresIn", "expiresAt", "de"})
"""What an iteration's options hold besides the template's. (They don't expire: the queue's default for that isn't meant for them.)"""

_IN_OPTIONS: Final = {name: f"it is an option of the jobs: write options=JobOptions({name}=…)" for name in JobOptions.__dataclass_fields__}

_NOT_IN_TEMPLATES: Final = ("job_id", "delay", "timestamp", "expires_in", "deduplication")

_MOST_TAKEN: Final = 32
"""How many times of a pattern in a row may have no run, since something else has the name."""

_RULE: Final = {"cron": 'a cron expression is pattern="0 * * * *"', "timezone": "the zone is tz", "time_zone": "the zone is tz"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobScheduler:
    """A job scheduler as it is in the server."""

    id: str
    name: str
    """Name of its jobs."""
    next_ms: int
    """When its current iteration is or was due."""
    iterations: int
    """How many it has made so far."""
    every_ms: int | None
    pattern: str | None
    tz: str | None
    limit: int | None
    start_ms: int | None
    end_ms: int | None
    offset_ms: int | None
    data: Any
    options: JobOptions

    @property
    def next_at(self) -> datetime:
        """`next_ms`, in UTC."""
        return moment(self.next_ms)


@explained_class(fixes=_RULE)
@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRule:
    """When a scheduler's jobs run.

    Raises:
        InvalidOptionError, InvalidDurationError, InvalidCronError
    """

    every: Duration | None = None
    """Once an interval, beginning now unless `start` or `offset` say otherwise."""
    pattern: str | None = None
    """A cron expression: five fields, or six with seconds first."""
    tz: str | None = None
    """The pattern's zone; not set: UTC."""
    limit: int | None = None
    """How many runs in all."""
    start: datetime | None = None
    end: datetime | None = None
    offset: Duration | None = None
    """An interval's runs are this long behind its multiples since 1970."""
    immediately: bool = False
    """A pattern's first run is now."""

    def __post_init__(self) -> None:
        if (self.every is None) == (self.pattern is None):
            raise InvalidOptionError("every, pattern", (self.every, self.pattern), "give one of the two")
        if self.every is not None and not optional_ms(self.every, "every"):
            raise InvalidOptionError("every", self.every, "an interval must be longer than nothing")
        if self.pattern is not None:
            Cron(self.pattern, self.tz or "UTC")
        elif self.tz is not None:
            raise InvalidOptionError("tz", self.tz, "only a pattern has a zone")
        if self.offset_ms is not None and self.every is None:
            raise InvalidOptionError("offset", self.offset, "only an interval has an offset: write the time into the pattern")
        if self.immediately and (self.start is not None or self.every is not None):
            raise InvalidOptionError("immediately", True, "only a pattern without a start can begin at once; an interval does anyway")
        if self.limit is not None and self.limit < 1:
            raise InvalidOptionError("limit", self.limit, "write how many runs there may be, at least 1")
        for name in ("start", "end"):
            JobOptions(timestamp=getattr(self, name))  # checks that it knows its zone

    @property
    def every_ms(self) -> int:
        return optional_ms(self.every, "every") or 0

    @property
    def offset_ms(self) -> int | None:
        return optional_ms(self.offset, "offset")

    @property
    def start_ms(self) -> int | None:
        return JobOptions(timestamp=self.start).timestamp_ms

    @property
    def end_ms(self) -> int | None:
        return JobOptions(timestamp=self.end).timestamp_ms

    def wire(self) -> dict[str, Any]:
        """The rule by its wire names, without what isn't set."""
        values = {
            "every": self.every_ms or None, "pattern": self.pattern, "tz": self.tz, "limit": self.limit,
            "startDate": self.start_ms, "endDate": self.end_ms,
        }  # fmt: skip
        return {name: value for name, value in values.items() if value is not None}


class JobSchedulers:
    """The job schedulers of one queue: `queue.job_schedulers`."""

    def __init__(self, queue: Queue[Any, Any]) -> None:
        self._queue = queue

    @explained(fixes=_IN_OPTIONS)
    async def upsert(
        self, scheduler_id: str, rule: ScheduleRule, *, name: str | None = None, data: object = None, options: JobOptions = NO_OPTIONS
    ) -> Job[Any, Any]:
        """Make a scheduler, or give the one with this id another rule and template; the job that runs next.

        Args:
            scheduler_id: any text; the same id is the same scheduler, in every process.
            rule: when.
            name: name of the jobs; by default the scheduler's id.
            data: their data.
            options: theirs; an id, a delay, a timestamp or `expires_in` can't be among them.

        Raises:
            InvalidOptionError: of the options, or an end that has passed, or comes before the first run of a pattern; or the id is that of
                another scheduler, a colon, and a time to come in ms, so that it would get the name of that one's run at that time, and
                wasn't there before that one.
            SchedulerBusyError: a job stands where the next iteration belongs, and none is pending yet.
        """
        check_job_options("options", options)
        if not isinstance(rule, ScheduleRule):  # pyright: ignore[reportUnnecessaryIsInstance]  # untyped callers
            raise InvalidOptionError("rule", rule, 'write ScheduleRule(every="5m") or ScheduleRule(pattern="0 * * * *")')
        check_text("scheduler_id", scheduler_id)
        now_ms = self._queue.clock.now_ms()
        for option in _NOT_IN_TEMPLATES:
            if getattr(options, option) is not None:
                raise InvalidOptionError(option, getattr(options, option), "the jobs of a scheduler can't have it: leave it out")
        if rule.end_ms is not None and rule.end_ms <= now_ms:
            raise InvalidOptionError("end", rule.end, "it has passed")
        first_ms = _first_ms(rule, now_ms)
        if rule.end_ms is not None and first_ms > rule.end_ms:
            raise InvalidOptionError("end", rule.end, "the pattern's first run would come after it")
        job = self._queue.encode(self._queue.job(name or scheduler_id, {} if data is None else data, options=options))
        if HOOKS.tracer is None:
            job_id = await self._upsert(scheduler_id, rule, job, options, now_ms, first_ms)
        else:
            with HOOKS.tracer.adding("add", self._queue.name, [job.name], scheduler_id=scheduler_id) as span:
                traced = replace(job, opts=span.carried(job.opts))
                job_id = await self._upsert(scheduler_id, rule, traced, options, now_ms, first_ms)
                span.added([job_id])
        return await self._queue.get_job(job_id)

    async def _upsert(self, scheduler_id: str, rule: ScheduleRule, job: NewJob, options: JobOptions, now_ms: int, first_ms: int) -> str:
        """Write it; the id of its first job."""
        merged = _template(job.opts, options)
        record: dict[str, Argument] = {"name": job.name, **rule.wire()}
        if options != NO_OPTIONS:
            record["opts"] = to_json(_template(encode_job_options(options), options), "the options of a scheduler")
        if job.data != b"{}":
            record["data"] = job.data
        repeat = rule.wire() if not rule.offset_ms else {"offset": rule.offset_ms, **rule.wire()}
        upsert = SchedulerUpsert(
            scheduler_id, job.name, job.data, Iteration(scheduler_id, merged, repeat), record,
            every_ms=rule.every_ms, next_ms=first_ms, start_ms=rule.start_ms or 0, offset_ms=rule.offset_ms or None,
        )  # fmt: skip
        commands = await self._commands()
        made = await commands.upsert_scheduler(now_ms, upsert)
        for next_ms in _times_after(first_ms, rule.pattern, rule.tz):
            if made != LATER or (rule.end_ms is not None and next_ms > rule.end_ms):
                break
            made = await commands.upsert_scheduler(now_ms, replace(upsert, next_ms=next_ms))
        if made == NAME_TAKEN:
            fix = f'its record would have the name of a run of another scheduler: call it for example "{scheduler_id.replace(":", "-")}"'
            raise InvalidOptionError("scheduler_id", scheduler_id, fix)
        if isinstance(made, int):
            raise SchedulerBusyError(scheduler_id, self._queue.name)
        await commands.forget_paused(scheduler_id)
        return made[0]

    async def follow(self, job: Job[Any, Any]) -> str | None:
        """Add the iteration that follows a claimed one; its id, or None if nothing follows or it was added before. Workers call it."""
        scheduler_id = job.record.scheduler_id
        options = _object(from_json_or(job.record.opts, {}))
        repeat = _object(options.get("repeat"))
        if scheduler_id is None or not repeat:
            return None
        now_ms = self._queue.clock.now_ms()
        count = (_whole(repeat, "count") or 1) + 1
        limit, end_ms = _whole(repeat, "limit"), _whole(repeat, "endDate")
        if (limit is not None and count > limit) or (end_ms is not None and now_ms > end_ms):
            return None
        template = {"attempts": 0} | {key: value for key, value in options.items() if key not in _OURS}
        if "priority" in template:
            template["priority"] = _whole(template, "priority") or 0
        rest = {key: value for key, value in repeat.items() if key != "count"}
        commands, iteration = await self._commands(), Iteration(scheduler_id, template, rest)
        for next_ms in _next_times_ms(job.id, options, repeat, now_ms):
            if end_ms is not None and next_ms > end_ms:
                return None
            job_id = await commands.next_iteration(now_ms, scheduler_id, job.id, next_ms, count, iteration)
            if job_id is not None:
                return job_id or None
        log.warning(
            "a schedule ends, since job schedulers stand where its next runs belong", queue=self._queue.name, schedule=scheduler_id,
            fix=f'remove those that are called "{scheduler_id}:" and a time to come in ms, then upsert "{scheduler_id}" again',
        )  # fmt: skip
        return None

    async def remove(self, scheduler_id: str) -> bool:
        """End a scheduler, paused or not, and take back its next job unless that runs or waits already; False if there is none."""
        commands = await self._commands()
        was_paused = await commands.forget_paused(scheduler_id)
        return await commands.remove_scheduler(scheduler_id) or was_paused

    async def pause(self, scheduler_id: str) -> None:
        """Let a scheduler add no further job until `resume`. A run that is under way, or due already, goes on. May be called twice.

        BullMQ can't pause a scheduler, so it is taken out of its keys, and kept in ours: Node tools don't list it meanwhile. An
        application that declares it leaves it alone; an `upsert` lets it go on.

        Raises SchedulerNotFoundError.
        """
        commands = await self._commands()
        record = await commands.scheduler_record(scheduler_id)
        if record:
            # Noted first: who dies in between leaves one that runs on, and can be paused again.
            fields = {name: value.decode("utf-8", "replace") for name, value in record.items()}
            await commands.note_paused(scheduler_id, to_json(fields, "the record of a scheduler"))
            await commands.remove_scheduler(scheduler_id)
        elif not await commands.is_noted_paused(scheduler_id):
            raise SchedulerNotFoundError(scheduler_id, self._queue.name)

    async def resume(self, scheduler_id: str) -> Job[Any, Any] | None:
        """Let a paused scheduler go on, with those of its runs that were left; the next comes at its pattern's time, or after one interval.

        Returns:
            The job of that run; None if the scheduler wasn't paused.

        Raises:
            SchedulerNotFoundError: there is none, paused or not.
            InvalidOptionError: its end has passed.
        """
        paused = {one.id: one for one in await self.list_paused()}.get(scheduler_id)
        if paused is None:
            await self.get(scheduler_id)
            await (await self._commands()).forget_paused(scheduler_id)
            return None
        rule = _rule_from_now(paused, self._queue.clock.now_ms())
        return await self.upsert(scheduler_id, rule, name=paused.name, data=paused.data, options=paused.options)

    async def list_paused(self) -> list[JobScheduler]:
        """Those that are paused, by their ids; their `next_ms` is 0."""
        commands = await self._commands()
        noted = await commands.noted_paused()
        records = {one: _object(from_json_or(text, {})) for one, text in noted.items()}
        return [
            _scheduler(scheduler_id, 0, {name: str(value).encode() for name, value in record.items()})
            for scheduler_id, record in sorted(records.items())
            if await commands.scheduler_time(scheduler_id) is None
        ]

    async def is_paused(self, scheduler_id: str) -> bool:
        """Whether it is paused; False also if there is none."""
        commands = await self._commands()
        return await commands.is_noted_paused(scheduler_id) and await commands.scheduler_time(scheduler_id) is None

    async def find(self, scheduler_id: str) -> JobScheduler | None:
        """The scheduler with this id, or None."""
        commands = await self._commands()
        next_ms = await commands.scheduler_time(scheduler_id)
        return None if next_ms is None else _scheduler(scheduler_id, next_ms, await commands.scheduler_record(scheduler_id))

    async def get(self, scheduler_id: str) -> JobScheduler:
        """The scheduler with this id. Raises SchedulerNotFoundError."""
        found = await self.find(scheduler_id)
        if found is None:
            raise SchedulerNotFoundError(scheduler_id, self._queue.name)
        return found

    async def list(self, start: int = 0, end: int = -1, *, ascending: bool = True) -> list[JobScheduler]:
        """Schedulers by the time of their next run; `start` and `end` are both included, -1 is the last."""
        commands = await self._commands()
        found = await commands.scheduler_ids(start, end, ascending=ascending)
        records = [(scheduler_id, next_ms, await commands.scheduler_record(scheduler_id)) for scheduler_id, next_ms in found]
        return [_scheduler(*each) for each in records if each[2]]

    async def count(self) -> int:
        """How many schedulers the queue has."""
        return await (await self._commands()).count_schedulers()

    async def _commands(self) -> SchedulerCommands:
        await self._queue.open()
        return SchedulerCommands(self._queue.server, self._queue.keys)


def _template(opts: bytes, said: JobOptions) -> dict[str, Any]:
    """Encoded options as a template has them: BullMQ writes its default for the attempts only from the second iteration on."""
    options = {key: value for key, value in _object(from_json(opts)).items() if key not in _OURS}
    if said.attempts is None and options["attempts"] == 0:
        del options["attempts"]
    return options


def _object(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _whole(values: Mapping[str, Any], name: str) -> int | None:
    """A number in a job's options, whoever wrote them. Raises InvalidOptionError."""
    value = values.get(name)
    try:
        return None if value is None else int(float(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidOptionError(name, value, "a number belongs here: upsert the scheduler again") from error


def _next_times_ms(job_id: str, options: Mapping[str, Any], repeat: Mapping[str, Any], now_ms: int) -> Iterator[int]:
    """When the next iteration may be, as `next_iteration` takes it: the next times of a pattern, in order; of an interval, whose slots the
    server counts, only one, below 0."""
    if not repeat.get("pattern"):
        yield -_next_slot_ms(job_id, _whole(repeat, "every") or 0, now_ms)
        return
    after_ms = max(now_ms, _whole(options, "prevMillis") or 0, _whole(repeat, "startDate") or 0)
    yield from _times_after(after_ms, str(repeat["pattern"]), str(repeat.get("tz") or "UTC"))


def _times_after(after_ms: int, pattern: str | None, tz: str | None) -> Iterator[int]:
    """The next times of a pattern, in order, as many as are tried; none without one."""
    if pattern is None:
        return
    cron = Cron(pattern, tz or "UTC")
    for _ in range(_MOST_TAKEN):
        after_ms = cron.next_ms(after_ms)
        yield after_ms


def _next_slot_ms(iteration_id: str, every_ms: int, now_ms: int) -> int:
    """When an interval is due after this iteration, by what that knows itself; 0: it can't be told."""
    due = iteration_id.rpartition(":")[2]
    if every_ms <= 0 or not due.isdecimal():
        return 0
    return int(due) + every_ms * max(1, -((int(due) - now_ms) // every_ms))


def _first_ms(rule: ScheduleRule, now_ms: int) -> int:
    if rule.pattern is None:
        return 0
    if rule.immediately:
        return now_ms
    return Cron(rule.pattern, rule.tz or "UTC").next_ms(max(now_ms, rule.start_ms or 0))


def _rule_from_now(paused: JobScheduler, now_ms: int) -> ScheduleRule:
    start_ms = paused.start_ms or 0
    if paused.every_ms is not None and not paused.offset_ms:
        start_ms = max(start_ms, now_ms + paused.every_ms)
    return ScheduleRule(
        every=None if paused.every_ms is None else timedelta(milliseconds=paused.every_ms),
        pattern=paused.pattern,
        tz=None if paused.pattern is None else paused.tz,
        limit=None if paused.limit is None else max(paused.limit - paused.iterations, 1),
        start=moment(start_ms) if start_ms > now_ms else None,
        end=None if paused.end_ms is None else moment(paused.end_ms),
        offset=timedelta(milliseconds=paused.offset_ms) if paused.offset_ms and paused.every_ms is not None else None,
    )


def _scheduler(scheduler_id: str, next_ms: int, record: Mapping[str, bytes]) -> JobScheduler:
    def number(name: str) -> int | None:
        number = number_or(record.get(name), -1)  # what makes no sense counts as not set
        return number if number >= 0 else None

    def text(name: str) -> str | None:
        value = record.get(name)
        return value.decode("utf-8", "replace") if value else None

    return JobScheduler(
        id=scheduler_id,
        name=text("name") or scheduler_id,
        next_ms=next_ms,
        iterations=number("ic") or 0,
        every_ms=number("every"),
        pattern=text("pattern"),
        tz=text("tz"),
        limit=number("limit"),
        start_ms=number("startDate"),
        end_ms=number("endDate"),
        offset_ms=number("offset"),
        data=from_json_or(record.get("data"), {}),
        options=stored_options(record.get("opts", b"{}")),
    )
