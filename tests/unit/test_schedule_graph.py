"""What is wrong with schedules is found as they are written, or with everything else before anything is created."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from toril import (
    ConfigModule,
    DynamicModule,
    Job,
    JobLogger,
    QueueModule,
    QueueOptions,
    ScheduleModule,
    SchedulerRegistry,
    TorilSettings,
    cron,
    injectable,
    interval,
    module,
    process,
    processor,
    provide,
    timeout,
)
from toril.di import ConflictingModules, DIError, Graph, GraphErrors, InvalidModule, UnresolvedDependency
from toril.errors import InvalidCronError, InvalidDurationError, InvalidOptionError
from toril.modules.application_graph import graph_of
from toril.modules.errors import (
    InvalidProcessorError,
    InvalidScheduleError,
    NoJobHereError,
    NoScheduleModuleError,
    ScheduleConflictError,
)
from toril.modules.schedule_explorer import find_schedules, owner_of, schedule_queue

ErrorT = TypeVar("ErrorT", bound=DIError)
SCHEDULES = ScheduleModule.for_root()


def root(*providers: object, imports: Sequence[object] = (SCHEDULES,)) -> DynamicModule:
    @module()
    class AppModule: ...

    return DynamicModule(AppModule, imports=imports, providers=providers)


def errors_of(*providers: object, imports: Sequence[object] = (SCHEDULES,)) -> tuple[DIError, ...]:
    with pytest.raises(GraphErrors) as caught:
        graph_of(root(*providers, imports=imports))
    return caught.value.errors


def only(kind: type[ErrorT], *providers: object, imports: Sequence[object] = (SCHEDULES,)) -> ErrorT:
    """The one error of these providers; it comes out of a pickle as it went in."""
    (error,) = errors_of(*providers, imports=imports)
    assert isinstance(error, kind), str(error)
    again: ErrorT = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))
    return error


class Reports:
    @cron("0 0 * * *", tz="Europe/Berlin")
    async def daily(self) -> None: ...

    @interval("5m", name="beat", scope="process")
    def beat(self) -> None: ...

    @timeout("10s")
    async def warm_up(self, size: int = 10) -> None: ...


def test_schedules_of_any_provider_are_found() -> None:
    graph = graph_of(root(Reports))
    assert isinstance(graph, Graph)
    assert [(one.name, one.metadata.scope) for one in find_schedules(graph)] == [
        ("Reports.daily", "fleet"),
        ("beat", "process"),
        ("Reports.warm_up", "process"),
    ]
    assert schedule_queue(graph) == "schedules"
    assert owner_of(graph) == f"{__name__}:root.<locals>.AppModule"


@pytest.mark.parametrize("how", [["-m", "shop.main"], ["-c", "import shop.main"], ["shop/main.py"]])
def test_an_application_has_one_owner_however_its_module_is_run(tmp_path: Path, how: list[str]) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "main.py").write_text(
        "from toril import module\n"
        "from toril.modules.application_graph import graph_of\nfrom toril.modules.schedule_explorer import owner_of\n"
        "@module()\nclass AppModule: ...\nprint(owner_of(graph_of(AppModule)))\n"
    )
    done = subprocess.run([sys.executable, *how], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == ("main:AppModule" if how == ["shop/main.py"] else "shop.main:AppModule"), done.stderr


# ── found as they are written ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("decorate", "field"),
    [
        (lambda: cron("0 25 * * *"), "hour"),
        (lambda: cron("0 0 * *"), "number of fields"),
        (lambda: cron("0 0 * * *", tz="Europe/Atlantis"), "zone"),
        (lambda: cron("0 0 30 2 *"), "day of month"),
    ],
)
def test_a_bad_cron_expression_is_told_by_its_field(decorate: Callable[[], object], field: str) -> None:
    with pytest.raises(InvalidCronError) as caught:
        decorate()
    assert caught.value.field == field


@pytest.mark.parametrize("decorate", [lambda: interval(cast("Any", 5)), lambda: interval("soon"), lambda: timeout(cast("Any", 10))])
def test_a_bad_duration_is_refused(decorate: Callable[[], object]) -> None:
    with pytest.raises(InvalidDurationError):
        decorate()


@pytest.mark.parametrize(
    ("decorate", "option"),
    [
        (lambda: cron(cast("Any", print)), "expression"),
        (lambda: interval(cast("Any", print)), "every"),
        (lambda: timeout(cast("Any", print)), "after"),
        (lambda: cron("@daily", scope=cast("Any", "world")), "scope"),
        (lambda: interval("0s"), "every"),
        (lambda: interval("1s", name=""), "name"),
        (lambda: ScheduleModule.for_root(version=cast("Any", 3)), "version"),
        (lambda: ScheduleModule.for_root(owner=""), "owner"),
        (lambda: ScheduleModule.for_root("a:b"), "queue"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(decorate: Callable[[], object], option: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        decorate()
    assert caught.value.option == option


# ── found at start ────────────────────────────────────────────────────────────────────────────────────────────


def test_schedules_without_a_schedule_module_are_named_with_the_fix() -> None:
    error = only(NoScheduleModuleError, Reports, imports=())
    assert len(error.methods) == 3
    assert str(error).startswith(
        "these methods are scheduled, but no module imports ScheduleModule: add ScheduleModule.for_root() to the imports of AppModule.\n"
        "  - Reports.daily (tests/unit/test_schedule_graph.py:"
    )


@pytest.mark.parametrize(
    ("bare", "fix"), [(ScheduleModule, ".for_root()."), (QueueModule, '.register_queue("emails"), or'), (ConfigModule, ".for_root(")]
)
def test_a_module_of_ours_without_its_call_is_named_with_the_fix(bare: type, fix: str) -> None:
    providers = (Reports,) if bare is ScheduleModule else ()
    error = only(InvalidModule, *providers, imports=[bare])
    assert error.module == f"{bare.__name__} in the imports of AppModule"
    assert error.hint.startswith(f"Write {bare.__name__}{fix}")


class AppSettings(TorilSettings): ...


@pytest.mark.parametrize(
    ("wanted", "fix"),
    [
        (JobLogger, 'QueueModule.register_queue("…")'),
        (SchedulerRegistry, "ScheduleModule.for_root()"),
        (AppSettings, "ConfigModule.for_root(AppSettings)"),
    ],
)
def test_what_a_module_of_ours_would_provide_is_told_by_its_call(wanted: type, fix: str) -> None:
    def make(it: object) -> None: ...

    make.__annotations__["it"] = wanted
    error = only(UnresolvedDependency, provide("it", use_factory=make), imports=())
    assert error.hints == (f"{wanted.__name__} comes with {fix}: add that to the imports of a module.",)


def test_two_schedules_of_one_name_are_named_with_their_places() -> None:
    class Others:
        @cron("@hourly", name="beat")
        async def hourly(self) -> None: ...

    error = only(ScheduleConflictError, Reports, Others)
    assert error.name == "beat"
    assert error.first.startswith("Reports.beat (tests/unit/")
    assert error.second.startswith("Others.hourly (tests/unit/")


def test_one_class_in_two_modules_has_its_schedules_twice() -> None:
    @module(providers=[Reports])
    class OtherModule: ...

    errors = errors_of(Reports, imports=[SCHEDULES, OtherModule])
    assert [type(error) for error in errors] == [ScheduleConflictError] * 3
    assert "in AppModule -> OtherModule" in str(errors[0])


def test_a_method_with_required_parameters_cannot_be_scheduled() -> None:
    class Needy:
        @interval("1m")
        async def run(self, job: Job) -> None: ...

    error = only(InvalidScheduleError, Needy)
    assert error.schedule == "Needy.run"
    assert "called without arguments, as run(self)" in str(error)


def test_a_generator_cannot_be_scheduled() -> None:
    class Yields:
        @interval("1m")
        async def run(self) -> Any:  # noqa: ANN401 -- a generator of nothing
            yield

    assert "leave out yield" in only(InvalidScheduleError, Yields).reason


def test_a_class_that_asks_for_the_job_cannot_have_schedules_but_one_with_a_logger_can() -> None:
    class Session:
        def __init__(self, job: Job) -> None: ...

    @injectable()
    class Needy:
        def __init__(self, session: Session) -> None: ...

        @cron("@daily")
        async def run(self) -> None: ...

    class Logs:
        def __init__(self, log: JobLogger) -> None: ...

        @cron("@daily")
        async def run(self) -> None: ...

    error = only(NoJobHereError, Needy, Session)
    assert (error.processor, error.listener, error.chain) == ("Needy", "run", ("Needy", "Session"))
    graph_of(root(Logs))


def test_the_queue_of_schedules_takes_no_processor() -> None:
    @processor("schedules")
    class Mine:
        @process()
        async def run(self, job: Job) -> None: ...

    assert "belongs to ScheduleModule" in only(InvalidProcessorError, Mine).reason
    graph_of(root(Mine, imports=[ScheduleModule.for_root("crons"), QueueModule.register_queue("schedules")]))


def test_all_that_is_wrong_comes_out_together_and_a_second_for_root_must_say_the_same() -> None:
    class Bad:
        @interval("1m", name="same")
        async def one(self, number: int) -> None: ...

        @interval("2m", name="same")
        async def two(self) -> None: ...

    assert [type(error) for error in errors_of(Bad)] == [InvalidScheduleError, ScheduleConflictError]
    graph_of(root(Reports, imports=[SCHEDULES, ScheduleModule.for_root()]))
    only(ConflictingModules, Reports, imports=[SCHEDULES, ScheduleModule.for_root(QueueOptions("schedules"), version="2")])
