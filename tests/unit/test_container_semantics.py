"""What the container promises to those who know Nest's, row by row, and the rows that no other file of tests shows.

Each row has tests named `test_row_NN_…`, here or beside the tests of what it is about: `pytest -k row_03` runs those of one.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import pytest

from tests.unit.di.building import app, context_of
from toril import (
    Inject,
    InjectQueue,
    Job,
    JobRef,
    ModuleRef,
    Queue,
    QueueModule,
    QueueToken,
    Token,
    global_module,
    module,
    process,
    processor,
    provide,
)
from toril.di import ApplicationContext, WrongScope, build_graph
from toril.errors import InvalidCallError
from toril.modules.application_graph import graph_of
from toril.modules.explorer import find_processors

ROWS = {
    1: "@module has imports, providers and exports; @global_module above it makes the exports visible everywhere",
    2: "processors are providers, and found by what their decorators noted",
    3: "a lookup asks the module itself, then its imports' exports and what those pass on, then the global modules",
    4: "one class in two modules is two instances",
    5: "get() of what several modules provide is an error that names them; select() and get_all() are the ways out",
    6: "a token is asked for by Annotated[T, Inject(token)], a queue by InjectQueue, or as a default value",
    7: "T | None is None where nothing is provided, a default is used",
    8: "provide() takes a value, a class, a factory or another token; a factory's annotations say what it needs",
    9: "a factory may be a coroutine function, or a generator whose rest runs at the end",
    10: "scopes are singleton, transient and job; JobRef is the current job",
    11: "the job scope bubbles up, except where that would break a promise; listeners and schedules get a scope of their own",
    12: "forward_ref on one side breaks a cycle and keeps identity; attributes are unset meanwhile; Lazy is the safe form",
    13: "forward_ref in imports lets modules import each other",
    14: "dynamic modules of one key are one module, and must say the same; without a key each object is one",
    15: "a coroutine in imports is refused",
    16: "hooks run in one order at start, and in reverse at stop",
    17: "what lives shorter than the application gets no hooks",
    18: "workers start after all hooks of starting, and have drained before the first hook of stopping",
    19: "ModuleRef gets, resolves and creates; INQUIRER tells who asks; tests mock what is missing and replace modules",
    20: "an override of what isn't there is an error with what is near",
    21: "everything that is wrong comes out at once",
}

TESTS = Path(__file__).parents[1]


def test_each_row_has_a_test_that_names_it() -> None:
    files = [file for folder in ("unit", "server") for file in (TESTS / folder).rglob("test_*.py")]
    named = Counter(int(row) for file in files for row in re.findall(r"def test_row_(\d\d)_", file.read_text(encoding="utf-8")))
    assert sorted(named) == sorted(ROWS)


class Mailer: ...


class Smtp(Mailer): ...


SENDER = Token[str]("SENDER")


def test_row_02_processors_stand_among_the_providers_and_have_no_list_of_their_own() -> None:
    @processor("emails")
    class Emails:
        @process("welcome")
        async def welcome(self, job: Job) -> None: ...

    (found,) = find_processors(graph_of(app(imports=[QueueModule.register_queue("emails")], providers=[Mailer, Emails])))["emails"]
    assert found.cls is Emails
    wrong: Any = {"processors": [Emails]}
    with pytest.raises(InvalidCallError, match="processors"):
        module(**wrong)


async def test_row_06_tokens_are_asked_for_by_an_annotation_or_by_a_default_value() -> None:
    class Service:
        got: tuple[object, ...]

        def __init__(
            self,
            sender: Annotated[str, Inject(SENDER)],
            emails: Annotated[Queue, InjectQueue("emails")],
            url: Any = Inject("url"),  # noqa: ANN401, B008  # as in Nest
        ) -> None:
            self.got = sender, emails, url

    emails: Any = "a queue"
    given = [provide(SENDER, use_value="me"), provide(QueueToken("emails"), use_value=emails), provide("url", use_value="smtp://x")]
    async with context_of(Service, *given) as ctx:
        assert ctx.get(Service).got == ("me", "a queue", "smtp://x")


def pair(one: object, other: object) -> tuple[object, object]:
    return one, other


async def test_row_08_a_provider_is_a_value_a_class_a_factory_or_another_name() -> None:
    value = Mailer()
    ways = [
        provide("value", use_value=value),
        provide(Mailer, use_class=Smtp),
        provide("made", use_factory=pair, inject=[Mailer, "value"]),
        provide("again", use_existing=Mailer),
    ]
    async with context_of(*ways) as ctx:
        assert type(ctx.get(Mailer)) is Smtp
        assert ctx.get("value") is value
        assert ctx.get("made") == (ctx.get(Mailer), value)
        assert ctx.get("again") is ctx.get(Mailer)


async def test_row_09_an_async_factory_is_awaited_before_anything_that_needs_it_is_made() -> None:
    async def connect() -> Mailer:
        return Smtp()

    class Service:
        def __init__(self, mailer: Mailer) -> None:
            self.kind = type(mailer)

    async with context_of(Service, provide(Mailer, use_factory=connect)) as ctx:
        assert ctx.get(Service).kind is Smtp


async def test_row_19_get_of_what_belongs_to_a_job_is_refused_and_resolve_is_not() -> None:
    class JobLog:
        def __init__(self, job: JobRef) -> None:
            self.job = job

    @global_module
    @module(providers=[JobLog], exports=[JobLog])
    class Everywhere: ...

    class Service:
        def __init__(self, modules: ModuleRef) -> None:
            self.modules = modules

    async with ApplicationContext(build_graph(app(imports=[Everywhere], providers=[Service]))) as ctx:
        modules = ctx.get(Service).modules
        assert modules.get(Service) is ctx.get(Service)
        with pytest.raises(WrongScope, match="JobLog is job-scoped"):
            modules.get(JobLog)
        async with ctx.job_scope("a job"):
            assert (await modules.resolve(JobLog)).job == "a job"
