"""What the tests of the container share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import pytest

from toril.di import ApplicationContext, DIError, DynamicModule, Graph, GraphErrors, Overrides, build_graph, caller_namespace, module

ErrorT = TypeVar("ErrorT", bound=DIError)


def app(
    *,
    imports: Sequence[object] = (),
    providers: Sequence[object] = (),
    exports: Sequence[object] = (),
) -> DynamicModule:
    """A root module that sees the local names of the test."""

    @module()
    class AppModule: ...

    space = caller_namespace(1)
    return DynamicModule(AppModule, imports=imports, providers=providers, exports=exports, name="AppModule", namespace=space)


def context_of(
    *providers: object,
    imports: Sequence[object] = (),
    overrides: Overrides | None = None,
    **options: Any,  # noqa: ANN401  # passed on
) -> ApplicationContext:
    """A context, not started, of an application with these providers."""
    root = DynamicModule(app().module, imports=imports, providers=providers, name="AppModule", namespace=caller_namespace(1))
    graph = build_graph(root, overrides=overrides or Overrides(), **options)
    return ApplicationContext(graph)


def errors_of(root: type | DynamicModule, **options: Any) -> tuple[DIError, ...]:  # noqa: ANN401  # passed on
    """All that is wrong with a graph."""
    with pytest.raises(GraphErrors) as caught:
        build_graph(root, **options)
    return caught.value.errors


def only_error(root: type | DynamicModule, kind: type[ErrorT], **options: Any) -> ErrorT:  # noqa: ANN401  # passed on
    """The one thing that is wrong with a graph."""
    (error,) = errors_of(root, **options)
    assert isinstance(error, kind), error
    return error


def names(graph: Graph) -> list[str]:
    """The order of creation."""
    return [binding.name for binding in graph.order]
