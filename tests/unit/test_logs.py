from __future__ import annotations

import io
import json
import logging
import os
import pickle
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest
import structlog

from toril.errors import InvalidOptionError
from toril.telemetry import LOG_CONTEXT, JobLogger, LogFormat, configure_logging, get_logger
from toril.telemetry.logs import OneOfSeveral, chosen_logging, follow_logging, mark_logs

Lines = Callable[[], list[dict[str, Any]]]


class SomeJob:
    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.asked = 0

    def log_fields(self) -> Mapping[str, object]:
        self.asked += 1
        return {"queue": "emails", "job_id": self.job_id, "job_name": "welcome-email", "attempt": 2}


@pytest.fixture
def json_lines() -> Lines:
    stream = io.StringIO()
    configure_logging(log_format="json", level="info", stream=stream)
    return lambda: [cast("dict[str, Any]", json.loads(line)) for line in stream.getvalue().splitlines()]


def test_importing_and_logging_configures_nothing_and_prints_nothing_below_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    handlers = list(logging.getLogger().handlers)
    get_logger("toril.worker").info("job_claimed")
    assert logging.getLogger().handlers == handlers
    assert not structlog.is_configured()
    assert capfd.readouterr() == ("", "")


def test_without_configuration_an_event_is_readable_text_for_the_standard_library(caplog: pytest.LogCaptureFixture) -> None:
    get_logger("toril.worker").warning("job_retried", delay_ms=500, reason="two words", password="hunter2")
    assert caplog.messages == ['job_retried delay_ms=500 reason="two words" password=***']
    assert caplog.records[0].name == "toril.worker"
    assert caplog.records[0].funcName == "test_without_configuration_an_event_is_readable_text_for_the_standard_library"


def test_json_holds_time_level_logger_event_and_fields(json_lines: Lines) -> None:
    get_logger("toril.worker").info("job_claimed", count=3, nested={"a": [1, None, True]})
    (line,) = json_lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {"level": "info", "logger": "toril.worker", "event": "job_claimed", "count": 3, "nested": {"a": [1, None, True]}}


def test_structlog_and_the_standard_library_come_out_of_the_same_pipe(json_lines: Lines) -> None:
    structlog.get_logger("app").info("by_structlog", n=1)
    logging.getLogger("thirdparty").warning("by %s", "logging")
    get_logger("toril").error("by_toril")
    assert [(line["logger"], line["level"], line["event"]) for line in json_lines()] == [
        ("app", "info", "by_structlog"),
        ("thirdparty", "warning", "by logging"),
        ("toril", "error", "by_toril"),
    ]


def test_every_line_written_during_a_job_carries_the_job_and_explicit_fields_win(json_lines: Lines) -> None:
    reset = LOG_CONTEXT.set(SomeJob("7"))
    try:
        get_logger("toril").info("one")
        structlog.get_logger("app").info("two", job_id="other")
        logging.getLogger("thirdparty").info("three")
    finally:
        LOG_CONTEXT.reset(reset)
    logging.getLogger("thirdparty").info("four")
    assert [line.get("job_id") for line in json_lines()] == ["7", "other", "7", None]
    assert json_lines()[2]["attempt"] == 2


def test_the_job_is_not_asked_for_its_fields_unless_something_is_logged(json_lines: Lines) -> None:
    job = SomeJob("7")
    reset = LOG_CONTEXT.set(job)
    get_logger("toril").debug("invisible")
    LOG_CONTEXT.reset(reset)
    assert job.asked == 0
    assert json_lines() == []


def test_a_job_logger_keeps_its_fields_outside_of_the_jobs_task(json_lines: Lines) -> None:
    log = JobLogger(fields=SomeJob("9").log_fields())
    log.bind(step="render").info("started")
    log.info("ended")
    first, second = json_lines()
    assert (first["queue"], first["job_id"], first["step"], first["logger"]) == ("emails", "9", "render", "toril.job")
    assert "step" not in second


def test_levels_can_be_set_for_single_loggers() -> None:
    stream = io.StringIO()
    configure_logging(log_format="json", level="error", levels={"toril.x": "debug"}, stream=stream)
    try:
        get_logger("toril.x").debug("seen")
        get_logger("toril.y").warning("unseen")
        assert get_logger("toril.x").is_enabled_for("debug")
        assert not get_logger("toril.y").is_enabled_for("warning")
    finally:
        logging.getLogger("toril.x").setLevel(logging.NOTSET)
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["seen"]


