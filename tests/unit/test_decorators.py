"""What `@processor`, `@process` and `@on_queue_…` accept, and what a graph makes of the methods that they stand on."""

from __future__ import annotations

import pytest

from toril import Job, JobDef, JobOptions, QueueModule, QueueOptions, module, on_queue_completed, on_queue_failed, process, processor
from toril.di import DIError, GraphErrors
from toril.errors import InvalidOptionError
from toril.modules.application_graph import graph_of
from toril.modules.errors import InvalidProcessorError, NoHandlerError
from toril.modules.explorer import HandlerMethod, find_processors


def handlers(*providers: type) -> list[HandlerMethod]:
    @module(imports=[QueueModule.register_queue("images")], providers=providers)
    class AppModule: ...

    return [one for found in find_processors(graph_of(AppModule))["images"] for one in found.handlers]


def names(*providers: type) -> list[tuple[str, str | None]]:
    return [(one.method, one.metadata.name) for one in handlers(*providers)]


def errors_of(*providers: type) -> tuple[DIError, ...]:
    with pytest.raises(GraphErrors) as caught:
        handlers(*providers)
    return caught.value.errors


# ── which methods count ───────────────────────────────────────────────────────────────────────────────────────


def test_handlers_come_in_the_order_in_which_they_are_written() -> None:
    @processor("images")
    class Several:
        @process("b")
        async def second(self, job: Job) -> None: ...

        @process(JobDef("a"))
        async def first(self, job: Job) -> None: ...

        @process()
        async def rest(self, job: Job) -> None: ...

    assert names(Several) == [("second", "b"), ("first", "a"), ("rest", None)]


def test_one_method_may_handle_several_names() -> None:
    @processor("images")
    class Both:
        @process("a")
        @process("b")
        async def run(self, job: Job) -> None: ...

    assert sorted(names(Both)) == [("run", "a"), ("run", "b")]


def test_a_method_that_a_subclass_overrides_counts_as_it_is_decorated_there() -> None:
    class Base:
        @process("a")
        async def a(self, job: Job) -> None: ...

        @process("b")
        async def b(self, job: Job) -> None: ...

    @processor("images")
    class Derived(Base):
        @process("c")
        async def a(self, job: Job) -> None: ...

        async def b(self, job: Job) -> None: ...

    assert names(Derived) == [("a", "c")]


def test_a_method_named_process_is_nothing_special_beside_decorated_ones() -> None:
    @processor("images")
    class Both:
        @process("a")
        async def a(self, job: Job) -> None: ...

        async def process(self, job: Job) -> None: ...

    assert names(Both) == [("a", "a")]


def test_looking_for_methods_runs_no_property_of_the_class() -> None:
    class Explosive:
        def __get__(self, instance: object, owner: type) -> object:
            raise AssertionError("nobody asked for it")

    @processor("images")
    class Careful:
        trap = Explosive()

        @process("a")
        async def a(self, job: Job) -> None: ...

    assert names(Careful) == [("a", "a")]


def test_a_static_method_has_the_types_of_its_job_too() -> None:
    @processor("images")
    class Static:
        @staticmethod
        @process("a")
        async def a(job: Job[int, str]) -> str:
            return str(job.data)

        @process("b")
        @staticmethod
        async def b(job: Job[int, str]) -> str:
            return str(job.data)

    for one in handlers(Static):
        payload, result = one.types()
        assert (payload.hint, result.hint) == (int, str)
    assert names(Static) == [("a", "a"), ("b", "b")]


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_handler_that_takes_neither_job_nor_data_is_refused() -> None:
    @processor("images")
    class Wrong:
        @process("none")
        async def none(self) -> None: ...

        @process("optional")
        async def optional(self, job: Job, token: str = "") -> None: ...

    errors = errors_of(Wrong)
    assert [(type(error), str(error).rpartition(": ")[0].rpartition("): ")[2]) for error in errors] == [
        (InvalidProcessorError, "it is called as none(self, job)"),
    ]


def test_a_listener_that_can_not_be_called_with_what_it_hears_is_refused() -> None:
    @processor("images")
    class Wrong:
        @process()
        async def run(self, job: Job) -> None: ...

        @on_queue_failed()
        async def failed(self, job: Job, error: BaseException) -> None: ...

        @on_queue_completed()
        async def completed(self, *heard: object) -> None: ...

    [error] = errors_of(Wrong)
    assert str(error).startswith("Wrong.failed (tests/unit/test_decorators.py:")
    assert str(error).endswith("it is called as failed(self, job, error, final): write it so")


def test_a_class_that_only_listens_where_nothing_is_handled_is_told_of_queue_events() -> None:
    @processor("images")
    class Monitor:
        @on_queue_completed()
        async def completed(self, job: Job, result: object) -> None: ...

    [error] = errors_of(Monitor)
    assert isinstance(error, NoHandlerError)
    assert error.only_listens
    assert "follow the whole fleet with QueueEvents" in str(error)


@pytest.mark.parametrize("name", ["", 5, b"a"])
def test_a_name_that_no_job_can_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        process(name)
    assert caught.value.option == "name"


def test_options_for_queues_by_name_are_refused_where_none_is_named() -> None:
    with pytest.raises(InvalidOptionError) as caught:
        QueueModule.register_queue(QueueOptions("images"), default_job_options=JobOptions(attempts=3))
    assert "put them into its QueueOptions" in str(caught.value)
