"""What a method notes about itself: that it runs at certain times, and whether once for the fleet or in every process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, TypeVar, get_args

from toril.calls import explained
from toril.di import Place, caller_place
from toril.di.discovery import note_on
from toril.durations import Duration, to_ms
from toril.errors import InvalidCallError, InvalidOptionError
from toril.queues.cron import Cron
from toril.queues.job_schedulers import ScheduleRule
from toril.queues.option_checks import check_job_name

MethodT = TypeVar("MethodT", bound=Callable[..., Any])

ScheduleScope: TypeAlias = Literal["fleet", "process"]
"""`fleet`: each run happens once, whichever process it is; `process`: each process runs it for itself, and the server knows nothing."""

_ZONE: Final[Mapping[str, str]] = dict.fromkeys(("time_zone", "timezone", "zone"), 'the zone is tz="Europe/Berlin"')


@dataclass(frozen=True, slots=True)
class ScheduleMetadata:
    """What `@cron`, `@interval` and `@timeout` note on a method."""

    place: Place
    rule: ScheduleRule | None
    """None: a timeout."""
    after_ms: int | None
    """When a timeout runs, counted from the application's start."""
    name: str | None
    scope: ScheduleScope


@explained("@cron", _ZONE)
def cron(expression: str, *, tz: str = "UTC", name: str | None = None, scope: ScheduleScope = "fleet") -> Callable[[MethodT], MethodT]:
    """Run a method of any provider whenever a cron expression says so: `@cron("0 0 * * *", tz="Europe/Berlin")`.

    Args:
        expression: five fields, or six with seconds first, or `@daily` and its like; see `toril.queues.cron`.
        tz: the zone of the wall clock that it speaks of.
        name: what the schedule is called, in the server too; by default `ClassName.method`. It must not change from one deploy to
            the next, or the schedule is taken for another one.
        scope: `fleet` runs it once for all processes, `process` in each.

    The method has no parameters and may be a coroutine function or a plain one, which runs in a thread. The application needs
    `ScheduleModule.for_root()`.

    Raises:
        InvalidCronError: naming the field, or the zone. InvalidOptionError: a name or scope that makes no sense.
    """
    if callable(expression):
        raise InvalidCallError("@cron", 'needs brackets that say when: write @cron("0 0 * * *")', "expression")
    Cron(expression, tz).next_ms(0)  # found here and not at start, also that it never comes
    return _scheduled(ScheduleMetadata(caller_place(1), ScheduleRule(pattern=expression, tz=tz), None, name, scope))


@explained("@interval")
def interval(every: Duration, *, name: str | None = None, scope: ScheduleScope = "fleet") -> Callable[[MethodT], MethodT]:
    """Run a method of any provider once an interval, the first time when one has passed; arguments as in `cron`.

    Raises:
        InvalidDurationError: no duration, or a bare number. InvalidOptionError: nothing, a name or scope that makes no sense.
    """
    if callable(every):
        raise InvalidCallError("@interval", 'needs brackets that say how often: write @interval("5m")', "every")
    return _scheduled(ScheduleMetadata(caller_place(1), ScheduleRule(every=every), None, name, scope))


@explained("@timeout")
def timeout(after: Duration, *, name: str | None = None) -> Callable[[MethodT], MethodT]:
    """Run a method of any provider once in each process, this long after the application has started.

    Raises:
        InvalidDurationError: no duration, or a bare number. InvalidOptionError: a name that makes no sense.
    """
    if callable(after):
        raise InvalidCallError("@timeout", 'needs brackets that say when: write @timeout("10s")', "after")
    return _scheduled(ScheduleMetadata(caller_place(1), None, to_ms(after, "timeout"), name, "process"))


def check_scope(scope: object) -> None:
    """Refuse what is no scope of a schedule. Raises InvalidOptionError."""
    if scope not in get_args(ScheduleScope):
        raise InvalidOptionError("scope", scope, 'write "fleet" (once for all processes) or "process" (in each of them)')


def _scheduled(metadata: ScheduleMetadata) -> Callable[[MethodT], MethodT]:
    check_scope(metadata.scope)
    if metadata.name is not None:
        check_job_name(metadata.name)

    def decorate(method: MethodT) -> MethodT:
        note_on(method, metadata)
        return method

    return decorate
