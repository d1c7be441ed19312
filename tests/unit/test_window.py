"""Where a worker looks for jobs of names with a free slot: nothing is missed, nothing overtakes, and nobody searches in vain for ever.

The model below does what claim.lua does with positions, on plain lists.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from toril.wire.turns import ClaimState
from toril.worker.window import FRONT, Look, Place, Window

ENTRIES_A_TURN = 200  # fewer than the script's, so that shorter queues will do
LIMITS = {"a": 1, "b": 2}

runs = st.lists(st.tuples(st.sampled_from(["a", "b", "o"]), st.integers(1, 250)), max_size=5)


def jobs(*runs: tuple[str, int]) -> list[tuple[str, int]]:
    """Names with a number that tells their order."""
    names = [name for name, count in runs for _ in range(count)]
    return list(zip(names, range(len(names)), strict=True))


class Model:
    """A queue, and a worker's jobs of it."""

    def __init__(self, waiting: list[tuple[str, int]], prioritized: list[tuple[str, int]] | None = None, slots: int = 10) -> None:
        self.queue = (waiting, prioritized or [])
        self.slots = slots
        self.window = Window()
        self.running: list[str] = []
        self.ran: dict[str, list[int]] = {"a": [], "b": [], "o": []}

    def turn(self) -> ClaimState:
        """One turn, for all slots that are free."""
        look = self.window.look(tuple((name, limit - self.running.count(name)) for name, limit in LIMITS.items()))
        claimed, state, end = self._claim(look, self.slots - len(self.running))
        for name, number in claimed:
            self.ran[name].append(number)
            self.running.append(name)
        assert all(self.running.count(name) <= limit for name, limit in LIMITS.items())
        return self.window.learn(look, [name for name, _ in claimed], state, end)

    def end_one(self, number: int) -> None:
        """One of the running jobs ends, if one runs."""
        if self.running:
            del self.running[number % len(self.running)]

    @property
    def claimable(self) -> set[str]:
        """Names of which a job waits and a slot is free."""
        names = {name for entries in self.queue for name, _ in entries}
        return {name for name in names if self.running.count(name) < LIMITS.get(name, self.slots)}

    def _claim(self, look: Look, wanted: int) -> tuple[list[tuple[str, int]], ClaimState, Place]:
        free, skipped, left = dict(look.free_by_name), list(look.start), ENTRIES_A_TURN
        claimed: list[tuple[str, int]] = []
        while len(claimed) < wanted:
            found: tuple[str, int] | None = None
            names_are_full = any(slots <= 0 for slots in free.values())
            for place, entries in enumerate(self.queue):
                if not names_are_full:
                    found = entries.pop(0) if entries else None
                while names_are_full and left > 0 and found is None and skipped[place] < len(entries):
                    left -= 1
                    if free.get(entries[skipped[place]][0], 1) > 0:
                        found = entries.pop(skipped[place])
                    else:
                        skipped[place] += 1
                if found is not None:
                    break
            if found is None:
                break
            claimed.append(found)
            if found[0] in free:
                free[found[0]] -= 1
        if not any(slots <= 0 for slots in free.values()):
            skipped = [0, 0]
        state = ClaimState.SATISFIED
        if len(claimed) < wanted:
            state = ClaimState.EMPTY
            if sum(skipped) > 0 or left <= 0:
                at_end = left > 0 and all(skipped[place] >= len(entries) for place, entries in enumerate(self.queue))
                state = ClaimState.ONLY_FULL_NAMES if at_end else ClaimState.LOOK_FURTHER
        return claimed, state, (skipped[0], skipped[1])


