"""Flows: jobs that wait for others, their children, before they run; a tree of them is added in one step.

        render            runs when all its children have completed, and reads what they returned
        ├── fetch         each may lie in a queue of its own
        └── resize
            └── fetch

What a child's failure does to its parent is an option of the child (`fail_parent_on_failure` and its like); without one, the parent
waits until somebody retries or removes the child.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Final, Self

from typing_extensions import Unpack

from toril.calls import explained
from toril.clock import Clock, SystemClock
from toril.errors import InvalidCallError, InvalidOptionError, QueueClosedError
from toril.queues.drafts import MISSING, JobDraft, draft_of, linked
from toril.queues.job import Job
from toril.queues.job_def import JobDef
from toril.queues.opening import ADDRESS, open_server, prefix_or_default
from toril.queues.option_checks import check_whole
from toril.queues.options import JobOptionFields, JobOptions, options_said
from toril.queues.queue import Queue
from toril.telemetry.hooks import HOOKS
from toril.wire.connection import Server
from toril.wire.jobs import FlowNode, NewJob

MOST_CHILDREN_SHOWN: Final = 1_000

_IN_FLOW: Final = dict.fromkeys(JobOptionFields.__annotations__, "each job has its own: give it to flow_job")


@dataclass(frozen=True, slots=True)
class FlowJob:
    """One job of a flow that is to be added. Made by `flow_job`."""

    queue: str
    draft: JobDraft[Any, Any]
    prefix: str | None = None
    children: Sequence[FlowJob] = ()


@explained()
def flow_job(
    name: str | JobDef[Any, Any],
    data: object = MISSING,
    *,
    queue: str,
    prefix: str | None = None,
    children: Iterable[FlowJob] = (),
    options: JobOptions | None = None,
    **fields: Unpack[JobOptionFields],
) -> FlowJob:
    """A job with the children that it waits for; takes what `Queue.add` takes, and:

    Args:
        queue: the name of its queue.
        prefix: of that queue; not set: the producer's.
        children: the jobs that must end before it runs.
    """
    return FlowJob(queue, draft_of(name, data, options_said(options, fields)), prefix, tuple(children))


@dataclass(frozen=True, slots=True)
class JobNode:
    """A job of a flow, and those that it waits or waited for."""

    job: Job[Any, Any]
    children: list[JobNode] = field(default_factory=list["JobNode"])

    def __iter__(self) -> Iterator[JobNode]:
        """This one and all below it."""
        yield self
        for child in self.children:
            yield from child


@dataclass(slots=True)
class _Planned:
    """A job of a flow that has its id."""

    queue: Queue[Any, Any]
    flow: FlowJob
    job_id: str
    parent: _Planned | None
    children: list[_Planned] = field(default_factory=list["_Planned"])
    encoded: NewJob | None = None


class FlowProducer:
    """Adds flows: `async with FlowProducer() as flows: await flows.add(flow_job("render", {...}, queue="videos", children=[...]))`.

    Args:
        prefix: of queues that don't say it themselves; not set: as for `Queue`.
        url, server, clock: as for `Queue`.
        queues: queues whose default options, types and handlers' types count for their jobs; others are made from their names.
    """

    @explained("FlowProducer", ADDRESS)
    def __init__(
        self,
        *,
        prefix: str | None = None,
        url: str | None = None,
        server: Server | None = None,
        clock: Clock | None = None,
        queues: Iterable[Queue[Any, Any]] = (),
    ) -> None:
        self.prefix = prefix_or_default(prefix, url, server)
        self._url = url
        self._server = server
        self._clock: Clock = clock or SystemClock()
        self._queues = {(queue.prefix, queue.name): queue for queue in queues}
        self._stack = AsyncExitStack()
        self._is_closed = False

    @explained(fixes=_IN_FLOW)
    async def add(self, flow: FlowJob, *, idempotent: bool = False) -> JobNode:
        """Add a tree of jobs, all or none, in one step.

        A job without an id of its own gets a random one. A child whose id exists already is adopted if it has no other parent that
        still lives; otherwise it is left out, and its parent waits for it in vain (as in BullMQ).

        Raises:
            InvalidOptionError, InvalidPayloadError, NotJsonError, PayloadTooLargeError: nothing was sent.
            AddOutcomeUnknownError, ServerUnreachableError: as `Queue.add`.
        """
        return (await self.add_many([flow], idempotent=idempotent))[0]

    @explained(fixes=_IN_FLOW)
    async def add_many(self, flows: Iterable[FlowJob], *, idempotent: bool = False) -> list[JobNode]:
        """Add several trees, each in a step of its own; all are checked before the first is sent. Raises what `add` raises."""
        server = await self._open()
        now_ms = self._clock.now_ms()
        plans = [self._plan(flow, None, server) for flow in flows]
        for plan in plans:
            for node in _levels(plan):
                node.encoded = _encode(node, now_ms)
        nodes: list[JobNode] = []
        for plan in plans:
            if HOOKS.tracer is None:
                await _send(plan, now_ms, idempotent=idempotent)
            else:
                order = list(_levels(plan))
                with HOOKS.tracer.adding("addFlow", plan.queue.name, [_encoded(node).name for node in order]) as span:
                    for node in order:
                        node.encoded = replace(_encoded(node), opts=span.carried(_encoded(node).opts))
                    await _send(plan, now_ms, idempotent=idempotent)
                    span.added([node.job_id for node in order])
            nodes.append(_node(plan))
        return nodes

    async def get_flow(
        self, job_id: str, *, queue: str, prefix: str | None = None, depth: int = 10, max_children: int = 20
    ) -> JobNode | None:
        """A job and those below it, as they are now; None if there is no such job.

        Args:
            job_id: of the root.
            queue: its queue.
            prefix: of that queue; not set: the producer's.
            depth: how many levels, at least 1.
            max_children: how many children of each job, at most; those that have ended come first. More than 1,000 count as 1,000.

        Raises:
            InvalidOptionError
        """
        server = await self._open()
        check_whole("depth", depth, 1)
        check_whole("max_children", max_children, 1)
        root = self._queue(queue, prefix, server)
        job = await root.find_job(job_id)
        return None if job is None else await self._below(job, server, depth, min(max_children, MOST_CHILDREN_SHOWN))

    def use(self, queue: Queue[Any, Any]) -> None:
        """From now on let this queue's default options and types count for its jobs."""
        self._queues[queue.prefix, queue.name] = queue

    async def close(self) -> None:
        """Close what it has opened itself. May be called twice."""
        self._is_closed = True
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    # ── inside ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _open(self) -> Server:
        if self._is_closed:
            raise QueueClosedError("the flow producer")
        if self._server is None:
            self._server = await self._stack.enter_async_context(open_server(self._url))
        return self._server

    def _queue(self, name: str, prefix: str | None, server: Server) -> Queue[Any, Any]:
        key = (self.prefix if prefix is None else prefix, name)
        if key not in self._queues:
            self._queues[key] = Queue(name, prefix=key[0], server=server, clock=self._clock)
        return self._queues[key]

    def _plan(self, flow: FlowJob, parent: _Planned | None, server: Server) -> _Planned:
        if not isinstance(flow, FlowJob):  # pyright: ignore[reportUnnecessaryIsInstance]  # untyped callers
            raise InvalidCallError("FlowProducer.add", 'takes what flow_job makes: write flow_job("resize", data, queue="images")', "flow")
        queue = self._queue(flow.queue, flow.prefix, server)
        options = flow.draft.options
        if options.deduplication is not None and (parent is not None or flow.children):
            raise InvalidOptionError(
                "deduplication", options.deduplication.id, "a job of a flow can't have it, but for a root without children"
            )
        if parent is not None and not queue.keys.shares_slot_with(parent.queue.keys):
            reason = f"a flow must lie in one slot, and the prefixes {parent.queue.prefix!r} and {queue.prefix!r} have different hash tags"
            raise InvalidOptionError("prefix", queue.prefix, reason)
        planned = _Planned(queue, flow, options.job_id or str(uuid.uuid4()), parent)
        planned.children = [self._plan(child, planned, server) for child in flow.children]
        return planned

    async def _below(self, job: Job[Any, Any], server: Server, depth: int, most: int) -> JobNode:
        node = JobNode(job)
        if depth > 1:
            for key in await job.queue.commands.children(job.id, most):
                prefix, name, child_id = job.queue.keys.split_job_key(key)
                child = await self._queue(name, prefix, server).find_job(child_id)
                if child is not None:
                    node.children.append(await self._below(child, server, depth - 1, most))
        return node


def _levels(root: _Planned) -> Iterator[_Planned]:
    """The root, then all its children, then all of theirs."""
    level = [root]
    while level:
        yield from level
        level = [child for node in level for child in node.children]


def _encode(node: _Planned, now_ms: int) -> NewJob:
    job = node.queue.encode(node.flow.draft, now_ms)
    parent = None if node.parent is None else (node.parent.queue.keys.qualified_name, node.parent.job_id)
    return linked(job, job_id="" if job.job_id else node.job_id, parent=parent)


async def _send(plan: _Planned, now_ms: int, *, idempotent: bool) -> None:
    sent = [FlowNode(node.queue.keys.base, _encoded(node), bool(node.children)) for node in _levels(plan)]
    await plan.queue.commands.add_flow(sent, now_ms, idempotent=idempotent)


def _encoded(node: _Planned) -> NewJob:
    assert node.encoded is not None  # all are, before the first is sent
    return node.encoded


def _node(planned: _Planned) -> JobNode:
    return JobNode(
        planned.queue.job_of(planned.job_id, _encoded(planned), planned.flow.draft), [_node(child) for child in planned.children]
    )
