"""What can be wrong with the schedules of a module graph."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from toril.di import DIError, Graph
from toril.modules.errors import (
    InvalidProcessorError,
    InvalidScheduleError,
    NoJobHereError,
    NoScheduleModuleError,
    ScheduleConflictError,
)
from toril.modules.explorer import find_processors, within
from toril.modules.schedule_explorer import ScheduledMethod, find_schedules, schedule_queue
from toril.modules.schedule_module import ScheduleModule


def check_schedules(graph: Graph) -> Iterator[DIError]:
    """Everything that is wrong with the schedules of a graph; one of the checks that `build_graph` is given."""
    methods, queue = find_schedules(graph), schedule_queue(graph)
    for processor in find_processors(graph).get(queue or "", ()):
        reason = f"queue {queue!r} belongs to ScheduleModule, whose schedules are its handlers: give one of the two another queue"
        yield InvalidProcessorError(processor.cls.__name__, processor.place, reason)
    seen: dict[str, ScheduledMethod] = {}
    for one in methods:
        if one.name in seen:
            yield _conflict(seen[one.name], one)
            continue
        seen[one.name] = one
        yield from _check_call(one)
        chain = graph.job_chain(one.binding)
        if chain:
            names = tuple(binding.name for binding in chain)
            yield NoJobHereError(one.cls.__name__, one.method, names, within(one.metadata.place, one.binding))


def check_schedule_module(graph: Graph) -> Iterator[DIError]:
    """Whether somebody runs the schedules. A test of one feature may do without, since it runs none unless it asks for that."""
    methods = find_schedules(graph)
    is_bare = any(node.module is ScheduleModule and node.dynamic is None for node in graph.nodes)  # which has an error of its own
    if methods and schedule_queue(graph) is None and not is_bare:
        yield NoScheduleModuleError(tuple(within(one.place, one.binding) for one in methods), graph.root.name)


def _conflict(first: ScheduledMethod, second: ScheduledMethod) -> ScheduleConflictError:
    return ScheduleConflictError(first.name, *(within(one.place, one.binding) for one in (first, second)))


def _check_call(one: ScheduledMethod) -> Iterator[DIError]:
    """Whether the method can be called without arguments, and does something then."""
    function = one.function
    try:
        inspect.signature(function).bind(*(("self",) if one.is_bindable else ()))
    except TypeError:
        reason = f"it is called without arguments, as {one.method}(self): give its parameters defaults, or inject what it needs"
        yield InvalidScheduleError(one.name, within(one.place, one.binding), reason)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        reason = "it is a generator, whose body a call doesn't run: leave out yield"
        yield InvalidScheduleError(one.name, within(one.place, one.binding), reason)