@settings(deadline=None, max_examples=60)
@given(waiting=runs, prioritized=runs, ends=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=300))
def test_whatever_waits_is_found_in_its_order_and_a_worker_sleeps_only_when_nothing_may_run(
    waiting: list[tuple[str, int]], prioritized: list[tuple[str, int]], ends: list[tuple[int, bool]]
) -> None:
    model = Model(jobs(*waiting), jobs(*prioritized))
    everything = Counter(name for entries in model.queue for name, _ in entries)
    enough = 8 * (everything.total() // 150 + 2)  # turns in which the whole queue is searched for every name
    while everything.total() > sum(map(len, model.ran.values())):
        for _ in range(enough):
            state = model.turn()
            if state is ClaimState.EMPTY:
                assert not any(model.queue)
                break
            if state is ClaimState.ONLY_FULL_NAMES:
                assert not model.claimable
                break
            if len(model.running) == model.slots:
                break
            if ends and ends[-1][1]:  # a job ends while the search is still under way
                model.end_one(ends.pop()[0])
        else:
            raise AssertionError(f"{enough} turns, and the search goes on: {model.claimable}")
        model.end_one(ends.pop()[0] if ends else 0)
    assert {name: len(ran) for name, ran in model.ran.items() if ran} == everything
    if not prioritized:
        assert all(ran == sorted(ran) for name, ran in model.ran.items() if name != "o")


def test_a_name_without_a_limit_is_found_behind_a_name_whose_slot_gets_free_before_every_turn() -> None:
    model = Model(jobs(("a", 3_000), ("o", 1)))
    turns = 0
    while not model.ran["o"]:
        model.turn()
        model.running.clear()
        turns += 1
        assert turns <= 50  # 3,000 entries are 20 windows that overlap, and every other turn is for "a"
    assert model.ran["a"] == list(range(len(model.ran["a"])))
    assert len(model.ran["a"]) >= 18  # and "a" did not have to wait for it


def test_two_names_with_a_limit_do_not_starve_each_other() -> None:
    model = Model(jobs(("a", 2_000), ("b", 2_000), ("o", 1)))
    for _ in range(150):
        model.turn()
        model.running.clear()
    assert model.ran["o"]
    assert len(model.ran["a"]) >= 30
    assert len(model.ran["b"]) >= 30
    assert model.ran["b"] == list(range(2_000, 2_000 + len(model.ran["b"])))


def test_after_a_search_in_vain_only_what_is_new_is_looked_for() -> None:
    model = Model(jobs(("a", 3_000)))
    while model.turn() is not ClaimState.ONLY_FULL_NAMES:
        pass
    assert model.window.has_ends
    model.queue[0].append(("o", 3_000))
    model.window.go_on()
    model.turn()
    assert model.ran["o"] == [3_000]


def test_in_a_queue_that_has_become_shorter_the_search_starts_over() -> None:
    model = Model(jobs(("a", 3_000)))
    while model.turn() is not ClaimState.ONLY_FULL_NAMES:
        pass
    del model.queue[0][10:]  # another worker was quick
    model.queue[0][:0] = [("o", -1)]
    model.window.go_on()
    assert model.turn() is ClaimState.LOOK_FURTHER
    model.turn()
    assert model.ran["o"] == [-1]


def test_without_limits_there_is_nothing_to_remember() -> None:
    window = Window()
    look = window.look(())
    assert look == Look(FRONT, ())
    assert window.learn(look, ["x"], ClaimState.SATISFIED, FRONT) is ClaimState.SATISFIED
    assert not window.has_ends


def test_two_turns_under_way_look_in_different_places() -> None:
    model = Model(jobs(("a", 1_000)))
    for _ in range(3):
        model.turn()
    model.running.clear()
    free = tuple(LIMITS.items())
    starts = {model.window.look(free).start for _ in range(2)}
    assert len(starts) == 2
    assert FRONT in starts  # where the next "a" is


def test_a_turn_that_left_a_free_name_out_does_not_say_that_nothing_may_run() -> None:
    model = Model(jobs(("a", 300)))
    assert model.turn() is ClaimState.LOOK_FURTHER
    model.running.clear()
    look = model.window.look(tuple(LIMITS.items()))
    assert look.masked == {"a"}  # this turn goes on from where the first one ended
    assert model.window.learn(look, [], ClaimState.ONLY_FULL_NAMES, (299, 0)) is ClaimState.LOOK_FURTHER


def test_a_name_that_was_looked_for_in_vain_is_looked_for_again_once_jobs_of_it_were_found() -> None:
    window = Window()
    free = (("a", 0), ("b", 2))
    window.learn(window.look(free), [], ClaimState.ONLY_FULL_NAMES, (300, 0))
    window.learn(window.look(free), ["b", "b"], ClaimState.ONLY_FULL_NAMES, (500, 0))  # and passed by the other jobs of "b"
    assert window.look((("a", 0), ("b", 1))) == Look((250, 0), (("a", 0), ("b", 1)))
