"""Warnings and errors of the library that say the same are told once, and then how often."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from tests.support import eventually_now
from toril import JobLogger, configure_logging, get_logger
from toril.telemetry.repeats import MOST_KINDS, NAMED, Repeats

log = get_logger("toril.worker.somewhere")

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What has been written so far; what was held back is, once the next call has closed the handler."""
    stream = io.StringIO()
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    configure_logging(log_format="json", stream=stream)
    (ours,) = (handler for handler in root.handlers if handler.name == "toril")

    def written() -> list[dict[str, Any]]:
        ours.close()
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield written
    ours.close()
    root.setLevel(level)
    root.handlers[:] = handlers
    structlog.reset_defaults()


def fail(job_id: int, reason: str = "no route to host", **fields: object) -> None:
    log.warning("an attempt failed", job_id=str(job_id), attempt=1, delay_ms=job_id * 7, reason=reason, queue="q", **fields)


def test_the_same_trouble_of_many_jobs_is_told_once_and_then_how_often(lines: Lines) -> None:
    for job_id in range(500):
        fail(job_id)
    first, rest = lines()
    assert (first["job_id"], first["attempt"]) == ("0", 1)
    assert "repeated" not in first
    assert (rest["event"], rest["level"], rest["logger"]) == (first["event"], "warning", "toril.worker.somewhere")
    assert (rest["repeated"], rest["within"], rest["reason"], rest["queue"]) == (499, "10s", "no route to host", "q")
    assert rest["job_ids"] == [str(job_id) for job_id in range(1, NAMED + 1)]
    assert "job_id" not in rest


def test_what_differs_is_told_each_time(lines: Lines) -> None:
    fail(1)
    fail(2, reason="connection refused")
    fail(3, job_name="other")
    log.error("an attempt failed", reason="no route to host", queue="q")
    assert len(lines()) == 4


def test_numbers_in_a_reason_make_no_difference(lines: Lines) -> None:
    fail(1, reason="job 1 timed out after 30 s")
    fail(2, reason="job 2 timed out after 30 s")
    assert [line.get("repeated") for line in lines()] == [None, 1]


def test_the_same_event_with_another_exception_is_another_one(lines: Lines) -> None:
    for error in (ValueError("try 1"), ValueError("try 2"), KeyError("try 1"), ValueError("no")):
        log.error("listener failed", listener="here", exc_info=error)
    assert [(line["exception"].splitlines()[-1] if "exception" in line else line["repeated"]) for line in lines()] == [
        "ValueError: try 1",
        "KeyError: 'try 1'",
        "ValueError: no",
        1,
    ]


def test_an_error_that_can_not_be_shown_does_no_harm(handler: Recording) -> None:
    class Unshown(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    for _ in range(2):
        log.error("listener failed", exc_info=Unshown())
    assert handler.repeated == [None, None]


def test_a_single_line_is_followed_by_nothing(lines: Lines) -> None:
    fail(1)
    assert len(lines()) == 1


def test_lines_at_info_and_those_of_the_application_are_never_held_back(lines: Lines) -> None:
    for _ in range(3):
        get_logger("toril.jobs").info("the job completed", queue="q")
        JobLogger().warning("careful")
        get_logger("app.emails").error("no template")
        logging.getLogger("other").error("the same")
    assert len(lines()) == 12


def test_a_second_configuration_loses_nothing(lines: Lines) -> None:
    fail(1)
    fail(2)
    configure_logging(stream=io.StringIO())
    assert [line.get("repeated") for line in lines()] == [None, 1]


class Recording(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.repeated: list[object] = []

    def emit(self, record: logging.LogRecord) -> None:
        message: Any = record.msg
        self.repeated.append(message.fields.get("repeated"))


@pytest.fixture
def handler() -> Iterator[Recording]:
    """One with a short window."""
    handler = Recording()
    repeats = Repeats(handler, window_s=0.2)
    handler.addFilter(repeats)
    logger = logging.getLogger("toril.worker.somewhere")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    repeats.close()


def test_when_the_time_is_over_it_is_told_without_another_line(handler: Recording) -> None:
    for job_id in range(4):
        fail(job_id)
    eventually_now(lambda: _equal(handler.repeated, [None, 3]))
    fail(5)
    eventually_now(lambda: _equal(handler.repeated, [None, 3, 1]))  # it goes on, and is told once each window


def test_when_it_has_ended_the_next_one_is_told_at_once(handler: Recording) -> None:
    fail(1)
    (repeats,) = handler.filters
    assert isinstance(repeats, Repeats)
    repeats.tell()
    fail(2)
    assert handler.repeated == [None, None]


def test_kinds_are_bounded_and_what_exceeds_them_is_written(handler: Recording) -> None:
    for number in range(MOST_KINDS + 50):
        log.warning("kind", queue=f"queue {number}")
        log.warning("kind", queue=f"queue {number}")
    assert len(handler.repeated) >= MOST_KINDS + 100


def _equal(found: object, wanted: object) -> None:
    assert found == wanted
