"""Logs: an event name with key-value pairs, bound to the job they belong to, through one pipe with the standard library's.

    Logger, JobLogger ──┐                        unconfigured: whatever the application does with the standard library's logs
                        ├──► logging.getLogger ──┤
    structlog, logging ─┘                        configure_logging(): job fields ► secrets hidden ► JSON or readable lines

The library itself writes to loggers named `toril.…` and never sets up anything on its own: structlog without a configuration
would print each debug line to standard output, so our loggers stand on the standard library's, silent below a warning.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Literal, Self, TextIO, cast, get_args

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor

from toril.errors import InvalidOptionError
from toril.telemetry.context import LogContext, current_log_fields
from toril.telemetry.log_event import LogEvent
from toril.telemetry.redaction import redact_item, redact_text, redact_traceback
from toril.telemetry.repeats import Repeats

LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]

_Triple = tuple[type[BaseException], BaseException, TracebackType | None]

_HANDLER_NAME: Final = "toril"

_JOB_LOG: Final = logging.getLogger("toril.job")
_NO_FIELDS: Final[Mapping[str, object]] = {}

_ON_A_DESK: Final = ("", "development", "test")
"""The environments in which a person reads the log as it is written."""

_LEVELS: Final[Mapping[str, int]] = {level: logging.getLevelNamesMapping()[level.upper()] for level in get_args(LogLevel)}

_chosen: dict[str, Any] | None = None
"""What `configure_logging` was last called with."""


@dataclass(frozen=True, slots=True)
class OneOfSeveral:
    """How the lines of a worker process differ from those of its siblings, with which they come out of one supervisor."""

    process: int
    """Its number, in each line."""
    colors: bool
    """Whether what it writes ends up on a terminal; its own standard error is a pipe."""


_one_of_several: OneOfSeveral | None = None


def mark_logs(mark: OneOfSeveral | None) -> None:
    """Put the number of this process, and its process id, into each line from now on; None: no more."""
    global _one_of_several  # noqa: PLW0603 -- the logging of a process is one
    _one_of_several = mark


class Logger:
    """Writes events with key-value pairs: `log.warning("job_retried", delay_ms=500)`.

    The methods are those of structlog's bound loggers. A call below the level in force costs a look at a cached number.
    """

    __slots__ = ("_fields", "_logger")

    def __init__(self, name: str, fields: Mapping[str, object] | None = None) -> None:
        self._logger = logging.getLogger(name)
        self._fields: Mapping[str, object] = fields or {}

    def bind(self, **fields: object) -> Self:
        """A logger that adds these fields to every event; this one stays as it is."""
        return type(self)(self._logger.name, {**self._fields, **fields})

    def debug(self, event: str, **fields: object) -> None:
        """What a developer wants to see while looking for a mistake."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """What an operator may want to know afterwards."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """What went wrong and is being dealt with."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """What went wrong and stays so. `exc_info=error` adds the traceback."""
        self._log(logging.ERROR, event, fields)

    def critical(self, event: str, **fields: object) -> None:
        """What makes this process useless."""
        self._log(logging.CRITICAL, event, fields)

    def exception(self, event: str, **fields: object) -> None:
        """An error with the traceback of the exception being handled."""
        self._log(logging.ERROR, event, {"exc_info": True, **fields})

    def is_enabled_for(self, level: LogLevel) -> bool:
        """Whether an event of this level would be written: ask before gathering costly fields."""
        return self._logger.isEnabledFor(_level_number(level))

    def _bound_fields(self) -> Mapping[str, object]:
        return self._fields

    def _log(self, level: int, event: str, fields: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            error = _triple(fields.pop("exc_info", None))
            message = LogEvent(event, {**current_log_fields(), **self._bound_fields(), **fields})
            # 3: the line to name is that of the caller of debug(), info()…
            path, line, function, _ = self._logger.findCaller(stacklevel=3)
            record = self._logger.makeRecord(self._logger.name, level, path, line, message, (), error, function)
            if error is not None:
                # What any formatter of the standard library prints instead of its own traceback, which would hide nothing.
                record.exc_text = redact_traceback("".join(traceback.format_exception(error[1])).rstrip("\n"))
            self._logger.handle(record)


class JobLogger(Logger):
    """Lives as long as one job and is bound to it: injected where a processor or a job-scoped provider asks for it.

    Where there is no job (a listener such as `drained`, a cron method) it is bound to queue and event only.
    """

    __slots__ = ("_context",)

    def __init__(self, name: str = "toril.job", fields: Mapping[str, object] | None = None, context: LogContext | None = None) -> None:
        # One is made for each job, and most jobs log nothing: what it takes to write a line is looked up by the line.
        self._logger = _JOB_LOG if name == _JOB_LOG.name else logging.getLogger(name)
        self._fields = fields or _NO_FIELDS
        self._context = context

    def bind(self, **fields: object) -> Self:
        """A logger that adds these fields to every event; this one stays as it is."""
        return type(self)(self._logger.name, {**self._fields, **fields}, self._context)

    def _bound_fields(self) -> Mapping[str, object]:
        return self._fields if self._context is None else {**self._context.log_fields(), **self._fields}


def get_logger(name: str) -> Logger:
    """The logger for a module: `log = get_logger(__name__)`."""
    return Logger(name)


def configure_logging(
    *,
    log_format: LogFormat = "auto",
    level: LogLevel = "info",
    levels: Mapping[str, LogLevel] | None = None,
    stream: TextIO | None = None,
) -> None:
    """Write all logs of this process, of structlog and of the standard library alike, to `stream` (standard error).

    Called by `toril worker`, and by applications that want it. A second call replaces the first; handlers that somebody else
    gave to the root logger stay. Each line carries the job it belongs to; secrets are hidden. Warnings and errors of this library that
    say the same as one before are counted for 10 s, and then told in one line.

    Args:
        log_format: `json`, one object a line, for machines; `console` for people. `auto`: JSON where `TORIL_ENV` names a server's
            environment (neither `development`, which it is if unset, nor `test`), unless the stream is a terminal.
        level: what is below is dropped.
        levels: other levels for single loggers, as in `{"toril.worker": "debug"}`.
        stream: where to write.

    Raises:
        InvalidOptionError: an unknown format or level.
    """
    if log_format not in get_args(LogFormat):
        raise InvalidOptionError("log_format", log_format, f"must be one of {', '.join(get_args(LogFormat))}")
    wanted: dict[str, LogLevel] = {"": level, **(levels or {})}
    numbers = {name: _level_number(one) for name, one in wanted.items()}
    handler = _Handler(stream or sys.stderr)
    handler.name = _HANDLER_NAME
    is_terminal = handler.stream.isatty() if _one_of_several is None else _one_of_several.colors
    if log_format == "auto":
        log_format = "json" if os.environ.get("TORIL_ENV", "") not in _ON_A_DESK and not is_terminal else "console"
    handler.setFormatter(ProcessorFormatter(processors=_pipe(log_format, is_terminal=is_terminal)))
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.name == _HANDLER_NAME]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    global _chosen  # noqa: PLW0603 -- the logging of a process is one
    _chosen = {"log_format": log_format, "level": level, "levels": dict(levels or {})}
    for name, number in numbers.items():
        logging.getLogger(name).setLevel(number)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.PositionalArgumentsFormatter(),
            ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # else a logger used before this call would never follow it
    )


class _Handler(logging.StreamHandler[TextIO]):
    """Writes what has passed the count of repeated lines, and in the end what that has held back."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._repeats = Repeats(self)
        self.addFilter(self._repeats)

    def close(self) -> None:
        self._repeats.close()
        super().close()


