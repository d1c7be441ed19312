"""The annotations of `@on_queue_…` methods are held against what these are called with, before anything is created."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from toril import (
    Job,
    QueueModule,
    module,
    on_queue_active,
    on_queue_cleaned,
    on_queue_completed,
    on_queue_error,
    on_queue_failed,
    on_queue_progress,
    on_queue_removed,
    on_queue_stalled,
    on_queue_waiting,
    process,
    processor,
)
from toril.di import GraphErrors
from toril.modules.application_graph import graph_of
from toril.modules.errors import InvalidProcessorError

if TYPE_CHECKING:
    from decimal import Decimal


class Order(BaseModel):
    number: int


class Receipt(BaseModel):
    paid: bool


def reasons(cls: type) -> dict[str, str]:
    """What is wrong with the methods of a processor."""

    @module(imports=[QueueModule.register_queue("orders")], providers=[cls])
    class AppModule: ...

    with pytest.raises(GraphErrors) as caught:
        graph_of(AppModule)
    found: dict[str, str] = {}
    for error in caught.value.errors:
        assert isinstance(error, InvalidProcessorError)
        assert error.place.startswith("tests/unit/test_listener_parameters.py:")
        found[error.processor] = error.reason
    return found


@processor("orders")
class Wrong:
    @process("pay")
    async def pay(self, job: Job[Order, Receipt]) -> Receipt:
        return Receipt(paid=True)

    @on_queue_stalled()
    async def stalled(self, job: Job) -> None: ...

    @on_queue_completed()
    async def completed(self, result: Receipt, job: Job[Order, Receipt]) -> None: ...

    @on_queue_failed()
    async def failed(self, error: BaseException, job: Job, final: bool) -> None: ...

    @on_queue_failed()
    async def narrow(self, job: Job, error: ValueError, final: bool) -> None: ...

    @on_queue_failed()
    async def final(self, job: Job, error: BaseException, final: str) -> None: ...

    @on_queue_active()
    async def active(self, job_id: str) -> None: ...

    @on_queue_cleaned()
    async def cleaned(self, state: str, count: int) -> None: ...

    @on_queue_removed()
    async def removed(self, *job_ids: int) -> None: ...

    @staticmethod
    @on_queue_waiting()
    def waiting(job_id: int) -> None: ...


def test_each_parameter_that_can_not_be_what_comes_is_named_with_what_does() -> None:
    told = reasons(Wrong)
    assert told["Wrong.stalled"] == (
        "`job: Job` does not fit @on_queue_stalled, which is called with (job_id: str): write `job_id: str` there"
    )
    assert told["Wrong.completed"] == (
        "`result: Receipt` does not fit @on_queue_completed, which is called with (job: Job, result: Any): write `job: Job` there"
    )
    called = "which is called with (job: Job, error: BaseException, final: bool)"
    assert told["Wrong.narrow"] == f"`error: ValueError` does not fit @on_queue_failed, {called}: write `error: BaseException` there"
    assert told["Wrong.final"] == f"`final: str` does not fit @on_queue_failed, {called}: write `final: bool` there"
    assert "write `job: Job` there" in told["Wrong.active"]
    assert "write `job_id: str` there" in told["Wrong.removed"]
    assert "write `job_id: str` there" in told["Wrong.waiting"]
    assert told["Wrong.cleaned"].endswith("which is called with (count: int, state: JobState): write `state: JobState` there")
    assert set(told) == {f"Wrong.{name}" for name in vars(Wrong) if not name.startswith("_") and name != "pay"}


def test_bare_parameters_in_another_order_are_told_the_order() -> None:
    class Swapped:
        @process("pay")
        async def pay(self, job: Job) -> None: ...

        @on_queue_failed()
        async def failed(self, error, job, final): ...  # type: ignore[no-untyped-def]  # pyright: ignore[reportUnknownParameterType, reportMissingParameterType]

        @on_queue_completed()
        async def completed(self, result, job): ...  # type: ignore[no-untyped-def]  # pyright: ignore[reportUnknownParameterType, reportMissingParameterType]

    told = reasons(processor("orders")(Swapped))
    assert told["Swapped.failed"].endswith("with (job, error, final), so 'error' would be the job: write (job, error, final)")
    assert told["Swapped.completed"] == "@on_queue_completed calls it with (job, result), so 'result' would be the job: write (job, result)"


def test_an_annotation_that_can_not_be_read_is_named() -> None:
    @processor("orders")
    class Unreadable:
        @process("pay")
        async def pay(self, job: Job) -> None: ...

        @on_queue_removed()
        async def removed(self, job_id: Decimal) -> None: ...

    assert "import Decimal at run time, not only under TYPE_CHECKING" in reasons(Unreadable)["Unreadable.removed"]


def test_what_may_be_what_comes_is_left_alone() -> None:
    @processor("orders")
    class Right:
        @process("pay")
        async def pay(self, job: Job[Order, Receipt]) -> Receipt:
            return Receipt(paid=True)

        @on_queue_completed()
        async def typed(self, job: Job[Order, Receipt], result: Receipt) -> None: ...

        @on_queue_completed()
        async def for_checkers_only(self, job: Job, result: Decimal) -> None: ...

        @on_queue_completed()
        async def bare(self, job, result): ...  # type: ignore[no-untyped-def]  # pyright: ignore[reportUnknownParameterType, reportMissingParameterType]

        @on_queue_progress()
        async def optional(self, job: Job | None, value: Any, more: int = 0) -> None: ...  # noqa: ANN401

        @on_queue_failed()
        async def failed(self, job: Any, error: Exception, final: int) -> None: ...  # noqa: ANN401

        @on_queue_error()
        @on_queue_stalled()
        async def anything(self, *heard: object) -> None: ...

        @on_queue_cleaned()
        async def cleaned(self, count: float, state: str | None) -> None: ...

    @module(imports=[QueueModule.register_queue("orders")], providers=[Right])
    class AppModule: ...

    graph_of(AppModule)
