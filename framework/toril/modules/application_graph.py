"""The checked module graph of an application: the container's own rules, and those for queues, processors and schedules."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from toril.di import Check, DIError, DynamicModule, Graph, InvalidModule, Overrides, build_graph, token_name
from toril.di.overrides import NO_OVERRIDES
from toril.di.places import Namespace
from toril.modules.backoff_checks import check_backoffs
from toril.modules.checks import check_processors, check_undecorated
from toril.modules.config_module import ConfigModule
from toril.modules.fleet import check_fleet_listeners
from toril.modules.handler_providers import handler_providers
from toril.modules.interceptor_checks import check_interceptors
from toril.modules.queue_module import QueueModule
from toril.modules.queues import check_dead_letters
from toril.modules.schedule_checks import check_schedule_module, check_schedules
from toril.modules.schedule_module import ScheduleModule
from toril.modules.schedule_registry import SchedulerRegistry
from toril.modules.settings import TorilSettings
from toril.modules.tokens import queue_adviser
from toril.queues.job import Job
from toril.telemetry.logs import JobLogger

_CALLS: Final[Mapping[type, str]] = {
    QueueModule: 'QueueModule.register_queue("emails"), or .for_root(…) for what holds for all queues',
    ScheduleModule: "ScheduleModule.for_root()",
    ConfigModule: "ConfigModule.for_root(Settings)",
}
"""Modules that do nothing by themselves, and what to write instead."""

_COMES_WITH: Final[Mapping[type, str]] = {
    JobLogger: 'QueueModule.register_queue("…")',
    SchedulerRegistry: "ScheduleModule.for_root()",
    TorilSettings: "ConfigModule.for_root({})",
}
"""What people ask for without having imported its module; of the settings their own subclass."""


def check_bare_modules(graph: Graph) -> Iterator[DIError]:
    """Whether one of our own modules is imported without its options; one of the checks that `build_graph` is given."""
    for node in graph.nodes:
        if node.dynamic is None and node.parent is not None and (call := _CALLS.get(node.module)):
            name = f"{node.name} in the imports of {node.parent.name}"
            yield InvalidModule(name, "it does nothing by itself", f"Write {call}.", node.parent.path, str(node.parent.place))


def module_adviser(token: object, _tokens: Collection[object]) -> str | None:
    """A hint for what one of our own modules would provide, if it were imported."""
    cls = next((each for each in _COMES_WITH if isinstance(token, type) and issubclass(token, each)), None)
    return (
        None
        if cls is None
        else f"{token_name(token)} comes with {_COMES_WITH[cls].format(token_name(token))}: add that to the imports of a module."
    )


FEATURE_CHECKS: Final = (
    check_bare_modules,
    check_processors,
    check_backoffs,
    check_undecorated,
    check_interceptors,
    check_schedules,
    check_dead_letters,
    check_fleet_listeners,
)
"""The rules for modules that are a part of an application, as in a test."""

CHECKS: Final = (*FEATURE_CHECKS, check_schedule_module)
"""The rules for a whole application."""


def graph_of(
    root: type | DynamicModule,
    *,
    overrides: Overrides = NO_OVERRIDES,
    namespace: Namespace | None = None,
    checks: Sequence[Check] = CHECKS,
) -> Graph:
    """The checked module graph, with the rules for queues, processors and schedules; arguments as in `build_graph`. Raises GraphErrors."""
    return build_graph(
        root,
        overrides=overrides,
        checks=checks,
        advisers=[queue_adviser, module_adviser],
        companions=[handler_providers],
        job_types=[Job],
        namespace=namespace,
    )