def chosen_logging() -> dict[str, Any] | None:
    """By what `follow_logging` makes another process log as this one does; None if `configure_logging` doesn't hold (any more)."""
    if _chosen is None or not any(handler.name == _HANDLER_NAME for handler in logging.getLogger().handlers):
        return None
    return {**_chosen, "one_of_several": None if _one_of_several is None else asdict(_one_of_several)}


def follow_logging(chosen: Mapping[str, Any]) -> None:
    """Log as the process does whose `chosen_logging` this is."""
    arguments = dict(chosen)
    mark = arguments.pop("one_of_several")
    if mark is not None:
        mark_logs(OneOfSeveral(**mark))
    configure_logging(**arguments)


def _pipe(log_format: LogFormat, *, is_terminal: bool) -> list[Processor]:
    renderer: Processor
    if log_format == "json":
        renderer = structlog.processors.JSONRenderer(serializer=_to_json)
    else:
        # The plain traceback: the pretty one shows the values of variables, passwords among them.
        renderer = structlog.dev.ConsoleRenderer(colors=is_terminal, exception_formatter=structlog.dev.plain_traceback)
    return [
        _unpack_record,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        ProcessorFormatter.remove_processors_meta,
        _hide_secrets,
        renderer,
    ]


def _unpack_record(_logger: object, _method: str, event_dict: EventDict) -> EventDict:
    """Give every record the same shape, whoever wrote it: time, level, logger, event, then the fields of job and event."""
    record: logging.LogRecord = event_dict["_record"]
    fields: MutableMapping[str, Any] = {}
    if _one_of_several is not None:
        fields.update(process=_one_of_several.process, pid=os.getpid())
    fields.update(current_log_fields())
    if isinstance(record.msg, LogEvent):
        event_dict["event"] = record.msg.event
        fields.update(record.msg.fields)
    fields.update(event_dict)
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return {
        "timestamp": time.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": fields.pop("event"),
        **fields,
    }


def _hide_secrets(_logger: object, _method: str, event_dict: EventDict) -> EventDict:
    traceback = event_dict.pop("exception", None)
    hidden = {key: redact_item(key, value) for key, value in event_dict.items()}
    if traceback is not None:
        hidden["exception"] = redact_traceback(traceback) if isinstance(traceback, str) else redact_item("exception", traceback)
    return hidden


def _to_json(value: object, **_options: object) -> str:
    return json.dumps(value, default=lambda unknown: redact_text(repr(unknown)))


def _triple(exc_info: object) -> _Triple | None:
    """An exception as a record holds it: of what logging takes (the exception, a triple, True for the one that is handled)."""
    if isinstance(exc_info, tuple):
        exc_info = cast("tuple[object, ...]", exc_info)[1]
    elif exc_info and not isinstance(exc_info, BaseException):
        exc_info = sys.exc_info()[1]
    return (type(exc_info), exc_info, exc_info.__traceback__) if isinstance(exc_info, BaseException) else None


def _level_number(level: LogLevel) -> int:
    number = _LEVELS.get(level)
    if number is None:
        raise InvalidOptionError("level", level, f"must be one of {', '.join(_LEVELS)}")
    return number
