"""Options that don't exist, arguments without their names and decorators without brackets are told with what to write instead."""

# ruff: noqa: ANN401 -- the calls are wrong on purpose, so nothing here may know their types

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from typing import Any, cast

import pytest

import toril
from toril import (
    ConfigModule,
    Deduplication,
    FlowProducer,
    JobDef,
    JobOptions,
    KeepJobs,
    Queue,
    QueueModule,
    QueueModuleOptions,
    QueueOptions,
    ScheduleModule,
    ScheduleRule,
    Worker,
    WorkerOptions,
    fixed,
    flow_job,
    injectable,
    module,
    process,
    processor,
    provide,
)
from toril.calls import explained
from toril.errors import InvalidCallError, InvalidOptionError
from toril.testing import Test

PAY = JobDef[dict[str, int], None]("pay")


def untyped(call: object) -> Any:
    """For callers whom no type checker tells."""
    return call


def queue() -> Any:
    return Queue("orders", url="redis://localhost:1")


def told(call: Callable[[], object]) -> str:
    """What a wrong call is told; the error comes out of a pickle as it went in."""
    with pytest.raises(InvalidCallError) as caught:
        call()
    again: object = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), vars(cast("Any", again))) == (str(caught.value), vars(caught.value))
    return str(caught.value)


async def told_async(call: Callable[[], Any]) -> str:
    with pytest.raises(InvalidCallError) as caught:
        await call()
    return str(caught.value)


