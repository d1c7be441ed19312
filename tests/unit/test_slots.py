"""Reservations: how many jobs a turn may ask for."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from toril.worker.slots import Reservation, Slots


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


def test_a_turn_never_asks_for_more_of_a_name_than_it_claims_at_all() -> None:
    assert Slots(10, {"slow": 8}).reserve(3).free_by_name == (("slow", 3),)
    assert Slots(2, {"slow": 8}).reserve(50) == Reservation(2, (("slow", 2),))


def test_without_a_free_slot_nothing_is_reserved() -> None:
    slots = Slots(1, {"slow": 1})
    slots.settle(slots.reserve(5), ["other"])
    assert slots.reserve(5) == Reservation(0, ())
    slots.release("other")
    assert slots.reserve(5) == Reservation(1, (("slow", 1),))


def test_a_name_that_became_full_on_the_way_counts_as_freed_when_a_job_of_it_ends() -> None:
    slots = Slots(10, {"slow": 2})
    slots.settle(slots.reserve(5), ["slow", "slow", "other"])
    slots.release("other")
    assert slots.name_freed == 0
    slots.release("slow")
    slots.release("slow")
    assert slots.name_freed == 1


def test_a_slot_that_got_free_while_the_turn_that_filled_the_name_was_under_way_counts_as_freed() -> None:
    slots = Slots(10, {"slow": 3})
    slots.settle(slots.reserve(10), ["slow", "slow"])
    turn = slots.reserve(5)
    assert turn.free_by_name == (("slow", 1),)
    slots.release("slow")  # the turn can't know, and passes by whatever comes after the one slow job that it claims
    slots.settle(turn, ["slow", "other"])
    assert slots.name_freed == 1


def test_a_turn_that_ends_with_the_last_free_slot_has_passed_nothing_by() -> None:
    slots = Slots(10, {"slow": 3})
    slots.settle(slots.reserve(1), ["slow"])
    assert slots.name_freed == 0


def test_a_turn_that_failed_gives_everything_back() -> None:
    slots = Slots(4, {"slow": 2})
    reservation = slots.reserve(50)
    slots.settle(reservation, [])
    assert (slots.free, slots.reserve(50)) == (4, reservation)


@given(total=st.integers(1, 8), limit=st.integers(1, 8), moves=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=60))
def test_whatever_happens_in_two_lanes_no_limit_is_exceeded_and_every_slot_comes_back(
    total: int, limit: int, moves: list[tuple[int, int]]
) -> None:
    slots = Slots(total, {"slow": limit})
    under_way: list[Reservation] = []
    running: Counter[str] = Counter()
    for move, number in moves:
        if move == 0 and len(under_way) < 2:
            under_way.append(slots.reserve(number))
        elif move == 1 and under_way:
            reservation = under_way.pop(number % len(under_way))
            slow = min(number, *(free for _, free in reservation.free_by_name), reservation.claims) if reservation.free_by_name else 0
            claimed = ["slow"] * slow + ["other"] * (reservation.claims - slow)
            slots.settle(reservation, claimed)
            running.update(claimed)
        elif move in (2, 3) and running["slow" if move == 2 else "other"]:
            name = "slow" if move == 2 else "other"
            running[name] -= 1
            slots.release(name)
        assert running["slow"] + sum(free for one in under_way for _, free in one.free_by_name) <= limit
        assert running.total() + sum(one.claims for one in under_way) + slots.free == total
        assert slots.free >= 0
    for reservation in under_way:
        slots.settle(reservation, [])
    for name in running.elements():
        slots.release(name)
    assert slots.reserve(100) == Reservation(total, (("slow", min(limit, total)),))
