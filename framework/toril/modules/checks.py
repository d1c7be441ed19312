"""What can be wrong with the processors of a module graph."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from toril.di import DIError, Graph
from toril.errors import ProcessorError, TorilError
from toril.modules.errors import (
    HandlerConflictError,
    InvalidProcessorError,
    NoHandlerError,
    NoJobHereError,
    ProcessorOptionsError,
    UnregisteredQueueError,
)
from toril.modules.explorer import HandlerMethod, Processor, find_processors
from toril.modules.tokens import queue_hint
from toril.modules.workers import WITHOUT_JOB, handler_of
from toril.worker.listeners import LocalEvent
from toril.worker.processor import Handler, Registry

LISTENER_ARGUMENTS: Final[Mapping[LocalEvent, tuple[str, ...]]] = {
    "active": ("job",),
    "completed": ("job", "result"),
    "failed": ("job", "error", "final"),
    "progress": ("job", "value"),
    "error": ("error",),
}


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
            yield from _check_listeners(graph, processor)
        yield from _check_handlers(queue, [handler for processor in processors for handler in processor.handlers])
        yield from _check_options(queue, processors)


def _check_handlers(queue: str, methods: Sequence[HandlerMethod]) -> Iterator[DIError]:
    seen: dict[str | None, HandlerMethod] = {}
    handlers: list[Handler] = []
    for one in methods:
        name = one.metadata.name
        if name in seen:
            yield _conflict(queue, seen[name], one)
            continue
        seen[name] = one
        yield from _check_call(one.processor, one.method, ("job",))
        try:
            for payload in one.types():
                payload.check()
            handlers.append(handler_of(one, call=one.function))
        except TorilError as error:
            reason = error.reason if isinstance(error, ProcessorError) else str(error)
            yield InvalidProcessorError(f"{one.processor.cls.__name__}.{one.method}", str(one.metadata.place), reason)
    if handlers:
        try:
            Registry(queue, handlers)
        except ProcessorError as error:
            yield InvalidProcessorError(f"queue {queue!r}", "; ".join(error.places), error.reason)


def _conflict(queue: str, first: HandlerMethod, second: HandlerMethod) -> HandlerConflictError:
    places = (first.place, second.place)
    if first.place == second.place:  # one class, provided by two modules
        places = (f"{first.place} in {first.processor.binding.node.name}", f"{second.place} in {second.processor.binding.node.name}")
    return HandlerConflictError(queue, first.metadata.name, *places)


def _check_listeners(graph: Graph, processor: Processor) -> Iterator[DIError]:
    for method, event in processor.listeners:
        yield from _check_call(processor, method, LISTENER_ARGUMENTS[event])
    lonely = [method for method, event in processor.listeners if event in WITHOUT_JOB]
    chain = graph.job_chain(processor.binding)
    if lonely and chain:
        yield NoJobHereError(processor.cls.__name__, lonely[0], tuple(binding.name for binding in chain), processor.place)


def _check_call(processor: Processor, method: str, arguments: tuple[str, ...]) -> Iterator[DIError]:
    """Whether a method can be called with these arguments."""
    is_unbound = inspect.isfunction(inspect.getattr_static(processor.cls, method))
    try:
        inspect.signature(getattr(processor.cls, method)).bind(*(("self",) if is_unbound else ()), *arguments)
    except TypeError:
        written = f"{method}(self, {', '.join(arguments)})"
        yield InvalidProcessorError(f"{processor.cls.__name__}.{method}", processor.place, f"it is called as {written}: write it so")


def _check_options(queue: str, processors: Iterable[Processor]) -> Iterator[DIError]:
    """Together they are one worker, so they must not contradict each other."""
    seen: dict[str, tuple[object, Processor]] = {}
    for processor in processors:
        for option, value in processor.metadata.options.items():
            first, by = seen.setdefault(option, (value, processor))
            if first != value:
                places = (f"{one.cls.__name__} ({one.place}): {option}={said!r}" for one, said in ((by, first), (processor, value)))
                yield ProcessorOptionsError(queue, option, *places)
