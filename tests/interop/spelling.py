"""Node's spelling of options in ours."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias, TypeVar

from toril import Deduplication, JobOptions, KeepJobs, flow_job
from toril.queues.flows import FlowJob
from toril.queues.option_parts import Backoff

T = TypeVar("T")

Json: TypeAlias = Any
"""What travels to the other side as JSON, and back."""

HOUR_MS: Final = 3_600_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def job_options(opts: dict[str, Any]) -> JobOptions:
    """Node's spelling of a job's options in ours."""
    backoff, deduplication = opts.get("backoff"), opts.get("deduplication")
    return JobOptions(
        attempts=opts.get("attempts"),
        backoff=None if backoff is None else _backoff(backoff),
        delay=optional(span, opts.get("delay")),
        priority=opts.get("priority"),
        lifo=opts.get("lifo"),
        remove_on_complete=_keep(opts.get("removeOnComplete")),
        remove_on_fail=_keep(opts.get("removeOnFail")),
        job_id=opts.get("jobId"),
        deduplication=None if deduplication is None else _deduplication(**deduplication),
        fail_parent_on_failure=opts.get("failParentOnFailure"),
        continue_parent_on_failure=opts.get("continueParentOnFailure"),
        ignore_dependency_on_failure=opts.get("ignoreDependencyOnFailure"),
        remove_dependency_on_failure=opts.get("removeDependencyOnFailure"),
        timestamp=optional(moment, opts.get("timestamp")),
        stack_trace_limit=opts.get("stackTraceLimit"),
        keep_logs=opts.get("keepLogs"),
        size_limit=opts.get("sizeLimit"),
    )


def _backoff(said: dict[str, Any] | int) -> Backoff:
    if isinstance(said, int):
        return Backoff(strategy="fixed", delay=span(said))
    return Backoff(strategy=said["type"], delay=span(said["delay"]), jitter=said.get("jitter", 0.0))


def _keep(said: Json) -> Json:
    if isinstance(said, (bool, int)) or said is None:
        return said
    return KeepJobs(count=said.get("count"), age=optional(lambda age: timedelta(seconds=age), said.get("age")), limit=said.get("limit"))


def _deduplication(id: str, ttl: int | None = None, keepLastIfActive: bool = False, **flags: bool) -> Deduplication:  # noqa: A002, N803
    return Deduplication(id, ttl=optional(span, ttl), keep_last_if_active=keepLastIfActive, **flags)


def flow_of(node: dict[str, Any]) -> FlowJob:
    children = [flow_of(child) for child in node.get("children", ())]
    return flow_job(node["name"], node["data"], queue=node["queue"], options=job_options(node["opts"]), children=children)


def optional(convert: Callable[[Json], T], value: Json) -> T | None:
    return None if value is None else convert(value)


def span(ms: int) -> timedelta:
    return timedelta(milliseconds=ms)


def moment(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)
