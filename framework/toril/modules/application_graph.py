"""The checked module graph of an application: the container's own rules, and those for queues, processors and schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from toril.di import Check, DynamicModule, Graph, Overrides, build_graph
from toril.di.overrides import NO_OVERRIDES
from toril.di.places import Namespace
from toril.modules.checks import check_processors, check_undecorated
from toril.modules.fleet import check_fleet_listeners
from toril.modules.handler_providers import handler_providers
from toril.modules.interceptor_checks import check_interceptors
from toril.modules.queues import check_dead_letters
from toril.modules.schedule_checks import check_schedule_module, check_schedules
from toril.modules.tokens import queue_adviser
from toril.queues.job import Job

FEATURE_CHECKS: Final = (
    check_processors,
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
        advisers=[queue_adviser],
        companions=[handler_providers],
        job_types=[Job],
        namespace=namespace,
    )