ATTEMPTS = "a job has no option 'attempt'; did you mean 'attempts'?"
IN_KEYWORDS = "takes options as keywords, not in a dict: write attempts=…"
OF_JOBS = "has no option 'attempts'; it is an option of jobs: give it to the JobDef, or to add"
NOT_CALLED = 'a job needs a definition, and JobDef is the class of them: call it, as in JobDef[int, str]("name")'
BY_PLACE = 'write register_queue("emails"), or register_queue(QueueOptions("emails", …))'


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: queue().add(PAY, {}, attempt=3), ATTEMPTS),
        (lambda: queue().add("pay", {}, attempt=3), ATTEMPTS),
        (lambda: queue().add("pay", {}, idempotnt=True), "Queue.add has no option 'idempotnt'; did you mean 'idempotent'?"),
        (lambda: queue().add("pay", {}, jobId=True), "a job has no option 'jobId'; did you mean 'job_id'?"),
        (lambda: queue().add("pay", {}, retries=3), "a job has no option 'retries'; how often it is tried in all is attempts"),
        (lambda: queue().add(PAY, {}, {"attempts": 3}), f"Queue.add {IN_KEYWORDS}"),
        (lambda: queue().add(PAY, {}, JobOptions(attempts=3)), "Queue.add takes JobOptions as a keyword: write options=JobOptions(…)"),
        (lambda: queue().add(JobDef[int, str], 3), NOT_CALLED),
        (lambda: queue().add(PAY, {}, 3), "Queue.add takes 2 arguments without a name; write the others as keywords, name=value"),
        (lambda: queue().add_many([], attempts=3), "Queue.add_many has no option 'attempts'; each job has its own: give it to queue.job"),
        (lambda: queue().add_many([], {"attempts": 3}), f"Queue.add_many {IN_KEYWORDS}"),
        (lambda: queue().job_schedulers.upsert("x", ScheduleRule(every="1s"), attempts=3),
         "JobSchedulers.upsert has no option 'attempts'; it is an option of the jobs: write options=JobOptions(attempts=…)"),
        (lambda: queue().job_schedulers.upsert("x", ScheduleRule(every="1s"), {"attempts": 3}), f"JobSchedulers.upsert {IN_KEYWORDS}"),
        (lambda: untyped(FlowProducer(url="redis://localhost:1")).add(flow_job("a", queue="q"), attempts=3),
         "FlowProducer.add has no option 'attempts'; each job has its own: give it to flow_job"),
    ],
)  # fmt: skip
async def test_an_add_with_what_it_does_not_take_is_told_what_to_write(call: Callable[[], Any], expected: str) -> None:
    assert await told_async(call) == expected


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: untyped(JobDef)("pay", attempt=3), ATTEMPTS),
        (lambda: untyped(JobDef)("pay", {"attempts": 3}), f"JobDef {IN_KEYWORDS}"),
        (lambda: queue().job(PAY, {}, attempt=3), ATTEMPTS),
        (lambda: queue().job(PAY, {}, {"attempts": 3}), f"Queue.job {IN_KEYWORDS}"),
        (lambda: untyped(flow_job)("pay", {}, queue="q", attempt=3), ATTEMPTS),
        (lambda: untyped(flow_job)("pay", {}, {"attempts": 3}, queue="q"), f"flow_job {IN_KEYWORDS}"),
        (lambda: untyped(JobOptions)(attempt=3), ATTEMPTS),
        (lambda: untyped(JobOptions)({"attempts": 3}), "takes options as keywords"),
        (lambda: untyped(process)(PAY, attempts=3), f"@process {OF_JOBS}"),
        (lambda: untyped(process)(PAY, concurency=3), "@process has no option 'concurency'; did you mean 'concurrency'?"),
        (lambda: untyped(processor)("q", attempts=3), f"@processor {OF_JOBS}"),
        (lambda: untyped(toril.handler)(print, "a", attempts=3), f"handler {OF_JOBS}"),
        (lambda: untyped(toril.cron)("@daily", timeZone="UTC"), "@cron has no option 'timeZone'; the zone is tz="),
        (lambda: untyped(toril.interval)("5s", immediate=True), "@interval has no option 'immediate'; there are name, scope"),
        (lambda: untyped(module)(provider=[]), "@module has no option 'provider'; did you mean 'providers'?"),
        (lambda: untyped(module)(imports=Test), "@module takes a list of imports: write imports=[Test]"),
        (lambda: untyped(module)(providers=provide("X", use_value=1)), "@module takes a list of providers: write providers=['X']"),
        (lambda: untyped(module)(exports="X"), "@module takes a list of exports: write exports=['X']"),
        (lambda: untyped(toril.DynamicModule)(Test, imports=QueueModule.register_queue("q")), "write imports=[QueueModule(q)]"),
        (lambda: untyped(module)({"providers": []}), "@module takes options as keywords, not in a dict: write providers=…"),
        (lambda: untyped(Test.create_testing_module)(controllers=[]), "has no option 'controllers'; there are imports, providers, exports"),
        (lambda: untyped(Test.create_testing_module)(Test),
         "Test.create_testing_module takes its lists as keywords: write imports=[Test] (or providers=[Test])"),
        (lambda: untyped(process)(JobDef[int, str]), 'JobDef is the class of them: call it, as in JobDef[int, str]("name")'),
        (lambda: untyped(process)(JobDef), 'call it, as in JobDef[Data, Result]("name")'),
        (lambda: untyped(process)({"name": "send"}), 'not in a dict: write @process("send", concurrency=3)'),
        (lambda: untyped(toril.on_queue_completed)("mails"),
         'takes nothing: it listens to the queue of its @processor; @on_global_queue_completed("…") hears a queue by its name'),
        (lambda: untyped(QueueModule.register_queue)({"name": "q"}), BY_PLACE),
        (lambda: untyped(QueueModule.register_queue)(name="q"), BY_PLACE),
        (lambda: untyped(QueueModule.register_queue)("q", dead_letter="d"), BY_PLACE),
        (lambda: untyped(QueueModule.for_root)(redis="redis://:s3cret@x"), "for_root has no option 'redis'; the address is url="),
        (lambda: untyped(QueueModule.for_root)({"url": "redis://:s3cret@x"}), "not in a dict: write url=…"),
        (lambda: untyped(QueueModule.for_root_async)(useFactory=print), "has no option 'useFactory'; did you mean 'use_factory'?"),
        (lambda: untyped(QueueModuleOptions)(connection={}), "the address is url="),
        (lambda: untyped(Queue)("q", redis="redis://:s3cret@x"), "Queue has no option 'redis'; the address is url="),
        (lambda: untyped(FlowProducer)(connection="redis://:s3cret@x"), "FlowProducer has no option 'connection'; the address is url="),
        (lambda: untyped(Worker)(queue(), print, concurrency=3), "Worker has no option 'concurrency'; write WorkerOptions(concurrency=…)"),
        (lambda: untyped(WorkerOptions)(attempts=3), f"WorkerOptions {OF_JOBS}"),
        (lambda: untyped(QueueOptions)("q", keep_complete=1), "QueueOptions has no option 'keep_complete'; did you mean 'keep_completed'?"),
        (lambda: untyped(KeepJobs)(max=3), "KeepJobs has no option 'max'; there are count, age, limit"),
        (lambda: untyped(Deduplication)("x", "10s"), "Deduplication takes 1 argument without a name; write the others as keywords"),
        (lambda: untyped(ScheduleRule)(cron="@daily"), "ScheduleRule has no option 'cron'; a cron expression is pattern="),
        (lambda: untyped(fixed)("1s", jiter=0.5), "fixed has no option 'jiter'; did you mean 'jitter'?"),
        (lambda: untyped(ScheduleModule.for_root)(onwer="a"), "ScheduleModule.for_root has no option 'onwer'; did you mean 'owner'?"),
        (lambda: untyped(ConfigModule.for_root)(object, envi="a"), "ConfigModule.for_root has no option 'envi'; did you mean 'env'?"),
    ],
)  # fmt: skip
def test_a_call_with_what_is_not_taken_is_told_what_to_write(call: Callable[[], object], expected: str) -> None:
    text = told(call)
    assert expected in text
    assert "s3cret" not in text


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (untyped(processor), "@processor needs 'queue': write @processor(queue)"),
        (untyped(toril.cron), "@cron needs 'expression': write @cron(expression)"),
        (untyped(JobDef), "JobDef needs 'name': write JobDef(name)"),
        (lambda: untyped(flow_job)("pay"), "flow_job needs 'queue': write flow_job(name, queue=…)"),
        (lambda: untyped(Worker)(queue()), "Worker needs 'handlers': write Worker(queue, handlers)"),
        (untyped(fixed), "fixed needs 'delay': write fixed(delay)"),
        (untyped(Deduplication), "Deduplication needs 'id': write Deduplication(id)"),
        (lambda: untyped(provide)(use_value=1), "provide needs 'token': write provide(token)"),
        (untyped(toril.global_module), "@global_module takes no brackets: write @global_module"),
    ],
)  # fmt: skip
def test_a_call_that_lacks_an_argument_is_told_which(call: Callable[[], object], expected: str) -> None:
    assert told(call) == expected


