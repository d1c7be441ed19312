"""The work of `toril flow show`."""

from __future__ import annotations

from typing import Any, Final

from rich.text import Text
from rich.tree import Tree

from toril.cli.output import printable, shortened
from toril.cli.session import Session
from toril.queues.flows import FlowProducer, JobNode
from toril.queues.job import Job

_COLOURS: Final = {"completed": "green", "failed": "red", "active": "yellow"}
_ERROR_WIDTH: Final = 80
_MOST_LEVELS: Final = 100
"""How far up the root is looked for: a circle of parents, which somebody else has made, must end, too."""


async def show_flow(session: Session, name: str, job_id: str, *, root: bool, depth: int, children: int) -> None:
    """The tree of jobs."""
    queues = session.queues
    top: Job[Any, Any] = await (await queues.get(name)).get_job(job_id)
    for _ in range(_MOST_LEVELS if root else 0):
        if top.parent_key is None:
            break
        prefix, parent_queue, parent_id = top.queue.keys.split_job_key(top.parent_key)
        parent = await queues.at(parent_queue, prefix).find_job(parent_id)
        if parent is None:
            session.out.note(f"its parent {top.parent_key} is gone")
            break
        top = parent
    async with FlowProducer(prefix=top.queue.prefix, server=queues.server) as flows:
        node = await flows.get_flow(top.id, queue=top.queue_name, depth=depth, max_children=children)
    node = node or JobNode(top)  # it was removed in this moment
    document = await _document(node, job_id)
    session.out.answer(document, _tree(document))


async def _document(node: JobNode, marked: str) -> dict[str, Any]:
    job = node.job
    counts = await job.get_dependencies_count()
    return {
        "id": job.id,
        "name": job.name,
        "queue": job.queue_name,
        "state": await job.get_state(),
        "error": job.failed_reason,
        "is_asked_for": job.id == marked,
        "children_counts": {
            "processed": counts.processed,
            "unprocessed": counts.unprocessed,
            "ignored": counts.ignored,
            "failed": counts.failed,
        },
        "children": [await _document(child, marked) for child in node.children],
    }


def _tree(document: dict[str, Any]) -> Tree:
    tree = Tree(_label(document))
    _grow(tree, document)
    return tree


def _grow(tree: Tree, document: dict[str, Any]) -> None:
    for child in document["children"]:
        _grow(tree.add(_label(child)), child)
    hidden = sum(document["children_counts"].values()) - len(document["children"])
    if hidden > 0:
        tree.add(Text(f"and {hidden:,} more", style="dim"))


def _label(document: dict[str, Any]) -> Text:
    state = document["state"] or "gone"
    label = Text(printable(f"{document['name']} ", one_line=True), style="bold" if document["is_asked_for"] else "")
    label.append(state, style=_COLOURS.get(state, ""))
    label.append(printable(f"  {document['queue']} {document['id']}", one_line=True), style="dim")
    if document["error"] and state == "failed":
        label.append(printable(f"  {shortened(document['error'], _ERROR_WIDTH)}", one_line=True), style="red")
    return label
