"""Definitions of jobs: names, types at run time, options."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import pytest
from pydantic import BaseModel

from toril.errors import InvalidOptionError
from toril.queues.job_def import JobDef
from toril.queues.options import NO_OPTIONS, JobOptions
from toril.queues.queue import Queue
from toril.queues.type_arguments import type_arguments

T = TypeVar("T")


class Mail(BaseModel):
    to: str


class Receipt(BaseModel):
    code: int


def test_a_definition_knows_its_types_at_run_time() -> None:
    welcome = JobDef[Mail, Receipt]("welcome")
    assert (welcome.payload.hint, welcome.result.hint) == (Mail, Receipt)
    assert (welcome.payload.part, welcome.result.part) == ("data", "result")
    assert repr(welcome) == "JobDef[Mail, Receipt]('welcome')"


def test_a_definition_without_types_takes_everything() -> None:
    assert JobDef("x").payload.is_any
    assert JobDef("x").result.is_any
    assert repr(JobDef("x")) == "JobDef('x')"


def test_types_that_are_not_known_yet_count_as_any() -> None:
    def make(kind: type[T]) -> JobDef[T, None]:
        return JobDef[T, None](kind.__name__)

    made = make(Mail)
    assert made.payload.is_any
    assert made.result.hint is type(None)


def test_a_class_made_from_a_definition_keeps_its_types() -> None:
    class Welcome(JobDef[Mail, Receipt]):
        pass

    class Special(Welcome):
        pass

    assert Welcome("w").payload.hint is Mail
    assert Special("w").result.hint is Receipt


def test_a_generic_class_made_from_a_definition_takes_types_of_its_own() -> None:
    class Mailing(JobDef[T, Receipt], Generic[T]):
        pass

    assert (Mailing[Mail]("m").payload.hint, Mailing[Mail]("m").result.hint) == (Mail, Receipt)
    assert Mailing[Any]("m").payload.is_any
    bare: Any = Mailing
    assert type_arguments(bare("m"), JobDef) == (Any, Receipt)


def test_a_type_in_quotes_is_refused() -> None:
    with pytest.raises(InvalidOptionError, match="not its name in quotes"):
        _ = JobDef["Mail", Any]("x").payload


def test_name_and_types_make_definitions_equal() -> None:
    assert JobDef[Mail, Receipt]("a") == JobDef[Mail, Receipt]("a", attempts=3)
    assert JobDef[Mail, Receipt]("a") != JobDef[Mail, Receipt]("b")
    assert JobDef[Mail, Receipt]("a") != JobDef[Mail, None]("a")
    assert JobDef("a") != "a"
    assert len({JobDef[Mail, Receipt]("a"), JobDef[Mail, Receipt]("a"), JobDef("a")}) == 2


def test_options_are_checked_where_the_definition_is_made() -> None:
    assert JobDef("x", attempts=3, timeout="30s").options == JobOptions(attempts=3, timeout="30s")
    assert JobDef("x").options == NO_OPTIONS
    with pytest.raises(InvalidOptionError, match="attempts=-1"):
        JobDef("x", attempts=-1)


@pytest.mark.parametrize("name", ["", None, 5, "a\ud800"])
def test_a_name_is_text(name: Any) -> None:  # noqa: ANN401 -- wrong on purpose
    with pytest.raises(InvalidOptionError) as caught:
        JobDef(name)
    assert caught.value.option == "name"


def test_a_queue_knows_its_types_at_run_time() -> None:
    class Mails(Queue[Mail, Receipt]):
        pass

    assert type_arguments(Queue[Mail, Receipt]("q"), Queue) == (Mail, Receipt)
    assert type_arguments(Queue("q"), Queue) == (Any, Any)
    assert type_arguments(Mails("q"), Queue) == (Mail, Receipt)
