"""What is wrong with queues and processors is found before anything is created, all at once, each with its place and its fix."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import pytest
from pydantic import BaseModel

from toril import (
    DynamicModule,
    InjectQueue,
    Job,
    JobDef,
    JobLogger,
    JobOptions,
    KeepJobs,
    Lazy,
    Queue,
    QueueModule,
    QueueModuleOptions,
    QueueOptions,
    Scope,
    custom,
    fixed,
    injectable,
    module,
    on_global_queue_completed,
    on_queue_completed,
    on_queue_error,
    process,
    processor,
    provide,
)
from toril.di import ConflictingModules, DIError, Graph, GraphErrors, UnresolvedDependency
from toril.errors import InvalidOptionError
from toril.modules.application_graph import graph_of
from toril.modules.errors import (
    HandlerConflictError,
    InvalidProcessorError,
    NoHandlerError,
    NoJobHereError,
    ProcessorOptionsError,
    UnregisteredQueueError,
)
from toril.modules.tokens import QueueToken, queue_adviser
from toril.queues.events import CompletedEvent

if TYPE_CHECKING:
    from decimal import Decimal as Money

ErrorT = TypeVar("ErrorT", bound=DIError)


class Picture(BaseModel):
    width: int


def root(*providers: object, imports: Sequence[object] = ()) -> type | DynamicModule:
    """An application with these providers, and a queue `images`."""

    @module()
    class AppModule: ...

    return DynamicModule(AppModule, imports=[QueueModule.register_queue("images"), *imports], providers=providers)


def errors_of(*providers: object, imports: Sequence[object] = ()) -> tuple[DIError, ...]:
    with pytest.raises(GraphErrors) as caught:
        graph_of(root(*providers, imports=imports))
    return caught.value.errors


def only(kind: type[ErrorT], *providers: object, imports: Sequence[object] = ()) -> ErrorT:
    """The one error of these providers; it comes out of a pickle as it went in."""
    (error,) = errors_of(*providers, imports=imports)
    assert isinstance(error, kind), str(error)
    again: ErrorT = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))
    return error


def line_of(target: Callable[..., Any]) -> int:
    return target.__code__.co_firstlineno


@processor("images")
class Good:
    @process("resize")
    async def resize(self, job: Job) -> None: ...


def test_a_processor_of_a_registered_queue_is_fine() -> None:
    assert isinstance(graph_of(root(Good)), Graph)


class Bare:
    @process("resize")
    async def resize(self, job: Job) -> None: ...

    @on_queue_completed()
    async def completed(self, job: Job, result: object) -> None: ...


class OnlyHears:
    @on_queue_error()
    async def trouble(self, error: Exception) -> None: ...


class Heir(Good):
    pass


@pytest.mark.parametrize(
    ("cls", "method", "reason"),
    [
        (Bare, "resize", 'no queue ever calls resize, completed, since its class is no processor: decorate it with @processor("…")'),
        (OnlyHears, "trouble", 'no queue ever calls trouble, since its class is no processor: decorate it with @processor("…")'),
        (Heir, "resize", 'decorate it with @processor("…"), as Good is: subclasses say it anew'),
    ],
)
def test_handlers_and_listeners_of_a_class_that_is_no_processor_are_an_error(cls: type, method: str, reason: str) -> None:
    error = only(InvalidProcessorError, cls)
    assert error.processor == f"{cls.__name__}.{method}"
    assert error.place.startswith("test_processor_graph.py:")
    assert error.reason.endswith(reason)


# ── queues ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_unregistered_queue_is_named_with_what_is_near() -> None:
    @processor("imgaes")
    class Typo:
        @process()
        async def run(self, job: Job) -> None: ...

    error = only(UnregisteredQueueError, Typo)
    assert (error.processor, error.queue) == ("Typo", "imgaes")
    assert error.place.startswith("tests/unit/test_processor_graph.py:")
    fix = "If not, add QueueModule.register_queue('imgaes') to the imports."
    told = f"Typo ({error.place}) processes queue 'imgaes': queue 'imgaes' is not registered; did you mean 'images'? {fix}"
    assert str(error) == told


def test_an_unregistered_queue_that_is_near_to_nothing_is_told_how_to_register() -> None:
    @processor("mails")
    class Mails:
        @process()
        async def run(self, job: Job) -> None: ...

    told = str(only(UnregisteredQueueError, Mails))
    assert told.endswith("add QueueModule.register_queue('mails') to the imports. Registered so far: 'images'.")


def test_a_listener_of_an_unregistered_queue_listens_to_it() -> None:
    class Audit:
        @on_global_queue_completed("imgae")
        async def completed(self, event: CompletedEvent) -> None: ...

    error = only(UnregisteredQueueError, Audit)
    fix = "If not, add QueueModule.register_queue('imgae') to the imports."
    assert str(error).endswith(f"listens to queue 'imgae': queue 'imgae' is not registered; did you mean 'images'? {fix}")


def test_a_method_that_handles_and_listens_is_refused_once() -> None:
    @processor("images")
    class Both:
        @on_queue_completed()
        @process("resize")
        async def local(self, job: Job) -> None: ...

    reason = "one method can't be both a handler and a listener: write two, one with @process, one with @on_queue_completed"
    assert (error := only(InvalidProcessorError, Both)).reason == reason
    assert error.processor == "Both.local"


def test_a_backoff_strategy_that_no_processor_has_is_found_at_start() -> None:
    @processor("images")
    class Resizer:
        @process(JobDef[Any, Any]("resize", backoff=custom("patient")))
        async def resize(self, job: Job) -> None: ...

    error = only(InvalidProcessorError, Resizer)
    assert error.processor == "Resizer.resize"
    assert error.place.startswith("tests/unit/test_processor_graph.py:")
    assert error.reason == (
        "no processor of queue 'images' has a backoff strategy 'patient': "
        'give it to one, as in @processor("images", backoff_strategies={"patient": …})'
    )


def test_a_backoff_strategy_of_defaults_is_found_too() -> None:
    @processor("thumbs", backoff_strategies={"patient": lambda failures, error, job: 5})
    class Thumbs:
        @process(JobDef[Any, Any]("one", backoff=custom("patient")))
        async def one(self, job: Job) -> None: ...

        @process("two")
        async def two(self, job: Job) -> None: ...

    queues = QueueModule.register_queue("thumbs", default_job_options=JobOptions(backoff=custom("pateint")))
    error = only(InvalidProcessorError, Thumbs, imports=[queues])
    assert error.processor == "default_job_options of QueueModule(thumbs)"
    assert error.reason.endswith("did you mean 'patient'?")
    of_all = QueueModule.for_root(default_job_options=JobOptions(backoff=custom("hasty")))
    error = only(InvalidProcessorError, Thumbs, imports=[QueueModule.register_queue("thumbs"), of_all])
    assert error.processor == "default_job_options of QueueModule.for_root"
    own = QueueModule.register_queue("thumbs", default_job_options=JobOptions(backoff=fixed("1s")))
    graph_of(root(Thumbs, imports=[own, of_all]))


def test_injecting_an_unregistered_queue_offers_what_is_near_too() -> None:
    class Service:
        def __init__(self, images: Annotated[Queue, InjectQueue("image")]) -> None: ...

    error = only(UnresolvedDependency, Service)
    assert error.missing == (0,)
    fix = "If not, add QueueModule.register_queue('image') to the imports."
    assert f"queue 'image' is not registered; did you mean 'images'? {fix}" in error.hints


def test_asking_for_a_queue_without_its_name_is_told_how_to_name_it() -> None:
    class Service:
        def __init__(self, q: Queue) -> None: ...

    class Typed:
        def __init__(self, q: Queue[Picture, int]) -> None: ...

    for service in (Service, Typed):
        error = only(UnresolvedDependency, service)
        assert 'queues are injected by name: Annotated[Queue, InjectQueue("images")].' in error.hints


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ((), 'No queue is registered so far. Add QueueModule.register_queue("name") to the imports of a module.'),
        (("a", "b"), "Registered so far: 'a', 'b'."),
        (tuple("abcdefghijkl"), "Registered so far: 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j' and 2 more."),
    ],
)
def test_who_asks_for_a_queue_without_its_name_is_told_which_there_are(names: tuple[str, ...], told: str) -> None:
    tokens = [QueueToken(name) for name in names]
    assert queue_adviser(Queue, tokens) == f'queues are injected by name: Annotated[Queue, InjectQueue("name")]. {told}'


def test_a_queue_registered_again_with_other_options_names_both_places() -> None:
    again = QueueModule.register_queue(QueueOptions("images", keep_failed=KeepJobs(count=1)))
    error = only(ConflictingModules, imports=[again])
    assert error.module == "QueueModule"
    assert "queue images" in error.key
    assert "test_processor_graph.py:" in error.first
    assert "test_processor_graph.py:" in error.second
    assert error.first != error.second


def test_a_queue_registered_again_with_the_same_options_is_the_same_queue() -> None:
    graph_of(root(imports=[QueueModule.register_queue("images"), QueueModule.register_queue(QueueOptions("images"), "other")]))


def test_contradictions_within_one_registration_are_found_too() -> None:
    twice = QueueModule.register_queue("a", QueueOptions("a", max_events=5))
    assert "queue a" in only(ConflictingModules, imports=[twice]).key


def test_row_14_a_second_for_root_with_other_options_is_refused() -> None:
    error = only(ConflictingModules, imports=[QueueModule.for_root(prefix="a"), QueueModule.for_root(prefix="b")])
    assert "for_root" in error.key
    graph_of(root(imports=[QueueModule.for_root(prefix="a"), QueueModule.for_root(prefix="a")]))


def test_for_root_and_for_root_async_together_are_refused() -> None:
    second = QueueModule.for_root_async(use_factory=lambda: QueueModuleOptions(prefix="b"))
    assert "for_root" in only(ConflictingModules, imports=[QueueModule.for_root(prefix="a"), second]).key


def test_no_address_with_its_password_gets_into_the_errors() -> None:
    imports = [QueueModule.for_root(url=f"redis://:s3cret@{host}:6379") for host in ("one", "two")]
    told = str(only(ConflictingModules, imports=imports))
    assert "s3cret" not in told
    assert "url='redis://:***@one:6379'" in told
    assert "url='redis://:***@two:6379'" in told


# ── handlers ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_handlers_for_one_name_are_refused_with_both_places() -> None:
    definition = JobDef[Picture, int]("resize")

    @processor("images")
    class Other:
        @process(definition)
        async def shrink(self, job: Job[Picture, int]) -> int:
            return 0

    error = only(HandlerConflictError, Good, Other)
    assert (error.queue, error.name) == ("images", "resize")
    assert error.first.startswith("Good.resize")
    assert error.second.startswith("Other.shrink")
    assert "test_processor_graph.py:" in error.first
    assert "test_processor_graph.py:" in error.second
    assert str(error).startswith("queue 'images' has two handlers for jobs named 'resize': keep one of them.\n")


def test_two_handlers_for_every_other_name_are_refused() -> None:
    @processor("images")
    class Twice:
        @process()
        async def one(self, job: Job) -> None: ...

        @process()
        async def two(self, job: Job) -> None: ...

    error = only(HandlerConflictError, Twice)
    assert error.name is None
    assert "two handlers for jobs of every other name" in str(error)


def test_a_processor_that_two_modules_provide_is_refused_with_the_names_of_both() -> None:
    @module(imports=[QueueModule.register_queue("images")], providers=[Good])
    class ImageModule: ...

    error = only(HandlerConflictError, Good, imports=[ImageModule])
    assert {"ImageModule" in error.first, "ImageModule" in error.second} == {True, False}


def test_a_processor_without_any_method_for_it_is_told_how_to_have_one() -> None:
    @processor("images")
    class Empty:
        async def run(self, job: Job) -> None: ...

    error = only(NoHandlerError, Empty)
    assert (error.processor, error.queue) == ("Empty", "images")
    assert f"({error.place})" in str(error)
    assert "decorate one with @process(...), or name it `process`" in str(error)


def test_a_method_named_process_needs_no_decorator() -> None:
    @processor("images")
    class Host:
        async def process(self, job: Job) -> None: ...

    graph_of(root(Host))


def test_an_annotation_that_exists_for_type_checkers_only_is_named() -> None:
    @processor("images")
    class Lazily:
        @process("pay")
        async def pay(self, job: Job[Money, int]) -> int:
            return 0

    error = only(InvalidProcessorError, Lazily)
    assert error.processor == "Lazily.pay"
    assert error.place.startswith("tests/unit/test_processor_graph.py:")
    assert "'Job[Money, int]'" in error.reason
    assert "TYPE_CHECKING" in error.reason
    assert "'?'" not in str(error)


def test_an_annotation_may_name_what_the_function_around_the_class_knows() -> None:
    class Local(BaseModel):
        n: int

    @processor("images")
    class Nested:
        @process("local")
        async def run(self, job: Job[Local, int]) -> int:
            return job.data.n

    graph_of(root(Nested))


def test_a_result_that_exists_for_type_checkers_only_does_no_harm() -> None:
    @processor("images")
    class Lazily:
        @process("pay")
        async def pay(self, job: Job[Picture, int]) -> Money: ...  # type: ignore[empty-body]  # never called

    graph_of(root(Lazily))


def test_a_type_that_no_job_can_carry_is_refused() -> None:
    class Opaque: ...

    @processor("images")
    class Strange:
        @process("strange")
        async def run(self, job: Job[Opaque, int]) -> int:
            return 0

    error = only(InvalidProcessorError, Strange)
    assert error.processor == "Strange.run"
    assert "Opaque can't be the data or result of a job" in error.reason


# ── options ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_processors_that_contradict_each_other_are_refused() -> None:
    @processor("images", concurrency=3, drain_delay="1s")
    class One:
        @process("a")
        async def a(self, job: Job) -> None: ...

    @processor("images", concurrency=4, drain_delay="1s")
    class Two:
        @process("b")
        async def b(self, job: Job) -> None: ...

    error = only(ProcessorOptionsError, One, Two)
    assert (error.queue, error.option) == ("images", "concurrency")
    assert error.first.startswith("One (tests/unit/test_processor_graph.py:")
    assert error.first.endswith("concurrency=3")
    assert error.second.startswith("Two (tests/unit/test_processor_graph.py:")
    assert error.second.endswith("concurrency=4")
    assert str(error).startswith("the processors of queue 'images' become one worker, and contradict each other in concurrency: ")


def test_two_processors_that_agree_or_add_up_are_fine() -> None:
    @processor("images", concurrency=3)
    class One:
        @process("a")
        async def a(self, job: Job) -> None: ...

    @processor("images", concurrency=3, lock_duration="10s")
    class Two:
        @process("b")
        async def b(self, job: Job) -> None: ...

    graph_of(root(One, Two))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("concurrency", 0),
        ("concurrency", "3"),
        ("lock_duration", 30),
        ("lock_duration", "10ms"),
        ("drain_delay", "-1s"),
        ("unknown_names", "explode"),
        ("concurency", 3),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_at_its_line(option: str, value: object) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        processor("images", **{option: value})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # on purpose
    assert option in str(caught.value)


def test_an_unknown_option_offers_what_is_near() -> None:
    with pytest.raises(InvalidOptionError, match=r"did you mean '?concurrency'?"):
        processor("images", concurency=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # on purpose


def test_decorators_without_brackets_are_told_so() -> None:
    with pytest.raises(InvalidOptionError, match=r'@processor\("emails"\)'):
        processor(Good)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # on purpose
    with pytest.raises(InvalidOptionError, match=r"needs brackets: write @process\(\)"):
        process(Good.resize)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]  # on purpose


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"concurrency": True}, {"timeout": 5}, {"timeout": "-1s"}])
def test_a_handlers_option_that_makes_no_sense_is_refused_at_its_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        process("a", **wrong)
    assert caught.value.option == next(iter(wrong))


def test_no_queue_in_one_registration_is_refused() -> None:
    with pytest.raises(InvalidOptionError, match="name at least one queue"):
        QueueModule.register_queue()


# ── the current job ───────────────────────────────────────────────────────────────────────────────────────────


@injectable(scope=Scope.JOB)
class Session:
    def __init__(self, job: Job) -> None: ...


class Repository:
    def __init__(self, session: Session) -> None: ...


def test_an_error_listener_in_a_class_that_needs_the_job_is_refused_with_the_chain() -> None:
    @processor("images")
    class Needy:
        def __init__(self, repository: Repository) -> None: ...

        @process()
        async def run(self, job: Job) -> None: ...

        @on_queue_error()
        async def trouble(self, error: Exception) -> None: ...

    error = only(NoJobHereError, Needy, Repository, Session)
    assert (error.processor, error.listener) == ("Needy", "trouble")
    assert error.chain == ("Needy", "Repository", "Session")
    assert "(Needy -> Repository -> Session)" in str(error)
    assert "Move it to a class of its own" in str(error)


def test_listeners_that_get_a_job_may_stand_in_such_a_class() -> None:
    @processor("images")
    class Needy:
        def __init__(self, repository: Repository) -> None: ...

        @process()
        async def run(self, job: Job) -> None: ...

        @on_queue_completed()
        async def done(self, job: Job, result: object) -> None: ...

    graph_of(root(Needy, Repository, Session))


def test_an_error_listener_may_stand_beside_a_job_logger_and_what_is_looked_up_later() -> None:
    @processor("images")
    class Modest:
        def __init__(self, log: JobLogger, repository: Lazy[Repository]) -> None: ...

        @process()
        async def run(self, job: Job) -> None: ...

        @on_queue_error()
        async def trouble(self, error: Exception) -> None: ...

    graph_of(root(Modest, Repository, Session))


# ── together ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_processor_that_a_factory_makes_is_one_too() -> None:
    @processor("imgaes")
    class Made:
        def __init__(self, size: int) -> None: ...

        @process()
        async def run(self, job: Job) -> None: ...

    def make() -> Made:
        return Made(3)

    assert only(UnregisteredQueueError, provide(Made, use_factory=make)).processor == "Made"


def test_everything_comes_at_once_each_with_a_place() -> None:
    @processor("imgaes")
    class Typo:
        @process()
        async def run(self, job: Job) -> None: ...

    @processor("images")
    class Empty: ...

    @processor("images")
    class Second:
        @process("resize")
        async def again(self, job: Job) -> None: ...

    class Service:
        def __init__(self, q: Queue) -> None: ...

    other = QueueModule.register_queue(QueueOptions("images", prefix="other"))
    with pytest.raises(GraphErrors) as caught:
        graph_of(root(Typo, Empty, Good, Second, Service, imports=[other]))
    kinds = [type(error) for error in caught.value.errors]
    assert sorted(kind.__name__ for kind in kinds) == sorted(
        kind.__name__ for kind in (ConflictingModules, UnresolvedDependency, UnregisteredQueueError, NoHandlerError, HandlerConflictError)
    )
    text = str(caught.value)
    assert text.startswith("5 problems in the module graph (nothing was instantiated):")
    for number, error in enumerate(caught.value.errors, 1):
        assert f"  {number}) [{type(error).__name__}] " in text
        assert "test_processor_graph.py:" in str(error)
