"""What can be wrong with interceptors and exception filters."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Final

from toril.di import Binding, DIError, Graph, is_module, own_metadata, place_of
from toril.di.discovery import noted_methods
from toril.modules.decorators import handlers_in
from toril.modules.errors import InvalidProcessorError
from toril.modules.explorer import DEFAULT_METHOD, processor_of, within
from toril.modules.handler_providers import Around
from toril.modules.interceptors import APP_FILTER, APP_INTERCEPTOR, CatchMetadata, UsedFilters, UsedInterceptors


def check_interceptors(graph: Graph) -> Iterator[DIError]:
    """Those that can't run, and decorators where they do nothing; one of the checks that `build_graph` is given."""
    seen: set[object] = set()
    for binding in graph.bindings:
        cls = binding.known_class
        if cls is not None and cls not in seen:
            seen.add(cls)
            yield from _misplaced(cls, binding)
        processor = processor_of(binding)
        for around in [] if processor is None else [Around(one, ()) for one in processor.handlers]:
            yield from _unusable(around.interceptors, "@use_interceptors", binding, seen)
            yield from _unusable(around.filters, "@use_filters", binding, seen)
    for token in (APP_INTERCEPTOR, APP_FILTER):
        for binding in graph.find_all(token):
            if binding.cls is not None and not binding.is_override:
                yield from _unusable([binding.cls], token.token_name, binding, seen)


def _unusable(items: Sequence[object], given_to: str, user: Binding, seen: set[object]) -> Iterator[DIError]:
    intercepts = given_to in ("@use_interceptors", APP_INTERCEPTOR.token_name)
    method, takes = ("intercept", "context, call_next") if intercepts else ("catch", "error, context")
    for item in items:
        cls: type = item if isinstance(item, type) else type(item)
        if (cls, method) in seen:
            continue
        seen.add((cls, method))
        function, reason = getattr(cls, method, None), None
        if not callable(function):
            reason = f"it has no method {method}(self, {takes})"
        elif intercepts and not inspect.iscoroutinefunction(function):
            reason = "its intercept is no coroutine function: write async def, and return await call_next()"
        elif not intercepts and own_metadata(cls, CatchMetadata) is None:
            reason = "it doesn't say which errors it gets: write @catch(SomeError) above the class, or @catch() for all"
        if reason is not None:
            yield InvalidProcessorError(f"{cls.__name__}, given to {given_to}", within(place_of(cls), user), reason)


_DECORATORS: Final[tuple[tuple[type[UsedInterceptors | UsedFilters], str], ...]] = (
    (UsedInterceptors, "@use_interceptors"),
    (UsedFilters, "@use_filters"),
)


def _misplaced(cls: type, binding: Binding) -> Iterator[DIError]:
    handlers = {name for name, _ in handlers_in(cls)} or {DEFAULT_METHOD}
    has_handlers = any(callable(getattr(cls, name, None)) for name in handlers)
    for kind, decorator in _DECORATORS:
        own = own_metadata(cls, kind)
        if own is not None and not has_handlers and not is_module(cls):
            reason = f"{decorator} does nothing here: the class is neither a processor with handlers nor a module"
            yield InvalidProcessorError(cls.__name__, within(own.place, binding), reason)
        for name, used in noted_methods(cls, kind):
            if name not in handlers:
                reason = f"{decorator} does nothing here: the method handles no jobs; has it lost its @process?"
                yield InvalidProcessorError(f"{cls.__name__}.{name}", within(used.place, binding), reason)
