"""What a job knows of the children that it waits or waited for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from toril.errors import InvalidOptionError
from toril.queues.option_checks import check_whole
from toril.wire.codec import from_json_or

if TYPE_CHECKING:
    from toril.queues.queue import Queue

ChildKind: TypeAlias = Literal["processed", "unprocessed", "ignored", "failed"]
"""It completed; it has not ended; it failed, and its parent goes on without it; it failed, and so does its parent."""


@dataclass(frozen=True, slots=True)
class ChildrenPage:
    """Some of a job's children."""

    children: dict[str, Any]
    """By their full keys (`bull:queue:id`): what a processed one returned, why an ignored one failed; None for the others."""
    cursor: int
    """Where the next page begins; 0: this was the last."""


@dataclass(frozen=True, slots=True)
class ChildrenCounts:
    """How many children a job has of each kind, at one instant."""

    processed: int
    unprocessed: int
    ignored: int
    failed: int


class JobChildren:
    """The part of `Job` that is about flows."""

    __slots__ = ()

    queue: Queue[Any, Any]

    @property
    def id(self) -> str:
        raise NotImplementedError

    async def get_children_values(self) -> dict[str, Any]:
        """What its children have returned, by their full keys (`bull:queue:id`)."""
        values = await self.queue.commands.children_values(self.id)
        return {key: _shown(value) for key, value in values.items()}

    async def get_ignored_failures(self) -> dict[str, str]:
        """Why children have failed whose failure lets it go on, by their full keys."""
        failures = await self.queue.commands.ignored_failures(self.id)
        return {key: reason.decode("utf-8", "replace") for key, reason in failures.items()}

    async def get_failed_children(self) -> list[str]:
        """Full keys of the children whose failure fails it."""
        return await self.queue.commands.failed_children(self.id)

    async def get_pending_children(self) -> list[str]:
        """Full keys of the children that have not ended."""
        return await self.queue.commands.pending_children(self.id)

    async def get_dependencies(self, kind: ChildKind, *, cursor: int = 0, count: int = 20) -> ChildrenPage:
        """A page of its children of one kind, for jobs with many of them: go on with the page's `cursor` until that is 0.

        While children end, one may come twice, and in a page of its new kind, too; none that stays what it is is left out.

        Args:
            kind: which children.
            cursor: 0, or that of the page before.
            count: about how many; a small collection comes as a whole.

        Raises:
            InvalidOptionError
        """
        if kind not in get_args(ChildKind):
            raise InvalidOptionError("kind", kind, f"the children of a job are {', '.join(get_args(ChildKind))}")
        check_whole("cursor", cursor, 0)
        check_whole("count", count, 1)
        found, following = await self.queue.commands.children_page(self.id, kind, cursor, count)
        if kind == "processed":
            return ChildrenPage({key: _shown(value or b"null") for key, value in found.items()}, following)
        return ChildrenPage({key: value and value.decode("utf-8", "replace") for key, value in found.items()}, following)

    async def get_dependencies_count(self) -> ChildrenCounts:
        """How many children it has of each kind."""
        return ChildrenCounts(*await self.queue.commands.count_children(self.id))

    async def remove_child_dependency(self) -> bool:
        """Let its parent no longer wait for it; the parent runs if it was the last one. False if no parent waits for it.

        Raises:
            JobNotFoundError
            ParentError: its parent doesn't exist any more.
        """
        return await self.queue.commands.drop_child_link(self.id)

    async def remove_unprocessed_children(self) -> int:
        """Remove its children that have not ended, and theirs; how many. Those that a worker runs, and those that failed, stay.

        It runs then, if none is left that it waits for. Raises JobNotFoundError.
        """
        return await self.queue.commands.remove_unprocessed(self.id)


def _shown(value: bytes) -> Any:  # noqa: ANN401 -- whatever JSON the child returned; the bare text if it is none
    return from_json_or(value, value.decode("utf-8", "replace"))
