"""A module graph to look at: as a tree of text, as a Mermaid flowchart, and as data for programs.

All show modules with what they import, providers with scope and export, processors with their queues and the names they handle. Values
are never shown: they may be secrets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from toril.di import Binding, Graph, Node, Scope, token_name
from toril.di.providers import AliasProvider, ClassProvider, FactoryProvider
from toril.modules.explorer import processor_of

_SHAPES: Final = {Scope.SINGLETON: ('["', '"]'), Scope.JOB: ('(["', '"])'), Scope.TRANSIENT: ('[/"', '"/]')}

_ESCAPES: Final = str.maketrans({"&": "#amp;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "#": "#35;", "`": "#96;"})
"""The ends of a label, and what Mermaid, HTML or Markdown would read as its own."""

LEGEND: Final = "boxes live as long as the application, rounded ones as long as a job, slanted ones are made for each who asks"


def tree(graph: Graph) -> str:
    """The modules as a tree from the root on; one that is imported a second time is only named there."""
    lines: list[str] = []
    seen: set[Node] = set()
    # What is still to be written, the next one last: the module, what its own line begins with, and what the lines beneath begin with.
    work: list[tuple[Node, str, str]] = [(graph.root, "", "")]
    while work:
        node, head, indent = work.pop()
        if node in seen:
            lines.append(f"{head}{node.name} (see above)")
            continue
        seen.add(node)
        lines.append(f"{head}{node.name}{' (global)' if node.is_global else ''}")
        provided = [_provider_line(graph, binding) for binding in listed(graph, node)]
        for number, text in enumerate(provided):
            is_last = number == len(provided) - 1 and not node.imports
            lines.append(f"{indent}{'└─' if is_last else '├─'} {text}")
        for number, imported in reversed(list(enumerate(node.imports))):
            is_last = number == len(node.imports) - 1
            work.append((imported, f"{indent}{'└─' if is_last else '├─'} ", f"{indent}{'   ' if is_last else '│  '}"))
    return "\n".join(lines)


def mermaid(graph: Graph) -> str:
    """A Mermaid flowchart: a box for each module, arrows to what it imports, and from queues to the processors that serve them."""
    number_of = {node: number for number, node in enumerate(graph.nodes)}
    lines = ["flowchart LR", f"%% {LEGEND}; exported names are marked with ↗"]
    queues: dict[str, list[str]] = {}
    for node, number in number_of.items():
        lines.append(f'  subgraph m{number}["{_escaped(node.name)}{" (global)" if node.is_global else ""}"]')
        bindings = listed(graph, node)
        for position, binding in enumerate(bindings):
            name = f"m{number}p{position}"
            before, after = _SHAPES[binding.scope]
            mark = " ↗" if graph.is_exported(binding) else ""
            text = "".join(f"<br/>{_escaped(part)}" for part in _served(binding))
            lines.append(f"    {name}{before}{_escaped(token_name(binding.token))}{mark}{text}{after}")
            processor = processor_of(binding)
            if processor is not None:
                queues.setdefault(processor.queue, []).append(name)
        if not bindings:
            lines.append(f'    m{number}p0["{_escaped(node.name)}"]')
        lines.append("  end")
    for node, number in number_of.items():
        lines += [f"  m{number} --> m{number_of[imported]}" for imported in node.imports]
    for number, (queue, processors) in enumerate(queues.items()):
        lines.append(f'  q{number}[("{_escaped(queue)}")]')
        lines += [f"  q{number} ==> {name}" for name in processors]
    return "\n".join(lines)


def document(graph: Graph) -> dict[str, Any]:
    """The same as plain data for JSON; modules have the ids that they have in the flowchart, since two may have one name."""
    id_of = {node: f"m{number}" for number, node in enumerate(graph.nodes)}
    modules = [
        {
            "id": each,
            "name": node.name,
            "is_global": node.is_global,
            "imports": [id_of[imported] for imported in node.imports],
            "providers": [_provider_document(graph, binding) for binding in listed(graph, node)],
        }
        for node, each in id_of.items()
    ]
    return {"root": id_of[graph.root], "modules": modules, "warnings": [str(warning) for warning in graph.warnings]}


def _provider_document(graph: Graph, binding: Binding) -> dict[str, Any]:
    processor = processor_of(binding)
    handlers = [] if processor is None else [handler.metadata for handler in processor.handlers]
    return {
        "token": token_name(binding.token),
        "scope": None if binding.is_alias else binding.scope.value,
        "is_exported": graph.is_exported(binding),
        "alias_of": token_name(binding.provider.target) if isinstance(binding.provider, AliasProvider) else None,
        "queue": None if processor is None else processor.queue,
        "handlers": [{"name": one.name, "concurrency": one.concurrency} for one in handlers],
    }


def listed(graph: Graph, node: Node) -> list[Binding]:
    """What a module lists as its providers, second names included."""
    bindings = (*graph.bindings, *graph.aliases)
    return [binding for binding in bindings if binding.node is node and not binding.is_hidden and not binding.is_module_class]


def _provider_line(graph: Graph, binding: Binding) -> str:
    facts = [] if binding.is_alias else [binding.scope.value]
    if graph.is_exported(binding):
        facts.append("exported")
    return f"{token_name(binding.token)}{_made_by(binding)}: {', '.join([*facts, *_served(binding)])}".removesuffix(": ")


def _made_by(binding: Binding) -> str:
    provider = binding.provider
    if isinstance(provider, AliasProvider):
        return f" → {token_name(provider.target)}"
    if isinstance(provider, ClassProvider):
        return "" if provider.cls is binding.token else f" = {token_name(provider.cls)}"
    if isinstance(provider, FactoryProvider):
        return f" = {getattr(provider.factory, '__name__', type(provider.factory).__name__)}()"
    return " = a value"


def _served(binding: Binding) -> Iterator[str]:
    processor = processor_of(binding)
    if processor is None:
        return
    yield f"processes {processor.queue}"
    for handler in processor.handlers:
        metadata = handler.metadata
        limit = "" if metadata.concurrency is None else f" ({metadata.concurrency} at a time)"
        yield f"{'every other name' if metadata.name is None else metadata.name}{limit}"


def _escaped(text: str) -> str:
    return " ".join(text.translate(_ESCAPES).splitlines())
