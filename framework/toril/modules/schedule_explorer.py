"""Finds the scheduled methods in a module graph, and where their schedules belong: which queue, which owner."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from toril.callables import is_async
from toril.di import Binding, Graph, Token
from toril.di.discovery import find_methods
from toril.di.providers import ValueProvider
from toril.errors import InvalidOptionError
from toril.modules.schedule_decorators import ScheduleMetadata
from toril.queues.options import QueueOptions

DEFAULT_QUEUE: Final = "schedules"


@dataclass(frozen=True, slots=True)
class ScheduleOptions:
    """What `ScheduleModule.for_root` was given."""

    queue: QueueOptions
    owner: str | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        for option, value in (("owner", self.owner), ("version", self.version)):
            _check_text(option, value)


def _check_text(option: str, value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise InvalidOptionError(option, value, "write a text that isn't empty, or leave it out")


SCHEDULE_OPTIONS: Final = Token[ScheduleOptions]("SCHEDULE_OPTIONS")


@dataclass(frozen=True, slots=True)
class ScheduledMethod:
    """One method with one schedule. The same class in two modules has two of them."""

    binding: Binding
    cls: type
    method: str
    metadata: ScheduleMetadata

    @property
    def name(self) -> str:
        """What the schedule is called."""
        return self.metadata.name or f"{self.cls.__name__}.{self.method}"

    @property
    def function(self) -> Any:  # noqa: ANN401 -- whatever it returns is dropped
        """The method as the class has it, not bound to an object."""
        return getattr(self.cls, self.method)

    @property
    def is_async(self) -> bool:
        return is_async(self.function)

    @property
    def is_bindable(self) -> bool:
        """Whether it gets an object first: it is neither a static nor a class method."""
        return inspect.isfunction(inspect.getattr_static(self.cls, self.method))

    @property
    def place(self) -> str:
        """Which method, and where it is written."""
        return f"{self.cls.__name__}.{self.method} ({self.metadata.place})"


def find_schedules(graph: Graph) -> list[ScheduledMethod]:
    """All scheduled methods of all providers, in the order of the graph."""
    return [ScheduledMethod(one.binding, one.cls, one.method, one.metadata) for one in find_methods(graph.bindings, ScheduleMetadata)]


def schedule_options(graph: Graph) -> ScheduleOptions | None:
    """What `ScheduleModule.for_root` was given; None if it isn't imported."""
    for binding in graph.find_all(SCHEDULE_OPTIONS):
        if isinstance(binding.provider, ValueProvider) and isinstance(binding.provider.value, ScheduleOptions):
            return binding.provider.value
    return None


def schedule_queue(graph: Graph) -> str | None:
    """The name of the queue that `ScheduleModule` runs the schedules on; None if it isn't imported."""
    options = schedule_options(graph)
    return None if options is None else options.queue.name


def owner_of(graph: Graph) -> str:
    """By which name an application owns its schedules unless it says it itself: the import path of its root module."""
    root = graph.root.module
    return f"{_import_name(root.__module__)}:{root.__qualname__}"


def _import_name(module: str) -> str:
    if module != "__main__":
        return module
    # Run with `python -m app.main` or `python app/main.py`: the same application as when `app.main` is imported.
    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        return main.__spec__.name
    return Path(getattr(main, "__file__", None) or "__main__").stem
