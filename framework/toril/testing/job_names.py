"""Which names of jobs an application knows: of what a test says was not added, a slip of the pen would always hold."""

from __future__ import annotations

import sys
from collections.abc import Collection

from toril.di import Graph
from toril.errors import InvalidOptionError
from toril.modules.explorer import handled_names
from toril.queues.job_def import JobDef
from toril.spelling import near


def check_known_name(graph: Graph, name: str, queues: Collection[str], added: Collection[str]) -> None:
    """Refuse a name that nothing in the application has.

    Args:
        name: what a test says was not added.
        queues: where it should not have been.
        added: names of jobs that were.

    Raises:
        InvalidOptionError: it is near to one of a handler or `JobDef`; or handlers take all jobs of these queues, and none takes it.
    """
    handled = handled_names(graph)
    names = _known_names(graph)
    if name in names or name in added:
        return
    close = near(name, names)
    takes_any = any(None in handled.get(queue, {None}) for queue in queues)  # also a queue that is served elsewhere
    if takes_any and not close:
        return
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"there are {', '.join(map(repr, sorted(names)))}"
    reason = f"no handler and no JobDef of this application has this name, so that it can't have been added; {hint}"
    raise InvalidOptionError("name", name, f"{reason} (If it is right all the same, give JobDef({name!r}).)")


def name_hint(graph: Graph, name: str, added: Collection[str]) -> str:
    """Which name a test may have meant by one that no job has which was added; empty if none is near, or the application has this one."""
    names = _known_names(graph) | set(added)
    close = () if name in names else near(name, names)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def _known_names(graph: Graph) -> set[str]:
    return {each for known in handled_names(graph).values() for each in known if each is not None} | _defined_names(graph)


def _defined_names(graph: Graph) -> set[str]:
    """The names of the definitions that the files of the application's providers hold or import."""
    files = {binding.known_class.__module__ for binding in graph.bindings if binding.known_class is not None}
    values = [value for file in files if file in sys.modules for value in vars(sys.modules[file]).values()]
    return {value.name for value in values if isinstance(value, JobDef)}
