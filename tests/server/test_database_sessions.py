"""A database session for each attempt, with SQLAlchemy: shared by all that the job needs, committed or rolled back by how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from toril import (
    DynamicModule,
    Inject,
    Job,
    JobRef,
    Lazy,
    QueueModule,
    Scope,
    Token,
    current_job,
    module,
    on_queue_completed,
    process,
    processor,
    provide,
)
from toril.di import CaptiveDependency, GraphErrors, injectable
from toril.errors import JobFailedError
from toril.testing import Test, TestingModule

DATABASE_URL = Token[str]("DATABASE_URL")


class Notes:
    """What happened, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []


async def engine(url: Annotated[str, Inject(DATABASE_URL)]) -> AsyncIterator[AsyncEngine]:
    made = await asyncio.to_thread(create_async_engine, url)  # it looks at the file system
    try:
        async with made.begin() as connection:
            await connection.execute(text("CREATE TABLE orders (number INTEGER PRIMARY KEY, note TEXT NOT NULL)"))
            await connection.execute(text("CREATE TABLE lines (number INTEGER REFERENCES orders DEFERRABLE INITIALLY DEFERRED)"))
        yield made
    finally:
        await made.dispose()


async def session(engine: AsyncEngine, notes: Notes, job: JobRef) -> AsyncIterator[AsyncSession]:
    async with async_sessionmaker(engine, expire_on_commit=False)() as opened:
        await opened.execute(text("PRAGMA foreign_keys = ON"))
        await opened.commit()
        async with opened.begin():
            yield opened
    notes.lines.append(f"{job.data} committed while {await job.get_state()}")


class Orders:
    """A repository; becomes job-scoped by the session that it asks for."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def add(self, number: int, note: str) -> None:
        await self.session.execute(text("INSERT INTO orders VALUES (:number, :note)"), {"number": number, "note": note})


class Audit:
    def __init__(self, session: AsyncSession, orders: Orders) -> None:
        assert session is orders.session, "one session for the whole attempt"
        self.session = session


class Clerk:
    """A singleton that reaches the current job's things when it is called."""

    def __init__(self, orders: Lazy[Orders]) -> None:
        self.orders = orders

    async def add(self, note: str) -> None:
        # What needs an await to be made is there already if the job's own constructors asked for it; else `resolve` makes it.
        orders = await self.orders.resolve()
        await orders.add(int(current_job().id), note)


@processor("orders")
class OrderProcessor:
    def __init__(self, orders: Orders, audit: Audit, clerk: Clerk) -> None:
        assert orders.session is audit.session
        self.orders, self.clerk = orders, clerk

    @process("add")
    async def add(self, job: Job[str, None]) -> None:
        await self.clerk.add(job.data)
        if job.data == "fails" or (job.data == "fails once" and job.attempts_made == 0):
            raise ValueError("after the insert")
        if job.data == "breaks at commit":
            await self.orders.session.execute(text("INSERT INTO lines VALUES (4711)"))


@processor("orders")
class Watcher:
    """Needs no job, so its listener opens no session either."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes

    @on_queue_completed()
    async def completed(self, job: Job[str, None], result: None) -> None:
        self.notes.lines.append(f"{job.data} completed")


def database_at(url: str) -> DynamicModule:
    """As an application would write it."""
    providers = [
        provide(DATABASE_URL, use_value=url),
        provide(AsyncEngine, use_factory=engine),
        provide(AsyncSession, use_factory=session, scope=Scope.JOB),
        Notes,
    ]
    return DynamicModule(DatabaseModule, providers=providers, exports=[AsyncEngine, AsyncSession, Notes])


@module()
class DatabaseModule: ...


async def compiled(folder: Path) -> TestingModule:
    imports = [database_at(f"sqlite+aiosqlite:///{folder / 'orders.sqlite'}"), QueueModule.register_queue("orders")]
    return await Test.create_testing_module(imports=imports, providers=[Orders, Audit, Clerk, OrderProcessor, Watcher]).compile()


async def run(t: TestingModule, note: str, *, attempts: int = 1) -> Job[str, None]:
    job: Job[str, None] = await t.queue("orders").add("add", note, attempts=attempts)
    await t.drain("orders")
    return job


async def stored(t: TestingModule) -> list[str]:
    async with t.get(AsyncEngine).connect() as connection:
        return [note for (note,) in await connection.execute(text("SELECT note FROM orders ORDER BY number"))]


async def test_a_completed_job_has_committed_before_it_is_finished(tmp_path: Path) -> None:
    async with await compiled(tmp_path) as t:
        await (await run(t, "fine")).result(timeout="5s")
        assert await stored(t) == ["fine"]
        assert t.get(Notes).lines == ["fine committed while active", "fine completed"]


async def test_a_failed_job_has_rolled_back(tmp_path: Path) -> None:
    async with await compiled(tmp_path) as t:
        job = await run(t, "fails")
        with pytest.raises(JobFailedError, match="after the insert"):
            await job.result(timeout="5s")
        assert await stored(t) == []
        assert t.get(Notes).lines == []


async def test_each_attempt_has_a_session_of_its_own(tmp_path: Path) -> None:
    async with await compiled(tmp_path) as t:
        job = await run(t, "fails once", attempts=2)
        await job.result(timeout="5s")
        assert await stored(t) == ["fails once"], "the first attempt's insert would make the second fail"
        assert t.get(Notes).lines == ["fails once committed while active", "fails once completed"]


async def test_a_commit_that_fails_fails_the_job(tmp_path: Path) -> None:
    async with await compiled(tmp_path) as t:
        job = await run(t, "breaks at commit")
        with pytest.raises(JobFailedError, match="FOREIGN KEY constraint failed"):
            await job.result(timeout="5s")
        assert await stored(t) == []


async def test_a_promised_singleton_with_a_session_is_an_error_with_the_chain() -> None:
    @injectable(scope=Scope.SINGLETON)
    class Cache:
        def __init__(self, orders: Orders) -> None: ...

    with pytest.raises(GraphErrors) as caught:
        await Test.create_testing_module(imports=[database_at("sqlite+aiosqlite://")], providers=[Orders, Cache]).compile()
    (error,) = caught.value.errors
    assert isinstance(error, CaptiveDependency)
    assert error.chain == ("Cache", "Orders", "AsyncSession", "JobRef")
