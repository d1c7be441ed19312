"""Finds the processors in a module graph, and reads what they say: which queue, which jobs, of what types, which events.

graph ─► find_processors ─┬─► checks.py    what is wrong with them, together with all other errors of the graph
                          ├─► workers.py   one worker for each queue that has handlers
                          └─► register_payloads, so that `add` knows what the handlers of this process take
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Final

from toril.di import ApplicationContext, Binding, Graph, own_metadata, place_of
from toril.di.discovery import find_classes
from toril.modules.decorators import ProcessMetadata, ProcessorMetadata, handlers_in, listeners_in
from toril.modules.tokens import QueueToken
from toril.queues.job_def import JobDef
from toril.queues.listeners import LocalEvent
from toril.queues.options import NO_OPTIONS
from toril.queues.queue import Queue
from toril.worker.signature import HandlerSignature, Types, read_handler

DEFAULT_METHOD: Final = "process"
"""A processor without decorated methods may have one of this name, as in BullMQ's WorkerHost; it handles every name."""


@dataclass(frozen=True, slots=True)
class HandlerMethod:
    """One method that handles jobs."""

    processor: Processor
    method: str
    metadata: ProcessMetadata

    @property
    def function(self) -> Any:  # noqa: ANN401 -- a handler takes the job it wants, and returns what it wants
        """The method as the class has it, not bound to an object."""
        return getattr(self.processor.cls, self.method)

    @property
    def place(self) -> str:
        """Which method, and where it is written."""
        return f"{self.processor.cls.__name__}.{self.method} ({self.metadata.place})"

    @property
    def where(self) -> str:
        """Where it is written, and the way to its module."""
        return within(self.metadata.place, self.processor.binding)

    @property
    def definition(self) -> JobDef[Any, Any] | None:
        """The definition that it was decorated with, if it was one."""
        definition = self.metadata.definition
        return definition if isinstance(definition, JobDef) else None

    def signature(self) -> HandlerSignature:
        """What it takes and returns. Raises ProcessorError where an annotation can't be read."""
        is_unbound = inspect.isfunction(inspect.getattr_static(self.processor.cls, self.method))
        return read_handler(self.function, skip_self=is_unbound, names=self.processor.metadata.names)

    def types(self) -> Types:
        """The types of data and result, from the definition or the annotations.

        Raises:
            ProcessorError, InvalidOptionError: they can't be read.
        """
        return self.signature().types(self.definition)


@dataclass(frozen=True, slots=True)
class Processor:
    """One processor class in the graph. The same class in two modules is two of them."""

    binding: Binding
    cls: type
    metadata: ProcessorMetadata

    @property
    def queue(self) -> str:
        return self.metadata.queue

    @property
    def place(self) -> str:
        """Where its class is decorated, and the way to its module."""
        return within(self.metadata.place, self.binding)

    @property
    def handlers(self) -> list[HandlerMethod]:
        """Its methods that handle jobs."""
        found = handlers_in(self.cls)
        method = getattr(self.cls, DEFAULT_METHOD, None)
        if not found and callable(method):
            found = [(DEFAULT_METHOD, ProcessMetadata(place_of(method)))]
        return [HandlerMethod(self, name, metadata) for name, metadata in found]

    @property
    def listeners(self) -> list[tuple[str, LocalEvent]]:
        """Its methods that listen."""
        return listeners_in(self.cls)


def within(place: object, binding: Binding) -> str:
    """A place of a provider with the way to its module, as errors show it: `app/mail.py:7 in AppModule -> MailModule`."""
    return f"{place} in {binding.node.path}"


def find_processors(graph: Graph) -> dict[str, list[Processor]]:
    """All providers whose class is decorated with `@processor`, by queue, in the order of the graph."""
    found: dict[str, list[Processor]] = {}
    for one in find_classes(graph.bindings, ProcessorMetadata):
        found.setdefault(one.metadata.queue, []).append(Processor(one.binding, one.cls, one.metadata))
    return found


def handled_names(graph: Graph) -> dict[str, set[str | None]]:
    """By queue, the names of the jobs that have handlers; None stands for every other name. Queues without a handler are left out."""
    found = {
        queue: {handler.metadata.name for processor in processors for handler in processor.handlers}
        for queue, processors in find_processors(graph).items()
    }
    return {queue: names for queue, names in found.items() if names}


def processor_of(binding: Binding) -> Processor | None:
    """The processor that a binding provides, if it does."""
    cls = binding.known_class
    metadata = own_metadata(cls, ProcessorMetadata)
    return Processor(binding, cls, metadata) if cls is not None and metadata is not None else None


def register_payloads(ctx: ApplicationContext) -> None:
    """Tell every queue what the handlers of this process take, so that `add` checks it: in processes that only produce, too."""
    for name, processors in find_processors(ctx.graph).items():
        queue: object = ctx.get(QueueToken(name))
        if not isinstance(queue, Queue):  # pyright: ignore[reportUnnecessaryIsInstance]  # a test's own object in its place
            continue
        for handler in (one for processor in processors for one in processor.handlers):
            payload, result = handler.types()
            metadata = handler.metadata
            options = metadata.definition.options if isinstance(metadata.definition, JobDef) else NO_OPTIONS
            has_timeout = metadata.timeout_ms is not None
            queue.register_payload(metadata.name, payload, result=result, options=options, has_timeout=has_timeout)
