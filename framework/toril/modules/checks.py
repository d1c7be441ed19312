"""What can be wrong with the processors of a module graph."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence

from toril.callables import line_of
from toril.di import DIError, Graph, own_metadata, place_of, token_name
from toril.di.discovery import noted_methods
from toril.di.tokens import is_token, plain_token
from toril.errors import ProcessorError, TorilError
from toril.modules.child_programs import child_modules
from toril.modules.decorators import ProcessorMetadata, handlers_in, listeners_in
from toril.modules.errors import (
    HandlerConflictError,
    InvalidProcessorError,
    NoHandlerError,
    NoJobHereError,
    NotInChildError,
    ProcessorOptionsError,
    UnregisteredQueueError,
)
from toril.modules.explorer import HandlerMethod, Processor, find_processors, within
from toril.modules.fleet_decorators import FleetMetadata
from toril.modules.listener_checks import local_arguments, misfits
from toril.modules.tokens import queue_hint
from toril.modules.workers import handler_of
from toril.queues.listeners import WITH_JOB
from toril.worker.processor import Handler, Registry


def check_processors(graph: Graph) -> Iterator[DIError]:
    """Everything that is wrong with the processors of a graph; one of the checks that `build_graph` is given."""
    for queue, processors in find_processors(graph).items():
        hint = queue_hint(queue, graph.tokens())
        has_handlers = any(processor.handlers for processor in processors)
        for processor in processors:
            if hint is not None:
                yield UnregisteredQueueError(processor.cls.__name__, queue, processor.place, hint)
            if not processor.handlers and not (processor.listeners and has_handlers):
                yield NoHandlerError(processor.cls.__name__, queue, processor.place, only_listens=bool(processor.listeners))
            yield from _check_both(processor)
            yield from _check_listeners(graph, processor)
            yield from _check_children(graph, processor)
        yield from _check_handlers(graph, queue, [handler for processor in processors for handler in processor.handlers])
        yield from _check_options(queue, processors)


def check_undecorated(graph: Graph) -> Iterator[DIError]:
    """Handlers and local listeners in classes that serve no queue, so that nobody would call them; another of the checks."""
    first_of = {binding.known_class: binding for binding in reversed(graph.bindings)}
    for cls, binding in reversed(first_of.items()):
        if cls is None or own_metadata(cls, ProcessorMetadata) is not None:
            continue
        methods = list(dict.fromkeys(name for name, _ in (*handlers_in(cls), *listeners_in(cls))))
        if methods:
            base = next((base.__name__ for base in cls.__mro__ if own_metadata(base, ProcessorMetadata) is not None), None)
            fix = f'decorate it with @processor("…"){"" if base is None else f", as {base} is: subclasses say it anew"}'
            reason = f"no queue ever calls {', '.join(methods)}, since its class is no processor: {fix}"
            yield InvalidProcessorError(f"{cls.__name__}.{methods[0]}", within(line_of(getattr(cls, methods[0])), binding), reason)


def _check_handlers(graph: Graph, queue: str, methods: Sequence[HandlerMethod]) -> Iterator[DIError]:
    seen: dict[str | None, HandlerMethod] = {}
    handlers: list[Handler] = []
    for one in methods:
        name = one.metadata.name
        if name in seen:
            yield _conflict(queue, seen[name], one)
            continue
        seen[name] = one
        try:
            for reason in _disagreements(graph, one):
                yield _invalid(one, reason)
            handlers.append(handler_of(one, call=one.function))
        except TorilError as error:
            yield _invalid(one, error.reason if isinstance(error, ProcessorError) else str(error))
    if handlers:
        try:
            Registry(queue, handlers)
        except ProcessorError as error:
            yield InvalidProcessorError(f"queue {queue!r}", "; ".join(error.places), error.reason)


def _disagreements(graph: Graph, one: HandlerMethod) -> Iterator[str]:
    """What is wrong with the parameters and types of a handler; what it wants injected is the graph's own business."""
    signature = one.signature()
    if not signature.given:
        yield f"it is called as {one.method}(self, job): write it so"
        return
    token = plain_token(signature.data_hint)
    if is_token(token) and graph.find(one.processor.binding.node, token) is not None:
        yield f"its first parameter is the job or its data; what is injected, as {token_name(token)}, comes after it"
        return
    if inspect.isgeneratorfunction(one.function) or inspect.isasyncgenfunction(one.function):
        yield "it yields, and a handler returns its result: return a list"
        return
    yield from signature.disagreements(one.definition)
    for payload in signature.types(one.definition):
        payload.check()


def _invalid(one: HandlerMethod, reason: str) -> InvalidProcessorError:
    return InvalidProcessorError(f"{one.processor.cls.__name__}.{one.method}", one.where, reason)


def _conflict(queue: str, first: HandlerMethod, second: HandlerMethod) -> HandlerConflictError:
    places = (within(one.place, one.processor.binding) for one in (first, second))
    return HandlerConflictError(queue, first.metadata.name, *places)


def _check_both(processor: Processor) -> Iterator[DIError]:
    """One method can't be called for two things, with other arguments each."""
    handlers = {method: metadata.place for method, metadata in handlers_in(processor.cls)}
    heard = [(method, f"@on_queue_{event}") for method, event in processor.listeners]
    heard += [(method, f"@on_global_queue_{one.event.event_name}") for method, one in noted_methods(processor.cls, FleetMetadata)]
    for method, decorator in heard:
        if method in handlers:
            reason = f"one method can't be both a handler and a listener: write two, one with @process, one with {decorator}"
            yield InvalidProcessorError(f"{processor.cls.__name__}.{method}", within(handlers[method], processor.binding), reason)


def _check_listeners(graph: Graph, processor: Processor) -> Iterator[DIError]:
    handlers = {method for method, _ in handlers_in(processor.cls)}
    for method, event in processor.listeners:
        if method in handlers:  # which has an error of its own
            continue
        for reason in misfits(processor.cls, method, f"@on_queue_{event}", local_arguments(event), processor.metadata.names):
            place = within(place_of(getattr(processor.cls, method)), processor.binding)
            yield InvalidProcessorError(f"{processor.cls.__name__}.{method}", place, reason)
    lonely = [method for method, event in processor.listeners if event not in WITH_JOB]
    chain = graph.job_chain(processor.binding)
    if lonely and chain:
        yield NoJobHereError(processor.cls.__name__, lonely[0], tuple(binding.name for binding in chain), processor.place)


def _check_children(graph: Graph, processor: Processor) -> Iterator[DIError]:
    """Whether child processes can make what runs there."""
    there = [one for one in processor.handlers if one.metadata.executor == "process"]
    if there:
        try:
            child_modules(graph, processor.binding)
        except ValueError as error:
            yield NotInChildError(f"{processor.cls.__name__}.{there[0].method}", there[0].where, str(error))


def _check_options(queue: str, processors: Iterable[Processor]) -> Iterator[DIError]:
    """Together they are one worker, so they must not contradict each other."""
    seen: dict[str, tuple[object, Processor]] = {}
    for processor in processors:
        for option, value in processor.metadata.options.items():
            first, by = seen.setdefault(option, (value, processor))
            if first != value:
                places = (f"{one.cls.__name__} ({one.place}): {option}={said!r}" for one, said in ((by, first), (processor, value)))
                yield ProcessorOptionsError(queue, option, *places)
