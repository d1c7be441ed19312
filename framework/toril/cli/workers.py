"""The work of `toril workers`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from toril.cli.output import ago, at, shortened, table
from toril.cli.session import Session
from toril.queues.getters import WorkerClient
from toril.queues.manifests import WorkerManifest
from toril.queues.queue import Queue
from toril.wire.keys import shown_name

_HANDLERS_WIDTH: Final = 60
_CLOCK_MATTERS_MS: Final = 1_000


async def list_workers(session: Session, names: list[str]) -> None:
    """Those of all queues, or of these: ours by what they tell of themselves, others by their connections."""
    documents: list[dict[str, Any]] = []
    for queue in await session.queues.some(names):
        documents += await _of_queue(queue)
    now_ms = session.queues.now_ms
    rows = [
        (
            each["queue"],
            each["name"],
            f"{each['host']} {each['pid']}" if each["host"] else each["address"],
            f"{each['running']}/{each['concurrency'] or '?'}",
            shortened(_handlers_text(each), _HANDLERS_WIDTH),
            ", ".join(each["roles"] or ()),
            ago(each["started_at_ms"], now_ms),
            ", ".join(_remarks(each)),
        )
        for each in documents
    ]
    if not rows:
        session.out.note("no worker is connected")
    session.out.answer({"workers": documents}, table("queue", "worker", "where", "runs", "handles", "roles", "started", "", rows=rows))


async def _of_queue(queue: Queue[Any, Any]) -> list[dict[str, Any]]:
    pairs, others = paired(await queue.get_workers(), await queue.get_worker_manifests())
    running = Counter([job.processed_by async for job in queue.scan_jobs("active")])
    ours = [_ours(queue.name, one, client, running[one.name]) for one, client in pairs]
    return ours + [_another(queue.name, one, running[one.name]) for one in others]


def paired(
    clients: Sequence[WorkerClient], manifests: Sequence[WorkerManifest]
) -> tuple[list[tuple[WorkerManifest, WorkerClient | None]], list[WorkerClient]]:
    """Each of our workers with its connection, found by its name; and the connections of others, Node's. Names may be missing or shared."""
    left = list(clients)
    pairs: list[tuple[WorkerManifest, WorkerClient | None]] = []
    for manifest in manifests:
        client = next((one for one in left if one.name == (manifest.name and shown_name(manifest.name))), None)
        if client is not None:
            left.remove(client)
        pairs.append((manifest, client))
    return pairs, left


def _ours(queue: str, one: WorkerManifest, client: WorkerClient | None, running: int) -> dict[str, Any]:
    return {
        "queue": queue,
        "kind": "toril",
        "name": one.name,
        "id": one.id,
        "host": one.host,
        "pid": one.pid,
        "version": one.version,
        "handlers": list(one.handlers),
        "handles_all": one.handles_all,
        "roles": list(one.roles),
        "concurrency": one.concurrency,
        "running": running,
        "is_connected": client is not None,
        "address": None if client is None else client.address,
        **at("started", one.started_at_ms),
        **at("seen", one.seen_at_ms),
        "clock_off_ms": one.clock_off_ms,
    }


def _another(queue: str, client: WorkerClient, running: int) -> dict[str, Any]:
    """A worker of BullMQ on Node, or one of ours that could not be noted."""
    nothing = dict.fromkeys(("id", "host", "pid", "version", "handlers", "handles_all", "roles", "concurrency"))
    return {
        "queue": queue,
        "kind": "other",
        "name": client.name,
        **nothing,
        "running": running,
        "is_connected": True,
        "address": client.address,
        **at("started", None),
        **at("seen", None),
        "clock_off_ms": None,
    }


def _handlers_text(worker: dict[str, Any]) -> str:
    if worker["handlers"] is None:
        return "?"
    return ", ".join([*worker["handlers"], *(["all others" if worker["handlers"] else "all"] if worker["handles_all"] else [])])


def _remarks(worker: dict[str, Any]) -> Iterator[str]:
    if not worker["is_connected"]:
        yield "not connected now"
    off_ms = worker["clock_off_ms"] or 0
    if abs(off_ms) > _CLOCK_MATTERS_MS:
        yield f"its clock is {abs(off_ms) / 1_000:.1f} s {'ahead of' if off_ms > 0 else 'behind'} the server's"