LISTENERS = [name for name in toril.__all__ if name.startswith(("on_queue_", "on_global_queue_"))]


@pytest.mark.parametrize("name", [*LISTENERS, "process", "cron", "interval", "timeout"])
def test_a_decorator_of_methods_without_brackets_is_told_so(name: str) -> None:
    decorate: Any = getattr(toril, name)

    async def method(self: object, job: object) -> None: ...

    assert told(lambda: decorate(method)).startswith(f"@{name} needs brackets")


@pytest.mark.parametrize("decorate", [module, injectable])
def test_a_decorator_of_classes_without_brackets_is_told_so(decorate: object) -> None:
    class Anything: ...

    name = untyped(decorate).__name__
    assert told(lambda: untyped(decorate)(Anything)) == f"@{name} needs brackets: write @{name}()"
    assert told(lambda: untyped(processor)(Anything)) == '@processor needs the name of its queue: write @processor("emails")'


def test_a_listener_decorator_on_a_class_method_is_told_of_its_brackets_too() -> None:
    assert "needs brackets" in told(lambda: untyped(toril.on_queue_failed)(classmethod(print)))


@pytest.mark.parametrize("make", [QueueOptions, Queue, QueueModule.register_queue, QueueModuleOptions, QueueModule.for_root])
def test_default_options_in_a_dict_are_refused_at_once(make: Any) -> None:
    name = () if make in (QueueModuleOptions, QueueModule.for_root) else ("q",)
    with pytest.raises(InvalidOptionError, match=r"write JobOptions\(attempts=3, …\)") as caught:
        untyped(make)(*name, default_job_options={"attempts": 3})
    assert caught.value.option == "default_job_options"


@pytest.mark.parametrize("option", ["keep_completed", "keep_failed"])
def test_what_a_queue_keeps_is_checked_at_once(option: str) -> None:
    for make in (untyped(QueueOptions), untyped(Queue)):
        with pytest.raises(InvalidOptionError, match="write KeepJobs") as caught:
            make("q", **{option: 100})
        assert caught.value.option == option


@pytest.mark.parametrize("option", ["backoff", "remove_on_complete"])
async def test_a_dict_in_place_of_an_option_is_told_without_another_error(option: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        await queue().add("pay", {}, **{option: {"type": "fixed"}})
    assert caught.value.__context__ is None


async def test_options_of_one_call_in_a_dict_are_refused() -> None:
    options = untyped({"attempts": 3})
    with pytest.raises(InvalidOptionError, match=r"write JobOptions"):
        await queue().add("pay", {}, options=options)
    with pytest.raises(InvalidOptionError, match=r"write JobOptions"):
        await queue().job_schedulers.upsert("x", ScheduleRule(every="1s"), options=options)
    with pytest.raises(InvalidOptionError, match=r"write JobOptions"):
        flow_job("pay", {}, queue="q", options=options)
    with pytest.raises(InvalidOptionError, match=r"write ScheduleRule"):
        await queue().job_schedulers.upsert("x", untyped("@daily"))


def test_a_type_error_from_inside_stays_what_it_is() -> None:
    @explained()
    def inner(*, known: int) -> None: ...

    @explained()
    def outer() -> None:
        untyped(len)(3)

    with pytest.raises(TypeError) as caught:
        outer()
    assert not isinstance(caught.value, InvalidCallError)
    assert told(untyped(inner)).endswith("inner needs 'known': write " + inner.__qualname__ + "(known=…)")


def test_signatures_stay_what_they_are() -> None:
    assert inspect.iscoroutinefunction(Queue.add)
    assert "fields" in inspect.signature(Queue.add).parameters
    assert list(inspect.signature(KeepJobs).parameters) == ["count", "age", "limit"]


def test_a_place_is_still_that_of_the_call() -> None:
    line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    made = (QueueModule.register_queue("q"), QueueModule.for_root(prefix="a"), QueueModule.register_flow_producer("f"))
    assert {(one.place.file, one.place.line) for one in made} == {(__file__, line)}
    assert provide("a", use_value=1).place.line == line + 2
