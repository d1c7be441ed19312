"""Reservations: how many jobs may be asked for, by the worker as a whole and by name.

A slot is taken from the moment a turn *asks* for a job until the job's outcome is gathered. Without the first half two turns
under way would claim the same free slot twice (measured: 20 jobs ran in 10 slots).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one turn asks for."""

    claims: int
    free_by_name: tuple[tuple[str, int], ...]


class Slots:
    """The slots of one worker.

    Args:
        total: how many jobs may run at the same time.
        limits: names with a limit of their own inside it.
    """

    def __init__(self, total: int, limits: Mapping[str, int]) -> None:
        self.total = total
        self.running = 0
        self.name_freed = 0
        """Counts how often a name that a turn had to pass by got a free slot: who found only full names may look again then."""
        self._passed_by: set[str] = set()
        self._asked = 0
        self._limits = dict(limits)
        self._used = dict.fromkeys(limits, 0)  # running and asked for

    @property
    def free(self) -> int:
        """How many more jobs may be asked for."""
        return self.total - self.running - self._asked

    def reserve(self, at_most: int) -> Reservation:
        """Reserve for one turn: up to `at_most` slots, and of each limited name what is free."""
        claims = max(0, min(self.free, at_most))
        self._asked += claims
        if not self._limits or claims == 0:
            return Reservation(claims, ())
        free_by_name: list[tuple[str, int]] = []
        for name, limit in self._limits.items():
            free = min(limit - self._used[name], claims)
            if free == 0:
                self._passed_by.add(name)
            self._used[name] += free
            free_by_name.append((name, free))
        return Reservation(claims, tuple(free_by_name))

    def settle(self, reservation: Reservation, claimed_names: list[str]) -> None:
        """The turn was answered: of what it had reserved, the claimed jobs stay taken."""
        self._asked -= reservation.claims
        self.running += len(claimed_names)
        for name, reserved in reservation.free_by_name:
            unused = reserved - claimed_names.count(name)
            self._give_back(name, unused)
            if self._used[name] >= self._limits[name]:
                self._passed_by.add(name)  # it became full on the way, and the rest of the turn had to pass it by
            elif unused == 0 and reserved < reservation.claims:
                # Full for the turn, but here a job of that name has ended meanwhile: what the turn passed by may be claimed now.
                self.name_freed += 1

    def release(self, name: str) -> None:
        """A running job's outcome is known."""
        self.running -= 1
        if name in self._used:
            self._give_back(name, 1)

    def _give_back(self, name: str, count: int) -> None:
        if count:
            self._used[name] -= count
            if name in self._passed_by:
                self._passed_by.discard(name)
                self.name_freed += 1
