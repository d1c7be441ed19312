"""What a test asks about the jobs that were added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import Unpack

from toril.di import ApplicationContext
from toril.modules.connections import registered_queues
from toril.modules.tokens import QueueToken
from toril.queues.job_def import JobDef
from toril.queues.options import JobOptionFields
from toril.testing.expectations import Expectation, expectation
from toril.testing.job_names import check_known_name, name_hint
from toril.testing.recording import RecordedJob, record


class AddedJobs:
    """The part of `TestingModule` that knows what was added through its queues since it was compiled."""

    def __init__(self, ctx: ApplicationContext) -> None:
        self.ctx = ctx
        self._added: list[RecordedJob] = []
        for queue in registered_queues(ctx):
            record(queue, self._added.append)

    def assert_enqueued(
        self,
        name: str | JobDef[Any, Any],
        data: object = None,
        *,
        queue: str | None = None,
        times: int | None = None,
        **options: Unpack[JobOptionFields],
    ) -> list[RecordedJob]:
        """Assert that such a job was added through this module's queues since it was compiled, whatever has become of it; all such jobs.

        Args:
            name: its name, or its definition.
            data: a mapping must be part of the payload, at every level; anything else, a model say, must be all of it.
            queue: which queue; by default any.
            times: exactly how many of them; by default at least one.
            options: options that it must have, by their names in `add`; others don't count: `priority=1, delay="5m"`.

        Raises:
            AssertionError: shows what was added, what is most alike first, with the differences.
            InvalidOptionError: `times=0` for a name that the application doesn't know.
        """
        wanted = self._expectation(name, data, queue, options)
        if times == 0:
            self._check_known(name, queue)
        found = wanted.matching(self._added)
        if not found if times is None else len(found) != times:
            count = f"was added {len(found)} times" if found else "was not added"
            expected = "" if times is None else f" ({times} expected)"
            hint = "" if found else name_hint(self.ctx.graph, wanted.name, {job.name for job in self._added})
            raise AssertionError(f"{wanted} {count}{expected}.{hint} Added were:{wanted.nearest(self._added)}")
        return found

    def assert_not_enqueued(
        self, name: str | JobDef[Any, Any], data: object = None, *, queue: str | None = None, **options: Unpack[JobOptionFields]
    ) -> None:
        """Assert that no such job was added; arguments as in `assert_enqueued`.

        Raises:
            AssertionError: one was; shows it.
            InvalidOptionError: no handler and no JobDef of the application has this name. A JobDef itself is always taken.
        """
        wanted = self._expectation(name, data, queue, options)
        self._check_known(name, queue)
        found = wanted.matching(self._added)
        if found:
            raise AssertionError(f"{wanted} was added, and should not have been:{wanted.nearest(found)}")

    def _check_known(self, name: str | JobDef[Any, Any], queue: str | None) -> None:
        if isinstance(name, str):
            queues = [one.name for one in registered_queues(self.ctx)] if queue is None else [queue]
            check_known_name(self.ctx.graph, name, queues, {job.name for job in self._added})

    def _expectation(self, name: str | JobDef[Any, Any], data: object, queue: str | None, options: Mapping[str, Any]) -> Expectation:
        if queue is not None:
            self.ctx.get(QueueToken(queue))  # a slip of the pen would make every `assert_not_enqueued` hold
        return expectation(name, data, options, queue)
