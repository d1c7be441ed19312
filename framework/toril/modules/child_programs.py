"""How a child process makes the application whose handler it runs: from modules that it can import, on this application's server."""

from __future__ import annotations

from typing import Final

from toril.di import ApplicationContext, Binding, Graph
from toril.di.scanner import Node
from toril.modules.queue_module import ENVIRONMENT
from toril.wire.codec import to_json
from toril.worker.programs import ChildProgram, import_path

APPLICATION: Final = "toril.cli.child:serve_application"
"""The entry of children that have a container. It stands above this layer, so it goes by its name."""


def child_modules(graph: Graph, processor: Binding) -> list[str]:
    """The import paths of what a child makes its application from: the root module.

    A root that was made up in a test can't be imported: then those of its imports that can be, if they provide the processor.

    Raises:
        ValueError: with the reason why a child can't have the processor.
    """
    try:
        return [_import_path(graph.root)]
    except ValueError as error:
        found = [node for node in graph.root.imports if _is_importable(node)]
        if not any(processor.node in _reachable(node) for node in found):
            raise ValueError(f"{graph.root.name} {error}") from None
        return [_import_path(node) for node in found]


def application_program(ctx: ApplicationContext, processor: Binding) -> ChildProgram:
    """The program of a handler of this application. Raises as `child_modules` does."""
    environment = ctx.get(ENVIRONMENT)
    told = {"modules": child_modules(ctx.graph, processor), "prefix": environment.prefix, "is_test": environment.is_test}
    return ChildProgram(APPLICATION, to_json(told, "what a child process is told").decode())


def _import_path(node: Node) -> str:
    if node.dynamic is not None:
        raise ValueError("is a dynamic module, made by a call that a child process can't repeat")
    return import_path(node.module)


def _is_importable(node: Node) -> bool:
    try:
        _import_path(node)
    except ValueError:
        return False
    return True


def _reachable(start: Node) -> list[Node]:
    found = [start]
    for node in found:  # grows as it goes
        found += [each for each in node.imports if each not in found]
    return found
