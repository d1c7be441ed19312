"""Reservations: how many jobs a turn may ask for."""

from __future__ import annotations

from toril.worker.slots import Slots


def test_two_turns_under_way_never_ask_for_the_same_slot() -> None:
    slots = Slots(10, {})
    first, second, third = slots.reserve(6), slots.reserve(6), slots.reserve(6)
    assert [first.claims, second.claims, third.claims] == [6, 4, 0]
    slots.settle(first, ["a"] * 2)
    assert (slots.running, slots.free) == (2, 4)
    slots.release("a")
    assert slots.free == 5


def test_a_limited_name_is_reserved_too() -> None:
    slots = Slots(10, {"slow": 2})
    first, second = slots.reserve(5), slots.reserve(5)
    assert (first.free_by_name, second.free_by_name) == ((("slow", 2),), (("slow", 0),))
    slots.settle(first, ["slow", "other"])
    slots.settle(second, [])
    assert slots.reserve(5).free_by_name == (("slow", 1),)


def test_a_name_that_was_passed_by_counts_as_freed_once() -> None:
    slots = Slots(10, {"slow": 1})
    slots.settle(slots.reserve(5), ["slow"])
    slots.settle(slots.reserve(5), [])  # passed by
    assert slots.name_freed == 0
    slots.release("slow")
    assert slots.name_freed == 1
    slots.settle(slots.reserve(5), [])
    assert slots.name_freed == 1


def test_a_reservation_that_claims_nothing_gives_no_false_alarm() -> None:
    slots = Slots(10, {"full": 1, "free": 3})
    slots.settle(slots.reserve(5), ["full"])
    for _ in range(3):
        slots.settle(slots.reserve(5), [])
    assert slots.name_freed == 0


def test_a_name_that_the_other_turn_had_reserved_counts_as_freed_when_it_is_given_back() -> None:
    slots = Slots(10, {"slow": 1})
    first, second = slots.reserve(5), slots.reserve(5)
    slots.settle(second, [])
    slots.settle(first, [])
    assert slots.name_freed == 1
