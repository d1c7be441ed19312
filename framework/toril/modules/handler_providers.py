"""Handlers that ask for more than the job, or that something runs around: how the container fills their parameters.

For each such method the processor's module gets a hidden provider, whose parameters are the processor itself and what the method wants
injected. So the graph checks, scopes and plans it like any other; what it provides is the method as a function of the job alone,
with its interceptors and filters around it. A handler with neither has none of this, and costs nothing.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from inspect import Parameter
from typing import Annotated, Any, cast

from toril.di import Binding, Inject, Provider, Scope, Token, own_metadata
from toril.di.linking import Fallback
from toril.di.providers import ClassProvider, FactoryProvider, InjectableMetadata
from toril.errors import ProcessorError
from toril.modules.explorer import HandlerMethod, processor_of
from toril.modules.interceptors import (
    APP_FILTER,
    APP_INTERCEPTOR,
    JobExecutionContext,
    UsedFilters,
    UsedInterceptors,
    caught_by,
    surround,
    used_on,
)
from toril.queues.job import Job
from toril.worker.processor import HandlerCall, Surrounded
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


def handler_providers(binding: Binding, tokens: Collection[object]) -> Iterator[Provider | Fallback]:
    """The hidden providers of one binding; what `build_graph` takes as `companions`."""
    processor = processor_of(binding)
    if processor is None:
        return
    for one in {one.method: one for one in processor.handlers}.values():
        try:
            signature = one.signature()
        except ProcessorError:  # check_processors reports it
            continue
        around = Around(one, tokens)
        if signature.others or around.is_any:
            metadata = own_metadata(processor.cls, InjectableMetadata)
            yield FactoryProvider(
                token=HandlerToken(one),
                factory=_filler(one, signature, around),
                scope=Scope.JOB,
                place=one.metadata.place,
                namespace=None if metadata is None else metadata.namespace,
            )
            for cls in around.classes:
                yield Fallback(ClassProvider(token=cls, cls=cls))


class Around:
    """What runs around one handler."""

    def __init__(self, one: HandlerMethod, tokens: Collection[object]) -> None:
        self._one = one
        levels = (one.processor.binding.node.module, one.processor.cls, one.function)
        self._has_global = APP_INTERCEPTOR in tokens, APP_FILTER in tokens
        self.interceptors: list[Any] = [item for level in levels for item in used_on(level, UsedInterceptors)]
        self.filters: list[Any] = [item for level in levels for item in used_on(level, UsedFilters)]

    @property
    def is_any(self) -> bool:
        """Whether there is anything."""
        return bool(self.interceptors or self.filters or any(self._has_global))

    @property
    def classes(self) -> list[type]:
        """Those that are injected."""
        return [each for each in (*self.interceptors, *self.filters) if isinstance(each, type)]

    @property
    def parameters(self) -> list[Parameter]:
        """What the container must find: the global ones, then each class."""
        wanted = [*self._globals, *self.classes]
        return [Parameter(f"around_{number}", Parameter.POSITIONAL_ONLY, annotation=_asks_for(each)) for number, each in enumerate(wanted)]

    @property
    def _globals(self) -> list[object]:
        return [token for token, is_there in zip((APP_INTERCEPTOR, APP_FILTER), self._has_global, strict=True) if is_there]

    def surround(self, call: HandlerCall, injected: Sequence[Any], *, is_async: bool) -> HandlerCall | Surrounded:
        """The handler with all that runs around it; `injected` are the arguments for `parameters`."""
        if not self.is_any:
            return call
        given = iter(injected)
        of_app = [next(given) if is_there else () for is_there in self._has_global]
        made = [next(given) if isinstance(each, type) else each for each in (*self.interceptors, *self.filters)]
        interceptors, filters = made[: len(self.interceptors)], made[len(self.interceptors) :]
        pairs = [(each, caught_by(each, None)) for each in of_app[1]]
        pairs += [(each, caught_by(each, declared)) for each, declared in zip(filters, self.filters, strict=True)]
        processor, module = self._one.processor.cls, self._one.processor.binding.node.module
        about = functools.partial(_about, processor, self._one.function, module)
        return surround(call, is_async=is_async, about=about, interceptors=[*of_app[0], *interceptors], filters=pairs[::-1])


def _about(processor: type, handler: Callable[..., Any], module: type, job: Job[Any, Any]) -> JobExecutionContext:
    return JobExecutionContext(job, processor, handler, module)


def _asks_for(token: object) -> object:
    return Annotated[Any, Inject(token)]


def _filler(one: HandlerMethod, signature: HandlerSignature, around: Around) -> Callable[..., HandlerCall | Surrounded]:
    """A factory whose signature is what the container must find, and which looks like the method, so that annotations are read as there."""
    names = [each.name for each in signature.others if each.kind is not each.KEYWORD_ONLY]
    outside = around.parameters

    @functools.wraps(one.function)
    def fill(processor: object, *injected: object, **named: object) -> HandlerCall | Surrounded:
        others = dict(zip(names, injected[len(outside) :], strict=True))
        call = signature.filled(getattr(processor, one.method), {**others, **named})
        return around.surround(call, injected[: len(outside)], is_async=signature.is_async)

    this = Parameter("self", Parameter.POSITIONAL_ONLY, annotation=_asks_for(one.processor.binding.token))
    cast("Any", fill).__signature__ = inspect.Signature([this, *outside, *signature.others])
    return fill
