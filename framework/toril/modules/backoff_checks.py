"""Whether the workers of a module graph know the backoff strategies that jobs will ask for, as far as that is said at start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toril.di import DIError, Graph
from toril.di.providers import ValueProvider
from toril.modules.errors import InvalidProcessorError
from toril.modules.explorer import Processor, find_processors, within
from toril.modules.queue_module import QueueModuleOptions
from toril.queues.option_parts import BUILT_IN
from toril.queues.options import JobOptions, QueueOptions
from toril.spelling import near


def check_backoffs(graph: Graph) -> Iterator[DIError]:
    """Definitions and defaults with a strategy that no processor of the queue has; one of the checks that `build_graph` is given.

    Options of single calls, and those that a function makes at start, are left to the attempt that needs them.
    """
    for queue, processors in find_processors(graph).items():
        if not any(processor.handlers for processor in processors):
            continue
        known = {name for processor in processors for name in processor.metadata.options.get("backoff_strategies", ())}
        told: set[str] = set()
        for what, place, options in _said(graph, queue, processors):
            strategy = None if options.backoff is None else options.backoff.strategy
            if strategy is not None and strategy not in {*BUILT_IN, *known} and what not in told:
                told.add(what)
                close = near(strategy, known)
                hint = f"did you mean {' or '.join(map(repr, close))}?" if close else _fix(queue, strategy)
                yield InvalidProcessorError(what, place, f"no processor of queue {queue!r} has a backoff strategy {strategy!r}: {hint}")


def _fix(queue: str, strategy: str) -> str:
    return f'give it to one, as in @processor("{queue}", backoff_strategies={{"{strategy}": …}})'


def _said(graph: Graph, queue: str, processors: Sequence[Processor]) -> Iterator[tuple[str, str, JobOptions]]:
    """What sets options for jobs of this queue, and where."""
    needs_defaults = False
    for handler in (one for processor in processors for one in processor.handlers):
        if handler.definition is None or handler.definition.options.backoff is None:
            needs_defaults = True
        else:
            yield f"{handler.processor.cls.__name__}.{handler.method}", handler.where, handler.definition.options
    if needs_defaults:
        yield from _defaults(graph, queue)


def _defaults(graph: Graph, queue: str) -> Iterator[tuple[str, str, JobOptions]]:
    of_queue: list[tuple[str, str, JobOptions]] = []
    of_all: list[tuple[str, str, JobOptions]] = []
    for binding in graph.bindings:
        made = binding.provider.value if isinstance(binding.provider, ValueProvider) else None
        if isinstance(made, QueueModuleOptions) or (isinstance(made, QueueOptions) and made.name == queue):
            where = of_all if isinstance(made, QueueModuleOptions) else of_queue
            where.append((f"default_job_options of {binding.node.name}", within(binding.node.place, binding), made.default_job_options))
    is_said = any(options.backoff is not None for _, _, options in of_queue)
    return iter(of_queue if is_said else of_all)
