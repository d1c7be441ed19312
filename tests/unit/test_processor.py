"""How a function becomes a handler, and how a queue's handlers are found."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from toril import Job, JobDef, WorkerOptions, handler
from toril.callables import is_async, place_of
from toril.errors import InvalidOptionError, ProcessorError
from toril.worker.processor import Handler, Registry, handlers_of
from toril.worker.signature import read_handler

if TYPE_CHECKING:
    from decimal import Decimal


class Email(BaseModel):
    to: str


class Receipt(BaseModel):
    id: int


async def send(job: Job[Email, Receipt]) -> Receipt:
    return Receipt(id=len(job.data.to))


def send_plainly(job: Job[Email, Receipt]) -> Receipt:
    return Receipt(id=len(job.data.to))


class Sender:
    async def send(self, job: Job[Email, Receipt]) -> None: ...

    async def __call__(self, job: Job[Email, Receipt]) -> None: ...


class PlainSender:
    def __call__(self, job: Job[Email, Receipt]) -> None: ...


@functools.wraps(send)
async def wrapped(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- a decorator's function
    return await send(*args, **kwargs)


EMAIL = b'{"to":"ada"}'


@pytest.mark.parametrize("call", [send, send_plainly, Sender().send, Sender(), PlainSender(), wrapped, functools.partial(send)])
def test_the_types_come_from_the_annotation_of_the_job(call: Any) -> None:  # noqa: ANN401 -- callables of every kind
    payload, result = read_handler(call).types()
    assert payload.decode(EMAIL, "n", "1") == Email(to="ada")
    assert result.decode(b'{"id":7}', "n", "1") == Receipt(id=7)


def test_the_types_of_an_unbound_method_come_from_its_second_parameter() -> None:
    payload, _ = read_handler(Sender.send, skip_self=True).types()
    assert payload.decode(EMAIL, "n", "1") == Email(to="ada")


def test_without_a_type_anything_goes() -> None:
    async def bare(job) -> None: ...  # type: ignore[no-untyped-def]  # pyright: ignore[reportUnknownParameterType, reportMissingParameterType]  # the case

    async def plain_job(job: Job) -> None: ...

    async def none() -> None: ...

    calls: list[Any] = [bare, plain_job, none]
    for call in calls:
        payload, _ = read_handler(call).types()
        assert payload.decode(b"[1]", "n", "1") == [1]


def test_a_type_that_is_only_there_for_type_checkers_is_refused_with_the_fix() -> None:
    async def pay(job: Job[Decimal, None]) -> None: ...

    with pytest.raises(ProcessorError, match=r"Decimal.*only under TYPE_CHECKING"):
        handler(pay)


def test_a_definition_goes_before_the_annotation() -> None:
    definition: Any = JobDef[Receipt, Email]("receipt")  # type checkers refuse it
    one = handler(send, definition)
    assert one.name == "receipt"
    assert one.payload.decode(b'{"id":7}', "receipt", "1") == Receipt(id=7)


@pytest.mark.parametrize(
    ("call", "runs_in_the_loop"),
    [
        (send, True),
        (Sender().send, True),
        (Sender(), True),
        (functools.partial(functools.partial(send)), True),
        (wrapped, True),
        (send_plainly, False),
        (PlainSender(), False),
        (functools.partial(send_plainly), False),
        (print, False),
    ],
)
def test_what_gives_an_awaitable_runs_in_the_loop(call: Any, runs_in_the_loop: bool) -> None:  # noqa: ANN401 -- callables of every kind
    assert is_async(call) is runs_in_the_loop


def test_a_handlers_place_names_function_and_file() -> None:
    assert place_of(Sender().send).startswith("tests.unit.test_processor.Sender.send (test_processor.py:")
    assert place_of(functools.partial(send))
    assert place_of(print)


def test_a_handler_has_either_a_callable_or_a_scope() -> None:
    with pytest.raises(InvalidOptionError, match="either a callable or a scope"):
        Handler(name="a")


@pytest.mark.parametrize("concurrency", [0, -1, True, 1.5, "2"])
def test_a_concurrency_that_is_no_count_is_refused(concurrency: Any) -> None:  # noqa: ANN401 -- mistakes
    with pytest.raises(InvalidOptionError, match="concurrency"):
        handler(send, "a", concurrency=concurrency)
    with pytest.raises(InvalidOptionError, match="concurrency"):
        WorkerOptions(concurrency=concurrency)


@pytest.mark.parametrize("timeout", ["soon", "0s", "-1s"])
def test_a_timeout_that_leaves_no_time_is_refused(timeout: str) -> None:
    with pytest.raises(InvalidOptionError, match="timeout"):
        handler(send, "a", timeout=timeout)


def test_handlers_are_given_as_one_function_by_name_or_one_by_one() -> None:
    assert [one.name for one in handlers_of(send)] == [None]
    assert [one.name for one in handlers_of({"a": send, "b": send_plainly})] == ["a", "b"]
    given = [handler(send, "a")]
    assert handlers_of(given) == given


def test_a_job_goes_to_the_handler_of_its_name_or_to_the_one_for_every_other() -> None:
    named, other = handler(send, "b", concurrency=2), handler(send)
    registry = Registry("q", [other, named, handler(send, "a")])
    assert (registry.find("b"), registry.find("unheard-of")) == (named, other)
    assert registry.names == ("a", "b")
    assert registry.handlers[-1] == other
    assert registry.limits == {"b": 2}
    assert Registry("q", [named]).find("unheard-of") is None


def test_two_handlers_for_one_name_are_refused_with_both_places() -> None:
    with pytest.raises(ProcessorError, match=r"(?s)'a'.*send.*send_plainly"):
        Registry("q", [handler(send, "a"), handler(send_plainly, "a")])
    with pytest.raises(ProcessorError, match="every other name"):
        Registry("q", [handler(send), handler(send_plainly)])
    with pytest.raises(ProcessorError, match="at least one handler"):
        Registry("q", [])


def test_a_concurrency_of_the_handler_for_every_other_name_is_refused_since_nothing_would_keep_it() -> None:
    with pytest.raises(ProcessorError, match=r"(?s)WorkerOptions.*send"):
        Registry("q", [handler(send, concurrency=2), handler(send, "a")])


def test_a_concurrency_of_the_only_handler_is_kept_for_all_its_jobs() -> None:
    assert Registry("q", [handler(send, concurrency=2)]).total(10) == 2
    assert Registry("q", [handler(send, concurrency=20)]).total(10) == 10
    assert Registry("q", [handler(send, "a", concurrency=2)]).total(10) == 10
