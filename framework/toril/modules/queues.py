"""What the queues of an application learn from its modules, once they exist: who hears of them, what their jobs carry, and where
letters about failed jobs go."""

from __future__ import annotations

from collections.abc import Iterator

from toril.di import ApplicationContext, DIError, Graph
from toril.di.providers import ValueProvider
from toril.errors import InvalidOptionError
from toril.modules.connections import registered_queues
from toril.modules.errors import UnregisteredDeadLetterError
from toril.modules.explorer import register_payloads, within
from toril.modules.tokens import FlowProducerToken, QueueOptionsToken, QueueToken, queue_hint
from toril.modules.workers import bind_listeners
from toril.queues.flows import FlowProducer
from toril.queues.options import QueueOptions
from toril.queues.queue import Queue


def check_dead_letters(graph: Graph) -> Iterator[DIError]:
    """Queues whose letters should go where no queue is registered; one of the checks that `build_graph` is given."""
    for binding in graph.bindings:
        provider = binding.provider
        if isinstance(provider, ValueProvider) and isinstance(options := provider.value, QueueOptions) and options.dead_letter:
            hint = queue_hint(options.dead_letter, graph.tokens())
            if hint is not None:
                yield UnregisteredDeadLetterError(options.name, options.dead_letter, within(binding.node.place, binding), hint)


def prepare_queues(ctx: ApplicationContext) -> None:
    """Tell the queues what the modules know.

    Raises:
        InvalidOptionError: options that a function made name a queue for dead letters that isn't registered.
    """
    register_payloads(ctx)
    bind_listeners(ctx)
    producers = [ctx.instance_of(binding) for binding in ctx.graph.bindings if isinstance(binding.token, FlowProducerToken)]
    for producer in (one for one in producers if isinstance(one, FlowProducer)):  # else a test's own object in its place
        for queue in registered_queues(ctx):
            producer.use(queue)
    link_dead_letters(ctx)


def link_dead_letters(ctx: ApplicationContext) -> None:
    """Tell the queues where letters about their failed jobs go. Raises what `prepare_queues` raises."""
    for binding in ctx.graph.bindings:
        if isinstance(binding.token, QueueOptionsToken):
            options: QueueOptions = ctx.instance_of(binding)
            if options.dead_letter is not None:
                _send_letters(ctx, options, options.dead_letter)


def _send_letters(ctx: ApplicationContext, options: QueueOptions, name: str) -> None:
    hint = queue_hint(name, ctx.graph.tokens())
    if hint is not None:
        raise InvalidOptionError("dead_letter", name, f"of queue {options.name!r}: {hint}")
    queue, letters = ctx.get(QueueToken(options.name)), ctx.get(QueueToken(name))
    # A test may have put an object of its own in the place of one.
    if isinstance(queue, Queue) and isinstance(letters, Queue):  # type: ignore[redundant-expr]  # pyright: ignore[reportUnnecessaryIsInstance]
        queue.send_letters_to(letters)
