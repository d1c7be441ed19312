"""What a job's options mean for the worker: read once for each distinct text of options, since most jobs of a queue share one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from toril.queues.option_parts import Backoff, KeepJobs, keep_text
from toril.queues.option_values import stored_expiry_ms, stored_options
from toril.queues.options import NO_OPTIONS, JobOptions

_CACHE_SIZE: Final = 1_000

_TRACE: Final = re.compile(rb',"tm":"[^"\\]*(?:\\.[^"\\]*)*"|"tm":"[^"\\]*(?:\\.[^"\\]*)*",?')
"""The trace that a job belongs to, with one comma: by it alone the options of all jobs of a traced producer differ."""

DEFAULT_STACK_TRACES: Final = 10
"""How many stacks a failed job keeps unless its options say otherwise. (BullMQ keeps all.)"""


@dataclass(frozen=True, slots=True)
class JobPolicy:
    """A job's options as the worker needs them."""

    attempts: int
    backoff: Backoff | None
    lifo: bool
    delay_ms: int
    timeout_ms: int | None
    expires_at_ms: int | None
    """Until when its first attempt must have begun."""
    keep_completed: str
    """As `keep_rule` writes it."""
    keep_failed: str
    stack_trace_limit: int


class Policies:
    """The policies of one worker's jobs, by the text of their options.

    Args:
        keep_completed: what stays of jobs that don't say it themselves; None: all.
        keep_failed: the same for failed ones.
    """

    def __init__(self, keep_completed: KeepJobs | None, keep_failed: KeepJobs | None) -> None:
        self._keep_completed = keep_text(keep_completed) or ""
        self._keep_failed = keep_text(keep_failed) or ""
        self._cache: dict[bytes, JobPolicy] = {}

    def of(self, opts: bytes) -> JobPolicy:
        """The policy for this text of options."""
        policy = self._cache.get(opts)
        if policy is None and b'"tm":' in opts:
            opts = _TRACE.sub(b"", opts)
            policy = self._cache.get(opts)
        if policy is None:
            if len(self._cache) >= _CACHE_SIZE:  # texts with an id or a time in them never come again
                self._cache.clear()
            try:
                policy = self._read(stored_options(opts), stored_expiry_ms(opts))
            except (OverflowError, ValueError):  # somebody else's numbers, beyond all bounds: one job must not stop the worker
                policy = self._read(NO_OPTIONS)
            self._cache[opts] = policy
        return policy

    def _read(self, options: JobOptions, expires_at_ms: int | None = None) -> JobPolicy:
        completed, failed = keep_text(options.remove_on_complete), keep_text(options.remove_on_fail)
        stack_limit = options.stack_trace_limit
        return JobPolicy(
            attempts=options.attempts or 0,
            backoff=options.backoff,
            lifo=options.lifo or False,
            delay_ms=options.delay_ms or 0,
            timeout_ms=options.timeout_ms,
            expires_at_ms=expires_at_ms,
            keep_completed=self._keep_completed if completed is None else completed,
            keep_failed=self._keep_failed if failed is None else failed,
            stack_trace_limit=DEFAULT_STACK_TRACES if stack_limit is None else stack_limit,
        )
