"""What runs around handlers: in which order, for whom, injected how, and what becomes of errors."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from toril import (
    APP_FILTER,
    APP_INTERCEPTOR,
    CallNext,
    DelayedError,
    Job,
    JobExecutionContext,
    JobRef,
    QueueModule,
    Recovered,
    Scope,
    catch,
    current_job,
    injectable,
    mark,
    module,
    process,
    processor,
    provide,
    use_filters,
    use_interceptors,
)
from toril.di import GraphErrors
from toril.errors import InvalidCallError, JobFailedError
from toril.modules.errors import InvalidProcessorError
from toril.modules.workers import make_workers
from toril.testing import Test, TestingModule


class Notes:
    """What happened, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []


class Noting:
    """Notes when it begins and ends; subclasses stand at different levels."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes

    async def intercept(self, context: JobExecutionContext, call_next: CallNext) -> Any:  # noqa: ANN401  # the result
        name = type(self).__name__
        self.notes.lines.append(f"{name} begins")
        try:
            return await call_next()
        finally:
            self.notes.lines.append(f"{name} ends")


class OfApp(Noting): ...


class OfModule(Noting): ...


class OfClass(Noting): ...


class First(Noting): ...


class Second(Noting): ...


class FilterNotes:
    def __init__(self, notes: Notes) -> None:
        self.notes = notes

    def catch(self, error: Exception, context: JobExecutionContext) -> None:
        self.notes.lines.append(f"{type(self).__name__} gets {error}")


@catch()
class AppFilter(FilterNotes): ...


@catch(ValueError)
class ModuleFilter(FilterNotes): ...


@catch(LookupError)
class ClassFilter(FilterNotes): ...


@catch(KeyError)
class MethodFilter(FilterNotes): ...


@catch(KeyError)
class LaterFilter(FilterNotes): ...


QUEUE = QueueModule.register_queue("images")


async def compiled(
    *providers: object, around_module: Callable[[type], type] | None = None, replace: dict[type, object] | None = None
) -> TestingModule:
    feature: type = module(imports=[QUEUE], providers=[Notes, *providers], exports=[Notes])(type("FeatureModule", (), {}))
    builder = Test.create_testing_module(imports=[feature if around_module is None else around_module(feature)])
    for cls, value in (replace or {}).items():
        builder = builder.override_interceptor(cls).use_value(value)
    return await builder.compile()


async def run(t: TestingModule, name: str = "x", data: object = None) -> object:
    job = await t.queue("images").add(name, {} if data is None else data)
    await t.drain("images")
    return await job.result(timeout="5s")


@use_interceptors(OfClass)
@processor("images")
class Images:
    def __init__(self, notes: Notes) -> None:
        self.notes = notes

    @process("x")
    @use_interceptors(First)
    @use_interceptors(Second)
    async def handle(self, job: Job) -> str:
        self.notes.lines.append("handler")
        return "result"

    @process("plain")
    async def plain(self, job: Job) -> str:
        return "plain"


async def test_global_comes_before_module_class_and_method_and_ends_after_them() -> None:
    async with await compiled(Images, provide(APP_INTERCEPTOR, use_class=OfApp), around_module=use_interceptors(OfModule)) as t:
        assert await run(t) == "result"
        order = ["OfApp", "OfModule", "OfClass", "First", "Second"]
        assert t.get(Notes).lines == [f"{name} begins" for name in order] + ["handler"] + [f"{name} ends" for name in order[::-1]]


async def test_a_global_one_of_any_module_is_around_all_and_one_of_a_method_around_that() -> None:
    @module(providers=[Notes, provide(APP_INTERCEPTOR, use_class=OfApp)])
    class Elsewhere: ...

    t = await Test.create_testing_module(imports=[Elsewhere, QUEUE], providers=[Notes, Images]).compile()
    async with t:
        assert await run(t, "plain") == "plain"
        assert t.ctx.select(Elsewhere).get(Notes).lines == ["OfApp begins", "OfApp ends"]


async def test_an_interceptor_may_change_the_result_answer_itself_and_try_again() -> None:
    class Loud:
        async def intercept(self, context: JobExecutionContext, call_next: CallNext) -> Any:  # noqa: ANN401  # the result
            return f"{await call_next()}!"

    class Cached:
        async def intercept(self, context: JobExecutionContext, call_next: CallNext) -> Any:  # noqa: ANN401  # the result
            return "from the cache"

    class Again:
        async def intercept(self, context: JobExecutionContext, call_next: CallNext) -> Any:  # noqa: ANN401  # the result
            try:
                return await call_next()
            except ValueError:
                return await call_next()

    @processor("images")
    class Handlers:
        calls = 0

        @process("loud")
        @use_interceptors(Loud, Again())
        async def loud(self, job: Job) -> str:
            Handlers.calls += 1
            if Handlers.calls == 1:
                raise ValueError("the first time")
            return "second"

        @process("cached")
        @use_interceptors(Cached)
        async def cached(self, job: Job) -> str:
            raise AssertionError("nobody calls it")

    async with await compiled(Handlers) as t:
        assert await run(t, "loud") == "second!"
        assert await run(t, "cached") == "from the cache"


async def test_a_provided_class_is_that_provider_and_any_other_is_made_for_the_module() -> None:
    seen: list[object] = []

    class Own(Noting):
        async def intercept(self, context: JobExecutionContext, call_next: CallNext) -> Any:  # noqa: ANN401  # the result
            seen.append(self)
            return await call_next()

    class Unlisted(Own): ...

    @processor("images")
    class Handlers:
        @process("x")
        @use_interceptors(Own, Unlisted)
        async def handle(self, job: Job) -> None: ...

        @process("y")
        @use_interceptors(Unlisted)
        async def other(self, job: Job) -> None: ...

    async with await compiled(Own, Handlers) as t:
        await run(t, "x")
        await run(t, "y")
        assert seen == [t.get(Own), t.get(Unlisted), t.get(Unlisted)]


async def test_a_job_scoped_one_lives_as_long_as_the_attempt_and_shares_its_session() -> None:
    class Session: ...

    async def session(notes: Notes) -> AsyncIterator[Session]:
        notes.lines.append("open")
        try:
            yield Session()
        except ValueError:
            notes.lines.append("roll back")
            raise
        notes.lines.append("commit")

    @injectable(scope=Scope.JOB)
    class Scoped:
        def __init__(self, session: Session, job: JobRef) -> None:
            self.session, self.job = session, job

        async def intercept(self, context: JobExecutionContext, call_next: CallNext) -> Any:  # noqa: ANN401  # the result
            assert self.job is context.job
            assert current_job() is context.job
            return [await call_next() is self.session, "same session"]

    @processor("images")
    class Handlers:
        @process("x")
        @use_interceptors(Scoped)
        async def handle(self, job: Job, session: Session) -> Any:  # noqa: ANN401  # not for the wire
            if job.data == "fail":
                raise ValueError("as told")
            return session

    async with await compiled(provide(Session, use_factory=session, scope=Scope.JOB), Handlers) as t:
        assert await run(t) == [True, "same session"]
        with pytest.raises(JobFailedError):
            await run(t, data="fail")
        assert t.get(Notes).lines == ["open", "commit", "open", "roll back"]


async def test_a_plain_handler_runs_in_a_thread_and_its_interceptors_in_the_loop() -> None:
    threads: list[int] = []

    class Where:
        async def intercept(self, context: JobExecutionContext, call_next: CallNext) -> Any:  # noqa: ANN401  # the result
            threads.append(threading.get_ident())
            return await call_next()

    @processor("images")
    class Handlers:
        @process("x")
        @use_interceptors(Where)
        def handle(self, job: Job) -> str:
            threads.append(threading.get_ident())
            return "from a thread"

    async with await compiled(Handlers) as t:
        assert await run(t) == "from a thread"
        assert threads[0] == threading.get_ident()
        assert threads[1] != threading.get_ident()


@dataclass(frozen=True)
class Priority:
    level: int


async def test_the_context_tells_job_class_method_module_and_the_nearest_note() -> None:
    seen: list[JobExecutionContext] = []

    class Look:
        async def intercept(self, context: JobExecutionContext, call_next: CallNext) -> Any:  # noqa: ANN401  # the result
            seen.append(context)
            return await call_next()

    @mark(Priority(1))
    @use_interceptors(Look)
    @processor("images")
    class Handlers:
        @process("x")
        @mark(Priority(2))
        async def handle(self, job: Job) -> None: ...

        @process("y")
        async def other(self, job: Job) -> None: ...

    async with await compiled(Handlers) as t:
        await run(t, "x")
        await run(t, "y")
    context, other = seen
    assert (context.job.name, context.processor, context.handler) == ("x", Handlers, Handlers.handle)
    assert context.module.__name__ == "FeatureModule"
    assert (context.note(Priority), other.note(Priority), other.note(str)) == (Priority(2), Priority(1), None)


class Pid:
    """Adds in which process it runs; an interceptor of a child process is made there."""

    async def intercept(self, context: JobExecutionContext, call_next: CallNext) -> Any:  # noqa: ANN401  # the result
        return [os.getpid(), await call_next()]


@catch(ValueError)
class Forgiving:
    def catch(self, error: ValueError, context: JobExecutionContext) -> Recovered:
        return Recovered([os.getpid(), f"{context.job.name} forgave {error}"])


@use_filters(Forgiving)
@processor("apart")
class Apart:
    @process("where", executor="process")
    @use_interceptors(Pid)
    def where(self, job: Job) -> Any:  # noqa: ANN401  # what the interceptor makes of it
        if job.data == "fails":
            raise ValueError("as told")
        return os.getpid()


@module(imports=[QueueModule.register_queue("apart")], providers=[Apart])
class ApartModule: ...


async def test_around_a_handler_in_a_child_process_they_run_there() -> None:
    async with await Test.create_testing_module(imports=[ApartModule]).compile() as t:
        jobs = [await t.queue("apart").add("where", data) for data in ("fine", "fails")]
        await t.drain("apart")
        fine, forgiven = [await job.result(timeout="5s") for job in jobs]
        assert fine[0] == fine[1]
        assert os.getpid() not in (fine[0], forgiven[0])
        assert forgiven[1] == "where forgave as told"


# ── filters ───────────────────────────────────────────────────────────────────────────────────────────────────


@use_filters(ClassFilter)
@processor("images")
class Failing:
    @process("x")
    @use_filters(LaterFilter, MethodFilter)
    async def handle(self, job: Job[str, None]) -> None:
        raise {"key": KeyError, "index": IndexError, "value": ValueError, "os": OSError}[job.data](job.data)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("key", "MethodFilter gets 'key'"),
        ("index", "ClassFilter gets index"),
        ("value", "ModuleFilter gets value"),
        ("os", "AppFilter gets os"),
    ],
)
async def test_the_nearest_filter_that_catches_the_error_gets_it_and_no_other(data: str, line: str) -> None:
    async with await compiled(Failing, provide(APP_FILTER, use_class=AppFilter), around_module=use_filters(ModuleFilter)) as t:
        with pytest.raises(JobFailedError, match=data):
            await run(t, data=data)
        assert t.get(Notes).lines == [line]


class OtherError(Exception):
    """What a filter makes of another error."""


async def test_a_filter_may_raise_another_error_or_let_the_job_succeed() -> None:
    @catch(KeyError)
    class Translate:
        def catch(self, error: KeyError, context: JobExecutionContext) -> None:
            raise OtherError(f"{context.job.name} has no {error}")

    @catch(LookupError)
    class Forgive:
        async def catch(self, error: LookupError, context: JobExecutionContext) -> Recovered:
            return Recovered("never mind")

    @processor("images")
    class Handlers:
        @process("x")
        @use_filters(Forgive, Translate())
        async def handle(self, job: Job[str, str]) -> str:
            raise KeyError("width") if job.data == "key" else IndexError

    async with await compiled(Handlers) as t:
        assert await run(t, data="index") == "never mind"
        with pytest.raises(JobFailedError, match="x has no 'width'"):
            await run(t, data="key")


async def test_a_filter_sees_what_an_interceptor_raises_and_not_what_a_handler_asks_for() -> None:
    class Refuse:
        async def intercept(self, context: JobExecutionContext, call_next: CallNext) -> Any:  # noqa: ANN401  # the result
            if context.job.name == "refused":
                raise ValueError("refused")
            return await call_next()

    @use_interceptors(Refuse)
    @use_filters(AppFilter)
    @processor("images")
    class Handlers:
        @process("refused")
        async def handle(self, job: Job) -> None: ...

        @process("delayed")
        async def delay(self, job: Job) -> None:
            raise DelayedError("1h")

    async with await compiled(Handlers) as t:
        with pytest.raises(JobFailedError, match="refused"):
            await run(t, "refused")
        job = await t.queue("images").add("delayed", {})
        await t.drain("images")
        assert await job.get_state() == "delayed"
        assert t.get(Notes).lines == ["AppFilter gets refused"]


# ── tests, and what costs nothing ─────────────────────────────────────────────────────────────────────────────


class Fake:
    def __init__(self) -> None:
        self.calls = 0

    async def intercept(self, context: JobExecutionContext, call_next: CallNext) -> Any:  # noqa: ANN401  # the result
        self.calls += 1
        return await call_next()


async def test_a_test_replaces_an_interceptor_wherever_its_class_is_used() -> None:
    fake, of_app = Fake(), Fake()
    replace: dict[type, object] = {First: fake, OfApp: of_app}
    async with await compiled(
        Images, provide(APP_INTERCEPTOR, use_class=OfApp), provide(APP_INTERCEPTOR, use_class=Noting), replace=replace
    ) as t:
        await run(t)
        assert (fake.calls, of_app.calls) == (1, 1)
        lines = t.get(Notes).lines
        assert "First begins" not in lines
        assert "OfApp begins" not in lines
        assert lines[0] == "Noting begins"


async def test_a_test_replaces_a_filter_which_gets_the_same_errors() -> None:
    got: list[Exception] = []

    class FakeFilter:
        def catch(self, error: Exception, context: JobExecutionContext) -> Recovered:
            got.append(error)
            return Recovered()

    builder = Test.create_testing_module(imports=[QUEUE], providers=[Notes, Failing]).override_filter(MethodFilter).use_value(FakeFilter())
    async with await builder.compile() as t:
        assert await run(t, data="key") is None
        with pytest.raises(JobFailedError):
            await run(t, data="index")
        assert [type(error) for error in got] == [KeyError]


async def test_an_unknown_one_is_an_error_with_what_is_near() -> None:
    class Frist(Noting): ...

    with pytest.raises(GraphErrors, match=r"Frist.*First"):
        await compiled(Images, replace={Frist: Fake()})


async def test_without_any_a_handler_is_called_as_it_is() -> None:
    @processor("images")
    class Handlers:
        @process("x")
        async def handle(self, job: Job) -> None: ...

    async with await compiled(Handlers) as t:
        (worker,) = make_workers(t.ctx)
        (handler,) = worker.registry.handlers
        assert handler.scope is None
        assert handler.call == t.get(Handlers).handle


async def test_with_singletons_only_nothing_is_made_for_each_job() -> None:
    async with await compiled(Images, provide(APP_INTERCEPTOR, use_class=OfApp)) as t:
        (worker,) = make_workers(t.ctx)
        assert [handler.scope for handler in worker.registry.handlers] == [None, None]


# ── mistakes ──────────────────────────────────────────────────────────────────────────────────────────────────


class Missing: ...


class NoMethod: ...


class NotAsync:
    def intercept(self, context: JobExecutionContext, call_next: CallNext) -> Any:  # noqa: ANN401  # the result
        return call_next()


class NoCatch:
    def catch(self, error: Exception, context: JobExecutionContext) -> None: ...


async def test_mistakes_are_found_with_everything_else_at_start() -> None:
    wrong: Any = [NoMethod, NotAsync]

    @processor("images")
    class Handlers:
        @process("x")
        @use_interceptors(*wrong)
        @use_filters(NoCatch)
        async def handle(self, job: Job) -> None: ...

        @use_interceptors(Fake())
        async def helper(self) -> None: ...

    @use_filters(AppFilter)
    class Service: ...

    with pytest.raises(GraphErrors) as caught:
        await compiled(Handlers, Service)
    found = {error.processor: error.reason for error in caught.value.errors if isinstance(error, InvalidProcessorError)}
    assert found == {
        "NoMethod, given to @use_interceptors": "it has no method intercept(self, context, call_next)",
        "NotAsync, given to @use_interceptors": "its intercept is no coroutine function: write async def, and return await call_next()",
        "NoCatch, given to @use_filters": (
            "it doesn't say which errors it gets: write @catch(SomeError) above the class, or @catch() for all"
        ),
        "Handlers.helper": "@use_interceptors does nothing here: the method handles no jobs; has it lost its @process?",
        "Service": "@use_filters does nothing here: the class is neither a processor with handlers nor a module",
    }
    assert all(error.place for error in caught.value.errors if isinstance(error, InvalidProcessorError))


def test_decorators_without_brackets_or_names_are_refused_where_they_stand() -> None:
    async def handle(self: object, job: Job) -> None: ...

    untyped: Any = (use_interceptors, use_filters)
    for use in untyped:
        for items in ((), (handle,)):
            with pytest.raises(InvalidCallError, match="names classes or objects, in brackets"):
                use(*items)
    unchecked: Any = catch
    for errors in ((NoCatch,), ("ValueError",)):
        with pytest.raises(InvalidCallError, match="takes classes of exceptions, in brackets"):
            unchecked(*errors)
    with pytest.raises(InvalidCallError, match="stands on the class of a filter"):
        unchecked()(handle)


async def test_what_an_interceptor_misses_is_told_with_the_module() -> None:
    class Needs:
        def __init__(self, missing: Missing) -> None: ...

        async def intercept(self, context: JobExecutionContext, call_next: CallNext) -> Any:  # noqa: ANN401  # the result
            return await call_next()

    @processor("images")
    class Handlers:
        @process("x")
        @use_interceptors(Needs)
        async def handle(self, job: Job) -> None: ...

    with pytest.raises(GraphErrors, match=r"of Needs \(\?\)"):
        await compiled(Handlers)