def test_a_second_call_replaces_the_first_and_leaves_foreign_handlers() -> None:
    foreign = logging.NullHandler()
    logging.getLogger().addHandler(foreign)
    first, second = io.StringIO(), io.StringIO()
    configure_logging(stream=first)
    configure_logging(stream=second)
    get_logger("toril").info("once")
    assert (first.getvalue(), second.getvalue().count("once")) == ("", 1)
    assert foreign in logging.getLogger().handlers


@pytest.mark.parametrize(("option", "given"), [("level", {"level": "loud"}), ("log_format", {"log_format": "xml"})])
def test_an_unknown_level_or_format_is_refused(option: str, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        configure_logging(**given)
    assert caught.value.option == option
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_form_of_a_secret_reaches_the_output(log_format: LogFormat) -> None:
    stream = io.StringIO()
    configure_logging(log_format=log_format, stream=stream)
    get_logger("toril").info("connected", url="redis://app:hunter2@db/0", error=ValueError("redis://:hunter2@db"), password="hunter2")
    get_logger("toril").info("headers", headers={"Authorization": "Bearer hunter2hunter2", "x": [{"apiKey": "hunter2"}]})
    logging.getLogger("thirdparty").warning("using smtp://me:hunter2@mail and password='hunter2'")
    try:
        secret = "hunter" + "2"  # a local variable, which a pretty traceback would show
        raise ConnectionError(f"no way to redis://:{secret}@db:6379")
    except ConnectionError:
        get_logger("toril").exception("failed")
        structlog.get_logger("app").exception("failed too")
    assert "hunter2" not in stream.getvalue()
    assert "ConnectionError" in stream.getvalue()
    assert "***" in stream.getvalue()


def test_the_traceback_keeps_its_lines_of_code(json_lines: Lines) -> None:
    def fail(token: str) -> None:
        raise ValueError(token)

    try:
        fail(token="".join(["a", "b"]))
    except ValueError as error:
        get_logger("toril").error("failed", exc_info=error)
    assert 'fail(token="".join(["a", "b"]))' in json_lines()[0]["exception"]


def test_what_json_does_not_know_is_written_as_text(json_lines: Lines) -> None:
    get_logger("toril").info("odd", value={1, 2}, key={(1, 2): "x"}, thing=complex(1, 2))
    (line,) = json_lines()
    assert (line["value"], line["key"], line["thing"]) == ([1, 2], {"(1, 2)": "x"}, "(1+2j)")


# ── processes of one supervisor ───────────────────────────────────────────────────────────────────────────────


def test_a_process_of_several_puts_its_number_and_id_into_each_line(json_lines: Lines) -> None:
    mark_logs(OneOfSeveral(process=2, colors=False))
    get_logger("toril").info("one")
    logging.getLogger("thirdparty").warning("two")
    get_logger("toril").info("three", pid=7)
    assert [(line["process"], line["pid"]) for line in json_lines()] == [(2, os.getpid()), (2, os.getpid()), (2, 7)]


def test_another_process_can_log_as_this_one_does() -> None:
    mark_logs(OneOfSeveral(process=2, colors=True))
    configure_logging(level="warning", levels={"toril.worker": "debug"})
    chosen = json.loads(json.dumps(chosen_logging()))
    mark_logs(None)
    configure_logging()
    follow_logging(chosen)
    assert chosen_logging() == chosen
    get_logger("toril.worker").debug("is coloured and marked")


@pytest.mark.parametrize("colors", [True, False])
def test_colours_follow_the_terminal_behind_the_pipe(colors: bool) -> None:
    stream = io.StringIO()
    mark_logs(OneOfSeveral(process=2, colors=colors))
    configure_logging(stream=stream)
    get_logger("toril").info("event")
    assert ("\x1b[" in stream.getvalue()) is colors


def test_without_configuration_there_is_nothing_to_follow() -> None:
    configure_logging()
    logging.getLogger().handlers.clear()
    assert chosen_logging() is None


@pytest.mark.parametrize(
    ("environment", "is_terminal", "is_json"),
    [
        (None, False, False),
        ("", False, False),
        ("development", False, False),
        ("test", False, False),
        ("production", False, True),
        ("staging", False, True),
        ("production", True, False),
    ],
)
def test_without_a_format_servers_log_json_and_people_read_lines(
    monkeypatch: pytest.MonkeyPatch, environment: str | None, is_terminal: bool, is_json: bool
) -> None:
    if environment is None:
        monkeypatch.delenv("TORIL_ENV", raising=False)
    else:
        monkeypatch.setenv("TORIL_ENV", environment)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
    configure_logging(stream=stream)
    get_logger("toril.here").info("hello")
    assert stream.getvalue().startswith("{") is is_json
    chosen = chosen_logging()
    assert chosen is not None
    assert chosen["log_format"] == ("json" if is_json else "console")  # another process may have another stream
