"""Handlers that ask for more than the job: how the container fills their parameters.

For each such method the processor's module gets a hidden provider, whose parameters are the processor itself and what the method wants
injected. So the graph checks, scopes and plans it like any other; what it provides is the method as a function of the job alone.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from inspect import Parameter
from typing import Annotated, Any, cast

from toril.di import Binding, Inject, Provider, Scope, Token, own_metadata
from toril.di.providers import FactoryProvider, InjectableMetadata
from toril.errors import ProcessorError
from toril.modules.explorer import HandlerMethod, processor_of
from toril.worker.processor import HandlerCall
from toril.worker.signature import HandlerSignature


class HandlerToken(Token[HandlerCall]):
    """Stands for a method of the processor that a module provides under some token. Two of the same are equal."""

    def __init__(self, one: HandlerMethod) -> None:
        super().__init__(f"{one.processor.cls.__name__}.{one.method}")
        self._key = (one.processor.binding.token, one.method)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HandlerToken) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def handler_providers(binding: Binding) -> Iterator[Provider]:
    """The hidden providers of one binding; what `build_graph` takes as `companions`."""
    processor = processor_of(binding)
    if processor is None:
        return
    for one in {one.method: one for one in processor.handlers}.values():
        try:
            signature = one.signature()
        except ProcessorError:  # check_processors reports it
            continue
        if signature.others:
            metadata = own_metadata(processor.cls, InjectableMetadata)
            yield FactoryProvider(
                token=HandlerToken(one),
                factory=_filler(one, signature),
                scope=Scope.JOB,
                place=one.metadata.place,
                namespace=None if metadata is None else metadata.namespace,
            )


def _filler(one: HandlerMethod, signature: HandlerSignature) -> Callable[..., HandlerCall]:
    """A factory whose signature is what the container must find, and which looks like the method, so that annotations are read as there."""
    names = [each.name for each in signature.others if each.kind is not each.KEYWORD_ONLY]

    @functools.wraps(one.function)
    def fill(processor: object, *injected: object, **named: object) -> HandlerCall:
        return signature.filled(getattr(processor, one.method), {**dict(zip(names, injected, strict=True)), **named})

    this = Parameter("self", Parameter.POSITIONAL_ONLY, annotation=Annotated[Any, Inject(one.processor.binding.token)])
    cast("Any", fill).__signature__ = inspect.Signature([this, *signature.others])
    return fill
