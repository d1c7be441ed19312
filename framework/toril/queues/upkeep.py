"""Keeping a queue in order: what nobody would miss, and events of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from toril.errors import InvalidOptionError
from toril.queues.events import RESERVED_EVENTS
from toril.queues.option_checks import check_text, check_whole
from toril.wire.codec import to_json
from toril.wire.commands import QueueCommands

_TAKEN: Final = "event"


class QueueUpkeep:
    """The part of `Queue` that is about its keys as a whole."""

    async def publish_event(self, name: str, fields: Mapping[str, object] | None = None, *, max_events: int = 1_000) -> str:
        """Write an event of your own into the queue's stream, where `QueueEvents` read it, ours and Node's.

        Ours give it as an `UnknownEvent` with its name and its fields. Text stays as it is, other values become JSON.

        Args:
            name: a name that none of the queue's own events has.
            fields: what it says; a key must not be `event`.
            max_events: the stream is cut to about so many, older events of the queue itself among them.

        Returns:
            Its id in the stream.

        Raises:
            InvalidOptionError, NotJsonError
        """
        if type(name) is not str or not name:
            raise InvalidOptionError("name", name, "the name of an event is text, and not empty")
        if name in RESERVED_EVENTS:
            raise InvalidOptionError("name", name, f'the queue itself tells of that: write for example "my-{name}"')
        check_text("name", name)
        check_whole("max_events", max_events, 1)
        texts: dict[str, str] = {}
        for field, value in (fields or {}).items():
            if field == _TAKEN:
                raise InvalidOptionError("fields", field, "the field `event` holds the name: call it something else")
            check_text("fields", field)
            texts[field] = value if isinstance(value, str) else to_json(value, f"field {field} of event {name}").decode()
            check_text(f"fields[{field!r}]", texts[field])
        return await (await self._use()).publish_event(name, texts, max_events)

    async def trim_events(self, count: int) -> int:
        """Cut the events stream to about its newest `count` (the server cuts whole blocks, of some 100); how many went."""
        check_whole("count", count, 0)
        return await (await self._use()).trim_events(count)

    async def remove_orphaned_jobs(self) -> int:
        """Remove jobs that are in no state, since somebody took their ids out of the queue by hand; how many.

        They would never run and never be listed. The keys of the queue are gone through page by page; other work goes on meanwhile.
        A parent no longer waits for an orphan that is removed. Nothing else is touched, and no job that a worker holds.

        Raises:
            DamagedJobsError: some were left as they are, since keys of their parents are damaged; it names them. All others are gone.
        """
        return await (await self._use()).remove_orphans()

    async def find_orphaned_jobs(self) -> list[str]:
        """The ids of those that `remove_orphaned_jobs` would remove, in no order. `get_job` reads them."""
        return await (await self._use()).find_all_orphans()

    async def remove_deduplication_key(self, deduplication_id: str) -> bool:
        """Let the next job with this deduplication id in; False if nothing kept it out. The job that did so goes on."""
        return await (await self._use()).drop_deduplication(deduplication_id)

    async def _use(self) -> QueueCommands:
        raise NotImplementedError
