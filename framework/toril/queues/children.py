"""What a job knows of the children that it waits or waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toril.wire.codec import from_json_or

if TYPE_CHECKING:
    from toril.queues.queue import Queue


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
        return {key: from_json_or(value, value.decode("utf-8", "replace")) for key, value in values.items()}

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
