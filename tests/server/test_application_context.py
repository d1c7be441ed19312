"""The modules of an application without its workers, in a script."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

import pytest

from toril import (
    DynamicModule,
    InjectQueue,
    Job,
    Queue,
    QueueModule,
    ScheduleModule,
    WorkerFactory,
    cron,
    interval,
    module,
    on_global_queue_completed,
    process,
    processor,
    provide,
)
from toril.application import ApplicationState
from toril.di import GraphErrors
from toril.errors import QueueClosedError


class Notes:
    def __init__(self) -> None:
        self.lines: list[str] = []


class EmailService:
    def __init__(self, emails: Annotated[Queue, InjectQueue("emails")], notes: Notes) -> None:
        self.emails, self.notes = emails, notes

    async def on_module_init(self) -> None:
        self.notes.lines.append("start")

    async def on_application_shutdown(self) -> None:
        self.notes.lines.append("stop")


class Schedules:
    def __init__(self, notes: Notes) -> None:
        self.notes = notes

    @cron("* * * * * *")
    async def fleet(self) -> None:
        raise AssertionError("no worker runs here")

    @interval("1ms", scope="process")
    async def process(self) -> None:
        raise AssertionError("no schedule runs here")

    @on_global_queue_completed("emails")
    async def heard(self, event: object) -> None:
        raise AssertionError("no listener of the fleet hears here")


@processor("emails")
class EmailProcessor:
    @process("welcome")
    async def welcome(self, job: Job) -> None:
        raise AssertionError("no worker runs here")


Root = Callable[[Notes], DynamicModule]


@pytest.fixture
def root(toril_server_url: str, prefix: str) -> Root:
    @module()
    class AppModule: ...

    def make(notes: Notes) -> DynamicModule:
        imports = [
            QueueModule.for_root(url=toril_server_url, prefix=prefix),
            QueueModule.register_queue("emails"),
            ScheduleModule.for_root(),
        ]
        providers = [provide(Notes, use_value=notes), EmailService, EmailProcessor, Schedules]
        return DynamicModule(AppModule, imports=imports, providers=providers)

    return make


async def test_a_script_adds_jobs_with_the_modules_of_the_workers_and_runs_nothing(root: Root) -> None:
    notes = Notes()
    async with WorkerFactory.create_application_context(root(notes)) as app:
        assert notes.lines == ["start"]
        states = [app.state]
        assert len(app.workers) == 0
        assert app.roles == {"producer"}
        emails = app.queue("emails")
        job = await app.get(EmailService).emails.add("welcome")
        assert await job.get_state() == "waiting"
        assert await app.queue("schedules").job_schedulers.list() == [], "only a scheduler declares schedules"
    assert notes.lines == ["start", "stop"]
    assert [*states, app.state] == [ApplicationState.RUNNING, ApplicationState.STOPPED]
    with pytest.raises(QueueClosedError):
        await emails.add("welcome")


async def test_awaited_it_has_started_and_stays_until_it_is_stopped(root: Root) -> None:
    notes = Notes()
    app = await WorkerFactory.create_application_context(root(notes))
    assert notes.lines == ["start"]
    assert await app.ctx.resolve(EmailService) is app.get(EmailService)
    async with app:  # entered late, it is not started a second time
        assert await app.queue("emails").count() == 0
    await app.stop()
    assert notes.lines == ["start", "stop"]


async def test_a_start_that_fails_leaves_nothing_open(root: Root) -> None:
    class Fails:
        def __init__(self, emails: Annotated[Queue, InjectQueue("emails")]) -> None:
            self.emails = emails
            opened.append(emails)

        async def on_application_bootstrap(self) -> None:
            raise ValueError("as told")

    notes, opened = Notes(), list[Queue]()
    made = root(notes)
    broken = DynamicModule(made.module, imports=made.imports, providers=[*made.providers, Fails])
    with pytest.raises(ValueError, match="as told"):
        await WorkerFactory.create_application_context(broken)
    assert notes.lines == ["start", "stop"]
    with pytest.raises(QueueClosedError):
        await opened[0].count()
    assert {task.get_name() for task in asyncio.all_tasks()} & {"application"} == set()


async def test_what_is_wrong_with_the_modules_is_told_before_anything_is_made(root: Root) -> None:
    class Needs:
        def __init__(self, missing: Callable[[], Notes]) -> None: ...

    notes = Notes()
    made = root(notes)
    with pytest.raises(GraphErrors):
        await WorkerFactory.create_application_context(DynamicModule(made.module, imports=made.imports, providers=[*made.providers, Needs]))
    assert notes.lines == []
