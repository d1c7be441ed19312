"""What layers above hook into: checks, bindings, tokens and marks of their own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from tests.unit.di.building import app, context_of, errors_of, only_error
from toril.di import (
    ApplicationContext,
    DIError,
    DynamicModule,
    Graph,
    Inject,
    InvalidProvider,
    JobRef,
    Scope,
    Token,
    UnresolvedDependency,
    attach,
    build_graph,
    own_metadata,
    provide,
    token_name,
)
from toril.spelling import near

ClassT = TypeVar("ClassT", bound=type)


class Queue:
    def __init__(self, name: str) -> None:
        self.name = name


class QueueToken(Token[Queue]):
    """Found by the queue's name."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QueueToken) and other.token_name == self.token_name

    def __hash__(self) -> int:
        return hash((QueueToken, self.token_name))

    def unresolved_hint(self, tokens: Collection[object]) -> str | None:
        known = [token.token_name for token in tokens if isinstance(token, QueueToken)]
        close = near(self.token_name, known)
        return f"queue {self.token_name!r} is not registered" + (f"; did you mean {close[0]!r}?" if close else "")


class InjectQueue(Inject):
    def __init__(self, name: str) -> None:
        super().__init__(QueueToken(name))


@dataclass(frozen=True)
class ProcessorMetadata:
    queue: str


def processor(queue: str) -> Callable[[ClassT], ClassT]:
    def decorate(cls: ClassT) -> ClassT:
        attach(cls, ProcessorMetadata(queue))
        return cls

    return decorate


@processor("emails")
class EmailProcessor:
    def __init__(self, emails: Annotated[Queue, InjectQueue("emails")], job: JobRef) -> None:
        self.emails, self.job = emails, job


class UsesQueue:
    def __init__(self, emails: Annotated[Queue, InjectQueue("emials")]) -> None: ...


EMAILS = provide(QueueToken("emails"), use_value=Queue("emails"))


async def test_a_layer_can_have_tokens_that_meet_by_name_and_a_mark_of_its_own() -> None:
    ctx = context_of(EMAILS, EmailProcessor)
    async with ctx, ctx.job_scope("J") as scope:
        processor = await scope.resolve(EmailProcessor)
        assert processor.emails is ctx.get(QueueToken("emails"))


def test_a_token_can_say_why_it_is_missing() -> None:
    error = only_error(app(providers=[EMAILS, UsesQueue]), UnresolvedDependency)
    assert error.parameters == ("emails: emials",)
    assert error.hints == ("queue 'emials' is not registered; did you mean 'emails'?",)


def test_an_adviser_can_say_what_a_wrong_type_should_have_been() -> None:
    class Uses:
        def __init__(self, queue: Queue) -> None: ...

    def adviser(token: object, tokens: Collection[object]) -> str | None:
        assert QueueToken("emails") in tokens
        return 'queues are injected by name: Annotated[Queue, InjectQueue("name")].' if token is Queue else None

    error = only_error(app(providers=[EMAILS, Uses]), UnresolvedDependency, advisers=[adviser])
    assert error.hints == ('queues are injected by name: Annotated[Queue, InjectQueue("name")].',)


@dataclass(frozen=True)
class Frozen:
    """Any hashable object with a `token_name` is a token."""

    token_name: str


async def test_any_hashable_object_with_a_token_name_is_a_token() -> None:
    make: Any = provide
    async with context_of(make(Frozen("x"), use_value=1)) as ctx:
        assert ctx.get(Frozen("x")) == 1
        assert token_name(Frozen("x")) == "x"


def check_processors(graph: Graph) -> Iterable[DIError]:
    for binding in graph.bindings:
        metadata = own_metadata(binding.cls, ProcessorMetadata)
        if metadata is not None and graph.find(binding.node, QueueToken(metadata.queue)) is None:
            hint = QueueToken(metadata.queue).unresolved_hint(graph.tokens()) or ""
            yield InvalidProvider(
                binding.name, binding.node.name, "its queue is not registered", hint, str(binding.place), binding.node.path
            )


def test_checks_of_a_layer_are_reported_together_with_everything_else() -> None:
    @processor("emials")
    class Wrong: ...

    first, second = errors_of(app(providers=[EMAILS, Wrong, UsesQueue]), checks=[check_processors])
    assert isinstance(first, UnresolvedDependency)
    assert isinstance(second, InvalidProvider)
    assert second.hint == "queue 'emials' is not registered; did you mean 'emails'?"
    assert "test_extension_points.py:" in second.place
    build_graph(app(providers=[EMAILS, EmailProcessor]), checks=[check_processors])


async def test_an_explorer_finds_decorated_classes_and_goes_on_to_instances_and_plans() -> None:
    @processor("other")
    class Single: ...

    class Child(EmailProcessor): ...

    aliased = provide("alias", use_existing=EmailProcessor)
    ctx = ApplicationContext(build_graph(app(providers=[EMAILS, EmailProcessor, Child, Single, aliased])))
    async with ctx:
        found = {binding.name: binding for binding in ctx.graph.bindings if own_metadata(binding.cls, ProcessorMetadata)}
        assert list(found) == ["EmailProcessor", "Single"], "neither the alias nor the subclass"
        email, single = found["EmailProcessor"], found["Single"]
        assert (email.cls, email.token, email.node, email.scope) == (EmailProcessor, EmailProcessor, ctx.graph.root, Scope.JOB)
        assert email.place.line > 0
        assert ctx.instance_of(single) is ctx.get(Single)
        async with ctx.job_scope("J") as scope:
            assert (await scope.build(ctx.plan_for(email))).job == "J"


def test_the_class_of_a_value_is_known_and_that_of_a_factory_is_not() -> None:
    graph = build_graph(app(providers=[EMAILS, provide("made", use_factory=lambda: Queue("x"))]))
    assert [binding.cls for binding in graph.bindings[:2]] == [Queue, None]


def test_a_layer_tells_where_its_user_called_it() -> None:
    dynamic = DynamicModule(app().module)
    assert str(dynamic.place).endswith(f"test_extension_points.py:{dynamic.place.line}")
