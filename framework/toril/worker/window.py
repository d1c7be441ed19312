"""Where to look for jobs whose names have a free slot, in a queue that holds many of names that have none.

A claim passes by at most some hundreds of entries (`WINDOW` in claim.lua), so a long backlog is searched in several turns. Each
name has a place of its own: before it, the queue holds no job of that name. All names without a limit share one.

    f f f f f f f f f f f f f f f f f f f f f f f f f o f f f …
    ▲ of "f", which is full                 ▲ of all names without a limit: so far has nothing been found for them

With one place for all, each slot of "f" that gets free would send the search back to the front, and where its jobs are quick,
"o" would never be reached (measured: not in 12 s behind 10,000 of them). With one a name, the turns alternate between the places.
A turn doesn't look for names whose place lies before its start, so jobs of one name are claimed in their order.

Places are only hints, since others add and take jobs, too: now and then the search starts over from the front.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from toril.wire.turns import ClaimState

Place: TypeAlias = tuple[int, int]
"""How many entries lie before it: in the waiting, and in the prioritized jobs."""

FRONT: Final[Place] = (0, 0)

OVERLAP: Final = 50
"""Entries that are looked at twice: the other lane's turn may have taken so many from before the place meanwhile."""


@dataclass(frozen=True, slots=True)
class Look:
    """From where a turn looks, and for what."""

    start: Place
    free_by_name: tuple[tuple[str, int], ...]
    """Of each limited name how many the turn may take; 0 as well for those that it must not look for."""
    masked: frozenset[str] = frozenset()
    """Those of them that have a free slot: another turn has to look for them."""


class Window:
    """The places of one worker's names."""

    def __init__(self) -> None:
        self._places: dict[str | None, Place] = {}  # None: the names without a limit
        self._found_out: set[str | None] = set()  # looked for up to the queue's end
        self._looks = 0
        self._looked_at: dict[str | None, int] = {}

    def look(self, free_by_name: tuple[tuple[str, int], ...]) -> Look:
        """Plan a turn that may take so many of each limited name."""
        if not self._places or not free_by_name:
            return Look(FRONT, free_by_name)
        wanted = [None, *(name for name, free in free_by_name if free > 0)]
        unknown = [name for name in wanted if name not in self._found_out]
        chosen = min(unknown or wanted, key=lambda name: self._looked_at.get(name, 0))  # who has waited longest
        self._looks += 1
        self._looked_at[chosen] = self._looks
        # Names without a limit can't be left out, so nothing of theirs may lie before the start.
        start = _back(_earlier(self._place(chosen), self._place(None)), OVERLAP)
        masked = frozenset(name for name in wanted if name is not None and not _reaches(self._place(name), start))
        return Look(start, tuple((name, 0 if name in masked else free) for name, free in free_by_name), masked)

    def learn(self, look: Look, claimed: Iterable[str], state: ClaimState, end: Place) -> ClaimState:
        """Take note of what a turn found, and say how things stand for all names together.

        Args:
            claimed: the names of the claimed jobs.
            end: how far it looked.
        """
        if state is ClaimState.EMPTY:
            self.start_over()
            return state
        if end == FRONT and not self._places:  # as ever where no name has a limit, or none was full
            return state
        names = dict(look.free_by_name)
        taken = Counter(name if name in names else None for name in claimed)
        still_free: set[str | None] = {None, *(name for name, free in names.items() if free > taken[name])}
        for name in (None, *names):
            if (name in still_free or name in taken) and not _reaches(self._place(name), end):
                self._looked_at[name] = self._looks  # chosen or not, this turn was for it, too
            place = _back(self._place(name), taken.total() - taken[name])  # its own were behind it
            self._places[name] = _later(place, end) if name in still_free else place
        self._found_out -= taken.keys() - still_free  # they are full now, and the rest of their jobs was passed by
        if state is ClaimState.ONLY_FULL_NAMES:
            self._found_out |= still_free
            if end == look.start != FRONT:  # not one entry was there: the queue has become shorter than that
                self.start_over()
        elif state is not ClaimState.LOOK_FURTHER:
            return state
        is_known = still_free | look.masked <= self._found_out
        return ClaimState.ONLY_FULL_NAMES if is_known else ClaimState.LOOK_FURTHER

    @property
    def has_ends(self) -> bool:
        """Whether something was looked for in vain up to the queue's end: what comes there now is not rung for."""
        return bool(self._found_out)

    def go_on(self) -> None:
        """Something may have come behind what was looked at."""
        self._found_out.clear()

    def start_over(self) -> None:
        """Look at everything again, from the front."""
        self._places.clear()
        self._found_out.clear()

    def _place(self, name: str | None) -> Place:
        return self._places.get(name, FRONT)


def _reaches(place: Place, start: Place) -> bool:
    return place[0] >= start[0] and place[1] >= start[1]


def _earlier(one: Place, other: Place) -> Place:
    return min(one[0], other[0]), min(one[1], other[1])


def _later(one: Place, other: Place) -> Place:
    return max(one[0], other[0]), max(one[1], other[1])


def _back(place: Place, count: int) -> Place:
    return max(0, place[0] - count), max(0, place[1] - count)
